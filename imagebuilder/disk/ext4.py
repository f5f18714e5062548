"""Find the used blocks of an ext2, ext3 or ext4 file system from its block bitmaps.

Layout: kernel documentation, filesystems/ext4 (super block, group descriptors, bitmaps). The
result is None if any feature is not known: then the caller copies the whole partition.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from imagebuilder.disk.ext4_layout import (
    SUPER_BYTES,
    SUPER_OFFSET,
    Geometry,
    Group,
    load_groups,
    parse_super,
    tables_of,
)
from imagebuilder.disk.extent import Extent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imagebuilder.disk.reader import ReadAt


def used_extents(disk: ReadAt, start_bytes: int, size_bytes: int) -> tuple[Extent, ...] | None:
    """Return the used byte ranges, from the start of the disk; None if they are not certain.

    They are certain if every feature is known, the file system is clean and fits its partition,
    and the free blocks of the bitmaps are as many as the group descriptors state.
    """
    geometry = parse_super(disk.read_at(start_bytes + SUPER_OFFSET, SUPER_BYTES), size_bytes)
    if geometry is None:
        return None
    groups = load_groups(disk, start_bytes, geometry)
    if groups is None:
        return None
    used = bytearray(geometry.groups * geometry.blocks_per_group // 8)
    for number, group in enumerate(groups):
        bitmap = _load_bitmap(disk, start_bytes, geometry, number, group)
        if bitmap is None:
            return None
        at = number * geometry.blocks_per_group // 8
        used[at : at + len(bitmap)] = bitmap
    if not _mark_metadata(used, geometry, groups):
        return None
    return tuple(_to_extents(used, geometry, start_bytes, size_bytes))


def _load_bitmap(
    disk: ReadAt, start_bytes: int, geometry: Geometry, number: int, group: Group
) -> bytes | None:
    """Return the group's bitmap without padding; zeros if it was never initialized.

    None if it cannot be read or its free count is not that of the descriptor.
    """
    size_bytes = geometry.blocks_per_group // 8
    if group.uninit:
        return bytes(size_bytes)
    raw = disk.read_at(start_bytes + group.block_bitmap * geometry.block_bytes, size_bytes)
    if len(raw) < size_bytes:
        return None
    bits = int.from_bytes(raw, "little") & ((1 << geometry.blocks_in(number)) - 1)
    if geometry.blocks_in(number) - bits.bit_count() != group.free_blocks:
        return None
    return bits.to_bytes(size_bytes, "little")


def _mark_metadata(used: bytearray, geometry: Geometry, groups: list[Group]) -> bool:
    """Mark super blocks, descriptors, bitmaps and inode tables; False if a free count is wrong.

    The bitmap of a group with BLOCK_UNINIT was never written, but the group holds these.
    """
    for number in range(len(groups)):
        _mark(used, geometry, *_super_blocks(geometry, number))
    for group in groups:
        for first, length in tables_of(group, geometry):
            _mark(used, geometry, first, first + length)
    span = geometry.blocks_per_group // 8
    return all(
        geometry.blocks_in(number)
        - int.from_bytes(used[number * span : (number + 1) * span], "little").bit_count()
        == group.free_blocks
        for number, group in enumerate(groups)
    )


def _super_blocks(geometry: Geometry, number: int) -> tuple[int, int]:
    """Return the half-open block range of the super block and descriptors in a group.

    With meta_bg, the first, second and last group of a metagroup hold its descriptor block.
    """
    start = geometry.start_of(number)
    after = start + (1 if geometry.has_super(number) else 0)
    meta = geometry.first_meta_group
    metagroup = number // geometry.descriptors_per_block
    if meta is not None and metagroup >= meta:
        within = number % geometry.descriptors_per_block
        return start, after + (1 if within in (0, 1, geometry.descriptors_per_block - 1) else 0)
    if not geometry.has_super(number):
        return start, start
    if meta is not None:
        return start, after + min(meta, geometry.descriptor_blocks)
    end = after + geometry.descriptor_blocks + geometry.reserved_descriptor_blocks
    return start, min(end, start + geometry.blocks_in(number))


def _to_extents(
    used: bytearray, geometry: Geometry, start_bytes: int, size_bytes: int
) -> Iterator[Extent]:
    """Yield the used byte ranges; what lies before the first and after the last block counts."""
    size = geometry.block_bytes
    first = geometry.first_block * size
    if first:
        yield Extent(start_bytes, first)
    for begin, end in _runs(used):
        yield Extent(start_bytes + first + begin * size, (end - begin) * size)
    end_bytes = geometry.blocks * size
    if end_bytes < size_bytes:
        yield Extent(start_bytes + end_bytes, size_bytes - end_bytes)


def _runs(used: bytearray) -> Iterator[tuple[int, int]]:
    """Yield half-open ranges of set bits; the least significant bit of a byte is the first."""
    begin: int | None = None
    for at, byte in enumerate(used):
        if byte == (0xFF if begin is not None else 0):
            continue
        for bit in range(8):
            on = byte >> bit & 1
            if on and begin is None:
                begin = at * 8 + bit
            elif not on and begin is not None:
                yield begin, at * 8 + bit
                begin = None
    if begin is not None:
        yield begin, len(used) * 8


def _mark(used: bytearray, geometry: Geometry, begin: int, end: int) -> None:
    """Set the bits of a half-open range of blocks, whole bytes at once."""
    first, last = begin - geometry.first_block, end - geometry.first_block
    low, high = first >> 3, (last + 7) >> 3
    bits = ((1 << last - first) - 1) << (first & 7)
    merged = int.from_bytes(used[low:high], "little") | bits
    used[low:high] = merged.to_bytes(high - low, "little")
