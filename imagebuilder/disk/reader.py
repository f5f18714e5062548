"""Read-only random access to raw images and block devices."""

from __future__ import annotations

import os
import stat
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from imagebuilder.errors import ImageError, unreadable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Opener = Callable[[Path, int], int]

_LARGEST_OFFSET = 1 << 62


class RawFile:
    """A file or block device opened for reading only; a ReadAt."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        # Not st_size, which is 0 for a block device (inode(7)).
        self.size_bytes = os.lseek(descriptor, 0, os.SEEK_END)

    def read_at(self, offset_bytes: int, size_bytes: int) -> bytes:
        """Return up to `size_bytes` from `offset_bytes`; fewer only at the end of the disk."""
        if offset_bytes > _LARGEST_OFFSET:
            return b""  # a partition table may hold any number, and pread(2) takes no larger one
        # One call returns at most 0x7ffff000 bytes on Linux (read(2)).
        parts = []
        while size_bytes > 0 and (
            part := _pread(self.descriptor, min(size_bytes, 1 << 30), offset_bytes)
        ):
            parts.append(part)
            offset_bytes += len(part)
            size_bytes -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)


def _pread_by_seeking(descriptor: int, size_bytes: int, offset_bytes: int) -> bytes:
    with _seeking:
        os.lseek(descriptor, offset_bytes, os.SEEK_SET)
        return os.read(descriptor, size_bytes)


# Windows has no pread(2), and translates line ends and ^Z unless a file is opened as binary.
_seeking = threading.Lock()
_pread = getattr(os, "pread", _pread_by_seeking)
_READ = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


@contextmanager
def open_raw(path: Path, opener: Opener = os.open) -> Iterator[RawFile]:
    """Open a raw image or block device. Raise ImageError if it cannot be read."""
    try:
        descriptor = opener(path, _READ)
    except OSError as error:
        raise unreadable(path, error) from error
    try:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise ImageError(f"{path} is a folder", "use the path of an image or a device")
        yield RawFile(descriptor)
    finally:
        os.close(descriptor)


CACHED_BYTES = 64 << 20


class ReadAt(Protocol):
    """Random access for reading; offsets and sizes in bytes from the start of the disk."""

    size_bytes: int

    def read_at(self, offset_bytes: int, size_bytes: int) -> bytes:
        """Return up to `size_bytes` from `offset_bytes`; fewer only at the end."""


class CachedReader:
    """A ReadAt that caches up to 64 MiB, so that many nodes of one base read the disk once."""

    def __init__(self, disk: ReadAt) -> None:
        self.size_bytes = disk.size_bytes
        self._disk = disk
        self._kept: dict[tuple[int, int], bytes] = {}
        self._kept_bytes = 0

    def read_at(self, offset_bytes: int, size_bytes: int) -> bytes:
        """Return up to `size_bytes` from `offset_bytes`; fewer only at the end."""
        key = (offset_bytes, size_bytes)
        if (data := self._kept.get(key)) is None:
            data = self._disk.read_at(offset_bytes, size_bytes)
            self._keep(key, data)
        return data

    def _keep(self, key: tuple[int, int], data: bytes) -> None:
        if self._kept_bytes + len(data) > CACHED_BYTES:
            self._kept.clear()
            self._kept_bytes = 0
        self._kept[key] = data
        self._kept_bytes += len(data)
