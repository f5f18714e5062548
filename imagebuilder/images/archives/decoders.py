"""Decoders of compressed streams in bounded memory."""

from __future__ import annotations

import bz2
import hashlib
import lzma
import tarfile
from typing import TYPE_CHECKING, Protocol, cast

import zstandard
from isal import igzip_lib

from imagebuilder.images.foreign import PARSING_ERRORS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from imagebuilder.images.archives.formats import Kind

CHUNK_BYTES = 1 << 20
INPUT_BYTES = 1 << 18

# A decoder has the window in memory. That of `zstd --long=28`, 4 times that of `xz -9`.
LARGEST_WINDOW_BYTES = 256 << 20

# liblzma counts its own structures in the limit, too.
_LZMA_OVERHEAD_BYTES = 2 << 20

# Even an empty member takes time; those of bgzip have 64 KiB.
MOST_MEMBERS = 1 << 18

# The decoder has no limit of output, so the input is limited: a block of 4 bytes unpacks to
# up to 128 KiB (RFC 8878, 3.1.1.2.4).
_ZST_STEP_BYTES = 1 << 11


class LimitError(Exception):
    """A file exceeds a limit of this program, but may be valid; `hint` is for the user."""

    def __init__(self, reason: str, hint: str) -> None:
        super().__init__(reason)
        self.hint = hint


DECODER_ERRORS: tuple[type[Exception], ...] = (
    LimitError,
    cast("type[Exception]", igzip_lib.error),
    lzma.LZMAError,
    zstandard.ZstdError,
    tarfile.TarError,
    OSError,
    *PARSING_ERRORS,
)


def explained(error: Exception) -> LimitError | None:
    """Return the LimitError for a decoder's error about too much memory; None for others."""
    text = str(error)
    for words, program in (
        ("Memory usage limit", "xz -dk"),  # liblzma: LZMA_MEMLIMIT_ERROR
        ("too much memory", "zstd -d --long=31"),  # libzstd: frameParameter_windowTooLarge
    ):
        if words in text:
            return window_error(program)
    return None


def window_error(program: str, size_bytes: int | None = None) -> LimitError:
    """Return the error for a window that is too large."""
    size = f" of {size_bytes >> 20} MiB" if size_bytes else ""
    return LimitError(
        f"it needs a window{size}, more than the limit of {LARGEST_WINDOW_BYTES >> 20} MiB",
        f"unpack it with `{program} FILE`, and use the image itself",
    )


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


class _ZstDecompressor:
    """A decoder of a zstd frame; it takes little input at a time, to limit the output."""

    def __init__(self) -> None:
        self._frame = zstandard.ZstdDecompressor(
            max_window_size=LARGEST_WINDOW_BYTES
        ).decompressobj()
        self._data, self._at = b"", 0

    @property
    def eof(self) -> bool:
        return bool(self._frame.eof)

    @property
    def needs_input(self) -> bool:
        return self._at >= len(self._data)

    @property
    def unused_data(self) -> bytes:
        return self._frame.unused_data + self._data[self._at :]

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        del max_length
        if data:
            self._data, self._at = self._data[self._at :] + data, 0
        step = self._data[self._at : self._at + _ZST_STEP_BYTES]
        self._at += len(step)
        return self._frame.decompress(step)


def make_xz() -> Decompressor:
    """Return a decoder of xz with limited memory."""
    limit = LARGEST_WINDOW_BYTES + _LZMA_OVERHEAD_BYTES
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=limit)


def make_gz() -> Decompressor:
    """Return a decoder of one gz member."""
    decoder: Decompressor = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
    return decoder


def make_deflate() -> Decompressor:
    """Return a decoder of raw deflate, the method 8 of zip (APPNOTE.TXT 4.4.5)."""
    decoder: Decompressor = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_DEFLATE)
    return decoder


MAKERS: dict[Kind, Callable[[], Decompressor]] = {
    "gz": make_gz,
    "xz": make_xz,
    "bz2": bz2.BZ2Decompressor,
    "zst": _ZstDecompressor,
}


def decoded(pieces: Iterator[bytes], make: Callable[[], Decompressor]) -> Iterator[bytes]:
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
                refuse_many(members)
    if inside or not members:
        raise EOFError("truncated")


def refuse_many(members: int) -> None:
    """Raise LimitError if a file has more streams than programs make."""
    if members > MOST_MEMBERS:
        raise LimitError(
            f"it has more than {MOST_MEMBERS} streams",
            "do not use it: it may be malicious",
        )


def hash_gz(path: Path, most_bytes: int) -> str:
    """Return the SHA-256 of the content of a gz file; empty if it is not valid or too large."""
    digest, have = hashlib.sha256(), 0
    try:
        with path.open("rb", buffering=0) as file:
            for chunk in decoded(iter(lambda: file.read(INPUT_BYTES), b""), make_gz):
                digest.update(chunk)
                have += len(chunk)
                if have > most_bytes:
                    return ""
    except DECODER_ERRORS:
        return ""
    return digest.hexdigest()
