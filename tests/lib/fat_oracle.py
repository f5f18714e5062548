"""A second opinion on a FAT volume: directory records read by rules of their own."""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lib.fat_images import FatImage


@dataclass(frozen=True)
class Record:
    """The 32 bytes of a file or folder, the slots of its long name before them, its content."""

    short: bytes
    long: bytes
    data: bytes

    @property
    def attributes(self) -> int:
        return self.short[11]

    @property
    def created(self) -> bytes:
        return self.short[13:18]

    @property
    def accessed(self) -> bytes:
        return self.short[18:20]

    @property
    def modified(self) -> bytes:
        return self.short[22:26]


class RawVolume:
    """Walks a volume that lies mapped into memory; trusts it, as only tests may."""

    def __init__(self, image: FatImage) -> None:
        with image.path.open("rb") as disk:
            self.bytes = mmap.mmap(
                disk.fileno(), image.size_bytes, access=mmap.ACCESS_READ, offset=image.start_bytes
            )
        number = struct.unpack_from
        self.sector, self.per_cluster, reserved, self.fats = number("<HBHB", self.bytes, 11)
        self.root_slots, short_total = number("<HH", self.bytes, 17)
        short_fat = number("<H", self.bytes, 22)[0]
        self.fat_bytes = (short_fat or number("<I", self.bytes, 36)[0]) * self.sector
        total = short_total or number("<I", self.bytes, 32)[0]
        self.fat_at = reserved * self.sector
        self.root_at = self.fat_at + self.fats * self.fat_bytes
        self.data_at = self.root_at + self.root_slots * 32
        self.cluster = self.per_cluster * self.sector
        self.clusters = (total * self.sector - self.data_at) // self.cluster
        self.bits = 32 if not short_fat else 12 if self.clusters < 4085 else 16

    def fat(self, number: int, copy: int = 0) -> int:
        """Return one entry of one FAT copy, reserved bits included."""
        at = self.fat_at + copy * self.fat_bytes + number * self.bits // 8
        if self.bits == 12:
            pair = int(struct.unpack_from("<H", self.bytes, at)[0])
            return pair >> 4 if number % 2 else pair & 0xFFF
        return int(struct.unpack_from("<H" if self.bits == 16 else "<I", self.bytes, at)[0])

    def chain(self, number: int) -> bytes:
        """Return the bytes of a chain."""
        parts = []
        end = {12: 0xFF8, 16: 0xFFF8, 32: 0x0FFFFFF8}[self.bits]
        while number < end:
            at = self.data_at + (number - 2) * self.cluster
            parts.append(self.bytes[at : at + self.cluster])
            number = self.fat(number) & 0x0FFFFFFF
        return b"".join(parts)

    def free(self) -> int:
        """Count the free clusters."""
        return sum(self.fat(n) & 0x0FFFFFFF == 0 for n in range(2, self.clusters + 2))

    def root(self) -> bytes:
        """Return the root directory's bytes."""
        if self.bits == 32:
            return self.chain(struct.unpack_from("<I", self.bytes, 44)[0])
        return self.bytes[self.root_at : self.data_at]

    def records(self) -> dict[bytes, Record]:
        """Return all files and folders by their path of 11-byte short names."""
        return dict(self._walk(self.root(), b""))

    def _walk(self, content: bytes, prefix: bytes) -> Iterator[tuple[bytes, Record]]:
        long = b""
        for at in range(0, len(content), 32):
            slot = content[at : at + 32]
            if slot[0] == 0:
                return
            if slot[0] == 0xE5:
                long = b""
            elif slot[11] == 0x0F:
                long += slot
            else:
                if slot[0] != 0x2E and not slot[11] & 0x08:
                    yield from self._one(slot, long, prefix)
                long = b""

    def _one(self, slot: bytes, long: bytes, prefix: bytes) -> Iterator[tuple[bytes, Record]]:
        high, low, size = struct.unpack_from("<H4xHI", slot, 20)
        start = low | (high << 16 if self.bits == 32 else 0)
        data = self.chain(start) if start else b""
        path = prefix + slot[:11]
        if slot[11] & 0x10:
            yield path, Record(slot, long, b"")
            yield from self._walk(data, path + b"/")
        else:
            yield path, Record(slot, long, data[:size])


def short(path: str) -> bytes:
    """Return the 11-byte form of each name of an 8.3 path."""
    names = []
    for name in path.upper().split("/"):
        base, _, extension = name.partition(".")
        names.append(f"{base:8}{extension:3}".encode())
    return b"/".join(names)
