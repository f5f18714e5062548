"""The flash station with cards that come and go, and a flasher that obeys."""

from __future__ import annotations

import socket
from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, cast

import pytest

from imagebuilder.devices.device import Device, DevicePart, describe
from imagebuilder.devices.hotplug import Uevents, open_uevents
from imagebuilder.devices.safety import WritePolicy
from imagebuilder.errors import RefusedError, RpiImageError, WriteError
from imagebuilder.flash.flasher import CardOutcome, Flasher
from imagebuilder.flash.records.ledger import NodeTakenError
from imagebuilder.flash.station import Station, initial_media
from imagebuilder.flash.writer import CardJob, Stage
from imagebuilder.progress import SilentReporter
from tests.lib.reports import REPORT

if TYPE_CHECKING:
    from collections.abc import Callable

    from imagebuilder.disk.patched import PatchedImage


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


def inserted(sequence: int, path: str = "/dev/sdc") -> Device:
    return replace(EMPTY_SLOT, path=path, size_bytes=32 * 10**9, sequence=sequence)


class Diary(SilentReporter):
    def __init__(self) -> None:
        self.notes: list[str] = []
        self.warnings: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def warn(self, text: str) -> None:
        self.warnings.append(text)


class ObedientFlasher:
    """Ends each job at the next poll; the sequences in `bad` fail, those in `busy_once` are in use.

    With `slow` no job ends before the station stops it.
    """

    def __init__(self, bad: set[int], busy_once: set[int], *, slow: bool = False) -> None:
        self.bad = bad
        self.busy_once = busy_once
        self.slow = slow
        self.written: list[tuple[str, int | None]] = []
        self._jobs: deque[CardJob] = deque()

    @property
    def busy(self) -> bool:
        return bool(self._jobs)

    def start(self, job: CardJob) -> None:
        self._jobs.append(job)

    def poll(self, _seconds: float) -> CardOutcome | None:
        if not self._jobs or self.slow:
            return None
        job = self._jobs.popleft()
        if job.device.sequence in self.busy_once:
            self.busy_once.remove(job.device.sequence)
            refused = RefusedError(f"{job.device.path} is in use", "")
            return CardOutcome(job=job, stage=Stage.CLAIM, error=refused)
        if job.device.sequence in self.bad:
            error = WriteError(f"{job.device.path}: worn out", "")
            return CardOutcome(job=job, stage=Stage.WRITE, error=error)
        self.written.append((job.node, job.device.sequence))
        return CardOutcome(job=job, stage=Stage.DONE, report=REPORT)

    def stop(self) -> tuple[CardOutcome, ...]:
        stopped = [CardOutcome(job=j, stage=Stage.WRITE, cancelled=True) for j in self._jobs]
        self._jobs.clear()
        return tuple(stopped)


@dataclass
class Desk:
    """A station, what it sees, and what became of it.

    The first scene is what it finds at its start; it sees every other one twice, 2 s apart, which
    is what it waits for. `moments` are shown once each, instead of `scenes`.
    """

    nodes: list[str]
    scenes: list[list[Device]]
    moments: list[list[Device]] = field(default_factory=list)
    flasher: ObedientFlasher = field(default_factory=lambda: ObedientFlasher(set(), set()))
    diary: Diary = field(default_factory=Diary)
    settled: list[CardOutcome] = field(default_factory=list)
    refuse: dict[int, RpiImageError] = field(default_factory=dict)
    taken: frozenset[str] = frozenset()
    roster: list[str] = field(default_factory=list)
    free: Callable[[Device], Device] = lambda device: device
    owners: dict[int, str] = field(default_factory=dict)
    now: float = 0.0

    def __post_init__(self) -> None:
        twice = [scene for scene in self.scenes[1:] for _ in range(2)]
        self._play = deque(self.moments or [*self.scenes[:1], *twice])

    def look(self) -> tuple[Device, ...]:
        assert self._play, "the station looks on though the roster should be done"
        self.now += 2.0
        return tuple(self._play.popleft())

    def prepare(self, node: str, device: Device) -> CardJob:
        if node in self.taken:
            raise NodeTakenError(f"{node} is being written to /dev/sdx", "wait")
        if device.sequence in self.refuse:
            raise self.refuse[device.sequence]
        source = cast("PatchedImage", None)
        return CardJob(device=device, source=source, write_set=(), prove=print, node=node)

    def run(self) -> None:
        Station(
            nodes=self.nodes,
            flasher=cast("Flasher", self.flasher),
            look=self.look,
            prepare=self.prepare,
            settle=self.settled.append,
            policy=WritePolicy(),
            roster=self.roster,
            free=self.free,
            owner=lambda device: self.owners.get(device.sequence or 0, ""),
            reporter=self.diary,
            clock=lambda: self.now,
        ).run(Uevents(None))
        assert not self._play, "the station stopped too early"


def serve(
    nodes: list[str],
    scenes: list[list[Device]],
    *,
    bad: set[int] | None = None,
    refuse: set[int] | None = None,
) -> tuple[ObedientFlasher, Diary, list[CardOutcome]]:
    """Serve; cards in `bad` fail, those in `refuse` belong to another node."""
    error = RefusedError("this card is pi-09 already", "take another")
    desk = Desk(nodes, scenes, refuse=dict.fromkeys(refuse or (), error))
    desk.flasher.bad |= bad or set()
    desk.run()
    return desk.flasher, desk.diary, desk.settled


def test_cards_get_the_nodes_in_turn() -> None:
    scenes = [[EMPTY_SLOT], [inserted(5)], [EMPTY_SLOT], [inserted(6)]]
    flasher, diary, settled = serve(["pi-01", "pi-02"], scenes)
    assert flasher.written == [("pi-01", 5), ("pi-02", 6)]
    assert any("writing pi-01 to /dev/sdc" in note for note in diary.notes)
    assert any("label 2 of 2, pi-02" in note for note in diary.notes)
    assert len(settled) == 2


def test_the_label_is_that_of_the_printed_sheet() -> None:
    roster = ["pi-01", "pi-02", "pi-03", "pi-04"]
    desk = Desk(["pi-04"], [[], [inserted(5)]], roster=roster)
    desk.run()
    assert any("label 4 of 4, pi-04" in note for note in desk.diary.notes)


def test_what_was_there_at_the_start_is_never_written() -> None:
    flasher, _, _ = serve(["pi-01"], [[STICK], [STICK], [STICK, inserted(5)]])
    assert flasher.written == [("pi-01", 5)]


def test_nor_when_it_is_pulled_and_put_in_again() -> None:
    back = replace(STICK, sequence=9)
    flasher, diary, _ = serve(["pi-01"], [[STICK], [], [back], [back, inserted(5)]])
    assert flasher.written == [("pi-01", 5)]
    assert sum("was present when the station started" in text for text in diary.warnings) == 1


def test_a_card_that_stays_in_is_not_written_twice() -> None:
    flasher, _, _ = serve(
        ["pi-01", "pi-02"], [[], [inserted(5)], [inserted(5)], [inserted(5)], [inserted(6)]]
    )
    assert flasher.written == [("pi-01", 5), ("pi-02", 6)]


def test_two_cards_at_once() -> None:
    scenes = [[], [inserted(5), inserted(6, "/dev/sdd")]]
    flasher, _, _ = serve(["pi-01", "pi-02"], scenes)
    assert flasher.written == [("pi-01", 5), ("pi-02", 6)]


def test_a_card_of_a_node_that_waits_stays_that_node() -> None:
    scenes = [[], [inserted(5)], [inserted(6)], [inserted(7)]]
    owners = {5: "pi-03", 6: "pi-09"}
    desk = Desk(["pi-01", "pi-02", "pi-03"], scenes, owners=owners)
    desk.run()
    assert desk.flasher.written == [("pi-03", 5), ("pi-01", 6), ("pi-02", 7)]


def test_a_failed_card_is_named_and_its_node_waits_for_the_next() -> None:
    scenes = [[], [inserted(5)], [inserted(6)], [inserted(7)]]
    flasher, diary, settled = serve(["pi-01", "pi-02"], scenes, bad={5})
    assert flasher.written == [("pi-01", 6), ("pi-02", 7)]
    assert any("/dev/sdc failed" in w and "another card for pi-01" in w for w in diary.warnings)
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


def test_a_card_is_taken_once_it_looks_the_same_twice() -> None:
    """Udev fills in model and serial after the kernel has told of the card."""
    bare = replace(inserted(5), serial="", model="")
    moments = [[], [bare], [inserted(5)], [inserted(5)]]
    desk = Desk(["pi-01"], [], moments)
    desk.run()
    assert [o.job.device for o in desk.settled] == [inserted(5)]


def test_a_card_that_the_desktop_mounted_is_taken_once_it_is_free() -> None:
    part = DevicePart(path="/dev/sdc1", mountpoints=("/media/x/boot",))
    mounted = replace(inserted(5), parts=(part,))
    desk = Desk(["pi-01"], [], [[], [mounted], [mounted], [inserted(5)]])
    desk.run()
    assert desk.flasher.written == [("pi-01", 5)]
    assert [text for text in desk.diary.warnings if "is mounted" in text] == [
        "skipping /dev/sdc: it is mounted (/dev/sdc1 on /media/x/boot)"
    ]


def test_where_it_may_it_unmounts() -> None:
    part = DevicePart(path="/dev/sdc1", mountpoints=("/media/x/boot",))
    mounted = replace(inserted(5), parts=(part,))
    desk = Desk(["pi-01"], [[], [mounted]], free=lambda device: replace(device, parts=()))
    desk.run()
    assert desk.flasher.written == [("pi-01", 5)]


def test_what_is_refused_anyway_stays_mounted() -> None:
    part = DevicePart(path="/dev/sdc1", mountpoints=("/media/x/boot",))
    mounted = replace(inserted(5), parts=(part,), read_only=True)
    asked: list[Device] = []

    def free(device: Device) -> Device:
        asked.append(device)
        return device

    desk = Desk(["pi-01"], [[], [mounted], [mounted, inserted(6, "/dev/sdd")]], free=free)
    desk.run()
    assert [device.sequence for device in asked] == [6]


def test_one_that_cannot_be_unmounted_is_left_alone_once() -> None:
    def free(device: Device) -> Device:
        if device.sequence == 5:
            raise RefusedError("cannot unmount /dev/sdc1", "close what uses it")
        return device

    desk = Desk(["pi-01"], [[], [inserted(5)], [inserted(5)], [inserted(6)]], free=free)
    desk.run()
    assert desk.flasher.written == [("pi-01", 6)]
    assert desk.diary.warnings == ["skipping /dev/sdc: cannot unmount /dev/sdc1"]


def test_a_card_in_use_for_a_moment_is_tried_again() -> None:
    desk = Desk(["pi-01"], [], [[], [inserted(5)], [inserted(5)], [inserted(5)]])
    desk.flasher.busy_once.add(5)
    desk.run()
    assert desk.flasher.written == [("pi-01", 5)]
    assert [o.stage for o in desk.settled] == [Stage.CLAIM, Stage.DONE]


def test_a_node_that_another_run_takes_is_passed_over() -> None:
    desk = Desk(["pi-01", "pi-02"], [[], [inserted(5)]], taken=frozenset({"pi-01"}))
    desk.run()
    assert desk.flasher.written == [("pi-02", 5)]
    assert desk.diary.warnings == ["skipping pi-01: pi-01 is being written to /dev/sdx"]


def test_many_nodes_of_other_runs_are_one_warning() -> None:
    names = [f"pi-{number:03}" for number in range(1, 302)]
    desk = Desk(names, [[], [inserted(5)]], taken=frozenset(names[:300]))
    desk.run()
    assert desk.flasher.written == [("pi-301", 5)]
    assert desk.diary.warnings == ["skipping 300 nodes that other programs took, pi-001 to pi-300"]


def test_the_station_ends_where_others_took_every_node() -> None:
    desk = Desk(["pi-01"], [[], [inserted(5)]], taken=frozenset({"pi-01"}))
    desk.run()
    assert desk.settled == []


def test_what_no_card_can_mend_ends_it_once_the_others_are_done() -> None:
    full = WriteError("cannot write class.cards.yml: No space left", "make room")
    scenes = [[], [inserted(5), inserted(6, "/dev/sdd")]]
    desk = Desk(["pi-01", "pi-02"], scenes, refuse={6: full})
    with pytest.raises(WriteError, match="No space left"):
        desk.run()
    assert [(o.job.node, bool(o.report)) for o in desk.settled] == [("pi-01", True)]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), MemoryError()])
def test_whatever_ends_it_stops_the_cards_and_tells_the_ledger(error: BaseException) -> None:
    def free(device: Device) -> Device:
        if device.sequence == 6:
            raise error
        return device

    desk = Desk(["pi-01", "pi-02"], [[], [inserted(5)], [inserted(6, "/dev/sdd")]], free=free)
    desk.flasher.slow = True
    with pytest.raises(type(error)):
        desk.run()
    assert [(o.job.node, o.cancelled) for o in desk.settled] == [("pi-01", True)]


def test_an_empty_slot_is_not_present() -> None:
    assert not initial_media([EMPTY_SLOT]).holds(inserted(5))
    assert initial_media([inserted(5)]).holds(inserted(5))


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
