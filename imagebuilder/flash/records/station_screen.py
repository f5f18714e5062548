"""What a running station shows on a screen: a small file beside the ledger, replaced as a whole."""

from __future__ import annotations

import json
import os
import platform
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from imagebuilder.errors import RpiImageError
from imagebuilder.files import remove_file, write_file
from imagebuilder.flash.jobs import reason_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from imagebuilder.devices.device import Device
    from imagebuilder.flash.jobs import Outcome
    from imagebuilder.progress import Meter, Reporter

BEAT_SECONDS = 5.0  # an unchanged file is written again, as a sign of life
ALIVE_SECONDS = 15.0
LEAST_SECONDS = 0.4  # between two changes
MOST_CARDS = 32  # the last ones are shown
MOST_STATIONS = 32  # beside one ledger
MOST_BYTES = 64 << 10  # of the file of one station


@dataclass(kw_only=True)
class _Card:
    """One card, as it is shown; `number` grows with each card of the station."""

    number: int
    reader: str
    node: str
    label: int
    owner: str
    state: str = "writing"
    percent: int | None = None
    error: str = ""


@dataclass(kw_only=True)
class StationScreen:
    """The screen of one station; nothing is written without a ledger, or where that fails."""

    ledger: Path | None
    roster: Sequence[str] = ()
    owners: Mapping[str, str] = field(default_factory=dict)
    _cards: dict[str, _Card] = field(init=False, default_factory=dict)
    _lock: threading.Lock = field(init=False, default_factory=threading.Lock)
    _next: tuple[str, ...] = field(init=False, default=())
    _count: int = field(init=False, default=0)
    _written: float = field(init=False, default=0.0)
    _shown: dict[str, Any] = field(init=False, default_factory=dict)

    @property
    def path(self) -> Path | None:
        """The file of this station."""
        if self.ledger is None:
            return None
        host = "".join(c for c in platform.node() if c.isalnum() or c == "-")
        return self.ledger.with_suffix(f".station-{host}-{os.getpid()}.json")

    def begin(self, node: str, device: Device) -> None:
        """Show a card that is begun."""
        with self._lock:
            self._count += 1
            self._cards[device.path] = _Card(
                number=self._count,
                reader=device.path,
                node=node,
                label=self._label(node),
                owner=self.owners.get(node, ""),
            )

    def settle(self, outcome: Outcome, refused: RpiImageError | None) -> None:
        """Show the result of a card."""
        with self._lock:
            card = self._cards.get(outcome.job.device.path)
            if card is None:
                return
            good = outcome.report is not None and refused is None
            card.state, card.percent = ("done", 100) if good else ("failed", card.percent)
            card.error = "" if good else refused.message if refused else reason_of(outcome)

    def advance(self, node: str, share: float) -> None:
        """Show how far the card of a node is."""
        for card in self._cards.values():
            if card.node == node and card.state == "writing":
                card.percent = min(99, int(100 * share))

    def beat(self, waiting: Sequence[str]) -> None:
        """Show which nodes wait, and write the file if something has changed."""
        self._next = tuple(waiting)
        now = time.monotonic()
        if self.path is None or now - self._written < LEAST_SECONDS:
            return
        shown = self._document()
        if shown == self._shown and now - self._written < BEAT_SECONDS:
            return
        with suppress(OSError, RpiImageError):  # a screen must not stop a station
            if not self._shown:
                _sweep(self.path)
            self._shown, self._written = shown, now
            write_file(self.path, json.dumps(shown).encode())

    def end(self) -> None:
        """Remove the file."""
        if self.path:
            with suppress(OSError, RpiImageError):
                remove_file(self.path)

    def _document(self) -> dict[str, Any]:
        with self._lock:
            cards = sorted(self._cards.values(), key=lambda card: -card.number)[:MOST_CARDS]
            node = self._next[0] if self._next else ""
            return {
                "station": f"{platform.node()} {os.getpid()}",
                "next": node,
                "label": self._label(node),
                "owner": self.owners.get(node, ""),
                "left": len(self._next),
                "of": len(self.roster),
                "cards": [asdict(card) for card in cards],
            }

    def _label(self, node: str) -> int:
        return self.roster.index(node) + 1 if node in self.roster else 0


@dataclass(frozen=True, slots=True)
class ScreenReporter:
    """A reporter whose meters, which begin with the name of a node, are shown on a screen too."""

    reporter: Reporter
    screen: StationScreen

    def note(self, text: str) -> None:
        """Report what is happening."""
        self.reporter.note(text)

    def warn(self, text: str) -> None:
        """Report a risk."""
        self.reporter.warn(text)

    def meter(
        self, label: str, total: int | None, unit: str = "B"
    ) -> AbstractContextManager[Meter]:
        """Open a meter that is shown twice."""
        return self._shown(label, total, unit)

    @contextmanager
    def _shown(self, label: str, total: int | None, unit: str) -> Iterator[Meter]:
        with self.reporter.meter(label, total, unit) as meter:
            yield _ScreenMeter(meter, self.screen, label.partition(" ")[0], total or 0)


@dataclass(slots=True)
class _ScreenMeter:
    meter: Meter
    screen: StationScreen
    node: str
    total: int
    done: int = 0

    def advance(self, amount: int) -> None:
        """Add to both."""
        self.done += amount
        self.meter.advance(amount)
        if self.total:
            self.screen.advance(self.node, self.done / self.total)


def read_stations(ledger: Path) -> list[dict[str, Any]]:
    """Return what the stations beside a ledger show; leave out old and damaged files."""
    found = []
    for path in sorted(ledger.parent.glob(f"{ledger.stem}.station-*.json"))[:MOST_STATIONS]:
        with suppress(OSError, ValueError, RecursionError):
            if time.time() - path.stat().st_mtime < ALIVE_SECONDS:
                with path.open("rb") as file:
                    shown = json.loads(file.read(MOST_BYTES))
                found += [shown] if isinstance(shown, dict) else []
    return found


def _sweep(path: Path) -> None:
    """Remove the files of stations that were killed."""
    start = path.name.rpartition(".station-")[0]
    for old in path.parent.glob(f"{start}.station-*.json"):
        if time.time() - old.stat().st_mtime > 4 * ALIVE_SECONDS:
            remove_file(old)
