"""One FAT directory: parse its entries, and edit single entries in place.

Layout: Microsoft FAT specification 1.03 (fatgen103), "FAT Directory Structure".
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

from imagebuilder.disk.fat.names import (
    LAST_LONG,
    LONG_ATTRIBUTES,
    DosTime,
    alias_of,
    fold,
    long_name,
    long_slots,
    short_form,
    shown_short,
)
from imagebuilder.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Callable

SLOT_BYTES = 32
MOST_SLOTS = 65536  # FAT_MAX_DIR_ENTRIES in linux/msdos_fs.h
MOST_LONG_SLOTS = 20  # 255 characters, 13 in a slot
LABEL, FOLDER, ARCHIVE = 0x08, 0x10, 0x20
FREE, END = 0xE5, 0x00
# Name, attributes, case bits, creation in 10 ms, time and date, access date, high half of the
# cluster, time and date of writing, low half of the cluster, size.
_RECORD = struct.Struct("<11sBBBHHHHHHHI")


class DirectoryEntry(NamedTuple):
    """The entry of one file or folder; `at` is the offset in bytes of its short slot."""

    at: int
    slots: int
    name: str
    stored: bytes
    attributes: int
    cluster: int
    size_bytes: int

    @property
    def is_folder(self) -> bool:
        """Whether this is a folder."""
        return bool(self.attributes & FOLDER)


class Listing(NamedTuple):
    """A directory's entries, with `.` and `..` kept apart and without the volume label.

    `end` is the number of the first slot after the last used one.
    """

    entries: tuple[DirectoryEntry, ...]
    dots: tuple[DirectoryEntry, ...]
    end: int


def parse_listing(content: bytes) -> Listing:
    """Parse a directory's bytes; ignore long-name slots without an entry, as drivers do."""
    entries: list[DirectoryEntry] = []
    dots: list[DirectoryEntry] = []
    pending: list[bytes] = []
    end = len(content) // SLOT_BYTES
    for at in range(0, end * SLOT_BYTES, SLOT_BYTES):
        first, attributes = content[at], content[at + 11]
        if first == END:
            end = at // SLOT_BYTES
            break
        if first == FREE:
            pending = []
        elif attributes & 0x3F == LONG_ATTRIBUTES:  # the upper two bits are reserved
            pending = [] if first & LAST_LONG or len(pending) == MOST_LONG_SLOTS else pending
            pending.append(content[at : at + SLOT_BYTES])
        else:
            entry = _parse_entry(content, at, pending)
            pending = []
            if not attributes & LABEL:
                (dots if entry.stored[0] == ord(".") else entries).append(entry)
    return Listing(tuple(entries), tuple(dots), end)


def _parse_entry(content: bytes, at: int, pending: list[bytes]) -> DirectoryEntry:
    stored, attributes, bits, _, _, _, _, high, _, _, low, size = _RECORD.unpack_from(content, at)
    long = long_name(pending, stored) if pending else None
    slots = 1 + (len(pending) if long else 0)
    name = long or shown_short(stored, bits)
    return DirectoryEntry(at, slots, name, stored, attributes, high << 16 | low, size)


def new_folder(own: int, parent: int, moment: DosTime, size_bytes: int) -> bytes:
    """Return the content of an empty folder; `own` and `parent` are first clusters.

    In a folder of the root, `..` has cluster 0, even on FAT32 (fatgen103).
    """
    dots = (
        _record(name.ljust(11), FOLDER, 0, moment, cluster)
        for name, cluster in ((b".", own), (b"..", parent))
    )
    return b"".join(dots).ljust(size_bytes, b"\0")


def _record(stored: bytes, attributes: int, bits: int, moment: DosTime, cluster: int) -> bytes:
    date, time, rest = moment
    high, low = cluster >> 16, cluster & 0xFFFF
    return _RECORD.pack(stored, attributes, bits, rest, time, date, date, high, time, date, low, 0)


class Directory:
    """A working copy of a directory; entries do not move, so their `at` stays valid.

    `is_fixed` is set for the root of FAT12 and FAT16, which cannot grow; others grow by clusters.
    """

    def __init__(
        self,
        content: bytes,
        cluster_bytes: int,
        *,
        is_fixed: bool = False,
        parse: Callable[[bytes], Listing] = parse_listing,
    ) -> None:
        listing = parse(content)
        self.content = bytearray(content)
        self._cluster_bytes = cluster_bytes
        self._is_fixed = is_fixed
        self._end = listing.end
        self._entries = {entry.at: entry for entry in listing.entries}
        self._names: dict[str, int] = {}
        self._aliases: dict[str, int] = {}
        for entry in listing.entries:
            self._index(entry)

    def find(self, name: str) -> DirectoryEntry | None:
        """Return the entry with a long or short name, in any case; None if there is none."""
        wanted = fold(name)
        at = self._names.get(wanted, self._aliases.get(wanted))
        return None if at is None else self._entries[at]

    def add(self, name: str, attributes: int, moment: DosTime) -> DirectoryEntry:
        """Add an entry without clusters. Raise ImageError if the directory is full."""
        stored, bits, slots = self._named(name)
        data = slots + _record(stored, attributes, bits, moment, 0)
        count = len(data) // SLOT_BYTES
        start = self._room(name, count) * SLOT_BYTES
        self.content[start : start + len(data)] = data
        at = start + len(data) - SLOT_BYTES
        entry = DirectoryEntry(at, count, name, stored, attributes, 0, 0)
        self._entries[at] = entry
        self._index(entry)
        return entry

    def remove(self, entry: DirectoryEntry) -> None:
        """Mark the entry's slots as free."""
        first = entry.at - (entry.slots - 1) * SLOT_BYTES
        for at in range(first, entry.at + 1, SLOT_BYTES):
            self.content[at] = FREE
        del self._entries[entry.at]
        for table in (self._names, self._aliases):
            for name in [name for name, at in table.items() if at == entry.at]:
                del table[name]

    def stamp(self, entry: DirectoryEntry, moment: DosTime) -> None:
        """Set the write time and the archive bit; keep name, creation time and other attributes."""
        date, time, _ = moment
        self.content[entry.at + 11] |= ARCHIVE
        struct.pack_into("<H", self.content, entry.at + 18, date)
        struct.pack_into("<HH", self.content, entry.at + 22, time, date)

    def point(self, entry: DirectoryEntry, cluster: int, size_bytes: int) -> None:
        """Set the first cluster and the size in bytes; 0 and 0 for an empty file."""
        struct.pack_into("<H", self.content, entry.at + 20, cluster >> 16)
        struct.pack_into("<HI", self.content, entry.at + 26, cluster & 0xFFFF, size_bytes)

    def _index(self, entry: DirectoryEntry) -> None:
        self._names.setdefault(fold(entry.name), entry.at)
        self._aliases.setdefault(fold(shown_short(entry.stored, 0)), entry.at)

    def _named(self, name: str) -> tuple[bytes, int, bytes]:
        if (short := short_form(name)) is not None:
            return (*short, b"")
        stored = alias_of(name, {entry.stored for entry in self._entries.values()})
        return stored, 0, long_slots(name, stored)

    def _room(self, name: str, count: int) -> int:
        """Return the first of `count` free slots in a row; grow the directory if needed."""
        heads = self.content[: self._end * SLOT_BYTES : SLOT_BYTES]
        if (slot := heads.find(bytes([FREE]) * count)) >= 0:
            return slot
        start = len(heads.rstrip(bytes([FREE])))
        self._grow(name, start, count)
        return start

    def _grow(self, name: str, start: int, count: int) -> None:
        end = start + count
        capacity = len(self.content) // SLOT_BYTES
        if end > (capacity if self._is_fixed else MOST_SLOTS):
            raise ImageError(
                f"not enough space for {name!r} in its folder on the boot partition:"
                f" {count} directory entries needed, {max(0, capacity - start)} free",
                "remove files from the overlay, or put them into a subfolder",
            )
        while len(self.content) < end * SLOT_BYTES:
            self.content.extend(bytes(self._cluster_bytes))
        # Old slots after the end mark are invalid, but would come back once the mark is moved.
        self.content[end * SLOT_BYTES :] = bytes(len(self.content) - end * SLOT_BYTES)
        self._end = end
