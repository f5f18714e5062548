"""A raw image copied as its file system can best: by reference, past the page cache, or plainly."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import shutil
import tempfile
from typing import TYPE_CHECKING

from imagebuilder.errors import WriteError
from imagebuilder.files import allocated_bytes, has_folder, pwrite_all, write_error
from imagebuilder.progress import human_bytes
from imagebuilder.workers import CancelToken, as_they_end, worker_pool

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from imagebuilder.model import BaseImage
    from imagebuilder.progress import Meter, Reporter

FICLONE = 0x40049409  # linux/fs.h
PIECE_BYTES = 16 << 20

# A write cannot be stopped, and a slow disk has several of them to do before a Ctrl-C counts.
WRITE_BYTES = 4 << 20

# Sectors of 4 KiB are the largest that disks have; O_DIRECT wants whole ones (open(2)).
ALIGNMENT_BYTES = 4096

# Enough to keep a fast disk at work; more gained nothing.
_THREADS = 4

# What mmap and O_DIRECT say where they cannot. EFAULT: the source became shorter; ENOMEM: an
# address space of 32 bits is too small for an image.
_NO_DIRECT = (errno.EINVAL, errno.EOPNOTSUPP, errno.ENODEV, errno.EFAULT, errno.ENOMEM)


def copy_raw(source: int, target: int, size_bytes: int, reporter: Reporter) -> str:
    """Copy all of `source` into the empty file `target`; gives `reflink` or `sparse copy`.

    Holes stay holes. The target is not synced. Raises OSError, ENOSPC before anything is written.
    """
    if reflink(source, target):
        return "reflink"
    _check_room(source, target)
    os.ftruncate(target, size_bytes)
    with reporter.meter("copying", allocated_bytes(os.fstat(source))) as meter:
        ranges = tuple(data_ranges(source, size_bytes))
        done = _copy_direct(source, target, _pieces(ranges, size_bytes), meter)
        for start, end in ranges:
            _copy_range(source, target, max(start, done), end, meter)
    return "sparse copy"


def reflink(source: int, target: int) -> bool:
    """Let `target` share all blocks of `source` where the file system can (ioctl_ficlone(2))."""
    try:
        fcntl.ioctl(target, FICLONE, source)
    except OSError:
        return False
    return True


def data_ranges(descriptor: int, size_bytes: int) -> Iterator[tuple[int, int]]:
    """Return the ranges of a file that are no holes (lseek(2), SEEK_DATA)."""
    end = 0
    while end < size_bytes:
        try:
            start = os.lseek(descriptor, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        end = os.lseek(descriptor, start, os.SEEK_HOLE)
        yield start, end


def _check_room(source: int, target: int) -> None:
    needed = allocated_bytes(os.fstat(source))
    free = shutil.disk_usage(target).free
    if needed > free:
        raise OSError(errno.ENOSPC, f"{needed - free} bytes more are needed")


def _copy_direct(source: int, target: int, pieces: list[tuple[int, int]], meter: Meter) -> int:
    """Hand the source's cached pages to the disk as they are; gives the offset that was reached.

    The processor copies nothing and the fsync that follows finds nothing to do. Where a file
    system cannot do that, nothing is reached.
    """
    if not pieces or not _set_direct(target, on=True):
        return 0
    try:
        _write_pieces(source, target, pieces, meter)
    except (ValueError, OverflowError):
        return 0  # mmap's words for a source that became shorter, and for one it cannot count
    except OSError as error:
        if error.errno not in _NO_DIRECT:
            raise
        return 0
    finally:
        _set_direct(target, on=False)
    return pieces[-1][1]


def _pieces(ranges: tuple[tuple[int, int], ...], size_bytes: int) -> list[tuple[int, int]]:
    """Cut ranges into aligned pieces; what a file has behind its last whole 4 KiB is left out."""
    whole = size_bytes - size_bytes % ALIGNMENT_BYTES
    pieces, reached = [], 0
    for start, end in ranges:
        begin = max(reached, start - start % ALIGNMENT_BYTES)
        reached = min(whole, end + -end % ALIGNMENT_BYTES)
        pieces += [
            (at, min(at + PIECE_BYTES, reached)) for at in range(begin, reached, PIECE_BYTES)
        ]
    return pieces


def _set_direct(descriptor: int, *, on: bool) -> bool:
    """Switch O_DIRECT; False where the system or the file system has none."""
    direct = getattr(os, "O_DIRECT", 0)
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    with contextlib.suppress(OSError):
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | direct if on else flags & ~direct)
        return bool(direct)
    return False


def _write_pieces(source: int, target: int, pieces: list[tuple[int, int]], meter: Meter) -> None:
    # Never closed by hand: an error's traceback may still hold a view of it.
    pages = mmap.mmap(source, pieces[-1][1], prot=mmap.PROT_READ)

    def write(start: int, end: int) -> int:
        os.posix_fadvise(source, start, end - start, os.POSIX_FADV_WILLNEED)
        # Blocks that exist are written side by side; making them holds the file's lock. Where
        # they cannot be made ahead, glibc's own way round refuses under O_DIRECT.
        with contextlib.suppress(OSError):
            os.posix_fallocate(target, start, end - start)
        for at in range(start, end, WRITE_BYTES):
            stop.check()
            pwrite_all(target, memoryview(pages)[at : min(at + WRITE_BYTES, end)], at)
        pages.madvise(mmap.MADV_DONTNEED, start, end - start)
        return end - start

    stop = CancelToken()
    with worker_pool(_THREADS, "copy", stop) as pool:
        for done in as_they_end(pool.submit(write, *piece) for piece in pieces):
            # Zero, too: through the meter the work may be told to end.
            meter.advance(sum(done))


def _copy_range(source: int, target: int, start: int, end: int, meter: Meter) -> None:
    while start < end:
        count = min(end - start, PIECE_BYTES)
        try:
            copied = os.copy_file_range(source, target, count, start, start)
        except (OSError, AttributeError):
            # Other file systems and macOS have no in-kernel copy.
            copied = pwrite_all(target, os.pread(source, count, start), start)
        if copied == 0:
            raise OSError(errno.EIO, "the base image ended early")
        _start_writing_back(target, start, copied)
        start += copied
        meter.advance(copied)


def _start_writing_back(descriptor: int, start: int, size_bytes: int) -> None:
    # DONTNEED cannot drop dirty pages and starts writing them (mm/fadvise.c): the disk works
    # while the next piece is copied, and the fsync at the end finds little left to do.
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(descriptor, start, size_bytes, os.POSIX_FADV_DONTNEED)


def check_room(folder: Path, base: BaseImage, count: int) -> None:
    """Refuse before the first copy what would fill the disk; reflinks need next to nothing.

    A folder that is not there yet counts as the one that it will be made in.
    """
    place = next(path for path in (folder, *folder.absolute().parents) if has_folder(path))
    if count == 0 or _has_reflinks(place, base):
        return
    needed = count * allocated_bytes(base.path.stat())
    free = shutil.disk_usage(place).free
    images = "one image needs" if count == 1 else f"{count} images need"
    if needed > free:
        raise WriteError(
            f"{images} {human_bytes(needed)} and {folder} has {human_bytes(free)} free",
            "build fewer with --nodes, use a disk with reflinks (btrfs, xfs), "
            "or write the cards directly: flash -c needs no room",
        )


def _has_reflinks(folder: Path, base: BaseImage) -> bool:
    try:
        with tempfile.TemporaryFile(dir=folder) as probe, base.path.open("rb") as source:
            return reflink(source.fileno(), probe.fileno())
    except OSError as error:
        raise write_error(folder, error) from error
