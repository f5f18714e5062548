"""Cancel long work between two pieces, and a thread pool that waits until it has ended."""

from __future__ import annotations

import sys
import threading
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, TypeVar

from imagebuilder.progress import SilentReporter

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from imagebuilder.progress import Meter

_TICK_SECONDS = 0.1
_T = TypeVar("_T")


class Stopped(Exception):  # noqa: N818 - a request, not an error
    """The work was cancelled before it was done."""


class CancelToken(SilentReporter):
    """A reporter for work that may be cancelled: after `ask` its meters raise Stopped.

    Meters advance between two pieces, so the work ends there.
    """

    def __init__(self) -> None:
        self._asked = threading.Event()

    def ask(self) -> None:
        """Cancel the work; it ends before its next piece."""
        self._asked.set()

    def check(self) -> None:
        """Raise Stopped if the work was cancelled."""
        if self._asked.is_set():
            raise Stopped

    def meter(
        self, label: str, total: int | None, unit: str = "B"
    ) -> AbstractContextManager[Meter]:
        """Return a meter that raises Stopped after `ask`."""
        del label, total, unit
        return nullcontext(_CancelMeter(self))


class _CancelMeter:
    def __init__(self, stop: CancelToken) -> None:
        self._stop = stop

    def advance(self, amount: int) -> None:
        del amount
        self._stop.check()


@contextmanager
def worker_pool(
    threads: int, name: str, stop: CancelToken | None = None
) -> Iterator[ThreadPoolExecutor]:
    """Yield a thread pool; at the end of the block drop what has not begun and cancel the rest.

    Wait for the rest even if Ctrl-C is pressed again: no thread may still write to a file that
    the caller is about to close or remove.
    """
    pool = ThreadPoolExecutor(threads, name)
    try:
        yield pool
    finally:
        if stop:
            stop.ask()
        _join(pool)


def as_they_end(futures: Iterable[Future[_T]]) -> Iterator[list[_T]]:
    """Yield the results of what has ended, at least ten times a second; the list may be empty.

    Python handles a Ctrl-C that comes just as a wait begins only after that wait.
    """
    waiting = set(futures)
    while waiting:
        done, waiting = wait(waiting, _TICK_SECONDS, FIRST_COMPLETED)
        yield [future.result() for future in done]


def _join(pool: ThreadPoolExecutor) -> None:
    """Wait for the pool in another thread, which Ctrl-C does not interrupt.

    Python regards a thread as ended if its join was interrupted (github.com/python/cpython, 90882).
    """
    if sys.is_finalizing():  # no thread starts any more, and those of the pool have ended
        pool.shutdown(wait=False, cancel_futures=True)
        return
    ended = threading.Event()

    def end() -> None:
        pool.shutdown(cancel_futures=True)
        ended.set()

    pressed: KeyboardInterrupt | None = None
    while not ended.is_set():
        try:
            threading.Thread(target=end).start()
            ended.wait()
        except KeyboardInterrupt as again:
            pressed = again
    if pressed:
        raise pressed
