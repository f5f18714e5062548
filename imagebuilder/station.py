"""The flash station: waits for cards, gives each the next node, until the roster is done."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from imagebuilder.errors import RefusedError
from imagebuilder.progress import SILENT, Voice
from imagebuilder.safety import refusals

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from imagebuilder.card import CardJob
    from imagebuilder.flash import CardOutcome, Flasher
    from imagebuilder.model import Device
    from imagebuilder.safety import Wish
    from imagebuilder.uevents import Uevents

LOOK_AGAIN_SECONDS = 5.0  # for a machine whose kernel tells nothing
_TICK_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Present:
    """The media that were there when the station started; they are never written."""

    media: frozenset[tuple[str, int | None]]
    disks: frozenset[tuple[str, str, str, int]]

    def holds(self, device: Device) -> bool:
        """Tell whether this medium was there, or one that cannot be told from it."""
        return medium_of(device) in self.media or (
            bool(device.serial) and _disk_of(device) in self.disks
        )


def present_now(devices: Sequence[Device]) -> Present:
    """Remember what is there."""
    there = [device for device in devices if device.size_bytes]
    return Present(
        frozenset(medium_of(device) for device in there),
        frozenset(_disk_of(device) for device in there),
    )


def medium_of(device: Device) -> tuple[str, int | None]:
    """Name a medium in its place; the number changes with every insertion."""
    return device.path, device.sequence


def _disk_of(device: Device) -> tuple[str, str, str, int]:
    return device.vendor, device.model, device.serial, device.size_bytes


@dataclass(kw_only=True)
class Station:
    """One session at the station.

    `prepare` composes a node for a device and notes it in the ledger; `settle` notes how it ended.
    """

    nodes: Sequence[str]
    flasher: Flasher
    look: Callable[[], tuple[Device, ...]]
    prepare: Callable[[str, Device], CardJob]
    settle: Callable[[CardOutcome], None]
    wish: Wish
    voice: Voice = SILENT
    _waiting: deque[str] = field(init=False)
    _seen: set[tuple[str, int | None]] = field(init=False, default_factory=set)
    _outcomes: list[CardOutcome] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self._waiting = deque(self.nodes)

    def run(self, events: Uevents) -> tuple[CardOutcome, ...]:
        """Write until every node has a card; KeyboardInterrupt stops all cards and goes on."""
        there = present_now(self.look())
        self.voice.note(f"{len(self._waiting)} nodes to write; insert cards, Ctrl-C ends")
        try:
            self._serve(events, there)
        except KeyboardInterrupt:
            self.voice.warn("stopping; cards that are not done will not boot")
            for outcome in self.flasher.cancel():
                self._settle(outcome)
            raise
        return tuple(self._outcomes)

    def _serve(self, events: Uevents, there: Present) -> None:
        next_look = 0.0
        while self._waiting or self.flasher.busy:
            now = time.monotonic()
            if self._waiting and (events.changed() or now >= next_look):
                next_look = now + LOOK_AGAIN_SECONDS
                self._take_new(there)
            if outcome := self.flasher.poll(_TICK_SECONDS):
                self._settle(outcome)

    def _take_new(self, there: Present) -> None:
        devices = [device for device in self.look() if device.size_bytes]
        self._seen &= {medium_of(device) for device in devices}
        for device in devices:
            if medium_of(device) not in self._seen and medium_of(device) not in there.media:
                self._seen.add(medium_of(device))
                self._take(device, there)

    def _take(self, device: Device, there: Present) -> None:
        reasons = [refusal.message for refusal in refusals(device, self.wish)]
        if there.holds(device):
            reasons.insert(0, "looks like a disk that was here when the station started")
        if reasons:
            self.voice.warn(f"{device.path} is left alone: it {'; it '.join(reasons)}")
        elif self._waiting:
            self._begin(self._waiting.popleft(), device)

    def _begin(self, node: str, device: Device) -> None:
        try:
            job = self.prepare(node, device)
        except RefusedError as error:
            self._waiting.appendleft(node)
            self.voice.warn(f"{device.path} is left alone: {error.message} ({error.hint})")
            return
        self.voice.note(f"{node} goes onto {describe(device)}")
        self.flasher.start(job)

    def _settle(self, outcome: CardOutcome) -> None:
        self.settle(outcome)
        self._outcomes.append(outcome)
        node, path = outcome.job.node, outcome.job.device.path
        if outcome.report:
            place = f"label {self.nodes.index(node) + 1} of {len(self.nodes)}"
            self.voice.note(f"{path} is done: take it out and stick {place}, {node}, on it")
            return
        self._waiting.appendleft(node)
        why = outcome.error.message if outcome.error else "stopped"
        self.voice.warn(f"{path} failed: {why}; {node} waits for another card")


def describe(device: Device) -> str:
    """Name a device for people: path, what it is, how large, where it hangs."""
    size = f"{device.size_bytes / 10**9:.1f} GB"
    words = [device.vendor, device.model, size, device.serial, device.slot]
    return f"{device.path} ({', '.join(word for word in words if word)})"
