"""Boot partitions that must not be edited, and why."""

from __future__ import annotations

import struct
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from imagebuilder.disk.cow import CowView
from imagebuilder.disk.extent import Partition
from imagebuilder.disk.fat.edit import BootBase
from imagebuilder.disk.fat.volume import BootVolume
from imagebuilder.disk.patched import PatchedImage
from imagebuilder.disk.reader import open_raw
from imagebuilder.errors import ImageError
from tests.lib.fat_edits import EDITS, STOCK, broken, patch_of
from tests.lib.fat_images import (
    EPOCH,
    FatImage,
    make_image,
)
from tests.lib.fat_oracle import RawVolume, short
from tests.lib.tools import run

if TYPE_CHECKING:
    from pathlib import Path

# ---- refusals


def refusal(image: FatImage, partition: Partition | None = None) -> str:
    with open_raw(image.path) as raw, pytest.raises(ImageError) as caught:
        BootBase(raw, partition or Partition(1, image.start_bytes, image.size_bytes, "0x0c"))
    assert caught.value.hint
    return caught.value.message


def test_a_partition_without_fat_is_refused(small: FatImage) -> None:
    end = small.start_bytes + small.size_bytes
    assert "no FAT file system" in refusal(small, Partition(2, end, 1 << 20, "0x83"))
    assert "no FAT file system" in refusal(small, Partition(2, end, 0, "0x83"))


def test_a_cut_off_image_is_refused(small: FatImage) -> None:
    for size in (
        small.start_bytes + 512,
        small.start_bytes + 20_000,
        small.start_bytes + (30 << 20),
    ):
        with small.path.open("r+b") as disk:
            disk.truncate(size)
        refusal(small)
        if size > small.start_bytes + 30_000:
            assert "truncated" in refusal(small)


def test_fat_copies_that_differ_are_refused(small: FatImage) -> None:
    second = RawVolume(small).fat_at + RawVolume(small).fat_bytes
    assert "copies of its FAT differ" in refusal(broken(small, second + 41, b"\x07"))


def test_fat_copies_that_differ_are_read_by_the_first(small: FatImage) -> None:
    """What a power cut leaves between the two writes; mtools reads the first, too."""
    second = RawVolume(small).fat_at + RawVolume(small).fat_bytes
    broken(small, second + 41, b"\x07")
    with open_raw(small.path) as raw:
        volume = BootVolume(raw, Partition(1, small.start_bytes, small.size_bytes, "0x0c"))
        assert not volume.clean
        for path in STOCK:
            where = f"{small.path}@@{small.start_bytes}"
            there = subprocess.run(
                ["mtype", "-i", where, f"::{path}"], capture_output=True, check=True
            )
            assert volume.read(path) == there.stdout


def test_mirroring_that_is_off_is_refused(small: FatImage) -> None:
    assert "mirroring" in refusal(broken(small, 40, b"\x80"))


def test_a_volume_larger_than_its_partition_is_refused(small: FatImage) -> None:
    partition = Partition(1, small.start_bytes, small.size_bytes - 512, "0x0c")
    assert "larger than the partition" in refusal(small, partition)


def test_a_volume_smaller_than_its_partition_is_fine(small: FatImage) -> None:
    partition = Partition(1, small.start_bytes, small.size_bytes + 512, "0x0c")
    with open_raw(small.path) as raw:
        assert BootBase(raw, partition).apply(EDITS, EPOCH).runs


@pytest.mark.parametrize(
    ("kind", "offset", "value"),
    [(16, 0x25, 1), (12, 0x25, 1), (32, 0x41, 1), (16, -1, 0x7F), (16, -1, 0xBF), (32, -2, 0x07)],
)
def test_a_dirty_volume_is_read_and_edited_and_says_so(
    tmp_path: Path, kind: int, offset: int, value: int
) -> None:
    size, cluster = {12: (1, 512), 16: (4, 512), 32: (40, 512)}[kind]
    image = make_image(
        tmp_path / "d.img", kind=kind, size_mib=size, cluster_bytes=cluster, files=STOCK
    )
    raw_volume = RawVolume(image)
    places = [offset]
    if offset < 0:
        inner = {-1: 3, -2: 7}[offset]
        places = [raw_volume.fat_at + copy * raw_volume.fat_bytes + inner for copy in (0, 1)]
    for place in places:
        broken(image, place, bytes([value]))
    with open_raw(image.path) as raw:
        base = BootBase(raw, image.partition())
        assert not base.volume.clean
        assert base.volume.read("cmdline.txt") == STOCK["cmdline.txt"]
        patch = base.apply(EDITS, EPOCH)
        assert not BootVolume(PatchedImage(raw, patch), image.partition()).clean


def test_a_base_with_damage_is_not_edited(small: FatImage) -> None:
    volume = RawVolume(small)
    start = struct.unpack_from("<H", volume.records()[short("kernel.img")].short, 26)[0]
    loop = struct.pack("<I", start)
    for copy in (0, 1):
        broken(small, volume.fat_at + copy * volume.fat_bytes + (start + 3) * 4, loop)
    with open_raw(small.path) as raw:
        base = BootBase(raw, small.partition())
        assert base.volume.read("cmdline.txt") == STOCK["cmdline.txt"]
        with pytest.raises(ImageError, match="damaged"):
            base.apply(EDITS, EPOCH)


def test_the_version_of_pyfatfs_is_asserted_on_import() -> None:
    program = (
        "import importlib.metadata as m, pyfatfs\n"
        "pyfatfs.__file__ = '/another/place/pyfatfs/__init__.py'\n"
        "m.version = lambda name: '1.1.1'\n"
        "import imagebuilder.disk.fat.table\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "pyfatfs 1.1.0 is required, 1.1.1 is installed" in done.stderr


def test_what_corrupts_is_never_imported() -> None:
    program = (
        "import sys, imagebuilder.disk.fat.volume\n"
        "bad = {'fs', 'pkg_resources', 'pyfatfs.PyFatFS', 'pyfatfs.FatIO'} & set(sys.modules)\n"
        "sys.exit(str(bad) if bad else 0)\n"
    )
    run(sys.executable, "-c", program)


def test_the_view_is_what_is_patched_and_the_base_is_only_read(small: FatImage) -> None:
    before = small.path.read_bytes()
    patch = patch_of(small, EDITS)
    assert small.path.read_bytes() == before
    with open_raw(small.path) as raw:
        view = CowView(raw, small.start_bytes, small.size_bytes)
        for piece in patch.runs:
            view.write_at(piece.offset_bytes - small.start_bytes, piece.data)
        assert view.patch() == patch
