"""Runs the program as a user would, and reads what it wrote with mtools."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from imagebuilder.resources import shipped_folder
from tests.lib.tools import run

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SAMPLE = shipped_folder("profiles") / "sample" / "hypriot-rpi-sample.img.zst"
SAMPLE_SHA256 = SAMPLE.with_name(SAMPLE.name + ".sha256").read_text().split()[0]
BOOT_OFFSET_BYTES = 2048 * 512
EPOCH = "1700000000"


def rpi_image(
    *arguments: object,
    cache: Path,
    cwd: Path | None = None,
    before: Sequence[str] = (),
    **environment: str,
) -> subprocess.CompletedProcess[str]:
    """Run rpi-image (by the command `before` it) with its own cache, no terminal, a fixed time."""
    return subprocess.run(
        [*before, sys.executable, "-m", "imagebuilder", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        timeout=300,
        env={
            **os.environ,
            "RPI_IMAGE_CACHE": str(cache),
            "SOURCE_DATE_EPOCH": EPOCH,
            **environment,
        },
    )


def succeed(done: subprocess.CompletedProcess[str]) -> subprocess.CompletedProcess[str]:
    """Return what ran, which must have gone well."""
    assert done.returncode == 0, done.stderr
    return done


def emitted(done: subprocess.CompletedProcess[str]) -> Any:
    """Return the JSON that a successful run printed."""
    return json.loads(succeed(done).stdout)


def mtype(image: Path, path: str, offset_bytes: int = BOOT_OFFSET_BYTES) -> str:
    """Read a file of the boot partition with mtools."""
    return run("mtype", "-i", f"{image}@@{offset_bytes}", f"::{path}")


def node_env(image: Path) -> dict[str, str]:
    """Read node.env as sh does."""
    names = [
        line.split("=")[0]
        for line in mtype(image, "rpi-image/node.env").splitlines()
        if "=" in line and line[0].isupper()
    ]
    text = mtype(image, "rpi-image/node.env")
    script = text + "\n" + "\n".join(f'printf "%s\\0" "${name}"' for name in names)
    printed = run("sh", "-c", script).split("\0")
    return dict(zip(names, printed, strict=False))


def fsck(image: Path, folder: Path) -> None:
    """Check the boot partition of the sample's geometry with fsck.vfat."""
    part = folder / f"{image.name}.boot"
    run("dd", f"if={image}", f"of={part}", "bs=1M", "skip=1", "count=64", "status=none")
    run("fsck.vfat", "-n", part)
    part.unlink()


def small_base(folder: Path) -> Path:
    """Make a base of 72 MiB with the stock files of the sample, by sfdisk, mkfs.vfat and mtools."""
    unpacked = folder / "sample.img"
    run("zstd", "-dqf", SAMPLE, "-o", unpacked)
    path = folder / "small.img"
    run("truncate", "-s", "72M", path)
    table = "label: dos\nstart=2048, size=131072, type=c\nstart=133120, type=83\n"
    run("sfdisk", "--quiet", path, input=table)
    run("dd", f"if={unpacked}", f"of={path}", "bs=1M", "skip=1", "seek=1", "count=64",
        "conv=notrunc,sparse", "status=none")  # fmt: skip
    run("dd", "if=/dev/urandom", f"of={path}", "bs=1M", "seek=66", "count=4", "conv=notrunc",
        "status=none")  # fmt: skip
    unpacked.unlink()
    return path
