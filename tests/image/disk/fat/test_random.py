"""Hundreds of random edits: fsck.vfat, mtools and raw records agree with a dictionary."""

from __future__ import annotations

import hashlib
import random
from typing import TYPE_CHECKING

import pytest

from imagebuilder.disk.fat.edit import BootBase
from imagebuilder.disk.fat.names import fold
from imagebuilder.disk.fat.volume import BootVolume
from imagebuilder.disk.patched import PatchedImage
from imagebuilder.disk.reader import open_raw
from imagebuilder.errors import ImageError
from imagebuilder.model import BootEdit
from tests.lib.fat_images import EPOCH, FatImage, fsck, make_image, put_files, write_patched
from tests.lib.fat_oracle import RawVolume, Record
from tests.lib.tools import need, run

if TYPE_CHECKING:
    from pathlib import Path

    from imagebuilder.disk.extent import Patch

# kind, MiB, bytes a cluster, root entries of FAT12 and FAT16
SMALL = (
    (12, 1, 512, 512),
    (12, 2, 1024, 64),
    (16, 4, 512, 512),
    (32, 34, 512, 0),
    (12, 16, 32768, 112),
)
SEEDS = range(8)
ROUNDS = 6
NAMES = (
    "cmdline.txt", "config.txt", "CONFIG.BAK", "Kernel7.img", "start.ELF", "user-data", "a", "A1~1",
    "a rather long name.txt", "a rather long neighbour.txt", "A Rather Odd One.TXT", "été.conf",
    "naïve file name.yaml", "x.tar.gz", ".hidden", "no extension at all", "y" * 120,
)  # fmt: skip
FOLDERS = ("", "", "rpi-image/", "overlays/", "rpi-image/wifi/", "Deep/er/and deeper/")


class Player:
    """Draws edits and keeps what the volume must hold: shown path by folded path, and bytes."""

    def __init__(self, seed: object, cluster_bytes: int, room_bytes: int) -> None:
        self.rng = random.Random(str(seed))
        self.files: dict[str, bytes] = {}
        self.shown: dict[str, str] = {}
        self.cluster_bytes = cluster_bytes
        self.room_bytes = room_bytes
        self.share = self.rng.choice((3, 12, 40))

    def data(self) -> bytes:
        edge = self.cluster_bytes * self.rng.randint(0, 3) + self.rng.randint(-1, 1)
        size = self.rng.choice(
            [0, 1, max(0, edge), self.rng.randrange(self.room_bytes // self.share)]
        )
        return self.rng.randbytes(size)

    def path(self) -> str:
        name = self.rng.choice(NAMES)
        if self.rng.random() < 0.3:
            name = f"{self.rng.randint(0, 30)} {name}"
        path = self.rng.choice(FOLDERS) + name
        return path.swapcase() if self.rng.random() < 0.15 and path.isascii() else path

    def edit(self) -> BootEdit:
        if self.files and self.rng.random() < 0.4:
            key = self.rng.choice(sorted(self.files))
            path = self.shown[key]
        else:
            path = self.path()
        edit = BootEdit(path, None if self.rng.random() < 0.3 else self.data())
        self.note(edit)
        return edit

    def note(self, edit: BootEdit) -> None:
        key = fold(edit.path)
        if edit.data is None:
            self.files.pop(key, None)
            self.shown.pop(key, None)
        else:
            self.files[key] = edit.data
            self.shown.setdefault(key, edit.path)


def contents(image: FatImage, folder: Path) -> dict[str, bytes]:
    """Return all files as one mcopy takes them off, by folded path."""
    folder.mkdir()
    run("mcopy", "-s", "-n", "-p", "-i", image.drive, "::*", folder, check=False)
    return {
        fold(str(path.relative_to(folder))): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def outside(image: FatImage) -> str:
    with image.path.open("rb") as disk:
        digest = hashlib.sha256(disk.read(image.start_bytes))
        disk.seek(image.start_bytes + image.size_bytes)
        digest.update(disk.read())
    return digest.hexdigest()


def same_where_untouched(
    before: dict[bytes, Record], after: dict[bytes, Record], image: FatImage, touched: set[str]
) -> None:
    """Compare the 32-byte records, long slots and content of files no edit named."""
    with open_raw(image.path) as raw:
        volume = BootVolume(raw, image.partition())
        for path in volume.names():
            if fold(path) not in touched:
                key = stored_path(volume, path)
                assert after[key] == before[key], path


def stored_path(volume: BootVolume, path: str) -> bytes:
    names = path.split("/")
    entries = [volume.tree.find(names[: depth + 1]) for depth in range(len(names))]
    return b"/".join(entry.stored for entry in entries if entry is not None)


def patch_where_room(base: BootBase, edits: list[BootEdit], epoch: int) -> Patch | None:
    try:
        return base.apply(edits, epoch)
    except ImageError as error:
        if "no room" not in error.message:
            raise
        return None


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("geometry", SMALL, ids=lambda g: f"FAT{g[0]}-{g[2]}")
def test_random_edits_leave_a_sound_volume(
    tmp_path: Path, geometry: tuple[int, int, int, int], seed: int
) -> None:
    need("fsck.vfat", "mcopy")
    kind, size_mib, cluster_bytes, root_entries = geometry
    image = make_image(
        tmp_path / "0.img", kind=kind, size_mib=size_mib, cluster_bytes=cluster_bytes,
        root_entries=root_entries or None, label="CONFIG",
    )  # fmt: skip
    player = Player((geometry, seed), cluster_bytes, min(size_mib << 20, 4 << 20))
    for _ in range(5):
        path = player.path()
        edit = BootEdit(path, player.data())
        if fold(path) not in player.files:
            put_files(image, {path: edit.data or b""})
            player.note(edit)
    frame = outside(image)
    for round_ in range(1, ROUNDS + 1):
        known = (dict(player.files), dict(player.shown))
        edits = [player.edit() for _ in range(player.rng.randint(1, 12))]
        with open_raw(image.path) as raw:
            base = BootBase(raw, image.partition())
            patch = patch_where_room(base, edits, EPOCH + round_)
            if patch is None:
                player.files, player.shown = known
                continue
            shown = BootVolume(PatchedImage(raw, patch), image.partition())
            found = {fold(name): shown.read(name, 64 << 20) for name in shown.names()}
            assert found == player.files
        out = write_patched(image, patch, tmp_path / f"{round_}.img")
        fsck(out)
        assert contents(out, tmp_path / f"{round_}") == player.files
        assert outside(out) == frame
        before, after = RawVolume(image), RawVolume(out)
        same_where_untouched(
            before.records(), after.records(), image, {fold(edit.path) for edit in edits}
        )
        assert after.free() * cluster_bytes == shown.free_bytes
        image = out
