"""What `make dist` builds: the same bytes anywhere, and a wheel that the sdist gives as well."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email.parser import BytesParser
from pathlib import Path

import pytest

from tests.lib.tools import run

ROOT = Path(__file__).parents[2]
NAMES = ("pyproject.toml", "LICENSE", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md",
         "Makefile", ".gitignore")  # fmt: skip
FOLDERS = ("imagebuilder", "overlays", "profiles", "man", "docs", "tests", ".ci")


def copied(folder: Path, time: int, mask: int) -> Path:
    """Copy the checkout, with other times and modes."""
    for name in FOLDERS:
        shutil.copytree(
            ROOT / name, folder / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__")
        )
    for name in NAMES:
        shutil.copy(ROOT / name, folder / name)
    for path in folder.rglob("*"):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode & ~mask)
            os.utime(path, (time, time))
    return folder


def built(source: Path, folder: Path, **environment: str) -> dict[str, bytes]:
    """Build as `make dist` does, and return the files by their names."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-t", "wheel", "-d", folder],
        check=True, cwd=source, capture_output=True, env={**os.environ, **environment},
    )  # fmt: skip
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    built(ROOT, folder)
    return folder


def test_two_builds_give_the_same_bytes(dist: Path, tmp_path: Path) -> None:
    first = {path.name: path.read_bytes() for path in dist.iterdir()}
    (tmp_path / "a").mkdir()
    source = copied(tmp_path / "a", 1_500_000_000, 0o077)
    second = built(source, tmp_path / "out", TZ="Asia/Tokyo", LC_ALL="C", PYTHONHASHSEED="7")
    assert sorted(first) == sorted(second)
    assert [name for name in first if first[name] != second[name]] == []


def test_the_sdist_gives_the_same_wheel(dist: Path, tmp_path: Path) -> None:
    (archive,) = dist.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    (wheel,) = dist.glob("*.whl")
    assert built(source, tmp_path / "out")[wheel.name] == wheel.read_bytes()


def test_the_checks_of_the_index_pass(dist: Path) -> None:
    files = [str(path) for path in sorted(dist.iterdir())]
    told = run(sys.executable, "-m", "twine", "--no-color", "check", "--strict", *files)
    assert told.count("PASSED") == 2
    wheels = [name for name in files if name.endswith(".whl")]
    assert "OK" in run(sys.executable, "-m", "check_wheel_contents", *wheels)


def test_the_description_and_the_licences_are_in_the_wheel(dist: Path) -> None:
    (wheel,) = dist.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = [name for name in archive.namelist() if name.endswith("/METADATA")]
        fields = BytesParser().parsebytes(archive.read(metadata))
    assert fields["Description-Content-Type"] == "text/markdown"
    assert "# rpi-image" in fields.get_payload()
    assert len(fields.get_all("License-File") or ()) == 2
