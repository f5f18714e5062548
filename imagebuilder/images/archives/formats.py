"""Detect the format of an image file from its first bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO, Literal

from imagebuilder.disk.boot_sector import has_signature
from imagebuilder.errors import ImageError, unreadable
from imagebuilder.model import SECTOR_BYTES

if TYPE_CHECKING:
    from pathlib import Path

Kind = Literal["raw", "zip", "gz", "xz", "zst", "bz2", "tar"]
HEAD_BYTES = SECTOR_BYTES
_MAGIC: tuple[tuple[bytes, Kind], ...] = (
    (b"PK\x03\x04", "zip"),
    (b"PK\x05\x06", "zip"),
    (b"PK\x07\x08PK\x03\x04", "zip"),  # split archive in one part (APPNOTE.TXT 8.5.4)
    (b"\x1f\x8b", "gz"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"\x28\xb5\x2f\xfd", "zst"),
    (b"BZh", "bz2"),
    *((bytes([number, 0x2A, 0x4D, 0x18]), "zst") for number in range(0x50, 0x60)),
)
_FOREIGN = (
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!\x1a\x07", "a rar archive"),
    (b"MSCF\0\0\0\0", "a cab archive"),
    (b"!<arch>\n", "a deb or ar archive"),
    (b"\x04\x22\x4d\x18", "packed by lz4"),
    (b"\x02\x21\x4c\x18", "packed by lz4"),
    (b"LZIP", "packed by lzip"),
    (b"\x89LZO\0\r\n\x1a\n", "packed by lzop"),
    (b"\x5d\0\0", "packed by lzma"),
    (b"\x1f\x9d", "packed by compress"),
    (b"\x1f\xa0", "packed by compress"),
    (b"QFI\xfb", "a qcow2 disk"),
    (b"KDMV", "a vmdk disk"),
    (b"vhdxfile", "a vhdx disk"),
    (b"conectix", "a vhd disk"),
    (b"<<< ", "a vdi disk"),
    (b"\x3a\xff\x26\xed", "a sparse image of Android"),
    (b"hsqs", "a squashfs"),
)
_TAR_MARK = (257, b"ustar")  # POSIX.1-2017, pax, "ustar Interchange Format"


def kind_of(path: Path, name: str = "") -> Kind:
    """Return the format of a file by its first bytes, never by its name.

    Raise ImageError if it cannot be read, is a web page or in an unsupported format.
    """
    name = name or path.name
    with open_form(path) as file:
        return kind_of_head(file.read(HEAD_BYTES), name)


def kind_of_head(head: bytes, name: str) -> Kind:
    """Return the format of a file with these first bytes. Raise ImageError as `kind_of` does."""
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    if looks_like_web_page(head):
        raise ImageError(f"{name} is a web page, not an image", "check where it was downloaded")
    if has_signature(head):
        return "raw"
    if head.startswith(_TAR_MARK[1], _TAR_MARK[0]):
        return "tar"
    for magic, form in _FOREIGN:
        if head.startswith(magic):
            raise ImageError(
                f"{name} is {form}, which is not supported",
                "unpack it first, or use a raw, zip, gz, xz, zst or bz2 file",
            )
    return "raw"


def is_compressed(path: Path) -> bool:
    """Return whether `path` is a compressed image."""
    return kind_of(path) != "raw"


def looks_like_web_page(head: bytes) -> bool:
    """Return whether the first bytes of a file are HTML."""
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:14].lower()
    return text.startswith((b"<!doctype html", b"<html", b"<head"))


def open_form(path: Path) -> BinaryIO:
    """Open a file without buffer. Raise ImageError if it cannot be read."""
    try:
        return path.open("rb", buffering=0)
    except OSError as error:
        raise unreadable(path, error) from error
