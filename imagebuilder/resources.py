"""Where the program's own profiles and overlays lie: in the wheel, or beside it in a checkout."""

from __future__ import annotations

from pathlib import Path


def shipped_folder(name: str) -> Path:
    """Return the folder `profiles` or `overlays` that came with the program."""
    package = Path(__file__).parent
    inside = package / "_data" / name
    return inside if inside.is_dir() else package.parent / name
