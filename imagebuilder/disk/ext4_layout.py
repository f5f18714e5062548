"""Read the super block and the group descriptors of an ext2, ext3 or ext4 file system.

Layout: kernel documentation, filesystems/ext4. The result is None if any feature is not known, or
if the file system was not cleanly unmounted: then nothing else of it can be trusted.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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
class Geometry:
    """Fields of the super block; sizes are in blocks unless the name says bytes."""

    block_bytes: int
    blocks: int
    first_block: int
    blocks_per_group: int
    inodes_per_group: int
    inode_bytes: int
    descriptor_bytes: int
    reserved_descriptor_blocks: int
    first_meta_group: int | None
    free_blocks: int
    checksummed: bool
    sparse: bool
    backups: tuple[int, int] | None

    @property
    def inode_table_blocks(self) -> int:
        """The blocks of one group's inode table."""
        return -(-self.inodes_per_group * self.inode_bytes // self.block_bytes)

    @property
    def groups(self) -> int:
        """The number of block groups."""
        return -(-(self.blocks - self.first_block) // self.blocks_per_group)

    @property
    def descriptors_per_block(self) -> int:
        """The group descriptors in one block."""
        return self.block_bytes // self.descriptor_bytes

    @property
    def descriptor_blocks(self) -> int:
        """The blocks of all group descriptors."""
        return -(-self.groups // self.descriptors_per_block)

    def start_of(self, group: int) -> int:
        """Return the first block of a group."""
        return self.first_block + group * self.blocks_per_group

    def blocks_in(self, group: int) -> int:
        """Return the number of blocks of a group."""
        return min(self.blocks_per_group, self.blocks - self.start_of(group))

    def has_super(self, group: int) -> bool:
        """Return whether `group` begins with the super block or a backup of it.

        With sparse_super only groups 0, 1 and powers of 3, 5 and 7 do (filesystems/ext4).
        """
        if self.backups is not None:
            return group == 0 or group in self.backups
        return not self.sparse or group <= 1 or any(_is_power(group, base) for base in (3, 5, 7))


@dataclass(frozen=True, slots=True)
class Group:
    """The fields of a group descriptor."""

    block_bitmap: int
    inode_bitmap: int
    inode_table: int
    free_blocks: int
    uninit: bool


def parse_super(raw: bytes, size_bytes: int) -> Geometry | None:
    """Return the geometry in a super block; None if a feature or a value is not known."""
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
    geometry = Geometry(
        block_bytes=block_bytes,
        blocks=blocks_low | (_u32(raw, 336) << 32 if wide else 0),
        first_block=first_block,
        blocks_per_group=per_group,
        inodes_per_group=inodes_per_group,
        inode_bytes=inode_bytes,
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


def _sound(geometry: Geometry, size_bytes: int) -> bool:
    return (
        0 < geometry.blocks_per_group <= geometry.block_bytes * 8
        and geometry.blocks <= MOST_BLOCKS
        and geometry.blocks_per_group % 8 == 0
        and geometry.first_block == (1 if geometry.block_bytes == 1024 else 0)  # noqa: PLR2004
        and geometry.first_block < geometry.blocks
        and geometry.blocks * geometry.block_bytes <= size_bytes
        and geometry.groups <= MOST_GROUPS
        and geometry.descriptor_bytes in (32, 64)
        and 128 <= geometry.inode_bytes <= geometry.block_bytes  # noqa: PLR2004 - ext2
        # mke2fs makes no larger group; a table of any size in each group would take too long.
        and 0 < geometry.inode_table_blocks <= geometry.blocks_per_group
    )


def load_groups(disk: ReadAt, start_bytes: int, geometry: Geometry) -> list[Group] | None:
    """Return the group descriptors; None if they do not fit the super block."""
    groups: list[Group] = []
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


def _descriptor_block(geometry: Geometry, index: int) -> int:
    """Return the block of descriptor block `index`; with meta_bg each is in its own group."""
    if geometry.first_meta_group is None or index < geometry.first_meta_group:
        return geometry.first_block + 1 + index
    group = index * geometry.descriptors_per_block
    return geometry.start_of(group) + (1 if geometry.has_super(group) else 0)


def _parse_group(raw: bytes, geometry: Geometry) -> Group:
    bitmap, inodes, table, free, flags = struct.unpack_from("<3IH4xH", raw)
    if geometry.descriptor_bytes == 64:  # noqa: PLR2004 - the 64bit feature adds upper halves
        high = struct.unpack_from("<3IH", raw, 32)
        bitmap, inodes, table = (
            low | top << 32 for low, top in zip((bitmap, inodes, table), high[:3], strict=True)
        )
        free |= high[3] << 16
    return Group(
        block_bitmap=bitmap,
        inode_bitmap=inodes,
        inode_table=table,
        free_blocks=free,
        uninit=geometry.checksummed and bool(flags & _GROUP_BLOCK_UNINIT),
    )


def _groups_sound(groups: list[Group], geometry: Geometry) -> bool:
    return all(
        geometry.first_block <= block and block + length <= geometry.blocks
        for group in groups
        for block, length in tables_of(group, geometry)
    )


def tables_of(group: Group, geometry: Geometry) -> tuple[tuple[int, int], ...]:
    """Return the first block and the number of blocks of the bitmaps and the inode table."""
    return (
        (group.block_bitmap, 1),
        (group.inode_bitmap, 1),
        (group.inode_table, geometry.inode_table_blocks),
    )


def _is_power(number: int, base: int) -> bool:
    while number > 1 and number % base == 0:
        number //= base
    return number == 1


def _u32(raw: bytes, offset: int) -> int:
    value: int = struct.unpack_from("<I", raw, offset)[0]
    return value
