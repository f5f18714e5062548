"""Write many cards in parallel: one thread for each, so that none waits for another."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from imagebuilder.errors import RpiImageError, WriteError
from imagebuilder.flash.writer import (
    NOT_BOOTING,
    Cancelled,
    CardJob,
    CardOptions,
    CardReport,
    Stage,
    Watch,
    work_bytes,
    write_card,
)
from imagebuilder.progress import SILENT, Reporter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

STALL_SECONDS = 120.0
_TICK_SECONDS = 0.2
_FAREWELL_SECONDS = 10.0
_SILENCE_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CardOutcome:
    """The result of one card: a report or an error; `stage` is the last one reached."""

    job: CardJob
    stage: Stage
    report: CardReport | None = None
    error: RpiImageError | None = None
    cancelled: bool = False


@dataclass
class _Worker:
    job: CardJob
    watch: Watch
    bug: BaseException | None = None


@dataclass(kw_only=True)
class Flasher:
    """Writes cards in background threads; `poll` returns those that have ended."""

    options: CardOptions
    reporter: Reporter = SILENT
    stall_seconds: float = STALL_SECONDS
    _working: list[_Worker] = field(init=False, default_factory=list)
    _finished: SimpleQueue[tuple[_Worker, CardOutcome]] = field(
        init=False, default_factory=SimpleQueue
    )

    @property
    def busy(self) -> tuple[CardJob, ...]:
        """The jobs being written."""
        return tuple(worker.job for worker in self._working)

    def start(self, job: CardJob) -> None:
        """Start writing a card."""
        worker = _Worker(job, Watch())
        self._working.append(worker)
        threading.Thread(target=self._work, args=(worker,), daemon=True).start()

    def poll(self, seconds: float = _TICK_SECONDS) -> CardOutcome | None:
        """Return the result of a card that ended or stalled; None after `seconds`."""
        try:
            worker, outcome = self._finished.get(timeout=seconds)
        except Empty:
            return self._stalled()
        if worker not in self._working:
            return None  # reported as stalled before
        self._working.remove(worker)
        if worker.bug:
            raise worker.bug
        return outcome

    def stop(self) -> tuple[CardOutcome, ...]:
        """Cancel all cards at their next chunk; wait at most 10 s and return the results."""
        for worker in self._working:
            worker.watch.cancelled.set()
        if self._working:
            self._warn("stopping: unfinished cards will not boot")
        outcomes = []
        begin, named = time.monotonic(), False
        while self._working and time.monotonic() < begin + _FAREWELL_SECONDS:
            if outcome := self.poll():
                outcomes.append(outcome)
            elif not named and time.monotonic() > begin + _SILENCE_SECONDS:
                named = True
                awaited = ", ".join(job.device.path for job in self.busy)
                self._warn(f"waiting for {awaited}: pull the reader to stop waiting")
        return tuple(outcomes)

    def _warn(self, text: str) -> None:
        with suppress(OSError):  # a closed terminal must not prevent the stop
            self.reporter.warn(text)

    def _work(self, worker: _Worker) -> None:
        outcome = CardOutcome(job=worker.job, stage=Stage.CLAIM, cancelled=True)
        try:
            outcome = self._written(worker)
        except BaseException as error:  # noqa: BLE001 - raised again by poll
            worker.bug = error
        self._finished.put((worker, outcome))

    def _written(self, worker: _Worker) -> CardOutcome:
        job, watch = worker.job, worker.watch
        deeds = "write+verify" if self.options.verify else "write"
        label = f"{job.node} {job.device.path} {deeds}".strip()
        try:
            with self.reporter.meter(label, work_bytes(job, self.options)) as meter:
                report = write_card(job, self.options, meter, watch)
        except RpiImageError as error:
            return CardOutcome(job=job, stage=watch.stage, error=error)
        except Cancelled:
            return CardOutcome(job=job, stage=watch.stage, cancelled=True)
        return CardOutcome(job=job, stage=Stage.DONE, report=report)

    def _stalled(self) -> CardOutcome | None:
        """Return the result of the first card that made no progress for `stall_seconds`."""
        now = time.monotonic()
        for worker in self._working:
            if now - worker.watch.beat > self.stall_seconds:
                worker.watch.cancelled.set()
                self._working.remove(worker)
                return CardOutcome(
                    job=worker.job,
                    stage=worker.watch.stage,
                    error=_no_answer(worker, self.stall_seconds),
                )
        return None


def flash_cards(
    jobs: Iterable[CardJob],
    options: CardOptions,
    reporter: Reporter = SILENT,
    *,
    stall_seconds: float = STALL_SECONDS,
    finished: Callable[[CardOutcome], None] | None = None,
) -> tuple[CardOutcome, ...]:
    """Write all cards in parallel; return the results in the order of `jobs`.

    A failure of one card does not stop the others. On KeyboardInterrupt or another exception all
    cards are stopped before their first chunk is written, and the exception is raised again.
    """
    flasher = Flasher(options=options, reporter=reporter, stall_seconds=stall_seconds)
    outcomes: dict[str, CardOutcome] = {}
    order = list(jobs)
    try:
        for job in order:
            flasher.start(job)
        while flasher.busy:
            if outcome := flasher.poll():
                outcomes[outcome.job.device.path] = outcome
                if finished:
                    finished(outcome)
    except BaseException:
        for outcome in flasher.stop():
            if finished:
                finished(outcome)
        raise
    return tuple(outcomes[job.device.path] for job in order)


def _no_answer(worker: _Worker, seconds: float) -> WriteError:
    path, watch = worker.job.device.path, worker.watch
    state = NOT_BOOTING if watch.touched else "nothing was written to it"
    return WriteError(
        f"{path} has not answered for {seconds:.0f} s (state {watch.stage})",
        f"pull the card and the reader, and use another one; {state}",
    )
