"""Open devices by udisks2, which has polkit ask the user (udisks.freedesktop.org/docs)."""

from __future__ import annotations

import errno
import os
from typing import Any

from imagebuilder.devices.blockdev import BLKRRPART

_NAME = "org.freedesktop.UDisks2"
_MANAGER = "/org/freedesktop/UDisks2/Manager"
_SECONDS = 300.0  # for the answer of the user
_PASSED = os.O_EXCL | getattr(os, "O_DIRECT", 0)


class UDisks:
    """The service udisks2 on the system bus; a Helper."""

    def open(self, path: str, flags: int) -> int:
        """Return a descriptor of a disk."""
        mode, options = "rw" if flags & os.O_RDWR else "r", {"flags": ("i", flags & _PASSED)}
        (opened,) = _call(_object_of(path), "Block", "OpenDevice", "sa{sv}", mode, options)
        descriptor: int = opened.to_raw_fd()
        return descriptor

    def request(self, descriptor: int, number: int, argument: int) -> None:
        """Do nothing for a new partition table; raise PermissionError for any other request.

        udev reads the table when a disk is closed that was open for writing (udev-watch).
        """
        del descriptor, argument
        if number != BLKRRPART:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    def unmount(self, path: str) -> None:
        """Unmount the file system on a device."""
        _call(_object_of(path), "Filesystem", "Unmount", "a{sv}", {})


def start(path: str) -> UDisks | None:
    """Return the helper if udisks2 is there, and opens `path` for this user."""
    udisks = UDisks()
    try:
        if path:
            os.close(udisks.open(path, os.O_RDONLY))
        else:
            _call(_MANAGER, "Manager", "GetBlockDevices", "a{sv}", {})
    except OSError:
        return None
    return udisks


def _object_of(path: str) -> str:
    """Return the object of a device. Raise OSError if udisks2 does not know it."""
    wanted = {"path": ("s", path)}
    (found,) = _call(_MANAGER, "Manager", "ResolveDevice", "a{sv}a{sv}", wanted, {})
    if not found:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    return str(found[0])


def _call(place: str, interface: str, method: str, form: str, *values: Any) -> Any:
    """Return the answer of a method; each has a connection, as threads ask. Raise OSError."""
    from jeepney import (  # noqa: PLC0415 - needed on desktops only
        AuthenticationError,
        DBusAddress,
        DBusErrorResponse,
        new_method_call,
    )
    from jeepney.io.blocking import open_dbus_connection  # noqa: PLC0415
    from jeepney.wrappers import unwrap_msg  # noqa: PLC0415

    address = DBusAddress(place, _NAME, f"{_NAME}.{interface}")
    try:
        with open_dbus_connection(bus="SYSTEM", enable_fds=True) as bus:
            message = new_method_call(address, method, form, values)
            return unwrap_msg(bus.send_and_get_reply(message, timeout=_SECONDS))
    except DBusErrorResponse as error:
        is_used = os.strerror(errno.EBUSY) in str(error)
        code = errno.EBUSY if is_used else errno.EACCES
        raise OSError(code, os.strerror(code)) from error
    except AuthenticationError as error:
        raise OSError(errno.EACCES, os.strerror(errno.EACCES)) from error
