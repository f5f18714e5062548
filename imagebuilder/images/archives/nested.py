"""What lies within what was unpacked: one more layer of compression, or a tar."""

from __future__ import annotations

import tarfile
from typing import TYPE_CHECKING, cast

from imagebuilder.errors import ImageError
from imagebuilder.images.archives.decoders import CHUNK_BYTES, MAKERS, LimitError, decoded
from imagebuilder.images.archives.formats import kind_of_head
from imagebuilder.images.archives.members import choose_member, may_be_image
from imagebuilder.images.budgets import Budget

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO

    from imagebuilder.images.archives.formats import Kind


# The headers of one entry, with a long name or the map of a sparse file.
MOST_HEADER_BYTES = 1 << 20
MOST_ENTRIES = 10_000
BUDGETS = (
    Budget("headers of one file in a tar", MOST_HEADER_BYTES, "bytes"),
    Budget("files in a tar", MOST_ENTRIES, "count"),
)
_BUFFER_BYTES = 1 << 16
_HINT = "unpack it and give the image itself"


def packed_kind(head: bytes, name: str) -> Kind:
    """Return the format of unpacked bytes by their head. Raise ImageError if it is refused."""
    kind = kind_of_head(head, name)
    if kind == "zip":
        raise ImageError(f"{name} is a zip itself, which is not unpacked there", _HINT)
    return kind


def unpack_layer(kind: Kind, chunks: Iterator[bytes], name: str) -> Iterator[bytes]:
    """Return the bytes of the image that `chunks` hold, packed as `kind`."""
    return _tar_chunks(chunks, name) if kind == "tar" else decoded(chunks, MAKERS[kind])


def _tar_chunks(chunks: Iterator[bytes], name: str) -> Iterator[bytes]:
    """Yield the image of a tar as it goes by; whether it is the only one shows at the end."""
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
        pass  # the check at the end of the outer layer is read with it
    if choose_member(seen, name) != taken:
        several = ", ".join(seen[:4])
        raise ImageError(f"{name} holds several files that may be the image: {several}", _HINT)


def _members(tar: tarfile.TarFile, source: _Source) -> Iterator[tarfile.TarInfo]:
    for _ in range(MOST_ENTRIES):
        source.expect_header()
        member = tar.next()
        if member is None:
            return
        source.expect_content()
        if member.isreg():
            yield member
    raise LimitError(f"it holds more than {MOST_ENTRIES} files", _HINT)


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> Iterator[bytes]:
    file = tar.extractfile(member)
    while file and (chunk := file.read(CHUNK_BYTES)):
        yield chunk


class _Source:
    """The bytes of a tar for its reader; headers, which it keeps in memory, get few of them."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks, self._rest, self._at = chunks, b"", 0
        self._left: int | None = MOST_HEADER_BYTES

    def expect_header(self) -> None:
        """Let no more be read than a header has."""
        self._left = MOST_HEADER_BYTES

    def expect_content(self) -> None:
        """Let any number of bytes be read."""
        self._left = None

    def read(self, size_bytes: int) -> bytes:
        """Return at most that much, nothing at the end. Raise LimitError over the budget."""
        if self._at >= len(self._rest):
            self._rest, self._at = next(self._chunks, b""), 0
        piece = self._rest[self._at : self._at + size_bytes]
        self._at += len(piece)
        if self._left is not None:
            self._left -= len(piece)
            if self._left < 0:
                raise LimitError("the headers of its tar are too large", _HINT)
        return piece
