"""The patch of a full configuration, warm, beside the same edit by mtools."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from imagebuilder.disk.fat.edit import BootBase
from imagebuilder.disk.reader import open_raw
from imagebuilder.model import BootEdit, DockerTls, HostKey, Secret
from tests.benchmarks.table import Row, report
from tests.lib.fat_images import EPOCH, MIB, FatImage, make_image, mtype
from tests.lib.plan_samples import STOCK, boot_of, full_node, plan
from tests.lib.tools import run

if TYPE_CHECKING:
    from collections.abc import Callable

# size in MiB, kind, bytes a cluster, most milliseconds warm as issue 2 states them
VOLUMES = ((64, 16, 2048, 15.0), (256, 32, 2048, 25.0), (512, 32, 4096, 25.0))
MOST_PATCH_BYTES = 128 << 10
ROUNDS = 25
STOCK_FILES = 260
STOCK_MIB = 40
VENDOR = "cloud-init-trixie"
CERTIFICATE_BYTES = 900  # of the ECDSA ones that `batch` makes


def stock(mib: int) -> dict[str, bytes]:
    """Return a boot partition's files as a vendor ships them: a kernel and many dtoverlays."""
    kernel = bytes(range(256)) * (mib * MIB // 4 // 256)
    return {**STOCK[VENDOR], "kernel7.img": kernel}


def overlays(folder: Path) -> None:
    """Make the dtoverlays as files, for one mcopy of them all."""
    (folder / "overlays").mkdir()
    for number in range(STOCK_FILES):
        place = folder / "overlays" / f"some-sound-card-{number}-overlay.dtbo"
        place.write_bytes(bytes([number % 250 + 1]) * 1800)


@cache
def full_configuration(node: int) -> tuple[BootEdit, ...]:
    """Plan a node that uses everything there is, with keys as long as real ones."""
    tls = DockerTls("c" * CERTIFICATE_BYTES, "d" * CERTIFICATE_BYTES, Secret("k" * 240))
    keys = (
        HostKey("rsa", Secret("r" * 2600), "s" * 560),
        HostKey("ed25519", Secret("e" * 400), "f"),
    )
    settings = replace(full_node(), hostname=f"pi-{node:02}", docker_tls=tls, host_keys=keys)
    return plan(settings, boot_of(VENDOR)).edits


def median_ms(act: Callable[[int], object]) -> float:
    """Time an act for several nodes; the first run warms up and does not count."""
    act(0)
    times = []
    for node in range(1, ROUNDS + 1):
        begin = time.perf_counter()
        act(node)
        times.append(time.perf_counter() - begin)
    return statistics.median(times) * 1000


def ratio(ours_ms: float, theirs_ms: float) -> str:
    """Show how much of their time is ours."""
    return f"{ours_ms / theirs_ms:.2f} ×"  # noqa: RUF001


def lay_out(node: int, folder: Path) -> list[Path]:
    """Make one node's files, for one mcopy of them all; give what stands at the top."""
    for edit in full_configuration(node):
        place = folder / edit.path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(edit.data or b"")
    return sorted(folder.iterdir())


def by_mtools(image: FatImage, folder: Path) -> float:
    """Time the same edits in place with one mcopy each; the files to copy are there before."""
    trees = [lay_out(node, folder / f"node{node}") for node in range(ROUNDS + 1)]
    median = median_ms(
        lambda node: run("mcopy", "-s", "-o", "-m", "-i", image.drive, *trees[node], "::")
    )
    last = next(e for e in full_configuration(ROUNDS) if e.path == "rpi-image/node.env")
    if mtype(image, last.path) != last.data:
        raise SystemExit("mtools did not make the edit it was timed for")
    return median


def rows_of(
    folder: Path, size_mib: int, kind: int, cluster_bytes: int, most_ms: float
) -> list[Row]:
    """Measure one volume."""
    image = make_image(
        folder / f"{size_mib}.img",
        kind=kind,
        size_mib=size_mib,
        cluster_bytes=cluster_bytes,
        files=stock(STOCK_MIB),
    )
    with tempfile.TemporaryDirectory() as made:
        overlays(Path(made))
        run("mcopy", "-s", "-i", image.drive, Path(made) / "overlays", "::")
    nodes = [full_configuration(node) for node in range(ROUNDS + 1)]
    with open_raw(image.path) as raw:
        begin = time.perf_counter()
        base = BootBase(raw, image.partition())
        patch = base.apply(nodes[0], EPOCH)
        cold_ms = (time.perf_counter() - begin) * 1000
        warm_ms = median_ms(lambda node: base.apply(nodes[node], EPOCH))
    mtools_ms = by_mtools(image, folder / f"by-mtools-{size_mib}")
    what = f"FAT{kind} {size_mib} MiB"
    kib = patch.size_bytes / 1024
    return [
        Row(f"patch, warm, {what}", f"{warm_ms:.1f} ms", f"{mtools_ms:.1f} ms (mtools in place)",
            ratio(warm_ms, mtools_ms), f"≤ {most_ms:.0f} ms", warm_ms <= most_ms),
        Row(f"patch, cold, {what}", f"{cold_ms:.1f} ms", f"{mtools_ms:.1f} ms (mtools in place)",
            ratio(cold_ms, mtools_ms), "(told only)", True),
        Row(f"patch size, {what}", f"{kib:.0f} KiB", f"{len(patch.runs)} runs", "", "< 128 KiB",
            patch.size_bytes < MOST_PATCH_BYTES),
    ]  # fmt: skip


def main() -> None:
    """Measure every volume and print the table."""
    place = os.environ.get("TMPDIR", "/tmp")
    with tempfile.TemporaryDirectory(dir=place) as folder:
        rows = [row for volume in VOLUMES for row in rows_of(Path(folder), *volume)]
    report("The patch of one node", rows)


if __name__ == "__main__":
    main()
