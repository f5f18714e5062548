"""Whether images fit on the disk that they are to be written to."""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING

from imagebuilder.build import write_error
from imagebuilder.errors import WriteError
from imagebuilder.files import has_folder
from imagebuilder.progress import human_bytes
from imagebuilder.rawcopy import reflink

if TYPE_CHECKING:
    from pathlib import Path

    from imagebuilder.model import BaseImage


def check_room(folder: Path, base: BaseImage, count: int) -> None:
    """Refuse before the first copy what would fill the disk; reflinks need next to nothing.

    A folder that is not there yet counts as the one that it will be made in.
    """
    place = next(path for path in (folder, *folder.absolute().parents) if has_folder(path))
    if count == 0 or _has_reflinks(place, base):
        return
    needed = count * base.path.stat().st_blocks * 512
    room = os.statvfs(place)
    free = room.f_bavail * room.f_frsize
    images = "one image needs" if count == 1 else f"{count} images need"
    if needed > free:
        raise WriteError(
            f"{images} {human_bytes(needed)} and {folder} has {human_bytes(free)} free",
            "build fewer with --nodes, use a disk with reflinks (btrfs, xfs), "
            "or write the cards directly: flash -c needs no room",
        )


def _has_reflinks(folder: Path, base: BaseImage) -> bool:
    try:
        with tempfile.TemporaryFile(dir=folder) as probe, base.path.open("rb") as source:
            return reflink(source.fileno(), probe.fileno())
    except OSError as error:
        raise write_error(folder, error) from error
