"""Bring the packages of a class onto this machine, and say which versions its nodes get."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from imagebuilder.disk.reader import open_raw
from imagebuilder.errors import ImageError, SourceError, reading
from imagebuilder.files import read_file
from imagebuilder.images.apt_tree import AptTree, has_apt
from imagebuilder.images.root_system import read_apt_state
from imagebuilder.model import OverlayFile
from imagebuilder.plan.card_layout import PACKAGE_SUMS, PACKAGES
from imagebuilder.progress import SILENT, Reporter, counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from imagebuilder.images.apt_tree import Package
    from imagebuilder.images.cache import Cache
    from imagebuilder.model import BaseImage

# Budget: they are held in memory, with the patch of one node. Docker has some 45 MB.
MOST_CARRIED_BYTES = 512 << 20

_NO_APT = "this machine has no apt: the Pi installs its packages itself at first boot"


@dataclass(slots=True)
class PackageIndex:
    """What apt knows of the packages of base images, in the cache; each is asked once in a run."""

    cache: Cache
    reporter: Reporter = SILENT
    _found: dict[tuple[str, tuple[str, ...]], tuple[Package, ...]] = field(default_factory=dict)
    _files: dict[str, OverlayFile] = field(default_factory=dict)

    @property
    def has_packages(self) -> bool:
        """Return whether any package can be brought along; cheap."""
        return has_apt() and self.cache.has_packages

    def versions(self, base: BaseImage, words: tuple[str, ...]) -> dict[str, str]:
        """Return the versions of packages by name, empty where they are not known; no network.

        `words` are packages as apt-get takes them.
        """
        known = {package.name: package.version for package in self._resolved(base, words)}
        names = (word.partition("=")[0] for word in words)
        return {name: known.get(name, "") for name in names}

    def _resolved(self, base: BaseImage, words: tuple[str, ...]) -> tuple[Package, ...]:
        """Return what an image lacks for packages; empty if it is not known."""
        tree = self._tree(base)
        if not words or not tree.has_lists or not has_apt():
            return ()
        key = base.sha256, words
        if key not in self._found:
            try:
                self._found[key] = tree.resolve(words)
            except SourceError as error:
                self.reporter.note(f"{base.name}: {error.message}")
                self._found[key] = ()
        return self._found[key]

    def carried(
        self, base: BaseImage, words: tuple[str, ...], *, room: int | None, served: bool
    ) -> tuple[OverlayFile, ...]:
        """Return the files for a card: digests, and the packages if `room` (bytes) suffices.

        `room` is None where there is enough. Without room only the digests are there, if the
        packages are `served` by the shack. Empty unless all packages are in the cache; no network.
        Each package is read once.
        """
        found = self._resolved(base, words)
        if not found or not all(self.cache.has_package(package.sha256) for package in found):
            return ()
        sums = "".join(f"{package.sha256}  {package.file_name}\n" for package in found)
        listed = OverlayFile(PACKAGE_SUMS, sums.encode(), "the cache")
        most = MOST_CARRIED_BYTES if room is None else min(room, MOST_CARRIED_BYTES)
        if sum(package.size_bytes for package in found) > most:
            return (listed,) if served else ()
        return (listed, *map(self._file, found))

    def _file(self, package: Package) -> OverlayFile:
        if package.sha256 not in self._files:
            path = self.cache.package_path(package.sha256)
            data = read_file(path, "package", package.size_bytes)
            if hashlib.sha256(data).hexdigest() != package.sha256:
                hint = "run `rpi-image cache clean`, then `rpi-image fetch --packages -c FILE`"
                raise SourceError(f"{package.file_name} in the cache is damaged", hint)
            self._files[package.sha256] = OverlayFile(
                f"{PACKAGES}{package.file_name}", data, str(path)
            )
        return self._files[package.sha256]

    def fetch(
        self, base: BaseImage, words: Sequence[str], *, otherwise: str = ""
    ) -> tuple[Package, ...]:
        """Bring what an image lacks for packages into the cache, and return it.

        `otherwise` is the way on which the Pi gets them without.

        Raise SourceError with apt's own words, or if a file has another digest.
        """
        if not has_apt():
            raise SourceError(
                f"{_NO_APT} {otherwise}".rstrip(),
                "on Debian or Ubuntu they can be fetched beforehand",
            )
        tree = self._tree(base)
        with self.cache.lock(f"apt {base.sha256}", self.reporter):
            self._renew(tree, base)
            found = tree.resolve(words)
        todo = [package for package in found if not self.cache.has_package(package.sha256)]
        self.reporter.note(f"{base.name}: {counted(len(found), 'package')}, {len(todo)} to fetch")
        for package in todo:
            self._download(package)
        return found

    def _renew(self, tree: AptTree, base: BaseImage) -> None:
        with open_raw(base.path) as disk, reading(base.name, ImageError):
            state = read_apt_state(disk)
        if state is None:
            raise ImageError(
                f"{base.name} has no root with packages that can be read",
                "let the Pi install them",
            )
        tree.write(state)
        self.reporter.note(f"{base.name}: asking its archives")
        tree.update()

    def _download(self, package: Package) -> None:
        from imagebuilder.images.download import download  # noqa: PLC0415 - HTTP is slow to import

        key = f"deb {package.sha256}"
        with self.cache.lock(key, self.reporter):
            part = self.cache.part_path(key, "deb")
            limit = package.size_bytes
            download(package.url, part, package.sha256, self.reporter, most_bytes=limit)
            self.cache.adopt_package(part, package.sha256)

    def _tree(self, base: BaseImage) -> AptTree:
        return AptTree(self.cache.lists_of(base.sha256))
