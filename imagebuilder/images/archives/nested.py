"""Unpack a further layer of an unpacked file: compression or a tar."""

from __future__ import annotations

import tarfile
from typing import TYPE_CHECKING, cast

from imagebuilder.errors import ImageError
from imagebuilder.images.archives.decoders import CHUNK_BYTES, MAKERS, LimitError, decoded
from imagebuilder.images.archives.formats import kind_of_head
from imagebuilder.images.archives.members import choose_member, may_be_image

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO

    from imagebuilder.images.archives.formats import Kind


# Headers of one entry include a long name or the map of a sparse file.
MOST_HEADER_BYTES = 1 << 20
MOST_ENTRIES = 10_000
_BUFFER_BYTES = 1 << 16
_HINT = "unpack it, and use the image itself"


def packed_kind(head: bytes, name: str) -> Kind:
    """Return the format of an unpacked file. Raise ImageError if it is not supported there."""
    kind = kind_of_head(head, name)
    if kind == "zip":
        raise ImageError(f"{name} is a zip in another archive, which is not supported", _HINT)
    return kind


def unpack_layer(kind: Kind, chunks: Iterator[bytes], name: str) -> Iterator[bytes]:
    """Return the bytes of the image in `chunks` of the format `kind`."""
    return _tar_chunks(chunks, name) if kind == "tar" else decoded(chunks, MAKERS[kind])


def _tar_chunks(chunks: Iterator[bytes], name: str) -> Iterator[bytes]:
    """Yield the image in a tar, in one pass. Raise ImageError at the end if there are several."""
    source = _Source(chunks)
    seen: list[str] = []
    taken = ""
    with tarfile.open(fileobj=cast("IO[bytes]", source), mode="r|", bufsize=_BUFFER_BYTES) as tar:
        for member in _members(tar, source):
            seen.append(member.name)
            found = not taken and may_be_image(member.name)
            taken = member.name if found else taken
            for chunk in _content(tar, member):
                if found:
                    yield chunk
    source.expect_header()
    while source.read(CHUNK_BYTES):
        pass  # the checksum of the outer layer is at its end
    if choose_member(seen, name) != taken:
        raise ImageError(f"{name} contains several possible images: {', '.join(seen[:4])}", _HINT)


def _members(tar: tarfile.TarFile, source: _Source) -> Iterator[tarfile.TarInfo]:
    for _ in range(MOST_ENTRIES):
        source.expect_header()
        member = tar.next()
        if member is None:
            return
        source.expect_content()
        if member.isreg():
            yield member
    raise LimitError(f"it contains more than {MOST_ENTRIES} files", _HINT)


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> Iterator[bytes]:
    file = tar.extractfile(member)
    while file and (chunk := file.read(CHUNK_BYTES)):
        yield chunk


# tarfile seeks past the end by reading nothing again and again, 2**44 times for a size of 2**60.
_MOST_VAIN_READS = 16


class _Source:
    """The file object for tarfile, with a limit for headers, which it reads to memory."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks, self._rest, self._at = chunks, b"", 0
        self._left: int | None = MOST_HEADER_BYTES
        self._vain = 0

    def expect_header(self) -> None:
        """Limit the following reads to the size of a header."""
        self._left = MOST_HEADER_BYTES

    def expect_content(self) -> None:
        """Allow reads of any size."""
        self._left = None

    def read(self, size_bytes: int) -> bytes:
        """Return up to `size_bytes`, none at the end. Raise LimitError if a header is too large."""
        if self._at >= len(self._rest):
            self._rest, self._at = next(self._chunks, b""), 0
        piece = self._rest[self._at : self._at + size_bytes]
        self._at += len(piece)
        self._vain += not piece
        if self._vain > _MOST_VAIN_READS:
            raise EOFError("it ends in the middle")
        if self._left is not None:
            self._left -= len(piece)
            if self._left < 0:
                raise LimitError("the headers of the tar are too large", _HINT)
        return piece
