"""Used blocks of ext4 against e2fsprogs: only what dumpe2fs calls free is left out."""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING

import pytest

from imagebuilder.disk import ext4
from imagebuilder.disk.extent import Extent
from imagebuilder.disk.reader import open_raw
from tests.lib.tools import need, run

if TYPE_CHECKING:
    from pathlib import Path

# Layouts that Debian, Raspberry Pi OS and Hypriot made over the years, and the odd ones.
UNDERSTOOD = {
    "wheezy": ["-t", "ext4", "-b", "4096", "-O", "^64bit,^metadata_csum,uninit_bg"],
    "bookworm": ["-t", "ext4", "-b", "4096", "-O", "64bit,metadata_csum,flex_bg"],
    "no-flex": ["-t", "ext4", "-O", "^flex_bg,^64bit,^metadata_csum,uninit_bg"],
    "no-flex-csum": ["-t", "ext4", "-O", "^flex_bg,metadata_csum"],
    "meta-bg": ["-t", "ext4", "-b", "4096", "-O", "meta_bg,^resize_inode,64bit"],
    "meta-bg-no-flex": ["-t", "ext4", "-O", "meta_bg,^resize_inode,^flex_bg"],
    "sparse2": ["-t", "ext4", "-O", "sparse_super2,^resize_inode"],
    "no-sparse": ["-t", "ext4", "-O", "^sparse_super,^resize_inode,^meta_bg"],
    "kib-blocks": ["-t", "ext4", "-b", "1024"],
    "kib-small-groups": ["-t", "ext4", "-b", "1024", "-g", "1024"],
    "two-kib-blocks": ["-t", "ext4", "-b", "2048"],
    "ext2": ["-t", "ext2"],
    "ext3": ["-t", "ext3"],
    "no-journal": ["-t", "ext4", "-O", "^has_journal"],
    "inline": ["-t", "ext4", "-O", "inline_data"],
    "orphan-file": ["-t", "ext4", "-O", "orphan_file"],
    "lazy": ["-t", "ext4", "-b", "4096", "-E", "lazy_itable_init=1,lazy_journal_init=1"],
    "packed": ["-t", "ext4", "-b", "4096", "-E", "packed_meta_blocks=1"],
}


def make(folder: Path, options: list[str], size: str = "96M", *, filled: bool = True) -> Path:
    need("mkfs.ext4", "dumpe2fs")
    image = folder / "fs.img"
    tree = folder / "tree"
    tree.mkdir()
    if filled:
        for number in range(40):
            (tree / f"file-{number}").write_bytes(bytes([number + 1]) * (number * 7919 % 900_000))
    run("truncate", "-s", size, image)
    run("mkfs.ext4", "-q", "-F", *options, "-d", tree, image)
    return image


def free_blocks(image: Path) -> tuple[set[int], int, int]:
    """Return what dumpe2fs calls free, the size of a block and the count of blocks."""
    text = run("dumpe2fs", image)
    free: set[int] = set()
    for line in re.findall(r"^  Free blocks: (.+)$", text, re.MULTILINE):
        for part in line.split(", "):
            first, _, last = part.partition("-")
            free |= set(range(int(first), int(last or first) + 1))
    size = re.search(r"^Block size: +(\d+)$", text, re.MULTILINE)
    count = re.search(r"^Block count: +(\d+)$", text, re.MULTILINE)
    assert size
    assert count
    return free, int(size[1]), int(count[1])


def blocks_of(extents: tuple[Extent, ...], block_bytes: int) -> set[int]:
    return {
        block
        for extent in extents
        for block in range(extent.start_bytes // block_bytes, extent.end_bytes // block_bytes)
    }


@pytest.mark.parametrize("layout", UNDERSTOOD)
def test_every_block_is_either_used_or_free_as_dumpe2fs_says(tmp_path: Path, layout: str) -> None:
    image = make(tmp_path, UNDERSTOOD[layout])
    free, block_bytes, count = free_blocks(image)
    with open_raw(image) as disk:
        used = ext4.used_extents(disk, 0, disk.size_bytes)
    assert used is not None
    assert free
    assert blocks_of(used, block_bytes) == set(range(count)) - free


def test_many_groups_without_a_written_bitmap(tmp_path: Path) -> None:
    """A sparse 40 GB file system: nearly all groups are BLOCK_UNINIT."""
    image = make(tmp_path, UNDERSTOOD["wheezy"], "40G")
    with open_raw(image) as disk:
        used = ext4.used_extents(disk, 0, disk.size_bytes)
    text = run("dumpe2fs", "-h", image)
    total, free = (
        int(re.search(rf"^{word}: +(\d+)$", text, re.MULTILINE)[1])  # type: ignore[index]
        for word in ("Block count", "Free blocks")
    )
    assert used is not None
    assert sum(extent.size_bytes for extent in used) == (total - free) * 4096


def test_extents_stand_where_the_partition_stands(tmp_path: Path) -> None:
    image = make(tmp_path, UNDERSTOOD["bookworm"], filled=False)
    whole = tmp_path / "disk.img"
    start = 3 << 20
    whole.write_bytes(bytes(start) + image.read_bytes())
    with open_raw(image) as alone, open_raw(whole) as disk:
        here = ext4.used_extents(alone, 0, alone.size_bytes)
        there = ext4.used_extents(disk, start, disk.size_bytes - start)
    assert here is not None
    assert there == tuple(Extent(e.start_bytes + start, e.size_bytes) for e in here)


def test_what_follows_the_file_system_in_its_partition_counts_as_used(tmp_path: Path) -> None:
    image = make(tmp_path, UNDERSTOOD["bookworm"], filled=False)
    size = image.stat().st_size
    with image.open("ab") as file:
        file.truncate(size + (5 << 20))
    with open_raw(image) as disk:
        used = ext4.used_extents(disk, 0, disk.size_bytes)
    assert used is not None
    assert used[-1] == Extent(size, 5 << 20)


def test_after_years_of_use_the_bitmaps_are_still_read_right(tmp_path: Path) -> None:
    """Written to and deleted from by debugfs, so that free and used alternate."""
    image = make(tmp_path, UNDERSTOOD["bookworm"])
    script = tmp_path / "commands"
    script.write_text("".join(f"rm file-{n}\n" for n in range(0, 40, 2)))
    run("debugfs", "-w", "-f", script, image)
    run("e2fsck", "-fy", image, check=False)
    free, block_bytes, count = free_blocks(image)
    with open_raw(image) as disk:
        used = ext4.used_extents(disk, 0, disk.size_bytes)
    assert used is not None
    assert blocks_of(used, block_bytes) == set(range(count)) - free


def patched(image: Path, offset: int, raw: bytes) -> Path:
    with image.open("r+b") as file:
        file.seek(1024 + offset)
        file.write(raw)
    return image


def refused(image: Path, size: int | None = None) -> bool:
    with open_raw(image) as disk:
        return ext4.used_extents(disk, 0, size or disk.size_bytes) is None


def test_bigalloc_is_not_guessed_at(tmp_path: Path) -> None:
    assert refused(make(tmp_path, ["-t", "ext4", "-O", "bigalloc", "-C", "65536"], filled=False))


def test_a_journal_that_waits_for_replay_is_not_guessed_at(tmp_path: Path) -> None:
    image = make(tmp_path, UNDERSTOOD["bookworm"], filled=False)
    incompat = struct.unpack("<I", image.read_bytes()[1024 + 96 : 1024 + 100])[0]
    assert refused(patched(image, 96, struct.pack("<I", incompat | 0x4)))


@pytest.mark.parametrize("state", [0, 2, 3])
def test_an_unclean_file_system_is_not_guessed_at(tmp_path: Path, state: int) -> None:
    image = make(tmp_path, UNDERSTOOD["bookworm"], filled=False)
    assert refused(patched(image, 58, struct.pack("<H", state)))


@pytest.mark.parametrize("offset", [92, 96, 100])
def test_an_unknown_feature_is_not_guessed_at(tmp_path: Path, offset: int) -> None:
    image = make(tmp_path, UNDERSTOOD["bookworm"], filled=False)
    assert refused(patched(image, offset, b"\xff\xff\xff\xff"))


def test_a_bitmap_that_disagrees_with_its_count_is_not_believed(tmp_path: Path) -> None:
    image = make(tmp_path, UNDERSTOOD["bookworm"], filled=False)
    found = re.search(r"Block bitmap at (\d+)", run("dumpe2fs", image))
    assert found
    with image.open("r+b") as file:
        file.seek(int(found[1]) * 4096 + 2000)
        file.write(b"\x01")
    assert refused(image)


def test_a_free_count_that_disagrees_is_not_believed(tmp_path: Path) -> None:
    image = make(tmp_path, UNDERSTOOD["bookworm"], filled=False)
    assert refused(patched(image, 12, struct.pack("<I", 17)))


def test_a_file_system_larger_than_its_partition_is_not_guessed_at(tmp_path: Path) -> None:
    image = make(tmp_path, UNDERSTOOD["bookworm"], filled=False)
    assert refused(image, image.stat().st_size - 4096)


@pytest.mark.parametrize("garbage", [b"", b"\0" * 4096, bytes(range(256)) * 64])
def test_what_is_no_ext4_is_none(tmp_path: Path, garbage: bytes) -> None:
    image = tmp_path / "garbage"
    image.write_bytes(garbage)
    assert refused(image, 1 << 20)
