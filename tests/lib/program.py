"""Runs the program as a user would, and reads what it wrote with mtools."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from imagebuilder.resources import shipped_folder
from tests.lib.program_server import TIMEOUT_SECONDS, ProgramServer
from tests.lib.tools import run

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

SAMPLE = shipped_folder("profiles") / "sample" / "hypriot-rpi-sample.img.zst"
SAMPLE_SHA256 = SAMPLE.with_name(SAMPLE.name + ".sha256").read_text().split()[0]
BOOT_OFFSET_BYTES = 2048 * 512
EPOCH = "1700000000"
RPI_IMAGE = (sys.executable, "-m", "imagebuilder")


def rpi_image(
    *arguments: object,
    cache: Path,
    cwd: Path | None = None,
    before: Sequence[str] = (),
    **environment: str,
) -> subprocess.CompletedProcess[str]:
    """Run rpi-image (by the command `before` it) with its own cache, no terminal, a fixed time."""
    variables = {"RPI_IMAGE_CACHE": str(cache), "SOURCE_DATE_EPOCH": EPOCH, **environment}
    words = [str(argument) for argument in arguments]
    if not before:
        return run_program(words, cwd, variables)
    return _start([*before, *RPI_IMAGE, *words], cwd, variables)


def run_program(
    words: list[str], cwd: Path | None = None, environment: Mapping[str, str] = MappingProxyType({})
) -> subprocess.CompletedProcess[str]:
    """Run rpi-image without a terminal; `environment` is added to that of the tests.

    Python is started anew where a variable is given that it reads at its start.
    """
    if any(name.startswith(("PYTHON", "LC_", "LANG")) for name in environment):
        return _start([*RPI_IMAGE, *words], cwd, environment)
    return _server().run(words, cwd, {**os.environ, **environment})


def _start(
    command: list[str], cwd: Path | None, environment: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        timeout=TIMEOUT_SECONDS,
        env={**os.environ, **environment},
    )


@functools.cache
def _server() -> ProgramServer:
    return ProgramServer.start()


def stop_program() -> None:
    """End what rpi_image has started."""
    if _server.cache_info().currsize:
        _server().stop()
        _server.cache_clear()


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
    """Check the boot partition, the first one, with fsck.vfat."""
    table = json.loads(run("sfdisk", "--json", image))["partitiontable"]
    start, size = (table["partitions"][0][key] for key in ("start", "size"))
    part = folder / f"{image.name}.boot"
    run("dd", f"if={image}", f"of={part}", f"skip={start}", f"count={size}", "status=none")
    run("fsck.vfat", "-n", part)
    part.unlink()


def small_base(folder: Path) -> Path:
    """Make a base of 24 MiB with the stock files of the sample, by sfdisk, mkfs.vfat and mtools."""
    unpacked, stock, boot, path = (folder / name for name in ("all", "stock", "boot", "small.img"))
    run("zstd", "-dqf", SAMPLE, "-o", unpacked)
    stock.mkdir()
    run("mcopy", "-s", "-m", "-i", f"{unpacked}@@{BOOT_OFFSET_BYTES}", "::", stock)
    unpacked.unlink()
    run("truncate", "-s", "16M", boot)
    run("mkfs.vfat", "--invariant", "-F", "16", "-s", "4", "-R", "4", "-r", "512", boot)
    run("mcopy", "-s", "-m", "-i", boot, *sorted(stock.iterdir()), "::")
    run("truncate", "-s", "24M", path)
    table = "label: dos\nstart=2048, size=32768, type=c\nstart=34816, type=83\n"
    run("sfdisk", "--quiet", path, input=table)
    run("dd", f"if={boot}", f"of={path}", "bs=1M", "seek=1", "conv=notrunc,sparse", "status=none")
    run("dd", "if=/dev/urandom", f"of={path}", "bs=1M", "seek=18", "count=4", "conv=notrunc",
        "status=none")  # fmt: skip
    return path
