"""Copy a raw image by the fastest way of its file system: reflink, O_DIRECT or plain copy."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import shutil
import tempfile
from typing import TYPE_CHECKING

from imagebuilder.errors import WriteError
from imagebuilder.files import allocated_bytes, has_folder, pwrite_all, write_error
from imagebuilder.progress import human_bytes
from imagebuilder.workers import CancelToken, as_they_end, worker_pool

with contextlib.suppress(ImportError):  # on Windows the module is imported, but writes no image
    import fcntl

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from imagebuilder.model import BaseImage
    from imagebuilder.progress import Meter, Reporter

FICLONE = 0x40049409  # linux/fs.h
PIECE_BYTES = 16 << 20

# A write cannot be interrupted: a slow disk must not have much queued when Ctrl-C is pressed.
WRITE_BYTES = 4 << 20

# O_DIRECT needs whole logical sectors (open(2)); 4 KiB are the largest that disks have.
ALIGNMENT_BYTES = 4096

# Enough to keep an NVMe disk busy; more threads were not faster (docs/benchmarks.md).
_THREADS = 4

# Errors of mmap and O_DIRECT where they are not supported. EFAULT: the source was truncated;
# ENOMEM: a 32-bit address space is too small for an image.
_NO_DIRECT = (errno.EINVAL, errno.EOPNOTSUPP, errno.ENODEV, errno.EFAULT, errno.ENOMEM)


def copy_raw(source: int, target: int, size_bytes: int, reporter: Reporter) -> str:
    """Copy all of `source` into the empty file `target`; return `reflink` or `sparse copy`.

    Keep holes. Do not sync the target. Raise OSError; ENOSPC before anything is written.
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
    """Share all blocks of `source` with `target`; False if not supported (ioctl_ficlone(2))."""
    try:
        fcntl.ioctl(target, FICLONE, source)
    except OSError:
        return False
    return True


def data_ranges(descriptor: int, size_bytes: int) -> Iterator[tuple[int, int]]:
    """Yield (start, end) in bytes of each range that is not a hole (lseek(2), SEEK_DATA)."""
    end = 0
    while end < size_bytes:
        try:
            start = os.lseek(descriptor, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # only a hole follows
                return
            raise
        end = os.lseek(descriptor, start, os.SEEK_HOLE)
        yield start, end


def _check_room(source: int, target: int) -> None:
    needed = allocated_bytes(os.fstat(source))
    free = shutil.disk_usage(target).free
    if needed > free:
        raise OSError(errno.ENOSPC, f"{needed - free} more bytes are needed")


def _copy_direct(source: int, target: int, pieces: list[tuple[int, int]], meter: Meter) -> int:
    """Write the source's cached pages with O_DIRECT; return the offset in bytes that was reached.

    The processor copies nothing, and the fsync that follows has nothing to do. Return 0 if the
    file system does not support it.
    """
    if not pieces or not _set_direct(target, on=True):
        return 0
    try:
        _write_pieces(source, target, pieces, meter)
    except (ValueError, OverflowError):
        return 0  # from mmap: the source was truncated, or is larger than an ssize_t
    except OSError as error:
        if error.errno not in _NO_DIRECT:
            raise
        return 0
    finally:
        _set_direct(target, on=False)
    return pieces[-1][1]


def _pieces(ranges: tuple[tuple[int, int], ...], size_bytes: int) -> list[tuple[int, int]]:
    """Cut ranges into aligned pieces, without what follows the last whole 4 KiB of the file."""
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
    """Switch O_DIRECT on or off; return False if it is not supported."""
    direct = getattr(os, "O_DIRECT", 0)
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    with contextlib.suppress(OSError):
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | direct if on else flags & ~direct)
        return bool(direct)
    return False


def _write_pieces(source: int, target: int, pieces: list[tuple[int, int]], meter: Meter) -> None:
    # Not closed here: close() raises BufferError while the traceback of an error holds a view.
    pages = mmap.mmap(source, pieces[-1][1], prot=mmap.PROT_READ)

    def write(start: int, end: int) -> int:
        os.posix_fadvise(source, start, end - start, os.POSIX_FADV_WILLNEED)
        # Allocate first: direct writes to allocated blocks run in parallel, others hold the
        # inode lock (ext4_dio_write_checks, fs/ext4/file.c). If the file system cannot allocate,
        # glibc writes single bytes instead, which O_DIRECT rejects (posix_fallocate(3)).
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
            # Even by 0: the meter may raise Stopped.
            meter.advance(sum(done))


def _copy_range(source: int, target: int, start: int, end: int, meter: Meter) -> None:
    while start < end:
        count = min(end - start, PIECE_BYTES)
        try:
            copied = os.copy_file_range(source, target, count, start, start)
        except (OSError, AttributeError):
            # Not on macOS, and not on every file system (copy_file_range(2)).
            copied = pwrite_all(target, os.pread(source, count, start), start)
        if copied == 0:
            raise OSError(errno.EIO, "the base image ended early")
        _start_writing_back(target, start, copied)
        start += copied
        meter.advance(copied)


def _start_writing_back(descriptor: int, start: int, size_bytes: int) -> None:
    # DONTNEED starts writing dirty pages instead of dropping them (mm/fadvise.c): the disk writes
    # while the next piece is copied, and the fsync at the end has little left to do.
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(descriptor, start, size_bytes, os.POSIX_FADV_DONTNEED)


def check_room(folder: Path, base: BaseImage, count: int) -> None:
    """Raise WriteError if `count` copies of `base` do not fit into `folder` without reflinks.

    A folder that does not exist yet is on the file system of its nearest existing parent.
    """
    place = next(path for path in (folder, *folder.absolute().parents) if has_folder(path))
    if count == 0 or _has_reflinks(place, base):
        return
    needed = count * allocated_bytes(base.path.stat())
    free = shutil.disk_usage(place).free
    images = "1 image needs" if count == 1 else f"{count} images need"
    if needed > free:
        raise WriteError(
            f"{images} {human_bytes(needed)}, but {folder} has {human_bytes(free)} free",
            "build fewer with --node, use a disk with reflinks (btrfs, xfs), "
            "or write the cards directly with `flash -c`, which needs no space",
        )


def _has_reflinks(folder: Path, base: BaseImage) -> bool:
    try:
        with tempfile.TemporaryFile(dir=folder) as probe, base.path.open("rb") as source:
            return reflink(source.fileno(), probe.fileno())
    except OSError as error:
        raise write_error(folder, error) from error
