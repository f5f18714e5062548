"""Find the shipped profiles and overlays: inside the wheel, or beside the package in a checkout."""

from __future__ import annotations

from pathlib import Path


def shipped_folder(name: str) -> Path:
    """Return the shipped folder `name`: `profiles` or `overlays`."""
    package = Path(__file__).parent
    inside = package / "_data" / name
    return inside if inside.is_dir() else package.parent / name
