"""The low-level class of pyfatfs, with overrides that make it safe for a user's image.

The overrides use name-mangled private members, so the exact version is required. The numbers of
faults refer to docs/decisions/0002-the-safe-fat-edit.md.
"""

from __future__ import annotations

import copy
import struct
import sys
import warnings
from array import array
from pathlib import Path
from typing import TYPE_CHECKING

import pyfatfs  # noqa: TID251 - this module is the one user of pyfatfs
from pyfatfs._exceptions import PyFATException  # noqa: TID251 - the one user of pyfatfs
from pyfatfs.PyFat import PyFat  # noqa: TID251 - the one user of pyfatfs

from imagebuilder.disk.boot_sector import parse_parameters
from imagebuilder.disk.fat.directory import MOST_SLOTS, SLOT_BYTES
from imagebuilder.errors import ImageError
from imagebuilder.model import SECTOR_BYTES

if TYPE_CHECKING:
    from imagebuilder.disk.cow import CowView

PINNED = "1.1.0"
if not Path(pyfatfs.__file__).parent.with_name(f"pyfatfs-{PINNED}.dist-info").is_dir():
    # Only if the quick look finds nothing: importlib.metadata takes as long to import as click.
    from importlib.metadata import version

    if version("pyfatfs") != PINNED:
        raise ImportError(f"pyfatfs {PINNED} is required, {version('pyfatfs')} is installed")
FIRST_CLUSTER = 2
# MAX_FAT12 and MAX_FAT16 in linux/msdos_fs.h; for FAT32 our own limit, to bound memory.
MOST_CLUSTERS = {12: 4084, 16: 65524, 32: 1 << 21}
# BAD_FAT… and EOF_FAT… in linux/msdos_fs.h.
BAD = {12: 0xFF7, 16: 0xFFF7, 32: 0x0FFFFFF7}
LAST = {12: 0xFFF, 16: 0xFFFF, 32: 0x0FFFFFFF}
# Bits of FAT entry 1 for a clean shutdown and no disk error (fatgen103; Windows).
CLEAN_BITS = {12: 0, 16: 0xC000, 32: 0x0C000000}
# Offset in the boot sector of the byte with FAT_STATE_DIRTY (linux/msdos_fs.h; Linux).
STATE_AT = {12: 0x25, 16: 0x25, 32: 0x41}
LARGEST_CLUSTER_BYTES = 32768  # fatgen103; larger ones are not portable
FSINFO_AT = 488  # FSI_Free_Count and FSI_Nxt_Free follow each other (fatgen103)
UNKNOWN = 0xFFFFFFFF
NO_FAT_HINT = "check that this is an image for a Raspberry Pi, or fetch it again"
DAMAGED_HINT = "fetch the base image again, or repair a copy of it with fsck.vfat"


def damaged(fact: str) -> ImageError:
    """Return the error for a damaged boot partition."""
    return ImageError(f"the boot partition is damaged: {fact}", DAMAGED_HINT)


class BootFat(PyFat):  # type: ignore[misc]
    """A FAT volume on a copy-on-write view: geometry, FAT and clusters; no directories.

    `fat` holds the entries 0 and 1 and those of real clusters, without FAT32's reserved bits.
    Changes stay in it until `flush_fat`. Raise ImageError if the volume is too damaged to read.
    """

    fat: array[int]

    def __init__(self, view: CowView) -> None:
        super().__init__(encoding="ibm437")
        self.set_fp(view)

    def set_fp(self, fp: CowView) -> None:
        """Parse the headers and the FAT; unlike the original, write nothing and warn of nothing."""
        self.view = fp
        if fp.size_bytes < SECTOR_BYTES or not parse_parameters(fp.read_at(0, SECTOR_BYTES)):
            raise ImageError("the boot partition has no FAT file system", NO_FAT_HINT)
        self._PyFat__fp = fp
        self.is_read_only = False
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self.parse_header()
        except (PyFATException, ValueError, struct.error) as error:
            fact = str(error).rstrip(".").lower()
            raise damaged(f"its header is not valid ({fact})") from error
        self._check_geometry()
        self._parse_fat()

    def fork(self, view: CowView) -> BootFat:
        """Return the same volume on another view, without parsing it again."""
        other = copy.copy(self)
        other.view = other._PyFat__fp = view  # noqa: SLF001 - the same class
        other.fat = self.fat[:]
        other.changed = set()
        return other

    # ---- geometry

    def _PyFat__determine_fat_type(self) -> int:  # noqa: N802 - the private name it replaces
        """Return the type by the count of clusters, as Linux; the original miscounts (fault 10)."""
        if self.bpb_header["BPB_FATSz16"] == 0:
            return 32
        return 12 if self._count_clusters() <= MOST_CLUSTERS[12] else 16

    def _count_clusters(self) -> int:
        header = self.bpb_header
        root_bytes = header["BPB_RootEntCnt"] * SLOT_BYTES
        root_sectors = -(-root_bytes // header["BPB_BytsPerSec"])
        first_data = header["BPB_RsvdSecCnt"] + header["BPB_NumFATs"] * self._fat_size
        data_sectors = self._get_total_sectors() - first_data - root_sectors
        return int(data_sectors // header["BPB_SecPerClus"])

    def _check_geometry(self) -> None:
        header = self.bpb_header
        self.sector_bytes = int(header["BPB_BytsPerSec"])
        self.bytes_per_cluster = self.sector_bytes * int(header["BPB_SecPerClus"])
        self.cluster_count = self._count_clusters()
        self.volume_bytes = int(self._get_total_sectors()) * self.sector_bytes
        self.fat_bytes = ((self.cluster_count + FIRST_CLUSTER) * self.fat_type + 7) // 8
        if self.bytes_per_cluster > LARGEST_CLUSTER_BYTES:
            raise ImageError(
                f"clusters of {self.bytes_per_cluster} bytes are not supported", NO_FAT_HINT
            )
        if not 0 < self.cluster_count <= MOST_CLUSTERS[self.fat_type]:
            raise damaged(f"FAT{self.fat_type} cannot have {self.cluster_count} clusters")
        if self.fat_bytes > self._fat_size * self.sector_bytes:
            raise damaged("its FAT is too small for its clusters")
        if self.volume_bytes > self.view.size_bytes:
            raise damaged(
                f"its FAT volume of {self.volume_bytes} bytes is larger than"
                f" the partition of {self.view.size_bytes}"
            )
        self._check_root()

    def _check_root(self) -> None:
        if self.fat_type != 32:  # noqa: PLR2004 - the name of the type
            if self.bpb_header["BPB_RootEntCnt"] == 0:
                raise damaged("its root directory has no entries")
            return
        if self.bpb_header["BPB_ExtFlags"] & 0x80:  # only one copy is in use (fatgen103)
            raise ImageError(
                "the boot partition has FAT mirroring switched off, which is not supported",
                "repair a copy of the image with fsck.vfat, or fetch it again",
            )
        if self.bpb_header["BPB_FSVer"] or self.bpb_header["BPB_RootEntCnt"]:
            raise damaged("its header has an unknown version")
        if not self.is_cluster(int(self.bpb_header["BPB_RootClus"])):
            raise damaged("its root directory is outside the volume")

    @property
    def fat_starts(self) -> tuple[int, ...]:
        """The offset in bytes of each copy of the FAT in the volume."""
        first = self.bpb_header["BPB_RsvdSecCnt"] * self.sector_bytes
        step = self._fat_size * self.sector_bytes
        return tuple(first + step * copy_ for copy_ in range(self.bpb_header["BPB_NumFATs"]))

    @property
    def root_cluster(self) -> int:
        """The first cluster of the root directory; 0 for the fixed root of FAT12 and FAT16."""
        return int(self.bpb_header["BPB_RootClus"]) if self.fat_type == 32 else 0  # noqa: PLR2004

    @property
    def is_clean(self) -> bool:
        """Whether it was cleanly unmounted: the flags of Windows and of Linux, and equal copies."""
        bits = CLEAN_BITS[self.fat_type]
        state = self.view.read_at(STATE_AT[self.fat_type], 1)[0]
        return self.copies_agree and self.fat[1] & bits == bits and not state & 0x01

    def is_cluster(self, number: int) -> bool:
        """Return whether `number` names a cluster of the data area."""
        return FIRST_CLUSTER <= number < self.cluster_count + FIRST_CLUSTER

    def start_of(self, cluster: int) -> int:
        """Return the first cluster of an entry; only FAT32 uses the high half of the field."""
        return cluster if self.fat_type == 32 else cluster & 0xFFFF  # noqa: PLR2004

    # ---- the FAT

    def _parse_fat(self) -> None:
        """Read the first copy of the FAT, entries of real clusters only (faults 5 and 16)."""
        copies = [self.view.read_at(start, self.fat_bytes) for start in self.fat_starts]
        self.copies_agree = copies[0] == copies[-1]
        self.raw_fat = copies[0]
        self.changed: set[int] = set()
        self.fat = _unpacked(self.raw_fat, self.fat_type, self.cluster_count + FIRST_CLUSTER)
        self.free_count = self._count_free()
        self.first_free_cluster = FIRST_CLUSTER

    def _count_free(self) -> int:
        """Return the number of free clusters; count only up to the last used entry, for speed."""
        used = len(self.raw_fat.rstrip(b"\0")) * 8 // self.fat_type + 1
        head = self.fat[FIRST_CLUSTER:used]
        return self.cluster_count - len(head) + head.count(0)

    def count_bad(self) -> int:
        """Return the number of clusters marked as bad."""
        mark = BAD[self.fat_type]
        if self.fat_type == 32 and b"\xf7\xff\xff" not in self.raw_fat:  # noqa: PLR2004
            return 0
        return self.fat[FIRST_CLUSTER:].count(mark)

    def get_cluster_chain(self, first_cluster: int) -> list[int]:
        """Return the clusters of a chain. Raise ImageError if it leaves the volume or loops."""
        return self.follow(first_cluster, self.cluster_count)

    def follow(self, first_cluster: int, most: int) -> list[int]:
        """Return the clusters of a chain. Raise ImageError if there are more than `most`."""
        chain, following = self._links(first_cluster, most + 1)
        if len(chain) > most:
            raise damaged(f"the chain from cluster {first_cluster} is too long")
        if not chain or following <= BAD[self.fat_type]:
            raise damaged(f"the chain from cluster {first_cluster} is broken at {following}")
        return chain

    def first_of_chain(self, first_cluster: int, count: int) -> list[int]:
        """Return the first `count` clusters of a chain, or all if there are fewer, as Linux."""
        return self._links(first_cluster, count)[0]

    def _links(self, first_cluster: int, count: int) -> tuple[list[int], int]:
        fat, end = self.fat, self.cluster_count + FIRST_CLUSTER
        chain: list[int] = []
        cluster = first_cluster
        while FIRST_CLUSTER <= cluster < end and len(chain) < count:
            chain.append(cluster)
            cluster = fat[cluster]
        return chain, cluster

    def free_cluster_chain(self, cluster: int) -> None:
        """Free a chain; do nothing for cluster 0 of an empty file (fault 3)."""
        if cluster < FIRST_CLUSTER:
            return
        chain = self.get_cluster_chain(cluster)
        for number in chain:
            self.fat[number] = 0
        self.changed.update(chain)
        self.free_count += len(chain)
        self.first_free_cluster = min(self.first_free_cluster, *chain)

    def allocate_bytes(self, size: int, erase: bool = False) -> list[int]:  # noqa: FBT001, FBT002
        """Chain the lowest free clusters for `size` bytes and return them (fault 5).

        Raise ImageError if there are too few.
        """
        del erase
        count = int(self.calc_num_clusters(size))
        if count > self.free_count:
            raise ImageError(
                f"the boot partition has fewer than {count} free clusters",
                "remove files from the overlay",
            )
        chain: list[int] = []
        for _ in range(count):
            at = self.fat.index(0, self.first_free_cluster)
            chain.append(at)
            self.first_free_cluster = at + 1
        self.link(chain)
        self.free_count -= count
        return chain

    def link(self, chain: list[int]) -> None:
        """Chain the clusters in the given order and set the end mark."""
        following = LAST[self.fat_type]
        for number in reversed(chain):
            self.fat[number] = following
            following = number
        self.changed.update(chain)

    def flush_fat(self) -> None:
        """Write the changed entries to every copy of the FAT, and FSInfo (faults 4, 22 and 23)."""
        raw = bytearray(self.raw_fat)
        touched: set[int] = set()
        for cluster in self.changed:
            touched.update(at // SECTOR_BYTES for at in _put(raw, self.fat_type, cluster, self.fat))
        for start in self.fat_starts:
            for sector in sorted(touched):
                at = sector * SECTOR_BYTES
                self._write_data_to_address(bytes(raw[at : at + SECTOR_BYTES]), start + at)
        self._write_fsinfo()

    # ---- FSInfo, the free count of FAT32

    def read_fsinfo(self) -> tuple[int, int] | None:
        """Return the stored free count and next free cluster; None if there is no FSInfo sector."""
        at = self._fsinfo_at()
        return None if at is None else struct.unpack("<II", self.view.read_at(at + FSINFO_AT, 8))

    def _fsinfo_at(self) -> int | None:
        if self.fat_type != 32:  # noqa: PLR2004 - the name of the type
            return None
        number = int(self.bpb_header["BPB_FSInfo"])
        if not 0 < number < self.bpb_header["BPB_RsvdSecCnt"]:
            return None
        sector = self.view.read_at(number * self.sector_bytes, SECTOR_BYTES)
        is_fsinfo = sector[:4] == b"RRaA" and sector[484:488] == b"rrAa"
        return number * self.sector_bytes if is_fsinfo else None

    def _write_fsinfo(self) -> None:
        stored = self.read_fsinfo()
        at = self._fsinfo_at()
        if stored is None or at is None:
            return
        taken = [number for number in self.changed if self.fat[number]]
        following = max(taken) if taken else stored[1]
        if not self.is_cluster(following):
            following = UNKNOWN
        self._write_data_to_address(struct.pack("<II", self.free_count, following), at + FSINFO_AT)

    # ---- clusters

    def read_chain(self, chain: list[int]) -> bytes:
        """Return the bytes of whole clusters; read adjacent ones at once."""
        parts = []
        for start, count in _stretches(chain):
            at = self.get_data_cluster_address(start)
            parts.append(self.view.read_at(at, count * self.bytes_per_cluster))
        return b"".join(parts)

    def write_chain(self, chain: list[int], data: bytes) -> None:
        """Overwrite whole clusters; pad the last one with zeros."""
        data = data.ljust(len(chain) * self.bytes_per_cluster, b"\0")
        done = 0
        for start, count in _stretches(chain):
            size = count * self.bytes_per_cluster
            self._write_data_to_address(
                data[done : done + size], self.get_data_cluster_address(start)
            )
            done += size

    def read_folder(self, cluster: int) -> bytes:
        """Return a directory's bytes; cluster 0 is the root of FAT12 and FAT16."""
        if cluster == 0 and self.root_cluster == 0:
            start = self.root_dir_sector * self.sector_bytes
            return self.view.read_at(start, self.bpb_header["BPB_RootEntCnt"] * SLOT_BYTES)
        most = max(1, MOST_SLOTS * SLOT_BYTES // self.bytes_per_cluster)
        return self.read_chain(self.follow(cluster, most))

    def write_root(self, content: bytes) -> None:
        """Write the fixed root directory of FAT12 and FAT16."""
        self._write_data_to_address(content, self.root_dir_sector * self.sector_bytes)

    # ---- switched off: what the original does implicitly

    def parse_root_dir(self) -> None:
        """Parse nothing: `tree` reads directories (faults 6 to 9)."""

    def _mark_dirty(self) -> None:
        """Write no header (fault 23)."""

    def _mark_clean(self) -> None:
        """Write no header (fault 23)."""

    def _write_bpb_header(self) -> None:
        """Write no header (fault 23)."""

    def close(self) -> None:
        """Flush nothing: `flush_fat` alone writes (fault 12)."""

    def __del__(self) -> None:
        """Flush nothing (fault 12)."""


def _unpacked(raw: bytes, fat_type: int, count: int) -> array[int]:
    if fat_type == 12:  # noqa: PLR2004 - the name of the type
        return array("H", (_twelve_bits(raw, number) for number in range(count)))
    entries = array("H" if fat_type == 16 else "I", raw)  # noqa: PLR2004 - the name of the type
    if sys.byteorder == "big":
        entries.byteswap()
    if fat_type == 32 and raw[3::4].translate(None, bytes(range(16))):  # noqa: PLR2004
        return array("I", (entry & 0x0FFFFFFF for entry in entries))
    return entries


def _twelve_bits(raw: bytes, number: int) -> int:
    at = number + number // 2
    pair = raw[at] | raw[at + 1] << 8
    return pair >> 4 if number % 2 else pair & 0xFFF


def _put(raw: bytearray, fat_type: int, number: int, fat: array[int]) -> tuple[int, ...]:
    """Store one entry, keep reserved bits and other entries; return the offsets written."""
    value = fat[number]
    if fat_type == 12:  # noqa: PLR2004 - the name of the type
        at = number + number // 2
        if number % 2:
            raw[at] = raw[at] & 0x0F | (value & 0x0F) << 4
            raw[at + 1] = value >> 4
        else:
            raw[at] = value & 0xFF
            raw[at + 1] = raw[at + 1] & 0xF0 | value >> 8
        return at, at + 1
    if fat_type == 16:  # noqa: PLR2004 - the name of the type
        struct.pack_into("<H", raw, number * 2, value)
        return (number * 2,)
    top = raw[number * 4 + 3] & 0xF0
    struct.pack_into("<I", raw, number * 4, value | top << 24)
    return (number * 4,)


def _stretches(chain: list[int]) -> list[tuple[int, int]]:
    """Return (first cluster, count) for each run of adjacent clusters in a chain."""
    stretches: list[tuple[int, int]] = []
    for number in chain:
        if stretches and number == sum(stretches[-1]):
            stretches[-1] = (stretches[-1][0], stretches[-1][1] + 1)
        else:
            stretches.append((number, 1))
    return stretches
