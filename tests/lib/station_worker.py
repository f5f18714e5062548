"""A station of a class with many: writes the next node to cards that never run out.

It notes each node whose card it tells the user to use, as the user would see it.
"""

from __future__ import annotations

import itertools
import random
import sys
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, cast

from imagebuilder.devices.device import Device
from imagebuilder.devices.hotplug import Uevents
from imagebuilder.flash import claims as claims_module
from imagebuilder.flash.claims import CardClaims
from imagebuilder.flash.content import CardContent
from imagebuilder.flash.flasher import CardOutcome
from imagebuilder.flash.records.shared import SharedLedger
from imagebuilder.flash.station import Station
from imagebuilder.flash.writer import CardJob, Stage
from imagebuilder.model import Secret
from imagebuilder.progress import SilentReporter
from imagebuilder.shack.claim_store import ClaimStore
from tests.lib.reports import REPORT

if TYPE_CHECKING:
    from imagebuilder.disk.patched import PatchedImage

READERS = 3
TTL_SECONDS = 10.0  # the shortest that consul takes


class Slow:
    """Writes each card for a while; `seconds` is how long."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.jobs: deque[tuple[float, CardJob]] = deque()

    @property
    def busy(self) -> bool:
        return bool(self.jobs)

    def start(self, job: CardJob) -> None:
        self.jobs.append((time.monotonic() + random.uniform(0.5, 1.5) * self.seconds, job))

    def poll(self, seconds: float) -> CardOutcome | None:
        if not self.jobs or time.monotonic() < self.jobs[0][0]:
            time.sleep(min(seconds, 0.01))
            return None
        return CardOutcome(job=self.jobs.popleft()[1], stage=Stage.DONE, report=REPORT)

    def stop(self) -> tuple[CardOutcome, ...]:
        return ()


class Diary(SilentReporter):
    """Writes down what a user would read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def note(self, text: str) -> None:
        self._write(text)

    def warn(self, text: str) -> None:
        self._write(f"warning: {text}")

    def _write(self, text: str) -> None:
        with self.path.open("a") as file:
            file.write(f"{text}\n")


def main(folder: Path, port: str, token: str, count: str, seconds: str) -> None:
    """Run one station in a folder of its own until every node has a card."""
    claims_module._node_on = lambda _: {}  # type: ignore[assignment]
    names = [f"pi-{number:03}" for number in range(1, int(count) + 1)]
    url = f"http://127.0.0.1:{port}"
    store = ClaimStore(
        url=url, token=Secret(token), class_name="class", ttl_seconds=TTL_SECONDS, timeout_seconds=2
    )
    diary = Diary(folder / "said.txt")
    ledger = SharedLedger(folder / "class.cards.yml", store, names, diary)
    ledger.check(share=True)
    claims = CardClaims(ledger, diary, again=False, epoch=time.time_ns())
    flasher, numbers = Slow(float(seconds)), itertools.count(1)
    cards = {f"/dev/sd{letter}": next(numbers) for letter in "abcdef"[:READERS]}

    def look() -> tuple[Device, ...]:
        return tuple(
            Device(path=path, major_minor=path, size_bytes=1, sequence=sequence)
            for path, sequence in cards.items()
        )

    def prepare(node: str, device: Device) -> CardJob:
        source = cast("PatchedImage", None)
        content = CardContent(source=source, write_set=(), files={}, node=node, config_hash=node)
        claims.begin(content, device)
        return CardJob(device=device, source=source, write_set=(), prove=print, node=node)

    def settle(outcome: CardOutcome) -> object:
        cards[outcome.job.device.path] = next(numbers)
        return claims.end(outcome)

    station: Station[CardJob, CardOutcome] = Station(
        nodes=claims.pending(names),
        flasher=flasher,
        look=look,
        prepare=prepare,
        settle=settle,  # type: ignore[arg-type]
        policy=None,
        others=claims.others,
        reporter=diary,
        clock=lambda: time.monotonic() * 20,
    )
    cards_before, cards = cards, {}
    start = station.run

    class Later(Uevents):
        """Inserts the first cards after the station has begun."""

        def changed(self) -> bool:
            if not cards:
                cards.update(cards_before)
            return True

    start(Later(None))
    diary.note("every node has a card")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
