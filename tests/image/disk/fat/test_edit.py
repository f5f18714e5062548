"""Reading and editing a boot partition, checked by fsck.vfat, mtools and raw records."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from imagebuilder.disk.extent import Partition, Patch, Run
from imagebuilder.disk.fat.edit import BootBase
from imagebuilder.disk.fat.names import dos_time
from imagebuilder.disk.fat.volume import BootVolume
from imagebuilder.disk.patched import PatchedImage
from imagebuilder.disk.reader import open_raw
from imagebuilder.errors import ImageError
from imagebuilder.model import BootEdit
from imagebuilder.progress import two_sizes
from tests.lib.fat_edits import EDITS, STOCK, edited, geometry_name, patch_of
from tests.lib.fat_images import (
    EPOCH,
    GEOMETRIES,
    FatImage,
    make_image,
    mattrib,
    mlist,
    mtype,
    write_patched,
)
from tests.lib.fat_oracle import RawVolume, short
from tests.lib.tools import need, run

ROOT = Path(__file__).parents[4]


on_small = pytest.mark.parametrize(
    "image", [g for g in GEOMETRIES if g[1] <= 40], ids=geometry_name, indirect=True
)


def test_a_volume_is_read_as_mtools_reads_it(
    image: FatImage, request: pytest.FixtureRequest
) -> None:
    kind, _, cluster_bytes = request.node.callspec.params["image"]
    with open_raw(image.path) as raw:
        volume = BootVolume(raw, image.partition())
        assert volume.kind == f"FAT{kind}"
        assert volume.fat.bytes_per_cluster == cluster_bytes
        assert volume.clean
        assert volume.free_bytes == RawVolume(image).free() * cluster_bytes
        assert volume.names() == mlist(image)
        assert {name: volume.read(name) for name in volume.names()} == STOCK


def test_look_up_minds_no_case_and_takes_short_names(image: FatImage) -> None:
    with open_raw(image.path) as raw:
        volume = BootVolume(raw, image.partition())
        for name in ("CMDLINE.TXT", "cmdline.txt", "CmdLine.Txt", "/cmdline.txt"):
            assert volume.exists(name)
            assert volume.read(name) == STOCK["cmdline.txt"]
        assert volume.read("OVERLAYS/hifibe~1.dtb") == STOCK["overlays/hifiberry-dac-overlay.dtb"]
        assert volume.exists("overlays")
        for name in ("absent", "cmdline.txt/x", "overlays/absent", "", "HYPRIOTOS", "overlays/.."):
            assert not volume.exists(name)
        with pytest.raises(ImageError, match="absent is not on the boot partition"):
            volume.read("absent")
        with pytest.raises(ImageError, match="is a folder"):
            volume.read("overlays")


def test_an_edit_is_seen_by_every_oracle(image: FatImage) -> None:
    out = edited(image, EDITS)
    wanted = {name: data for name, data in STOCK.items() if name != "overlays/README"}
    for edit in EDITS:
        if edit.data is not None:
            name = edit.path if edit.path != "OCCIDENTALIS.TXT" else "occidentalis.txt"
            wanted[name] = edit.data
    assert mlist(out) == tuple(sorted(wanted))
    for name, data in wanted.items():
        assert mtype(out, name) == data
    with open_raw(image.path) as raw, open_raw(out.path) as written:
        view = BootVolume(PatchedImage(raw, patch_of(image, EDITS)), image.partition())
        assert view.names() == tuple(sorted(wanted))
        assert {name: view.read(name) for name in wanted} == wanted
        assert view.free_bytes == BootVolume(written, image.partition()).free_bytes


def test_nothing_but_the_boot_partition_and_its_headers_changes(image: FatImage) -> None:
    out = edited(image, EDITS)
    before, after = image.path.read_bytes(), out.path.read_bytes()
    start, end = image.start_bytes, image.start_bytes + image.size_bytes
    assert before[:start] == after[:start]
    assert before[end:] == after[end:]
    assert len(before) == len(after)
    reserved = RawVolume(image).fat_at
    changed = [at for at in range(reserved) if before[start + at] != after[start + at]]
    assert all(512 + 488 <= at < 512 + 496 for at in changed), "only FSInfo's two numbers"


def test_untouched_files_keep_bytes_times_attributes_and_place(image: FatImage) -> None:
    run("mattrib", "+r", "+h", "-i", image.drive, "::kernel.img")
    out = edited(image, EDITS)
    before, after = RawVolume(image).records(), RawVolume(out).records()
    touched = {short("cmdline.txt"), b"OCCIDE~1TXT", b"OVERLAYS   /README     "}
    for path in before.keys() - touched:
        assert after[path] == before[path]
    assert mattrib(out, "kernel.img") == mattrib(image, "kernel.img")


def test_a_rewritten_file_keeps_name_attributes_and_creation_time(image: FatImage) -> None:
    run("mattrib", "+r", "+s", "-a", "-i", image.drive, "::cmdline.txt")
    run("mattrib", "-a", "-i", image.drive, "::Some Mixed Name.txt")
    edits = (BootEdit("CMDLINE.txt", b"new"), BootEdit("some mixed name.TXT", b"new"))
    out = edited(image, edits)
    before, after = RawVolume(image).records(), RawVolume(out).records()
    for path in (short("cmdline.txt"), b"SOMEMI~1TXT"):
        old, new = before[path], after[path]
        assert new.data == b"new"
        assert new.attributes == old.attributes | 0x20
        assert new.created == old.created
        assert (new.long, new.short[12]) == (old.long, old.short[12])
        date, time, _ = dos_time(EPOCH)
        assert new.modified == struct.pack("<HH", time, date)
        assert new.accessed == struct.pack("<H", date)
    assert mlist(out) == mlist(image)


def test_a_new_file_has_the_time_of_the_epoch_in_utc(image: FatImage) -> None:
    out = edited(image, [BootEdit("new/file.txt", b"x")], EPOCH + 1)
    date, time, _ = dos_time(EPOCH)
    for path in (b"NEW        ", b"NEW        /FILE    TXT"):
        record = RawVolume(out).records()[path]
        assert record.created == struct.pack("<BHH", 100, time, date)
        assert record.modified == struct.pack("<HH", time, date)
        assert record.accessed == struct.pack("<H", date)
    assert "2015-11-12  10:00" in run("mdir", "-i", out.drive, "::new/file.txt")


@pytest.mark.parametrize(
    ("epoch", "shown"),
    [(0, "1980-01-01"), (315_532_799, "1980-01-01"), (5_000_000_000, "2107-12-31")],
)
def test_times_that_fat_cannot_hold_are_clamped(tmp_path: Path, epoch: int, shown: str) -> None:
    image = make_image(tmp_path / "a.img", size_mib=4, cluster_bytes=512)
    out = edited(image, [BootEdit("file", b"x")], epoch)
    assert shown in run("mdir", "-i", out.drive, "::file")


def test_the_same_edit_gives_the_same_patch_at_any_time_and_in_any_zone(image: FatImage) -> None:
    program = (
        "import sys, hashlib, time\n"
        "from tests.lib.fat_edits import *\n"
        "from pathlib import Path\n"
        "image = FatImage(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))\n"
        "print(hashlib.sha256(repr(patch_of(image, EDITS)).encode()).hexdigest())\n"
    )
    place = [str(image.path), str(image.start_bytes), str(image.size_bytes)]
    seen = set()
    for zone, seed in (("UTC", "1"), ("Pacific/Kiritimati", "2")):
        environment = {**os.environ, "TZ": zone, "PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", program, *place]
        seen.add(subprocess.check_output(command, cwd=ROOT, env=environment))
    assert len(seen) == 1


def test_a_warm_base_gives_the_patch_of_a_cold_one(image: FatImage) -> None:
    with open_raw(image.path) as raw:
        base = BootBase(raw, image.partition())
        first = base.apply(EDITS, EPOCH)
        other = base.apply([BootEdit("cmdline.txt", b"other")], EPOCH)
        assert base.apply(EDITS, EPOCH) == first
    assert first == patch_of(image, EDITS)
    assert other == patch_of(image, [BootEdit("cmdline.txt", b"other")])


def test_no_edit_gives_no_patch(image: FatImage) -> None:
    assert patch_of(image, []) == Patch()
    assert patch_of(image, [BootEdit("absent.txt", None)]) == Patch()


def test_a_patch_over_a_patch_is_sound(image: FatImage) -> None:
    out = edited(image, EDITS)
    again = edited(out, [BootEdit(e.path, None) for e in EDITS if e.data is not None])
    left = tuple(
        n for n in STOCK if n not in {"cmdline.txt", "occidentalis.txt", "overlays/README"}
    )
    assert mlist(again) == tuple(sorted(left))


def test_the_last_cluster_is_padded_with_zeros(tmp_path: Path) -> None:
    image = make_image(
        tmp_path / "a.img", size_mib=16, cluster_bytes=4096, files={"junk": b"\xaa" * 50_000}
    )
    bare = edited(image, [BootEdit("junk", None)])
    out = edited(bare, [BootEdit("small", b"small")])
    volume = RawVolume(out)
    record = volume.records()[short("small")]
    content = volume.chain(struct.unpack_from("<H", record.short, 26)[0])
    assert content == b"small".ljust(4096, b"\0")


def test_a_folder_grows_over_many_clusters(image: FatImage) -> None:
    many = {f"folder/a rather long name of file {n}.txt": b"%d" % n for n in range(150)}
    out = edited(image, [BootEdit(name, data) for name, data in many.items()])
    assert set(mlist(out)) == set(many) | set(STOCK)
    assert mtype(out, "folder/a rather long name of file 149.txt") == b"149"


def test_folders_nest(image: FatImage) -> None:
    path = "/".join(f"level {n}" for n in range(8)) + "/file.txt"
    out = edited(image, [BootEdit(path, b"deep"), BootEdit(path.replace("file", "two"), b"2")])
    assert mtype(out, path) == b"deep"
    assert edited(out, [BootEdit(path, None)]).path.exists()


def test_names_of_short_form_are_stored_with_the_case_bits(image: FatImage) -> None:
    out = edited(image, [BootEdit("lower.txt", b""), BootEdit("UPPER.txt", b"")])
    records = RawVolume(out).records()
    assert [records[short(n)].short[12] for n in ("lower.txt", "upper.txt")] == [0x18, 0x10]
    assert [records[short(n)].long for n in ("lower.txt", "upper.txt")] == [b"", b""]
    assert {"lower.txt", "UPPER.txt"} <= set(mlist(out))


def test_many_names_with_one_beginning_get_different_aliases(image: FatImage) -> None:
    names = [f"wpa_supplicant number {n}.conf" for n in range(25)]
    out = edited(image, [BootEdit(name, name.encode()) for name in names])
    aliases = [path for path in RawVolume(out).records() if path.startswith(b"WPA")]
    assert len(set(aliases)) == 25
    for name in names:
        assert mtype(out, name) == name.encode()


def test_two_edits_of_one_file_leave_the_last(image: FatImage) -> None:
    out = edited(
        image,
        [
            BootEdit("cmdline.txt", b"first" * 5000),
            BootEdit("CMDLINE.TXT", b"second"),
            BootEdit("new.txt", b"first" * 5000),
            BootEdit("new.txt", None),
            BootEdit("new.txt", b"second"),
            BootEdit("kernel.img", b"first"),
            BootEdit("kernel.img", None),
        ],
    )
    assert mtype(out, "cmdline.txt") == mtype(out, "new.txt") == b"second"
    assert "kernel.img" not in mlist(out)


def test_a_short_alias_does_not_overwrite_a_file_of_the_same_edit(image: FatImage) -> None:
    edits = [BootEdit("a long file name.txt", b"1"), BootEdit("ALONGF~1.TXT", b"2")]
    with pytest.raises(ImageError, match="the same file on the boot partition"):
        patch_of(image, edits)


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (BootEdit("overlays", b"x"), "overlays is a folder"),
        (BootEdit("overlays", None), "overlays is a folder"),
        (BootEdit("cmdline.txt/x", b"x"), "cmdline.txt is a file"),
        (BootEdit("cmdline.txt/x", None), "cmdline.txt is a file"),
        (BootEdit("a:b", b"x"), "it contains ':'"),
        (BootEdit("con", b"x"), "is a device name on Windows"),
        (BootEdit("rpi-image/../x", b"x"), "is not a file name"),
        (BootEdit("x" * 256, b"x"), "longer than 255"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, edit: BootEdit, words: str) -> None:
    image = make_image(tmp_path / "a.img", size_mib=4, cluster_bytes=512, files=STOCK)
    before = image.path.read_bytes()
    with pytest.raises(ImageError, match=words) as caught:
        patch_of(image, [BootEdit("fine.txt", b"x"), edit])
    assert caught.value.hint
    assert image.path.read_bytes() == before


def test_names_of_255_characters_fit(image: FatImage) -> None:
    name = "y" * 251 + ".txt"
    out = edited(image, [BootEdit(name, b"long")])
    assert name in mlist(out)
    assert mtype(out, name) == b"long"


def test_a_base_that_was_edited_before_stays_usable_after_an_error(image: FatImage) -> None:
    with open_raw(image.path) as raw:
        base = BootBase(raw, image.partition())
        good = base.apply(EDITS, EPOCH)
        with pytest.raises(ImageError):
            base.apply([BootEdit("x", b"x" * 10), BootEdit("huge", bytes(1 << 29))], EPOCH)
        assert base.apply(EDITS, EPOCH) == good


@pytest.mark.parametrize(
    "shape",
    [
        {"kind": 16, "size_mib": 20, "options": ["-f", "1"]},
        {"kind": 16, "size_mib": 64, "cluster_bytes": 2048, "options": ["-R", "4"]},
        {"kind": 32, "size_mib": 40, "cluster_bytes": 512, "options": ["-R", "64", "-b", "12"]},
        {"kind": 32, "size_mib": 512, "cluster_bytes": 4096},
    ],
    ids=["one FAT", "April 2015", "backup elsewhere", "bookworm"],
)
def test_other_shapes_of_volume(tmp_path: Path, shape: dict[str, Any]) -> None:
    image = make_image(tmp_path / "base.img", files=STOCK, **shape)
    out = edited(image, EDITS)
    assert mtype(out, "rpi-image/install") == EDITS[3].data
    assert mtype(out, "kernel.img") == STOCK["kernel.img"]


def test_sectors_of_4096_bytes(tmp_path: Path) -> None:
    need("mkfs.vfat", "mcopy", "fsck.vfat")
    volume = tmp_path / "volume.img"
    with volume.open("wb") as file:
        file.truncate(64 << 20)
    run("mkfs.vfat", "-F", "16", "-S", "4096", "-s", "1", volume)
    (tmp_path / "cmdline.txt").write_bytes(b"c" * 9000)
    run("mcopy", "-i", volume, tmp_path / "cmdline.txt", "::")
    with open_raw(volume) as raw:
        base = BootBase(raw, Partition(1, 0, 64 << 20, "0x0c"))
        assert base.volume.read("cmdline.txt") == b"c" * 9000
        patch = base.apply(EDITS, EPOCH)
    with volume.open("r+b") as file:
        for piece in patch.runs:
            file.seek(piece.offset_bytes)
            file.write(piece.data)
    run("fsck.vfat", "-n", volume)
    assert run("mtype", "-i", volume, "::rpi-image/node.env") == "NODE_HOSTNAME='pi-03'\n"


@on_small
def test_a_patch_cut_after_any_sector_leaves_untouched_files(
    image: FatImage, tmp_path: Path
) -> None:
    patch = patch_of(image, EDITS)
    sectors = [
        Run(run_.offset_bytes + at, run_.data[at : at + 512])
        for run_ in patch.runs
        for at in range(0, len(run_.data), 512)
    ]
    before = RawVolume(image).records()
    untouched = [short("kernel.img"), b"SOMEMI~1TXT", b"OVERLAYS   /HIFIBE~1DTB"]
    for cut in range(1, len(sectors), 5):
        out = write_patched(image, Patch(tuple(sectors[:cut])), tmp_path / "cut.img")
        after = RawVolume(out).records()
        assert [after[path] for path in untouched] == [before[path] for path in untouched]


# ---- room


def test_what_does_not_fit_is_refused_with_names_and_bytes(image: FatImage) -> None:
    with open_raw(image.path) as raw:
        base = BootBase(raw, image.partition())
        free, cluster = base.volume.free_bytes, base.volume.fat.bytes_per_cluster
        edits = [
            BootEdit("one.bin", bytes(free - cluster)),
            BootEdit("two.bin", bytes(cluster + 1)),
        ]
        with pytest.raises(ImageError) as caught:
            base.apply(edits, EPOCH)
    assert "one.bin, two.bin" in caught.value.message
    wanted, left = two_sizes(free + cluster, free)
    assert f"{wanted} needed, {left} free" in caught.value.message


@on_small
def test_the_last_cluster_can_be_used(image: FatImage) -> None:
    with open_raw(image.path) as raw:
        free = BootBase(raw, image.partition()).volume.free_bytes
    content = bytes(range(1, 251)) * (free // 250 + 1)
    out = edited(image, [BootEdit("full.bin", content[:free])])
    with open_raw(out.path) as raw:
        assert BootVolume(raw, out.partition()).free_bytes == 0
    assert mtype(out, "full.bin") == content[:free]
    assert mtype(out, "kernel.img") == STOCK["kernel.img"]
    with pytest.raises(ImageError, match="B needed, 0 B free"):
        patch_of(out, [BootEdit("more", b"x")])
    assert edited(out, [BootEdit("full.bin", content[1:free])])


@on_small
def test_room_counts_what_the_edit_frees_and_what_folders_take(image: FatImage) -> None:
    with open_raw(image.path) as raw:
        volume = BootBase(raw, image.partition()).volume
        free, cluster = volume.free_bytes, volume.fat.bytes_per_cluster
    kernel = -(-len(STOCK["kernel.img"]) // cluster) * cluster
    fits = [BootEdit("kernel.img", None), BootEdit("sub/full.bin", bytes(free + kernel - cluster))]
    assert edited(image, fits)
    too_much = [BootEdit("kernel.img", None), BootEdit("sub/full.bin", bytes(free + kernel))]
    with pytest.raises(ImageError, match=r"sub/full\.bin"):
        patch_of(image, too_much)


def test_a_full_root_of_fat16_names_the_file_and_the_entries(tmp_path: Path) -> None:
    image = make_image(tmp_path / "a.img", size_mib=16, cluster_bytes=2048, root_entries=64)
    edits = [BootEdit(f"file{n}", b"x") for n in range(62)]
    assert len(mlist(edited(image, edits))) == 62
    with pytest.raises(ImageError) as caught:
        patch_of(image, [*edits, BootEdit("A longer name.txt", b"x")])
    assert "'A longer name.txt'" in caught.value.message
    assert "3 directory entries needed, 2 free" in caught.value.message
    assert edited(image, [*edits, BootEdit("file3", None), BootEdit("last", b"x")])
