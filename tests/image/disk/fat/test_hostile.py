"""Damaged and hostile volumes: an answer or an ImageError, in bounded time, nothing else."""

from __future__ import annotations

import random
import struct
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from imagebuilder.disk.cow import CowView
from imagebuilder.disk.extent import Partition
from imagebuilder.disk.fat.edit import BootBase
from imagebuilder.disk.reader import open_raw
from imagebuilder.errors import ImageError
from imagebuilder.model import BootEdit
from tests.lib.fat_edits import EDITS, STOCK, edited
from tests.lib.fat_images import EPOCH, FatImage, make_image
from tests.lib.fat_oracle import RawVolume, short
from tests.unit.disk.test_cow import Memory

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from imagebuilder.disk.reader import ReadAt

KINDS = {12: (1, 512), 16: (4, 512), 32: (34, 512)}
CASES = 120
PATIENCE_S = 30.0
NESTED = {f"a/b/c{n}/a rather long name {n}.txt": b"n" * 700 * n for n in range(6)}


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: f"FAT{kind}")
def image(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> FatImage:
    size_mib, cluster_bytes = KINDS[request.param]
    return make_image(
        tmp_path_factory.mktemp("hostile") / "base.img",
        kind=request.param,
        size_mib=size_mib,
        cluster_bytes=cluster_bytes,
        files={**STOCK, **NESTED},
        label="HOSTILE",
    )


def try_everything(disk: ReadAt, partition: Partition) -> bool:
    """Read and edit all there is; give whether the edit was done, raise on anything odd."""
    begin = time.perf_counter()
    done = False
    with suppress(ImageError):
        base = BootBase(disk, partition)
        volume = base.volume
        seen = (volume.kind, volume.clean, volume.free_bytes)
        assert all(part is not None for part in seen)
        volume.exists("a/b/c1/x")
        read_all(base)
        base.apply([*EDITS, BootEdit("a/b/c1/new.txt", b"new" * 900)], EPOCH)
        done = True
    assert time.perf_counter() - begin < PATIENCE_S
    return done


def read_all(base: BootBase) -> None:
    names: tuple[str, ...] = ()
    with suppress(ImageError):
        names = base.volume.names()
    for name in names[:50]:
        with suppress(ImageError):
            base.volume.read(name)


def spots(image: FatImage) -> dict[str, range]:
    """Where a volume's metadata lies, from the start of the volume."""
    volume = RawVolume(image)
    records = volume.records()
    low = struct.unpack_from("<H", records[short("a/b")].short, 26)[0]
    folders = volume.data_at + (low - 2) * volume.cluster
    root = range(volume.root_at, volume.root_at + 32 * 40)
    if volume.bits == 32:
        root = range(volume.data_at, volume.data_at + 32 * 40)
    return {
        "boot sector": range(11, 90),
        "boot sector and FSInfo": range(1024),
        "root": root,
        "folders": range(folders, folders + 8 * volume.cluster),
        "fat": range(volume.fat_at, volume.fat_at + 600),
    }


def noise(image: FatImage, disk: ReadAt, where: str, rng: random.Random) -> CowView:
    view = CowView(disk, 0, disk.size_bytes)
    volume = RawVolume(image)
    place = spots(image)[where]
    for _ in range(rng.choice((1, 1, 2, 5, 40))):
        at = rng.choice(place)
        data = rng.choice((rng.randbytes(1), b"\0", b"\xff", rng.randbytes(4)))
        view.write_at(image.start_bytes + at, data)
        if where == "fat":
            view.write_at(image.start_bytes + at + volume.fat_bytes, data)
    return view


@pytest.mark.parametrize(
    "where", ["boot sector", "boot sector and FSInfo", "root", "folders", "fat"]
)
def test_damaged_metadata(image: FatImage, where: str) -> None:
    rng = random.Random(f"{image.size_bytes} {where}")
    partition = Partition(1, image.start_bytes, image.size_bytes, "0x0c")
    with open_raw(image.path) as disk:
        assert try_everything(disk, partition)
        done = [try_everything(noise(image, disk, where, rng), partition) for _ in range(CASES)]
    assert not all(done), "the damage went unnoticed every time"


def test_damage_everywhere(image: FatImage) -> None:
    rng = random.Random(image.size_bytes)
    partition = Partition(1, image.start_bytes, image.size_bytes, "0x0c")
    with open_raw(image.path) as disk:
        for _ in range(CASES):
            view = CowView(disk, 0, disk.size_bytes)
            for place in spots(image).values():
                view.write_at(image.start_bytes + rng.choice(place), rng.randbytes(3))
            try_everything(view, partition)


def cut_sizes(image: FatImage) -> Iterator[int]:
    yield from range(0, 1024, 100)
    yield from range(image.start_bytes - 1, image.start_bytes + 40_000, 1531)
    yield image.start_bytes + image.size_bytes - 1


def test_cut_off_anywhere(image: FatImage) -> None:
    partition = Partition(1, image.start_bytes, image.size_bytes, "0x0c")
    whole = image.path.read_bytes()
    for size in cut_sizes(image):
        assert not try_everything(Memory(whole[:size]), partition)


def test_noise_with_a_plausible_boot_sector(image: FatImage) -> None:
    rng = random.Random(3)
    head = image.path.read_bytes()[image.start_bytes : image.start_bytes + 90]
    for _ in range(60):
        body = bytearray(rng.randbytes(1 << 20))
        body[: len(head)] = head
        body[510:512] = b"\x55\xaa"
        struct.pack_into("<H", body, 19, rng.choice((0, 200, 2048)))
        struct.pack_into("<I", body, 32, rng.choice((0, 200, 2048, 1 << 31)))
        assert not try_everything(Memory(bytes(body)), Partition(1, 0, len(body), "0x0c"))


def test_wild_headers(image: FatImage) -> None:
    fields = ((11, "<H"), (13, "<B"), (14, "<H"), (16, "<B"), (17, "<H"), (19, "<H"), (21, "<B"),
              (22, "<H"), (32, "<I"), (36, "<I"), (40, "<H"), (42, "<H"), (44, "<I"), (48, "<H"),
              (50, "<H"))  # fmt: skip
    partition = Partition(1, image.start_bytes, image.size_bytes, "0x0c")
    with open_raw(image.path) as disk:
        for at, form in fields:
            top = 1 << 8 * struct.calcsize(form)
            for value in (0, 1, 2, 3, 7, 64, 127, 128, 255, top // 2, top - 2, top - 1):
                view = CowView(disk, 0, disk.size_bytes)
                view.write_at(image.start_bytes + at, struct.pack(form, value % top))
                try_everything(view, partition)


def test_a_folder_of_long_name_slots_only_ends_soon(tmp_path: Path) -> None:
    image = make_image(tmp_path / "l.img", kind=16, size_mib=16, cluster_bytes=2048)
    image = edited(image, [BootEdit(f"sub/{'y' * 200}{n}", b"") for n in range(3000)])
    with open_raw(image.path) as raw:
        view = CowView(raw, 0, raw.size_bytes)
        volume = RawVolume(image)
        size = volume.cluster
        for cluster in range(2, 1600):
            at = image.start_bytes + volume.data_at + (cluster - 2) * size
            content = bytearray(view.read_at(at, size))
            content[11::32] = b"\x0f" * (size // 32)
            content[0::32] = b"\x05" * (size // 32)
            view.write_at(at, bytes(content))
        try_everything(view, image.partition())
