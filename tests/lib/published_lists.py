"""Published lists of images in the form of Raspberry Pi Imager, and an nginx that serves them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tests.lib.archives import sha256sum

if TYPE_CHECKING:
    from pathlib import Path

DEVICES = [
    {"name": "Raspberry Pi 5", "tags": ["pi5-64bit", "pi5-32bit"], "matching_type": "exclusive"},
    {"name": "Raspberry Pi 3", "tags": ["pi3-64bit", "pi3-32bit"], "matching_type": "inclusive"},
]


def listed(url: str = "https://example.org/lite.img.xz", **changes: Any) -> dict[str, Any]:
    """Return an entry as the publisher writes it."""
    return {
        "name": "Raspberry Pi OS Lite (64-bit)",
        "description": "A port of Debian with no desktop environment",
        "icon": "https://example.org/icon.png",
        "url": url,
        "extract_size": 2977955840,
        "extract_sha256": "ab" * 32,
        "image_download_size": 524875608,
        "image_download_sha256": "cd" * 32,
        "release_date": "2026-06-18",
        "devices": ["pi5-64bit", "pi3-64bit"],
        "init_format": "cloudinit-rpi",
        "architecture": "arm64",
        **changes,
    }


def listed_file(image: Path, packed: Path, url: str, **changes: Any) -> dict[str, Any]:
    """Return the entry of an image on this machine, with the digests of sha256sum."""
    facts = {
        "extract_size": image.stat().st_size,
        "extract_sha256": sha256sum(image),
        "image_download_size": packed.stat().st_size,
        "image_download_sha256": sha256sum(packed),
    }
    return listed(url, **facts | changes)


def write_list(path: Path, *entries: Any) -> Path:
    """Write a list with some boards."""
    content = {"imager": {"devices": DEVICES}, "os_list": entries}
    path.write_text(json.dumps(content), encoding="utf-8")
    return path
