"""Unpack compressed disk images as a checked and bounded stream of raw bytes."""

from __future__ import annotations

import bz2
import lzma
import os
import struct
import zipfile
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, BinaryIO, NoReturn, Protocol, cast

import zstandard
from isal import igzip_lib, isal_zlib

from imagebuilder.errors import ImageError
from imagebuilder.images.formats import kind_of, open_form
from imagebuilder.images.xz_zstd import (
    CHUNK_BYTES,
    INPUT_BYTES,
    LARGEST_PARALLEL_BYTES,
    decode_xz,
    xz_blocks,
    zst_size,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from imagebuilder.images.formats import Kind


# 256 GiB, more than usual cards: a larger image is a decompression bomb.
LARGEST_IMAGE_BYTES = 1 << 38
_DECODER_ERRORS: tuple[type[Exception], ...] = (
    cast("type[Exception]", igzip_lib.error),
    lzma.LZMAError,
    zstandard.ZstdError,
    OSError,
    EOFError,
)
_IMAGE_SUFFIXES = (".img", ".raw", ".wic", ".bin")
_LOCAL_HEADER = struct.Struct("<4s22xHH")  # APPNOTE.TXT 4.3.7: signature, name and extra length


class Decompressor(Protocol):
    """The common interface of the incremental decoders of isal, lzma and bz2."""

    @property
    def eof(self) -> bool:
        """Whether the end of the compressed member was reached."""

    @property
    def needs_input(self) -> bool:
        """Whether more input is needed for more output."""

    @property
    def unused_data(self) -> bytes:
        """The bytes after the end of the member."""

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        """Add `data`; return at most `max_length` bytes."""


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
            chunks, stated = _OPENERS[kind](file, name)
        if stated is not None and size_bytes is not None and stated != size_bytes:
            raise ImageError(f"{name} states {stated} bytes instead of {size_bytes}", _DAMAGED_HINT)
        if stated is not None and stated > LARGEST_IMAGE_BYTES:
            raise ImageError(
                f"{name} states {stated} bytes", "do not use it: no card is that large"
            )
        guarded = _guarded(chunks, name)
        yield ImageStream(guarded, size_bytes if stated is None else stated, name)


@contextmanager
def _damage_reported(name: str) -> Iterator[None]:
    """Raise the errors of decoders as ImageError."""
    try:
        yield
    except _DECODER_ERRORS as error:
        raise ImageError(
            f"cannot unpack {name}: {str(error) or 'damaged'}", _DAMAGED_HINT
        ) from error


def _guarded(chunks: Iterator[bytes], name: str) -> Iterator[bytes]:
    while True:
        with _damage_reported(name):
            chunk = next(chunks, b"")
        if not chunk:
            return
        yield chunk


def _pieces(file: BinaryIO, size_bytes: int | None = None) -> Iterator[bytes]:
    left = LARGEST_IMAGE_BYTES if size_bytes is None else size_bytes
    while left and (piece := file.read(min(INPUT_BYTES, left))):
        left -= len(piece)
        yield piece


def _decoded(pieces: Iterator[bytes], make: Callable[[], Decompressor]) -> Iterator[bytes]:
    """Yield the output of consecutive members; zeros between and after them are padding."""
    decoder, inside, members = make(), False, 0
    for piece in pieces:
        data = piece
        while data or not decoder.needs_input:
            if members and not inside and not (data := data.lstrip(b"\0")):
                break
            inside = True
            if out := decoder.decompress(data, CHUNK_BYTES):
                yield out
            data = b""
            if decoder.eof:
                data = decoder.unused_data
                decoder, inside, members = make(), False, members + 1
    if inside or not members:
        raise EOFError("truncated")


# ---- an opener for each format returns the chunks, and the raw size if the file states it

_Opened = tuple["Iterator[bytes]", "int | None"]


def _open_raw(file: BinaryIO, name: str) -> _Opened:
    del name
    return _pieces_of_chunk(file), os.fstat(file.fileno()).st_size


def _pieces_of_chunk(file: BinaryIO) -> Iterator[bytes]:
    while chunk := file.read(CHUNK_BYTES):
        yield chunk


def _open_gz(file: BinaryIO, name: str) -> _Opened:
    del name
    return _decoded(
        _pieces(file), lambda: igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
    ), None


def _open_xz(file: BinaryIO, name: str) -> _Opened:
    del name
    blocks = xz_blocks(file.fileno())
    stated = sum(block.raw_bytes for block in blocks)
    if any(block.raw_bytes > LARGEST_PARALLEL_BYTES for block in blocks) or not blocks:
        return _decoded(_pieces(file), lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ)), stated
    return decode_xz(file.fileno(), blocks), stated


def _open_bz2(file: BinaryIO, name: str) -> _Opened:
    del name
    return _decoded(_pieces(file), bz2.BZ2Decompressor), None


def _open_zst(file: BinaryIO, name: str) -> _Opened:
    del name
    # zst_size raises for a truncated file, which the reader of zstandard does not notice.
    return _zst_chunks(file), zst_size(file.fileno())


def _zst_chunks(file: BinaryIO) -> Iterator[bytes]:
    with zstandard.ZstdDecompressor().stream_reader(
        file, read_size=INPUT_BYTES, read_across_frames=True, closefd=False
    ) as reader:
        while chunk := reader.read(CHUNK_BYTES):
            yield chunk


def _open_zip(file: BinaryIO, name: str) -> _Opened:
    try:
        with zipfile.ZipFile(file) as archive:
            entry = pick_entry(archive.infolist(), name)
    except (zipfile.BadZipFile, struct.error, OSError, ValueError) as error:
        raise ImageError(f"{name} is a truncated or damaged zip", _DAMAGED_HINT) from error
    return _entry_chunks(file, entry), entry.file_size


def pick_entry(entries: list[zipfile.ZipInfo], name: str) -> zipfile.ZipInfo:
    """Return the only image in a zip. Raise ImageError if there is none, or several."""
    for entry in entries:
        _refuse_unsafe(entry, name)
    files = [e for e in entries if not e.is_dir() and not _is_finder_junk(e.filename)]
    images = [e for e in files if e.filename.lower().endswith(_IMAGE_SUFFIXES)]
    chosen = files if len(files) == 1 else images
    if len(chosen) != 1:
        named = ", ".join(e.filename for e in (chosen or files)[:4]) or "nothing"
        raise ImageError(
            f"{name} contains {len(chosen)} images instead of one: {named}",
            "unpack it and use the image itself",
        )
    return _supported(chosen[0], name)


def _refuse_unsafe(entry: zipfile.ZipInfo, name: str) -> None:
    path = PurePosixPath(entry.filename.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or entry.filename[1:2] == ":":
        raise ImageError(
            f"{name} contains the unsafe name {entry.filename!r}",
            "do not use it: it may be malicious",
        )


def _is_finder_junk(filename: str) -> bool:
    path = PurePosixPath(filename)
    return path.parts[:1] == ("__MACOSX",) or path.name == ".DS_Store"


def _supported(entry: zipfile.ZipInfo, name: str) -> zipfile.ZipInfo:
    if entry.flag_bits & 0x1:
        _refuse_form(name, "is encrypted")
    if entry.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        _refuse_form(name, f"uses zip method {entry.compress_type}")
    return entry


def _refuse_form(name: str, what: str) -> NoReturn:
    raise ImageError(f"{name} {what}, which is not supported", "unpack it and use the image itself")


def _entry_chunks(file: BinaryIO, entry: zipfile.ZipInfo) -> Iterator[bytes]:
    """Yield the bytes of one entry, with sizes of the central directory.

    In the local header of a streamed zip they are 0 (APPNOTE.TXT 4.4.4, bit 3).
    """
    file.seek(entry.header_offset)
    header = file.read(_LOCAL_HEADER.size)
    if len(header) < _LOCAL_HEADER.size or not header.startswith(b"PK\x03\x04"):
        raise EOFError("the local header of the entry is missing")
    _, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(header)
    file.seek(name_bytes + extra_bytes, os.SEEK_CUR)
    pieces = _pieces(file, entry.compress_size)
    stored = entry.compress_type == zipfile.ZIP_STORED
    checksum = 0
    for chunk in pieces if stored else _decoded(pieces, _deflate):
        checksum = isal_zlib.crc32(chunk, checksum)
        yield chunk
    if checksum != entry.CRC:
        raise EOFError("the CRC-32 does not match")


def _deflate() -> Decompressor:
    decoder: Decompressor = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_DEFLATE)
    return decoder


_OPENERS: dict[Kind, Callable[[BinaryIO, str], _Opened]] = {
    "raw": _open_raw,
    "zip": _open_zip,
    "gz": _open_gz,
    "xz": _open_xz,
    "zst": _open_zst,
    "bz2": _open_bz2,
}
