"""Roots: files of an ext4 file system with some bytes of a sound one exchanged."""

from __future__ import annotations

import struct
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from imagebuilder.disk.ext4_files import MOST_FILE_BYTES, open_root
from imagebuilder.images.root_system import read_root_system
from tests.fuzz.disks import Sound, changed_disk, changer, starts
from tests.fuzz.target import Target, allowed
from tests.lib.fat_images import MIB
from tests.lib.tools import need, run

if TYPE_CHECKING:
    from collections.abc import Iterator

_SYSTEMS = (
    ["-t", "ext4", "-b", "1024", "-I", "256", "-O", "inline_data,64bit,metadata_csum"],
    ["-t", "ext4", "-b", "4096", "-O", "^metadata_csum"],
    ["-t", "ext2", "-b", "1024", "-I", "128"],
)
_TABLE = "label: dos\nlabel-id: 0\nstart=2048, type=83\n"
_STATUS = "Package: libc6\nStatus: install ok installed\nArchitecture: armhf\nVersion: 2.36\n\n"
_FILES = {
    "var/lib/dpkg/status": _STATUS * 900,
    "usr/lib/os-release": "ID=raspbian\nVERSION_CODENAME=bookworm\n",
    "etc/apt/sources.list": "deb http://archive.example bookworm main\n",
    "etc/apt/sources.list.d/a.list": "deb http://archive.example bookworm extra\n",
    **{f"usr/share/a rather long name of a file {n}": "x" for n in range(60)},
}
_LINKS = {"etc/os-release": "../usr/lib/os-release", "etc/circle": "circle", "lib": "usr/lib"}
_INODE_FIELDS = (
    (0, 2), (4, 4), (32, 4), (108, 4), (128, 2),
    *((place, 4) for place in range(40, 100, 4)),
    *((place, 2) for place in (40, 42, 44, 46, 52, 56, 58)),
)  # fmt: skip


@cache
def roots() -> list[Sound]:
    need("mkfs.ext4", "sfdisk")
    made = []
    with TemporaryDirectory() as folder:
        tree, path = Path(folder) / "tree", Path(folder) / "disk"
        for name, text in _FILES.items():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            (tree / name).write_text(text)
        for name, target in _LINKS.items():
            (tree / name).symlink_to(target)
        for options in _SYSTEMS:
            path.write_bytes(bytes(5 * MIB))
            run("sfdisk", "-q", "--no-reread", "--no-tell-kernel", path, input=_TABLE)
            universal = "01234567-89ab-cdef-0123-456789abcdef"
            fixed = ["-U", universal, "-E", f"hash_seed={universal},offset={MIB}", "-N", "256"]
            run("mkfs.ext4", "-q", "-F", *options, *fixed, "-d", tree, path, "4M")
            data = path.read_bytes()
            made.append(Sound(data, tuple((MIB + at, size) for at, size in _spots(data[MIB:]))))
    return made


def _spots(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield fields of inodes, and of entries of folders, which are before their names."""
    block = 1024 << data[1024 + 24]
    (inode_bytes,) = struct.unpack_from("<H", data, 1024 + 88)
    (table,) = struct.unpack_from("<I", data, max(2048, block) + 8)
    for inode in (2, *range(11, 60)):
        start = table * block + (inode - 1) * inode_bytes
        yield from ((start + at, size) for at, size in _INODE_FIELDS)
    for name in (b"dpkg", b"status", b"os-release", b"apt", b"sources.list", b"circle", b"usr"):
        at = data.find(name)
        while at > 8:
            yield from ((at - 8, 4), (at - 4, 2), (at - 2, 1), (at - 1, 1), (at, 1))
            at = data.find(name, at + 1)


def read_root(data: bytes, folder: Path) -> None:
    """Read what the program reads of a root, and every file of the folders in it."""
    del folder
    disk, _ = changed_disk(data, roots())
    with allowed():
        read_root_system(disk)
    with allowed():
        files = open_root(disk)
        for place in ("/", "/etc", "/etc/apt", "/usr/share", "/var/lib/dpkg") if files else ():
            for name in files.names(place)[:20] if files else ():
                with allowed():
                    content = files.read(f"{place}/{name}") if files else None
                    assert len(content or b"") <= MOST_FILE_BYTES


TARGETS = (Target("root", starts(roots), changer(roots), read_root),)
