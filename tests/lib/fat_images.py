"""Disk images with a FAT boot partition, made by sfdisk, mkfs.vfat and mtools."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from imagebuilder.disk.partitions import boot_partition, read_partitions
from imagebuilder.disk.reader import open_raw
from tests.lib.tools import need, run

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from imagebuilder.disk.extent import Partition, Patch

MIB = 1 << 20
START_BYTES = MIB
EPOCH = 1_447_322_400  # 2015-11-12 10:00:00 UTC
MODIFIED = "2015-04-16 20:15:37"

# kind, size in MiB, bytes a cluster
GEOMETRIES = (
    (12, 1, 512),
    (12, 16, 8192),
    (16, 4, 512),
    (16, 64, 2048),
    (16, 136, 32768),
    (32, 40, 512),
    (32, 136, 2048),
)


@dataclass(frozen=True)
class FatImage:
    """An image file, where its boot partition lies, and what was put there."""

    path: Path
    start_bytes: int
    size_bytes: int

    @property
    def drive(self) -> str:
        """The boot partition as mtools takes it after -i."""
        return f"{self.path}@@{self.start_bytes}"

    def partition(self) -> Partition:
        """Return the boot partition as the product sees it."""
        with open_raw(self.path) as raw:
            return boot_partition(raw, read_partitions(raw))


def make_geometry(path: Path, geometry: tuple[int, int, int], **more: Any) -> FatImage:
    """Make an image of a FAT type, a size in MiB and a cluster size in bytes."""
    kind, size_mib, cluster_bytes = geometry
    return make_image(path, kind=kind, size_mib=size_mib, cluster_bytes=cluster_bytes, **more)


def make_image(
    path: Path,
    *,
    kind: int = 16,
    size_mib: int = 64,
    cluster_bytes: int | None = None,
    files: Mapping[str, bytes] | None = None,
    label: str = "",
    root_mib: int = 1,
    root_entries: int | None = None,
    odd_bytes: int = 0,
    volume_kib: int | None = None,
    options: Sequence[str] = (),
) -> FatImage:
    """Make a sparse MBR image: a FAT partition at 1 MiB, then an 0x83 one filled with a pattern.

    The type byte is 0x0c whatever the kind, as on the April 2015 image. `odd_bytes` are added
    at the end; `volume_kib` makes a volume smaller than its partition; `options` go to mkfs.vfat.
    """
    need("sfdisk", "mkfs.vfat", "mattrib", "mcopy", "mdel", "mlabel", "mmd")
    size = size_mib * MIB
    end = START_BYTES + size
    with path.open("wb") as image:
        image.truncate(end + root_mib * MIB + odd_bytes)
        image.seek(end)
        image.write(b"not of the boot partition! " * 5000)
    table = f"label: dos\nlabel-id: 0\nstart=2048, size={size // 512}, type=c\n"
    if root_mib:
        table += f"start={end // 512}, size={root_mib * 2048}, type=83\n"
    run("sfdisk", "-q", "--no-reread", "--no-tell-kernel", path, input=table)
    command = ["mkfs.vfat", "-F", str(kind), "--invariant", "--offset", "2048"]
    command += ["-s", str(cluster_bytes // 512)] if cluster_bytes else []
    command += ["-r", str(root_entries)] if root_entries else []
    command += ["-n", label] if label else []
    run(*command, *options, path, str(volume_kib or size // 1024))
    image_ = FatImage(path, START_BYTES, size)
    put_files(image_, files or {})
    return image_


def put_files(image: FatImage, files: Mapping[str, bytes]) -> None:
    """Copy files in by mtools, with a fixed time, making folders as needed."""
    need("mcopy", "mmd")
    made: set[str] = set()
    for name, data in files.items():
        parents = name.split("/")[:-1]
        for depth in range(len(parents)):
            folder = "/".join(parents[: depth + 1])
            if folder not in made:
                run("mmd", "-D", "s", "-i", image.drive, f"::{folder}", check=False)
                made.add(folder)
        source = image.path.with_suffix(".one")
        source.write_bytes(data)
        os.utime(source, (EPOCH - 86400, EPOCH - 86400))
        run("mcopy", "-m", "-o", "-i", image.drive, source, f"::{name}")
        source.unlink()


def write_patched(image: FatImage, patch: Patch, out: Path) -> FatImage:
    """Copy the image and write the patch's runs into the copy, by nothing but pwrite."""
    run("cp", "--sparse=always", "--reflink=auto", image.path, out)
    descriptor = os.open(out, os.O_WRONLY)
    try:
        for piece in patch.runs:
            os.pwrite(descriptor, piece.data, piece.offset_bytes)
    finally:
        os.close(descriptor)
    return FatImage(out, image.start_bytes, image.size_bytes)


def fsck(image: FatImage) -> str:
    """Fail unless `fsck.vfat -n` finds the boot partition sound; give its words."""
    need("fsck.vfat")
    volume = image.path.with_suffix(".fsck")
    try:
        run(
            "dd", f"if={image.path}", f"of={volume}", "bs=1M", "conv=sparse", "status=none",
            f"skip={image.start_bytes // MIB}", f"count={image.size_bytes // MIB}",
        )  # fmt: skip
        return run("fsck.vfat", "-n", "-v", volume)
    finally:
        volume.unlink(missing_ok=True)


def mtype(image: FatImage, name: str) -> bytes:
    """Return a file's bytes as mtools reads them."""
    out = image.path.with_suffix(".mtype")
    run("mcopy", "-n", "-o", "-i", image.drive, f"::{name}", out)
    data = out.read_bytes()
    out.unlink()
    return data


def mlist(image: FatImage) -> tuple[str, ...]:
    """Return the paths of all files as mtools lists them, sorted."""
    lines = run("mdir", "-/", "-b", "-a", "-i", image.drive, "::").splitlines()
    return tuple(sorted(line.removeprefix("::/") for line in lines if not line.endswith("/")))


def mattrib(image: FatImage, name: str) -> str:
    """Return a file's attribute letters as mtools shows them."""
    return re.sub(r"::.*", "", run("mattrib", "-i", image.drive, f"::{name}")).strip()
