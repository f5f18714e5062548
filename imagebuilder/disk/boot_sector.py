"""Read the first sector of a disk or FAT volume: the signature and the FAT parameters."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from imagebuilder.model import SECTOR_BYTES

# At offset 510 in MBR, EBR and FAT boot sector, whatever the sector size (fatgen103).
SIGNATURE = b"\x55\xaa"
_SIGNATURE_AT = SECTOR_BYTES - len(SIGNATURE)
_SECTOR_SIZES = frozenset({512, 1024, 2048, 4096})

# fatgen103, BPB_Media; the same in the kernel (include/linux/msdos_fs.h, fat_valid_media).
_MEDIA = frozenset({0xF0, *range(0xF8, 0x100)})
_PARAMETERS = struct.Struct("<HBHBHHBH8xII")
_PARAMETERS_AT = 11


@dataclass(frozen=True, slots=True)
class BiosParameterBlock:
    """The layout parameters of a FAT volume (Microsoft FAT specification 1.03, BPB)."""

    sector_bytes: int
    cluster_sectors: int
    reserved_sectors: int
    fats: int
    root_entries: int
    total_sectors: int
    fat_sectors: int
    is_fat32: bool


def has_signature(sector: bytes) -> bool:
    """Return whether the first 512 bytes end with the boot signature."""
    return sector[_SIGNATURE_AT:SECTOR_BYTES] == SIGNATURE


def parse_parameters(sector: bytes) -> BiosParameterBlock | None:
    """Return the parameters of a FAT volume, or None if Linux would not accept it.

    The checks are those of fat_read_bpb in fs/fat/inode.c.
    """
    if not has_signature(sector):
        return None
    bytes_per_sector, per_cluster, reserved, fats, root, total16, media, fat16, total32, fat32 = (
        _PARAMETERS.unpack_from(sector, _PARAMETERS_AT)
    )
    is_fat = (
        bytes_per_sector in _SECTOR_SIZES
        and per_cluster.bit_count() == 1
        and reserved > 0
        and fats in {1, 2}
        and media in _MEDIA
        and (fat16 or fat32)
    )
    if not is_fat:
        return None
    return BiosParameterBlock(
        sector_bytes=bytes_per_sector,
        cluster_sectors=per_cluster,
        reserved_sectors=reserved,
        fats=fats,
        root_entries=root,
        total_sectors=total16 or total32,
        fat_sectors=fat16 or fat32,
        is_fat32=not fat16,
    )
