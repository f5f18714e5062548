"""Long work that ends early: a wish it heeds between two pieces, and a pool that waits for it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING

from imagebuilder.progress import Silent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imagebuilder.progress import Meter


class Stopped(Exception):  # noqa: N818 - a request, not an error
    """The work was asked to end before it was done."""


class Stop(Silent):
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
        """Give a meter that nobody reads and that ends the work."""
        del label, total, unit
        return nullcontext(_StopMeter(self))


class _StopMeter:
    def __init__(self, stop: Stop) -> None:
        self._stop = stop

    def advance(self, amount: int) -> None:
        del amount
        self._stop.check()


@contextmanager
def ending_pool(threads: int, name: str, stop: Stop | None = None) -> Iterator[ThreadPoolExecutor]:
    """Give a pool that ends with the block: what has not begun is dropped, the rest asked to stop.

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


def _join(pool: ThreadPoolExecutor) -> None:
    pressed: KeyboardInterrupt | None = None
    while True:
        try:
            pool.shutdown(cancel_futures=True)
        except KeyboardInterrupt as again:
            pressed = again
        else:
            break
    if pressed:
        raise pressed
