"""The flash station with real devices that appear: the kernel's own events, real writes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from imagebuilder.devices.hotplug import open_uevents
from imagebuilder.devices.inventory import list_devices
from imagebuilder.devices.safety import WritePolicy
from imagebuilder.flash.content import CardContents
from imagebuilder.flash.flasher import CardOutcome, Flasher
from imagebuilder.flash.station import Station
from imagebuilder.flash.writer import CardOptions
from imagebuilder.model import BaseImage
from imagebuilder.progress import SilentReporter
from tests.device.cards import (
    BOOT_START,
    CARD_BYTES,
    GARBAGE,
    MIB,
    SmallImage,
    boots,
    card,
    head_of,
    lying_card,
)
from tests.lib.program import RPI_IMAGE
from tests.lib.tools import need, run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from imagebuilder.devices.device import Device
    from imagebuilder.flash.writer import CardJob

WORN_OUT = """
def pread(h, buf, offset, flags): plain_read(buf, offset)
def pwrite(h, buf, offset, flags):
    if offset <= 18 << 20 < offset + len(buf): raise RuntimeError("worn out")
    plain_write(buf, offset)
"""


class Diary(SilentReporter):
    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)

    def warn(self, text: str) -> None:
        self.said.append(text)


@pytest.mark.root
def test_cards_that_appear_are_written_in_turn(tmp_path: Path, small: SmallImage) -> None:
    """One card is there before, one is worn out, two are good: two nodes, two good cards."""
    mine: set[str] = set()  # other loop devices of this machine are not the test's to write
    ended = threading.Semaphore(0)
    settled: list[CardOutcome] = []
    diary = Diary()
    (tmp_path / "bad").mkdir()

    started = threading.Event()

    def look() -> tuple[Device, ...]:
        found = tuple(device for device in list_devices() if device.path in mine)
        started.set()
        return found

    def settle(outcome: CardOutcome) -> None:
        settled.append(outcome)
        ended.release()

    with ExitStack() as stack:
        there = stack.enter_context(card(tmp_path, CARD_BYTES))
        mine.add(there)
        contents = stack.enter_context(CardContents())
        base = BaseImage(small.path, "", small.path.stat().st_size, "small")
        content = contents.image(base)

        def prepare(node: str, device: Device) -> CardJob:
            return replace(content, node=node).job(device)

        devices: list[str] = []

        def people() -> None:
            """Insert a card whenever the last one has ended."""
            started.wait(30)  # until the station knows what was there before
            for number in range(3):
                bad = lying_card(tmp_path / "bad", CARD_BYTES, WORN_OUT)
                device = stack.enter_context(bad if number == 1 else card(tmp_path, CARD_BYTES))
                devices.append(device)
                mine.add(device)
                assert ended.acquire(timeout=60)

        thread = threading.Thread(target=people)
        thread.start()
        events = stack.enter_context(open_uevents())
        station = Station(
            nodes=["pi-01", "pi-02"],
            flasher=Flasher(options=CardOptions(eject=True), reporter=diary),
            look=look,
            prepare=prepare,
            settle=settle,
            policy=WritePolicy(allow_loop=True),
            reporter=diary,
        )
        outcomes = station.run(events)
        thread.join(60)
        first, worn, second = devices
        assert [(o.job.node, o.job.device.path, bool(o.report)) for o in outcomes] == [
            ("pi-01", first, True),
            ("pi-02", worn, False),
            ("pi-02", second, True),
        ]
        assert boots(first)
        assert boots(second)
        assert not boots(worn)
        assert head_of(there, 4 * MIB) == GARBAGE * 4
    assert any("label 1 of 2, pi-01" in text for text in diary.said)
    assert any(worn in text and "another card for pi-02" in text for text in diary.said)


@pytest.mark.root
def test_the_command_serves_a_roster_stops_and_goes_on(
    tmp_path: Path, classroom: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`flash --queue`: a worn-out card, Ctrl-C, a second run, two cards at once; then the cards."""
    mine = only_these_loops(tmp_path, monkeypatch)
    names = ("pi-01", "pi-02", "pi-03")
    with ExitStack() as stack:

        def insert(kind: str = "good") -> str:
            place = tmp_path / f"{kind}-{len(mine.read_text())}"
            place.mkdir()
            maker = lying_card(place, CARD_BYTES, WORN_OUT) if kind == "worn" else None
            device = stack.enter_context(maker or card(place, CARD_BYTES))
            with mine.open("a") as file:
                file.write(f"{device}\n")
            return device

        there = insert()
        with queue(classroom) as station:
            station.wait_for("3 nodes to write")
            worn = insert("worn")
            station.wait_for(f"{worn} failed: .*insert another card for pi-01")
            first = insert()
            station.wait_for(f"{first} is done: .* label 1 of 3, pi-01")
            station.program.send_signal(signal.SIGINT)
            assert station.program.wait(60) == 130
        with queue(classroom, "--json") as station:
            station.wait_for("2 nodes to write")
            second, third = insert(), insert()
            assert station.program.wait(90) == 0, station.said()
            cards = json.loads(station.out.read_text())["cards"]
        assert {c["state"] for c in cards} == {"done"}
        card_of = {"pi-01": first} | {c["node"]: c["device"] for c in cards}
        assert sorted(card_of.values()) == sorted((first, second, third))
        for node, device in card_of.items():
            offset = BOOT_START * MIB
            text = run("mtype", "-i", f"{device}@@{offset}", "::occidentalis.txt")
            assert f"hostname={node}" in text.splitlines()
        assert not boots(worn)
        assert head_of(there, 4 * MIB) == GARBAGE * 4
    ledger = classroom.with_suffix(".cards.yml").read_text()
    assert [line.split()[-1] for line in ledger.splitlines() if "node:" in line] == list(names)
    assert ledger.count("state: written") == 3


@pytest.mark.root
def test_only_the_readers_named_are_served(
    tmp_path: Path, classroom: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader is named by a link that points to whatever is in it, as below /dev/disk/by-path."""
    mine, slot = only_these_loops(tmp_path, monkeypatch), tmp_path / "slot"
    for name in "ab":
        (tmp_path / name).mkdir()
    with queue(classroom, "--nodes", "pi-02", str(slot)) as station:
        station.wait_for("1 node to write")
        with card(tmp_path / "a", CARD_BYTES) as other, card(tmp_path / "b", CARD_BYTES) as named:
            mine.write_text(f"{other}\n")
            time.sleep(3)
            mine.write_text(f"{other}\n{named}\n")
            slot.symlink_to(named)
            assert station.program.wait(60) == 0, station.said()
            assert boots(named)
            assert head_of(other, 4 * MIB) == GARBAGE * 4
    assert f"writing pi-02 to {named}" in station.said()
    assert "label 2 of 3, pi-02" in station.said()


def only_these_loops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Hide the loop devices of other tests from lsblk; gives the file that lists ours."""
    mine = tmp_path / "mine"
    mine.touch()
    (real,) = need("lsblk")
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "lsblk").write_text(
        f"""#!{sys.executable}
import json, subprocess, sys
told = json.loads(subprocess.run([{real!r}, *sys.argv[1:]], capture_output=True).stdout)
mine = open({str(mine)!r}).read().split()
told["blockdevices"] = [
    d for d in told["blockdevices"] if "loop" not in d["path"] or d["path"] in mine
]
print(json.dumps(told))
"""
    )
    (folder / "lsblk").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return mine


class RunningStation:
    """`rpi-image flash --queue` in the background, and what it says."""

    def __init__(self, classroom: Path, *options: str) -> None:
        self.out = classroom.with_name("out")
        self._err = classroom.with_name("err")
        words = ["flash", "-c", str(classroom), "--queue", "--yes", "--allow-loop", *options]
        with self.out.open("w") as out, self._err.open("w") as err:
            self.program = subprocess.Popen([*RPI_IMAGE, *words], stdout=out, stderr=err)

    def said(self) -> str:
        """Return everything it printed for people."""
        return self._err.read_text() + self.out.read_text()

    def wait_for(self, pattern: str, seconds: float = 60) -> None:
        """Wait until it says something."""
        until = time.monotonic() + seconds
        while not re.search(pattern, self.said()):
            assert time.monotonic() < until, f"never said {pattern!r}: {self.said()}"
            assert self.program.poll() is None, self.said()
            time.sleep(0.1)


@contextmanager
def queue(classroom: Path, *options: str) -> Iterator[RunningStation]:
    """Run the station; it is gone afterwards, whatever happened."""
    station = RunningStation(classroom, *options)
    try:
        yield station
    finally:
        station.program.kill()
        station.program.wait()
