"""Read from the root of an image what system it is: architecture, release, Docker, apt.

Formats: deb-control(5), dpkg(1) (`status`), os-release(5), sources.list(5).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from imagebuilder.disk.ext4_files import open_root
from imagebuilder.disk.reader import open_raw
from imagebuilder.errors import ImageError, reading
from imagebuilder.model import RootSystem

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from imagebuilder.disk.ext4_files import Ext4Files
    from imagebuilder.disk.reader import ReadAt

STATUS = "var/lib/dpkg/status"
_RELEASE = "etc/os-release"
_SOURCES = "etc/apt/sources.list"
_KEYRING_SUFFIXES = (".gpg", ".asc", ".pgp")

# Budgets: an os-release file, one of apt's own files, and their number in a folder.
MOST_RELEASE_BYTES = 64 << 10
MOST_APT_BYTES = 1 << 20
MOST_APT_FILES = 200

# The packages with dockerd, by Debian, Docker Inc. and Hypriot; the oldest names last.
DOCKER_PACKAGES = (
    "docker.io",
    "docker-ce",
    "moby-engine",
    "docker-engine",
    "docker-hypriot",
    "lxc-docker",
)
# One of these is in every image, with the architecture of the others.
_ESSENTIAL = ("dpkg", "base-files", "libc6")
_INSTALLED = re.compile(r"^Status:[^\n]* installed *$", re.MULTILINE)
_FIELD = re.compile(r"^(Package|Version|Architecture): *([^\s]+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class RootFile:
    """A file of the root, with its path from there."""

    path: str
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class AptState:
    """What apt needs to know of an image: its packages, sources and keyrings."""

    arch: str
    status: bytes = field(repr=False)
    sources: tuple[RootFile, ...]
    keyrings: tuple[RootFile, ...]


def find_root_system(path: Path) -> RootSystem | None:
    """Return the system of a raw image; None if its root cannot be read."""
    try:
        with open_raw(path) as disk:
            return read_root_system(disk)
    except ImageError:
        return None


def read_root_system(disk: ReadAt) -> RootSystem | None:
    """Return the system on a disk; None if there is no root with a file system that can be read.

    Raise ImageError if it is damaged.
    """
    with reading("the root of the image", ImageError):
        root = open_root(disk)
        return _system_of(root) if root else None


def _system_of(root: Ext4Files) -> RootSystem:
    packages = installed_packages(root.read(STATUS) or b"")
    release = _release(root)
    return RootSystem(
        arch=_arch(packages),
        os_id=release.get("ID", ""),
        codename=release.get("VERSION_CODENAME", "") or _old_codename(release),
        docker=_docker(packages),
    )


def read_apt_state(disk: ReadAt) -> AptState | None:
    """Return the state of apt on a disk; None if there is no root with packages."""
    root = open_root(disk)
    status = root.read(STATUS) if root else None
    if root is None or not status:
        return None
    sources = [_SOURCES, *_names(root, f"{_SOURCES}.d", (".list", ".sources"))]
    keyrings = [f"etc/apt/trusted{_KEYRING_SUFFIXES[0]}"]
    for folder in ("etc/apt/trusted.gpg.d", "etc/apt/keyrings", "usr/share/keyrings"):
        keyrings += _names(root, folder, _KEYRING_SUFFIXES)
    return AptState(
        arch=_arch(installed_packages(status)),
        status=status,
        sources=tuple(_read_all(root, sources)),
        keyrings=tuple(_read_all(root, keyrings)),
    )


def _names(root: Ext4Files, folder: str, suffixes: tuple[str, ...]) -> list[str]:
    names = [name for name in root.names(folder) if name.endswith(suffixes)]
    if len(names) > MOST_APT_FILES:
        raise ImageError(f"{folder} in the image has {len(names)} files", "check the image")
    return [f"{folder}/{name}" for name in names]


def _read_all(root: Ext4Files, paths: list[str]) -> Iterator[RootFile]:
    for path in paths:
        data = root.read(path, MOST_APT_BYTES)
        if data is not None:
            yield RootFile(path, data)


def installed_packages(status: bytes) -> dict[str, tuple[str, str]]:
    """Return version and architecture of the installed packages of a dpkg status file by name."""
    found = {}
    for stanza in status.decode("utf-8", "replace").split("\n\n"):
        if _INSTALLED.search(stanza):
            fields = dict(_FIELD.findall(stanza))
            name = fields.get("Package", "")
            found[name] = fields.get("Version", ""), fields.get("Architecture", "")
    return found


def _arch(packages: dict[str, tuple[str, str]]) -> str:
    return next((packages[name][1] for name in _ESSENTIAL if name in packages), "")


def _docker(packages: dict[str, tuple[str, str]]) -> str:
    name = next((name for name in DOCKER_PACKAGES if name in packages), "")
    return upstream_version(packages[name][0]) if name else ""


def upstream_version(version: str) -> str:
    """Return the numbers of an upstream version, without epoch and revision (deb-version(7))."""
    found = re.match(r"(?:\d+:)?v?(\d+(?:\.\d+)*)", version)
    return found[1] if found else ""


def _release(root: Ext4Files) -> dict[str, str]:
    text = (root.read(_RELEASE, MOST_RELEASE_BYTES) or b"").decode("utf-8", "replace")
    lines = re.findall(r"^([A-Z_]+)=(.*?)\s*$", text, re.MULTILINE)
    return {name: value.strip("\"'") for name, value in lines}


def _old_codename(release: dict[str, str]) -> str:
    """Return the word in brackets: before stretch there is no VERSION_CODENAME."""
    found = re.search(r"\((\w+)\)", release.get("VERSION", ""))
    return found[1].lower() if found else ""
