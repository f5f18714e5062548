"""Partition tables, against sfdisk; and what damaged ones lead to."""

from __future__ import annotations

import json
import random
import struct
import zlib
from typing import TYPE_CHECKING

import pytest

from imagebuilder.disk.boot_sector import parse_parameters
from imagebuilder.disk.cow import CowView
from imagebuilder.disk.extent import Partition
from imagebuilder.disk.partitions import (
    boot_partition,
    cut_off,
    parse_gpt_header,
    read_partitions,
)
from imagebuilder.disk.reader import open_raw
from imagebuilder.errors import ImageError
from tests.lib.tools import need, run
from tests.unit.disk.test_cow import Memory

if TYPE_CHECKING:
    from pathlib import Path

SECTOR = 512
MIB = 1 << 20
ESP = "C12A7328-F81F-11D2-BA4B-00C04FD430C8"

TABLES = {
    "april 2015": "label: dos\nstart=2048, size=131072, type=c\n"
    "start=133120, size=1866880, type=83\n",
    "one": "label: dos\nstart=8192, size=2048, type=b\n",
    "none": "label: dos\nlabel-id: 0xdeadbeef\n",
    "out of order": "label: dos\n2: start=2048, size=2048, type=c\n"
    "4: start=8192, size=10, type=83\n"
    "1: start=20480, size=4096, type=82\n",
    "logical": "label: dos\nstart=2048, size=8192, type=c\nstart=10240, size=200000, type=5\n"
    "start=12288, size=2048, type=83\nstart=18432, size=4096, type=82\n"
    "start=30720, size=2048, type=c\n",
    "logical of type f": "label: dos\n2: start=2048, size=100000, type=f\n"
    "5: start=4096, size=2048, type=83\n6: start=8192, size=2048, type=c\n",
    "extended and empty": "label: dos\nstart=2048, size=100000, type=5\n",
    "gpt": f"label: gpt\nstart=2048, size=131072, type={ESP}\n"
    "start=133120, size=200000, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4\n",
    "gpt with gaps": f"label: gpt\n3: start=4096, size=64, type={ESP}\n"
    f"1: start=8192, size=1, type={ESP}\n128: start=16384, size=64, type={ESP}\n",
    "gpt of 4 slots": f"label: gpt\ntable-length: 4\nstart=2048, size=64, type={ESP}\n",
    "gpt and empty": "label: gpt\n",
}  # fmt: skip


def make_table(path: Path, script: str, size_bytes: int = 1_280_000_000) -> Path:
    need("sfdisk")
    with path.open("wb") as image:
        image.truncate(size_bytes)
    run("sfdisk", "-q", "--no-reread", "--no-tell-kernel", path, input=script)
    return path


def as_sfdisk(path: Path) -> list[tuple[int, int, int, str]]:
    table = json.loads(run("sfdisk", "-J", path))["partitiontable"]
    return [
        (
            int(part["node"].removeprefix(f"{path}")),
            part["start"],
            part["size"],
            part["type"],
        )
        for part in table.get("partitions", [])
    ]


def as_read(path: Path) -> list[tuple[int, int, int, str]]:
    with open_raw(path) as disk:
        return [
            (p.number, p.start_bytes // SECTOR, p.size_bytes // SECTOR, plain(p.kind))
            for p in read_partitions(disk)
        ]


@pytest.mark.parametrize(
    ("size_bytes", "missing"),
    [(22528 * SECTOR, 0), (22527 * SECTOR, 0), (22527 * SECTOR - 1, SECTOR + 1), (10 * MIB, MIB)],
)
def test_a_disk_may_be_odd_by_a_sector_but_not_cut_off(
    tmp_path: Path, size_bytes: int, missing: int
) -> None:
    with open_raw(make_table(tmp_path / "disk", TABLES["logical"])) as disk:
        partitions = [p for p in read_partitions(disk) if p.number != 7]
    words = f"is truncated: partition 6 extends {missing} bytes past the end"
    assert cut_off(partitions, size_bytes) == ((words,) if missing else ())


def plain(kind: str) -> str:
    return f"{int(kind, 16):x}" if kind.startswith("0x") else kind


@pytest.mark.parametrize("odd", [0, 1, 256, 511])
@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_read_as_sfdisk_reads_it(tmp_path: Path, name: str, odd: int) -> None:
    path = make_table(tmp_path / "disk_", TABLES[name], 1_280_000_000 + odd)
    assert as_read(path) == as_sfdisk(path)


def test_random_tables_are_read_as_sfdisk_reads_them(tmp_path: Path) -> None:
    rng = random.Random(20150416)
    for round_ in range(25):
        script, at = "label: dos\n", 2048
        primaries = rng.randint(0, 3)
        for _ in range(primaries):
            size = rng.randint(1, 40) * 2048
            script += f"start={at}, size={size}, type={rng.choice(['c', '83', 'e', '82'])}\n"
            at += size + rng.randint(0, 3) * 2048
        script += f"start={at}, size={600 * 2048}, type={rng.choice(['5', 'f'])}\n"
        for _ in range(rng.randint(0, 12)):
            size = rng.randint(1, 20) * 2048
            script += f"start={at + 2048}, size={size}, type={rng.choice(['c', '83'])}\n"
            at += 2048 + size + rng.randint(0, 2) * 2048
        path = make_table(tmp_path / f"random{round_}_", script)
        assert as_read(path) == as_sfdisk(path), script


def break_at(path: Path, offset: int, data: bytes = b"\xff\xff") -> None:
    with path.open("r+b") as disk:
        disk.seek(offset)
        disk.write(data)


@pytest.mark.parametrize(
    "offset",
    [SECTOR, SECTOR + 16, SECTOR + 40, SECTOR + 72, SECTOR + 88, 2 * SECTOR, 2 * SECTOR + 33],
)
@pytest.mark.parametrize("odd", [0, 100])
def test_the_backup_gpt_serves_where_the_primary_is_bad(
    tmp_path: Path, offset: int, odd: int
) -> None:
    path = make_table(tmp_path / "disk_", TABLES["gpt"], 1_280_000_000 + odd)
    before = as_read(path)
    assert len(before) == 2
    break_at(path, offset)
    assert as_read(path) == before
    assert as_read(path) == as_sfdisk(path)


def test_a_gpt_whose_image_grew_is_found_through_its_primary_header(tmp_path: Path) -> None:
    path = make_table(tmp_path / "disk_", TABLES["gpt"])
    before = as_read(path)
    with path.open("r+b") as disk:
        disk.truncate(1_300_000_000)
    break_at(path, 2 * SECTOR)
    assert as_read(path) == before


def test_a_gpt_that_is_bad_twice_is_refused(tmp_path: Path) -> None:
    path = make_table(tmp_path / "disk_", TABLES["gpt"])
    break_at(path, 2 * SECTOR)
    break_at(path, path.stat().st_size - SECTOR)
    with open_raw(path) as disk, pytest.raises(ImageError, match="GPT"):
        read_partitions(disk)


def test_a_gpt_header_with_a_right_checksum_and_wild_sizes_is_refused(tmp_path: Path) -> None:
    path = make_table(tmp_path / "disk_", TABLES["gpt"])
    with open_raw(path) as disk:
        good = disk.read_at(SECTOR, SECTOR)
    assert parse_gpt_header(good, 1) is not None
    assert parse_gpt_header(good, 2) is None
    assert parse_gpt_header(good[:91], 1) is None
    for at, value in ((80, 0), (80, 1 << 31), (84, 0), (84, 16), (84, 1 << 30)):
        wild = bytearray(good)
        struct.pack_into("<I", wild, at, value)
        struct.pack_into("<I", wild, 16, 0)
        struct.pack_into("<I", wild, 16, zlib.crc32(wild[:92]))
        assert parse_gpt_header(bytes(wild), 1) is None


@pytest.mark.parametrize("size", [0, 1, 511, 512, 100_000])
def test_zeros_have_no_partition_table(size: int) -> None:
    with pytest.raises(ImageError, match="no partition table"):
        read_partitions(Memory(bytes(size)))


def test_a_bare_volume_is_no_partition_table() -> None:
    sector = bytearray(random.Random(1).randbytes(SECTOR))
    sector[446] = 0x74
    sector[510:] = b"\x55\xaa"
    with pytest.raises(ImageError, match="not a partition table"):
        read_partitions(Memory(bytes(sector)))


def ebr(*entries: tuple[int, int, int]) -> bytes:
    slots = b"".join(struct.pack("<B3xB3xII", 0, *entry) for entry in entries)
    return bytes(446) + slots.ljust(64, b"\0") + b"\x55\xaa"


def test_a_chain_of_logical_partitions_that_loops_is_refused() -> None:
    disk = bytearray(100 * SECTOR)
    disk[:SECTOR] = ebr((5, 10, 80))
    disk[10 * SECTOR : 11 * SECTOR] = ebr((0x83, 1, 2), (5, 20, 20))
    disk[30 * SECTOR : 31 * SECTOR] = ebr((0x83, 1, 2), (5, 0, 20))
    with pytest.raises(ImageError, match="endless"):
        read_partitions(Memory(bytes(disk)))


def test_a_chain_that_leaves_the_disk_ends_there() -> None:
    disk = bytearray(100 * SECTOR)
    disk[:SECTOR] = ebr((5, 10, 80))
    disk[10 * SECTOR : 11 * SECTOR] = ebr((0x83, 1, 2), (5, 4_000_000_000, 20))
    assert [p.number for p in read_partitions(Memory(bytes(disk)))] == [1, 5]


@pytest.mark.parametrize("name", ["logical", "gpt", "gpt with gaps"])
def test_a_damaged_table_gives_an_answer_or_an_image_error(tmp_path: Path, name: str) -> None:
    path = make_table(tmp_path / "disk_", TABLES[name], 200 * MIB)
    rng = random.Random(name)
    spots = [446, SECTOR, 2 * SECTOR, 10240 * SECTOR + 446, 14336 * SECTOR + 446, 200 * MIB - 600]
    refused = 0
    with open_raw(path) as disk:
        for _ in range(200):
            noisy = CowView(disk, 0, disk.size_bytes)
            for _ in range(rng.randint(1, 12)):
                noisy.write_at(rng.choice(spots) + rng.randrange(66), rng.randbytes(1))
            try:
                partitions = read_partitions(noisy)
            except ImageError:
                refused += 1
            else:
                assert all(p.size_bytes > 0 for p in partitions)
    assert 0 < refused < 200


def test_the_boot_partition_is_the_first_fat_whatever_its_type_byte(tmp_path: Path) -> None:
    need("mkfs.vfat")
    script = (
        "label: dos\nstart=2048, size=20480, type=c\nstart=22528, size=80000, type=5\n"
        "start=24576, size=20480, type=83\nstart=47104, size=20480, type=c\n"
    )
    path = make_table(tmp_path / "disk_", script, 60 * MIB)
    run("mkfs.vfat", "--offset", "47104", "-F", "16", path, "10240")
    with open_raw(path) as disk:
        partitions = read_partitions(disk)
        assert boot_partition(disk, partitions).number == 6
    run("mkfs.vfat", "--offset", "24576", "-F", "12", path, "10240")
    with open_raw(path) as disk:
        assert boot_partition(disk, partitions).number == 5


def test_an_image_without_a_fat_is_refused(tmp_path: Path) -> None:
    path = make_table(tmp_path / "disk_", TABLES["logical"])
    with open_raw(path) as disk, pytest.raises(ImageError, match="has a FAT file system") as caught:
        boot_partition(disk, read_partitions(disk))
    assert "Raspberry Pi" in caught.value.hint


def test_a_partition_behind_the_end_holds_nothing() -> None:
    with pytest.raises(ImageError):
        boot_partition(Memory(bytes(2048)), [Partition(1, 1 << 40, 512, "0x0c")])


def test_other_file_systems_are_no_fat(tmp_path: Path) -> None:
    need("mkfs.ext4", "mkfs.vfat")
    path = tmp_path / "volume"
    for command in (["mkfs.ext4", "-q", "-F"], ["mkfs.vfat"]):
        with path.open("wb") as image:
            image.truncate(16 * MIB)
        run(*command, path)
        found = parse_parameters(path.read_bytes()[:SECTOR])
        assert bool(found) is (command == ["mkfs.vfat"])
    boot = bytearray(path.read_bytes()[:SECTOR])
    assert not parse_parameters(bytes(boot[:511]))
    for at, value in ((11, 1), (13, 3), (14, 0), (16, 0), (16, 3), (21, 0x10), (22, 0), (510, 0)):
        broken = bytearray(boot)
        broken[at] = value
        if at in {14, 22}:
            broken[at + 1] = 0
        if at == 22:
            broken[36:40] = bytes(4)
        assert not parse_parameters(bytes(broken)), at
