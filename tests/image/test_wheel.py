"""The wheel: it carries profiles, overlays and the sample, and works far from the checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.lib.tools import run

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel as `make wheel` does."""
    folder = tmp_path_factory.mktemp("dist")
    run(
        sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation",
        "-w", folder, ROOT,
    )  # fmt: skip
    return next(folder.glob("*.whl"))


def test_the_wheel_ships_what_the_program_needs_and_no_more(wheel: Path) -> None:
    names = {info.filename: info.file_size for info in zipfile.ZipFile(wheel).infolist()}
    data = "imagebuilder/_data/"
    for path in ("profiles", "overlays"):
        for file in (ROOT / path).rglob("*"):
            if file.is_file() and "__pycache__" not in file.parts:
                assert f"{data}{file.relative_to(ROOT)}" in names, file
    assert not [name for name in names if name.startswith("tests/")]
    pages = {path.relative_to(ROOT / "man").as_posix() for path in (ROOT / "man").rglob("*.[15]")}
    shared = {name.partition(".data/data/share/man/")[2] for name in names} - {""}
    assert shared == pages
    sample = names[f"{data}profiles/sample/hypriot-rpi-sample.img.zst"]
    assert sample <= 200 << 10
    assert wheel.stat().st_size < 1 << 20


def test_the_installed_wheel_does_the_main_job(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    run(sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", site, wheel)
    script = "import imagebuilder, sys; print(imagebuilder.__file__)"
    environment = {**os.environ, "PYTHONPATH": str(site), "RPI_IMAGE_CACHE": str(tmp_path / "c")}

    def python(*arguments: str) -> str:
        return subprocess.run(
            [sys.executable, *arguments],
            capture_output=True, text=True, check=True, cwd=tmp_path, env=environment,
        ).stdout  # fmt: skip

    assert python("-c", script).startswith(str(site))
    program = ("-m", "imagebuilder")
    python(*program, "build", "--profile", "armv6", "--hostname", "pi-03", "--image", "sample")
    report = json.loads(python(*program, "inspect", "build/pi-03.img", "--json"))
    assert (report["hostname"], report["arch"]) == ("pi-03", "armv6")
