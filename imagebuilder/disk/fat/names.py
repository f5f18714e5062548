"""Names and times of FAT directory entries: what may be written and how it is stored."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from imagebuilder.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Container

BASE_LOWER, EXTENSION_LOWER = 0x08, 0x10
CODEPAGE = "cp437"
LONG_ATTRIBUTES = 0x0F
LAST_LONG = 0x40
UNITS_PER_SLOT = 13
MOST_UNITS = 255
MOST_TAILS = 1_000_000
ESCAPED_E5 = 0x05
_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f"*/:<>?\\|]')
_SHORT = re.compile(r"[A-Z0-9$%'\-_@~`!(){}^#&]+")
_NOT_SHORT = re.compile(r"[^A-Z0-9$%'\-_@~`!(){}^#&]")
_DEVICES = re.compile(r"(con|prn|aux|nul|com[1-9]|lpt[1-9])(\..*)?", re.IGNORECASE)
_EARLIEST = int(datetime(1980, 1, 1, tzinfo=UTC).timestamp())
_LATEST = int(datetime(2107, 12, 31, 23, 59, 58, tzinfo=UTC).timestamp())


class DosTime(NamedTuple):
    """A moment as FAT stores it: date, time in 2 s, and the rest in 10 ms."""

    date: int
    time: int
    hundredths: int


def dos_time(epoch: int) -> DosTime:
    """Return the UTC moment, moved into 1980-2107 where it lies outside."""
    when = datetime.fromtimestamp(min(max(epoch, _EARLIEST), _LATEST), UTC)
    date = (when.year - 1980) << 9 | when.month << 5 | when.day
    time = when.hour << 11 | when.minute << 5 | when.second // 2
    return DosTime(date, time, when.second % 2 * 100)


def split_path(path: str) -> tuple[str, ...]:
    """Return a '/'-separated path's names, checked; raises ImageError for what FAT cannot hold."""
    names = tuple(path.split("/"))
    for name in names:
        if (fault := fault_of(name)) is not None:
            raise ImageError(
                f"{path!r} cannot be a path on the boot partition: {fault}",
                "rename the file in the overlay",
            )
    return names


def fault_of(name: str) -> str | None:
    """Say why `name` cannot stand on a FAT volume that Linux, macOS and Windows read."""
    if name in {"", ".", ".."}:
        return f"{name!r} is no file name"
    if match := _FORBIDDEN.search(name):
        return f"it holds {match.group()!r}"
    if name.endswith((".", " ")):
        return "a name ends in a dot or a blank"
    if _DEVICES.fullmatch(name):
        return f"{name!r} is a device on Windows"
    return _fault_of_length(name)


def _fault_of_length(name: str) -> str | None:
    try:
        units = len(name.encode("utf-16-le")) // 2
    except UnicodeEncodeError:
        return "a name holds half a character"
    return f"a name is longer than {MOST_UNITS} characters" if units > MOST_UNITS else None


def fold(name: str) -> str:
    """Return what is equal for names that differ in case only, character by character.

    Letters that merely look for a case elsewhere (dotless i, long s) keep to themselves.
    """
    return name.upper() if name.isascii() else "".join(map(_fold_character, name))


def _fold_character(character: str) -> str:
    upper = character.upper()
    return upper if len(upper) == 1 and upper.lower() == character else character


def short_form(name: str) -> tuple[bytes, int] | None:
    """Return 11 bytes and the NT case bits where these alone carry the name, else None."""
    base, _, extension = name.partition(".")
    parts = (base, extension) if extension else (base,)
    if len(base) > 8 or len(extension) > 3 or not all(_is_one_case(part) for part in parts):  # noqa: PLR2004 - 8.3
        return None
    bits = (BASE_LOWER if base != base.upper() else 0) | (
        EXTENSION_LOWER if extension != extension.upper() else 0
    )
    return _padded(base.upper(), extension.upper()), bits


def _is_one_case(part: str) -> bool:
    is_plain = part.isascii() and bool(_SHORT.fullmatch(part.upper()))
    return is_plain and part in {part.upper(), part.lower()}


def _padded(base: str, extension: str) -> bytes:
    return f"{base:8}{extension:3}".encode("ascii")


def alias_of(name: str, taken: Container[bytes]) -> bytes:
    """Return the 11-byte short name that goes with a long one, with `~n` where it must."""
    wanted = fold(name).lstrip(".").replace(" ", "")
    base, dot, extension = wanted.rpartition(".")
    if not dot:
        base, extension = wanted, ""
    base, extension = base.replace(".", ""), extension[:3]
    clean = _NOT_SHORT.sub("_", base) or "_"
    tail = _NOT_SHORT.sub("_", extension)
    plain = _padded(clean[:8], tail)
    if f"{clean[:8]}.{tail}".rstrip(".") == fold(name) and plain not in taken:
        return plain
    for number in range(1, MOST_TAILS):
        suffix = f"~{number}"
        candidate = _padded(clean[: 8 - len(suffix)] + suffix, tail)
        if candidate not in taken:
            return candidate
    raise ImageError(f"no short name is left for {name!r}", "use fewer files in one folder")


def shown_short(stored: bytes, bits: int) -> str:
    """Return an 11-byte short name as users see it, by the NT case bits."""
    first = b"\xe5" if stored[0] == ESCAPED_E5 else stored[:1]
    base = (first + stored[1:8]).decode(CODEPAGE).rstrip(" ")
    extension = stored[8:11].decode(CODEPAGE).rstrip(" ")
    base = base.lower() if bits & BASE_LOWER else base
    extension = extension.lower() if bits & EXTENSION_LOWER else extension
    return f"{base}.{extension}" if extension else base


def checksum_of(stored: bytes) -> int:
    """Return the checksum that ties long-name slots to their short name (fatgen103)."""
    total = 0
    for byte in stored:
        total = ((total >> 1) + ((total & 1) << 7) + byte) & 0xFF
    return total


def long_slots(name: str, stored: bytes) -> bytes:
    """Return the long-name slots that stand before the short entry, last part first."""
    units = name.encode("utf-16-le")
    if len(units) % (UNITS_PER_SLOT * 2):
        units += b"\0\0"
    count = -(-len(units) // (UNITS_PER_SLOT * 2))
    units = units.ljust(count * UNITS_PER_SLOT * 2, b"\xff")
    checksum = checksum_of(stored)
    slots = []
    for index in range(count, 0, -1):
        part = units[(index - 1) * 26 : index * 26]
        order = index | (LAST_LONG if index == count else 0)
        head = bytes([order]) + part[:10] + bytes([LONG_ATTRIBUTES, 0, checksum])
        slots.append(head + part[10:22] + bytes(2) + part[22:])
    return b"".join(slots)


def long_name(slots: list[bytes], stored: bytes) -> str | None:
    """Return the name that `slots`, in the order of the disk, spell; None where they do not fit."""
    count = len(slots)
    if not count or slots[0][0] != LAST_LONG | count:
        return None
    checksum = checksum_of(stored)
    for index, slot in enumerate(slots):
        if slot[0] & ~LAST_LONG != count - index or slot[13] != checksum:
            return None
    units = b"".join(slot[1:11] + slot[14:26] + slot[28:32] for slot in reversed(slots))
    text = units.decode("utf-16-le", "replace").partition("\0")[0]
    return None if "/" in text else text or None
