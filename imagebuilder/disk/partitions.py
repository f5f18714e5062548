"""Read partition tables: MBR with logical partitions, and GPT.

Layout: UEFI 2.10, section 5; extended partitions as in Linux, block/partitions/msdos.c.
"""

from __future__ import annotations

import struct
import uuid
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from imagebuilder.disk.boot_sector import has_signature, parse_parameters
from imagebuilder.disk.extent import Partition
from imagebuilder.errors import ImageError
from imagebuilder.model import SECTOR_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from imagebuilder.disk.reader import ReadAt

# Extended partition with CHS or LBA addresses, and that of Linux (block/partitions/msdos.c).
EXTENDED_KINDS = frozenset({"0x05", "0x0f", "0x85"})
PROTECTIVE_TYPE = 0xEE
FIRST_LOGICAL = 5  # Linux counts logical partitions from 5 whatever the primary ones
MOST_LOGICAL = 128  # logical partitions
MOST_GPT_TABLE_BYTES = 1 << 20  # entries of a GPT; usual ones have 16 KiB
GPT_MAGIC = b"EFI PART"
GPT_HEADER = struct.Struct("<8sIIIIQQQQ16sQIII")
GPT_ENTRY = struct.Struct("<16s16sQQ")
FETCH_AGAIN = "check that this is a raw disk image, or fetch it again"


@dataclass(frozen=True, slots=True)
class MbrEntry:
    """One 16-byte slot of an MBR or EBR, as stored.

    In an EBR the start of a logical partition counts from that EBR, and the start of the next
    EBR from the extended partition (block/partitions/msdos.c, parse_extended).
    """

    status: int
    type_byte: int
    start_sectors: int
    size_sectors: int

    @property
    def kind(self) -> str:
        """The type byte as `Partition.kind` writes it."""
        return f"0x{self.type_byte:02x}"


@dataclass(frozen=True, slots=True)
class GptHeader:
    """The used fields of a GPT header with a correct checksum (UEFI 2.10, 5.3.2)."""

    backup_lba: int
    entries_lba: int
    entry_count: int
    entry_bytes: int
    entries_crc: int


def read_partitions(disk: ReadAt) -> tuple[Partition, ...]:
    """Return the partitions by number; an extended partition as well as its logical ones.

    Sectors have 512 bytes. A partition may reach past the end of a truncated disk.
    Raise ImageError if there is no valid table.
    """
    sector = disk.read_at(0, SECTOR_BYTES)
    if not has_signature(sector):
        raise ImageError("the image has no partition table", FETCH_AGAIN)
    entries = parse_mbr(sector)
    if any(entry.type_byte == PROTECTIVE_TYPE for entry in entries):
        return _read_gpt(disk)
    if any(entry.status not in {0x00, 0x80} for entry in entries):
        raise ImageError("the first sector of the image is not a partition table", FETCH_AGAIN)
    return tuple(_primaries(entries)) + tuple(_logicals(disk, entries))


def cut_off(partitions: Sequence[Partition], size_bytes: int) -> tuple[str, ...]:
    """Return a text for each partition that reaches more than one sector past the disk's end.

    One sector is allowed: some images are not a whole number of sectors.
    """
    missing = {p.number: p.end_bytes - size_bytes for p in partitions if not _holds_others(p)}
    return tuple(
        f"is truncated: partition {number} extends {count} bytes past the end"
        for number, count in missing.items()
        if count > SECTOR_BYTES
    )


def _holds_others(partition: Partition) -> bool:
    return partition.kind in EXTENDED_KINDS


def boot_partition(disk: ReadAt, partitions: Sequence[Partition]) -> Partition:
    """Return the first partition that holds a FAT volume. Raise ImageError if none does."""
    for partition in partitions:
        sector = disk.read_at(partition.start_bytes, SECTOR_BYTES)
        if not _holds_others(partition) and parse_parameters(sector):
            return partition
    raise ImageError(
        "no partition of the image has a FAT file system",
        "check that this is an image for a Raspberry Pi, which boots from FAT",
    )


def parse_mbr(sector: bytes) -> tuple[MbrEntry, ...]:
    """Return the four slots of an MBR or EBR, empty ones included."""
    # status, CHS start, type, CHS end, LBA start, sectors (UEFI 2.10, 5.2.1)
    slots = struct.iter_unpack("<B3xB3xII", sector[446:510])
    return tuple(MbrEntry(*slot) for slot in slots)


def _is_used(entry: MbrEntry) -> bool:
    return entry.type_byte != 0 and entry.size_sectors != 0


def _is_extended(entry: MbrEntry) -> bool:
    return _is_used(entry) and entry.kind in EXTENDED_KINDS


def _placed(number: int, entry: MbrEntry, origin_sectors: int = 0) -> Partition:
    start = (origin_sectors + entry.start_sectors) * SECTOR_BYTES
    return Partition(number, start, entry.size_sectors * SECTOR_BYTES, entry.kind)


def _primaries(entries: Sequence[MbrEntry]) -> Iterator[Partition]:
    for number, entry in enumerate(entries, start=1):
        if _is_used(entry):
            yield _placed(number, entry)


def _logicals(disk: ReadAt, entries: Sequence[MbrEntry]) -> Iterator[Partition]:
    extended = next((entry for entry in entries if _is_extended(entry)), None)
    if extended is None:
        return
    number, table_sectors = FIRST_LOGICAL, extended.start_sectors
    seen: set[int] = set()
    while table_sectors not in seen and len(seen) < MOST_LOGICAL:
        seen.add(table_sectors)
        slots = _read_ebr(disk, table_sectors)
        for entry in slots:
            if _is_used(entry) and not _is_extended(entry):
                yield _placed(number, entry, table_sectors)
                number += 1
        link = next((entry for entry in slots if _is_extended(entry)), None)
        if link is None:
            return
        table_sectors = extended.start_sectors + link.start_sectors
    raise ImageError("the chain of logical partitions is endless", FETCH_AGAIN)


def _read_ebr(disk: ReadAt, table_sectors: int) -> tuple[MbrEntry, ...]:
    sector = disk.read_at(table_sectors * SECTOR_BYTES, SECTOR_BYTES)
    if not has_signature(sector):
        # An extended partition that was never used has no table; Linux and sfdisk ignore it.
        return ()
    return parse_mbr(sector)[:2]  # the other two slots of an EBR are unused


def _read_gpt(disk: ReadAt) -> tuple[Partition, ...]:
    last_lba = disk.size_bytes // SECTOR_BYTES - 1
    primary = _load_gpt_header(disk, 1)
    places = [1, *([primary.backup_lba] if primary else []), last_lba]
    for lba in places:
        header = _load_gpt_header(disk, lba)
        table = _load_gpt_table(disk, header) if header else None
        if header and table is not None:
            return tuple(parse_gpt_table(table, header.entry_bytes))
    raise ImageError("both GPT partition tables of the image are damaged", FETCH_AGAIN)


def _load_gpt_header(disk: ReadAt, lba: int) -> GptHeader | None:
    if lba < 1 or (lba + 1) * SECTOR_BYTES > disk.size_bytes:
        return None
    return parse_gpt_header(disk.read_at(lba * SECTOR_BYTES, SECTOR_BYTES), lba)


def parse_gpt_header(sector: bytes, lba: int) -> GptHeader | None:
    """Return the header in the sector at `lba`, or None if a checksum or a field is wrong."""
    if len(sector) < SECTOR_BYTES or not sector.startswith(GPT_MAGIC):
        return None
    _, _, size, crc, _, own, backup, _, _, _, entries_lba, count, entry_bytes, entries_crc = (
        GPT_HEADER.unpack_from(sector)
    )
    if not GPT_HEADER.size <= size <= SECTOR_BYTES or own != lba:
        return None
    # The checksum is computed with its own field zeroed.
    if zlib.crc32(sector[:16] + bytes(4) + sector[20:size]) != crc:
        return None
    table_bytes = count * entry_bytes
    if entry_bytes < GPT_ENTRY.size or not 0 < table_bytes <= MOST_GPT_TABLE_BYTES:
        return None
    return GptHeader(backup, entries_lba, count, entry_bytes, entries_crc)


def _load_gpt_table(disk: ReadAt, header: GptHeader) -> bytes | None:
    size = header.entry_count * header.entry_bytes
    start = header.entries_lba * SECTOR_BYTES
    if start + size > disk.size_bytes:
        return None
    table = disk.read_at(start, size)
    return table if zlib.crc32(table) == header.entries_crc else None


def parse_gpt_table(table: bytes, entry_bytes: int) -> Iterator[Partition]:
    """Yield the used entries; numbers count slots from 1, the type GUID is in upper case."""
    for index in range(len(table) // entry_bytes):
        kind, _, first, last = GPT_ENTRY.unpack_from(table, index * entry_bytes)
        if any(kind) and first <= last:
            size = (last - first + 1) * SECTOR_BYTES
            # The first three fields of a GUID are little-endian (UEFI 2.10, appendix A).
            guid = str(uuid.UUID(bytes_le=kind)).upper()
            yield Partition(index + 1, first * SECTOR_BYTES, size, guid)
