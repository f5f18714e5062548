"""The flash station with real devices that appear: the kernel's own events, real writes."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from imagebuilder.card import CardOptions
from imagebuilder.devices import list_devices
from imagebuilder.flash import CardOutcome, Flasher
from imagebuilder.jobs import Pantry
from imagebuilder.model import BaseImage
from imagebuilder.progress import Silent
from imagebuilder.safety import Wish
from imagebuilder.station import Station
from imagebuilder.uevents import open_uevents
from tests.device.cards import (
    CARD_BYTES,
    GARBAGE,
    MIB,
    SmallImage,
    boots,
    card,
    head_of,
    lying_card,
)

if TYPE_CHECKING:
    from pathlib import Path

    from imagebuilder.card import CardJob
    from imagebuilder.model import Device

WORN_OUT = """
def pread(h, buf, offset, flags): plain_read(buf, offset)
def pwrite(h, buf, offset, flags):
    if offset <= 18 << 20 < offset + len(buf): raise RuntimeError("worn out")
    plain_write(buf, offset)
"""


class Diary(Silent):
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
        pantry = stack.enter_context(Pantry())
        base = BaseImage(small.path, "", small.path.stat().st_size, "small")
        recipe = pantry.image(base)

        def prepare(node: str, device: Device) -> CardJob:
            return replace(recipe, node=node).job(device)

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
            flasher=Flasher(options=CardOptions(eject=True), voice=diary),
            look=look,
            prepare=prepare,
            settle=settle,
            wish=Wish(allow_loop=True),
            voice=diary,
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
    assert any(worn in text and "pi-02 waits" in text for text in diary.said)
