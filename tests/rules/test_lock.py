"""The lock: wheels with hashes for every Python and machine that Headwater supports, and no word of where they lie."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from packaging.requirements import Requirement

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


def resolve(directory: Path, name: str, python: str, machine: str) -> list[str]:
    """Ask pip for the wheels of one target without installing any; what is wrong with its answer."""
    want = wanted(name, python, machine)
    requirements = directory / f"{python}-{machine}.txt"
    requirements.write_text("\n".join(want) + "\n")
    report = requirements.with_suffix(".json")
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--dry-run"]
    command += ["--no-deps", "--ignore-installed", "--only-binary", ":all:", "--report", str(report)]
    command += ["--target", str(directory / "nowhere"), "--python-version", python, "--implementation", "cp"]
    for tag in GLIBC:
        command += ["--platform", f"manylinux{tag}_{machine}"]
    done = subprocess.run([*command, "-r", str(requirements)], capture_output=True, text=True, check=False)
    if done.returncode:
        return [f"{python} on {machine}: {done.stderr}"]
    chosen = json.loads(report.read_text())["install"]
    wrong = [] if len(chosen) == len(want) else [f"{python} on {machine}: {len(chosen)} chosen of {len(want)}"]
    hashes = set().union(*want.values())
    for package in chosen:
        archive = package["download_info"]["archive_info"]["hashes"]["sha256"]
        if archive not in hashes:
            wrong.append(f"{python} on {machine}: {package['metadata']['name']}: not the archive that was locked")
    return wrong


# pip reads every index page in plain Python, 5 to 10 s a target: the tools' turn comes with the long tests.
@pytest.mark.parametrize("name", ["app.txt", pytest.param("dev.txt", marks=pytest.mark.long)])
def test_pip_finds_a_locked_wheel_for_every_python_and_machine(tmp_path: Path, name: str) -> None:
    targets = [(name, python, machine) for python in PYTHONS for machine in MACHINES]
    with ThreadPoolExecutor(max_workers=2) as pool:
        answers = list(pool.map(lambda target: resolve(tmp_path, *target), targets))
    wrong = [line for answer in answers for line in answer]
    assert not wrong, "\n".join(wrong)


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
