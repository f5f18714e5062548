"""Linux's own vfat driver as the judge of an edited boot partition."""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from imagebuilder.model import BootEdit
from tests.lib.fat_edits import EDITS, STOCK, edited, geometry_name
from tests.lib.fat_images import EPOCH, FatImage, make_geometry
from tests.lib.tools import need, need_root, run

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.root


@contextmanager
def mounted(image: FatImage, folder: Path, options: str) -> Iterator[Path]:
    """Mount the boot partition through a loop device at its offset."""
    need_root()
    need("mount", "umount", "modprobe")
    run("modprobe", "vfat", check=False)
    if "vfat" not in Path("/proc/filesystems").read_text():
        pytest.skip("this kernel has no vfat")
    folder.mkdir(exist_ok=True)
    place = f"loop,offset={image.start_bytes},sizelimit={image.size_bytes},{options}"
    run("mount", "-t", "vfat", "-o", f"{place},tz=UTC,utf8=1", image.path, folder)
    try:
        yield folder
    finally:
        run("umount", folder)


def digest(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize(
    "geometry", [(12, 1, 512), (16, 64, 2048), (32, 34, 512)], ids=geometry_name
)
def test_linux_reads_an_edited_volume_and_writes_on(
    tmp_path: Path, geometry: tuple[int, int, int]
) -> None:
    image = make_geometry(tmp_path / "base.img", geometry, files=STOCK)
    # names and attributes as Linux itself writes them
    with mounted(image, tmp_path / "m", "rw") as folder:
        (folder / "config.txt").write_bytes(b"by linux\n")
        (folder / "Made By Linux.txt").write_bytes(b"by linux\n")
        (folder / "two").mkdir()
        (folder / "two" / "user-data").write_bytes(b"#cloud-config\n")
    edits = (
        *EDITS,
        BootEdit("made by LINUX.txt", b"by us\n"),
        BootEdit("two/user-data", b"#cloud-config\nhostname: pi-03\n"),
        BootEdit("two/📶 emoji.txt", b"wifi"),
    )
    out = edited(image, edits)
    with mounted(out, tmp_path / "m", "ro") as folder:
        wanted = {name: data for name, data in STOCK.items() if name != "overlays/README"}
        for edit in edits:
            if edit.data is not None:
                names = {
                    "OCCIDENTALIS.TXT": "occidentalis.txt",
                    "made by LINUX.txt": "Made By Linux.txt",
                }
                wanted[names.get(edit.path, edit.path)] = edit.data
        assert digest(folder) == {
            name: hashlib.sha256(data).hexdigest() for name, data in wanted.items()
        }
        assert (folder / "config.txt").stat().st_mtime == EPOCH
        assert (folder / "rpi-image").stat().st_mtime == EPOCH
    with mounted(out, tmp_path / "m", "rw") as folder:
        (folder / "rpi-image" / "status").write_bytes(b"ok\n" * 1000)
        (folder / "rpi-image" / "install").unlink()
    assert edited(out, [BootEdit("rpi-image/status", b"again")])
