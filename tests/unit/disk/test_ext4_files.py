"""Files of ext4 against e2fsprogs: what mke2fs put in and debugfs reads is what we read."""

from __future__ import annotations

import random
import struct
import time
from typing import TYPE_CHECKING

import pytest

from imagebuilder.disk import ext4_files
from imagebuilder.disk.ext4_files import Ext4Files, open_ext4, open_root
from imagebuilder.disk.reader import open_raw
from imagebuilder.errors import ImageError
from tests.lib.tools import need, run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from imagebuilder.disk.reader import RawFile

LAYOUTS = {
    "wheezy": ["-t", "ext4", "-b", "4096", "-O", "^64bit,^metadata_csum,uninit_bg"],
    "bookworm": ["-t", "ext4", "-b", "4096", "-O", "64bit,metadata_csum,flex_bg"],
    "trixie": ["-t", "ext4", "-b", "4096", "-O", "orphan_file,metadata_csum_seed"],
    "kib-blocks": ["-t", "ext4", "-b", "1024", "-I", "128"],
    "meta-bg": ["-t", "ext4", "-O", "meta_bg,^resize_inode,64bit"],
    "no-filetype": ["-t", "ext2", "-O", "^filetype", "-b", "1024"],
    "ext2": ["-t", "ext2", "-b", "1024"],
    "ext3": ["-t", "ext3"],
    "inline": ["-t", "ext4", "-O", "inline_data", "-I", "256"],
}
FILES = {
    "etc/os-release": b"ID=raspbian\n",
    "etc/empty": b"",
    "etc/middle": bytes(range(150)),  # in the inode and its attributes, with inline_data
    "var/lib/dpkg/status": b"Package: dpkg\n" * 90_000,
    "block": b"b" * 4096,
    "big": random.Random(1).randbytes(3_000_001),
    "usr/share/Grüße/naïve": "ß".encode(),
}
LINKS = {
    "lib": "usr/lib",
    "status": "/var/lib/dpkg/status",
    "up": "../../../../../../etc/os-release",
    "etc/here": "./os-release",
    "long": "/" + "./" * 60 + "block",
    "loop": "loop",
    "loop-2": "etc/../loop-3",
    "loop-3": "/loop-2",
    "nowhere": "/does/not/exist",
    "folder": "/usr/share",
}


def make(folder: Path, options: list[str]) -> Path:
    need("mkfs.ext4", "debugfs")
    tree = folder / "tree"
    for name, data in FILES.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes(data)
    for name, target in LINKS.items():
        (tree / name).symlink_to(target)
    many = tree / "many"
    many.mkdir()
    for number in range(900):
        (many / f"a-file-with-a-longer-name-{number}").touch()
    with (tree / "holes").open("wb") as file:
        file.write(b"first")
        file.seek(2_000_000)
        file.write(b"last")
    image = folder / "fs.img"
    run("truncate", "-s", "16M", image)
    run("mkfs.ext4", "-q", "-F", "-N", "4096", *options, "-d", tree, image)
    # A folder of several blocks gets its hash tree from e2fsck.
    run("e2fsck", "-fyD", image, check=False)
    return image


def opened(disk: RawFile) -> Ext4Files:
    found = open_ext4(disk, 0, disk.size_bytes)
    assert found
    return found


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_mke2fs_puts_in_is_read(tmp_path: Path, layout: str) -> None:
    image = make(tmp_path, LAYOUTS[layout])
    with open_raw(image) as disk:
        files = opened(disk)
        assert {name: files.read(name) for name in FILES} == FILES
        assert files.read("holes") == (tmp_path / "tree/holes").read_bytes()
        assert set(files.names("/many")) == names_in(tmp_path / "tree/many")
        assert set(files.names("")) == names_in(tmp_path / "tree") | {"lost+found"}


@pytest.mark.parametrize("layout", ["bookworm", "ext2", "inline"])
def test_links_are_followed_inside_the_image_only(tmp_path: Path, layout: str) -> None:
    image = make(tmp_path, LAYOUTS[layout])
    with open_raw(image) as disk:
        files = opened(disk)
        assert files.read("status") == FILES["var/lib/dpkg/status"]
        assert files.read("up") == files.read("etc/here") == FILES["etc/os-release"]
        assert files.read("long") == FILES["block"]
        assert files.read("folder/Grüße/naïve") == "ß".encode()
        assert files.names("folder") == ("Grüße",)
        for name in ("loop", "loop-2", "nowhere", "folder", "lib", "big/more", "etc/nothing"):
            assert files.read(name) is None


def test_debugfs_reads_the_same(tmp_path: Path) -> None:
    """Written and removed by debugfs, so that blocks are not in order."""
    image = make(tmp_path, LAYOUTS["bookworm"])
    script = tmp_path / "commands"
    (tmp_path / "other").write_bytes(random.Random(2).randbytes(2_500_000))
    script.write_text(f"rm block\nrm big\nwrite {tmp_path / 'other'} other\nrm many\n")
    run("debugfs", "-w", "-f", script, image)
    run("e2fsck", "-fy", image, check=False)
    run("debugfs", "-R", f"dump /other {tmp_path / 'read'}", image)
    with open_raw(image) as disk:
        assert opened(disk).read("other") == (tmp_path / "read").read_bytes()
        assert opened(disk).read("big") is None


def test_a_file_over_its_budget_is_an_error(tmp_path: Path) -> None:
    image = make(tmp_path, LAYOUTS["bookworm"])
    with open_raw(image) as disk, pytest.raises(ImageError, match="larger than 1000 bytes"):
        opened(disk).read("big", 1000)


def test_all_that_is_read_has_a_budget(tmp_path: Path) -> None:
    image = make(tmp_path, LAYOUTS["bookworm"])
    with open_raw(image) as disk:
        files = opened(disk)
        files._left_bytes = 5_000_000
        assert files.read("big") == FILES["big"]
        with pytest.raises(ImageError, match="takes too much"):
            files.read("big")


def inode_offset(image: Path, path: str) -> int:
    """Return where debugfs says that the inode is."""
    text = run("debugfs", "-R", f"imap {path}", image)
    block, offset = text.split("located at block ")[1].split(", offset ")
    return int(block) * 4096 + int(offset, 16)


def lies() -> dict[str, Callable[[bytearray], None]]:
    return {
        "size": lambda raw: struct.pack_into("<I", raw, 4, 0xFFFFFFFF),
        "magic": lambda raw: struct.pack_into("<H", raw, 40, 0x1234),
        "depth": lambda raw: struct.pack_into("<H", raw, 46, 1),
        "count": lambda raw: struct.pack_into("<H", raw, 42, 0xFFFF),
        "block": lambda raw: struct.pack_into("<I", raw, 60, 0xFFFFFFF0),
        "no length": lambda raw: struct.pack_into("<H", raw, 56, 0),
        "encrypted": lambda raw: struct.pack_into("<I", raw, 32, 0x80800),
    }


@pytest.mark.parametrize("lie", lies())
def test_an_inode_that_lies_is_an_error(tmp_path: Path, lie: str) -> None:
    image = make(tmp_path, LAYOUTS["bookworm"])
    at = inode_offset(image, "/block")
    data = bytearray(image.read_bytes())
    raw = data[at : at + 256]
    lies()[lie](raw)
    data[at : at + 256] = raw
    image.write_bytes(data)
    with open_raw(image) as disk, pytest.raises(ImageError):
        opened(disk).read("block")


@pytest.mark.parametrize("layout", ["bookworm", "ext2", "inline"])
def test_a_damaged_file_system_is_an_error_and_takes_no_time(tmp_path: Path, layout: str) -> None:
    image = make(tmp_path, LAYOUTS[layout])
    whole, chance = image.read_bytes(), random.Random(layout)
    # Super block, descriptors, inodes, folders and trees: all but the content of files.
    metadata = [at for at in range(1024, 2 << 20, 4) if any(whole[at : at + 4])]
    opened_count = 0
    for _ in range(80):
        places = chance.choices(metadata, k=chance.choice([1, 4, 200]))
        changes = [
            (at, chance.choice([chance.randbytes(4), b"\xff" * 4, bytes(4)])) for at in places
        ]
        begun = time.process_time()
        opened_count += read_all(Damaged(whole, changes))
        assert time.process_time() - begun < 5
    assert opened_count > 25


class Damaged:
    def __init__(self, whole: bytes, changes: list[tuple[int, bytes]]) -> None:
        data = bytearray(whole)
        for at, raw in changes:
            data[at : at + len(raw)] = raw
        self.data = memoryview(data)
        self.size_bytes = len(data)

    def read_at(self, offset_bytes: int, size_bytes: int) -> bytes:
        return bytes(self.data[offset_bytes : offset_bytes + size_bytes])


def read_all(disk: Damaged) -> bool:
    files = open_ext4(disk, 0, disk.size_bytes)
    for name in (*FILES, *LINKS, "many") if files else ():
        assert files
        try:
            files.read(name)
            files.names(name)
        except ImageError:
            pass
    return files is not None


def test_a_file_system_that_was_not_unmounted_is_not_read(tmp_path: Path) -> None:
    image = make(tmp_path, LAYOUTS["bookworm"])
    run("debugfs", "-w", "-R", "ssv state 0", image)
    with open_raw(image) as disk:
        assert open_ext4(disk, 0, disk.size_bytes) is None


def test_the_root_is_found_on_a_disk(tmp_path: Path) -> None:
    need("sfdisk", "mkfs.vfat")
    root = make(tmp_path, LAYOUTS["bookworm"]).read_bytes()
    disk_path = tmp_path / "disk.img"
    run("truncate", "-s", str((9 << 20) + len(root)), disk_path)
    run("sfdisk", "-q", disk_path, input="start=2048, size=14336, type=c\nstart=18432, type=83\n")
    run("truncate", "-s", "7M", tmp_path / "fat.img")
    run("mkfs.vfat", tmp_path / "fat.img")
    with disk_path.open("r+b") as file:
        file.seek(1 << 20)
        file.write((tmp_path / "fat.img").read_bytes())
        file.seek(9 << 20)
        file.write(root)
    with open_raw(disk_path) as disk:
        found = open_root(disk)
        assert found
        assert found.read("etc/os-release") == FILES["etc/os-release"]
    assert ext4_files.MOST_FILE_BYTES < ext4_files.MOST_READ_BYTES
