"""Flashing simulated cards of 30 and 90 MB/s, beside dd and bmaptool on the same cards.

Beside dd and bmaptool stand times of whole programs, from their start to their end. Needs root,
nbdkit and bmaptool; takes about six minutes, nearly all of it waiting for the cards.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imagebuilder.disk.bmap import render_bmap
from imagebuilder.disk.extent import Patch
from imagebuilder.disk.reader import open_raw
from imagebuilder.disk.write_set import plan_write_set
from tests.benchmarks.table import Row, report
from tests.device.cards import served
from tests.lib.program import RPI_IMAGE
from tests.lib.tools import run

if TYPE_CHECKING:
    from collections.abc import Sequence

MIB = 1 << 20
BOOT_MIB, ROOT_MIB = 64, 1175
CARD_BYTES = 2_000_000_000
FILLED_BYTES = 600 * 10**6
_IDEAL = "twice the bytes at that rate"
SAFE = ("--yes", "--allow-loop", "--json")


@dataclass(frozen=True)
class Finished:
    """One program that ended: wall and CPU seconds, memory at its peak, what it printed."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    out: str

    @property
    def cards(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.out)["cards"]
        return found


def measure(*command: str | Path) -> Finished:
    """Run a program and measure it with all its children."""
    begin = time.monotonic()
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as said:
        program = subprocess.Popen(command, stdout=out, stderr=said)
        _, status, usage = os.wait4(program.pid, 0)
        seconds = time.monotonic() - begin
        program.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        said.seek(0)
        if program.returncode:
            sys.exit(f"{command[0]} gave {program.returncode}: {said.read()}")
        text = out.read()
    return Finished(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, text)


def make_image(folder: Path) -> Path:
    """Make 1.3 GB: 64 MiB FAT16, ext4 of which a good half is in use, all the rest a hole."""
    tree, boot, root = folder / "tree", folder / "boot", folder / "root"
    chance = random.Random(1)
    tree.mkdir()
    left = FILLED_BYTES
    while left > 0:
        size = min(left, chance.choice([2_000, 50_000, 4_000_000]))
        (tree / f"{left:010}").write_bytes(os.urandom(size))
        left -= size
    run("truncate", "-s", f"{BOOT_MIB}M", boot)
    run("mkfs.vfat", "-F", "16", "-s", "4", boot)
    (folder / "kernel").write_bytes(os.urandom(20 * MIB))
    run("mcopy", "-i", boot, folder / "kernel", "::kernel.img")
    run("truncate", "-s", f"{ROOT_MIB}M", root)
    run("mkfs.ext4", "-q", "-F", "-b", "4096", "-d", tree, root)
    shutil.rmtree(tree)
    image = folder / "bench.img"
    run("truncate", "-s", str((1 + BOOT_MIB + ROOT_MIB) * MIB), image)
    table = f"label: dos\nstart=2048, size={BOOT_MIB * 2048}, type=c\n"
    run("sfdisk", "-q", image, input=table + f"start={(1 + BOOT_MIB) * 2048}, type=83\n")
    for part, start in ((boot, 1), (root, 1 + BOOT_MIB)):
        words = ("bs=1M", f"seek={start}", "conv=notrunc,sparse")
        run("dd", f"if={part}", f"of={image}", *words)
        part.unlink()
    return image


def flash(devices: Sequence[str], image: Path, *options: str) -> Finished:
    """Flash with the program itself."""
    return measure(*RPI_IMAGE, "flash", *devices, "--image", image, *SAFE, *options)


def write_bmap(image: Path, bmap: Path) -> None:
    """Return bmaptool the blocks that the file systems use.

    `bmaptool create` would leave out blocks that are in use and zero: over garbage such a card
    is corrupt, so that is not the same work.
    """
    with open_raw(image) as raw:
        bmap.write_text(render_bmap(raw, plan_write_set(raw, Patch()), image.name))


def one_card(folder: Path, image: Path, speed: int) -> tuple[list[Row], float]:
    """Measure ours, dd and bmaptool on one card of this speed; also give our seconds of writing."""
    bmap = folder / "bench.bmap"
    if not bmap.exists():
        write_bmap(image, bmap)
    place = folder / f"at-{speed}"
    place.mkdir()
    with served(place, "memory", str(CARD_BYTES), speed=speed) as device:
        ours = flash([device], image)
        dd = measure("dd", f"if={image}", f"of={device}", "bs=4M", "oflag=direct")
        peer = measure("bmaptool", "copy", "--bmap", bmap, image, device)
    card = ours.cards[0]
    ideal = 2 * card["set_bytes"] / speed / 10**6
    # What is not verifying counts as writing: starting, planning, claiming, releasing.
    writing = ours.seconds - (card["seconds"] - card["write_seconds"])
    what = f"1.3 GB image, card of {speed} MB/s"
    return [
        _row(f"{what}: claim to last verified byte", card["seconds"], ideal, _IDEAL, 1.05),
        _row(f"{what}: write", writing, dd.seconds, "dd bs=4M oflag=direct", 0.60),
        _row(
            f"{what}: write", writing, peer.seconds, "bmaptool copy, bmap of the blocks in use", 1.0
        ),
    ], card["write_seconds"]


def eight_cards(folder: Path, image: Path, speed: int = 30, count: int = 8) -> list[Row]:
    """Measure many cards at once: throughput, CPU and memory."""
    with ExitStack() as stack:
        devices = []
        for number in range(count):
            place = folder / f"of-eight-{number}"
            place.mkdir()
            card = served(place, "memory", str(CARD_BYTES), speed=speed)
            devices.append(stack.enter_context(card))
        done = flash(devices, image)
    moved = sum(2 * card["set_bytes"] for card in done.cards) / 10**6 / done.seconds
    share = moved / (count * speed)
    cores = done.cpu_seconds / done.seconds
    peak = done.peak_bytes / MIB
    what = f"{count} cards of {speed} MB/s"
    total = f"{count * speed} MB/s"
    return [
        Row(what, f"{moved:.0f} MB/s", total, f"{share:.2f}", "≥ 0.95", share >= 0.95),
        Row(f"{what}: CPU", f"{cores:.2f} cores", "", "", "< 2", cores < 2),
        Row(f"{what}: memory", f"{peak:.0f} MiB", "", "", "< 300 MiB", peak < 300),
    ]


def one_slow_card(folder: Path, image: Path, alone: float, speed: int = 30) -> list[Row]:
    """Measure what a slow card costs the others."""
    with ExitStack() as stack:
        devices = []
        for name, rate in (("slow", speed // 3), ("fast-1", speed), ("fast-2", speed)):
            (folder / name).mkdir()
            card = served(folder / name, "memory", str(CARD_BYTES), speed=rate)
            devices.append(stack.enter_context(card))
        done = flash(devices, image, "--no-verify")
    fast = max(card["write_seconds"] for card in done.cards[1:])
    slow = done.cards[0]["write_seconds"]
    what = f"two cards of {speed} MB/s beside one of {speed // 3} ({slow:.0f} s)"
    return [_row(what, fast, alone, "alone", 1.05)]


def _row(what: str, ours: float, theirs: float, name: str, most: float) -> Row:
    ratio = ours / theirs
    other = f"{theirs:.1f} s ({name})"
    return Row(what, f"{ours:.1f} s", other, f"{ratio:.2f}", f"≤ {most}", ratio <= most)


def main() -> None:
    """Run all of it."""
    place = "/dev/shm" if shutil.disk_usage("/dev/shm").free > 4 * 10**9 else None
    with tempfile.TemporaryDirectory(dir=place) as name:
        folder = Path(name)
        image = make_image(folder)
        rows, alone = one_card(folder, image, 30)
        rows += one_card(folder, image, 90)[0]
        rows += eight_cards(folder, image)
        rows += one_slow_card(folder, image, alone)
    report("Flash", rows)


if __name__ == "__main__":
    main()
