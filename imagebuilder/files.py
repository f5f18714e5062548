"""Read and write files: in a checked folder, and complete under their final name.

Other users may have write access to a folder (a shared disk, /tmp, or a user's folder when run by
root). So a folder is opened once and then used by its descriptor, symbolic links in its path are
followed only if they belong to root or the user, and an existing file is never opened for writing.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imagebuilder.errors import SettingsError, WriteError

if TYPE_CHECKING:
    from collections.abc import Iterator

_ROOT = 0
_MOST_LINKS = 40  # as in the kernel (path_resolution(7))

# st_blocks counts units of 512 bytes on every file system (inode(7)).
_STAT_BLOCK_BYTES = 512
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def _flags(*names: str) -> int:
    """Return the flags of open(2) that this system has; Windows has none of the POSIX ones."""
    return sum(getattr(os, name, 0) for name in names)


# O_PATH needs no read permission on the folders of the path; macOS does not have it.
_FOLDER = getattr(os, "O_PATH", os.O_RDONLY) | _flags("O_DIRECTORY", "O_NOFOLLOW", "O_CLOEXEC")
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | _flags("O_NOFOLLOW", "O_CLOEXEC", "O_BINARY")
_SETTING = os.O_RDONLY | _flags("O_NONBLOCK", "O_NOCTTY", "O_CLOEXEC", "O_BINARY")

# Windows cannot open a folder: there, paths are used.
_HAS_DESCRIPTORS = os.open in os.supports_dir_fd

# The folders of the kernel with regular files of unknown size.
_KERNEL_FOLDERS = (Path("/proc"), Path("/sys"))


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


def whole_drive(folder: Path) -> Path:
    r"""Return `E:\` for `E:`, which on Windows is the current folder of that drive."""
    return folder / "\\" if folder.drive and str(folder) == folder.drive else folder


def read_file(path: Path, what: str, most_bytes: int) -> bytes:
    """Return the content of a regular file in a setting or an option.

    Raise SettingsError if it cannot be read, is not a regular file (a FIFO may block, a device may
    be endless), is in /proc or /sys, or has more than `most_bytes`.
    """
    try:
        descriptor = os.open(path, _SETTING)
        with os.fdopen(descriptor, "rb") as file:
            is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
            if not is_file or any(map(path.resolve().is_relative_to, _KERNEL_FOLDERS)):
                raise SettingsError(f"{what} {path} is not a regular file", "check the path")
            data = file.read(most_bytes + 1)
    except (OSError, ValueError) as error:
        reason = str(getattr(error, "strerror", None) or "cannot be read").lower()
        raise SettingsError(f"{what} {path}: {reason}", "check the path") from None
    if len(data) > most_bytes:
        raise SettingsError(
            f"{what} {path} is over {_shown(most_bytes)}", "check if it is the right file"
        )
    return data


def _shown(size_bytes: int) -> str:
    return f"{size_bytes >> 20} MiB" if size_bytes >> 20 else f"{size_bytes >> 10} KiB"


@contextlib.contextmanager
def open_folder(path: Path) -> Iterator[int]:
    """Yield a descriptor of an existing folder. Raise OSError if it cannot be opened.

    Raise WriteError if a symbolic link in the path belongs to neither root nor the user: its owner
    could change it at any time.
    """
    descriptor = _resolved(path)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _resolved(path: Path) -> int:
    """Return a descriptor of a folder, after a check of each link in its path."""
    parts = list(reversed(path.absolute().parts))
    folder, links = os.open(parts.pop(), _FOLDER), 0
    while parts:
        name = parts.pop()
        try:
            below, target = _step(folder, name, path)
        finally:
            os.close(folder)
        folder = below
        if target is not None:
            links += 1
            if links > _MOST_LINKS:
                os.close(folder)
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
            parts += reversed(target.parts)
            if target.is_absolute():
                os.close(folder)
                folder = os.open(parts.pop(), _FOLDER)
    return folder


def _step(folder: int, name: str, path: Path) -> tuple[int, Path | None]:
    """Return the folder `name`, or for a link `folder` itself and the target of the link."""
    status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    if not stat.S_ISLNK(status.st_mode):
        return os.open(name, _FOLDER, dir_fd=folder), None
    if status.st_uid not in {_ROOT, os.geteuid(), _caller}:
        raise WriteError(
            f"{path}: the link {name!r} belongs to another user", "use a path without this link"
        )
    return os.dup(folder), Path(os.readlink(name, dir_fd=folder))


# The user who called sudo; set once, by the command line.
_caller = os.geteuid() if hasattr(os, "geteuid") else _ROOT


def act_for(caller: int) -> None:
    """Treat links of `caller`, the user ID that called sudo, as the user's own."""
    global _caller  # noqa: PLW0603 - a property of the process, like its user ID
    _caller = caller


def hand_over(path: Path) -> None:
    """Make the owner of its folder the owner of a new file, under sudo usually the caller.

    Do nothing if not run as root, or if the file system has no owners (FAT).
    """
    if not _HAS_DESCRIPTORS:
        return
    with contextlib.suppress(OSError), open_folder(path.parent) as folder:
        kind = os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(path.name, os.O_RDONLY | kind, dir_fd=folder)
        try:
            _hand_over(descriptor, folder)
        finally:
            os.close(descriptor)


def _hand_over(descriptor: int, folder: int) -> None:
    if not hasattr(os, "geteuid") or os.geteuid() != _ROOT:
        return
    with contextlib.suppress(OSError):
        owner, status = os.fstat(folder), os.fstat(descriptor)
        # A file made by another user may be a hard link to a file of root.
        is_new = status.st_uid == _ROOT and (status.st_nlink == 1 or stat.S_ISDIR(status.st_mode))
        if owner.st_uid != _ROOT and is_new:
            os.fchown(descriptor, owner.st_uid, owner.st_gid)


def make_folder(path: Path, mode: int = 0o777) -> None:
    """Make a folder and its parents and `hand_over` each. Raise OSError on failure."""
    if path.is_dir():
        return
    if not path.parent.is_dir():
        make_folder(path.parent)
    if not _HAS_DESCRIPTORS:
        path.mkdir(mode, exist_ok=True)
        return
    with open_folder(path.parent) as parent:
        with contextlib.suppress(FileExistsError):
            os.mkdir(path.name, mode, dir_fd=parent)
        descriptor = os.open(path.name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=parent)
        try:
            _hand_over(descriptor, parent)
        finally:
            os.close(descriptor)


def write_file(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Replace `path` with `data` atomically. Raise OSError on failure.

    The mode is set before the first byte is written; under sudo see `hand_over`.
    """
    if not _HAS_DESCRIPTORS:
        _write_by_path(path, data)
        return
    with open_folder(path.parent) as folder:
        name = f".{path.name[:100]}.{secrets.token_hex(8)}.part"
        descriptor = os.open(name, _NEW, 0o600, dir_fd=folder)
        try:
            with os.fdopen(descriptor, "wb") as file:
                os.fchmod(descriptor, mode)
                _hand_over(descriptor, folder)
                file.write(data)
                file.flush()
                os.fsync(descriptor)
            os.replace(name, path.name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=folder)
            raise


def _write_by_path(path: Path, data: bytes) -> None:
    """Replace `path` on Windows, where a new file has the permissions of its folder."""
    part = path.with_name(f".{path.name[:100]}.{secrets.token_hex(8)}.part")
    try:
        with os.fdopen(os.open(part, _NEW), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def remove_file(path: Path) -> None:
    """Remove a file if it exists, durably. Raise OSError on failure."""
    if not _HAS_DESCRIPTORS:
        path.unlink(missing_ok=True)
        return
    with open_folder(path.parent) as folder:
        try:
            os.unlink(path.name, dir_fd=folder)
        except FileNotFoundError:
            return
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Sync the entries of a folder, which an fsync of a file does not (fsync(2))."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _pwrite_by_seeking(descriptor: int, data: memoryview, offset_bytes: int) -> int:
    os.lseek(descriptor, offset_bytes, os.SEEK_SET)
    return os.write(descriptor, data)


def pwrite_all(descriptor: int, data: bytes | memoryview, offset_bytes: int) -> int:
    """Write all of `data`, in as many calls as needed; return its length."""
    view, pwrite = memoryview(data), getattr(os, "pwrite", _pwrite_by_seeking)
    while view:
        written = pwrite(descriptor, view, offset_bytes)
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


def create_folder(path: Path, mode: int = 0o777) -> None:
    """Make a folder and its parents. Raise WriteError on failure."""
    try:
        make_folder(path, mode)
    except OSError as error:
        raise write_error(path, error) from error


@contextlib.contextmanager
def new_file(path: Path, mode: int = 0o600) -> Iterator[int]:
    """Yield a descriptor of `path`.part; on success sync it and rename it to `path`.

    Remove what a killed run left under that name. Raise WriteError if another run is writing it,
    or if it is not a file.
    """
    part = part_of(path).name
    try:
        if not _HAS_DESCRIPTORS:
            with _new_by_path(path) as descriptor:
                yield descriptor
            return
        with open_folder(path.parent) as folder, _claimed(folder, part) as descriptor:
            os.fchmod(descriptor, mode)
            _hand_over(descriptor, folder)
            yield descriptor
            os.fsync(descriptor)
            os.replace(part, path.name, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError as error:
        raise write_error(path, error) from error


@contextlib.contextmanager
def _new_by_path(path: Path) -> Iterator[int]:
    """Yield a new file on Windows, which cannot rename or remove a file that is open."""
    part = part_of(path)
    part.unlink(missing_ok=True)
    descriptor = os.open(part, _NEW, 0o600)
    try:
        try:
            yield descriptor
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def _claimed(folder: int, part: str) -> Iterator[int]:
    """Yield a new file locked by this process; remove it at the end if it still has this name."""
    import fcntl  # noqa: PLC0415 - Windows does not have it, and writes no images

    _remove_stale(folder, part)
    descriptor = os.open(part, _NEW, 0o600, dir_fd=folder)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            yield descriptor
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(part, dir_fd=folder)
    finally:
        os.close(descriptor)


def _remove_stale(folder: int, part: str) -> None:
    """Remove an unfinished file that no process has locked."""
    import fcntl  # noqa: PLC0415 - as above

    kind = os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        status = os.stat(part, dir_fd=folder, follow_symlinks=False)
        if not stat.S_ISREG(status.st_mode):
            raise WriteError(f"{part} exists and is not a file", "remove it, or use another name")
        descriptor = os.open(part, os.O_RDONLY | kind, dir_fd=folder)
    except FileNotFoundError:
        return
    try:
        # The kernel drops this lock when the process ends, however it ends (flock(2)).
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(part, dir_fd=folder)
    except BlockingIOError as error:
        stem = part.removesuffix(".part")
        raise WriteError(f"another rpi-image is writing {stem}", "wait until it is done") from error
    finally:
        os.close(descriptor)


def write_json(path: Path, value: dict[str, Any], mode: int = 0o644) -> None:
    """Write `value` as JSON. Raise WriteError on failure."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n", mode)


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
