"""Headwater's wheel in an environment of the user's own: his processor, his tests, his type checker, his folders."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


class Place:
    """A fresh virtual environment with the wheel, and an empty folder."""

    def __init__(self, folder: Path) -> None:
        self.bin = folder / "venv" / "bin"
        self.work = folder / "work"
        self.work.mkdir()
        pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
        wheel = [
            *pip,
            "wheel",
            "--no-deps",
            "--no-build-isolation",
            "--no-index",
            "-w",
            str(folder / "wheel"),
            str(ROOT),
        ]
        subprocess.run(wheel, check=True)
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")], check=True)
        [built] = (folder / "wheel").iterdir()
        python = str(self.bin / "python")
        install = [*pip, "--python", python, "install", "--no-deps", "--no-index", str(built)]
        subprocess.run(install, check=True)
        [site] = (folder / "venv" / "lib").glob("python*/site-packages")
        # What the wheel depends on is taken from here, so that no network is needed: its packages, not its .pth files.
        (site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")

    def run(self, *command: str) -> tuple[int, str]:
        own = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        done = subprocess.run(command, cwd=self.work, env=own, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    def python(self, *arguments: str) -> tuple[int, str]:
        return self.run(str(self.bin / "python"), *arguments)

    def headwater(self, *arguments: str) -> tuple[int, str]:
        return self.run(str(self.bin / "headwater"), *arguments)


@pytest.mark.long("user-processor")
@pytest.mark.timeout(300)
def test_a_processor_is_written_tested_and_typed_and_a_folder_that_shadows_ours_is_named(tmp_path: Path) -> None:
    place = Place(tmp_path)
    code, told = place.python("-c", "import headwater.api, sys; print(headwater.api.__file__)")
    assert (code, str(tmp_path) in told) == (0, True), told
    assert place.headwater("new", "processor", "blocked_pump")[0] == 0
    code, told = place.python("-m", "pytest", "-q", "-p", "no:cacheprovider")
    assert (code, "3 passed" in told) == (0, True), told
    code, told = place.headwater("process", "test", "blocked_pump.toml", "--count", "500")
    assert (code, "the same whole and in 201 pieces" in told) == (0, True), told
    mypy = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--cache-dir=.m"]
    code, told = place.run(*mypy, "--python-executable", str(place.bin / "python"), ".")
    assert code == 0, told
    (place.work / "devices").mkdir()
    (place.work / "devices" / "__init__.py").write_text("PUMPS = ['pump-7']\n")
    code, told = place.python("-m", "pytest", "-q", "-p", "no:cacheprovider")
    assert code != 0
    assert f"{place.work}/devices shadows Headwater's own package “devices”" in told, told
    code, told = place.headwater("process", "test", "blocked_pump.toml", "--count", "500")
    assert code == 0, told  # our own programs do not look there
    (place.work / "processors.py").write_text("")
    (place.work / "devices" / "__init__.py").unlink()  # now no package, and the file is what is in the way
    code, told = place.python("-c", "import headwater.api")
    assert f"{place.work}/processors.py shadows Headwater's own package “processors”" in told, told
