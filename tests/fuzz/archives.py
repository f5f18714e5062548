"""Archives and compressed images: one field after the other set, the checksums right again.

Where something is unpacked, another reader unpacks the same, or refuses it: what only one of two
readers takes does no harm.
"""

from __future__ import annotations

import io
import lzma
import re
import struct
import tarfile
import zipfile
import zlib
from functools import cache
from random import Random
from typing import TYPE_CHECKING, TypeVar

import zstandard

from imagebuilder.images.archives.unpack import open_stream
from tests.fuzz.bytewise import number, put
from tests.fuzz.target import Target

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

T = TypeVar("T")
IMAGE = b"image" * 50 + bytes(2000) + Random(5).randbytes(100) + b"end"
MOST_BYTES = 8 << 20


# What the readers of others raise for what they refuse.
REFUSED = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, zstandard.ZstdError, tarfile.TarError),
    *(EOFError, ValueError, LookupError, OSError, RuntimeError, struct.error),
)


def accepted(other: Callable[[bytes], T], data: bytes, found: T) -> list[T]:
    """Return what another reader finds, or what was `found` where it refuses the data."""
    try:
        return [other(data)]
    except REFUSED:
        return [found]


def reader(other: Callable[[bytes], bytes]) -> Callable[[bytes, Path], None]:
    """Return what unpacks an input, and compares with `other` where something came out."""

    def read(data: bytes, folder: Path) -> None:
        path = folder / "fuzzed"
        path.write_bytes(data)
        with open_stream(path) as stream:
            found = stream.read(MOST_BYTES + 1)
        # A sound file may hold any number of zeros; here are none that do.
        if found not in (IMAGE, data) and len(found) <= MOST_BYTES:
            assert found in accepted(other, data, found), "another reader found something else"

    return read


# ---- zip (APPNOTE.TXT 4.3)

_LOCAL = [(4, 2), (6, 2), (8, 2), (14, 4), (18, 4), (22, 4), (26, 2), (28, 2)]
_CENTRAL = [(4, 2), (6, 2), (8, 2), (10, 2), (16, 4), (20, 4), (24, 4), (28, 2), (30, 2), (32, 2)]
_CENTRAL += [(34, 2), (36, 2), (38, 4), (42, 4)]
_END = [(4, 2), (6, 2), (8, 2), (10, 2), (12, 4), (16, 4), (20, 2)]
_FIELDS = [
    *((b"PK\3\4", *field) for field in _LOCAL),
    *((b"PK\1\2", *field) for field in _CENTRAL),
    *((b"PK\5\6", *field) for field in _END),
    *((b"PK\6\6", at, 8) for at in (4, 24, 32, 40, 48)),
    *((b"PK\6\7", at, size) for at, size in ((4, 4), (8, 8), (16, 4))),
]


@cache
def zips() -> list[bytes]:
    made = []
    for wide in (False, True):
        for kind in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            out = io.BytesIO()
            with zipfile.ZipFile(out, "w", kind) as archive:
                archive.writestr("__MACOSX/._pi.img", b"\0\5\x16\7")
                with archive.open("pi.img", "w", force_zip64=wide) as entry:
                    entry.write(IMAGE)
            made.append(out.getvalue())
    return [*made, *(with_zip64(each, (len(IMAGE), 100, 0)) for each in made)]


def with_zip64(data: bytes, numbers: tuple[int, int, int]) -> bytes:
    """Move the sizes and the place of the last entry into a zip64 field."""
    at, end = data.rfind(b"PK\1\2"), data.rfind(b"PK\5\6")
    if not 0 <= at < end - 46:
        return data
    entry, tail = bytearray(data[at:end]), bytearray(data[end:])
    extra = struct.pack("<HHQQQ", 1, 24, *numbers)
    name_bytes = int.from_bytes(entry[28:30], "little")
    entry[46 + name_bytes :] = extra
    put(entry, 30, 2, len(extra))
    for field in (20, 24, 42):
        put(entry, field, 4, 0xFFFFFFFF)
    put(tail, 12, 4, len(data[:at] + entry) - data.find(b"PK\1\2"))
    return data[:at] + entry + tail


def change_zip(data: bytes, rng: Random) -> bytes:
    if rng.random() < 0.15:
        return with_zip64(data, (number(rng), number(rng), number(rng)))
    mark, offset, size = rng.choice(_FIELDS)
    found = bytearray(data)
    at = found.rfind(mark) if rng.random() < 0.7 else found.find(mark)
    if at >= 0:
        put(found, at + offset, size, number(rng, 8 * size))
    return bytes(found)


def repair_zip(data: bytes, rng: Random) -> bytes:
    """Let the directory be where the end says, and the checksum that of the content."""
    found = bytearray(data)
    first, last, end = (
        found.find(b"PK\1\2"), found.rfind(b"PK\1\2"), found.rfind(b"PK\5\6")
    )  # fmt: skip
    if min(first, end) < 0 or end + 22 > len(found) or last + 46 > len(found):
        return data
    if rng.random() < 0.8:
        put(found, end + 12, 4, end - first)
        put(found, end + 16, 4, first)
    start = found.rfind(b"PK\3\4") if rng.random() < 0.8 else 0
    if start + 30 > len(found):
        return data
    body = start + 30 + sum(struct.unpack_from("<HH", found, start + 26))
    packed = bytes(found[body:first])
    if rng.random() < 0.8:
        put(found, last + 42, 4, start)
        raw = packed
        if found[last + 10] == zipfile.ZIP_DEFLATED:
            try:
                raw = zlib.decompressobj(-15).decompress(packed, MOST_BYTES)
            except zlib.error:
                return bytes(found)
        for at, value in ((16, zlib.crc32(raw)), (20, len(packed)), (24, len(raw))):
            put(found, last + at, 4, value)
    return bytes(found)


def by_zipfile(data: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        images = [each for each in archive.infolist() if not each.filename.startswith("__")]
        entry = (images or archive.infolist())[-1]
        # The name in the local header is not read by us, as by Info-ZIP, but by zipfile.
        entry.orig_filename = _local_name(data, entry)
        return archive.read(entry)


def _local_name(data: bytes, entry: zipfile.ZipInfo) -> str:
    start = entry.header_offset + 30
    name = data[start : start + int.from_bytes(data[start - 4 : start - 2], "little")]
    utf8 = data[start - 23] & 0x08  # bit 11 of the flags
    return name.decode("utf-8" if utf8 else "cp437", "replace")


# ---- xz (file format 1.2.1)


def crc(data: bytes | bytearray) -> bytes:
    return struct.pack("<I", zlib.crc32(data))


def varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


LZMA2 = lzma.compress(
    IMAGE, lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 16}]
)
_XZ_FACTS: dict[str, Callable[[Random], int | bytes]] = {
    "flags": lambda rng: rng.choice((b"\0\0", b"\0\1", b"\0\4", b"\0\12", rng.randbytes(2))),
    "block_flags": lambda rng: rng.randrange(256),
    "filter": lambda rng: rng.choice((0x21, 3, 4, 9, 0x4000000000000001)),
    "dictionary": lambda rng: rng.randrange(256),
    "properties": lambda rng: rng.randrange(65),
    "packed": number,
    "raw": number,
    "unpadded": number,
    "stated": number,
    "count": number,
    "backward": lambda rng: number(rng, 32),
    "padding": lambda rng: rng.choice((bytes(4), bytes(8), bytes(5), b"YZ")),
    "copies": lambda rng: rng.randint(1, 3),
}


def xz_of(facts: dict[str, int | bytes]) -> bytes:
    """Write an xz file by hand, each of its checksums right."""

    def fact(name: str, default: int) -> int:
        return int(facts.get(name, default))

    flags = bytes(facts.get("flags", b"\0\1"))
    sizes = b"".join(varint(fact(name, 0)) for name in ("packed", "raw") if name in facts)
    known = (0x40 if "packed" in facts else 0) | (0x80 if "raw" in facts else 0)
    header = bytes([fact("block_flags", known)]) + sizes
    header += varint(fact("filter", 0x21)) + varint(fact("properties", 1))
    header += bytes([fact("dictionary", 8)])
    header += bytes(-(len(header) + 1) % 4)
    header = bytes([(len(header) + 1) // 4]) + header
    block = header + crc(header) + LZMA2
    unpadded = len(block) + 4
    block += bytes(-len(block) % 4) + crc(IMAGE)
    index = b"\0" + varint(fact("count", 1))
    index += varint(fact("unpadded", unpadded)) + varint(fact("stated", len(IMAGE)))
    index += bytes(-len(index) % 4)
    index += crc(index)
    tail = struct.pack("<I2s", fact("backward", len(index) // 4 - 1), flags)
    whole = b"\xfd7zXZ\0" + flags + crc(flags) + block + index + crc(tail) + tail + b"YZ"
    return whole * fact("copies", 1) + bytes(facts.get("padding", b""))


@cache
def xzs() -> list[bytes]:
    made = [lzma.compress(IMAGE, check=check) for check in (0, 1, 4, 10)]
    return [xz_of({}), xz_of({"copies": 2, "padding": bytes(4)}), *made]


def change_xz(data: bytes, rng: Random) -> bytes:
    if rng.random() < 0.5:
        names = rng.sample(sorted(_XZ_FACTS), rng.choice((1, 1, 2, 3)))
        return xz_of({name: _XZ_FACTS[name](rng) for name in names})
    found = bytearray(data)
    # The header of a block, the index and the tail.
    at = rng.choice((rng.randrange(6, 40), len(data) - rng.randrange(1, 60)))
    put(found, at, rng.choice((1, 1, 1, 2, 4)), number(rng, 32))
    return bytes(found)


def repair_xz(data: bytes, rng: Random) -> bytes:
    """Compute the checksums of the headers, the index and the tail again."""
    found = bytearray(data)
    if len(found) < 32:
        return data
    found[8:12] = crc(found[6:8])
    end = 12 + 4 * found[12]
    if end + 4 <= len(found):
        found[end : end + 4] = crc(found[12:end])
    tail = found.rfind(b"YZ") + 2 - 12
    if tail < 12:
        return data
    if rng.random() < 0.8:
        found[tail + 8 : tail + 10] = found[6:8]
    index = tail - 4 * (int.from_bytes(found[tail + 4 : tail + 8], "little") + 1)
    if 12 <= index < tail - 4:
        found[tail - 4 : tail] = crc(found[index : tail - 4])
    found[tail : tail + 4] = crc(found[tail + 4 : tail + 10])
    return bytes(found)


def by_lzma(data: bytes) -> bytes:
    while len(data) % 4 == 0 and data.endswith(bytes(4)):  # padding of streams
        data = data[:-4]
    return lzma.decompress(data)


# ---- zstd (RFC 8878)

_ZST_FACTS: dict[str, Callable[[Random], int]] = {
    "size_flag": lambda rng: rng.randrange(4),
    "window": lambda rng: rng.randrange(256),
    "single": lambda rng: rng.randrange(2),
    "dictionary": lambda rng: rng.randrange(4),
    "id": lambda rng: number(rng, 32),
    "spare": lambda rng: rng.randrange(4),
    "stated": number,
    "last": lambda rng: rng.randrange(2),
    "size": lambda rng: number(rng, 21),
    "kind": lambda rng: rng.randrange(4),
    "nibble": lambda rng: rng.randrange(16),
    "skipped": lambda rng: number(rng, 32),
    "before": lambda rng: rng.randrange(4),
    "after": lambda rng: rng.randrange(4),
    "copies": lambda rng: rng.randint(1, 3),
}


def zst_of(facts: dict[str, int]) -> bytes:
    """Write a zstd frame of raw and repeated bytes by hand."""
    size_flag, window = facts.get("size_flag", 2), facts.get("window", 0x40)
    single, dictionary = facts.get("single", 0), facts.get("dictionary", 0)
    head = bytes([size_flag << 6 | single << 5 | facts.get("spare", 0) << 3 | dictionary])
    head += b"" if single else bytes([window])
    head += bytes(facts.get("id", 7) >> 8 * n & 255 for n in range((0, 1, 2, 4)[dictionary]))
    width = (1 if single else 0, 2, 4, 8)[size_flag]
    stated = facts.get("stated", len(IMAGE)) - (256 if width == 2 else 0)
    head += (stated % (1 << 8 * width)).to_bytes(width, "little") if width else b""
    body = b""
    pieces = [IMAGE[at : at + 1000] for at in range(0, len(IMAGE), 1000)]
    for place, piece in enumerate(pieces):
        last = facts.get("last", place + 1 == len(pieces))
        size = facts.get("size", len(piece)) if place == 1 else len(piece)
        kind = facts.get("kind", 0) if place == 1 else 0
        body += (last | kind << 1 | size % (1 << 21) << 3).to_bytes(3, "little") + piece
    skip = struct.pack("<II", 0x184D2A50 + facts.get("nibble", 0), facts.get("skipped", 3)) + b"abc"
    frame = b"\x28\xb5\x2f\xfd" + head + body
    before, after = facts.get("before", 0), facts.get("after", 0)
    return skip * before + frame * facts.get("copies", 1) + skip * after


@cache
def zsts() -> list[bytes]:
    packed = [zstandard.ZstdCompressor(level, write_checksum=True) for level in (1, 19)]
    return [
        zst_of({}),
        zst_of({"before": 1, "after": 2, "nibble": 9}),
        zst_of({"single": 1, "size_flag": 3}),
        *(each.compress(IMAGE) for each in packed),
        zlib_gz(zst_of({})),
    ]


def change_zst(data: bytes, rng: Random) -> bytes:
    if rng.random() < 0.5:
        names = rng.sample(sorted(_ZST_FACTS), rng.choice((1, 1, 2, 3)))
        return zst_of({name: _ZST_FACTS[name](rng) for name in names})
    if rng.random() < 0.1:
        return zlib_gz(data)  # another decoder of ours reads it there
    found = bytearray(data)
    put(found, rng.randrange(40), rng.choice((1, 1, 2, 4)), number(rng, 32))
    return bytes(found)


def zlib_gz(data: bytes) -> bytes:
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    return packer.compress(data) + packer.flush()


def by_zstandard(data: bytes) -> bytes:
    while data.startswith(b"\x1f\x8b"):
        data = zlib.decompress(data, 31)
    if not data.startswith(b"\x28\xb5\x2f\xfd") and not re.match(rb"[\x50-\x5f]\x2a\x4d\x18", data):
        return data
    unpacking = zstandard.ZstdDecompressor(max_window_size=1 << 31).stream_reader(
        io.BytesIO(data), read_across_frames=True
    )
    return bytes(unpacking.read())


# ---- tar (POSIX.1-2017, pax)

_TAR_FIELDS = [(0, 100), (100, 8), (124, 12), (148, 8), (156, 1), (157, 100), (257, 6), (263, 2)]
_TAR_FIELDS += [(345, 155), (386, 12), (398, 12), (482, 1), (483, 12)]
_TAR_TEXTS = (b"L", b"K", b"x", b"g", b"S", b"5", b"2", b"V", b"M", b"-1", b"../x.img", b"")
_PAX_NAMES = (
    "size", "path", "hdrcharset", "GNU.sparse.major", "GNU.sparse.minor", "GNU.sparse.map",
    "GNU.sparse.size", "GNU.sparse.realsize", "GNU.sparse.numblocks", "GNU.sparse.name",
)  # fmt: skip
_PAX_VALUES = ("-1", "1", "0", "", "0,5", "1.5", "\udcff", "9" * 5000)


def tar_of(pax: dict[str, str]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        entry = tarfile.TarInfo("pi.img")
        entry.pax_headers = dict(pax)
        entry.size = len(IMAGE)
        archive.addfile(entry, io.BytesIO(IMAGE))
    return out.getvalue().rstrip(b"\0") + bytes(1024)


def change_tar(data: bytes, rng: Random) -> bytes:
    if rng.random() < 0.4:
        names = rng.sample(_PAX_NAMES, rng.randint(0, 4))
        return tar_of({name: _pax_value(rng) for name in names})
    found = bytearray(data)
    heads = [at for at in range(0, len(data) - 511, 512) if data[at + 257 : at + 262] == b"ustar"]
    offset, size = rng.choice(_TAR_FIELDS)
    at = rng.choice(heads or [0]) + offset
    value = number(rng)
    texts = (b"%o" % value, b"\x80" + value.to_bytes(11), b"\xff" + value.to_bytes(11))
    found[at : at + size] = rng.choice((*texts, *_TAR_TEXTS))[:size].ljust(size, b"\0")
    return bytes(found)


def _pax_value(rng: Random) -> str:
    return str(number(rng)) if rng.random() < 0.5 else rng.choice(_PAX_VALUES)


def repair_tar(data: bytes, rng: Random) -> bytes:
    """Compute the sum of every header again."""
    del rng
    found = bytearray(data)
    for at in range(0, len(found) - 511, 512):
        if found[at + 257 : at + 262] == b"ustar":
            found[at + 148 : at + 156] = b" " * 8
            found[at + 148 : at + 156] = b"%06o\0 " % sum(found[at : at + 512])
    return bytes(found)


def read_tar(data: bytes, folder: Path) -> None:
    path = folder / "fuzzed"
    path.write_bytes(data)
    with open_stream(path) as stream:
        found = stream.read(MOST_BYTES + 1)
    if found not in (IMAGE, data) and len(found) <= MOST_BYTES:
        assert any(found in files for files in accepted(by_tarfile, data, [found]))


def by_tarfile(data: bytes) -> list[bytes]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        files = [archive.extractfile(member) for member in archive if member.isreg()]
        return [file.read() for file in files if file]


TARGETS = (
    Target("zip", zips, change_zip, reader(by_zipfile), repair_zip),
    Target("xz", xzs, change_xz, reader(by_lzma), repair_xz),
    Target("zstd", zsts, change_zst, reader(by_zstandard)),
    Target(
        "tar", lambda: [tar_of({}), tar_of({"path": "a/b.img"})], change_tar, read_tar, repair_tar
    ),
)
