"""The flash station: waits for cards, gives each the next node, until the roster is done."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from imagebuilder.devices.device import describe
from imagebuilder.devices.safety import only_mounted, refusals, same_device
from imagebuilder.errors import RefusedError, RpiImageError
from imagebuilder.flash.ledger import NodeTakenError
from imagebuilder.flash.writer import Stage
from imagebuilder.progress import SILENT, Reporter, counted

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from imagebuilder.devices.device import Device
    from imagebuilder.devices.hotplug import Uevents
    from imagebuilder.devices.safety import WritePolicy
    from imagebuilder.flash.flasher import CardOutcome, Flasher
    from imagebuilder.flash.writer import CardJob

LOOK_AGAIN_SECONDS = 5.0  # for a machine whose kernel tells nothing, and for what was refused
SETTLE_SECONDS = 1.0  # udev and the desktop look at a new card, too; they may mount it
_TICK_SECONDS = 0.2
_TRIES = 3


@dataclass(frozen=True, slots=True)
class InitialMedia:
    """The media that were there when the station started; they are never written."""

    media: frozenset[tuple[str, int | None]]
    disks: frozenset[tuple[str, str, str, int]]

    def holds(self, device: Device) -> bool:
        """Return whether this medium was there, or one that cannot be told from it."""
        return medium_of(device) in self.media or (
            bool(device.serial) and _disk_of(device) in self.disks
        )


def initial_media(devices: Sequence[Device]) -> InitialMedia:
    """Return the media among these devices."""
    initial = [device for device in devices if device.size_bytes]
    return InitialMedia(
        frozenset(medium_of(device) for device in initial),
        frozenset(_disk_of(device) for device in initial),
    )


def medium_of(device: Device) -> tuple[str, int | None]:
    """Name a medium in its place; the number changes with every insertion."""
    return device.path, device.sequence


def _disk_of(device: Device) -> tuple[str, str, str, int]:
    return device.vendor, device.model, device.serial, device.size_bytes


@dataclass
class _Inserted:
    """A medium that was inserted: since when it looks like this, and what became of it."""

    device: Device
    since: float
    begun: bool = False
    tries: int = 0
    reported: str = ""


def _as_it_is(device: Device) -> Device:
    return device


@dataclass(kw_only=True)
class Station:
    """One session at the station.

    `prepare` composes a node for a device and notes it in the ledger; `settle` notes how it ended;
    `free` may unmount a medium that was just inserted. `roster` has every node of the class, in the
    order of the printed labels.
    """

    nodes: Sequence[str]
    flasher: Flasher
    look: Callable[[], tuple[Device, ...]]
    prepare: Callable[[str, Device], CardJob]
    settle: Callable[[CardOutcome], None]
    policy: WritePolicy
    roster: Sequence[str] = ()
    free: Callable[[Device], Device] = _as_it_is
    reporter: Reporter = SILENT
    clock: Callable[[], float] = time.monotonic
    _waiting: deque[str] = field(init=False)
    _inserted: dict[tuple[str, int | None], _Inserted] = field(init=False, default_factory=dict)
    _failure: RpiImageError | None = field(init=False, default=None)
    _outcomes: list[CardOutcome] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self._waiting = deque(self.nodes)

    def run(self, events: Uevents) -> tuple[CardOutcome, ...]:
        """Write until every node has a card.

        KeyboardInterrupt stops all cards and goes on; so does any other exception. An error that
        no other card could escape (a full disk, no ledger) ends it once the cards in work are done.
        """
        initial = initial_media(self.look())
        nodes = counted(len(self._waiting), "node")
        self.reporter.note(f"{nodes} to write; insert cards, Ctrl-C ends")
        try:
            self._serve(events, initial)
        except BaseException:
            for outcome in self.flasher.stop():
                self.settle(outcome)
            raise
        if self._failure:
            raise self._failure
        return tuple(self._outcomes)

    def _serve(self, events: Uevents, initial: InitialMedia) -> None:
        next_look = 0.0
        while self._serving or self.flasher.busy:
            if self._serving and (events.changed() or self.clock() >= next_look):
                settled = self._take_new(initial)
                next_look = self.clock() + (LOOK_AGAIN_SECONDS if settled else SETTLE_SECONDS)
            if outcome := self.flasher.poll(_TICK_SECONDS):
                self._settle(outcome)

    @property
    def _serving(self) -> bool:
        return bool(self._waiting) and self._failure is None

    def _take_new(self, initial: InitialMedia) -> bool:
        """Take every new medium that looks the same as a moment ago; False: one does not yet."""
        devices = {medium_of(device): device for device in self.look() if device.size_bytes}
        self._inserted = {
            medium: self._inserted[medium] for medium in self._inserted if medium in devices
        }
        settled, now = True, self.clock()
        for medium, device in devices.items():
            if medium in initial.media:
                continue
            inserted = self._inserted.get(medium)
            if inserted is None or not (inserted.begun or same_device(inserted.device, device)):
                self._inserted[medium] = inserted = _Inserted(device, now)
            if now - inserted.since < SETTLE_SECONDS:
                settled = False
            elif not inserted.begun:
                self._take(inserted, device, initial)
        return settled

    def _take(self, inserted: _Inserted, device: Device, initial: InitialMedia) -> None:
        if initial.holds(device):
            self._leave_alone(
                inserted, "it looks like a disk that was here when the station started"
            )
            return
        try:
            if only_mounted(device, self.policy):
                device = self.free(device)
        except RefusedError as error:
            self._leave_alone(inserted, error.message)
            return
        if reasons := [f"it {refusal.message}" for refusal in refusals(device, self.policy)]:
            self._leave_alone(inserted, "; ".join(reasons))
        elif self._waiting:
            self._begin(self._waiting.popleft(), inserted, device)

    def _leave_alone(self, inserted: _Inserted, reason: str) -> None:
        """Say why, once: the medium is judged again at every look."""
        if reason != inserted.reported:
            self.reporter.warn(f"{inserted.device.path} is left alone: {reason}")
        inserted.reported = reason

    def _begin(self, node: str, inserted: _Inserted, device: Device) -> None:
        try:
            job = self.prepare(node, device)
        except NodeTakenError as error:
            self.reporter.warn(f"{node} is passed over: {error.message}")
            if self._waiting:
                self._begin(self._waiting.popleft(), inserted, device)
            return
        except RefusedError as error:
            self._waiting.appendleft(node)
            self._leave_alone(inserted, f"{error.message} ({error.hint})")
            return
        except RpiImageError as error:
            self._failure = error
            return
        inserted.begun, inserted.tries = True, inserted.tries + 1
        self.reporter.note(f"{node} goes onto {describe(device)}")
        self.flasher.start(job)

    def _settle(self, outcome: CardOutcome) -> None:
        self.settle(outcome)
        self._outcomes.append(outcome)
        node, path = outcome.job.node, outcome.job.device.path
        if outcome.report:
            roster = self.roster or self.nodes
            place = f"label {roster.index(node) + 1} of {len(roster)}"
            self.reporter.note(f"{path} is done: take it out and stick {place}, {node}, on it")
            return
        self._waiting.appendleft(node)
        self._let_try_again(outcome)
        why = outcome.error.message if outcome.error else "stopped"
        self.reporter.warn(f"{path} failed: {why}; {node} waits for another card")

    def _let_try_again(self, outcome: CardOutcome) -> None:
        """Judge a card anew that was refused untouched: udev or the desktop had it for a moment."""
        inserted = self._inserted.get(medium_of(outcome.job.device))
        untouched = outcome.stage == Stage.CLAIM and isinstance(outcome.error, RefusedError)
        if inserted and untouched and inserted.tries < _TRIES:
            inserted.begun, inserted.since = False, self.clock()
