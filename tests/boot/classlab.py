"""A classroom: emulated Pis at a real bridge, beside a shack that docker-compose brought up.

The shack is the one of `tests.device.shacklab`. What a card runs is made here for ARM: Debian's own
consul, and a stand-in for Swarm's `join`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event
from typing import TYPE_CHECKING

import pytest

from tests.boot import roots
from tests.boot.pi import Pi
from tests.device.shacklab import CONSUL_IMAGE, START, SWARM_IMAGE
from tests.device.swarmlab import SWARM
from tests.lib.debian import mirror
from tests.lib.real_consul import SUITE
from tests.lib.tools import run

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from imagebuilder.boot.firmware import Firmware
    from tests.device.swarmlab import Docker, Machine

MEMORY = "768M"
ANSWER_SECONDS = 600.0
LIBRARIES = ("ld-linux-armhf.so.3", "libc.so.6", "libpthread.so.0")
APPLETS = ("sh", "nc", "sleep", "grep")


@dataclass
class Seat(Pi):
    """A Pi whose network cable goes into the bridge of another namespace."""

    # The shack's clock is the host's, and consul measures how long answers take.
    clock: tuple[str, ...] = ()
    bridge: Machine | None = None
    number: int = 0

    def plug_in(self) -> None:
        """Lay the cable: a tap device at br0."""
        assert self.bridge is not None
        self.bridge.run("ip", "tuntap", "add", self._tap, "mode", "tap")
        self.bridge.run("ip", "link", "set", self._tap, "master", "br0", "up")

    def command(self, firmware: Firmware, witness: int) -> list[str]:
        """Start QEMU in the bridge's namespace, at its tap device, and smaller."""
        assert self.bridge is not None
        words = super().command(firmware, witness)
        cable = f"tap,id=net,ifname={self._tap},script=no,downscript=no"
        words[words.index("-netdev") + 1] = cable
        card = next(n for n, word in enumerate(words) if word.startswith("virtio-net-pci,"))
        words[card] += f",mac=52:54:00:77:00:{self.number:02x}"
        words[words.index("-m") + 1] = MEMORY
        return self.bridge.command(*words)

    @property
    def _tap(self) -> str:
        return f"tap{self.number}"


@contextmanager
def switched_on(seats: Sequence[Seat]) -> Iterator[list[Future[None]]]:
    """Let all Pis run at once for the length of the block, each followed by a thread of its own.

    A future that is done before the end holds the error of a Pi that did not go on.
    """
    leave = Event()
    with ThreadPoolExecutor(len(seats)) as pool:
        try:
            yield [pool.submit(_run, seat, leave) for seat in seats]
        finally:
            leave.set()


def _run(seat: Seat, leave: Event) -> None:
    """Keep a Pi running, and awake.

    On a host with too much to do QEMU loses a timer of a sleeping processor now and then, and the
    machine sleeps until something else interrupts it (seen: for 450 s). A question does.
    """
    seat.power_on()
    while not leave.is_set():
        seat.tell("true", ANSWER_SECONDS)
        seat.let_run(2)


def wait_with(futures: Sequence[Future[None]], seconds: float, step: float) -> Iterator[None]:
    """Yield every `step` seconds until time is up; raises what a Pi's thread ended with."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for future in futures:
            if future.done():
                future.result()
        yield
        time.sleep(step)


# ---- what the cards run


def import_arm_images(docker: Docker) -> None:
    """Make both images of the cards for ARM, under their names, as `docker load` would bring them.

    Consul is Debian's for armhf. Swarm's `join` is a stand-in that writes its key as 0.2.0 does.
    """
    programs = roots.base_folder()
    with _tree(docker) as tree:
        (tree / "bin").mkdir()
        shutil.copy(consul_of_arm(), tree / "bin/consul")
        (tree / "lib").mkdir()
        for name in LIBRARIES:
            shutil.copy(programs / "lib/arm-linux-gnueabihf" / name, tree / "lib" / name)
        shutil.copy(programs / "bin/busybox", tree / "bin/sh")
        (tree / "bin/start").write_text(START)
        (tree / "bin/start").chmod(0o755)
        _import(docker, tree, CONSUL_IMAGE, '["/bin/start"]')
    with _tree(docker) as tree:
        (tree / "bin").mkdir()
        shutil.copy(programs / "bin/busybox", tree / "bin/busybox")
        for applet in APPLETS:
            (tree / "bin" / applet).symlink_to("busybox")
        (tree / "bin/swarm").write_text(SWARM)
        (tree / "bin/swarm").chmod(0o755)
        _import(docker, tree, SWARM_IMAGE, '["/bin/swarm"]')


@contextmanager
def _tree(docker: Docker) -> Iterator[Path]:
    tree = docker.folder / "arm"
    (tree / "tmp").mkdir(parents=True)
    (tree / "tmp").chmod(0o1777)
    yield tree
    shutil.rmtree(tree)


def _import(docker: Docker, tree: Path, name: str, entrypoint: str) -> None:
    tar = docker.folder / "arm.tar"
    run("tar", "-C", tree, "--owner=0", "--group=0", "-cf", tar, ".")
    changes = ("--change", "ENV PATH=/bin", "--change", f"ENTRYPOINT {entrypoint}")
    docker.docker("import", "--platform", "linux/arm/v7", *changes, tar, name)
    tar.unlink()


def consul_of_arm() -> Path:
    """Return Debian's consul for armhf; the test is skipped where none is to be had, in CI too."""
    key = roots.digest_of([], SUITE, "armhf")
    return roots.once("consul-armhf", key, _make_consul)


def _make_consul(part: Path) -> None:
    """Fetch the package through apt, with lists and an architecture of its own."""
    work = part.with_suffix(".work")
    shutil.rmtree(work, ignore_errors=True)
    for name in ("lists/partial", "cache/archives/partial"):
        (work / name).mkdir(parents=True)
    (work / "sources.list").write_text(f"deb {mirror()} {SUITE} main\n")
    places = {
        "Dir::Etc::sourcelist": work / "sources.list",
        "Dir::Etc::sourceparts": os.devnull,
        "Dir::State::lists": work / "lists",
        "Dir::Cache": work / "cache",
        "APT::Sandbox::User": "root",
        "APT::Architecture": "armhf",
        "APT::Architectures": "armhf",
    }
    options = [word for name, value in places.items() for word in ("-o", f"{name}={value}")]
    for command in (["update"], ["download", "consul"]):
        words = ["apt-get", "-q", *options, *command]
        done = subprocess.run(words, cwd=work, capture_output=True, check=False, timeout=300)
        if done.returncode != 0:
            pytest.skip(f"Debian {SUITE} has no consul for armhf to give")
    (package,) = work.glob("consul_*.deb")
    run("dpkg-deb", "-x", package, work / "root")
    (work / "root/usr/bin/consul").rename(part)
    shutil.rmtree(work)
