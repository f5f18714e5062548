"""Disk images partitioned by sfdisk and packed by the tools that vendors use."""

from __future__ import annotations

import random
import subprocess
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from imagebuilder.progress import SilentReporter
from tests.lib.tools import need, run

if TYPE_CHECKING:
    from pathlib import Path

MEBIBYTE = 1 << 20
ODD_BYTES = 9 * MEBIBYTE + 100

_PACKERS = {
    "zip": "zip -q {out} {image}",
    "stored.zip": "zip -q -0 {out} {image}",
    "streamed.zip": "cat {image} | zip -q {out} -",
    "zip64.zip": "zip -q -fz {out} {image}",
    "pigz.zip": "pigz --zip -c {image} > {out}",
    "gz": "gzip -c {image} > {out}",
    "pigz.gz": "pigz -c {image} > {out}",
    "xz": "xz -1 -c {image} > {out}",
    "blocks.xz": "xz -1 -T2 --block-size=1000000 -c {image} > {out}",
    "crc32.xz": "xz -1 --check=sha256 -c {image} > {out}",
    "zst": "zstd -q -c {image} > {out}",
    "streamed.zst": "cat {image} | zstd -q -c > {out}",
    "bz2": "bzip2 -1 -c {image} > {out}",
}
FORMS = tuple(_PACKERS)


def make_image(path: Path, size_bytes: int = ODD_BYTES, seed: int = 1) -> Path:
    """Make an image partitioned as in 2015, with content, zeros, and a ragged end."""
    need("sfdisk")
    chance = random.Random(seed)
    with path.open("wb") as file:
        file.truncate(size_bytes)
        for start in (2 * MEBIBYTE, 4 * MEBIBYTE + 1000, 6 * MEBIBYTE):
            file.seek(start)
            file.write(chance.randbytes(300_000) + b"text " * 20_000)
        file.seek(size_bytes - 10)
        file.write(b"the end!!!")
    table = "label: dos\nstart=2048, size=4096, type=c\nstart=6144, size=8192, type=83\n"
    run("sfdisk", "-q", path, input=table)
    return path


def pack(image: Path, form: str, folder: Path | None = None) -> Path:
    """Pack an image by the form's own tool."""
    need("bzip2", "gzip", "pigz", "xz", "zip", "zstd")
    out = (folder or image.parent) / f"{image.name}.{form}"
    text = _PACKERS[form].format(image=image.name, out=out)
    subprocess.run(text, shell=True, check=True, cwd=image.parent)  # noqa: S602 - from the table
    return out


def sha256sum(path: Path) -> str:
    """Return the digest that coreutils computes."""
    return run("sha256sum", path).split()[0].lstrip("\\")


def publish_checksum(path: Path) -> Path:
    """Put a GNU checksum file beside `path`, as publishers do."""
    beside = path.with_name(path.name + ".sha256")
    beside.write_text(run("sha256sum", path.name, cwd=path.parent))
    return beside


@dataclass
class Recorder(SilentReporter):
    """A voice that keeps what was said."""

    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        self.notes.append(text)

    def warn(self, text: str) -> None:
        self.warnings.append(text)
