"""Disks: partition tables, FAT and ext4 with some bytes of a sound one exchanged.

An input is the number of a sound disk, a byte of what to repair, and records of 7 bytes and more:
offset, length, how often, data. A record without data cuts the disk there.
"""

from __future__ import annotations

import struct
import zlib
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from imagebuilder.build.inspect import inspect_disk
from imagebuilder.disk import ext4
from imagebuilder.disk.extent import Partition, Patch
from imagebuilder.disk.fat import usage
from imagebuilder.disk.fat.edit import BootBase
from imagebuilder.disk.partitions import boot_partition, cut_off, read_partitions
from imagebuilder.disk.patched import overlay
from imagebuilder.disk.write_set import plan_write_set
from imagebuilder.model import BootEdit
from tests.fuzz.bytewise import number
from tests.fuzz.target import Target, allowed
from tests.lib.fat_edits import EDITS, STOCK
from tests.lib.fat_images import EPOCH, MIB, make_image
from tests.lib.fat_oracle import RawVolume, short
from tests.lib.tools import need, run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from random import Random

    from imagebuilder.disk.extent import Extent

_RECORD = struct.Struct("<IBH")
# Places of numbers that decide, with the size of each; what else is near them is changed as well.
Spots = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Sound:
    """A disk that other programs made, and the places in it that are worth a change."""

    data: bytes
    spots: Spots


@dataclass
class Changed:
    """A disk with some bytes exchanged; a ReadAt that counts what is read."""

    sound: bytes
    size_bytes: int
    pieces: list[tuple[int, bytes]] = field(default_factory=list)

    def read_at(self, offset_bytes: int, size_bytes: int) -> bytes:
        end = min(offset_bytes + size_bytes, self.size_bytes)
        chunk = bytearray(self.sound[offset_bytes : max(end, offset_bytes)])
        for at, data in self.pieces:
            overlay(chunk, offset_bytes, data, at)
        return bytes(chunk)

    def put(self, offset_bytes: int, data: bytes) -> None:
        self.pieces.append((offset_bytes, data))

    def word(self, offset_bytes: int, size: int = 4) -> int:
        return int.from_bytes(self.read_at(offset_bytes, size), "little")


def encoded(which: int, repairs: int, records: list[tuple[int, int, bytes]]) -> bytes:
    parts = (_RECORD.pack(at % 2**32, len(data), times) + data for at, times, data in records)
    return bytes([which % 256, repairs % 256]) + b"".join(parts)


def decoded(data: bytes) -> tuple[int, int, list[tuple[int, int, bytes]]]:
    which, repairs = data[:1] or b"\0", data[1:2] or b"\xff"
    at, records = 2, []
    while at + _RECORD.size <= len(data):
        offset, length, times = _RECORD.unpack_from(data, at)
        at += _RECORD.size
        records.append((offset, times, data[at : at + length]))
        at += length
    return which[0], repairs[0], records


def changed_disk(data: bytes, disks: list[Sound]) -> tuple[Changed, int]:
    """Return the disk of an input, and what to repair."""
    which, repairs, records = decoded(data)
    sound = disks[which % len(disks)].data
    disk = Changed(sound, len(sound))
    for offset, times, piece in records:
        if piece:
            disk.put(offset, piece * max(1, min(times, 4096 // len(piece))))
        else:
            disk.size_bytes = min(disk.size_bytes, offset)
    return disk, repairs


def changer(disks: Callable[[], list[Sound]]) -> Callable[[bytes, Random], bytes]:
    """Return what adds a record, changes one or takes one away."""

    def change(data: bytes, rng: Random) -> bytes:
        which, repairs, records = decoded(data)
        spots = disks()[which % len(disks())].spots
        kind = rng.random()
        if kind < 0.6 or not records:
            records.append(_record(rng, spots))
        elif kind < 0.75:
            del records[rng.randrange(len(records))]
        elif kind < 0.9:
            place = rng.randrange(len(records))
            at, times, piece = records[place]
            value = number(rng, 8 * max(1, len(piece)))
            records[place] = (at, times, value.to_bytes(max(1, len(piece)), "little"))
        elif kind < 0.95:
            repairs = rng.choice((0xFF, 0xFF, rng.randrange(256)))
        else:
            which = rng.randrange(len(disks()))
        return encoded(which, repairs, records[-40:])

    return change


def _record(rng: Random, spots: Spots) -> tuple[int, int, bytes]:
    at, size = rng.choice(spots)
    if rng.random() < 0.02:
        return at + rng.randrange(4096), 1, b""
    if rng.random() < 0.2:
        at += rng.randrange(-8, 64)
        size = rng.choice((1, 2, 4))
    value = number(rng, 8 * size).to_bytes(size, "little")
    return max(0, at), rng.choice((1, 1, 1, 1, 8, 1000)), value


def starts(disks: Callable[[], list[Sound]]) -> Callable[[], list[bytes]]:
    return lambda: [encoded(which, 0xFF, []) for which in range(len(disks()))]


# ---- partition tables

_TABLES = (
    "label: dos\nlabel-id: 0\nstart=64, size=64, type=c\nstart=128, size=200, type=83\n",
    (
        "label: dos\nlabel-id: 0\nstart=64, size=64, type=c\nstart=130, size=500, type=5\n"
        "start=140, size=50, type=83\nstart=200, size=50, type=83\nstart=300, size=50, type=83\n"
    ),
    (
        "label: gpt\nlabel-id: 01234567-0123-4567-89AB-0123456789AB\nfirst-lba: 34\n"
        "start=64, size=64, type=EBD0A0A2-B9E5-4433-87C0-68B6B72699C7\n"
        "start=128, size=200, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4\n"
    ),
)
_DISK_SECTORS = 700


@cache
def tables() -> list[Sound]:
    need("sfdisk")
    made = []
    with TemporaryDirectory() as folder:
        path = Path(folder) / "disk"
        for text in _TABLES:
            path.write_bytes(bytes(512 * _DISK_SECTORS))
            run("sfdisk", "-q", "--no-reread", "--no-tell-kernel", path, input=text)
            made.append(Sound(path.read_bytes(), tuple(_table_spots(path.read_bytes()))))
    return made


def _table_spots(data: bytes) -> Iterator[tuple[int, int]]:
    for sector in range(_DISK_SECTORS):
        at = 512 * sector
        if data[at + 510 : at + 512] == b"\x55\xaa":
            slots = [at + 446 + 16 * slot for slot in range(4)]
            yield from ((slot + place, 4) for slot in slots for place in (8, 12))
            yield from ((slot + place, 1) for slot in slots for place in (0, 4))
            yield at + 510, 2
        if data[at : at + 8] == b"EFI PART":
            yield from ((at + place, 8) for place in (24, 32, 40, 48, 72))
            yield from ((at + place, 4) for place in (8, 12, 16, 80, 84, 88))
            table = 512 * int.from_bytes(data[at + 72 : at + 80], "little")
            entries = (table + 128 * entry for entry in (0, 1, 2, 127))
            yield from ((entry + place, 8) for entry in entries for place in (0, 32, 40))


def repair_table(disk: Changed, repairs: int) -> None:
    """Let the checksums be those of the headers and entries, as far as they can be."""
    for bit, lba in ((1, 1), (2, disk.size_bytes // 512 - 1), (4, disk.word(512 + 32, 8))):
        header = bytearray(disk.read_at(512 * lba, 512))
        if not repairs & bit or len(header) < 512:
            continue
        size, count, entry_bytes = struct.unpack_from("<I", header, 12)[0], 0, 0
        count, entry_bytes = struct.unpack_from("<II", header, 80)
        if repairs & 8 and 0 < count * entry_bytes <= 1 << 21:
            table = disk.read_at(512 * disk.word(512 * lba + 72, 8), count * entry_bytes)
            struct.pack_into("<I", header, 88, zlib.crc32(table))
        if repairs & 16:
            struct.pack_into("<Q", header, 24, lba)
        header[16:20] = bytes(4)
        struct.pack_into("<I", header, 16, zlib.crc32(header[: min(size, 512)]))
        disk.put(512 * lba, bytes(header))


def read_table(data: bytes, folder: Path) -> None:
    del folder
    disk, repairs = changed_disk(data, tables())
    repair_table(disk, repairs)
    partitions = read_partitions(disk)
    cut_off(partitions, disk.size_bytes)
    judge_extents(plan_write_set(disk, Patch()), 0, disk.size_bytes)
    with allowed():
        boot_partition(disk, partitions)


def judge_extents(found: tuple[Extent, ...], start: int, end: int) -> None:
    """Extents are within their partition, in order, and do not overlap."""
    assert all(start <= each.start_bytes <= each.end_bytes <= end for each in found)
    assert all(one.end_bytes <= two.start_bytes for one, two in pairwise(found))


# ---- FAT

_NESTED = {f"a/b/c{n}/a rather long name {n}.txt": b"n" * 700 * n for n in range(6)}
_CARD = {
    "rpi-image/node.env": b"NODE_GENERATION='firstrun'\nNODE_HOSTNAME='pi-03'\n",
    "rpi-image/status.json": b'{"hostname": "pi-03"}\n',
}
_BOOT_FIELDS = (
    (11, 2), (13, 1), (14, 2), (16, 1), (17, 2), (19, 2), (21, 1), (22, 2), (32, 4), (36, 4),
    (37, 1), (40, 2), (42, 2), (44, 4), (48, 2), (50, 2), (65, 1), (510, 2), (512, 4), (1000, 4),
)  # fmt: skip
_SLOT_FIELDS = ((0, 1), (11, 1), (13, 1), (20, 2), (26, 2), (28, 4))


@cache
def volumes() -> list[Sound]:
    made = []
    with TemporaryDirectory() as folder:
        for kind, size_mib in ((12, 1), (16, 4), (32, 34)):
            image = make_image(
                Path(folder) / "disk", kind=kind, size_mib=size_mib, cluster_bytes=512,
                files={**STOCK, **_NESTED, **_CARD}, label="FUZZ", root_mib=0,
            )  # fmt: skip
            volume = RawVolume(image)
            places = tuple((image.start_bytes + at, size) for at, size in _volume_spots(volume))
            made.append(Sound(image.path.read_bytes(), places))
            volume.bytes.close()
            image.path.unlink()
    return made


def _volume_spots(volume: RawVolume) -> Iterator[tuple[int, int]]:
    yield from _BOOT_FIELDS
    low = struct.unpack_from("<H", volume.records()[short("a/b")].short, 26)[0]
    root = volume.data_at if volume.bits == 32 else volume.root_at
    for start, slots in ((root, 24), (volume.data_at + (low - 2) * volume.cluster, 64)):
        yield from ((start + 32 * n + at, size) for n in range(slots) for at, size in _SLOT_FIELDS)
    yield from ((volume.fat_at + at, volume.bits // 8) for at in range(0, 400, 4))


def read_volume(data: bytes, folder: Path) -> None:
    """Read and edit all there is."""
    del folder
    disk, repairs = changed_disk(data, volumes())
    # What reads the table of partitions is another target.
    partition = Partition(1, MIB, len(disk.sound) - MIB, "0x0c")
    if repairs & 1:
        _mirror(disk)
    found = usage.used_extents(disk, partition.start_bytes, partition.size_bytes)
    judge_extents(found or (), partition.start_bytes, partition.end_bytes)
    with allowed():
        inspect_disk(disk)
    base = BootBase(disk, partition)
    assert base.volume.free_bytes >= 0
    with allowed():
        for name in base.volume.names()[:50]:
            with allowed():
                base.volume.read(name)
    base.apply([*EDITS, BootEdit("a/b/c1/new.txt", b"new" * 900)], EPOCH)


def _mirror(disk: Changed) -> None:
    """Let the second table of clusters be the first, where the boot sector has two."""
    sector, reserved = disk.word(MIB + 11, 2), disk.word(MIB + 14, 2)
    fat = (disk.word(MIB + 22, 2) or disk.word(MIB + 36)) * sector
    if 0 < fat < 1 << 20:
        start = MIB + reserved * sector
        disk.put(start + fat, disk.read_at(start, min(fat, 4096)))


# ---- ext4

_FILE_SYSTEMS = (
    ["-t", "ext2", "-b", "1024"],
    ["-t", "ext4", "-b", "4096", "-O", "64bit,metadata_csum,flex_bg"],
    ["-t", "ext4", "-b", "1024", "-g", "1024", "-O", "^64bit,^metadata_csum,uninit_bg,^flex_bg"],
    ["-t", "ext4", "-b", "1024", "-g", "1024", "-O", "meta_bg,^resize_inode,64bit"],
    ["-t", "ext4", "-b", "1024", "-g", "1024", "-O", "sparse_super2,^resize_inode"],
)
_SUPER_FIELDS = (
    (4, 4), (12, 4), (20, 4), (24, 4), (28, 4), (32, 4), (40, 4), (56, 2), (58, 2), (76, 4),
    (88, 2), (92, 4), (96, 4), (100, 4), (206, 2), (254, 2), (260, 4), (336, 4), (344, 4), (588, 4),
    (592, 4),
)  # fmt: skip
_UNIVERSAL = "01234567-89ab-cdef-0123-456789abcdef"


@cache
def file_systems() -> list[Sound]:
    need("mkfs.ext4")
    made = []
    with TemporaryDirectory() as folder:
        path = Path(folder) / "disk"
        for options in _FILE_SYSTEMS:
            path.write_bytes(bytes(8 * MIB))
            fixed = ["-U", _UNIVERSAL, "-E", f"hash_seed={_UNIVERSAL}"]
            run("mkfs.ext4", "-q", "-F", "-N", "256", *options, *fixed, path)
            made.append(Sound(path.read_bytes(), tuple(_system_spots(path.read_bytes()))))
    return made


def _system_spots(data: bytes) -> Iterator[tuple[int, int]]:
    yield from ((1024 + at, size) for at, size in _SUPER_FIELDS)
    table = max(2048, 1024 << data[1024 + 24])
    for at in range(table, table + 512, 32):
        yield from ((at + place, 4) for place in (0, 4, 8))
        yield from ((at + place, 2) for place in (12, 18))


def read_system(data: bytes, folder: Path) -> None:
    del folder
    disk, repairs = changed_disk(data, file_systems())
    if repairs & 1:
        with suppress(ZeroDivisionError):
            _count_free(disk)
    found = ext4.used_extents(disk, 0, disk.size_bytes)
    judge_extents(found or (), 0, disk.size_bytes)


def _count_free(disk: Changed) -> None:
    """Let the free blocks of each group and in all be those of the bitmaps."""
    start = 1024
    blocks, first, log = disk.word(start + 4), disk.word(start + 20), disk.word(start + 24)
    per_group, wide = disk.word(start + 32), disk.word(start + 96) & 0x80
    if log > 6 or disk.word(start + 96) & 0x10:
        return
    size, step = 1024 << log, disk.word(start + 254, 2) if wide else 32
    total = 0
    for group in range(min(64, -(-(blocks - first) // per_group))):
        at = (first + 1) * size + group * step
        free, here = disk.word(at + 12, 2), min(per_group, blocks - first - group * per_group)
        if not disk.word(at + 18, 2) & 2 and here < 1 << 16:
            bits = disk.word(disk.word(at) * size, here // 8) if here % 8 == 0 else 0
            free = here - bits.bit_count()
            disk.put(at + 12, free.to_bytes(2, "little"))
        total += free
    disk.put(start + 12, total.to_bytes(4, "little"))


TARGETS = (
    Target("partitions", starts(tables), changer(tables), read_table),
    Target("fat", starts(volumes), changer(volumes), read_volume),
    Target("ext4", starts(file_systems), changer(file_systems), read_system),
)
