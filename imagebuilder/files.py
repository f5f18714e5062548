"""Files that are whole from the moment they have their name, even after a power cut."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

_ROOT = 0


def has_file(path: Path) -> bool:
    """Tell whether a file is there; what cannot be looked at (no right, too long) is not."""
    try:
        return path.is_file()
    except OSError:
        return False


def has_folder(path: Path) -> bool:
    """Tell whether a folder is there; what cannot be looked at is not."""
    try:
        return path.is_dir()
    except OSError:
        return False


def hand_over(path: Path) -> None:
    """Give what root just made to whoever owns its folder: under sudo, the one who called it.

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
