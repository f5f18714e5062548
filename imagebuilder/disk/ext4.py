"""Find the used blocks of an ext2, ext3 or ext4 file system from its block bitmaps.

Layout: kernel documentation, filesystems/ext4 (super block, group descriptors, bitmaps). The
result is None if any feature is not known: then the caller copies the whole partition.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from imagebuilder.disk.extent import Extent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imagebuilder.disk.reader import ReadAt

SUPER_OFFSET = 1024
SUPER_BYTES = 1024
MAGIC = 0xEF53

# Features with a known effect on the block bitmaps (fs/ext4/ext4.h); any other bit: copy all.
# dir_prealloc … dir_index, sparse_super2, fast_commit, stable_inodes, orphan_file.
_COMPAT_KNOWN = 0x003F | 0x0200 | 0x0400 | 0x0800 | 0x1000
_COMPAT_SPARSE_SUPER2 = 0x0200
_INCOMPAT_META_BG = 0x0010
_INCOMPAT_64BIT = 0x0080

# filetype, meta_bg, extents, 64bit, mmp, flex_bg, ea_inode, dirdata, csum_seed, largedir,
# inline_data, encrypt, casefold. Not recover (0x4): the newest bitmaps are still in the journal.
_INCOMPAT_KNOWN = 0x0002 | 0x0010 | 0x0040 | 0x0080 | 0x0100 | 0x0200 | 0x0400 | 0x1000 | 0x3E000
_RO_SPARSE_SUPER = 0x0001
_RO_GDT_CSUM = 0x0010
_RO_METADATA_CSUM = 0x0400

# All but has_snapshot (0x80), bigalloc (0x200), replica (0x800) and orphan_present (0x10000).
_RO_KNOWN = 0x007F | 0x0100 | 0x0400 | 0x1000 | 0x2000 | 0x4000 | 0x8000
_STATE_CLEAN = 0x0001
_STATE_ERRORS = 0x0002
_GROUP_BLOCK_UNINIT = 0x0002
_LARGEST_LOG_BLOCK = 6  # 64 KiB

# Limit: 1 TiB in blocks of 4 KiB, a bitmap of 32 MiB. A larger file system is copied completely.
MOST_BLOCKS = 1 << 28
MOST_GROUPS = 1 << 14


@dataclass(frozen=True, slots=True)
class _Geometry:
    """Fields of the super block; sizes are in blocks unless the name says bytes."""

    block_bytes: int
    blocks: int
    first_block: int
    blocks_per_group: int
    inode_table_blocks: int
    descriptor_bytes: int
    reserved_descriptor_blocks: int
    first_meta_group: int | None
    free_blocks: int
    checksummed: bool
    sparse: bool
    backups: tuple[int, int] | None

    @property
    def groups(self) -> int:
        return -(-(self.blocks - self.first_block) // self.blocks_per_group)

    @property
    def descriptors_per_block(self) -> int:
        return self.block_bytes // self.descriptor_bytes

    @property
    def descriptor_blocks(self) -> int:
        return -(-self.groups // self.descriptors_per_block)

    def start_of(self, group: int) -> int:
        return self.first_block + group * self.blocks_per_group

    def blocks_in(self, group: int) -> int:
        return min(self.blocks_per_group, self.blocks - self.start_of(group))

    def has_super(self, group: int) -> bool:
        """Return whether `group` begins with the super block or a backup of it.

        With sparse_super only groups 0, 1 and powers of 3, 5 and 7 do (filesystems/ext4).
        """
        if self.backups is not None:
            return group == 0 or group in self.backups
        return not self.sparse or group <= 1 or any(_is_power(group, base) for base in (3, 5, 7))


@dataclass(frozen=True, slots=True)
class _Group:
    block_bitmap: int
    inode_bitmap: int
    inode_table: int
    free_blocks: int
    uninit: bool


def used_extents(disk: ReadAt, start_bytes: int, size_bytes: int) -> tuple[Extent, ...] | None:
    """Return the used byte ranges, from the start of the disk; None if they are not certain.

    They are certain if every feature is known, the file system is clean and fits its partition,
    and the free blocks of the bitmaps are as many as the group descriptors state.
    """
    geometry = _parse_super(disk.read_at(start_bytes + SUPER_OFFSET, SUPER_BYTES), size_bytes)
    if geometry is None:
        return None
    groups = _load_groups(disk, start_bytes, geometry)
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


def _parse_super(raw: bytes, size_bytes: int) -> _Geometry | None:
    if len(raw) < SUPER_BYTES or struct.unpack_from("<H", raw, 56)[0] != MAGIC:
        return None
    if not _features_known(raw):
        return None
    blocks_low, free_low = struct.unpack_from("<I4xI", raw, 4)
    first_block, log_block, log_cluster, per_group = struct.unpack_from("<4I", raw, 20)
    inodes_per_group, revision = struct.unpack_from("<I", raw, 40)[0], _u32(raw, 76)
    if log_block > _LARGEST_LOG_BLOCK or log_cluster != log_block:
        return None
    wide = bool(_u32(raw, 96) & _INCOMPAT_64BIT)
    block_bytes = 1024 << log_block
    inode_bytes = struct.unpack_from("<H", raw, 88)[0] if revision else 128
    geometry = _Geometry(
        block_bytes=block_bytes,
        blocks=blocks_low | (_u32(raw, 336) << 32 if wide else 0),
        first_block=first_block,
        blocks_per_group=per_group,
        inode_table_blocks=-(-inodes_per_group * inode_bytes // block_bytes),
        descriptor_bytes=struct.unpack_from("<H", raw, 254)[0] if wide else 32,
        reserved_descriptor_blocks=struct.unpack_from("<H", raw, 206)[0],
        first_meta_group=_u32(raw, 260) if _u32(raw, 96) & _INCOMPAT_META_BG else None,
        free_blocks=free_low | (_u32(raw, 344) << 32 if wide else 0),
        checksummed=bool(_u32(raw, 100) & (_RO_GDT_CSUM | _RO_METADATA_CSUM)),
        sparse=bool(_u32(raw, 100) & _RO_SPARSE_SUPER),
        backups=struct.unpack_from("<2I", raw, 588)
        if _u32(raw, 92) & _COMPAT_SPARSE_SUPER2
        else None,
    )
    return geometry if _sound(geometry, size_bytes) else None


def _features_known(raw: bytes) -> bool:
    state = struct.unpack_from("<H", raw, 58)[0]
    compat, incompat, read_only = struct.unpack_from("<3I", raw, 92)
    return (
        state & (_STATE_CLEAN | _STATE_ERRORS) == _STATE_CLEAN
        and not compat & ~_COMPAT_KNOWN
        and not incompat & ~_INCOMPAT_KNOWN
        and not read_only & ~_RO_KNOWN
    )


def _sound(geometry: _Geometry, size_bytes: int) -> bool:
    return (
        0 < geometry.blocks_per_group <= geometry.block_bytes * 8
        and geometry.blocks <= MOST_BLOCKS
        and geometry.blocks_per_group % 8 == 0
        and geometry.first_block == (1 if geometry.block_bytes == 1024 else 0)  # noqa: PLR2004
        and geometry.first_block < geometry.blocks
        and geometry.blocks * geometry.block_bytes <= size_bytes
        and geometry.groups <= MOST_GROUPS
        and geometry.descriptor_bytes in (32, 64)
        # mke2fs makes no larger group; a table of any size in each group would take too long.
        and 0 < geometry.inode_table_blocks <= geometry.blocks_per_group
    )


def _load_groups(disk: ReadAt, start_bytes: int, geometry: _Geometry) -> list[_Group] | None:
    groups: list[_Group] = []
    for index in range(geometry.descriptor_blocks):
        block = _descriptor_block(geometry, index)
        raw = disk.read_at(start_bytes + block * geometry.block_bytes, geometry.block_bytes)
        if len(raw) < geometry.block_bytes:
            return None
        here = min(geometry.descriptors_per_block, geometry.groups - len(groups))
        groups += [
            _parse_group(raw[i * geometry.descriptor_bytes :], geometry) for i in range(here)
        ]
    stated = sum(group.free_blocks for group in groups)
    return groups if stated == geometry.free_blocks and _groups_sound(groups, geometry) else None


def _descriptor_block(geometry: _Geometry, index: int) -> int:
    """Return the block of descriptor block `index`; with meta_bg each is in its own group."""
    if geometry.first_meta_group is None or index < geometry.first_meta_group:
        return geometry.first_block + 1 + index
    group = index * geometry.descriptors_per_block
    return geometry.start_of(group) + (1 if geometry.has_super(group) else 0)


def _parse_group(raw: bytes, geometry: _Geometry) -> _Group:
    bitmap, inodes, table, free, flags = struct.unpack_from("<3IH4xH", raw)
    if geometry.descriptor_bytes == 64:  # noqa: PLR2004 - the 64bit feature adds upper halves
        high = struct.unpack_from("<3IH", raw, 32)
        bitmap, inodes, table = (
            low | top << 32 for low, top in zip((bitmap, inodes, table), high[:3], strict=True)
        )
        free |= high[3] << 16
    return _Group(
        block_bitmap=bitmap,
        inode_bitmap=inodes,
        inode_table=table,
        free_blocks=free,
        uninit=geometry.checksummed and bool(flags & _GROUP_BLOCK_UNINIT),
    )


def _groups_sound(groups: list[_Group], geometry: _Geometry) -> bool:
    return all(
        geometry.first_block <= block and block + length <= geometry.blocks
        for group in groups
        for block, length in _tables_of(group, geometry)
    )


def _tables_of(group: _Group, geometry: _Geometry) -> tuple[tuple[int, int], ...]:
    return (
        (group.block_bitmap, 1),
        (group.inode_bitmap, 1),
        (group.inode_table, geometry.inode_table_blocks),
    )


def _load_bitmap(
    disk: ReadAt, start_bytes: int, geometry: _Geometry, number: int, group: _Group
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


def _mark_metadata(used: bytearray, geometry: _Geometry, groups: list[_Group]) -> bool:
    """Mark super blocks, descriptors, bitmaps and inode tables; False if a free count is wrong.

    The bitmap of a group with BLOCK_UNINIT was never written, but the group holds these.
    """
    for number in range(len(groups)):
        _mark(used, geometry, *_super_blocks(geometry, number))
    for group in groups:
        for first, length in _tables_of(group, geometry):
            _mark(used, geometry, first, first + length)
    span = geometry.blocks_per_group // 8
    return all(
        geometry.blocks_in(number)
        - int.from_bytes(used[number * span : (number + 1) * span], "little").bit_count()
        == group.free_blocks
        for number, group in enumerate(groups)
    )


def _super_blocks(geometry: _Geometry, number: int) -> tuple[int, int]:
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
    used: bytearray, geometry: _Geometry, start_bytes: int, size_bytes: int
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


def _mark(used: bytearray, geometry: _Geometry, begin: int, end: int) -> None:
    """Set the bits of a half-open range of blocks, whole bytes at once."""
    first, last = begin - geometry.first_block, end - geometry.first_block
    low, high = first >> 3, (last + 7) >> 3
    bits = ((1 << last - first) - 1) << (first & 7)
    merged = int.from_bytes(used[low:high], "little") | bits
    used[low:high] = merged.to_bytes(high - low, "little")


def _is_power(number: int, base: int) -> bool:
    while number > 1 and number % base == 0:
        number //= base
    return number == 1


def _u32(raw: bytes, offset: int) -> int:
    value: int = struct.unpack_from("<I", raw, offset)[0]
    return value
