"""Read files of an ext2, ext3 or ext4 file system, without mounting it and without root.

Layout: kernel documentation, filesystems/ext4 (inodes, extent trees, directories, inline data).
Directories are read from one end to the other: the blocks of a hash tree look like empty entries
there. Everything read is limited: a file system may lie about sizes, or point in circles.
"""

from __future__ import annotations

import stat
import struct
from dataclasses import dataclass, field
from itertools import islice, repeat
from typing import TYPE_CHECKING

from imagebuilder.disk.boot_sector import parse_parameters
from imagebuilder.disk.ext4_layout import SUPER_BYTES, SUPER_OFFSET, load_groups, parse_super
from imagebuilder.disk.partitions import read_partitions
from imagebuilder.errors import ImageError
from imagebuilder.model import SECTOR_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imagebuilder.disk.ext4_layout import Geometry, Group
    from imagebuilder.disk.reader import ReadAt

# Budgets: of one file, of one folder, and of everything that is read of one file system.
MOST_FILE_BYTES = 32 << 20
MOST_FOLDER_BYTES = 512 << 10
MOST_READ_BYTES = 128 << 20
MOST_LINKS = 40  # as Linux allows (path_resolution(7))
MOST_STEPS = 400  # parts of a path, with those of its links

_ROOT_INODE = 2
_POINTERS = struct.Struct("<15I")
_ENCRYPTED, _EXTENTS, _INLINE = 0x800, 0x80000, 0x10000000  # i_flags (fs/ext4/ext4.h)
_EXTENT_MAGIC, _XATTR_MAGIC = 0xF30A, 0xEA020000
_DEEPEST = 5  # EXT4_MAX_EXTENT_DEPTH
_LONGEST_EXTENT = 0x8000  # a longer one is allocated, but was never written
_LONGEST_RECORD = (0, 0xFFFF)  # ext4_rec_len_from_disk: both mean 64 KiB
_SYSTEM_XATTR = 7  # EXT4_XATTR_INDEX_SYSTEM, whose name is `data` for inline data


@dataclass(frozen=True, slots=True)
class _Inode:
    mode: int
    size_bytes: int
    flags: int
    block: bytes  # i_block: block pointers, the root of an extent tree, or data
    rest: bytes  # what follows the fields of the inode: extended attributes

    @property
    def is_folder(self) -> bool:
        return stat.S_ISDIR(self.mode)

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(self.mode)

    @property
    def is_link(self) -> bool:
        return stat.S_ISLNK(self.mode)


@dataclass(slots=True)
class Ext4Files:
    """The files of one file system by path; links are followed and do not leave it.

    Methods raise ImageError if it is damaged, or larger than the budgets allow.
    """

    disk: ReadAt
    start_bytes: int
    geometry: Geometry
    groups: list[Group]
    _left_bytes: int = field(init=False, default=MOST_READ_BYTES)

    def read(self, path: str, most_bytes: int = MOST_FILE_BYTES) -> bytes | None:
        """Return the content of a file; None if there is no regular file of this name."""
        inode = self._find(path)
        if inode is None or not inode.is_file:
            return None
        return self._content(inode, path, most_bytes)

    def names(self, path: str) -> tuple[str, ...]:
        """Return the names in a folder, sorted; none if there is no such folder."""
        inode = self._find(path)
        if inode is None or not inode.is_folder:
            return ()
        return tuple(sorted(self._entries(inode, path).keys() - {".", ".."}))

    def _find(self, path: str) -> _Inode | None:
        """Return the inode of a path, all links followed; None if there is none."""
        folders = [self._inode(_ROOT_INODE)]
        todo = [part for part in reversed(path.split("/")) if part]
        links = steps = 0
        while todo:
            part, steps = todo.pop(), steps + 1
            if steps > MOST_STEPS:
                raise ImageError(f"{path} in the image has too many parts", _DAMAGED)
            if part in {".", ".."}:
                folders = folders[: max(1, len(folders) - (part == ".."))]
                continue
            found = self._entry(folders[-1], part, path)
            if found is None or not found.is_link:
                if found is None or (todo and not found.is_folder):
                    return None
                folders.append(found)
                continue
            links += 1
            target = self._target(found, path)
            if links > MOST_LINKS:
                return None  # ELOOP of Linux
            todo += [each for each in reversed(target.split("/")) if each]
            folders = folders[:1] if target.startswith("/") else folders
        return folders[-1]

    def _entry(self, folder: _Inode, name: str, path: str) -> _Inode | None:
        number = self._entries(folder, path).get(name) if folder.is_folder else None
        return None if number is None else self._inode(number)

    def _target(self, link: _Inode, path: str) -> str:
        size = link.size_bytes
        if size < len(link.block) and not link.flags & (_EXTENTS | _INLINE):
            return link.block[:size].decode("utf-8", "surrogateescape")
        return self._content(link, path, 4096).decode("utf-8", "surrogateescape")

    # ---- inodes

    def _inode(self, number: int) -> _Inode:
        group, index = divmod(number - 1, self.geometry.inodes_per_group)
        if not 0 <= group < len(self.groups):
            raise ImageError(f"the image has no inode {number}", _DAMAGED)
        size = self.geometry.inode_bytes
        table = self.groups[group].inode_table * self.geometry.block_bytes
        raw = self._bytes_at(table + index * size, size)
        mode, low, flags = struct.unpack_from("<H2xI24xI", raw)
        high = struct.unpack_from("<I", raw, 108)[0] if stat.S_ISREG(mode) else 0
        extra = struct.unpack_from("<H", raw, 128)[0] if size > 128 else 0  # noqa: PLR2004 - ext2
        return _Inode(mode, low | high << 32, flags, raw[40:100], raw[128 + extra :])

    def _content(self, inode: _Inode, path: str, most_bytes: int) -> bytes:
        if inode.size_bytes > most_bytes:
            raise ImageError(f"{path} in the image is larger than {most_bytes} bytes", _DAMAGED)
        if inode.flags & _ENCRYPTED:
            raise ImageError(f"{path} in the image is encrypted", "use an image that is not")
        if inode.flags & _INLINE:
            return (inode.block + _inline_rest(inode.rest))[: inode.size_bytes]
        count = -(-inode.size_bytes // self.geometry.block_bytes)
        blocks = islice(self._blocks(inode), count)
        data = b"".join(map(self._block, blocks))
        return data.ljust(inode.size_bytes, b"\0")[: inode.size_bytes]

    # ---- blocks

    def _blocks(self, inode: _Inode) -> Iterator[int]:
        """Yield the block numbers of an inode in order; 0 where nothing is stored."""
        if inode.flags & _EXTENTS:
            yield from self._extents(inode.block)
            return
        pointers = _POINTERS.unpack(inode.block)
        yield from pointers[:12]
        for level, pointer in enumerate(pointers[12:], start=1):
            yield from self._indirect(pointer, level)

    def _indirect(self, block: int, level: int) -> Iterator[int]:
        if level == 0:
            yield block
            return
        per_block = self.geometry.block_bytes // 4
        if block == 0:
            yield from repeat(0, per_block**level)
            return
        for (pointer,) in struct.iter_unpack("<I", self._block(block)):
            yield from self._indirect(pointer, level - 1)

    def _extents(self, root: bytes) -> Iterator[int]:
        at = 0
        for first, stored, block in self._leaves(root, None):
            written = stored <= _LONGEST_EXTENT
            length = stored if written else stored - _LONGEST_EXTENT
            if first < at or length == 0:
                raise ImageError("an extent tree of the image is damaged", _DAMAGED)
            yield from repeat(0, first - at)
            yield from range(block, block + length) if written else repeat(0, length)
            at = first + length

    def _leaves(self, node: bytes, depth: int | None) -> Iterator[tuple[int, int, int]]:
        """Yield first logical block, length and first block of the extents below a node."""
        magic, count, _, found = struct.unpack_from("<4H", node)
        expected = found if depth is None else depth
        if magic != _EXTENT_MAGIC or found != expected or found > _DEEPEST:
            raise ImageError("an extent tree of the image is damaged", _DAMAGED)
        if 12 + 12 * count > len(node):
            raise ImageError("an extent tree of the image is damaged", _DAMAGED)
        for at in range(12, 12 + 12 * count, 12):
            if found == 0:
                first, length, high, low = struct.unpack_from("<IHHI", node, at)
                yield first, length, low | high << 32
            else:
                low, high = struct.unpack_from("<4xIH", node, at)
                yield from self._leaves(self._block(low | high << 32), found - 1)

    def _block(self, number: int) -> bytes:
        size = self.geometry.block_bytes
        if number == 0:
            self._spend(size)
            return bytes(size)
        if number >= self.geometry.blocks:
            raise ImageError(f"the image has no block {number}", _DAMAGED)
        return self._bytes_at(number * size, size)

    def _bytes_at(self, offset_bytes: int, size_bytes: int) -> bytes:
        self._spend(size_bytes)
        raw = self.disk.read_at(self.start_bytes + offset_bytes, size_bytes)
        if len(raw) < size_bytes:
            raise ImageError("the file system of the image is cut off", _DAMAGED)
        return raw

    def _spend(self, size_bytes: int) -> None:
        self._left_bytes -= size_bytes
        if self._left_bytes < 0:
            raise ImageError("reading the files of the image takes too much", _DAMAGED)

    # ---- folders

    def _entries(self, folder: _Inode, path: str) -> dict[str, int]:
        """Return the inode numbers by name."""
        if folder.size_bytes > MOST_FOLDER_BYTES:
            raise ImageError(f"a folder of {path} in the image is too large", _DAMAGED)
        data = self._content(folder, path, MOST_FOLDER_BYTES)
        size = self.geometry.block_bytes
        areas = [data[at : at + size] for at in range(0, len(data), size)]
        if folder.flags & _INLINE:
            areas = [data[4:60], data[60:]]  # the first word is the parent (inline.c)
        return {name: number for area in areas for name, number in _records(area)}


_DAMAGED = "get the image again: it is damaged or malicious"


def _records(area: bytes) -> Iterator[tuple[str, int]]:
    """Yield name and inode of the used entries of a block of a folder."""
    at = 0
    while at + 8 <= len(area):
        number, length, name_bytes = struct.unpack_from("<IHB", area, at)
        length = 1 << 16 if length in _LONGEST_RECORD and len(area) == 1 << 16 else length
        if length < 8 or at + length > len(area) or 8 + name_bytes > length:  # noqa: PLR2004
            raise ImageError("a folder of the image is damaged", _DAMAGED)
        if number and name_bytes:
            name = area[at + 8 : at + 8 + name_bytes]
            yield name.decode("utf-8", "surrogateescape"), number
        at += length


def _inline_rest(rest: bytes) -> bytes:
    """Return the attribute system.data, which holds what does not fit the inode's 60 bytes."""
    if len(rest) < 4 or struct.unpack_from("<I", rest)[0] != _XATTR_MAGIC:  # noqa: PLR2004
        return b""
    body, at = rest[4:], 0
    while at + 16 <= len(body) and body[at : at + 4] != bytes(4):
        name_bytes, index, offset, size = struct.unpack_from("<BBH4xI", body, at)
        if index == _SYSTEM_XATTR and body[at + 16 : at + 16 + name_bytes] == b"data":
            return body[offset : offset + size]
        at += 16 + -(-name_bytes // 4) * 4
    return b""


def open_ext4(disk: ReadAt, start_bytes: int, size_bytes: int) -> Ext4Files | None:
    """Return the files of a file system; None if it is none, or not cleanly unmounted."""
    geometry = parse_super(disk.read_at(start_bytes + SUPER_OFFSET, SUPER_BYTES), size_bytes)
    groups = load_groups(disk, start_bytes, geometry) if geometry else None
    return Ext4Files(disk, start_bytes, geometry, groups) if geometry and groups else None


def open_root(disk: ReadAt) -> Ext4Files | None:
    """Return the root file system of an image: the first one that has a folder /etc."""
    for partition in read_partitions(disk):
        if parse_parameters(disk.read_at(partition.start_bytes, SECTOR_BYTES)):
            continue
        found = open_ext4(disk, partition.start_bytes, partition.size_bytes)
        if found and "etc" in found.names("/"):
            return found
    return None
