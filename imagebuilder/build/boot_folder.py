"""A mounted boot partition as a folder: its files for the planner, and changes one at a time.

It uses only what Python has on Linux, macOS and Windows alike.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
import unicodedata
from typing import TYPE_CHECKING, NamedTuple

from imagebuilder.disk.fat.names import fold, split_path
from imagebuilder.disk.fat.volume import MOST_TEXT_BYTES
from imagebuilder.errors import ImageError, RefusedError, WriteError
from imagebuilder.files import has_file, whole_drive
from imagebuilder.plan.card_layout import CMDLINE, CONFIG
from imagebuilder.progress import two_sizes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# The files by which a boot partition is known: of the firmware, and for it.
_FIRMWARE_FILES = (CMDLINE, CONFIG, "bootcode.bin", "start.elf", "start4.elf")

# The name of a file until it is complete. An interrupted run may leave one.
UNFINISHED = ".rpi-new"

# What Windows and macOS add to every removable drive, in lower case.
_OF_SYSTEMS = frozenset(
    {
        "$recycle.bin",
        ".ds_store",
        ".fseventsd",
        ".spotlight-v100",
        ".temporaryitems",
        ".trashes",
        "system volume information",
    }
)
_OF_MACOS = "._"  # AppleDouble files (RFC 1740) next to others

# Budgets: the boot partition of Raspberry Pi OS has about 400 files in 2 levels of folders.
MOST_FILES = 20_000
MOST_LEVELS = 16

_READ = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
_OLD = os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
_NEW = _OLD | os.O_CREAT | os.O_EXCL
_COMPARED_BYTES = 1 << 20

# Where statvfs does not exist: the largest cluster of a FAT (fatgen103).
_LARGEST_CLUSTER = 32 << 10

REPAIR = (
    "check the lock switch of the card, then repair the partition: `sudo fsck.vfat -a DEVICE` on"
    " Linux, First Aid in Disk Utility on macOS, `chkdsk E: /f` on Windows"
)


def may_be_boot_partition(folder: Path) -> bool:
    """Return whether a folder has a file of a boot partition, without reading the others."""
    return any(has_file(folder / name) for name in _FIRMWARE_FILES)


class Space(NamedTuple):
    """The free space of a partition, in clusters."""

    free: int
    cluster_bytes: int

    def clusters(self, size_bytes: int) -> int:
        """Return the clusters that a file of this size takes."""
        return -(-size_bytes // self.cluster_bytes)


class BootFolder:
    """The files of a mounted boot partition; names are compared without case, as FAT does.

    What operating systems put on every drive, links and unfinished files are not listed.
    `keeps_unlinked`: a file that was replaced can be overwritten while it is open, as with the FAT
    drivers of the Linux kernel; over FUSE that may damage the partition.
    """

    def __init__(self, root: Path, *, keeps_unlinked: bool = sys.platform == "linux") -> None:
        self.root = root = whole_drive(root)
        self._keeps_unlinked = keeps_unlinked
        self._files: dict[str, str] = {}
        self._folders: dict[str, str] = {}
        self._unfinished: list[str] = []
        self._touched: set[Path] = set()
        with _reading(root):
            self._walk("", MOST_LEVELS)

    @property
    def is_boot_partition(self) -> bool:
        """Whether a Raspberry Pi would boot from it, as far as its files show."""
        return any(self.exists(path) for path in _FIRMWARE_FILES)

    # ---- for the planner (plan.boot_files.BootFiles)

    def names(self) -> tuple[str, ...]:
        """Return the sorted paths of all files."""
        return tuple(sorted(self._files.values()))

    def exists(self, path: str) -> bool:
        """Return whether a file or folder exists."""
        return _key(path) in self._files or _key(path) in self._folders

    def read(self, path: str, most_bytes: int = MOST_TEXT_BYTES) -> bytes:
        """Return the content of a file. Raise ImageError if it is missing or over `most_bytes`."""
        with _reading(self.root / path), self._opened(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > most_bytes:
                found, most = two_sizes(size, most_bytes)
                raise ImageError(
                    f"{path} on the boot partition has {found}, more than {most}",
                    "check that this is the boot partition of a Raspberry Pi",
                )
            return file.read(most_bytes)

    # ---- what is there

    def has_file(self, path: str) -> bool:
        """Return whether a file exists; folders do not count."""
        return _key(path) in self._files

    def size_of(self, path: str) -> int:
        """Return the size of a file, or 0 if it does not exist."""
        actual = self._files.get(_key(path))
        if actual is None:
            return 0
        with _reading(self.root / path):
            return (self.root / actual).stat().st_size

    def holds(self, path: str, data: bytes) -> bool:
        """Return whether a file exists with exactly this content, read from the medium."""
        if not self.has_file(path) or self.size_of(path) != len(data):
            return False
        with _reading(self.root / path), self._opened(path) as file:
            _drop_cached(file.fileno())
            view = memoryview(data)
            return all(
                file.read(_COMPARED_BYTES) == view[at : at + _COMPARED_BYTES]
                for at in range(0, len(data), _COMPARED_BYTES)
            )

    def missing_folders(self, path: str) -> set[str]:
        """Return keys of the folders that have to be made for a file."""
        return {_key(parent) for parent in _parents(path)} - self._folders.keys()

    def space(self) -> Space:
        """Return the free space."""
        with _reading(self.root):
            if hasattr(os, "statvfs"):
                found = os.statvfs(self.root)
                return Space(found.f_bavail, max(found.f_frsize, 1))
            import shutil  # noqa: PLC0415 - on Windows only

            return Space(shutil.disk_usage(self.root).free // _LARGEST_CLUSTER, _LARGEST_CLUSTER)

    # ---- changes

    def clean(self) -> None:
        """Remove the unfinished files of an interrupted run, which may hold secrets."""
        for path in self._unfinished:
            with _writing(self.root / path):
                _overwrite(self.root / path)
                (self.root / path).unlink()
        self._unfinished.clear()

    def write(self, path: str, data: bytes, *, wipe: bool = False, in_use: bool = True) -> None:
        """Write a file: beside its place first, then flushed and renamed.

        With `wipe` the old content is overwritten: before the new file takes its place, or after
        it while the file is `in_use`, because a file of zeros must never be the live one.
        """
        target = self._place(path)
        with _writing(target):
            self._make_parents(path)
            unfinished = target.with_name(target.name + UNFINISHED)
            with os.fdopen(os.open(unfinished, _NEW, 0o600), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            wipe = wipe and self.has_file(path)
            if wipe and not in_use:
                _overwrite(target)
            with _kept_open(target, wanted=wipe and in_use and self._keeps_unlinked) as old:
                _allow_writing(target)
                unfinished.replace(target)
                if old is not None:
                    _zero(old)
        self._files.setdefault(_key(path), path)
        self._touched.add(target.parent)

    def remove(self, path: str, *, wipe: bool = False) -> None:
        """Remove a file, if it exists; with `wipe` it is overwritten and flushed first."""
        actual = self._files.pop(_key(path), None)
        if actual is None:
            return
        target = self.root / actual
        with _writing(target):
            _allow_writing(target)
            if wipe:
                _overwrite(target)
            target.unlink()
        self._touched.add(target.parent)
        self._remove_empty(actual)

    def flush(self) -> None:
        """Flush the names of what was changed; Windows writes them at once on removable drives."""
        if os.name == "posix":
            for folder in sorted(self._touched):
                with _writing(folder):
                    _flush_folder(folder)
        self._touched.clear()

    # ---- names

    def _walk(self, folder: str, levels: int) -> None:
        if not levels:
            raise ImageError(f"{self.root} has too many levels of folders", _OTHER)
        below = []
        with os.scandir(self.root / folder) as entries:
            for entry in entries:
                path = f"{folder}/{entry.name}" if folder else entry.name
                if _is_ignored(entry.name):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    self._folders[_key(path)] = path
                    below.append(path)
                elif entry.is_file(follow_symlinks=False):
                    self._add(path)
        for path in below:
            self._walk(path, levels - 1)

    def _add(self, path: str) -> None:
        if path.lower().endswith(UNFINISHED):
            self._unfinished.append(path)
        else:
            self._files[_key(path)] = path
        if len(self._files) > MOST_FILES:
            raise ImageError(f"{self.root} has more than {MOST_FILES} files", _OTHER)

    @contextlib.contextmanager
    def _opened(self, path: str) -> Iterator[_Reader]:
        actual = self._files.get(_key(path))
        if actual is None:
            raise ImageError(f"{path} is not on the boot partition", "check the card")
        with os.fdopen(os.open(self.root / actual, _READ), "rb") as file:
            yield file

    def _actual(self, path: str) -> str:
        """Return the path with the folders and the name as they are on the partition."""
        *parents, name = split_path(path)
        there = ""
        for parent in parents:
            below = f"{there}/{parent}" if there else parent
            there = self._folders.get(_key(below), below)
        return self._files.get(_key(path), f"{there}/{name}" if there else name)

    def _place(self, path: str) -> Path:
        """Return where a file is, or would be. Raise RefusedError if something is in its place."""
        actual = self._actual(path)
        for parent in _parents(actual):
            self._check_kind(parent, stat.S_ISDIR, "folder")
        self._check_kind(actual, stat.S_ISREG, "file")
        return self.root / actual

    def _remove_empty(self, path: str) -> None:
        """Remove the folders of a removed file that are empty now: our scripts look for some."""
        for parent in reversed(_parents(path)):
            try:
                (self.root / parent).rmdir()
            except OSError:  # not empty
                return
            self._folders.pop(_key(parent), None)
            self._touched.discard(self.root / parent)
            self._touched.add((self.root / parent).parent)

    def _check_kind(self, path: str, is_kind: _IsKind, kind: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            if not is_kind(os.lstat(self.root / path).st_mode):
                raise RefusedError(f"{self.root / path} is not a {kind}", "remove or rename it")

    def _make_parents(self, path: str) -> None:
        for parent in _parents(self._actual(path)):
            if _key(parent) not in self._folders:
                made = self.root / parent
                made.mkdir()
                self._folders[_key(parent)] = parent
                self._touched |= {made, made.parent}


_OTHER = "check that this is the boot partition of a Raspberry Pi"


if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import BinaryIO

    _IsKind = Callable[[int], bool]
    _Reader = BinaryIO


def _key(path: str) -> str:
    """Return a key that is equal for names that FAT takes as the same; macOS decomposes them."""
    return fold(unicodedata.normalize("NFC", path.strip("/")))


def _parents(path: str) -> list[str]:
    parts = path.split("/")[:-1]
    return ["/".join(parts[: depth + 1]) for depth in range(len(parts))]


def _is_ignored(name: str) -> bool:
    return name.startswith(_OF_MACOS) or name.lower() in _OF_SYSTEMS


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some file systems over FUSE cannot flush a folder.
        if error.errno not in {errno.EINVAL, errno.ENOTSUP, errno.ENOSYS}:
            raise
    finally:
        os.close(descriptor)


def _drop_cached(descriptor: int) -> None:
    """Have the kernel read a file again from the medium, where it can (posix_fadvise(2))."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


def _allow_writing(path: Path) -> None:
    """Remove the read-only attribute of DOS, which Windows follows when a file is replaced."""
    if path.exists() and not os.access(path, os.W_OK):
        with contextlib.suppress(OSError):
            path.chmod(stat.S_IRUSR | stat.S_IWUSR)


@contextlib.contextmanager
def _kept_open(path: Path, *, wanted: bool) -> Iterator[int | None]:
    if not wanted:
        yield None
        return
    _allow_writing(path)
    descriptor = os.open(path, _OLD)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _overwrite(path: Path) -> None:
    """Overwrite a file in its own clusters and flush it."""
    _allow_writing(path)
    descriptor = os.open(path, _OLD)
    try:
        _zero(descriptor)
    finally:
        os.close(descriptor)


def _zero(descriptor: int) -> None:
    left = os.fstat(descriptor).st_size
    os.lseek(descriptor, 0, os.SEEK_SET)
    while left > 0:
        left -= os.write(descriptor, bytes(min(left, _COMPARED_BYTES)))
    os.fsync(descriptor)


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        hint = REPAIR if error.errno == errno.EIO else "check the path and its permissions"
        raise ImageError(f"cannot read {path}: {error.strerror}", hint) from error


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise WriteError(f"cannot write {path}: {error.strerror}", _hint_for(error)) from error


def _hint_for(error: OSError) -> str:
    if error.errno in {errno.EROFS, errno.EIO}:
        return REPAIR
    if error.errno == errno.ENOSPC:
        return "remove files from the partition, and repeat the command"
    return "check that the card is inserted and may be written, and repeat the command"
