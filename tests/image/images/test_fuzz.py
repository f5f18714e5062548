"""Archives and answers with one field after the other set to what nobody would write.

Checksums over the changed fields are made right again, so that the change is what is read. Whatever
comes out is an error of the file's or of the server's, or what another reader makes of it.
"""

from __future__ import annotations

import io
import lzma
import os
import random
import struct
import tarfile
import time
import zipfile
import zlib
from typing import TYPE_CHECKING

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imagebuilder.errors import ImageError, RpiImageError
from imagebuilder.images.archives.unpack import open_stream
from imagebuilder.images.deadline import Patience
from imagebuilder.images.download import download, find_published_checksum
from imagebuilder.model import ImageSource
from tests.lib.archives import Recorder
from tests.lib.webserver import talking, without_proxies

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

IMAGE = b"image" * 2000 + bytes(100_000) + random.Random(5).randbytes(500) + b"end"
# One run of the tests takes some seconds; FUZZ_SCALE=100 takes minutes.
SCALE = int(os.environ.get("FUZZ_SCALE", "1"))
FUZZ = settings(
    deadline=None,
    max_examples=150 * SCALE,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
MOST_SECONDS = 5
MOST_BYTES = 8 << 20

EDGES = [0, 1, 2, 3, 7, 8, 255, 256, 65_535, 65_536, 100_000]
BITS = [15, 16, 31, 32, 40, 62, 63, 64]
NEAR = {edge for bit in BITS for edge in (2**bit - 1, 2**bit, 2**bit + 1)}
NUMBERS = st.one_of(
    st.sampled_from(sorted(number for number in {*NEAR, *EDGES} if number < 2**64)),
    st.integers(0, 2**64 - 1),
)


def put(data: bytearray, at: int, size: int, value: int) -> None:
    data[at : at + size] = (value % (1 << 8 * size)).to_bytes(size, "little")


def unpack(data: bytes, folder: Path) -> bytes | None:
    """Unpack within the time that is promised; None where that is refused, or very large."""
    path = folder / "fuzzed"
    path.write_bytes(data)
    begun = time.process_time()
    found, told = None, None
    try:
        with open_stream(path) as stream:
            found = stream.read(MOST_BYTES + 1)
    except ImageError as error:
        told = error
    assert time.process_time() - begun < MOST_SECONDS
    assert told is None or (told.hint and len(told.message) < 2000)
    # A sound file may hold any number of zeros; here are none that do.
    return None if found is None or len(found) > MOST_BYTES else found


def judge(data: bytes, folder: Path, other: Callable[[bytes], bytes]) -> None:
    """Unpack, and let `other` tell what is right where something came out."""
    found = unpack(data, folder)
    if found not in (None, IMAGE):
        assert found == other(data)


# ---- zip (APPNOTE.TXT 4.3)

LOCAL = [(4, 2), (6, 2), (8, 2), (14, 4), (18, 4), (22, 4), (26, 2), (28, 2)]
CENTRAL = [(4, 2), (6, 2), (8, 2), (10, 2), (16, 4), (20, 4), (24, 4), (28, 2), (30, 2), (32, 2)]
CENTRAL += [(34, 2), (36, 2), (38, 4), (42, 4)]
END = [(4, 2), (6, 2), (8, 2), (10, 2), (12, 4), (16, 4), (20, 2)]
ZIP_FIELDS = [
    *((b"PK\3\4", *field) for field in LOCAL),
    *((b"PK\1\2", *field) for field in CENTRAL),
    *((b"PK\5\6", *field) for field in END),
]


def zipped(*, wide: bool, stored: bool) -> bytes:
    out = io.BytesIO()
    kind = zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED
    with (
        zipfile.ZipFile(out, "w", kind) as archive,
        archive.open("pi.img", "w", force_zip64=wide) as entry,
    ):
        entry.write(IMAGE)
    return out.getvalue()


ZIPS = [zipped(wide=wide, stored=stored) for wide in (False, True) for stored in (False, True)]


def with_zip64(data: bytes, numbers: tuple[int, int, int]) -> bytes:
    """Move the sizes and the place of the entry into a zip64 field."""
    at, end = data.rfind(b"PK\1\2"), data.rfind(b"PK\5\6")
    entry, tail = bytearray(data[at:end]), bytearray(data[end:])
    extra = struct.pack("<HHQQQ", 1, 24, *numbers)
    name_bytes = int.from_bytes(entry[28:30], "little")
    entry[46 + name_bytes :] = extra
    put(entry, 30, 2, len(extra))
    for field in (20, 24, 42):
        put(entry, field, 4, 0xFFFFFFFF)
    put(tail, 12, 4, len(entry))
    return data[:at] + entry + tail


@FUZZ
@given(
    st.sampled_from(ZIPS),
    st.lists(st.tuples(st.sampled_from(ZIP_FIELDS), NUMBERS), min_size=1, max_size=3),
)
def test_fuzz_zip(
    tmp_path: Path, base: bytes, changes: list[tuple[tuple[bytes, int, int], int]]
) -> None:
    data = bytearray(base)
    for (mark, offset, size), value in changes:
        put(data, base.rfind(mark) + offset, size, value)
    judge(bytes(data), tmp_path, by_zipfile)


@FUZZ
@given(st.sampled_from(ZIPS), st.tuples(NUMBERS, NUMBERS, NUMBERS))
def test_fuzz_zip64(tmp_path: Path, base: bytes, numbers: tuple[int, int, int]) -> None:
    judge(with_zip64(base, numbers), tmp_path, by_zipfile)


def by_zipfile(data: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return archive.read(archive.infolist()[0])


# ---- xz (file format 1.2.1)


def crc(data: bytes) -> bytes:
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
XZ_FACTS = st.fixed_dictionaries(
    {},
    optional={
        "flags": st.binary(min_size=2, max_size=2),
        "block_flags": st.integers(0, 255),
        "filter": st.sampled_from([0x21, 3, 4, 9, 0x4000000000000001]),
        "dictionary": st.integers(0, 255),
        "properties": st.integers(0, 64),
        "packed": NUMBERS,
        "raw": NUMBERS,
        "unpadded": NUMBERS,
        "stated": NUMBERS,
        "count": NUMBERS,
        "backward": st.integers(0, 2**32 - 1),
        "padding": st.binary(max_size=8),
        "copies": st.integers(1, 3),
    },
)


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


def test_the_xz_that_is_fuzzed_is_right(tmp_path: Path) -> None:
    assert lzma.decompress(xz_of({})) == unpack(xz_of({}), tmp_path) == IMAGE


@FUZZ
@given(XZ_FACTS)
def test_fuzz_xz(tmp_path: Path, facts: dict[str, int | bytes]) -> None:
    judge(xz_of(facts), tmp_path, lzma.decompress)


# ---- zstd (RFC 8878)


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
    pieces = [IMAGE[at : at + 60_000] for at in range(0, len(IMAGE), 60_000)]
    for number, piece in enumerate(pieces):
        last = facts.get("last", number + 1 == len(pieces))
        size = facts.get("size", len(piece)) if number == 1 else len(piece)
        kind = facts.get("kind", 0) if number == 1 else 0
        body += (last | kind << 1 | size % (1 << 21) << 3).to_bytes(3, "little") + piece
    skip = struct.pack("<II", 0x184D2A50 + facts.get("nibble", 0), facts.get("skipped", 3)) + b"abc"
    frame = b"\x28\xb5\x2f\xfd" + head + body
    return (
        skip * facts.get("before", 0)
        + frame * facts.get("copies", 1)
        + skip * facts.get("after", 0)
    )


ZST_FACTS = st.fixed_dictionaries(
    {},
    optional={
        "size_flag": st.integers(0, 3),
        "window": st.integers(0, 255),
        "single": st.integers(0, 1),
        "dictionary": st.integers(0, 3),
        "id": st.integers(0, 2**32 - 1),
        "spare": st.integers(0, 3),
        "stated": NUMBERS,
        "last": st.integers(0, 1),
        "size": st.integers(0, 2**21 - 1),
        "kind": st.integers(0, 3),
        "nibble": st.integers(0, 15),
        "skipped": st.integers(0, 2**32 - 1),
        "before": st.integers(0, 3),
        "after": st.integers(0, 3),
        "copies": st.integers(1, 3),
    },
)


def by_zstandard(data: bytes) -> bytes:
    reader = zstandard.ZstdDecompressor(max_window_size=1 << 31).stream_reader(
        io.BytesIO(data), read_across_frames=True
    )
    return bytes(reader.read())


def test_the_zstd_that_is_fuzzed_is_right(tmp_path: Path) -> None:
    for facts in ({}, {"before": 1, "after": 2, "nibble": 9}, {"single": 1, "size_flag": 3}):
        assert by_zstandard(zst_of(facts)) == unpack(zst_of(facts), tmp_path) == IMAGE


@FUZZ
@given(facts=ZST_FACTS, wrapped=st.booleans())
def test_fuzz_zstd(tmp_path: Path, facts: dict[str, int], *, wrapped: bool) -> None:
    data = zst_of(facts)
    if wrapped:  # another decoder of ours reads it there
        judge(zlib_gz(data), tmp_path, lambda packed: by_zstandard(zlib.decompress(packed, 31)))
    else:
        judge(data, tmp_path, by_zstandard)


def zlib_gz(data: bytes) -> bytes:
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    return packer.compress(data) + packer.flush()


# ---- tar (POSIX.1-2017, pax)

TAR_FIELDS = [(0, 100), (100, 8), (124, 12), (148, 8), (156, 1), (157, 100), (257, 6), (263, 2)]
TAR_FIELDS += [(345, 155), (386, 12), (398, 12), (482, 1), (483, 12)]
TAR_TEXTS = st.one_of(
    st.binary(max_size=12),
    NUMBERS.map(lambda n: b"%o" % n),
    NUMBERS.map(lambda n: b"\x80" + n.to_bytes(11, "big")),
    NUMBERS.map(lambda n: b"\xff" + n.to_bytes(11, "big")),
    st.sampled_from([b"L", b"K", b"x", b"g", b"S", b"5", b"2", b"V", b"M", b"-1", b"../x.img"]),
)
PAX = st.dictionaries(
    st.sampled_from(
        [
            *("size", "path", "hdrcharset", "GNU.sparse.major", "GNU.sparse.minor"),
            *("GNU.sparse.map", "GNU.sparse.size", "GNU.sparse.realsize", "GNU.sparse.numblocks"),
        ]
    ),
    st.one_of(
        NUMBERS.map(str),
        st.sampled_from(["-1", "1", "0", "", "0,5", "1.5", "\udcff", "9" * 5000]),
    ),
    max_size=4,
)


def tar_of(pax: dict[str, str], form: int) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        entry = tarfile.TarInfo("pi.img")
        entry.pax_headers = dict(pax)
        entry.size = len(IMAGE)
        archive.addfile(entry, io.BytesIO(IMAGE))
    return out.getvalue()


def with_sum(data: bytearray, at: int) -> None:
    header = data[at : at + 512]
    header[148:156] = b" " * 8
    data[at + 148 : at + 156] = b"%06o\0 " % sum(header)


@FUZZ
@given(
    pax=PAX,
    changes=st.lists(st.tuples(st.sampled_from(TAR_FIELDS), TAR_TEXTS), max_size=3),
    wrapped=st.booleans(),
)
def test_fuzz_tar(
    tmp_path: Path,
    pax: dict[str, str],
    changes: list[tuple[tuple[int, int], bytes]],
    *,
    wrapped: bool,
) -> None:
    data = bytearray(tar_of(pax, tarfile.PAX_FORMAT))
    last = max(at for at in range(0, len(data) - 512, 512) if data[at + 257 : at + 262] == b"ustar")
    for (offset, size), text in changes:
        data[last + offset : last + offset + size] = text[:size].ljust(size, b"\0")
    with_sum(data, last)
    found = unpack(zlib_gz(bytes(data)) if wrapped else bytes(data), tmp_path)
    assert found in (None, IMAGE) or found == bytes(data) or found in by_tarfile(bytes(data))


def by_tarfile(data: bytes) -> list[bytes]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        files = [archive.extractfile(member) for member in archive if member.isreg()]
        return [file.read() for file in files if file]


# ---- HTTP

ONE_TRY = Patience(
    attempts=1, connect_seconds=2, read_seconds=0.5, pause_seconds=0, answer_seconds=0.5
)
NAMES = st.sampled_from(
    [
        *(b"Content-Length", b"Content-Range", b"Content-Encoding", b"Transfer-Encoding"),
        *(b"Location", b"Retry-After", b"ETag", b"Last-Modified", b"Set-Cookie"),
        *(b"Connection", b"Trailer", b"X"),
    ]
)
VALUES = st.one_of(
    NUMBERS.map(lambda n: b"%d" % n),
    st.sampled_from(
        [
            *(b"gzip", b"deflate", b"chunked", b"bytes 0-9/10", b"bytes 3-9/10", b"bytes */*"),
            *(b"close", b'"a"', b"/x", b"//", b"http://[", b"a=b; Expires=x"),
            *(b"\xb2", b"-1", b"", b" ", b"10"),
        ]
    ),
    st.binary(max_size=20).map(lambda raw: raw.replace(b"\n", b"").replace(b"\r", b"")),
)
BODIES = st.sampled_from(
    [
        *(b"", b"0123456789", b"a\r\n0123456789\r\n0\r\n\r\n", b"-1\r\n", b"a;b\r\n01"),
        *(b"<html>", b"1" * 64, b"\x1f\x8b\x08"),
        *(zlib_gz(b"0123456789"), zlib.compress(b"0123456789")),
    ]
)
STATUS = st.sampled_from(
    [b"200 OK", b"206 x", b"302 x", b"304", b"404 x", b"416 x", b"500 x", b"2"]
)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, list[bytes]]]:
    """Run a server that answers with the last of a list."""
    without_proxies(monkeypatch)
    answers = [b""]
    with talking(lambda client, _: client.sendall(answers[-1])) as (url, _):
        yield url, answers


@settings(FUZZ, max_examples=100 * SCALE)
@given(STATUS, st.lists(st.tuples(NAMES, VALUES), max_size=4), BODIES)
def test_fuzz_http(
    tmp_path: Path,
    server: tuple[str, list[bytes]],
    status: bytes,
    headers: list[tuple[bytes, bytes]],
    body: bytes,
) -> None:
    url, answers = server
    lines = [b"HTTP/1.1 " + status, *(name + b": " + value for name, value in headers)]
    answers[:] = [b"\r\n".join([*lines, b"", body])]
    part = tmp_path / "part"
    part.unlink(missing_ok=True)
    source = ImageSource("x", url=f"{url}/x.img")
    for found in (
        outcome(lambda: download(source.url, part, "", Recorder(), ONE_TRY).sha256),
        outcome(lambda: find_published_checksum(source, Recorder(), ONE_TRY)),
    ):
        assert len(found) in {0, 64}


def outcome(work: Callable[[], str]) -> str:
    """Return a digest; nothing where there is an error that is told."""
    try:
        return work()
    except RpiImageError as error:
        told = error
    assert told.exit_code == 4
    assert told.hint
    return ""
