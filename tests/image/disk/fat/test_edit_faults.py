"""Each fault of pyfatfs 1.1.0 that would damage a boot partition, shown not to reach one.

The numbers are those of docs/decisions/0002-the-safe-fat-edit.md.
"""

from __future__ import annotations

import gc
import struct
from typing import TYPE_CHECKING

import pytest

from imagebuilder.disk.cow import CowView
from imagebuilder.disk.extent import Patch
from imagebuilder.disk.fat.edit import BootBase
from imagebuilder.disk.fat.table import BootFat
from imagebuilder.disk.fat.volume import BootVolume
from imagebuilder.disk.reader import open_raw
from imagebuilder.errors import ImageError
from imagebuilder.model import BootEdit
from tests.lib.fat_edits import broken, edited, geometry_name, patch_of
from tests.lib.fat_images import (
    EPOCH,
    FatImage,
    fsck,
    make_geometry,
    make_image,
    mattrib,
    mlist,
    mtype,
    put_files,
)
from tests.lib.fat_oracle import RawVolume, short
from tests.lib.tools import run

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

KINDS = ((12, 1, 512), (16, 4, 512), (32, 34, 512))


@pytest.fixture(params=KINDS, ids=geometry_name)
def image(request: pytest.FixtureRequest, tmp_path: Path) -> FatImage:
    return made(tmp_path, request.param, {"cmdline.txt": b"c" * 3000, "empty.txt": b""})


def made(tmp_path: Path, geometry: tuple[int, int, int], files: Mapping[str, bytes]) -> FatImage:
    return make_geometry(tmp_path / "base.img", geometry, files=files, label="CONFIG")


def first_cluster(image: FatImage, path: bytes) -> int:
    record = RawVolume(image).records()[path].short
    low, high = struct.unpack_from("<H", record, 26)[0], struct.unpack_from("<H", record, 20)[0]
    return int(low | high << 16)


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 1024, 2999, 3072, 3073, 100_000])
def test_1_overwriting_a_file_of_many_clusters(image: FatImage, size: int) -> None:
    content = bytes(index % 255 + 1 for index in range(size))
    out = edited(image, [BootEdit("cmdline.txt", content)])
    assert mtype(out, "cmdline.txt") == content
    used = -(-size // 512) - 6
    assert RawVolume(image).free() - RawVolume(out).free() == used


def test_2_writing_nothing_leaves_no_cluster(image: FatImage) -> None:
    out = edited(image, [BootEdit("cmdline.txt", b""), BootEdit("new.txt", b"")])
    assert first_cluster(out, short("cmdline.txt")) == 0
    assert first_cluster(out, short("new.txt")) == 0
    assert RawVolume(out).free() == RawVolume(image).free() + 6


def test_3_writing_over_an_empty_file_leaves_the_first_fat_entries(image: FatImage) -> None:
    out = edited(image, [BootEdit("empty.txt", b"no more"), BootEdit("cmdline.txt", None)])
    out = edited(out, [BootEdit("empty.txt", b""), BootEdit("empty.txt", None)])
    before, after = RawVolume(image), RawVolume(out)
    assert [after.fat(n) for n in (0, 1)] == [before.fat(n) for n in (0, 1)]


def test_4_fsinfo_counts_the_free_clusters(tmp_path: Path) -> None:
    image = made(tmp_path, KINDS[2], {"cmdline.txt": b"c" * 3000})
    out = edited(image, [BootEdit("a/b/c.txt", b"x" * 5000), BootEdit("cmdline.txt", b"")])
    volume = RawVolume(out)
    free, following = struct.unpack_from("<II", volume.bytes, 512 + 488)
    assert free == volume.free()
    assert 2 <= following < volume.clusters + 2
    assert "Free cluster summary" not in fsck(out)


def test_4_a_wrong_or_unknown_fsinfo_is_put_right(tmp_path: Path) -> None:
    image = broken(made(tmp_path, KINDS[2], {}), 512 + 488, b"\xff" * 8)
    out = edited(image, [BootEdit("a", b"x")])
    assert struct.unpack_from("<I", RawVolume(out).bytes, 512 + 488) == (RawVolume(out).free(),)


@pytest.mark.parametrize(("at", "value"), [(48, b"\0\0"), (48, b"\xff\xff"), (512, b"none")])
def test_4_a_volume_without_fsinfo_is_edited_without(tmp_path: Path, at: int, value: bytes) -> None:
    image = broken(made(tmp_path, KINDS[2], {}), at, value)
    before = RawVolume(image).bytes[512:1024]
    patch = patch_of(image, [BootEdit("a", b"x")])
    assert all(not 0 <= r.offset_bytes - image.start_bytes < 1024 for r in patch.runs)
    assert RawVolume(image).bytes[512:1024] == before


def test_5_a_full_volume_does_not_reach_the_next_partition(image: FatImage) -> None:
    volume = RawVolume(image)
    assert volume.fat_bytes * 8 // volume.bits > volume.clusters + 2, "the FAT has spare entries"
    with pytest.raises(ImageError, match="not enough space"):
        patch_of(image, [BootEdit("big", bytes((volume.free() + 1) * 512))])
    out = edited(image, [BootEdit("big", b"\xee" * (volume.free() * 512))])
    end = image.start_bytes + image.size_bytes
    assert out.path.read_bytes()[end:] == image.path.read_bytes()[end:]
    after = RawVolume(out)
    spare = range(volume.clusters + 2, volume.fat_bytes * 8 // volume.bits)
    assert [after.fat(n) for n in spare] == [volume.fat(n) for n in spare]


def test_6_a_folder_that_shrinks_brings_nothing_back(image: FatImage) -> None:
    names = [f"sub/a rather long name {n}.txt" for n in range(60)]
    out = edited(image, [BootEdit(name, b"x") for name in names])
    out = edited(out, [BootEdit(name, None) for name in names[1:]])
    assert [n for n in mlist(out) if n.startswith("sub/")] == [names[0]]
    out = edited(out, [BootEdit(f"sub/{n}", b"y") for n in range(40)])
    assert len([n for n in mlist(out) if n.startswith("sub/")]) == 41


def test_6_ghosts_behind_the_end_mark_stay_buried(image: FatImage) -> None:
    image = edited(image, [BootEdit("sub/first.txt", b"1")])
    volume = RawVolume(image)
    start = volume.data_at + (first_cluster(image, b"SUB        ") - 2) * volume.cluster
    ghost = volume.records()[b"SUB        /FIRST   TXT"].short.replace(b"FIRST", b"GHOST")
    broken(image, start + 4 * 32, ghost * 4)
    assert "sub/first.txt" in mlist(image)
    assert not [n for n in mlist(image) if "host" in n]
    out = edited(image, [BootEdit("sub/new.txt", b"2")])
    assert [n for n in mlist(out) if n.startswith("sub/")] == ["sub/first.txt", "sub/new.txt"]
    with open_raw(out.path) as raw:
        assert not BootVolume(raw, out.partition()).exists("sub/ghost.txt")


@pytest.mark.parametrize("name", ["cmdline.txt", "CMDLINE.TXT", "Cmdline.Txt"])
def test_7_the_right_file_is_edited_whatever_the_case(image: FatImage, name: str) -> None:
    assert RawVolume(image).records()[short("cmdline.txt")].short[12] == 0x18, "NT case bits"
    out = edited(image, [BootEdit(name, b"right")])
    assert mlist(out) == ("cmdline.txt", "empty.txt")
    assert mtype(out, "cmdline.txt") == b"right"


def test_7_a_file_with_a_long_name_is_found_by_it_and_by_its_alias(image: FatImage) -> None:
    put_files(image, {"Some Long Name.txt": b"1"})
    for name in ("some LONG name.TXT", "SOMELO~1.TXT", "somelo~1.txt"):
        out = edited(image, [BootEdit(name, name.encode())])
        assert mlist(out) == ("Some Long Name.txt", "cmdline.txt", "empty.txt")
        assert mtype(out, "Some Long Name.txt") == name.encode()


def test_8_a_file_named_like_the_volume_leaves_the_label(image: FatImage) -> None:
    out = edited(image, [BootEdit("CONFIG", b"x")])
    assert mtype(out, "CONFIG") == b"x"
    out = edited(out, [BootEdit("CONFIG", None)])
    assert "CONFIG" in run("mlabel", "-s", "-i", out.drive, "::")
    assert mlist(out) == ("cmdline.txt", "empty.txt")


def test_9_an_escaped_first_byte_survives(image: FatImage) -> None:
    put_files(image, {"XBC.TXT": b"escaped"})
    at = bytes(RawVolume(image).bytes).find(b"XBC     TXT")
    broken(image, at, b"\x05")
    out = edited(image, [BootEdit("cmdline.txt", b"x"), BootEdit("new.txt", b"y")])
    assert RawVolume(out).records()[b"\x05BC     TXT"].data == b"escaped"
    with open_raw(out.path) as raw:
        volume = BootVolume(raw, out.partition())
        assert volume.read(b"\xe5BC.TXT".decode("cp437")) == b"escaped"


@pytest.mark.parametrize("clusters", [4080, 4081, 4084, 4085])
def test_10_the_kind_goes_by_the_count_of_clusters(tmp_path: Path, clusters: int) -> None:
    kind = 12 if clusters < 4085 else 16
    image = make_image(
        tmp_path / "base.img", kind=kind, size_mib=3, cluster_bytes=512, options=["-a"],
        volume_kib=2070 if kind == 12 else None,
    )  # fmt: skip
    volume = RawVolume(image)
    total = volume.data_at // 512 + clusters
    broken(image, 19, struct.pack("<H", total))
    fsck(image)
    assert RawVolume(image).clusters == clusters
    with open_raw(image.path) as raw:
        base = BootBase(raw, image.partition())
        assert base.volume.kind == f"FAT{kind}"
        free = base.volume.free_bytes
    content = bytes(range(256)) * 2 * clusters
    out = edited(image, [BootEdit("full", content[:free])])
    assert mtype(out, "full") == content[:free]


@pytest.mark.parametrize("name", ["a:b", "a\\b", "a?", "a*", "a\tb", "dot.", "blank ", "CON"])
def test_11_bad_names_are_refused(image: FatImage, name: str) -> None:
    with pytest.raises(ImageError, match="is not a valid path"):
        patch_of(image, [BootEdit(name, b"x")])


@pytest.mark.parametrize("length", [127, 128, 129, 253, 255])
def test_11_long_names_hold_up_to_the_limit(image: FatImage, length: int) -> None:
    out = edited(image, [BootEdit("é" * length, b"long")])
    assert "é" * length in mlist(out)


def test_12_nothing_is_flushed_behind_ones_back(image: FatImage) -> None:
    with open_raw(image.path) as raw:
        view = CowView(raw, image.start_bytes, image.size_bytes)
        fat = BootFat(view)
        fat.allocate_bytes(5000)
        fat.close()
        del fat
        gc.collect()
        assert view.patch() == Patch()


def test_13_after_a_full_root_the_base_can_be_used_again(tmp_path: Path) -> None:
    image = make_image(tmp_path / "base.img", size_mib=4, cluster_bytes=512, root_entries=32)
    with open_raw(image.path) as raw:
        base = BootBase(raw, image.partition())
        with pytest.raises(ImageError, match="directory entries needed"):
            base.apply([BootEdit(f"file{n}", b"x") for n in range(99)], EPOCH)
        patch = base.apply([BootEdit("file", b"x")], EPOCH)
    assert patch == patch_of(image, [BootEdit("file", b"x")])


def test_15_a_read_only_file_is_rewritten_whole_and_stays_read_only(image: FatImage) -> None:
    run("mattrib", "+r", "+h", "-i", image.drive, "::cmdline.txt")
    out = edited(image, [BootEdit("cmdline.txt", b"n" * 2000)])
    assert mtype(out, "cmdline.txt") == b"n" * 2000
    assert {"R", "H", "A"} <= set(mattrib(out, "cmdline.txt"))
    assert "cmdline.txt" not in mlist(edited(out, [BootEdit("cmdline.txt", None)]))


def test_16_a_folder_whose_chain_loops_is_an_error(image: FatImage) -> None:
    image = edited(image, [BootEdit(f"sub/file {n}.txt", b"x") for n in range(30)])
    volume = RawVolume(image)
    start = first_cluster(image, b"SUB        ")
    following = volume.fat(start) & 0x0FFFFFFF
    assert 2 <= following < volume.clusters + 2
    link(image, following, start)
    with open_raw(image.path) as raw:
        base = BootBase(raw, image.partition())
        assert base.volume.read("cmdline.txt") == b"c" * 3000
        for act in (
            base.volume.names,
            lambda: base.volume.exists("sub/x"),
            lambda: base.apply([BootEdit("sub/x", b"")], EPOCH),
        ):
            with pytest.raises(ImageError, match="damaged"):
                act()


def test_16_a_folder_inside_itself_is_an_error(image: FatImage) -> None:
    image = edited(image, [BootEdit("sub/in/x.txt", b"x")])
    volume = RawVolume(image)
    outer = first_cluster(image, b"SUB        ")
    slot = volume.data_at + (outer - 2) * volume.cluster + 64
    broken(image, slot + 26, struct.pack("<H", outer))
    with open_raw(image.path) as raw:
        base = BootBase(raw, image.partition())
        with pytest.raises(ImageError, match="two places"):
            base.volume.names()
        with pytest.raises(ImageError, match="damaged"):
            base.apply([BootEdit("x", b"")], EPOCH)


def link(image: FatImage, number: int, following: int) -> None:
    """Set one FAT entry in every copy."""
    volume = RawVolume(image)
    for copy in range(volume.fats):
        at = volume.fat_at + copy * volume.fat_bytes + number * volume.bits // 8
        if volume.bits == 12:
            (pair,) = struct.unpack_from("<H", volume.bytes, at)
            pair = pair & 0xF | following << 4 if number % 2 else pair & 0xF000 | following
            broken(image, at, struct.pack("<H", pair))
        else:
            broken(image, at, struct.pack("<H" if volume.bits == 16 else "<I", following))


def test_22_deleting_frees_the_clusters(image: FatImage) -> None:
    out = edited(image, [BootEdit("cmdline.txt", None)])
    assert RawVolume(out).free() == RawVolume(image).free() + 6


def test_23_headers_and_reserved_fat_bits_stay(tmp_path: Path) -> None:
    image = made(tmp_path, KINDS[2], {"cmdline.txt": b"c" * 3000})
    volume = RawVolume(image)
    start = first_cluster(image, short("cmdline.txt"))
    for number in (1, start, start + 1, start + 9, start + 10):
        link(image, number, volume.fat(number) | 0xA000_0000)
    with open_raw(image.path) as raw:
        assert BootVolume(raw, image.partition()).read("cmdline.txt") == b"c" * 3000
    out = edited(image, [BootEdit("cmdline.txt", b"n" * 20_000), BootEdit("x", b"x" * 600)])
    before, after = RawVolume(image), RawVolume(out)
    for number in range(start + 60):
        assert after.fat(number) >> 28 == before.fat(number) >> 28
    assert after.bytes[:512] == before.bytes[:512]
    assert after.bytes[1024 : after.fat_at] == before.bytes[1024 : before.fat_at], "backup"
    assert mtype(out, "cmdline.txt") == b"n" * 20_000
