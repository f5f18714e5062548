"""Find the used parts of a FAT volume from its allocation table.

Layout: Microsoft FAT specification 1.03 (BPB). The FAT type is determined as in Linux
(fs/fat/inode.c), where FAT32 may have any number of clusters.
"""

from __future__ import annotations

import sys
from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING

from imagebuilder.disk.boot_sector import parse_parameters
from imagebuilder.disk.extent import Extent
from imagebuilder.disk.fat.directory import SLOT_BYTES
from imagebuilder.model import SECTOR_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imagebuilder.disk.reader import ReadAt

_FAT12_BELOW = 4085

# Limit: 512 GB in clusters of 32 KiB. A volume with a larger table is copied completely.
MOST_FAT_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class _Layout:
    """Sizes in bytes, from the start of the volume."""

    fat_start: int
    fat_bytes: int
    fat_copies: int
    data_start: int
    cluster_bytes: int
    clusters: int
    volume_bytes: int
    is_fat32: bool

    @property
    def entry_bits(self) -> int:
        if self.is_fat32:
            return 32
        return 12 if self.clusters < _FAT12_BELOW else 16


def used_extents(
    disk: ReadAt, start_bytes: int, size_bytes: int, *, reach_bytes: int = 0
) -> tuple[Extent, ...] | None:
    """Return the used byte ranges, from the start of the disk; None if this is not FAT.

    A cluster counts as used if it is so in any copy of the table, and with `reach_bytes` also if it
    is free and ends at most so far after the last used one.
    """
    layout = _layout_of(disk.read_at(start_bytes, SECTOR_BYTES))
    if layout is None or not _sound(layout, size_bytes):
        return None
    tables = [
        disk.read_at(start_bytes + layout.fat_start + i * layout.fat_bytes, layout.fat_bytes)
        for i in range(layout.fat_copies)
    ]
    if any(len(table) < layout.fat_bytes for table in tables):
        return None
    marks = [bytes(map(bool, _entries(table, layout))) for table in set(tables)]
    used = bytearray(map(max, marks[0], marks[-1]))
    if reach_bytes:
        reached = min(used.rfind(1) + 1 + reach_bytes // layout.cluster_bytes, len(used))
        used[:reached] = b"\1" * reached
    return tuple(_to_extents(used, layout, start_bytes, size_bytes))


def _layout_of(boot_sector: bytes) -> _Layout | None:
    parameters = parse_parameters(boot_sector)
    if parameters is None:
        return None
    sector, per_cluster = parameters.sector_bytes, parameters.cluster_sectors
    root_sectors = -(-parameters.root_entries * SLOT_BYTES // sector)
    tables = parameters.fats * parameters.fat_sectors
    data_sector = parameters.reserved_sectors + tables + root_sectors
    return _Layout(
        fat_start=parameters.reserved_sectors * sector,
        fat_bytes=parameters.fat_sectors * sector,
        fat_copies=parameters.fats,
        data_start=data_sector * sector,
        cluster_bytes=per_cluster * sector,
        clusters=(parameters.total_sectors - data_sector) // per_cluster,
        volume_bytes=parameters.total_sectors * sector,
        is_fat32=parameters.is_fat32,
    )


def _sound(layout: _Layout, size_bytes: int) -> bool:
    return (
        layout.clusters > 0
        and layout.fat_bytes <= MOST_FAT_BYTES
        and layout.volume_bytes <= size_bytes
        and (layout.clusters + 2) * layout.entry_bits <= layout.fat_bytes * 8
    )


def _entries(table: bytes, layout: _Layout) -> Iterator[int]:
    """Yield the entries of the table from cluster 2, the first of the data area."""
    if layout.entry_bits == 12:  # noqa: PLR2004 - FAT12 packs two entries into three bytes
        for cluster in range(2, layout.clusters + 2):
            pair = table[cluster * 3 // 2] | table[cluster * 3 // 2 + 1] << 8
            yield pair >> 4 if cluster & 1 else pair & 0xFFF
        return
    wide = layout.entry_bits == 32  # noqa: PLR2004 - FAT32, whose top four bits are reserved
    width = layout.entry_bits // 8
    entries = array("I" if wide else "H", table[2 * width : (layout.clusters + 2) * width])
    if sys.byteorder == "big":
        entries.byteswap()
    yield from map((0x0FFFFFFF).__and__, entries) if wide else entries


def _to_extents(
    used: bytearray, layout: _Layout, start_bytes: int, size_bytes: int
) -> Iterator[Extent]:
    yield Extent(start_bytes, layout.data_start)
    first = start_bytes + layout.data_start
    at = used.find(1)
    while at >= 0:
        end = used.find(0, at)
        end = len(used) if end < 0 else end
        yield Extent(first + at * layout.cluster_bytes, (end - at) * layout.cluster_bytes)
        at = used.find(1, end)
    after = layout.data_start + layout.clusters * layout.cluster_bytes
    if after < size_bytes:
        yield Extent(start_bytes + after, size_bytes - after)
