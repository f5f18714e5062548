"""A time limit for reads from sockets: at its end they are shut down, so that the reads return.

The timeout of a socket is for each read, so a server that sends single bytes never exceeds it.
"""

from __future__ import annotations

import contextlib
import math
import os
import socket
import threading
import time
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextvars import Token
    from typing import Self


LONGEST_ANSWER_SECONDS = 30.0  # the headers of a response, and all of a small one
# The thread compares the end again after each tick, because `paused` moves it.
_TICK_SECONDS = 0.5
_current: ContextVar[Deadline | None] = ContextVar("deadline", default=None)


@dataclass(frozen=True, slots=True)
class Patience:
    """Timeouts and retries; `attempts` is the limit of consecutive attempts without progress."""

    attempts: int = 5
    connect_seconds: float = 10.0
    read_seconds: float = 30.0
    pause_seconds: float = 1.0
    answer_seconds: float = LONGEST_ANSWER_SECONDS


PATIENT = Patience()


class Deadline:
    """A limit of `seconds` from the creation or the last `renew`; a context manager."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._until = time.monotonic() + seconds
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._thread = threading.Thread(target=self._run, name="deadline", daemon=True)
        self._token: Token[Deadline | None] | None = None
        self.expired = False

    def __enter__(self) -> Self:
        self._token = _current.set(self)
        self._thread.start()
        return self

    def __exit__(self, *_raised: object) -> None:
        self._ended.set()
        self._thread.join()
        for own in self._sockets:
            own.close()
        if self._token:
            _current.reset(self._token)

    def renew(self) -> None:
        """Restart the time limit."""
        self._until = time.monotonic() + self._seconds

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Stop the time limit meanwhile, for work that the server has no part in."""
        left, self._until = self._until - time.monotonic(), math.inf
        try:
            yield
        finally:
            self._until = time.monotonic() + left

    def watch(self, descriptor: int) -> None:
        """Add a socket to shut down at the end; the descriptor is duplicated."""
        own = socket.socket(fileno=os.dup(descriptor))
        with self._lock:
            self._sockets.append(own)
            if self.expired:
                _shut(own)

    def _run(self) -> None:
        while (left := self._until - time.monotonic()) > 0:
            if self._ended.wait(min(left, _TICK_SECONDS)):
                return
        with self._lock:
            self.expired = True
            for own in self._sockets:
                _shut(own)


def _shut(own: socket.socket) -> None:
    # A read that blocks in another thread returns on shutdown(2), but not on close(2).
    with contextlib.suppress(OSError):
        own.shutdown(socket.SHUT_RDWR)


def watch(descriptor: int) -> None:
    """Add a socket to the deadline of this thread, if there is one."""
    if deadline := _current.get():
        deadline.watch(descriptor)
