"""Long work that ends early: a wish it heeds between two pieces, and a pool that waits for it."""

from __future__ import annotations

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
    """The work was asked to end before it was done."""


class CancelToken(SilentReporter):
    """The voice of work that may be asked to end: then its meters raise Stopped.

    Meters advance between two pieces, so that is where the work ends.
    """

    def __init__(self) -> None:
        self._asked = threading.Event()

    def ask(self) -> None:
        """Let the work end at its next piece."""
        self._asked.set()

    def check(self) -> None:
        """Raise Stopped where the work is to end."""
        if self._asked.is_set():
            raise Stopped

    def meter(
        self, label: str, total: int | None, unit: str = "B"
    ) -> AbstractContextManager[Meter]:
        """Return a meter that nobody reads and that ends the work."""
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
    """Yield a pool that ends with the block: what has not begun is dropped, the rest asked to stop.

    The rest is waited for however often Ctrl-C is pressed: nobody may still write to a file that
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
    """Return the results of what has ended, at least ten times a second, be it of nothing.

    Python sees a Ctrl-C that comes just as a wait begins only when that is over.
    """
    waiting = set(futures)
    while waiting:
        done, waiting = wait(waiting, _TICK_SECONDS, FIRST_COMPLETED)
        yield [future.result() for future in done]


def _join(pool: ThreadPoolExecutor) -> None:
    """Wait for the pool from another thread, which Ctrl-C does not reach.

    Python takes a thread whose join was interrupted for ended (github.com/python/cpython, 90882).
    """
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
