"""The write set of whole disks, and of FAT volumes against mtools."""

from __future__ import annotations

import random
import re
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagebuilder.disk.extent import Extent, Partition, Patch, Run
from imagebuilder.disk.fat import usage
from imagebuilder.disk.fat.edit import BootBase
from imagebuilder.disk.reader import open_raw
from imagebuilder.disk.write_set import (
    CHUNK_BYTES,
    GRAIN_BYTES,
    chunks,
    join,
    plan_write_set,
    total_bytes,
)
from imagebuilder.model import BootEdit
from tests.lib.tools import need, run

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1 << 20

extents = st.lists(
    st.builds(Extent, st.integers(0, 50 * MIB), st.integers(0, 6 * MIB)), max_size=12
)


@given(extents, st.integers(MIB, 60 * MIB))
def test_joined_ranges_cover_all_apart_sorted_and_rounded(parts: list[Extent], end: int) -> None:
    joined = join(parts, GRAIN_BYTES, end)
    for before, after in pairwise(joined):
        assert before.end_bytes < after.start_bytes
    for extent in joined:
        assert extent.start_bytes % GRAIN_BYTES == 0
        assert extent.end_bytes % GRAIN_BYTES == 0 or extent.end_bytes == end
    for part in parts:
        stop = min(part.end_bytes, end)
        if part.start_bytes < stop and part.size_bytes:
            assert any(e.start_bytes <= part.start_bytes and stop <= e.end_bytes for e in joined)


@given(extents, st.integers(MIB, 60 * MIB))
def test_chunks_are_the_ranges_cut_at_multiples(parts: list[Extent], end: int) -> None:
    joined = join(parts, GRAIN_BYTES, end)
    pieces = list(chunks(joined))
    assert (
        total_bytes(joined) <= total_bytes(pieces) < total_bytes(joined) + 512 * (len(joined) + 1)
    )
    for piece in pieces:
        assert 0 < piece.size_bytes <= CHUNK_BYTES
        assert piece.start_bytes // CHUNK_BYTES == (piece.end_bytes - 1) // CHUNK_BYTES
        assert piece.size_bytes % 512 == 0


FATS = {
    "FAT12": ("2M", ["-F", "12"]),
    "FAT16": ("64M", ["-F", "16", "-s", "4", "-R", "4"]),
    "FAT16 odd": ("9M", ["-F", "16", "-s", "1"]),
    "FAT32": ("300M", ["-F", "32", "-s", "8"]),
    "one FAT": ("64M", ["-F", "16", "-f", "1"]),
}


def fat(folder: Path, size: str, options: list[str]) -> Path:
    need("mkfs.vfat", "mcopy", "mdel", "mshowfat", "minfo")
    volume = folder / "fat"
    run("truncate", "-s", size, volume)
    run("mkfs.vfat", *options, volume)
    for number in range(20):
        file = folder / f"file{number}"
        file.write_bytes(bytes([number + 1]) * (number * 3001))
        run("mcopy", "-i", volume, file, f"::{file.name}")
    for number in range(0, 20, 3):
        run("mdel", "-i", volume, f"::file{number}")
    return volume


@pytest.mark.parametrize("kind", FATS)
def test_every_cluster_of_every_file_is_in_use_and_no_free_one(tmp_path: Path, kind: str) -> None:
    volume = fat(tmp_path, *FATS[kind])
    with open_raw(volume) as disk:
        used = usage.used_extents(disk, 0, disk.size_bytes)
        layout = usage._layout_of(disk.read_at(0, 512))
    assert used is not None
    assert layout is not None
    clusters = {
        (byte - layout.data_start) // layout.cluster_bytes + 2
        for extent in used
        for byte in range(extent.start_bytes, extent.end_bytes, layout.cluster_bytes)
        if layout.data_start <= byte < layout.data_start + layout.clusters * layout.cluster_bytes
    }
    owned: set[int] = {2} if kind == "FAT32" else set()  # the root directory
    for first, last in re.findall(r"<(\d+)(?:-(\d+))?>", run("mshowfat", "-i", volume, "::*")):
        owned |= set(range(int(first), int(last or first) + 1))
    assert owned
    assert clusters == owned


@pytest.mark.parametrize("reach", [1, 3, 100])
def test_free_clusters_are_reached_before_and_after_the_last_used_one(
    tmp_path: Path, reach: int
) -> None:
    volume = fat(tmp_path, *FATS["FAT16"])
    with open_raw(volume) as disk:
        layout = usage._layout_of(disk.read_at(0, 512))
        assert layout is not None
        reach_bytes = min(reach * layout.cluster_bytes, disk.size_bytes)
        found = usage.used_extents(disk, 0, disk.size_bytes, reach_bytes=reach_bytes)
    assert found is not None
    shown = run("mshowfat", "-i", volume, "::*")
    last = max(int(number) for number in re.findall(r"(\d+)>", shown))
    end = layout.data_start + min(last - 1 + reach, layout.clusters) * layout.cluster_bytes
    covered = {extent.end_bytes for extent in found if extent.start_bytes <= layout.data_start}
    assert max(covered) == end


def put(volume: Path, *edits: BootEdit) -> None:
    """Edit a volume; mtools takes a FAT32 with few clusters for a FAT16."""
    with open_raw(volume) as disk:
        partition = Partition(1, 0, disk.size_bytes, "0c")
        patch = BootBase(disk, partition).apply(edits, 1_447_322_400)
    with volume.open("r+b") as file:
        for piece in patch.runs:
            file.seek(piece.offset_bytes)
            file.write(piece.data)


def test_a_fat32_with_few_clusters_is_one(tmp_path: Path) -> None:
    """The bytes of the files tell where they lie, and fsck.fat that Linux sees them there."""
    need("mkfs.vfat", "fsck.fat")
    volume = tmp_path / "fat"
    run("truncate", "-s", "62M", volume)
    run("mkfs.vfat", "-F", "32", "-s", "4", volume)
    old, kernel = b"old" * (8 * MIB), random.Random(1).randbytes(5 * MIB)
    put(volume, BootEdit("old.img", old), BootEdit("kernel7.img", kernel))
    raw = volume.read_bytes()
    before, start = raw.index(old), raw.index(kernel)
    assert before < start
    put(volume, BootEdit("old.img", None))
    with open_raw(volume) as disk:
        used = usage.used_extents(disk, 0, disk.size_bytes)
    assert used is not None
    assert any(e.start_bytes <= start and start + len(kernel) <= e.end_bytes for e in used)
    assert not any(e.start_bytes < start and before < e.end_bytes for e in used)
    copy = tmp_path / "copy"
    with copy.open("wb") as file:
        file.truncate(len(raw))
        for extent in used:
            file.seek(extent.start_bytes)
            file.write(volume.read_bytes()[extent.start_bytes : extent.end_bytes])
    assert "1 files" in run("fsck.fat", "-n", copy)


def test_what_is_no_fat_is_none(tmp_path: Path) -> None:
    file = tmp_path / "x"
    for content in (b"", bytes(512), b"\xeb\x52\x90NTFS    " + bytes(499) + b"\x55\xaa"):
        file.write_bytes(content)
        with open_raw(file) as disk:
            assert usage.used_extents(disk, 0, 1 << 20) is None


def test_a_fat_larger_than_its_partition_is_not_guessed_at(tmp_path: Path) -> None:
    volume = fat(tmp_path, *FATS["FAT16"])
    with open_raw(volume) as disk:
        assert usage.used_extents(disk, 0, disk.size_bytes - 512) is None


def make_disk(folder: Path, table: str, size_mib: int = 40) -> Path:
    need("sfdisk")
    image = folder / "disk.img"
    run("truncate", "-s", f"{size_mib}M", image)
    run("sfdisk", "-q", image, input=table)
    return image


def write_set(image: Path, patch: Patch | None = None, *, full: bool = False) -> list[Extent]:
    with open_raw(image) as disk:
        return list(plan_write_set(disk, patch or Patch(), full=full))


def test_a_partition_that_nobody_understands_is_written_in_full(tmp_path: Path) -> None:
    image = make_disk(tmp_path, "label: dos\nstart=2048, size=20480, type=83\n")
    assert write_set(image) == [Extent(0, 40 * MIB)]


def test_an_image_without_a_table_is_written_in_full(tmp_path: Path) -> None:
    image = tmp_path / "raw"
    image.write_bytes(bytes(5 * MIB + 7))
    assert write_set(image) == [Extent(0, 5 * MIB + 7)]


@pytest.mark.parametrize("label", ["dos", "gpt"])
def test_gaps_are_written_and_free_blocks_are_not(tmp_path: Path, label: str) -> None:
    kind = "83" if label == "dos" else "L"
    table = f"label: {label}\nstart=8192, size=40960, type={kind}\n"
    image = make_disk(tmp_path, table)
    root = tmp_path / "root"
    run("truncate", "-s", "20M", root)
    run("mkfs.ext4", "-q", "-F", "-b", "4096", "-O", "^has_journal", root)
    run("dd", f"if={root}", f"of={image}", "bs=1M", "seek=4", "conv=notrunc")
    found = write_set(image)
    assert found[0].start_bytes == 0
    assert found[-1].end_bytes == 40 * MIB
    assert total_bytes(found) < 30 * MIB
    assert any(e.start_bytes <= 24 * MIB and e.end_bytes == 40 * MIB for e in found)
    assert write_set(image, full=True) == [Extent(0, 40 * MIB)]


def test_logical_partitions_are_understood_and_their_frame_is_written(tmp_path: Path) -> None:
    table = "label: dos\nstart=2048, size=61440, type=5\nstart=4096, size=40960, type=83\n"
    table = table.replace("\nstart=4096", "\n,\n")[: table.index("\nstart=4096")]
    image = make_disk(tmp_path, table + "\n5 : start=4096, size=40960, type=83\n")
    root = tmp_path / "root"
    run("truncate", "-s", "20M", root)
    run("mkfs.ext4", "-q", "-F", "-b", "4096", "-O", "^has_journal", root)
    run("dd", f"if={root}", f"of={image}", "bs=1M", "seek=2", "conv=notrunc")
    found = write_set(image)
    assert total_bytes(found) < 30 * MIB
    assert found[0] == Extent(0, found[0].size_bytes)


def test_the_patch_is_written_wherever_it_lies(tmp_path: Path) -> None:
    image = make_disk(tmp_path, "label: dos\nstart=8192, size=40960, type=83\n")
    root = tmp_path / "root"
    run("truncate", "-s", "20M", root)
    run("mkfs.ext4", "-q", "-F", "-b", "4096", "-O", "^has_journal", root)
    run("dd", f"if={root}", f"of={image}", "bs=1M", "seek=4", "conv=notrunc")
    without = write_set(image)
    hole = next(
        MIB * n
        for n in range(5, 24)
        if not any(e.start_bytes <= MIB * n < e.end_bytes for e in without)
    )
    patched = write_set(image, Patch((Run(hole + 512, b"x" * 512),)))
    assert any(e.start_bytes <= hole and hole + MIB <= e.end_bytes for e in patched)
    assert total_bytes(patched) == total_bytes(without) + MIB
