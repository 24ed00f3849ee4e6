"""The lock: wheels with hashes for every Python and machine that Headwater supports, and no word of where they lie."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from tests.support.tree import ROOT

PYTHONS = ("3.11", "3.12", "3.13")
MACHINES = ("x86_64", "aarch64")
# Wheels name the oldest glibc that they run on; Debian 12 and Raspberry Pi OS 12 have 2.36.
GLIBC = ("2014", *(f"_2_{minor}" for minor in range(18, 37)))


def locked(name: str) -> list[tuple[Requirement, set[str]]]:
    """The requirements of a lock file with their SHA-256 hashes."""
    text = (ROOT / "requirements" / name).read_text().replace("\\\n", " ")
    rows = [line for line in text.splitlines() if line and not line.lstrip().startswith("#")]
    return [
        (Requirement(row.split(" --hash", 1)[0].strip()), set(re.findall(r"--hash=sha256:([0-9a-f]{64})", row)))
        for row in rows
    ]


def wanted(name: str, python: str, machine: str) -> dict[str, set[str]]:
    """`name==version` -> hashes, for one target: pip itself reads markers by the Python it runs on."""
    target = {
        "python_version": python,
        "python_full_version": f"{python}.9",
        "platform_machine": machine,
        "sys_platform": "linux",
        "platform_system": "Linux",
        "os_name": "posix",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
    }
    return {
        f"{requirement.name}{requirement.specifier}": hashes
        for requirement, hashes in locked(name)
        if requirement.marker is None or requirement.marker.evaluate(target)
    }


Wheel = dict[str, Any]  # an entry of pip's installation report


def resolve(directory: Path, python: str, machine: str, want: dict[str, set[str]]) -> list[Wheel]:
    """Ask pip for the wheels of one target without installing any; every one must be an archive that was locked."""
    requirements = directory / f"{python}-{machine}.txt"
    requirements.write_text("\n".join(want) + "\n")
    report = requirements.with_suffix(".json")
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--dry-run"]
    command += ["--no-deps", "--ignore-installed", "--only-binary", ":all:", "--report", str(report)]
    command += ["--target", str(directory / "nowhere"), "--python-version", python, "--implementation", "cp"]
    for tag in GLIBC:
        command += ["--platform", f"manylinux{tag}_{machine}"]
    done = subprocess.run([*command, "-r", str(requirements)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{python} on {machine}: {done.stderr}"
    chosen: list[Wheel] = json.loads(report.read_text())["install"]
    assert len(chosen) == len(want), f"{python} on {machine}"
    hashes = set().union(*want.values())
    for wheel in chosen:
        archive = wheel["download_info"]["archive_info"]["hashes"]["sha256"]
        assert archive in hashes, f"{python} on {machine}: {wheel['metadata']['name']} is not the locked archive"
    return chosen


def fits_everywhere(wheel: Wheel) -> bool:
    """A wheel of pure Python that every supported Python accepts: once found, it need not be asked for again."""
    metadata = wheel["metadata"]
    pythons = SpecifierSet(metadata.get("requires_python") or "")
    return wheel["download_info"]["url"].endswith("-none-any.whl") and all(python in pythons for python in PYTHONS)


# pip reads every index page in plain Python, up to 10 s a target: the tools' turn comes with the long tests.
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ["app.txt", pytest.param("dev.txt", marks=pytest.mark.long("lock"))])
def test_pip_finds_a_locked_wheel_for_every_python_and_machine(tmp_path: Path, name: str) -> None:
    first, *others = [(python, machine) for python in PYTHONS for machine in MACHINES]
    wheels = resolve(tmp_path, *first, wanted(name, *first))
    settled = {
        f"{canonicalize_name(wheel['metadata']['name'])}=={wheel['metadata']['version']}"
        for wheel in wheels
        if fits_everywhere(wheel)
    }
    assert 0 < len(settled) < len(wheels)

    def rest(target: tuple[str, str]) -> None:
        want = {key: hashes for key, hashes in wanted(name, *target).items() if key not in settled}
        resolve(tmp_path, *target, want)

    with ThreadPoolExecutor(max_workers=2) as pool:
        list(pool.map(rest, others))


@pytest.mark.parametrize("name", ["app.txt", "dev.txt", "data.txt"])
def test_every_requirement_is_pinned_and_hashed(name: str) -> None:
    for requirement, hashes in locked(name):
        assert [clause.operator for clause in requirement.specifier] == ["=="], requirement
        assert hashes, requirement


@pytest.mark.parametrize("name", ["app.txt", "dev.txt", "data.txt"])
def test_no_address_is_named(name: str) -> None:
    text = (ROOT / "requirements" / name).read_text()
    assert "://" not in text
    assert "index-url" not in text
    assert "find-links" not in text


def test_the_tools_stand_on_the_product() -> None:
    """What a wheel is installed beside (app.txt) is what was tested (dev.txt)."""
    tested = {str(requirement): hashes for requirement, hashes in locked("dev.txt")}
    for requirement, hashes in locked("app.txt"):
        assert tested.get(str(requirement)) == hashes
