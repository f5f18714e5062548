"""The proof: files read through the FAT of a disk that mtools made and spoiled."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from imagebuilder.disk.reader import open_raw
from imagebuilder.errors import WriteError
from imagebuilder.flash.verify import files_of_edits, files_of_image, prover
from imagebuilder.model import BootEdit
from tests.lib.tools import need, run

if TYPE_CHECKING:
    from pathlib import Path

START = 1 << 20
FILES = {"cmdline.txt": b"root=/dev/mmcblk0p2\n", "user-data": b"#cloud-config\n"}


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    need("sfdisk", "mkfs.vfat", "mcopy", "mdel")
    boot, image = tmp_path / "boot", tmp_path / "disk.img"
    run("truncate", "-s", "9M", boot)
    run("mkfs.vfat", "-F", "16", "-s", "1", boot)
    for name, data in {**FILES, "kernel.img": bytes(200_000)}.items():
        (tmp_path / name).write_bytes(data)
        run("mcopy", "-i", boot, tmp_path / name, f"::{name}")
    run("truncate", "-s", "12M", image)
    run("sfdisk", "-q", image, input="label: dos\nstart=2048, size=18432, type=c\n")
    run("dd", f"if={boot}", f"of={image}", "bs=1M", "seek=1", "conv=notrunc")
    return image


def prove(disk: Path, files: dict[str, bytes]) -> None:
    with open_raw(disk) as raw:
        prover("/dev/sdb", files)(raw)


def test_the_telling_files_of_an_image_are_found(disk: Path) -> None:
    with open_raw(disk) as raw:
        assert files_of_image(raw) == FILES


def test_an_image_without_a_boot_partition_has_none(tmp_path: Path) -> None:
    image = tmp_path / "raw"
    image.write_bytes(bytes(1 << 20))
    with open_raw(image) as raw:
        assert files_of_image(raw) == {}


def test_the_last_edit_of_a_file_counts_and_a_removed_one_does_not() -> None:
    edits = (BootEdit("a", b"1"), BootEdit("b", b"1"), BootEdit("a", b"2"), BootEdit("b", None))
    assert files_of_edits(edits) == {"a": b"2"}


def test_a_right_disk_is_proven(disk: Path) -> None:
    prove(disk, FILES)
    prove(disk, {})


def test_another_content_is_named(disk: Path, tmp_path: Path) -> None:
    (tmp_path / "other").write_text("root=/dev/sda2\n")
    run("mcopy", "-o", "-i", f"{disk}@@{START}", tmp_path / "other", "::cmdline.txt")
    with pytest.raises(WriteError, match=r"/dev/sdb: cmdline\.txt differs from what was written"):
        prove(disk, FILES)


def test_a_missing_file_is_named(disk: Path) -> None:
    run("mdel", "-i", f"{disk}@@{START}", "::user-data")
    with pytest.raises(WriteError, match="user-data"):
        prove(disk, FILES)


@pytest.mark.parametrize("offset", [0, START])
def test_a_disk_that_cannot_be_read_any_more(disk: Path, offset: int) -> None:
    with disk.open("r+b") as file:
        file.seek(offset)
        file.write(bytes(512))
    with pytest.raises(WriteError, match="/dev/sdb"):
        prove(disk, FILES)
