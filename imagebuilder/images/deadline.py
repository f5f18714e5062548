"""A time limit for who waits on sockets: when it is over they are shut, and the wait ends.

The timeouts of a socket are for each of its reads; a server that sends a byte now and then never
meets them.
"""

from __future__ import annotations

import contextlib
import math
import os
import socket
import threading
import time
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextvars import Token
    from types import TracebackType
    from typing import Self

_TICK_SECONDS = 0.5
_current: ContextVar[Deadline | None] = ContextVar("deadline", default=None)


class Deadline:
    """A limit of `seconds`, counted from its begin or its last `renew`; a context manager."""

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

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()
        for own in self._sockets:
            own.close()
        if self._token:
            _current.reset(self._token)

    def renew(self) -> None:
        """Start counting again."""
        self._until = time.monotonic() + self._seconds

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Count no time meanwhile: the work is ours, not the other side's."""
        left, self._until = self._until - time.monotonic(), math.inf
        try:
            yield
        finally:
            self._until = time.monotonic() + left

    def watch(self, descriptor: int) -> None:
        """Shut this socket, too, when the time is over; a copy of the descriptor is held."""
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
    with contextlib.suppress(OSError):
        own.shutdown(socket.SHUT_RDWR)


def watch(descriptor: int) -> None:
    """Put a socket under the deadline that this thread works under, if there is one."""
    if deadline := _current.get():
        deadline.watch(descriptor)
