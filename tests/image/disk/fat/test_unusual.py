"""Volumes with faults that Linux and mtools read past: edited elsewhere, left as they are."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest

from imagebuilder.disk.extent import Partition
from imagebuilder.disk.fat.edit import BootBase
from imagebuilder.disk.fat.tree import MOST_FOLDER_BYTES
from imagebuilder.disk.fat.volume import MOST_TEXT_BYTES, BootVolume
from imagebuilder.disk.reader import open_raw
from imagebuilder.errors import ImageError
from imagebuilder.model import BootEdit
from tests.lib.fat_edits import broken, patch_of
from tests.lib.fat_images import EPOCH, FatImage, make_image, mtype, write_patched
from tests.lib.fat_oracle import RawVolume

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Spoil = Callable[[FatImage], None]

CLUSTER = 512
FILES = {"cmdline.txt": b"console=tty1\n", "sub/inner.txt": b"inner", "big.bin": b"b" * 1400}
KINDS = ((12, 2), (16, 8), (32, 34))


@pytest.fixture(params=KINDS, ids=lambda kind: f"FAT{kind[0]}")
def image(request: pytest.FixtureRequest, tmp_path: Path) -> FatImage:
    kind, size_mib = request.param
    return make_image(
        tmp_path / "base.img", kind=kind, size_mib=size_mib, cluster_bytes=CLUSTER, files=FILES
    )


def slot_of(volume: RawVolume, path: bytes) -> int:
    """Return where the short slot of a file or folder lies, from the start of the volume."""
    return volume.bytes.find(volume.records()[path].short)


def start_of(volume: RawVolume, path: bytes) -> int:
    low: int = struct.unpack_from("<H", volume.records()[path].short, 26)[0]
    return int(volume.data_at + (low - 2) * volume.cluster)


def spoil_own_dot(image: FatImage) -> None:
    volume = RawVolume(image)
    broken(image, start_of(volume, b"SUB        ") + 26, b"\0\0")


def spoil_parent_dot(image: FatImage) -> None:
    volume = RawVolume(image)
    broken(image, start_of(volume, b"SUB        ") + 32 + 26, b"\x63\0")


def remove_dots(image: FatImage) -> None:
    volume = RawVolume(image)
    for slot in (0, 32):
        broken(image, start_of(volume, b"SUB        ") + slot, b"\xe5")


def shorten_size(image: FatImage) -> None:
    volume = RawVolume(image)
    broken(image, slot_of(volume, b"BIG     BIN") + 28, struct.pack("<I", 3))


def empty_size(image: FatImage) -> None:
    volume = RawVolume(image)
    broken(image, slot_of(volume, b"BIG     BIN") + 28, bytes(4))


def lengthen_size(image: FatImage) -> None:
    volume = RawVolume(image)
    broken(image, slot_of(volume, b"BIG     BIN") + 28, struct.pack("<I", 5000))


HARMLESS = (spoil_own_dot, spoil_parent_dot, remove_dots, shorten_size, empty_size, lengthen_size)


@pytest.mark.parametrize("spoil", HARMLESS)
def test_a_fault_elsewhere_is_left_as_it_is(image: FatImage, spoil: Spoil, tmp_path: Path) -> None:
    spoil(image)
    before = RawVolume(image)
    records = before.records()
    patch = patch_of(image, [BootEdit("cmdline.txt", b"new"), BootEdit("rpi-image/a", b"x" * 900)])
    out = write_patched(image, patch, tmp_path / "out.img")
    after = RawVolume(out).records()
    for path in (b"BIG     BIN", b"SUB        ", b"SUB        /INNER   TXT"):
        assert after[path].short == records[path].short
    # mtools, too, still reads what it read before.
    assert mtype(out, "cmdline.txt") == b"new"
    assert mtype(out, "sub/inner.txt") == b"inner"


@pytest.mark.parametrize(("spoil", "content"), [(shorten_size, b"bbb"), (empty_size, b"")])
def test_a_file_is_as_long_as_its_entry_says(image: FatImage, spoil: Spoil, content: bytes) -> None:
    spoil(image)
    with open_raw(image.path) as raw:
        volume = BootVolume(raw, image.partition())
        assert volume.read("big.bin") == content == mtype(image, "big.bin")


def test_a_file_that_ends_too_early_is_named_when_it_is_read(image: FatImage) -> None:
    lengthen_size(image)
    with open_raw(image.path) as raw:
        volume = BootVolume(raw, image.partition())
        with pytest.raises(ImageError, match=r"'big\.bin' has fewer clusters than its size"):
            volume.read("big.bin")


@pytest.mark.parametrize("spoil", [shorten_size, lengthen_size])
def test_a_faulty_file_can_be_replaced(image: FatImage, spoil: Spoil, tmp_path: Path) -> None:
    spoil(image)
    free = RawVolume(image).free()
    patch = patch_of(image, [BootEdit("big.bin", b"sound")])
    out = write_patched(image, patch, tmp_path / "out.img")
    assert mtype(out, "big.bin") == b"sound"
    assert RawVolume(out).free() == free + 2


def test_a_text_larger_than_its_budget_is_refused(tmp_path: Path) -> None:
    image = make_image(
        tmp_path / "base.img", kind=16, size_mib=16, cluster_bytes=2048,
        files={"cmdline.txt": bytes(MOST_TEXT_BYTES + 1)},
    )  # fmt: skip
    with open_raw(image.path) as raw:
        volume = BootVolume(raw, image.partition())
        with pytest.raises(ImageError, match=r"cmdline\.txt on the boot partition has 1048577"):
            volume.read("cmdline.txt")
        assert len(volume.read("cmdline.txt", 2 * MOST_TEXT_BYTES)) == MOST_TEXT_BYTES + 1


@pytest.mark.parametrize("first_byte", [b"\xe5", b"\0"])
def test_folders_of_many_megabytes_are_refused(tmp_path: Path, first_byte: bytes) -> None:
    """Folders of deleted or of no entries: 2 MiB each on the disk, next to nothing when packed."""
    cluster, links = 32768, 64
    count = MOST_FOLDER_BYTES // (cluster * links) + 2
    image = make_image(
        tmp_path / "base.img", kind=16, size_mib=140, cluster_bytes=cluster,
        files={f"d{n:02}/f": b"" for n in range(count)},
    )  # fmt: skip
    lengthen_folders(image, count, links, first_byte)
    with open_raw(image.path) as raw:
        base = BootBase(raw, image.partition())
        with pytest.raises(ImageError, match=f"its folders have more than {MOST_FOLDER_BYTES}"):
            base.apply([BootEdit("a", b"x")], EPOCH)


def lengthen_folders(image: FatImage, count: int, links: int, first_byte: bytes) -> None:
    """Return each folder a chain of `links` clusters from the unused end of the volume."""
    volume = RawVolume(image)
    free = volume.clusters + 2 - count * links
    table = bytearray(volume.bytes[volume.fat_at : volume.fat_at + volume.fat_bytes])
    for n in range(count):
        first = struct.unpack_from("<H", volume.records()[b"D%02d        " % n].short, 26)[0]
        chain = [first, *range(free, free + links - 1)]
        free += links
        for cluster, following in zip(chain, [*chain[1:], 0xFFFF], strict=True):
            struct.pack_into("<H", table, cluster * 2, following)
        empty = first_byte.ljust(32, b"\0") * (volume.cluster // 32)
        for cluster in chain[1:]:
            broken(image, volume.data_at + (cluster - 2) * volume.cluster, empty)
    for copy in range(volume.fats):
        broken(image, volume.fat_at + copy * volume.fat_bytes, bytes(table))


def test_a_partition_far_past_any_disk_holds_nothing(tmp_path: Path) -> None:
    """Sector numbers of a GPT have 64 bits, offsets of pread(2) have 63."""
    (tmp_path / "disk").write_bytes(bytes(1 << 20))
    with open_raw(tmp_path / "disk") as raw:
        for start in (1 << 20, 1 << 62, 1 << 63, (1 << 64) - 1, (1 << 73) - 512):
            assert raw.read_at(start, 512) == b""
            with pytest.raises(ImageError):
                BootVolume(raw, Partition(1, start, 1 << 20, "0x0c"))
