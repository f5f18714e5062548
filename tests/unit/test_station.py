"""The flash station with cards that come and go, and a flasher that obeys."""

from __future__ import annotations

import socket
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from imagebuilder.card import CardJob, CardReport, Stage
from imagebuilder.errors import RefusedError, WriteError
from imagebuilder.flash import CardOutcome, Flasher
from imagebuilder.model import Device
from imagebuilder.progress import Silent
from imagebuilder.safety import Wish
from imagebuilder.station import Station, describe, present_now
from imagebuilder.uevents import Uevents, open_uevents

if TYPE_CHECKING:
    from imagebuilder.source import Source

STICK = Device(
    path="/dev/sdb",
    major_minor="8:16",
    size_bytes=16 * 10**9,
    transport="usb",
    removable=True,
    model="Stick",
    serial="77",
    sequence=1,
)
EMPTY_SLOT = replace(STICK, path="/dev/sdc", size_bytes=0, serial="reader", model="Reader")
REPORT = CardReport(
    digest="",
    set_bytes=1,
    written_bytes=1,
    seconds=1,
    write_seconds=1,
    verified=True,
    ejected=True,
    table_reread=True,
)


def inserted(sequence: int, path: str = "/dev/sdc") -> Device:
    return replace(EMPTY_SLOT, path=path, size_bytes=32 * 10**9, sequence=sequence)


class Diary(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []
        self.warnings: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def warn(self, text: str) -> None:
        self.warnings.append(text)


class ObedientFlasher:
    """Ends each job at the next poll; the sequences in `bad` fail."""

    def __init__(self, bad: set[int]) -> None:
        self.bad = bad
        self.written: list[tuple[str, int | None]] = []
        self._jobs: deque[CardJob] = deque()

    @property
    def busy(self) -> bool:
        return bool(self._jobs)

    def start(self, job: CardJob) -> None:
        self._jobs.append(job)

    def poll(self, _seconds: float) -> CardOutcome | None:
        if not self._jobs:
            return None
        job = self._jobs.popleft()
        if job.device.sequence in self.bad:
            error = WriteError(f"{job.device.path}: worn out", "")
            return CardOutcome(job=job, stage=Stage.WRITE, error=error)
        self.written.append((job.node, job.device.sequence))
        return CardOutcome(job=job, stage=Stage.DONE, report=REPORT)


def serve(
    nodes: list[str],
    scenes: list[list[Device]],
    *,
    bad: set[int] | None = None,
    refuse: set[int] | None = None,
) -> tuple[ObedientFlasher, Diary, list[CardOutcome]]:
    """Show the station one scene at each look; the first is what it finds at its start."""
    flasher, diary, settled = ObedientFlasher(bad or set()), Diary(), list[CardOutcome]()
    play = deque(scenes)

    def look() -> tuple[Device, ...]:
        assert play, "the station looks on though the roster should be done"
        return tuple(play.popleft())

    def prepare(node: str, device: Device) -> CardJob:
        if device.sequence in (refuse or set()):
            raise RefusedError("this card is pi-09 already", "take another")
        source = cast("Source", None)
        return CardJob(device=device, source=source, write_set=(), prove=print, node=node)

    Station(
        nodes=nodes,
        flasher=cast("Flasher", flasher),
        look=look,
        prepare=prepare,
        settle=settled.append,
        wish=Wish(),
        voice=diary,
    ).run(Uevents(None))
    assert not play, "the station stopped too early"
    return flasher, diary, settled


def test_cards_get_the_nodes_in_turn() -> None:
    scenes = [[EMPTY_SLOT], [inserted(5)], [EMPTY_SLOT], [inserted(6)]]
    flasher, diary, settled = serve(["pi-01", "pi-02"], scenes)
    assert flasher.written == [("pi-01", 5), ("pi-02", 6)]
    assert any("pi-01 goes onto /dev/sdc" in note for note in diary.notes)
    assert any("label 2 of 2, pi-02" in note for note in diary.notes)
    assert len(settled) == 2


def test_what_was_there_at_the_start_is_never_written() -> None:
    flasher, _, _ = serve(["pi-01"], [[STICK], [STICK], [STICK, inserted(5)]])
    assert flasher.written == [("pi-01", 5)]


def test_nor_when_it_is_pulled_and_put_in_again() -> None:
    back = replace(STICK, sequence=9)
    flasher, diary, _ = serve(["pi-01"], [[STICK], [], [back], [back, inserted(5)]])
    assert flasher.written == [("pi-01", 5)]
    assert sum("was here when the station started" in text for text in diary.warnings) == 1


def test_a_card_that_stays_in_is_not_written_twice() -> None:
    flasher, _, _ = serve(
        ["pi-01", "pi-02"], [[], [inserted(5)], [inserted(5)], [inserted(5)], [inserted(6)]]
    )
    assert flasher.written == [("pi-01", 5), ("pi-02", 6)]


def test_two_cards_at_once() -> None:
    scenes = [[], [inserted(5), inserted(6, "/dev/sdd")]]
    flasher, _, _ = serve(["pi-01", "pi-02"], scenes)
    assert flasher.written == [("pi-01", 5), ("pi-02", 6)]


def test_a_failed_card_is_named_and_its_node_waits_for_the_next() -> None:
    scenes = [[], [inserted(5)], [inserted(6)], [inserted(7)]]
    flasher, diary, settled = serve(["pi-01", "pi-02"], scenes, bad={5})
    assert flasher.written == [("pi-01", 6), ("pi-02", 7)]
    assert any("/dev/sdc failed" in w and "pi-01 waits" in w for w in diary.warnings)
    assert [bool(outcome.error) for outcome in settled] == [True, False, False]


def test_a_refused_card_takes_no_node() -> None:
    flasher, diary, _ = serve(["pi-01"], [[], [inserted(5)], [inserted(6)]], refuse={5})
    assert flasher.written == [("pi-01", 6)]
    assert any("pi-09 already" in text for text in diary.warnings)


def test_an_unsafe_device_takes_no_node() -> None:
    disk = replace(inserted(5), transport="sata", path="/dev/sda")
    flasher, diary, _ = serve(["pi-01"], [[], [disk], [disk, inserted(6)]])
    assert flasher.written == [("pi-01", 6)]
    assert sum("is not removable" in text for text in diary.warnings) == 1


def test_without_sequence_numbers_a_gap_makes_a_card_new() -> None:
    """Kernels before 5.15 do not number media."""
    card = replace(inserted(0), sequence=None)
    flasher, _, _ = serve(["pi-01", "pi-02"], [[], [card], [card], [], [card]])
    assert flasher.written == [("pi-01", None), ("pi-02", None)]


def test_an_empty_slot_is_not_present() -> None:
    assert not present_now([EMPTY_SLOT]).holds(inserted(5))
    assert present_now([inserted(5)]).holds(inserted(5))


def test_a_device_is_described_with_what_tells_it_apart() -> None:
    card = replace(inserted(5), slot="usb-1-2.3")
    assert describe(card) == "/dev/sdc (Reader, 32.0 GB, reader, usb-1-2.3)"


def test_only_messages_about_block_devices_wake_it() -> None:
    mine, kernel = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with mine, kernel:
        mine.settimeout(0)
        events = Uevents(mine)
        assert not events.changed()
        kernel.send(b"add@/devices/usb1\0ACTION=add\0SUBSYSTEM=usb\0")
        assert not events.changed()
        kernel.send(b"change@/devices/x/block/sdb\0ACTION=change\0SUBSYSTEM=block\0")
        kernel.send(b"add@/devices/usb2\0ACTION=add\0SUBSYSTEM=usb\0")
        assert events.changed()
        assert not events.changed()


def test_without_a_socket_every_look_counts() -> None:
    assert Uevents(None).changed()
    with open_uevents() as events:
        assert isinstance(events.changed(), bool)
