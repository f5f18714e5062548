"""Copies of raw images on real file systems: by every way the same bytes and the same holes."""

from __future__ import annotations

import errno
import fcntl
import os
import random
from typing import TYPE_CHECKING

import pytest

from imagebuilder.disk import copy as raw
from imagebuilder.disk.copy import PIECE_BYTES, WRITE_BYTES, copy_raw, data_ranges
from imagebuilder.progress import SILENT
from tests.lib.tools import mounted, need_root, run

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1 << 20
KIB = 1 << 10


def sparse(path: Path, size_bytes: int, islands: dict[int, int]) -> Path:
    """Make a file with random data at these offsets, in KiB, by dd."""
    run("truncate", "-s", str(size_bytes), path)
    for at, size in islands.items():
        where = ("bs=1K", f"seek={at}", f"count={size}", "conv=notrunc", "status=none")
        run("dd", "if=/dev/urandom", f"of={path}", *where)
    return path


def copy(source: Path, target: Path) -> str:
    """Copy, and have cmp say that the bytes are the same."""
    reading, writing = os.open(source, os.O_RDONLY), os.open(target, os.O_RDWR | os.O_CREAT)
    try:
        how = copy_raw(reading, writing, source.stat().st_size, SILENT)
    finally:
        os.close(reading)
        os.close(writing)
    run("cmp", source, target)
    return how


class Direct:
    """Notes which pieces went past the page cache."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[int, int]] = []
        real = os.pwrite

        def noted(descriptor: int, data: memoryview, offset: int) -> int:
            if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT:
                self.calls.append((offset, len(data)))
            return real(descriptor, data, offset)

        monkeypatch.setattr(os, "pwrite", noted)


@pytest.fixture
def direct(monkeypatch: pytest.MonkeyPatch) -> Direct:
    return Direct(monkeypatch)


ODD = {0: 3, 5_000: 40_001, 60_000: 1, 60_005: 2, 99_998: 2}
ODD_SIZE = 100_000 * KIB + 513


def test_data_goes_past_the_page_cache_in_whole_sectors(tmp_path: Path, direct: Direct) -> None:
    source = sparse(tmp_path / "a", ODD_SIZE, ODD)
    assert copy(source, tmp_path / "b") == "sparse copy"
    assert direct.calls, "this file system has no O_DIRECT"
    assert all(at % 4096 == 0 and size % 4096 == 0 for at, size in direct.calls)
    assert max(size for _, size in direct.calls) == WRITE_BYTES
    assert sum(size for _, size in direct.calls) < 41 * MIB


def test_holes_of_the_copy_are_the_source_s(tmp_path: Path) -> None:
    source = sparse(tmp_path / "a", ODD_SIZE, ODD)
    copy(source, tmp_path / "b")
    with source.open("rb") as a, (tmp_path / "b").open("rb") as b:
        size = source.stat().st_size
        assert list(data_ranges(b.fileno(), size)) == list(data_ranges(a.fileno(), size))


@pytest.mark.parametrize("size", [1, 511, 4095, 4096, 4097, PIECE_BYTES + 1])
def test_files_of_any_length(tmp_path: Path, size: int) -> None:
    source = tmp_path / "a"
    source.write_bytes(random.Random(size).randbytes(size))
    copy(source, tmp_path / "b")


def test_a_file_that_is_one_hole(tmp_path: Path) -> None:
    source = sparse(tmp_path / "a", 50 * MIB, {})
    copy(source, tmp_path / "b")
    assert run("du", "--block-size=1", tmp_path / "b").split()[0] == "0"


@pytest.mark.root
@pytest.mark.parametrize(
    ("make", "options"),
    [
        ("mkfs.ext4", ("-q", "-b", "1024")),
        ("mkfs.ext4", ("-q", "-b", "4096")),
        ("mkfs.ext3", ("-q",)),
        ("mkfs.ext2", ("-q",)),
        ("mkfs.xfs", ("-q", "-m", "reflink=0")),
        ("mkfs.btrfs", ("-q",)),
    ],
)
def test_file_systems_that_people_have(tmp_path: Path, make: str, options: tuple[str, ...]) -> None:
    source = sparse(tmp_path / "a", ODD_SIZE, ODD)
    with mounted(tmp_path, make, *options) as place:
        assert copy(source, place / "b") == "sparse copy"


@pytest.mark.root
def test_a_file_system_in_memory(tmp_path: Path) -> None:
    need_root()
    source = sparse(tmp_path / "a", ODD_SIZE, ODD)
    place = tmp_path / "there"
    place.mkdir()
    run("mount", "-t", "tmpfs", "none", place)
    try:
        copy(source, place / "b")
    finally:
        run("umount", place)


@pytest.mark.parametrize("error", [errno.EINVAL, errno.EOPNOTSUPP, errno.ENOMEM])
def test_where_o_direct_fails_half_way_the_plain_copy_does_it_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    source = sparse(tmp_path / "a", ODD_SIZE, ODD)
    real = os.pwrite

    def failing(descriptor: int, data: memoryview, offset: int) -> int:
        if offset > 20 * MIB:
            raise OSError(error, os.strerror(error))
        return real(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", failing)
    copy(source, tmp_path / "b")


def test_without_in_kernel_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raw, "_set_direct", lambda *_, **__: False)
    monkeypatch.delattr(os, "copy_file_range")
    monkeypatch.delattr(os, "posix_fadvise")
    source = sparse(tmp_path / "a", ODD_SIZE, ODD)
    copy(source, tmp_path / "b")


def test_an_error_of_the_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = sparse(tmp_path / "a", ODD_SIZE, ODD)

    def failing(*_: object) -> int:
        raise OSError(errno.EIO, "bad disk")

    monkeypatch.setattr(os, "pwrite", failing)
    with pytest.raises(OSError, match="bad disk"):
        copy(source, tmp_path / "b")


@pytest.mark.root
def test_a_full_disk_is_told_before_anything_is_written(tmp_path: Path) -> None:
    source = sparse(tmp_path / "a", ODD_SIZE, ODD)
    with mounted(tmp_path, "mkfs.ext4", "-q", mib=30) as place:
        with pytest.raises(OSError, match="more bytes are needed"):
            copy(source, place / "b")
        assert (place / "b").stat().st_size == 0


@pytest.mark.parametrize("step", ["data_ranges", "_set_direct"])
def test_a_source_that_becomes_shorter_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    source = sparse(tmp_path / "a", 64 * MIB, {0: 64 * KIB})
    real = getattr(raw, step)

    def shortened(*words: int, **named: bool) -> object:
        result = real(*words, **named)
        result = list(result) if step == "data_ranges" else result
        os.truncate(source, 20 * MIB)
        return result

    monkeypatch.setattr(raw, step, shortened)
    with pytest.raises(OSError, match="ended early"):
        copy(source, tmp_path / "b")


def test_a_source_cut_off_while_it_is_copied_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = sparse(tmp_path / "a", 64 * MIB, {0: 64 * KIB})
    real = os.pwrite

    def shortened(descriptor: int, data: memoryview, offset: int) -> int:
        os.truncate(source, 20 * MIB)
        return real(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", shortened)
    with pytest.raises(OSError, match="ended early"):
        copy(source, tmp_path / "b")
