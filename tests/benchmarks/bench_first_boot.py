"""The first boot of a node and a later one, beside its stock image, on a slow card.

The card writes 4 MB/s, as a poor one does. An SD card knows no flush, and Linux sends it none; what
a flush costs is the wait for the writes of a commit, so each burst of writes begins with 20 ms.

Needs root and what `make test-boot` needs; takes about twenty minutes. BENCH_GENERATIONS names
other generations.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from imagebuilder.boot import emulator
from tests.benchmarks.table import Row, report
from tests.boot import images, nodes, recorder
from tests.boot.pi import Pi
from tests.lib.tools import run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imagebuilder.boot.firmware import Firmware

GENERATIONS = ("occidentalis-jessie", "firstrun-bookworm")
FIRST, LATER = 1.15, 1.03
LIMIT_SECONDS = 900.0
RUNS = 3
PROMPT = rb" login: "
# A loaded machine would make a boot of ours look slow: both take turns, and the quickest counts.
PLUGIN = """
import os, time
import nbdkit
API_VERSION = 2
BURST_SECONDS, BYTES_PER_SECOND, PAUSE_SECONDS = 0.020, 4e6, 0.050
last = 0.0
def thread_model(): return nbdkit.THREAD_MODEL_SERIALIZE_ALL_REQUESTS
def config(key, value):
    global medium
    medium = os.open(value, os.O_RDWR)
def open(readonly): return medium
def get_size(h): return os.fstat(h).st_size
def can_flush(h): return True
def pread(h, buf, offset, flags): os.preadv(h, [buf], offset)
def pwrite(h, buf, offset, flags):
    global last
    os.pwrite(h, buf, offset)
    starts = time.monotonic() - last > PAUSE_SECONDS
    time.sleep(len(buf) / BYTES_PER_SECOND + starts * BURST_SECONDS)
    last = time.monotonic()
def flush(h, flags): pass
"""


@dataclass
class SlowPi(Pi):
    """A Pi whose card is a raw file behind a server that is as slow as a poor card."""

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.medium = self.folder / "medium"
        run("cp", "--sparse=always", self.image, self.medium)
        run("truncate", "-s", str(emulator.card_bytes(self.image.stat().st_size)), self.medium)
        self.socket = self.folder / "socket"
        self.card = self.folder / "card.qcow2"

    def power_on(self) -> None:
        """Start from what is on the medium; the firmware of a Pi reads it without our server."""
        self.card.unlink(missing_ok=True)
        emulator.make_card(self.medium, self.card)
        super().power_on()

    def command(self, firmware: Firmware, witness: int) -> list[str]:
        """Return QEMU's command line with the server in place of the file."""
        disk = f"if=none,id=sd,format=raw,cache=writeback,file=nbd+unix:///?socket={self.socket}"
        words = super().command(firmware, witness)
        place = next(n for n, word in enumerate(words) if str(self.card) in word)
        name = words[place].split("id=")[1].split(",")[0]
        words[place] = disk.replace("id=sd", f"id={name}")
        return words

    @contextmanager
    def served(self) -> Iterator[SlowPi]:
        """Serve the medium until the end."""
        script = self.folder / "slow.py"
        script.write_text(PLUGIN)
        server = subprocess.Popen(
            ["nbdkit", "-f", "-U", self.socket, "python", script, f"file={self.medium}"]
        )
        try:
            while not self.socket.exists():
                assert server.poll() is None, "nbdkit did not start"
                time.sleep(0.05)
            yield self
        finally:
            self.cut()
            server.terminate()
            server.wait(timeout=30)
            shutil.rmtree(self.folder)


@dataclass(frozen=True)
class Seconds:
    """From power-on to the login prompt, to a running Docker or a joined node, and once more."""

    prompt: float
    ready: float
    later: float


def measure(image: Path, folder: Path, ready: str) -> Seconds:
    """Boot a card made from the image twice; `ready` is what its status or Docker must show."""
    with SlowPi(image, folder).served() as pi:
        begin = time.monotonic()
        pi.power_on()
        pi.wait_for(PROMPT, LIMIT_SECONDS)
        # A first boot may restart: the prompt that counts is the one after which it is ready.
        prompt = time.monotonic()
        boots = pi.boots
        pi.tell_until(STATUS, ready, LIMIT_SECONDS)
        done = time.monotonic()
        if pi.boots != boots:
            prompt = done
        pi.tell("sync")
        pi.cut()
        again = time.monotonic()
        pi.power_on()
        pi.wait_for(PROMPT, LIMIT_SECONDS)
        return Seconds(prompt - begin, done - begin, time.monotonic() - again)


STATUS = "cat /var/lib/rpi-image/status.json 2>/dev/null; docker info 2>/dev/null"
JOINED, DOCKER = r'"swarm": "joined as', "Storage Driver"


def built(generation: str, folder: Path) -> Path:
    tarball = recorder.make_tarball(folder / "images.tar")
    settings = {"cluster": {"tarballs": [str(tarball)]}}
    return nodes.build(nodes.Node(generation, settings=settings), folder)


def rows_of(generation: str, folder: Path) -> list[Row]:
    """Measure a generation, its stock image and a node of it by turns."""
    folder.mkdir()
    image = built(generation, folder)
    stock, ours = [], []
    for number in range(RUNS):
        stock.append(measure(images.golden(generation), folder / f"stock-{number}", DOCKER))
        ours.append(measure(image, folder / f"node-{number}", JOINED))
    found = []
    for what, field, target in (
        ("first boot to the login prompt", "prompt", FIRST),
        ("first boot to joined (stock: to Docker)", "ready", 0.0),
        ("later boot to the login prompt", "later", LATER),
    ):
        mine, theirs = (min(getattr(each, field) for each in runs) for runs in (ours, stock))
        ratio = mine / theirs
        found.append(
            Row(
                f"{generation}: {what}", f"{mine:.1f} s", f"{theirs:.1f} s (stock image)",
                f"{ratio:.2f}", f"<= {target}" if target else "(told only)",
                not target or ratio <= target,
            )
        )  # fmt: skip
    return found


def main() -> None:
    """Measure and report."""
    named = os.environ.get("BENCH_GENERATIONS", "").split() or GENERATIONS
    with tempfile.TemporaryDirectory(prefix="rpi-image-bench-", dir=Path.cwd() / "build") as name:
        rows = [row for each in named for row in rows_of(each, Path(name) / each)]
    report("First boot on a slow card, emulated", rows)


if __name__ == "__main__":
    main()
