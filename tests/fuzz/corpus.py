"""The inputs that are kept in the repository: a line for each, packed, after its name.

`found-…` are findings that were fixed; the others reach code that the seeds do not.
"""

from __future__ import annotations

import base64
import zlib
from pathlib import Path

FOLDER = Path(__file__).parent / "corpus"
FOUND = "found-"


def load(target: str) -> dict[str, bytes]:
    """Return the kept inputs of a target by name."""
    path = FOLDER / f"{target}.txt"
    lines = path.read_text(encoding="ascii").splitlines() if path.exists() else []
    return {name: unpacked(text) for name, text in (line.split() for line in lines)}


def save(target: str, inputs: dict[str, bytes]) -> None:
    """Write the kept inputs of a target."""
    lines = [f"{name} {packed(data)}\n" for name, data in sorted(inputs.items())]
    (FOLDER / f"{target}.txt").write_text("".join(lines), encoding="ascii")


def packed(data: bytes) -> str:
    """Return an input as a word, which `--case` reads as well."""
    return base64.b64encode(zlib.compress(data, 9)).decode()


def unpacked(text: str) -> bytes:
    """Return the input of a word."""
    return zlib.decompress(base64.b64decode(text))
