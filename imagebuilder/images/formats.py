"""Detect the format of an image file from its first bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO, Literal

from imagebuilder.errors import ImageError

if TYPE_CHECKING:
    from pathlib import Path

Kind = Literal["raw", "zip", "gz", "xz", "zst", "bz2"]
_MAGIC: tuple[tuple[bytes, Kind], ...] = (
    (b"PK\x03\x04", "zip"),
    (b"PK\x05\x06", "zip"),
    (b"\x1f\x8b", "gz"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"\x28\xb5\x2f\xfd", "zst"),
    (b"BZh", "bz2"),
    (b"\x50\x2a\x4d\x18", "zst"),
)
_FOREIGN = ((b"7z\xbc\xaf\x27\x1c", "7z"), (b"Rar!\x1a\x07", "rar"), (b"\x04\x22\x4d\x18", "lz4"))


def kind_of(path: Path, name: str = "") -> Kind:
    """Return the format of a file by its first bytes, never by its name.

    Raise ImageError if it cannot be read, is a web page or in an unsupported format.
    """
    name = name or path.name
    with open_form(path) as file:
        head = file.read(512)
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    if looks_like_web_page(head):
        raise ImageError(f"{name} is a web page, not an image", "check where it was downloaded")
    for magic, form in _FOREIGN:
        if head.startswith(magic):
            raise ImageError(
                f"{name} is a {form} archive, which is not supported",
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
        raise ImageError(
            f"cannot read {path}: {error.strerror}", "check the path and its permissions"
        ) from error
