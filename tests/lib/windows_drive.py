"""A drive that behaves as one of Windows, over FUSE: `python -m tests.lib.windows_drive`.

Names are compared without case and keep it; names that Windows reserves are refused ("Naming
Files, Paths, and Namespaces", learn.microsoft.com); a file that is open, or read-only, cannot be
replaced or removed. With `--writes N` the card is pulled out after N writes.
"""

from __future__ import annotations

import argparse
import errno
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mfusepy

if TYPE_CHECKING:
    from collections.abc import Iterator

_PORTS = {f"{port}{number}" for port in ("com", "lpt") for number in range(1, 10)}
_RESERVED = {"con", "prn", "aux", "nul", *_PORTS}
_REFUSED = set('<>:"\\|?*') | {chr(code) for code in range(32)}
_WRITABLE = 0o200


class WindowsDrive(mfusepy.Operations):  # type: ignore[misc]
    """The files of a folder, by the rules of Windows."""

    use_ns = True

    def __init__(self, root: Path, writes: int) -> None:
        self._root = root
        self._writes = writes
        self._open: dict[int, Path] = {}

    def _real(self, path: str) -> Path:
        """Return the file, or where it would be."""
        found = self._root
        for name in filter(None, path.split("/")):
            _check(name)
            there = found.iterdir() if found.is_dir() else ()
            same = (entry for entry in there if entry.name.casefold() == name.casefold())
            found = next(same, found / name)
        return found

    def _closed(self, path: str) -> Path:
        """Return a file that may be replaced or removed."""
        real = self._real(path)
        is_locked = real.is_file() and not real.stat().st_mode & _WRITABLE
        if real in self._open.values() or is_locked:
            raise mfusepy.FuseOSError(errno.EACCES)
        return real

    def _opened(self, real: Path, descriptor: int) -> int:
        self._open[descriptor] = real
        return descriptor

    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
        del fh
        status = os.lstat(self._real(path))
        names = ("st_mode", "st_nlink", "st_size", "st_uid", "st_gid")
        return {name: getattr(status, name) for name in names} | {"st_mtime": status.st_mtime_ns}

    def readdir(self, path: str, fh: int) -> Any:
        del fh
        return [".", "..", *(entry.name for entry in self._real(path).iterdir())]

    def access(self, path: str, amode: int) -> int:
        mode = self._real(path).stat().st_mode
        if amode & os.W_OK and not mode & _WRITABLE:
            raise mfusepy.FuseOSError(errno.EACCES)
        return 0

    def open(self, path: str, flags: int) -> int:
        real = self._real(path)
        if flags & (os.O_WRONLY | os.O_RDWR):
            self.access(path, os.W_OK)
        return self._opened(real, os.open(real, flags & ~os.O_EXCL))

    def create(self, path: str, mode: int, fi: Any = None) -> int:
        del fi
        real = self._real(path)
        return self._opened(real, os.open(real, os.O_RDWR | os.O_CREAT, mode))

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        del path
        return os.pread(fh, size, offset)

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        del path
        if self._writes == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self._writes -= 1
        return os.pwrite(fh, data, offset)

    def truncate(self, path: str, length: int, fh: int | None = None) -> int:
        del fh
        os.truncate(self._real(path), length)
        return 0

    def fsync(self, path: str, datasync: int, fh: int) -> int:
        del path, datasync
        os.fsync(fh)
        return 0

    def flush(self, path: str, fh: int) -> int:
        """Note that a file is closed: unlike `release`, this comes before close(2) returns."""
        del path
        self._open.pop(fh, None)
        return 0

    def release(self, path: str, fh: int) -> int:
        self.flush(path, fh)
        os.close(fh)
        return 0

    def rename(self, old: str, new: str) -> int:
        self._closed(old).replace(self._closed(new))
        return 0

    def unlink(self, path: str) -> int:
        self._closed(path).unlink()
        return 0

    def mkdir(self, path: str, mode: int) -> int:
        self._real(path).mkdir(mode)
        return 0

    def rmdir(self, path: str) -> int:
        self._real(path).rmdir()
        return 0

    def chmod(self, path: str, mode: int) -> int:
        self._real(path).chmod(mode)
        return 0

    def utimens(self, path: str, times: tuple[int, int] | None = None) -> int:
        os.utime(self._real(path), ns=times or (time.time_ns(),) * 2)
        return 0

    def statfs(self, path: str) -> dict[str, int]:
        found = os.statvfs(self._real(path))
        names = ("f_bavail", "f_bfree", "f_blocks", "f_bsize", "f_frsize", "f_namemax")
        return {name: getattr(found, name) for name in names}


def _check(name: str) -> None:
    stem = name.partition(".")[0].rstrip().casefold()
    if set(name) & _REFUSED or name[-1] in ". " or stem in _RESERVED:
        raise mfusepy.FuseOSError(errno.EINVAL)


@contextmanager
def windows_drive(folder: Path, *, read_only: bool = False, writes: int = -1) -> Iterator[Path]:
    """Mount the files in `folder` as a drive; yield its folder. It may be ejected by others."""
    place = folder.with_name(f"{folder.name}-drive")
    place.mkdir()
    words = [str(folder), str(place), "--writes", str(writes), *["--read-only"] * read_only]
    command = [sys.executable, "-m", __name__, *words]
    with subprocess.Popen(command, cwd=Path(__file__).parents[2]) as server:
        try:
            while not place.is_mount():
                assert server.poll() is None, "the drive was not mounted"
                time.sleep(0.02)
            yield place
        finally:
            # Whatever became of it: a mount whose server is gone cannot even be looked at.
            subprocess.run(["fusermount3", "-u", "-z", place], check=False, capture_output=True)
            # A mount namespace that another test made meanwhile has the mount, too, and keeps it.
            with suppress(subprocess.TimeoutExpired):
                server.wait(timeout=5)
            server.kill()
            place.rmdir()


def main() -> None:
    """Serve a folder until it is unmounted."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("place")
    parser.add_argument("--writes", type=int)
    parser.add_argument("--read-only", action="store_true")
    given = parser.parse_args()
    drive = WindowsDrive(given.folder, given.writes)
    # Listed as a FAT file system: `apply` looks for those.
    mfusepy.FUSE(
        drive, given.place, foreground=True, subtype="winfat", nothreads=True, ro=given.read_only
    )


if __name__ == "__main__":
    main()
