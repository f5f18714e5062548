"""Packages beside the class page, for cards that have no room for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imagebuilder.build.compose import group_by_image, open_composer
from imagebuilder.errors import RpiImageError
from imagebuilder.files import write_error, write_in_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from imagebuilder.build.packages import PackageIndex
    from imagebuilder.model import BaseImage, Classroom, ImageSource, NodeSettings, OverlayFile

FOLDER = "web/packages"


def class_packages(
    classroom: Classroom, find: Callable[[ImageSource], BaseImage | None], index: PackageIndex
) -> tuple[OverlayFile, ...]:
    """Return the packages of a class that are in the cache, each once; no network.

    Nodes whose image is not on this machine, or cannot be read, are left out: their cards list no
    packages either. Raise SourceError if a package is damaged.
    """
    found: dict[str, OverlayFile] = {}
    groups = group_by_image(classroom.nodes) if index.cache.package_bytes() else []
    for source, group in groups:
        for base, words in _wanted(source, group, find):
            files = index.carried(base, words, room=None, served=False)
            found |= {file.path.rpartition("/")[2]: file for file in files}
    return tuple(file for name, file in found.items() if name.endswith(".deb"))


def _wanted(
    source: ImageSource,
    nodes: Sequence[NodeSettings],
    find: Callable[[ImageSource], BaseImage | None],
) -> set[tuple[BaseImage, tuple[str, ...]]]:
    try:
        base = find(source)
        if base is None:
            return set()
        with open_composer(base, epoch=0) as composer:
            return {(base, composer.packages(node)) for node in nodes}
    except RpiImageError:
        return set()


def write_packages(files: tuple[OverlayFile, ...], shack: Path, *, write: bool) -> tuple[Path, ...]:
    """Write packages into the folder of a shack, and remove others; return their paths.

    Raise WriteError on failure. With `write=False` it is only planned.
    """
    folder = shack / FOLDER
    planned = {folder / file.path.rpartition("/")[2]: file.data for file in files}
    if write:
        try:
            for path, data in planned.items():
                write_in_folder(path, data, 0o644)
            for path in folder.glob("*.deb"):
                if path not in planned:
                    path.unlink()
        except OSError as error:
            raise write_error(folder, error) from error
    return tuple(planned)
