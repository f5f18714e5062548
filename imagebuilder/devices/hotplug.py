"""Listen for events of the kernel and udev about block devices."""

from __future__ import annotations

import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_KOBJECT_UEVENT = 15  # include/uapi/linux/netlink.h
_KERNEL_AND_UDEV = 1 | 2  # multicast groups of kernel and udev (systemd, sd-device)
_MESSAGE_BYTES = 16 << 10
_LOST = b"SUBSYSTEM=block"


class Uevents:
    """A netlink socket; without one (not Linux, no permission) callers have to poll."""

    def __init__(self, listener: socket.socket | None) -> None:
        self._listener = listener

    def changed(self) -> bool:
        """Return at once whether a block device came, went or changed since the last call."""
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
        except OSError:  # ENOBUFS: events were lost (netlink(7)), so report a change
            return _LOST


@contextmanager
def open_uevents() -> Iterator[Uevents]:
    """Yield a listener for events from now on."""
    try:
        listener = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, _KOBJECT_UEVENT)
        listener.bind((0, _KERNEL_AND_UDEV))
        listener.settimeout(0)
    except (OSError, AttributeError):
        yield Uevents(None)
        return
    with listener:
        yield Uevents(listener)
