"""The flash station: write the next node to each inserted card until the roster is done."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic

from imagebuilder.devices.device import describe
from imagebuilder.devices.safety import only_mounted, refusals, same_device
from imagebuilder.errors import RefusedError, RpiImageError
from imagebuilder.flash.jobs import JobT, OutcomeT, reason_of
from imagebuilder.flash.records.ledger import NodeTakenError, skipped
from imagebuilder.flash.records.station_screen import StationScreen
from imagebuilder.flash.writer import Stage
from imagebuilder.progress import SILENT, Reporter, counted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from imagebuilder.devices.device import Device
    from imagebuilder.devices.hotplug import Uevents
    from imagebuilder.devices.safety import WritePolicy
    from imagebuilder.flash.jobs import CardWriter

LOOK_AGAIN_SECONDS = 5.0  # without events, and for cards that were refused
SETTLE_SECONDS = 1.0  # udev and the desktop probe a new card as well, and may mount it
_TICK_SECONDS = 0.2
_TRIES = 3


@dataclass(frozen=True, slots=True)
class InitialMedia:
    """The media present when the station started; they are never written."""

    media: frozenset[tuple[str, int | None]]
    disks: frozenset[tuple[str, str, str, int]]

    def holds(self, device: Device) -> bool:
        """Return whether this medium was present, or one that looks the same."""
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
    """Return path and diskseq of a medium; the latter changes with every insertion."""
    return device.path, device.sequence


def _disk_of(device: Device) -> tuple[str, str, str, int]:
    return device.vendor, device.model, device.serial, device.size_bytes


@dataclass
class _Inserted:
    """An inserted medium: since when it is unchanged, and whether it was begun."""

    device: Device
    since: float
    begun: bool = False
    tries: int = 0
    reported: str = ""


def _as_it_is(device: Device) -> Device:
    return device


def no_owner(_: Device) -> str:
    """Return no name: each card becomes the next node."""
    return ""


def nothing_left(_: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """Return no nodes: what another program took is not this station's any more."""
    return (), ()


@dataclass(kw_only=True)
class Station(Generic[JobT, OutcomeT]):
    """One session of the flash station.

    `prepare` composes a node for a device and records it in the ledger, `settle` records the
    result, and returns why a card must not be used, if so. `others` says which nodes that another
    program took are free or busy. `free` may unmount a medium that was inserted; without a `policy`
    all media of `look` may be written. `roster` has every node of the class, in the order of the
    printed labels, `owners` who gets which. `screen` shows all that on the board. A card whose
    `owner` is waiting stays that node.
    """

    nodes: Sequence[str]
    flasher: CardWriter[JobT, OutcomeT]
    look: Callable[[], tuple[Device, ...]]
    prepare: Callable[[str, Device], JobT]
    settle: Callable[[OutcomeT], RpiImageError | None]
    policy: WritePolicy | None
    roster: Sequence[str] = ()
    owners: Mapping[str, str] = field(default_factory=dict)
    free: Callable[[Device], Device] = _as_it_is
    owner: Callable[[Device], str] = no_owner
    others: Callable[[Sequence[str]], tuple[Sequence[str], Sequence[str]]] = nothing_left
    screen: StationScreen = field(default_factory=lambda: StationScreen(ledger=None))
    reporter: Reporter = SILENT
    clock: Callable[[], float] = time.monotonic
    _waiting: deque[str] = field(init=False)
    _aside: tuple[str, ...] = field(init=False, default=())
    _aside_named: tuple[str, ...] = field(init=False, default=())
    _inserted: dict[tuple[str, int | None], _Inserted] = field(init=False, default_factory=dict)
    _failure: RpiImageError | None = field(init=False, default=None)
    _outcomes: list[OutcomeT] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self._waiting = deque(self.nodes)

    def run(self, events: Uevents) -> tuple[OutcomeT, ...]:
        """Write until every node has a card.

        KeyboardInterrupt and other exceptions stop all cards and are raised again. An error that
        concerns all cards (a full disk, no ledger) is raised after the cards being written.
        """
        initial = initial_media(self.look())
        nodes = counted(len(self._waiting), "node")
        self.reporter.note(f"{nodes} to write: insert cards, or press Ctrl-C to stop")
        try:
            self._serve(events, initial)
        except BaseException:
            for outcome in self.flasher.stop():
                self.settle(outcome)
            raise
        finally:
            self.screen.end()
        if self._failure:
            raise self._failure
        return tuple(self._outcomes)

    def _serve(self, events: Uevents, initial: InitialMedia) -> None:
        next_look = 0.0
        while self._serving or self.flasher.busy:
            if self._serving and (events.changed() or self.clock() >= next_look):
                settled = self._take_new(initial)
                self._look_aside()
                next_look = self.clock() + (LOOK_AGAIN_SECONDS if settled else SETTLE_SECONDS)
            self.screen.beat(self._waiting)
            if outcome := self.flasher.poll(_TICK_SECONDS):
                self._settle(outcome)

    @property
    def _serving(self) -> bool:
        return bool(self._waiting or self._aside) and self._failure is None

    def _look_aside(self) -> None:
        """Take back nodes that another program had taken and did not finish."""
        if not self._aside:
            return
        free, busy = self.others(self._aside)
        self._waiting.extend(free)
        if busy and not self._waiting and tuple(busy) != self._aside_named:
            self._aside_named = tuple(busy)
            self.reporter.note(f"waiting for other stations, which write {', '.join(busy)}")
        self._aside = tuple(busy)

    def _take_new(self, initial: InitialMedia) -> bool:
        """Begin every new medium that has settled; return False if one is still changing."""
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
                inserted, "it looks like a disk that was present when the station started"
            )
            return
        try:
            if self.policy and only_mounted(device, self.policy):
                device = self.free(device)
        except RefusedError as error:
            self._leave_alone(inserted, error.message)
            return
        found = refusals(device, self.policy) if self.policy else ()
        if reasons := [f"it {refusal.message}" for refusal in found]:
            self._leave_alone(inserted, "; ".join(reasons))
        elif self._waiting:
            self._begin(self._choose(device), inserted, device)

    def _choose(self, device: Device) -> str:
        """Take the node that the card is from those that wait, else the next one."""
        owner = self.owner(device)
        if owner not in self._waiting:
            return self._waiting.popleft()
        self._waiting.remove(owner)
        return owner

    def _leave_alone(self, inserted: _Inserted, reason: str) -> None:
        """Warn once for each reason: the medium is checked again each time."""
        if reason != inserted.reported:
            self.reporter.warn(f"skipping {inserted.device.path}: {reason}")
        inserted.reported = reason

    def _begin(self, node: str, inserted: _Inserted, device: Device) -> None:
        try:
            node, job = self._prepared(node, device)
        except NodeTakenError:
            return
        except RefusedError as error:
            self._leave_alone(inserted, f"{error.message} ({error.hint})")
            return
        except RpiImageError as error:
            self._failure = error
            return
        inserted.begun, inserted.tries = True, inserted.tries + 1
        self.screen.begin(node, device)
        self.reporter.note(f"writing {node} to {describe(device)}")
        self.flasher.start(job)

    def _prepared(self, node: str, device: Device) -> tuple[str, JobT]:
        """Return a node and its card: this one, or the next that no other program has taken."""
        taken: dict[str, NodeTakenError] = {}
        try:
            return self._first_free(node, device, taken)
        finally:
            if taken:
                self.reporter.warn(skipped(taken))

    def _first_free(
        self, node: str, device: Device, taken: dict[str, NodeTakenError]
    ) -> tuple[str, JobT]:
        while True:
            try:
                return node, self.prepare(node, device)
            except NodeTakenError as error:
                taken[node] = error
                self._aside = (*self._aside, node)
                if not self._waiting:
                    raise
                node = self._waiting.popleft()
            except RefusedError:
                self._waiting.appendleft(node)
                raise

    def _settle(self, outcome: OutcomeT) -> None:
        refused = self.settle(outcome)
        self.screen.settle(outcome, refused)
        self._outcomes.append(outcome)
        node, path = outcome.job.node, outcome.job.device.path
        if refused:
            self._aside = (*self._aside, node)
            self.reporter.warn(f"{path}: {refused.message}; {refused.hint}")
            return
        if outcome.report:
            roster = self.roster or self.nodes
            place = f"label {roster.index(node) + 1} of {len(roster)}"
            owner = f" ({self.owners[node]})" if self.owners.get(node) else ""
            self.reporter.note(f"{path} is done: remove it and attach {place}, {node}{owner}")
            return
        self._waiting.appendleft(node)
        self._let_try_again(outcome)
        self.reporter.warn(f"{path} failed: {reason_of(outcome)}; insert another card for {node}")

    def _let_try_again(self, outcome: OutcomeT) -> None:
        """Retry a card that was refused before writing: udev or the desktop may have held it."""
        inserted = self._inserted.get(medium_of(outcome.job.device))
        untouched = outcome.stage == Stage.CLAIM and isinstance(outcome.error, RefusedError)
        if inserted and untouched and inserted.tries < _TRIES:
            inserted.begun, inserted.since = False, self.clock()
