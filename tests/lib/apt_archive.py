"""A signed archive made by dpkg-deb, apt-ftparchive and gpg, with a key of its own, on nginx."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from imagebuilder.images.root_system import AptState, RootFile
from tests.lib.root_images import package
from tests.lib.tools import need, run
from tests.lib.webserver import nginx

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KEYRING = "usr/share/keyrings/test.gpg"


@dataclass(frozen=True)
class Archive:
    """A folder with an archive, its address and its public key."""

    folder: Path
    address: str
    home: Path

    def add(self, name: str, version: str, depends: str = "", arch: str = "armhf") -> Path:
        """Make a package of an architecture."""
        tree = self.folder.parent / "trees" / f"{name}_{version.replace(':', '%3a')}_{arch}"
        (tree / "DEBIAN").mkdir(parents=True)
        control = (
            f"Package: {name}\nVersion: {version}\nArchitecture: {arch}\nMaintainer: a <a@b.c>\n"
            f"{f'Depends: {depends}' + chr(10) if depends else ''}Description: a package\n"
        )
        (tree / "DEBIAN" / "control").write_text(control)
        (tree / "content").write_text(f"{name} {version}" * 2000)
        deb = self.folder / "pool" / f"{tree.name}.deb"
        deb.parent.mkdir(exist_ok=True)
        run("dpkg-deb", "--build", "--root-owner-group", tree, deb)
        return deb

    def publish(self, *options: str, sign: bool = True) -> None:
        """Write the indexes and sign them; `options` are fields of the Release file."""
        suite = self.folder / "dists" / "stable"
        index = suite / "main" / "binary-armhf"
        index.mkdir(parents=True, exist_ok=True)
        text = run("apt-ftparchive", "--arch", "armhf", "packages", "pool", cwd=self.folder)
        (index / "Packages").write_text(text)
        fields = ["Suite=stable", "Codename=stable", "Components=main", "Architectures=armhf"]
        words = [f"APT::FTPArchive::Release::{each}" for each in (*fields, *options)]
        (suite / "Release").unlink(missing_ok=True)
        text = run("apt-ftparchive", *(w for o in words for w in ("-o", o)), "release", suite)
        (suite / "Release").write_text(text)
        if sign:
            self.gpg("--clearsign", "-o", suite / "InRelease", suite / "Release")

    def gpg(self, *words: object) -> str:
        batch = ("--batch", "--yes", "--passphrase", "", "--pinentry-mode", "loopback")
        return run("gpg", "--homedir", self.home, *batch, *map(str, words))

    def state(self, *installed: str, options: str = "") -> AptState:
        """Return the apt of an image that uses this archive."""
        line = f"deb [signed-by=/{KEYRING}{options}] {self.address} stable main\n"
        self.gpg("--export", "-o", self.home / "public.gpg")
        key = (self.home / "public.gpg").read_bytes()
        status = package("dpkg", "1.21", "armhf") + "".join(installed)
        return AptState(
            arch="armhf",
            status=status.encode(),
            sources=(RootFile("etc/apt/sources.list", line.encode()),),
            keyrings=(RootFile(KEYRING, key),),
        )


@contextmanager
def signed_archive(folder: Path) -> Iterator[Archive]:
    """Serve an empty archive by nginx on the loopback."""
    need("gpg", "gpgconf", "apt-get", "apt-ftparchive", "dpkg-deb")
    root, home = folder / "archive", folder / "gpg"
    root.mkdir()
    home.mkdir(mode=0o700)
    with nginx(root, folder / "nginx") as server:
        found = Archive(root, server.url, home)
        found.gpg("--quick-generate-key", "Test <a@b.c>", "rsa2048", "sign", "never")
        yield found
        run("gpgconf", "--homedir", home, "--kill", "all", check=False)
