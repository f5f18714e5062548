"""Simulated cards: loop devices over files, or over nbdkit where a card must misbehave."""

from __future__ import annotations

import os
import random
import subprocess
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from tests.lib.program import run_program
from tests.lib.tools import need, need_root, run

if TYPE_CHECKING:
    from collections.abc import Iterator

GARBAGE = bytes((i * 37 + 11) % 251 + 1 for i in range(1 << 20))  # 1 MiB without a zero byte


@contextmanager
def loop(
    file: Path, *, read_only: bool = False, sector_bytes: int = 512, direct: bool = True
) -> Iterator[str]:
    """Return a loop device over a file; not `direct`: as a plain `losetup` makes it."""
    need_root()
    need("losetup")
    options = ["--read-only"] if read_only else []
    options += ["--direct-io=on"] if direct else []
    device = run(
        "losetup",
        "--find",
        "--show",
        f"--sector-size={sector_bytes}",
        *options,
        file,
    ).strip()
    try:
        yield device
    finally:
        run("losetup", "--detach", device, check=False)


def garbage_file(path: Path, size_bytes: int) -> Path:
    """Make a file without a single zero byte: what is left over from an earlier life."""
    with path.open("wb") as file:
        for _ in range(size_bytes // len(GARBAGE)):
            file.write(GARBAGE)
        file.write(GARBAGE[: size_bytes % len(GARBAGE)])
    return path


@contextmanager
def card(folder: Path, size_bytes: int) -> Iterator[str]:
    """Return a good card full of garbage, in memory where the machine has room there."""
    memory = Path("/dev/shm")
    place = memory if os.access(memory, os.W_OK) else folder
    with (
        tempfile.TemporaryDirectory(dir=place) as held,
        loop(garbage_file(Path(held) / "card.raw", size_bytes)) as device,
    ):
        yield device


@contextmanager
def served(folder: Path, *plugin: str | Path, speed: int = 0, direct: bool = True) -> Iterator[str]:
    """Return a loop device over what an nbdkit plugin serves, at most at `speed` MB/s."""
    need_root()
    need("nbdkit", "nbdfuse", "fusermount3")
    point = folder / "served"
    point.mkdir()
    file = point / "card"
    filters = ("--filter=rate",) if speed else ()
    rate = (f"rate={speed * 8_000_000}", "burstiness=0.05") if speed else ()
    command: list[str | Path] = ["nbdfuse", file, "--command", "nbdkit", "-s", "--exit-with-parent"]
    with (folder / "nbdkit.log").open("wb") as log:
        server = subprocess.Popen([*command, *filters, *plugin, *rate], stderr=log)
    try:
        _wait_for(file, server)
        with loop(file, direct=direct) as device:
            yield device
    finally:
        run("fusermount3", "-u", "-z", point, check=False)
        try:
            server.wait(timeout=10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


_PLUGIN = """
import time
import nbdkit
API_VERSION = 2
seen = {"writes": 0}
def thread_model(): return nbdkit.THREAD_MODEL_SERIALIZE_ALL_REQUESTS
def open(readonly): return 1
def get_size(h): return size
def can_flush(h): return True
def flush(h, flags): pass
def plain_read(buf, offset): buf[:] = store[offset:offset + len(buf)]
def plain_write(buf, offset): store[offset:offset + len(buf)] = buf
"""


@contextmanager
def lying_card(folder: Path, size_bytes: int, body: str, *, direct: bool = True) -> Iterator[str]:
    """Return a card whose `pread` and `pwrite` a few lines of Python decide.

    The lines see `store` (a bytearray), `plain_read`, `plain_write`, and `seen`, a dict of theirs.
    """
    script = folder / "lying.py"
    script.write_text(
        f"size = {size_bytes}\n"
        f"store = bytearray({GARBAGE[:251]!r} * (size // 251 + 1))[:size]\n{_PLUGIN}{body}"
    )
    with served(folder, "python", script, direct=direct) as device:
        yield device


def _wait_for(file: Path, server: subprocess.Popen[bytes]) -> None:
    for _ in range(200):
        if file.exists() and file.stat().st_size:
            return
        if server.poll() is not None:
            break
        time.sleep(0.05)
    message = (file.parent.parent / "nbdkit.log").read_text()
    raise AssertionError(f"nbdfuse did not start: {message}")


MIB = 1 << 20
BOOT_START, BOOT_MIB = 1, 16
ROOT_START, ROOT_MIB = 17, 24
ODD_BYTES = 100  # the images of 2015 are not whole sectors either
IMAGE_BYTES = (ROOT_START + ROOT_MIB + 1) * MIB + ODD_BYTES
CARD_BYTES = 48 * MIB
LAYOUTS = {
    "wheezy": ("-b", "4096", "-O", "^64bit,^metadata_csum,uninit_bg"),
    "bookworm": ("-b", "4096", "-O", "64bit,metadata_csum,flex_bg"),
    "small-groups": ("-b", "1024", "-g", "2048", "-O", "^flex_bg,uninit_bg,^metadata_csum"),
}


@dataclass(frozen=True)
class SmallImage:
    """A disk image made by the distribution's tools, and the folder its root was filled from."""

    path: Path
    tree: Path


def make_image(folder: Path, layout: str = "bookworm") -> SmallImage:
    """Make an image with a FAT16 boot partition, an ext4 root and data in the gaps."""
    need("sfdisk", "mkfs.vfat", "mcopy", "mkfs.ext4")
    tree = _make_tree(folder / "tree")
    boot, root, image = folder / "boot.fs", folder / "root.fs", folder / "small.img"
    run("truncate", "-s", str(BOOT_MIB * MIB), boot)
    run("mkfs.vfat", "-F", "16", "-s", "4", boot)
    for name, text in BOOT_FILES.items():
        (folder / name).write_text(text)
        run("mcopy", "-i", boot, folder / name, f"::{name}")
    (folder / "kernel.img").write_bytes(random.Random(7).randbytes(3 * MIB))
    run("mcopy", "-i", boot, folder / "kernel.img", "::kernel.img")
    run("truncate", "-s", str(ROOT_MIB * MIB), root)
    run("mkfs.ext4", "-q", "-F", *LAYOUTS[layout], "-d", tree, root)
    with image.open("wb") as file:
        file.truncate(IMAGE_BYTES)
        file.seek(MIB // 2)
        file.write(b"a boot loader may lie here")
        file.seek(IMAGE_BYTES - ODD_BYTES)
        file.write(b"!" * ODD_BYTES)
    table = f"label: dos\nstart=2048, size={BOOT_MIB * 2048}, type=c\n"
    table += f"start={ROOT_START * 2048}, size={ROOT_MIB * 2048}, type=83\n"
    run("sfdisk", "-q", image, input=table)
    for part, start in ((boot, BOOT_START), (root, ROOT_START)):
        run("dd", f"if={part}", f"of={image}", "bs=1M", f"seek={start}", "conv=notrunc")
    return SmallImage(image, tree)


BOOT_FILES = {
    "occidentalis.txt": "hostname=black-pearl\n",
    "cmdline.txt": "+dwc_otg.lpm_enable=0 console=tty1 root=/dev/mmcblk0p2 rootwait\n",
    "config.txt": "gpu_mem=16\n",
}


def _make_tree(tree: Path) -> Path:
    chance = random.Random(42)
    for number in range(30):
        path = tree / f"etc{number % 3}" / f"file-{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(chance.randbytes(chance.randrange(500_000)))
    (tree / "zeros").write_bytes(bytes(2 * MIB))  # allocated and zero: must be written
    return tree


def flash(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `rpi-image flash` as a program of its own."""
    return rpi_image("flash", *arguments, **environment)


def rpi_image(*words: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run any command of `rpi-image` as a program of its own."""
    return run_program([str(word) for word in words], environment=environment)


def state_of_nodes(classroom: Path) -> dict[str, str]:
    """Return what the ledger says of each node."""
    ledger = yaml.safe_load(classroom.with_suffix(".cards.yml").read_text())
    return {entry["node"]: entry["state"] for entry in ledger["cards"]}


def head_of(device: str | Path, size_bytes: int = 4 * MIB, offset_bytes: int = 0) -> bytes:
    """Read a device past the kernel's memory of it."""
    command = ["dd", f"if={device}", "bs=512", f"skip={offset_bytes // 512}"]
    command += [f"count={size_bytes // 512}", "iflag=direct,fullblock", "status=none"]
    return subprocess.run(command, capture_output=True, check=True).stdout


def boots(device: str | Path) -> bool:
    """Return whether a Pi would find anything: a signature in the first sector."""
    return head_of(device, 512)[510:] == b"\x55\xaa"


def is_void(device: str | Path) -> bool:
    """Return whether the first chunk is all zeros."""
    return not any(head_of(device))


def is_same(device: str, image: Path) -> bool:
    """Return whether a device begins with an image."""
    need("cmp")
    command = ["cmp", "-s", "-n", str(image.stat().st_size), str(image), device]
    return subprocess.run(command, check=False).returncode == 0
