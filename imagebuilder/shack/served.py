"""Packages beside the class page, for cards that have no room for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imagebuilder.build.compose import group_by_image, open_composer
from imagebuilder.files import write_error, write_in_folder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from imagebuilder.build.packages import PackageIndex
    from imagebuilder.model import BaseImage, Classroom, ImageSource, OverlayFile

FOLDER = "web/packages"


def class_packages(
    classroom: Classroom, find: Callable[[ImageSource], BaseImage | None], index: PackageIndex
) -> tuple[OverlayFile, ...]:
    """Return the packages of a class that are in the cache, each once; no network.

    Nodes whose image is not on this machine are left out: their cards list no packages either.
    """
    found: dict[str, OverlayFile] = {}
    for source, group in group_by_image(classroom.nodes):
        base = find(source)
        if base is not None:
            with open_composer(base, epoch=0, reporter=index.reporter) as composer:
                for node in group:
                    files = index.carried(base, composer.packages(node), room=None, served=False)
                    found |= {file.path.rpartition("/")[2]: file for file in files}
    return tuple(file for name, file in found.items() if name.endswith(".deb"))


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
