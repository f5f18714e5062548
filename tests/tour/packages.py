"""Debian's packages for the tour, fetched and verified by apt in a tree of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from imagebuilder.images.apt_tree import AptTree
from imagebuilder.images.root_system import AptState, RootFile
from tests.lib.debian import mirror

SUITE = "bookworm"
ARCH = "armhf"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
ANY_MIRROR = "http://deb.debian.org/debian"  # on Ubuntu; it is Debian's own address
# Depends on the package of the newest kernel.
KERNEL = "linux-image-armmp-lpae"


def fetch_packages(folder: Path) -> list[Path]:
    """Return the packages in `folder`; they are fetched once."""
    if not folder.exists():
        sys.stdout.write(f"fetching Debian's {KERNEL}, busybox-static and tzdata (44 MB)\n")
        sys.stdout.flush()
        with TemporaryDirectory(dir=folder.parent) as work:
            _fetch(Path(work))
            (Path(work) / "packages").rename(folder)
    return sorted(folder.iterdir())


def _fetch(work: Path) -> None:
    tree = AptTree(work.resolve() / "apt")
    line = f"deb [signed-by={KEYRING}] {_mirror()} {SUITE} main\n"
    keyring = str(KEYRING.relative_to("/"))
    tree.write(
        AptState(
            arch=ARCH,
            status=b"",
            sources=(RootFile("etc/apt/sources.list", line.encode()),),
            keyrings=(RootFile(keyring, KEYRING.read_bytes()),),
        )
    )
    tree.update()
    (kernel,) = (
        package.name for package in tree.resolve([KERNEL])
        if package.name.startswith("linux-image-") and package.name != KERNEL
    )  # fmt: skip
    (tree.folder / "etc/apt.conf.d").mkdir()
    (work / "packages").mkdir()
    names = ("busybox-static", kernel, "tzdata")
    environment = {**os.environ, "APT_CONFIG": str(tree.folder / "apt.conf")}
    command = ("apt-get", "-qq", "download", *names)
    subprocess.run(command, cwd=work / "packages", env=environment, check=True)
    shutil.rmtree(tree.folder)


def _mirror() -> str:
    try:
        return mirror()
    except LookupError:
        return ANY_MIRROR


def package_of(packages: list[Path], name: str) -> Path:
    """Return the package file whose name begins with `name`."""
    (found,) = (path for path in packages if path.name.startswith(name))
    return found
