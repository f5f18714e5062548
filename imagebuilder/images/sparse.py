"""Write a stream of image bytes: hash in one thread, write with holes in another.

A reader of the beginning unpacks only that part.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from imagebuilder.disk.reader import RawFile
from imagebuilder.errors import ImageError, unreadable
from imagebuilder.files import hand_over, is_disk_full, pwrite_all
from imagebuilder.progress import SILENT, Meter, Reporter
from imagebuilder.workers import worker_pool

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future
    from io import FileIO
    from pathlib import Path

    from imagebuilder.images.archives.unpack import ImageStream

BLOCK_BYTES = 4096

# Chunks have at most 1 MiB, so this limits the memory as well.
QUEUE_DEPTH = 8
READ_BYTES = 1 << 20
_ZEROS = bytes(BLOCK_BYTES)


@dataclass(frozen=True, slots=True)
class Written:
    """The digest (hex SHA-256) and size of the raw bytes."""

    sha256: str
    size_bytes: int


def write_raw(
    stream: ImageStream, out: Path, label: str = "", reporter: Reporter = SILENT
) -> Written:
    """Write a stream to `out` with holes for zeros, and sync it. Remove `out` on failure.

    Raise ImageError if the stream is damaged or the file cannot be written.
    """
    try:
        with reporter.meter(label, stream.size_bytes) as meter, _full_disk(out):
            return _write(stream, out, meter)
    except BaseException:
        out.unlink(missing_ok=True)
        raise


def _write(stream: ImageStream, out: Path, meter: Meter) -> Written:
    digest, offset = hashlib.sha256(), 0
    with (
        _created(out) as file,
        worker_pool(1, "hash") as hasher,
        worker_pool(1, "write") as writer,
    ):
        waiting: deque[Future[None]] = deque()
        for chunk in stream:
            waiting.append(hasher.submit(digest.update, chunk))
            waiting.append(writer.submit(_write_chunk, file.fileno(), chunk, offset))
            offset += len(chunk)
            meter.advance(len(chunk))
            while len(waiting) > 2 * QUEUE_DEPTH:
                waiting.popleft().result()
        for future in waiting:
            future.result()
        file.truncate(offset)
        os.fsync(file.fileno())
    return Written(digest.hexdigest(), offset)


class LazyUnpackedDisk:
    """A ReadAt of a stream, unpacked to a file only as far as it is read.

    If the size of the stream is not known, all of it is unpacked at once.
    """

    def __init__(self, stream: ImageStream, out: Path, file: FileIO, meter: Meter) -> None:
        self._chunks, self._out, self._meter = iter(stream), out, meter
        self._file, self._have = RawFile(file.fileno()), 0
        if stream.size_bytes is None:
            self._unpack(sys.maxsize)
        self.size_bytes = self._have if stream.size_bytes is None else stream.size_bytes

    def read_at(self, offset_bytes: int, size_bytes: int) -> bytes:
        """Return up to `size_bytes` from `offset_bytes`; fewer only at the end of the disk."""
        self._unpack(offset_bytes + size_bytes)
        return self._file.read_at(offset_bytes, size_bytes)

    def _unpack(self, until_bytes: int) -> None:
        descriptor = self._file.descriptor
        while self._have < until_bytes and (chunk := next(self._chunks, b"")):
            with _full_disk(self._out):
                _write_chunk(descriptor, chunk, self._have)
                self._have += len(chunk)
                os.ftruncate(descriptor, self._have)
                self._file.size_bytes = self._have
            self._meter.advance(len(chunk))


@contextmanager
def open_lazily_unpacked(
    stream: ImageStream, out: Path, label: str = "", reporter: Reporter = SILENT
) -> Iterator[LazyUnpackedDisk]:
    """Yield a stream as a ReadAt; `out` is the file for the unpacked part."""
    with _full_disk(out):
        file = _created(out)
    with file, reporter.meter(label, None) as meter:
        yield LazyUnpackedDisk(stream, out, file, meter)


def _created(out: Path) -> FileIO:
    file = out.open("w+b", buffering=0)
    hand_over(out)
    return file


def _write_chunk(descriptor: int, chunk: bytes, offset_bytes: int) -> None:
    view = memoryview(chunk)
    for start, end in data_runs(chunk, offset_bytes):
        pwrite_all(descriptor, view[start:end], offset_bytes + start)


def data_runs(chunk: bytes, offset_bytes: int) -> Iterator[tuple[int, int]]:
    """Yield the half-open ranges of a chunk that are not zero, cut at blocks of the file."""
    size, begun = len(chunk), -1
    edge = -offset_bytes % BLOCK_BYTES
    position = 0
    while position < size:
        end = min(edge, size) if position < edge else min(position + BLOCK_BYTES, size)
        zero = (
            chunk.startswith(_ZEROS, position)
            if end - position == BLOCK_BYTES
            else not any(chunk[position:end])
        )
        if zero and begun >= 0:
            yield begun, position
            begun = -1
        elif not zero and begun < 0:
            begun = position
        position = end
    if begun >= 0:
        yield begun, size


def hash_file(path: Path, label: str = "", reporter: Reporter = SILENT) -> Written:
    """Return the digest and size of a file. Raise ImageError if it cannot be read."""
    digest, size = hashlib.sha256(), 0
    try:
        with (
            path.open("rb", buffering=0) as file,
            reporter.meter(label, path.stat().st_size) as meter,
        ):
            while chunk := file.read(READ_BYTES):
                digest.update(chunk)
                size += len(chunk)
                meter.advance(len(chunk))
    except OSError as error:
        raise unreadable(path, error) from error
    return Written(digest.hexdigest(), size)


@contextmanager
def _full_disk(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if is_disk_full(error):
            raise ImageError(
                f"not enough space to unpack to {out.parent}",
                "free some space there, or set RPI_IMAGE_CACHE to a folder on a larger disk",
            ) from error
        raise ImageError(
            f"cannot write {out}: {error.strerror}", "check the folder and its permissions"
        ) from error
