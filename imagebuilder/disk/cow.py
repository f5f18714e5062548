"""A copy-on-write view of a part of a disk, and the patch made from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imagebuilder.disk.extent import Patch, Run
from imagebuilder.disk.patched import overlay
from imagebuilder.errors import ImageError
from imagebuilder.model import SECTOR_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imagebuilder.disk.reader import ReadAt

BLOCK_BYTES = 4096


class CowView:
    """A file-like window on a disk; writes stay in memory, in blocks of 4 KiB.

    `start_bytes` is a multiple of 512. The disk is only read. Raise ImageError on an access
    outside the window, and if the disk ends inside a range that is read.
    """

    def __init__(self, disk: ReadAt, start_bytes: int, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self._disk = disk
        self._start = start_bytes
        self._blocks: dict[int, bytearray] = {}
        self._position = 0

    def seek(self, offset_bytes: int) -> int:
        """Set the position, in bytes from the start of the window."""
        self._position = offset_bytes
        return offset_bytes

    def tell(self) -> int:
        """Return the position, in bytes from the start of the window."""
        return self._position

    def read(self, size_bytes: int = -1) -> bytes:
        """Read from the position; return fewer bytes only at the end of the window."""
        rest = max(0, self.size_bytes - self._position)
        data = self.read_at(self._position, rest if size_bytes < 0 else min(size_bytes, rest))
        self._position += len(data)
        return data

    def write(self, data: bytes | bytearray) -> int:
        """Write at the position; return the number of bytes."""
        self.write_at(self._position, data)
        self._position += len(data)
        return len(data)

    def read_at(self, offset_bytes: int, size_bytes: int) -> bytes:
        """Return exactly `size_bytes` from `offset_bytes`, with the writes so far."""
        self._confine(offset_bytes, size_bytes)
        data = self._base(offset_bytes, size_bytes)
        if not self._blocks or not size_bytes:
            return data
        return self._overlaid(offset_bytes, data)

    def write_at(self, offset_bytes: int, data: bytes | bytearray) -> None:
        """Replace the bytes at `offset_bytes`, in memory only."""
        self._confine(offset_bytes, len(data))
        done = 0
        while done < len(data):
            index, inner = divmod(offset_bytes + done, BLOCK_BYTES)
            amount = min(BLOCK_BYTES - inner, len(data) - done)
            self._block(index)[inner : inner + amount] = data[done : done + amount]
            done += amount

    def patch(self) -> Patch:
        """Return the 512-byte sectors that differ from the disk, with offsets in the whole disk."""
        return Patch(tuple(_joined(self._changed_sectors())))

    def _confine(self, offset_bytes: int, size_bytes: int) -> None:
        if offset_bytes < 0 or size_bytes < 0 or offset_bytes + size_bytes > self.size_bytes:
            raise ImageError(
                f"{size_bytes} bytes at {offset_bytes} are outside the boot partition",
                "the base image is damaged: fetch it again",
            )

    def _base(self, offset_bytes: int, size_bytes: int) -> bytes:
        data = self._disk.read_at(self._start + offset_bytes, size_bytes)
        if len(data) != size_bytes:
            raise ImageError(
                "the image is truncated inside its boot partition", "fetch the image again"
            )
        return data

    def _overlaid(self, offset_bytes: int, data: bytes) -> bytes:
        first, end = offset_bytes // BLOCK_BYTES, offset_bytes + len(data)
        merged: bytearray | None = None
        for index in range(first, (end - 1) // BLOCK_BYTES + 1):
            if (block := self._blocks.get(index)) is not None:
                merged = merged or bytearray(data)
                overlay(merged, offset_bytes, block, index * BLOCK_BYTES)
        return data if merged is None else bytes(merged)

    def _block(self, index: int) -> bytearray:
        block = self._blocks.get(index)
        if block is None:
            block = self._blocks[index] = bytearray(self._base_block(index))
        return block

    def _base_block(self, index: int) -> bytes:
        start = index * BLOCK_BYTES
        return self._base(start, min(BLOCK_BYTES, self.size_bytes - start))

    def _changed_sectors(self) -> Iterator[Run]:
        for index in sorted(self._blocks):
            block, base = bytes(self._blocks[index]), self._base_block(index)
            if block == base:
                continue
            for at in range(0, len(block), SECTOR_BYTES):
                sector = block[at : at + SECTOR_BYTES]
                if sector != base[at : at + SECTOR_BYTES]:
                    yield Run(self._start + index * BLOCK_BYTES + at, sector)


def _joined(sectors: Iterator[Run]) -> Iterator[Run]:
    start, parts, end = 0, list[bytes](), -1
    for sector in sectors:
        if sector.offset_bytes != end and parts:
            yield Run(start, b"".join(parts))
            parts = []
        if not parts:
            start = sector.offset_bytes
        parts.append(sector.data)
        end = sector.offset_bytes + len(sector.data)
    if parts:
        yield Run(start, b"".join(parts))
