"""Write files atomically: under its final name a file is complete, even after a power cut."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imagebuilder.errors import WriteError

if TYPE_CHECKING:
    from collections.abc import Iterator

_ROOT = 0

# st_blocks counts units of 512 bytes on every file system (inode(7)).
_STAT_BLOCK_BYTES = 512
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def has_file(path: Path) -> bool:
    """Return whether `path` is a file; False if it cannot be examined (no permission, too long)."""
    try:
        return path.is_file()
    except OSError:
        return False


def has_folder(path: Path) -> bool:
    """Return whether `path` is a folder; False if it cannot be examined."""
    try:
        return path.is_dir()
    except OSError:
        return False


def hand_over(path: Path) -> None:
    """Give a new file of root to the owner of its folder, usually the user who called sudo.

    Do nothing if not run as root, or if the file system has no owners (FAT).
    """
    if not hasattr(os, "geteuid") or os.geteuid() != _ROOT:
        return
    with contextlib.suppress(OSError):
        owner = path.absolute().parent.stat()
        if owner.st_uid != _ROOT:
            os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


def make_folder(path: Path, mode: int = 0o777) -> None:
    """Make a folder and its parents and `hand_over` each. Raise OSError on failure."""
    if not path.is_dir():
        if not path.parent.is_dir():
            make_folder(path.parent)
        path.mkdir(mode, exist_ok=True)
        hand_over(path)


def write_file(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Replace `path` by `data` atomically. Raise OSError on failure and leave nothing behind.

    The mode is set before the first byte is written; under sudo see `hand_over`.
    """
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    part = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            hand_over(part)
            file.write(data)
            file.flush()
            # Without it, a crash after the rename may leave an empty file (ext4(5), auto_da_alloc).
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def remove_file(path: Path) -> None:
    """Remove a file if it exists, durably. Raise OSError on failure."""
    try:
        path.unlink()
    except FileNotFoundError:
        return
    # The entry is data of the folder, which needs an fsync of its own (fsync(2)).
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def pwrite_all(descriptor: int, data: bytes | memoryview, offset_bytes: int) -> int:
    """Write all of `data`, in as many calls as needed; return its length."""
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset_bytes)
        view, offset_bytes = view[written:], offset_bytes + written
    return len(data)


def allocated_bytes(status: os.stat_result) -> int:
    """Return the space that a file takes on its disk, without holes."""
    return status.st_blocks * _STAT_BLOCK_BYTES


def is_disk_full(error: OSError) -> bool:
    """Return whether the disk, the quota or the maximum size of a file is exhausted."""
    return error.errno in _DISK_FULL


def part_of(path: Path) -> Path:
    """Return the name under which a file is written until it is complete."""
    return path.with_name(f"{path.name}.part")


def create_folder(path: Path) -> None:
    """Make a folder and its parents. Raise WriteError on failure."""
    try:
        make_folder(path)
    except OSError as error:
        raise write_error(path, error) from error


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[int]:
    """Yield a descriptor of `path`.part; on success sync it and rename it to `path`.

    Overwrite what a killed run left under that name. Raise WriteError if another run holds it.
    """
    part = part_of(path)
    try:
        with _claimed(part) as descriptor:
            yield descriptor
            os.fsync(descriptor)
            part.replace(path)
    except OSError as error:
        raise write_error(path, error) from error


@contextlib.contextmanager
def _claimed(part: Path) -> Iterator[int]:
    descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        try:
            # The kernel drops this lock when the process ends, however it ends (flock(2)).
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise WriteError(
                f"another rpi-image is writing {part.stem}", "wait until it is done"
            ) from error
        try:
            os.ftruncate(descriptor, 0)
            hand_over(part)
            yield descriptor
        finally:
            part.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write `value` as JSON. Raise WriteError on failure."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str, mode: int = 0o644) -> None:
    """Write a small file atomically and make its folder. Raise WriteError on failure."""
    try:
        write_in_folder(path, text.encode(), mode)
    except OSError as error:
        raise write_error(path, error) from error


def write_in_folder(path: Path, data: bytes, mode: int) -> None:
    """Write a file atomically and make its folder. Raise OSError on failure."""
    make_folder(path.parent)
    write_file(path, data, mode)


def write_error(path: Path, error: OSError) -> WriteError:
    """Return the error for a path that cannot be written, with a hint."""
    if is_disk_full(error):
        return WriteError(
            f"not enough space for {path}: {error.strerror}",
            "free some space, use -o for another place, or write the card directly with `flash`",
        )
    return WriteError(
        f"cannot write {path}: {error.strerror}", "check the folder and its permissions"
    )
