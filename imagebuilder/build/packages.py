"""Bring the packages of a class onto this machine, and say which versions its nodes get."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from imagebuilder.build.compose import group_by_image, open_composer
from imagebuilder.disk.reader import open_raw
from imagebuilder.errors import ImageError, SourceError, reading
from imagebuilder.images.apt_tree import AptTree, has_apt
from imagebuilder.images.root_system import read_apt_state
from imagebuilder.progress import SILENT, Reporter, counted

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from imagebuilder.images.apt_tree import Package
    from imagebuilder.images.cache import Cache
    from imagebuilder.model import BaseImage, ImageSource, NodeSettings

_NO_APT = "this machine has no apt: the Pi installs its packages itself at first boot"


@dataclass(slots=True)
class PackageIndex:
    """What apt knows of the packages of base images, in the cache; each is asked once in a run."""

    cache: Cache
    reporter: Reporter = SILENT
    _found: dict[tuple[str, tuple[str, ...]], dict[str, str]] = field(default_factory=dict)

    def versions(self, base: BaseImage, words: tuple[str, ...]) -> dict[str, str]:
        """Return the versions of packages by name, empty where they are not known; no network.

        `words` are packages as apt-get takes them.
        """
        key = base.sha256, words
        if key not in self._found:
            names = [word.partition("=")[0] for word in words]
            known = self._known(base, words)
            self._found[key] = {name: known.get(name, "") for name in names}
        return self._found[key]

    def _known(self, base: BaseImage, words: tuple[str, ...]) -> dict[str, str]:
        tree = self._tree(base)
        if not words or not tree.has_lists or not has_apt():
            return {}
        try:
            return {package.name: package.version for package in tree.resolve(words)}
        except SourceError as error:
            self.reporter.note(f"{base.name}: {error.message}")
            return {}

    def fetch(self, base: BaseImage, words: Sequence[str]) -> tuple[Package, ...]:
        """Bring what an image lacks for packages into the cache, and return it.

        Raise SourceError with apt's own words, or if a file has another digest.
        """
        if not has_apt():
            raise SourceError(_NO_APT, "on Debian or Ubuntu they can be fetched beforehand")
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


def fetch_class(
    nodes: Sequence[NodeSettings],
    obtain: Callable[[ImageSource], BaseImage],
    index: PackageIndex,
) -> dict[str, tuple[Package, ...]]:
    """Bring the packages of all nodes into the cache; return those of each node by hostname."""
    found: dict[str, tuple[Package, ...]] = {}
    fetched: dict[tuple[str, tuple[str, ...]], tuple[Package, ...]] = {}
    for source, group in group_by_image(nodes):
        base = obtain(source)
        with open_composer(base, epoch=0, reporter=index.reporter) as composer:
            for node in group:
                key = base.sha256, composer.packages(node)
                if key not in fetched:
                    fetched[key] = index.fetch(base, key[1]) if key[1] else ()
                found[node.hostname] = fetched[key]
    return found
