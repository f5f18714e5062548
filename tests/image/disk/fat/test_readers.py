"""7-Zip, a FAT reader of nobody's kin, sees the edited volume with emoji names and times."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from imagebuilder.model import BootEdit
from tests.lib.fat_edits import EDITS, STOCK, edited, geometry_name
from tests.lib.fat_images import GEOMETRIES, MIB, FatImage, make_geometry
from tests.lib.tools import need, run

if TYPE_CHECKING:
    from pathlib import Path

MORE = (
    BootEdit("📶 wifi/パスワード.txt", "名前\n".encode()),
    BootEdit("📶 wifi/Grüße aus Köln 🦜.conf", b"x" * 70_000),
    BootEdit("a.tar.gz", b"gz"),
    *(BootEdit(f"many/file with number {n}.txt", b"%d" % n) for n in range(200)),
)


@pytest.mark.parametrize(
    "geometry", [g for g in GEOMETRIES if g[1] < 100 and g[:2] != (12, 1)], ids=geometry_name
)
def test_seven_zip_reads_what_was_written(tmp_path: Path, geometry: tuple[int, int, int]) -> None:
    need("7zz")
    image = make_geometry(tmp_path / "base.img", geometry, files=STOCK)
    out = edited(image, (*EDITS, *MORE))
    wanted = {name: data for name, data in STOCK.items() if name != "overlays/README"}
    for edit in (*EDITS, *MORE):
        if edit.data is not None:
            wanted[edit.path.replace("OCCIDENTALIS.TXT", "occidentalis.txt")] = edit.data
    assert extracted(out, tmp_path) == wanted


def extracted(image: FatImage, folder: Path) -> dict[str, bytes]:
    volume, target = folder / "volume.fat", folder / "out"
    run("dd", f"if={image.path}", f"of={volume}", "bs=1M", "conv=sparse", "status=none",
        f"skip={image.start_bytes // MIB}", f"count={image.size_bytes // MIB}")  # fmt: skip
    run("7zz", "x", "-y", "-tfat", f"-o{target}", volume)
    return {
        str(path.relative_to(target)): path.read_bytes()
        for path in target.rglob("*")
        if path.is_file()
    }
