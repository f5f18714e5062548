"""Unpack compressed disk images as a checked and bounded stream of raw bytes."""

from __future__ import annotations

import os
import stat
import struct
import zipfile
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, NoReturn

import zstandard
from isal import isal_zlib

from imagebuilder.errors import ImageError
from imagebuilder.images.archives.decoders import (
    CHUNK_BYTES,
    DECODER_ERRORS,
    INPUT_BYTES,
    LARGEST_WINDOW_BYTES,
    MAKERS,
    LimitError,
    decoded,
    explained,
    make_deflate,
)
from imagebuilder.images.archives.formats import HEAD_BYTES, kind_of, open_form
from imagebuilder.images.archives.members import choose_member
from imagebuilder.images.archives.nested import packed_kind, unpack_layer
from imagebuilder.images.archives.xz_zstd import (
    LARGEST_PARALLEL_BYTES,
    decode_xz,
    xz_blocks,
    zst_size,
)
from imagebuilder.images.foreign import PARSING_ERRORS
from imagebuilder.model import LARGEST_IMAGE_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from imagebuilder.images.archives.formats import Kind


# An entry has 46 bytes and its name (APPNOTE.TXT 4.3.12), and some hundred in memory.
LARGEST_DIRECTORY_BYTES = 4 << 20

# A tar.xz in a zip, as build services make them, has three.
MOST_LAYERS = 4
_ZIP_ERRORS: tuple[type[Exception], ...] = (zipfile.BadZipFile, OSError, *PARSING_ERRORS)
_LOCAL_HEADER = struct.Struct("<4s22xHH")  # APPNOTE.TXT 4.3.7: signature, name and extra length


class ImageStream:
    """The raw bytes of an image, in order. Raise ImageError if there are too few or too many."""

    def __init__(self, chunks: Iterator[bytes], size_bytes: int | None, name: str) -> None:
        self.size_bytes = size_bytes
        self._chunks = self._bounded(chunks, name)
        self._rest = b""

    def __iter__(self) -> Iterator[bytes]:
        if self._rest:
            yield self._rest
            self._rest = b""
        yield from self._chunks

    def read(self, size_bytes: int = -1) -> bytes:
        """Return exactly `size_bytes`, fewer only at the end; all the rest if negative."""
        parts, have = [self._rest], len(self._rest)
        while size_bytes < 0 or have < size_bytes:
            chunk = next(self._chunks, b"")
            if not chunk:
                break
            parts.append(chunk)
            have += len(chunk)
        whole = b"".join(parts)
        end = have if size_bytes < 0 else size_bytes
        self._rest = whole[end:]
        return whole[:end]

    def peek(self, size_bytes: int) -> bytes:
        """Return up to `size_bytes` of the next bytes without consuming them."""
        head = self.read(size_bytes)
        self._rest = head + self._rest
        return head

    def _bounded(self, chunks: Iterator[bytes], name: str) -> Iterator[bytes]:
        most = LARGEST_IMAGE_BYTES if self.size_bytes is None else self.size_bytes
        done = 0
        for chunk in chunks:
            done += len(chunk)
            if done > most:
                raise ImageError(
                    f"{name} unpacks to more than {most} bytes",
                    "do not use it: it is damaged or malicious",
                )
            yield chunk
        if self.size_bytes is not None and done < self.size_bytes:
            raise ImageError(
                f"{name} unpacks to {done} bytes instead of {self.size_bytes}", _DAMAGED_HINT
            )


_UNPACK_HINT = "unpack it, and use the image itself"
_DAMAGED_HINT = "download it again, and check it with --sha256"


@contextmanager
def open_stream(path: Path, size_bytes: int | None = None, name: str = "") -> Iterator[ImageStream]:
    """Yield the raw bytes of an image in any supported format, with bounded memory.

    `size_bytes` is the raw size if it is known; the archive must have the same. `name` is used in
    messages. Raise ImageError if the file is damaged or not supported.
    """
    name = name or path.name
    kind = kind_of(path, name)
    with open_form(path) as file:
        with _damage_reported(name):
            opened = _OPENERS[kind](file, name)
        with _ended(opened.chunks):
            stream = ImageStream(_guarded(opened.chunks, name, file), opened.stated_bytes, name)
            if kind != "raw":
                stream = _innermost(stream, opened.inside or name, name)
            _check_size(stream.size_bytes, size_bytes, name)
            if stream.size_bytes is None:
                stream = ImageStream(iter(stream), size_bytes, name)
            yield stream


@contextmanager
def _ended(chunks: Iterator[bytes]) -> Iterator[None]:
    """End the threads of a decoder with the block: a new thread cannot join them at the exit."""
    try:
        yield
    finally:
        if isinstance(chunks, Generator):
            chunks.close()


def _check_size(stated: int | None, size_bytes: int | None, name: str) -> None:
    if stated is None:
        return
    if size_bytes is not None and stated != size_bytes:
        raise ImageError(f"{name} states {stated} bytes instead of {size_bytes}", _DAMAGED_HINT)
    if stated > LARGEST_IMAGE_BYTES:
        raise ImageError(f"{name} states {stated} bytes", "do not use it: no card is that large")


def _innermost(stream: ImageStream, inside: str, name: str) -> ImageStream:
    """Return the image in further layers of compression."""
    for _ in range(MOST_LAYERS):
        kind = packed_kind(stream.peek(HEAD_BYTES), inside)
        if kind == "raw":
            return stream
        with _damage_reported(name):
            chunks = unpack_layer(kind, iter(stream), inside)
        stream = ImageStream(_guarded(chunks, name), None, name)
    raise ImageError(f"{name} has more than {MOST_LAYERS} layers of compression", _UNPACK_HINT)


@contextmanager
def _damage_reported(name: str, file: BinaryIO | None = None) -> Iterator[None]:
    """Turn errors of the decoders into ImageError, with the position in `file`."""
    try:
        yield
    except LimitError as error:
        raise ImageError(f"cannot unpack {name}: {error}", error.hint) from error
    except DECODER_ERRORS as error:
        limit = explained(error)
        reason = str(limit or error) or "damaged"
        hint = limit.hint if limit else _DAMAGED_HINT
        at = f" (byte {file.tell()})" if file and file.tell() else ""
        raise ImageError(f"cannot unpack {name}: {reason}{at}", hint) from error


def _guarded(chunks: Iterator[bytes], name: str, file: BinaryIO | None = None) -> Iterator[bytes]:
    while True:
        with _damage_reported(name, file):
            chunk = next(chunks, b"")
        if not chunk:
            return
        yield chunk


def _pieces(file: BinaryIO, size_bytes: int | None = None) -> Iterator[bytes]:
    left = LARGEST_IMAGE_BYTES if size_bytes is None else size_bytes
    while left and (piece := file.read(min(INPUT_BYTES, left))):
        left -= len(piece)
        yield piece


# ---- an opener for each format returns the chunks, and the raw size if the file states it


class _Opened(NamedTuple):
    """The content of an archive; `inside` is its name there."""

    chunks: Iterator[bytes]
    stated_bytes: int | None
    inside: str = ""


def _open_raw(file: BinaryIO, name: str) -> _Opened:
    del name
    return _Opened(_pieces_of_chunk(file), os.fstat(file.fileno()).st_size)


def _pieces_of_chunk(file: BinaryIO) -> Iterator[bytes]:
    while chunk := file.read(CHUNK_BYTES):
        yield chunk


def _open_gz(file: BinaryIO, name: str) -> _Opened:
    del name
    return _Opened(decoded(_pieces(file), MAKERS["gz"]), None)


def _open_xz(file: BinaryIO, name: str) -> _Opened:
    del name
    blocks = xz_blocks(file.fileno())
    stated = sum(block.raw_bytes for block in blocks)
    if any(block.raw_bytes > LARGEST_PARALLEL_BYTES for block in blocks) or not blocks:
        return _Opened(decoded(_pieces(file), MAKERS["xz"]), stated)
    return _Opened(decode_xz(file.fileno(), blocks), stated)


def _open_bz2(file: BinaryIO, name: str) -> _Opened:
    del name
    return _Opened(decoded(_pieces(file), MAKERS["bz2"]), None)


def _open_zst(file: BinaryIO, name: str) -> _Opened:
    del name
    # zst_size raises for a truncated file, which the reader of zstandard does not notice.
    return _Opened(_zst_chunks(file), zst_size(file.fileno()))


def _zst_chunks(file: BinaryIO) -> Iterator[bytes]:
    with zstandard.ZstdDecompressor(max_window_size=LARGEST_WINDOW_BYTES).stream_reader(
        file, read_size=INPUT_BYTES, read_across_frames=True, closefd=False
    ) as reader:
        while chunk := reader.read(CHUNK_BYTES):
            yield chunk


def _open_tar(file: BinaryIO, name: str) -> _Opened:
    return _Opened(unpack_layer("tar", _pieces_of_chunk(file), name), None)


def _open_zip(file: BinaryIO, name: str) -> _Opened:
    try:
        with zipfile.ZipFile(_BoundedFile(file)) as archive:
            entry = pick_entry(archive.infolist(), name)
    except NotImplementedError as error:
        raise ImageError(
            f"{name} needs an unsupported version of zip: {error}", _UNPACK_HINT
        ) from error
    except LimitError:
        raise
    except _ZIP_ERRORS as error:
        raise ImageError(f"{name} is a truncated or damaged zip", _DAMAGED_HINT) from error
    return _Opened(_entry_chunks(file, entry), entry.file_size, f"{entry.filename} in {name}")


class _BoundedFile:
    """The file object for zipfile, with a limit for the directory, which it reads to memory."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size_bytes: int = -1) -> bytes:
        most = LARGEST_DIRECTORY_BYTES + 1
        data = self._file.read(size_bytes if 0 <= size_bytes < most else most)
        if len(data) == most:
            raise LimitError("the directory of the zip is too large", _UNPACK_HINT)
        return data


def pick_entry(entries: list[zipfile.ZipInfo], name: str) -> zipfile.ZipInfo:
    """Return the only image in a zip. Raise ImageError if there is none, or several."""
    files = [e for e in entries if not e.is_dir() and not _is_link(e)]
    chosen = choose_member([e.filename for e in files], name)
    return _supported(next(e for e in files if e.filename == chosen), name)


def _is_link(entry: zipfile.ZipInfo) -> bool:
    return stat.S_ISLNK(entry.external_attr >> 16)


def _supported(entry: zipfile.ZipInfo, name: str) -> zipfile.ZipInfo:
    # Bits 0, 5 and 6 (APPNOTE.TXT 4.4.4).
    if entry.flag_bits & 0x41:
        _refuse_form(name, "is encrypted")
    if entry.flag_bits & 0x20:
        _refuse_form(name, "holds a patch of a file")
    if entry.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        _refuse_form(name, f"uses zip method {entry.compress_type}")
    return entry


def _refuse_form(name: str, what: str) -> NoReturn:
    raise ImageError(f"{name} {what}, which is not supported", _UNPACK_HINT)


def _entry_chunks(file: BinaryIO, entry: zipfile.ZipInfo) -> Iterator[bytes]:
    """Yield the bytes of one entry, with sizes of the central directory.

    In the local header of a streamed zip they are 0 (APPNOTE.TXT 4.4.4, bit 3).
    """
    if not 0 <= entry.header_offset < os.fstat(file.fileno()).st_size:
        raise EOFError(f"the directory has {entry.filename} at byte {entry.header_offset}")
    file.seek(entry.header_offset)
    header = file.read(_LOCAL_HEADER.size)
    if len(header) < _LOCAL_HEADER.size or not header.startswith(b"PK\x03\x04"):
        raise EOFError("the local header of the entry is missing")
    _, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(header)
    file.seek(name_bytes + extra_bytes, os.SEEK_CUR)
    pieces = _pieces(file, entry.compress_size)
    stored = entry.compress_type == zipfile.ZIP_STORED
    checksum = 0
    for chunk in pieces if stored else decoded(pieces, make_deflate):
        checksum = isal_zlib.crc32(chunk, checksum)
        yield chunk
    if checksum != entry.CRC:
        raise EOFError("the CRC-32 does not match")


_OPENERS: dict[Kind, Callable[[BinaryIO, str], _Opened]] = {
    "raw": _open_raw,
    "zip": _open_zip,
    "gz": _open_gz,
    "xz": _open_xz,
    "zst": _open_zst,
    "bz2": _open_bz2,
    "tar": _open_tar,
}
