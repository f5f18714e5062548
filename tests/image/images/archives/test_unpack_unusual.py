"""Archives that are odd and honest, and honest ones that ask for too much."""

from __future__ import annotations

import gzip
import io
import lzma
import os
import struct
import subprocess
import sys
import tarfile
import time
import zipfile
import zlib
from typing import TYPE_CHECKING

import pytest

from imagebuilder.errors import ImageError
from imagebuilder.images.archives import decoders, nested, xz_zstd
from imagebuilder.images.archives.formats import is_compressed
from imagebuilder.images.archives.unpack import LARGEST_DIRECTORY_BYTES, open_stream
from imagebuilder.images.cache import Cache
from imagebuilder.images.obtain import obtain_base
from imagebuilder.model import ImageSource
from tests.lib.archives import MEBIBYTE, ODD_BYTES, make_image, pack, sha256sum
from tests.lib.tools import need, run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

APPLE_DOUBLE = b"\0\5\x16\7\0\2\0\0Mac OS X        " + bytes(100)
SKIPPABLE = struct.pack("<II", 0x184D2A5B, 5) + b"notes"


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_image(tmp_path_factory.mktemp("unusual") / "pi.img")


def read_all(path: Path, size_bytes: int | None = None) -> bytes:
    with open_stream(path, size_bytes) as stream:
        return stream.read()


def shell(command: str, folder: Path) -> None:
    """Run a line of sh; the programs in it are what the test is about."""
    need("bzip2", "gzip", "tar", "xz", "zip", "zstd")
    subprocess.run(command, shell=True, check=True, cwd=folder)  # noqa: S602 - from the tests


# ---- beside the image

BESIDE = [
    "._pi.img",
    "__MACOSX/._pi.img",
    "sub/__MACOSX/pi.img",
    ".DS_Store",
    "Thumbs.db",
    "README.txt",
    "README",
    "LICENSE",
    "pi.img.sha256",
    "pi.bmap",
    "SHA256SUMS",
    "bootcode.bin",
    "older/",
    "pi.img.xz",
]


@pytest.mark.parametrize("other", BESIDE)
@pytest.mark.parametrize("first", [True, False])
def test_what_lies_beside_the_image_in_a_zip_is_no_harm(
    image: Path, tmp_path: Path, other: str, *, first: bool
) -> None:
    path = tmp_path / "pi.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in (other, "pi.img") if first else ("pi.img", other):
            archive.writestr(name, image.read_bytes() if name == "pi.img" else APPLE_DOUBLE)
    assert read_all(path) == image.read_bytes()


def test_a_link_in_a_zip_is_no_second_image(image: Path, tmp_path: Path) -> None:
    (tmp_path / "pi.img").write_bytes(image.read_bytes())
    (tmp_path / "latest.img").symlink_to("pi.img")
    shell("zip -q -y a.zip pi.img latest.img", tmp_path)
    assert read_all(tmp_path / "a.zip") == image.read_bytes()


def test_a_zip_of_windows_has_its_folders_by_backslashes(image: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("deploy\\", b"")
        archive.writestr("deploy\\pi.img", image.read_bytes())
        archive.writestr("deploy\\._pi.img", APPLE_DOUBLE)
    assert read_all(tmp_path / "a.zip") == image.read_bytes()


@pytest.mark.parametrize(
    "other", ["._pi.img", "README.txt", "LICENSE", "notes/a.md", "pi.img.sha256"]
)
def test_what_lies_beside_the_image_in_a_tar_is_no_harm(
    image: Path, tmp_path: Path, other: str
) -> None:
    for first in (True, False):
        path = tmp_path / f"{first}.tar"
        with tarfile.open(path, "w") as archive:
            for name in (other, "pi.img") if first else ("pi.img", other):
                entry = tarfile.TarInfo(name)
                data = image.read_bytes() if name == "pi.img" else APPLE_DOUBLE
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))
        assert read_all(path) == image.read_bytes()


def test_a_tar_with_two_images_is_refused(image: Path, tmp_path: Path) -> None:
    for name in ("a.img", "b.img"):
        (tmp_path / name).write_bytes(image.read_bytes())
    shell("tar czf two.tar.gz a.img b.img", tmp_path)
    with pytest.raises(
        ImageError, match=r"two\.tar\.gz contains 2 images instead of one: a\.img, b"
    ):
        read_all(tmp_path / "two.tar.gz")


@pytest.mark.parametrize("names", [("README", "LICENSE"), ("._pi.img",)])
def test_a_tar_without_an_image_is_refused(tmp_path: Path, names: tuple[str, ...]) -> None:
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        for name in names:
            archive.addfile(tarfile.TarInfo(name))
    with pytest.raises(ImageError, match=r"a\.tar\.gz contains 0 images"):
        read_all(tmp_path / "a.tar.gz")


# ---- packed twice

TWICE = {
    "xz in zip": "xz -1k pi.img; zip -q out pi.img.xz; mv out.zip out",
    "stored xz in zip": "xz -1k pi.img; zip -q -0 out pi.img.xz; mv out.zip out",
    "xz and notes in zip": "xz -1k pi.img; echo >n.txt; zip -q out n.txt pi.img.xz; mv out.zip out",
    "gz in zip": "gzip -1k pi.img; zip -q out pi.img.gz; mv out.zip out",
    "zst in zip": "zstd -qk pi.img; zip -q out pi.img.zst; mv out.zip out",
    "bz2 in zip": "bzip2 -k pi.img; zip -q out pi.img.bz2; mv out.zip out",
    "zst in gz": "zstd -qc pi.img | gzip >out",
    "joined zst in gz": "(head -c 900 pi.img | zstd; tail -c +901 pi.img | zstd) | gzip >out",
    "xz in zst": "xz -1c pi.img | zstd -qc >out",
    "tar": "tar cf out pi.img",
    "tar of GNU": "tar --format=gnu -cf out pi.img",
    "tar of POSIX": "tar --format=posix -cf out ./pi.img",
    "tar with holes": "tar -S --format=gnu -cf out pi.img",
    "tar with holes of POSIX": "tar -S --format=posix -cf out pi.img",
    "tar in large blocks": "tar -b 1000 -cf out pi.img",
    "tar.gz": "tar czf out pi.img",
    "tar.xz": "tar cf - pi.img | xz -1 >out",
    "tar.zst": "tar cf - pi.img | zstd -qc >out",
    "tar.bz2": "tar cf - pi.img | bzip2 >out",
    "tar.gz in zip": "tar czf pi.tar.gz pi.img; zip -q out pi.tar.gz; mv out.zip out",
    "xz in tar.gz": "xz -1k pi.img; tar czf out pi.img.xz",
    "xz in tar.gz in zip": "xz -1k pi.img; tar czf i.tar.gz pi.img.xz; zip -q out i.tar.gz; "
    "mv out.zip out",
}


@pytest.mark.parametrize("how", TWICE)
def test_what_is_packed_twice_is_unpacked_twice(image: Path, tmp_path: Path, how: str) -> None:
    shell(f"cp --sparse=always {image} pi.img; {TWICE[how]}", tmp_path)
    assert is_compressed(tmp_path / "out")
    base = obtain_base(ImageSource("out", file=tmp_path / "out"), Cache(tmp_path / "cache"))
    run("cmp", base.path, image)


CUT = [
    *(TWICE[f"{form} in zip"].replace("; zip", "; truncate -s -1000 pi.img.*; zip")
      for form in ("xz", "gz", "zst", "bz2")),
    "zstd -qc pi.img | head -c 300000 | gzip >out",
    "xz -1c pi.img | head -c 300000 | zstd -qc >out",
    "tar cf - pi.img | head -c 3000000 | gzip >out",
    "tar cf - pi.img | head -c 3000000 >out",
    "tar -S -cf - pi.img | head -c 300000 | xz -1 >out",
    "gzip -1k pi.img; truncate -s -1000 pi.img.gz; tar cf out pi.img.gz",
]  # fmt: skip


@pytest.mark.parametrize("command", CUT)
def test_what_is_cut_off_inside_is_told(image: Path, tmp_path: Path, command: str) -> None:
    shell(f"cp --sparse=always {image} pi.img; {command}", tmp_path)
    with pytest.raises(ImageError, match="cannot unpack out") as caught:
        read_all(tmp_path / "out")
    assert "download it again" in caught.value.hint


@pytest.mark.parametrize(
    ("command", "what"),
    [
        ("zip -q pi.img.zip pi.img; zip -q out pi.img.zip; mv out.zip out", r"pi\.img\.zip in out"),
        ("zip -q p.zip pi.img; gzip -c p.zip >out", "out is a zip in another archive"),
        ("zip -q p.zip pi.img; tar cf out p.zip", "out is a zip in another archive"),
        ("printf '7z\\274\\257\\047\\034' >pi.img; gzip -c pi.img >out", "a 7z archive"),
        ("printf 'QFI\\373' >pi.img; gzip -c pi.img >out", "a qcow2 disk"),
        ("echo '<html>' >pi.img; zip -q out pi.img; mv out.zip out", "web page"),
        (
            "for i in 1 2 3 4 5 6; do gzip -c pi.img >out; mv out pi.img; done; mv pi.img out",
            "4 layers",
        ),
    ],
)
def test_what_is_not_unpacked_is_refused_by_its_name(
    image: Path, tmp_path: Path, command: str, what: str
) -> None:
    shell(f"cp {image} pi.img; {command}", tmp_path)
    with pytest.raises(ImageError, match=what) as caught:
        read_all(tmp_path / "out")
    assert "unpack" in caught.value.hint or "where it was downloaded" in caught.value.hint


def test_the_stated_size_is_of_the_image_not_of_what_holds_it(image: Path, tmp_path: Path) -> None:
    shell(f"cp {image} pi.img; {TWICE['xz in zip']}", tmp_path)
    assert read_all(tmp_path / "out", ODD_BYTES) == image.read_bytes()
    with pytest.raises(ImageError, match="more than 1000000 bytes"):
        read_all(tmp_path / "out", 1_000_000)
    with pytest.raises(ImageError, match="instead of"):
        read_all(tmp_path / "out", ODD_BYTES + 1)


def zipped(data: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("pi.img", data)
    return out.getvalue()


def test_a_zip_that_needs_another_version_is_no_damaged_one(tmp_path: Path) -> None:
    data = bytearray(zipped(b"x" * 600))
    struct.pack_into("<H", data, data.rfind(b"PK\1\2") + 6, 999)
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(ImageError, match=r"a\.zip needs an unsupported version of zip: .*23\.1"):
        read_all(tmp_path / "a.zip")


@pytest.mark.parametrize("offset", [1 << 31, 1 << 63, (1 << 64) - 1])
def test_an_entry_that_lies_nowhere_is_told_with_its_place(tmp_path: Path, offset: int) -> None:
    data = zipped(b"x" * 600)
    at = data.rfind(b"PK\1\2")
    end = data.rfind(b"PK\5\6")
    entry = bytearray(data[at:end])
    extra = struct.pack("<HHQ", 1, 8, offset)
    struct.pack_into("<H", entry, 30, len(extra))
    struct.pack_into("<I", entry, 42, 0xFFFFFFFF)
    tail = bytearray(data[end:])
    struct.pack_into("<I", tail, 12, len(entry) + len(extra))
    (tmp_path / "a.zip").write_bytes(data[:at] + entry + extra + tail)
    with pytest.raises(ImageError, match=f"has pi.img at byte {offset}"):
        read_all(tmp_path / "a.zip")


# ---- zstd's skippable frames, and windows


def test_skippable_frames_are_passed_over(image: Path, tmp_path: Path) -> None:
    frame = pack(image, "zst", tmp_path).read_bytes()
    for number, data in enumerate(
        (SKIPPABLE + frame, frame + SKIPPABLE, SKIPPABLE * 3 + frame * 2)
    ):
        path = tmp_path / f"{number}.zst"
        path.write_bytes(data)
        run("zstd", "-qdf", path, "-o", tmp_path / "out")
        assert read_all(path) == (tmp_path / "out").read_bytes()
        path.write_bytes(gzip.compress(data, 1))
        assert read_all(path) == (tmp_path / "out").read_bytes()
    for cut in (SKIPPABLE[:6], frame + SKIPPABLE[:-1], SKIPPABLE[:-1]):
        (tmp_path / "cut.zst").write_bytes(cut)
        with pytest.raises(ImageError):
            read_all(tmp_path / "cut.zst")


def with_dictionary(path: Path, code: int) -> Path:
    """Let an xz file of one block ask for another dictionary (file format 1.2.1, 5.3.1)."""
    data = bytearray(path.read_bytes())
    at = data.find(b"\x21\x01", 12)
    end = 12 + (data[12] + 1) * 4
    data[at + 2] = code
    data[end - 4 : end] = struct.pack("<I", zlib.crc32(bytes(data[12 : end - 4])))
    out = path.with_name(f"{code}.img.xz")
    out.write_bytes(data)
    return out


def repeating(path: Path) -> Path:
    """Make an image that refers back as far as a window goes."""
    with path.open("wb") as file:
        block = os.urandom(MEBIBYTE)
        for mib in (0, 250, 271):
            file.seek(mib * MEBIBYTE)
            file.write(block)
    return path


def peak(path: Path, out: Path) -> tuple[int, str]:
    """Unpack in a process of its own; the most memory it had in KiB, and the digest or error."""
    script = (
        "import sys; from pathlib import Path\n"
        "from imagebuilder.images.archives.unpack import open_stream\n"
        "from imagebuilder.images.sparse import write_raw\n"
        "from imagebuilder.errors import ImageError\n"
        "from tests.lib.memory import peak_memory\n"
        "try:\n"
        "    with open_stream(Path(sys.argv[1])) as s:\n"
        "        said = write_raw(s, Path(sys.argv[2])).sha256\n"
        "except ImageError as error: said = error.message + error.hint\n"
        "print(said); print(peak_memory() >> 10)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, path, out], capture_output=True, text=True, check=True
    )
    said, memory = done.stdout.splitlines()
    return int(memory), said


@pytest.mark.parametrize(
    ("command", "program"),
    [
        ("zstd -q --long=31 --ultra -3 big -o out", "zstd -d --long=31"),
        ("zstd -q --long=29 -3 -c <big >out", "zstd -d --long=31"),
        ("zstd -q --long=29 -3 -c <big | gzip -1 >out", "zstd -d --long=31"),
    ],
)
def test_a_long_window_of_zstd_is_refused_as_such(
    tmp_path: Path, command: str, program: str
) -> None:
    repeating(tmp_path / "big")
    shell(command, tmp_path)
    memory, error = peak(tmp_path / "out", tmp_path / "image")
    assert memory < 150 * 1024
    assert "window" in error
    assert "256 MiB" in error
    assert program in error
    assert "damaged" not in error


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_large_dictionary_of_xz_is_refused_as_such(tmp_path: Path, *, wrapped: bool) -> None:
    shell("truncate -s 40M big; xz -0k big", tmp_path)
    path = with_dictionary(tmp_path / "big.xz", 33)
    run("xz", "-t", path)  # it is sound
    if wrapped:
        shell("gzip -1 33.img.xz", tmp_path)
        path = tmp_path / "33.img.xz.gz"
    memory, error = peak(path, tmp_path / "image")
    assert memory < 150 * 1024
    assert "window" in error
    assert "xz -dk" in error
    assert "damaged" not in error


@pytest.mark.long
def test_windows_up_to_256_mib_are_used_within_the_memory_that_is_promised(tmp_path: Path) -> None:
    big = repeating(tmp_path / "big")
    shell("zstd -q --long=28 -3 -c <big >out.zst; xz -0k big", tmp_path)
    digest = sha256sum(big)
    for path in (tmp_path / "out.zst", with_dictionary(tmp_path / "big.xz", 32)):
        memory, said = peak(path, tmp_path / "image")
        assert said == digest
        assert memory < 400_000


# ---- budgets: what costs time or memory without being an image


def headers(entry: tarfile.TarInfo) -> bytes:
    return entry.tobuf(tarfile.PAX_FORMAT)


def many_entries() -> bytes:
    return b"".join(headers(tarfile.TarInfo(f"{n}.txt")) for n in range(nested.MOST_ENTRIES + 1))


def far_entry() -> bytes:
    entry = tarfile.TarInfo("pi.img")
    entry.type, entry.size = b"V", 1 << 60
    return entry.tobuf(tarfile.GNU_FORMAT) + bytes(600_000)


def long_header() -> bytes:
    entry = tarfile.TarInfo("pi.img")
    entry.pax_headers = {"comment": "x" * (2 * nested.MOST_HEADER_BYTES)}
    return headers(entry)


def wide_directory() -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for number in range(LARGEST_DIRECTORY_BYTES // 60_000 + 1):
            archive.writestr(f"{number:0>60000}", b"")
    return data.getvalue()


def many_blocks() -> bytes:
    """Return an xz whose index has more records than any honest one, all of no bytes."""
    count = xz_zstd.MOST_XZ_BLOCKS + 1
    index = b"\0" + xz_zstd._varint(count) + xz_zstd._varint(4) * 2 * count
    index += bytes(-len(index) % 4)
    index += struct.pack("<I", zlib.crc32(index))
    back = struct.pack("<I2s", len(index) // 4 - 1, b"\0\1")
    head = b"\xfd7zXZ\0\0\1" + struct.pack("<I", zlib.crc32(b"\0\1"))
    return head + bytes(4 * count) + index + struct.pack("<I", zlib.crc32(back)) + back + b"YZ"


def long_number() -> bytes:
    data = bytearray(many_blocks())
    at = 12 + 4 * (xz_zstd.MOST_XZ_BLOCKS + 1)
    end = len(data) - 16
    data[at + 1 : end] = b"\x80" * (end - at - 1)
    data[end : end + 4] = struct.pack("<I", zlib.crc32(bytes(data[at:end])))
    return bytes(data)


EMPTY_ZST = b"\x28\xb5\x2f\xfd\x00\x58\x01\x00\x00"
GREEDY: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty gz members": (lambda: gzip.compress(b"") * (decoders.MOST_MEMBERS + 2), "streams"),
    "empty xz streams": (lambda: lzma.compress(b"") * 100_000, "streams"),
    "empty zstd frames": (lambda: EMPTY_ZST * 1_000_000, "blocks"),
    "empty zstd blocks": (lambda: EMPTY_ZST[:6] + bytes(3) * 3_000_000, "blocks"),
    "skippable frames": (lambda: SKIPPABLE[:4] + bytes(4) + SKIPPABLE * 1_000_000, "blocks"),
    "zeros behind xz": (lambda: lzma.compress(b"") + bytes(100_000_000), "no disk image|0 bytes|"),
    "many xz blocks": (many_blocks, "blocks"),
    "a long number in xz": (long_number, "damaged"),
    "files in a tar": (many_entries, "files"),
    "a long header in a tar": (long_header, "headers"),
    "an entry that ends nowhere in a tar": (far_entry, "in the middle"),
    "a wide zip directory": (wide_directory, "directory"),
}


@pytest.mark.parametrize("kind", GREEDY)
def test_what_only_costs_time_is_refused_in_time(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(xz_zstd, "MOST_ZST_BLOCKS", 1 << 18)
    monkeypatch.setattr(decoders, "MOST_MEMBERS", 1 << 14)
    make, what = GREEDY[kind]
    path = tmp_path / "greedy"
    path.write_bytes(make())
    begun = time.process_time()
    with pytest.raises(ImageError, match=what):
        obtain_base(ImageSource("greedy", file=path), Cache(tmp_path / "cache"))
    assert time.process_time() - begun < 10
