"""Names and times of FAT directory entries: what is valid and how it is stored."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from imagebuilder.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Container

# Case bits of Windows NT in a reserved byte (CASE_LOWER_BASE and _EXT in linux/msdos_fs.h).
BASE_LOWER, EXTENSION_LOWER = 0x08, 0x10
CODEPAGE = "cp437"
LONG_ATTRIBUTES = 0x0F
LAST_LONG = 0x40
UNITS_PER_SLOT = 13
MOST_UNITS = 255  # letters of a long name (fatgen103)
MOST_TAILS = 1_000_000  # short names that differ in their `~1`
ESCAPED_E5 = 0x05  # stands for a first byte of 0xE5, which marks a free slot (fatgen103)
_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f"*/:<>?\\|]')
_SHORT = re.compile(r"[A-Z0-9$%'\-_@~`!(){}^#&]+")
_NOT_SHORT = re.compile(r"[^A-Z0-9$%'\-_@~`!(){}^#&]")
_DEVICES = re.compile(r"(con|prn|aux|nul|com[1-9]|lpt[1-9])(\..*)?", re.IGNORECASE)
_EARLIEST = int(datetime(1980, 1, 1, tzinfo=UTC).timestamp())
_LATEST = int(datetime(2107, 12, 31, 23, 59, 58, tzinfo=UTC).timestamp())


class DosTime(NamedTuple):
    """A time as FAT stores it: date, time in steps of 2 s, and the rest in 10 ms (fatgen103)."""

    date: int
    time: int
    hundredths: int


def dos_time(epoch: int) -> DosTime:
    """Return `epoch` (UTC seconds) as a FAT time, limited to the years 1980 to 2107."""
    when = datetime.fromtimestamp(min(max(epoch, _EARLIEST), _LATEST), UTC)
    date = (when.year - 1980) << 9 | when.month << 5 | when.day
    time = when.hour << 11 | when.minute << 5 | when.second // 2
    return DosTime(date, time, when.second % 2 * 100)


def split_path(path: str) -> tuple[str, ...]:
    """Return the names in a '/'-separated path. Raise ImageError if FAT cannot store one."""
    names = tuple(path.split("/"))
    for name in names:
        if (fault := fault_of(name)) is not None:
            raise ImageError(
                f"{path!r} is not a valid path on the boot partition: {fault}",
                "rename the file in the overlay",
            )
    return names


def fault_of(name: str) -> str | None:
    """Return why `name` is not valid on FAT under Linux, macOS and Windows; None if it is."""
    if name in {"", ".", ".."}:
        return f"{name!r} is not a file name"
    if match := _FORBIDDEN.search(name):
        return f"it contains {match.group()!r}"
    if name.endswith((".", " ")):
        return "a name ends with a dot or a space"
    if _DEVICES.fullmatch(name):
        return f"{name!r} is a device name on Windows"
    return _fault_of_length(name)


def _fault_of_length(name: str) -> str | None:
    try:
        units = len(name.encode("utf-16-le")) // 2
    except UnicodeEncodeError:
        return "a name contains a lone surrogate"
    return f"a name is longer than {MOST_UNITS} characters" if units > MOST_UNITS else None


def fold(name: str) -> str:
    """Return a key that is equal for names that differ in case only.

    Only letters that map back are folded: dotless i and long s are letters of their own.
    """
    return name.upper() if name.isascii() else "".join(map(_fold_character, name))


def _fold_character(character: str) -> str:
    upper = character.upper()
    return upper if len(upper) == 1 and upper.lower() == character else character


def short_form(name: str) -> tuple[bytes, int] | None:
    """Return the 11-byte name and the case bits if they are enough for `name`, else None."""
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
    """Return an unused 11-byte short name for a long one, with `~n` if needed.

    Raise ImageError if all are taken.
    """
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
    """Return an 11-byte short name as text, in the case given by the case bits."""
    first = b"\xe5" if stored[0] == ESCAPED_E5 else stored[:1]
    base = (first + stored[1:8]).decode(CODEPAGE).rstrip(" ")
    extension = stored[8:11].decode(CODEPAGE).rstrip(" ")
    base = base.lower() if bits & BASE_LOWER else base
    extension = extension.lower() if bits & EXTENSION_LOWER else extension
    return f"{base}.{extension}" if extension else base


def checksum_of(stored: bytes) -> int:
    """Return the checksum of a short name that its long-name slots hold (fatgen103)."""
    total = 0
    for byte in stored:
        total = ((total >> 1) + ((total & 1) << 7) + byte) & 0xFF
    return total


def long_slots(name: str, stored: bytes) -> bytes:
    """Return the long-name slots to put before the short one, last part first (fatgen103)."""
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
    """Return the name in `slots`, which are in disk order; None if they are not consistent."""
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
