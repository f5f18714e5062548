"""`rpi-image boot` as a user calls it, on images with an operating system."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.boot import images, nodes, roots
from tests.lib.tools import run

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.boot, pytest.mark.root]

GENERATION = "occidentalis-jessie"
BOOT_OFFSET = images.GENERATIONS[GENERATION].fat.start_sectors * images.SECTOR_BYTES


def boot(image: Path, *options: str) -> tuple[dict[str, Any], str]:
    done = subprocess.run(
        [sys.executable, "-m", "imagebuilder", "boot", str(image), "--json", *options],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(nodes.ROOT)},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    result: dict[str, Any] = json.loads(done.stdout)
    return result, done.stderr


def test_a_pi_2_boots_with_its_device_tree(tmp_path: Path) -> None:
    """The Debian kernel knows the board, so QEMU's Raspberry Pi 2 can start it."""
    image = images.make_image("", GENERATION, tmp_path / "pi2.img")
    image.chmod(0o644)
    tree = roots.kernel().device_trees / "bcm2836-rpi-2-b.dtb"
    run("mcopy", "-i", f"{image}@@{BOOT_OFFSET}", tree, "::/bcm2709-rpi-2-b.dtb")
    result, console = boot(
        image, "--until", "mmcblk0: p1 p2", "--timeout", "300", "--append", "apparmor=0"
    )
    assert result["machine"] == "raspi2b"
    assert result["outcome"] == "matched"
    assert result["cmdline"].startswith("apparmor=0 ")
    assert "Raspberry Pi 2" in console
