"""Ctrl-C in the middle of a batch: it ends at once, and what stays is whole and told truly."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from typing import TYPE_CHECKING

import pytest

from tests.lib.program import EPOCH, rpi_image, small_base, succeed
from tests.lib.tools import need, run

if TYPE_CHECKING:
    from pathlib import Path

# A disk that takes a tenth of a second for 256 KiB, so that one image takes some seconds.
SLOW = textwrap.dedent("""
    import os, sys, time
    from imagebuilder.cli import main
    from imagebuilder.disk import copy as rawcopy
    real = rawcopy.pwrite_all
    def slow(*words):
        time.sleep(0.1)
        return real(*words)
    rawcopy.WRITE_BYTES = 256 << 10
    rawcopy.pwrite_all = slow
    main.main(sys.argv[1:])
""")
ROOM = "profile: armv7\nimage: {{file: {image}, unchecked: true}}\nnodes:\n  - hostname: k-[1-4]\n"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a base image with 40 MiB of data."""
    need("sfdisk", "zstd")
    path = small_base(tmp_path_factory.mktemp("base"))
    fill = ("bs=1M", "seek=18", "count=40", "conv=notrunc", "status=none")
    run("dd", "if=/dev/urandom", f"of={path}", *fill)
    return path


@pytest.fixture
def classroom(tmp_path: Path, base: Path) -> Path:
    """Return a class of four."""
    path = tmp_path / "room.yml"
    path.write_text(ROOM.format(image=base))
    return path


def started(classroom: Path, *arguments: object) -> subprocess.Popen[str]:
    """Start rpi-image on the slow disk."""
    return subprocess.Popen(
        [sys.executable, "-c", SLOW, *map(str, arguments)],
        cwd=classroom.parent,
        env={
            **os.environ,
            "RPI_IMAGE_CACHE": str(classroom.parent / "cache"),
            "SOURCE_DATE_EPOCH": EPOCH,
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(path: Path) -> None:
    until = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < until, f"{path} did not come"
        time.sleep(0.02)


def interrupt(program: subprocess.Popen[str], presses: int = 1) -> None:
    """Press Ctrl-C; the program must end soon, with 130 and no traceback."""
    for press in range(presses):
        time.sleep(0.1 * bool(press))
        program.send_signal(signal.SIGINT)
    _, said = program.communicate(timeout=15)
    assert program.returncode == 130
    assert said.endswith("interrupted\n")
    assert "Traceback" not in said


@pytest.mark.parametrize("presses", [1, 2])
def test_a_batch_ends_at_once_and_leaves_no_part(classroom: Path, presses: int) -> None:
    program = started(classroom, "batch", classroom, "-j", "2")
    wait_for(classroom.parent / "build" / "k-1.img.part")
    interrupt(program, presses)
    assert list((classroom.parent / "build").iterdir()) == []


@pytest.mark.parametrize("presses", [1, 2])
def test_a_build_ends_at_once_and_leaves_no_part(classroom: Path, presses: int) -> None:
    program = started(classroom, "build", "--config", classroom, "--hostname", "k-1")
    wait_for(classroom.parent / "build" / "k-1.img.part")
    interrupt(program, presses)
    assert list((classroom.parent / "build").iterdir()) == []


def half_done(classroom: Path) -> subprocess.Popen[str]:
    """Start to build a class anew, until one image of two is replaced."""
    build = classroom.parent / "build"
    succeed(rpi_image("batch", classroom, cache=classroom.parent / "cache", cwd=classroom.parent))
    before = (build / "k-1.img").stat().st_ino
    classroom.write_text(classroom.read_text() + "timezone: Europe/Paris\n")
    program = started(classroom, "batch", classroom, "-j", "1", "--nodes", "k-1,k-2")
    wait_for(build / "k-2.img.part")
    assert (build / "k-1.img").stat().st_ino != before
    return program


def summed(build: Path) -> list[str]:
    """Have sha256sum check the sums, and give what they name."""
    run("sha256sum", "--check", "--quiet", "SHA256SUMS", cwd=build)
    return [line.split()[1] for line in (build / "SHA256SUMS").read_text().splitlines()]


def test_after_ctrl_c_the_sums_and_the_class_are_what_is_there(classroom: Path) -> None:
    build = classroom.parent / "build"
    interrupt(half_done(classroom))
    assert summed(build) == [f"k-{n}.img" for n in range(1, 5)]
    nodes = json.loads((build / "classroom.json").read_text())["nodes"]
    assert [node["hostname"] for node in nodes] == [f"k-{n}" for n in range(1, 5)]
    for node in nodes:
        manifest = json.loads((build / f"{node['hostname']}.json").read_text())
        assert node["sha256"] == manifest["image_sha256"]


def test_after_kill_9_the_sums_name_no_image_that_is_replaced(classroom: Path) -> None:
    program = half_done(classroom)
    program.send_signal(signal.SIGKILL)
    program.communicate(timeout=60)
    assert summed(classroom.parent / "build") == ["k-3.img", "k-4.img"]
