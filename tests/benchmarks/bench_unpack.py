"""Unpacking a vendor's zip: ours, with digest and holes, beside `unzip -p > file`."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.benchmarks.table import Row, report

IMAGE_BYTES = 1_363_148_800  # HypriotOS 1.12.3
CONTENT_BYTES = 650_000_000
ROUNDS = 3

_OURS = """
import sys, time
from pathlib import Path
from imagebuilder.images.archives.unpack import open_stream
from imagebuilder.images.sparse import write_raw
started = time.perf_counter()
with open_stream(Path(sys.argv[1])) as stream:
    written = write_raw(stream, Path(sys.argv[2]))
spent = time.perf_counter() - started
peak = Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]
print(spent, peak, written.sha256)
"""


def make_image(path: Path) -> None:
    """Fill an image as a root file system does: files in runs, with free space between."""
    chance, done = random.Random(1), 0
    with path.open("wb") as file:
        file.seek(64 << 20)
        for source in _files_of_this_machine():
            if done >= CONTENT_BYTES:
                break
            data = source.read_bytes()[: CONTENT_BYTES - done]
            file.write(data + bytes(-len(data) % 4096))
            done += len(data)
            room = IMAGE_BYTES - file.tell() - (CONTENT_BYTES - done) * 101 // 100
            if chance.random() < 0.002 and room > (64 << 20):
                file.seek(room // 8, os.SEEK_CUR)
        while done < CONTENT_BYTES:
            file.write(chance.randbytes(1 << 19) + b"padding " * (1 << 16))
            done += 1 << 20
        file.truncate(IMAGE_BYTES)


def _files_of_this_machine() -> list[Path]:
    found = [Path(folder, name) for folder, _, names in os.walk("/usr") for name in names]
    return [p for p in sorted(found) if p.is_file() and not p.is_symlink() and readable(p)]


def readable(path: Path) -> bool:
    """Return whether this user may read a file that is not huge."""
    return os.access(path, os.R_OK) and path.stat().st_size < 64 << 20


def time_ours(packed: Path, out: Path) -> tuple[float, int, str]:
    """Unpack in a process of its own; gives seconds, peak KiB of memory, digest."""
    out.unlink(missing_ok=True)
    done = subprocess.run(
        [sys.executable, "-c", _OURS, packed, out], capture_output=True, text=True, check=True
    )
    seconds, peak, digest = done.stdout.split()
    return float(seconds), int(peak), digest


def time_theirs(packed: Path, out: Path) -> float:
    """Unpack by unzip, without digest, holes or fsync."""
    out.unlink(missing_ok=True)
    started = time.perf_counter()
    with out.open("wb") as file:
        subprocess.run(["unzip", "-p", packed], stdout=file, check=True)
    return time.perf_counter() - started


def main() -> int:
    """Measure in turns, compare the best of each, check the digest; 1 where a target is missed."""
    with tempfile.TemporaryDirectory(prefix="rpi-image-bench-", dir=os.environ.get("TMPDIR")) as d:
        folder = Path(d)
        image, packed = folder / "pi.img", folder / "pi.img.zip"
        make_image(image)
        subprocess.run(["zip", "-q", packed.name, image.name], cwd=folder, check=True)
        expected = subprocess.check_output(["sha256sum", image], text=True).split()[0]
        image.unlink()
        ours, theirs, peaks = [], [], []
        for _ in range(ROUNDS):
            theirs.append(time_theirs(packed, folder / "theirs.img"))
            (folder / "theirs.img").unlink()
            seconds, peak, digest = time_ours(packed, folder / "ours.img")
            if digest != expected:
                raise SystemExit("the unpacked image is not the one that was packed")
            ours.append(seconds)
            peaks.append(peak)
    return _report(min(ours), min(theirs), max(peaks))


def _report(ours: float, theirs: float, peak: int) -> int:
    rows = [
        Row(
            "unpack a zip of 1.36 GB (650 MB of content), SHA-256, holes, fsync",
            f"{ours:.2f} s",
            f"`unzip -p > file` {theirs:.2f} s",
            f"{ours / theirs:.2f}",
            "≤ 0.33",
            ours / theirs <= 0.33,
        ),
        Row(
            "peak memory of that, Python included",
            f"{peak / 1024:.0f} MiB",
            "",
            "",
            "< 150 MiB",
            peak < 150 * 1024,
        ),
    ]
    report("Unpacking", rows)
    return 0 if all(row.met for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
