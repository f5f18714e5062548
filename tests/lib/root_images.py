"""Disk images with a FAT boot partition and an ext4 root that says what system it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.lib.fat_images import START_BYTES, make_image
from tests.lib.plan_samples import STOCK
from tests.lib.tools import need, run

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

RASPBIAN = 'PRETTY_NAME="Raspbian 12"\nID=raspbian\nVERSION_CODENAME=bookworm\n'
DEBIAN = 'ID=debian\nVERSION_ID="12"\nVERSION="12 (bookworm)"\nVERSION_CODENAME=bookworm\n'
WHEEZY = 'PRETTY_NAME="Raspbian GNU/Linux 7 (wheezy)"\nID=raspbian\nVERSION="7 (wheezy)"\n'


def package(name: str, version: str, arch: str, status: str = "install ok installed") -> str:
    return (
        f"Package: {name}\nStatus: {status}\nPriority: required\nArchitecture: {arch}\n"
        f"Version: {version}\nDescription: a package\n Version: not this one\n\n"
    )


def root_files(arch: str, release: str = RASPBIAN, *packages: str) -> dict[str, str]:
    status = package("base-files", "12.4", arch) + package("dpkg", "1.21.22", arch)
    return {"etc/os-release": release, "var/lib/dpkg/status": status + "".join(packages)}


def make_root_image(
    path: Path,
    files: Mapping[str, str | bytes],
    generation: str = "firstrun-bookworm",
    boot_mib: int = 16,
) -> Path:
    """Make an image of a generation whose root holds `files`, as `mke2fs -d` puts them there."""
    need("mkfs.ext4")
    image = make_image(path, size_mib=boot_mib + 24, root_mib=24, files=STOCK[generation])
    tree, root = path.with_suffix(".tree"), path.with_suffix(".root")
    for name, data in files.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes(data.encode() if isinstance(data, str) else data)
    run("truncate", "-s", "24M", root)
    run("mkfs.ext4", "-q", "-F", "-d", tree, root)
    with path.open("r+b") as file:
        file.seek(START_BYTES + image.size_bytes)
        file.write(root.read_bytes())
    return path
