"""Open devices as the user who runs the program, or by a helper that may do what the user may not.

The helpers are the opener that stays root (`cli.companion`) and udisks2 (`udisks`). Which of them
may be started is up to the caller of the library, because both may ask for a password.
"""

from __future__ import annotations

import contextlib
import os
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    # Starts a helper for a path ("": for any); returns None if that is not possible.
    Starter = Callable[[str], "Helper | None"]

with contextlib.suppress(ImportError):  # on Windows the module is imported, but no device is opened
    import fcntl


# Windows has no such flag; its descriptors are not inherited.
_CLOSED_IN_CHILDREN = getattr(os, "O_CLOEXEC", 0)


class Helper(Protocol):
    """Something with permissions that this process does not have; methods raise OSError."""

    def open(self, path: str, flags: int) -> int:
        """Return a descriptor of a whole disk."""

    def request(self, descriptor: int, number: int, argument: int) -> None:
        """Make an ioctl on an open device."""

    def unmount(self, path: str) -> None:
        """Unmount the file system on a device."""


@dataclass
class _Access:
    """The helper of this process, like its user ID a property of the process."""

    helper: Helper | None = None
    starters: Sequence[Starter] = ()
    lock: threading.Lock = field(default_factory=threading.Lock)

    def start(self, path: str, *, last: bool = False) -> Helper | None:
        """Return the helper; the first time, start the first that can be, or the `last`."""
        with self.lock:
            for starter in self.starters[::-1] if last else self.starters:
                self.helper = self.helper or starter(path)
            self.starters = ()
            return self.helper


_access = _Access()


def use(helper: Helper) -> None:
    """Use a helper from now on."""
    _access.helper = helper


def allow(*starters: Starter) -> None:
    """Allow to start a helper, the first that can be, when a device cannot be opened without."""
    _access.starters = starters


def has_helper() -> bool:
    """Return whether there is a helper."""
    return _access.helper is not None


def prepare() -> bool:
    """Start a helper for devices to come, the last that can be; return whether there is one.

    Return True as well for users who can open disks without, and if none may be started.
    """
    if not _access.starters or os.geteuid() == 0 or _is_in_group_of_disks():
        return True
    return _access.start("", last=True) is not None


def _is_in_group_of_disks() -> bool:
    groups = {os.getegid(), *os.getgroups()}
    disks = (Path("/dev", block.name) for block in Path("/sys/block").iterdir())
    return any(disk.is_block_device() and disk.stat().st_gid in groups for disk in disks)


def may_write(path: str) -> bool:
    """Return whether a device may be opened for writing; start a helper if needed."""
    return os.access(path, os.W_OK) or _access.start(path) is not None


def open_device(path: str | Path, flags: int, *, start: bool = True) -> int:
    """Return a descriptor of a device (or file), opened by the helper if there is no other way.

    Raise OSError. With `start`, start a helper if there is none.
    """
    try:
        return os.open(path, flags | _CLOSED_IN_CHILDREN)
    except PermissionError:
        real = os.path.realpath(path)
        is_device = Path(real).is_block_device()
        helper = _access.start(real) if start and is_device else _access.helper
        if helper is None or not is_device:
            raise
        descriptor = helper.open(real, flags & ~_CLOSED_IN_CHILDREN)
        os.set_inheritable(descriptor, False)  # noqa: FBT003 - has no keywords
        return descriptor


def request(descriptor: int, number: int, argument: int = 0) -> None:
    """Make an ioctl on an open device, by the helper if the kernel wants root. Raise OSError."""
    try:
        fcntl.ioctl(descriptor, number, argument)
    except PermissionError:
        if _access.helper is None:
            raise
        _access.helper.request(descriptor, number, argument)


def unmount(path: str) -> bool:
    """Unmount the file system on a device by the helper; return whether that succeeded."""
    try:
        if _access.helper:
            _access.helper.unmount(path)
    except OSError:
        return False
    return _access.helper is not None
