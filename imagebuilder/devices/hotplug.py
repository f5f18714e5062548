"""Waiting for the kernel (or udev) to say that something about block devices changed."""

from __future__ import annotations

import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_KOBJECT_UEVENT = 15  # include/uapi/linux/netlink.h
_KERNEL_AND_UDEV = 1 | 2
_MESSAGE_BYTES = 16 << 10
_LOST = b"SUBSYSTEM=block"


class Uevents:
    """A netlink socket; without one (no Linux, no right) every wait just lasts its time."""

    def __init__(self, listener: socket.socket | None) -> None:
        self._listener = listener

    def changed(self) -> bool:
        """Tell at once whether a block device came, went or changed since the last call."""
        if self._listener is None:
            return True
        found = False
        while message := self._next():
            found |= b"SUBSYSTEM=block" in message
        return found

    def _next(self) -> bytes:
        try:
            return self._listener.recv(_MESSAGE_BYTES) if self._listener else b""
        except BlockingIOError:
            return b""
        except OSError:  # messages were lost: say that something changed, once
            return _LOST


@contextmanager
def open_uevents() -> Iterator[Uevents]:
    """Listen from now on."""
    try:
        listener = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, _KOBJECT_UEVENT)
        listener.bind((0, _KERNEL_AND_UDEV))
        listener.settimeout(0)
    except (OSError, AttributeError):
        yield Uevents(None)
        return
    with listener:
        yield Uevents(listener)
