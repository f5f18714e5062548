"""One more node from a cached base, beside `cp --sparse=always` and the same edit by mtools.

Both sides end with what they wrote on the disk (`sync`), since an image in memory is no image yet;
the next row leaves cp's there and is only told (docs/decisions/0010). The base is a 1.3 GB image
with 650 MB of content. Needs root for btrfs.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from imagebuilder.build.compose import Composition, open_composer
from imagebuilder.build.image import write_image
from imagebuilder.model import BaseImage, ImageSource, NodeSettings
from tests.benchmarks.table import Row, report
from tests.lib.program import SAMPLE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROUNDS = 5
CONTENT_MIB = 650
SIZE_BYTES = 1_300_000_000


def sh(script: str, **names: object) -> None:
    """Run a line of shell with `names` in its environment."""
    environment = {**os.environ, "MTOOLS_SKIP_CHECK": "1", **{k: str(v) for k, v in names.items()}}
    environment["PATH"] += ":/usr/sbin:/sbin"
    subprocess.run(["sh", "-ec", script], check=True, env=environment, stdout=subprocess.DEVNULL)


def make_base(folder: Path) -> Path:
    """Make the base from the sample: its boot partition, then content that does not compress."""
    base = folder / "base.img"
    sh(
        'zstd -dqf "$SAMPLE" -o "$BASE"; truncate -s $SIZE "$BASE";'
        'dd if=/dev/urandom of="$BASE" bs=1M seek=70 count=$MIB conv=notrunc status=none; sync',
        SAMPLE=SAMPLE, BASE=base, SIZE=SIZE_BYTES, MIB=CONTENT_MIB,
    )  # fmt: skip
    return base


def settings(base: Path) -> NodeSettings:
    """Return a node over the base."""
    source = ImageSource("base", file=base, unchecked=True)
    return NodeSettings(
        hostname="pi-03", profile="armv7", arch="armv7", machines=("armv7l",), image=source
    )


def timed(work: Callable[[], object]) -> float:
    """Return the seconds that `work` takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def edits_as_files(composition: Composition, folder: Path) -> Path:
    """Lay the plan's files into a folder, for mtools."""
    tree = folder / "tree"
    for edit in composition.plan.edits:
        path = tree / edit.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(edit.data or b"")
    return tree


def measure(folder: Path, *, synced: bool) -> tuple[float, float, str]:
    """Return the medians of our seconds and of cp and mtools, in turns, and how we wrote."""
    path = make_base(folder)
    base = BaseImage(path, "0" * 64, SIZE_BYTES, "base")
    node = settings(path)
    end = "; sync $OUT" if synced else ""
    ours, theirs, how = [], [], ""
    with open_composer(base, epoch=1_700_000_000) as composer:
        tree = edits_as_files(composer.compose(node), folder)

        def build() -> None:
            nonlocal how
            how = write_image(composer.compose(node), folder / "ours.img").how

        copy = 'cp --sparse=always --reflink=never "$BASE" "$OUT"; '
        copy += 'mcopy -sQo -i "$OUT@@1M" "$TREE"/* ::'
        for _ in range(ROUNDS):
            for name in ("ours.img", "theirs.img"):
                (folder / name).unlink(missing_ok=True)
            sh("sync")
            theirs.append(
                timed(lambda: sh(copy + end, BASE=path, OUT=folder / "theirs.img", TREE=tree))
            )
            ours.append(timed(build))
    return median(ours), median(theirs), how


@contextmanager
def btrfs(folder: Path) -> Iterator[Path]:
    """Mount a fresh btrfs for a while."""
    store, mountpoint = folder / "btrfs.img", folder / "btrfs"
    mountpoint.mkdir()
    sh('truncate -s 6G "$S"; mkfs.btrfs -q "$S"; mount -o loop "$S" "$M"', S=store, M=mountpoint)
    try:
        yield mountpoint
    finally:
        sh('umount "$M"', M=mountpoint)


def row(what: str, measured: tuple[float, float, str], target: float = 0) -> Row:
    """Put a measurement into the table; without a target it is only told."""
    ours, theirs, how = measured
    ratio = ours / theirs
    return Row(
        f"{what} ({how})", f"{ours:.3f} s", f"{theirs:.3f} s", f"{ratio:.2f}",
        f"<= {target:.2f}" if target else "(told only)", not target or ratio <= target,
    )  # fmt: skip


def main() -> None:
    """Measure and report."""
    rows = []
    with tempfile.TemporaryDirectory(dir=Path.cwd() / "build", prefix="bench-") as name:
        folder = Path(name)
        rows.append(row("one more node, on disk", measure(folder, synced=True), 1.05))
        rows.append(row("ours on disk, cp's in memory", measure(folder, synced=False)))
        if os.geteuid() == 0:
            with btrfs(folder) as disk:
                rows.append(row("one more node, btrfs", measure(disk, synced=True), 0.10))
    report("One more node, beside cp --sparse=always and mtools", rows)


if __name__ == "__main__":
    (Path.cwd() / "build").mkdir(exist_ok=True)
    main()
