"""Files that are whole from the moment they have their name, even after a power cut."""

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

# What st_blocks counts in, whatever the file system's own blocks are (stat(2)).
_STAT_BLOCK_BYTES = 512
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def has_file(path: Path) -> bool:
    """Return whether a file is there; what cannot be looked at (no right, too long) is not."""
    try:
        return path.is_file()
    except OSError:
        return False


def has_folder(path: Path) -> bool:
    """Return whether a folder is there; what cannot be looked at is not."""
    try:
        return path.is_dir()
    except OSError:
        return False


def hand_over(path: Path) -> None:
    """Return what root just made to whoever owns its folder: under sudo, the one who called it.

    Does nothing for anyone but root, and where the file system knows no owners.
    """
    if not hasattr(os, "geteuid") or os.geteuid() != _ROOT:
        return
    with contextlib.suppress(OSError):
        owner = path.absolute().parent.stat()
        if owner.st_uid != _ROOT:
            os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


def make_folder(path: Path, mode: int = 0o777) -> None:
    """Make a folder, with `mode`, and those above it, handed over; raises OSError."""
    if not path.is_dir():
        if not path.parent.is_dir():
            make_folder(path.parent)
        path.mkdir(mode, exist_ok=True)
        hand_over(path)


def write_file(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Replace `path` by `data`, with `mode` before the first byte; handed over; raises OSError.

    Whoever reads finds the old content or the new one, and nothing stays behind on a failure.
    """
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    part = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            hand_over(part)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def remove_file(path: Path) -> None:
    """Remove a file, if it is there, so that a power cut does not bring it back; raises OSError."""
    try:
        path.unlink()
    except FileNotFoundError:
        return
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def pwrite_all(descriptor: int, data: bytes | memoryview, offset_bytes: int) -> int:
    """Write all of `data`, however many calls that takes, and return its length."""
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset_bytes)
        view, offset_bytes = view[written:], offset_bytes + written
    return len(data)


def allocated_bytes(status: os.stat_result) -> int:
    """Return what a file takes on its disk, holes left out."""
    return status.st_blocks * _STAT_BLOCK_BYTES


def is_disk_full(error: OSError) -> bool:
    """Return whether a disk, a quota or a file system's limit kept a file from growing."""
    return error.errno in _DISK_FULL


def part_of(path: Path) -> Path:
    """Return the name under which a file is written until it is complete."""
    return path.with_name(f"{path.name}.part")


def create_folder(path: Path) -> None:
    """Make a folder and those above it; raises WriteError where that cannot be."""
    try:
        make_folder(path)
    except OSError as error:
        raise write_error(path, error) from error


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[int]:
    """Return a descriptor of `path`.part; on success it is synced and takes its name.

    What a killed run left under that name is written over; two runs at once are refused.
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
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise WriteError(f"another run is writing {part.stem}", "wait for it") from error
        try:
            os.ftruncate(descriptor, 0)
            hand_over(part)
            yield descriptor
        finally:
            part.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write `value` as JSON; raises WriteError."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str, mode: int = 0o644) -> None:
    """Write a small file, whole or not at all, in a folder that is made; raises WriteError."""
    try:
        write_in_folder(path, text.encode(), mode)
    except OSError as error:
        raise write_error(path, error) from error


def write_in_folder(path: Path, data: bytes, mode: int) -> None:
    """Write a file in a folder that is made where it is missing; raises OSError."""
    make_folder(path.parent)
    write_file(path, data, mode)


def write_error(path: Path, error: OSError) -> WriteError:
    """Make the error for a path that cannot be written, with what to do."""
    if is_disk_full(error):
        return WriteError(
            f"no room for {path}: {error.strerror}",
            "free some space, choose another place with -o, or write the card directly with flash",
        )
    return WriteError(f"cannot write {path}: {error.strerror}", "check the folder and its rights")
