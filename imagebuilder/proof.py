"""Reading a finished card through its FAT, as the Pi will: are the identity files really there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imagebuilder.bootfs import BootVolume
from imagebuilder.cow import Remembered
from imagebuilder.disk import boot_partition, read_partitions
from imagebuilder.errors import ImageError, WriteError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from imagebuilder.cow import ReadAt
    from imagebuilder.model import BootEdit

_SMALL_BYTES = 64 << 10
_MOST_FILES = 64


def open_boot_volume(disk: ReadAt) -> BootVolume:
    """Find and open the boot partition; raises ImageError where there is none."""
    return BootVolume(disk, boot_partition(disk, read_partitions(disk)))


def files_of_edits(edits: Sequence[BootEdit]) -> dict[str, bytes]:
    """Give what the files of a plan must hold; the last edit of a path counts."""
    last = {edit.path: edit.data for edit in edits}
    return {path: data for path, data in last.items() if data is not None}


def files_of_image(disk: ReadAt) -> dict[str, bytes]:
    """Give some small files of an image's boot partition; none where it has no boot partition."""
    try:
        volume = open_boot_volume(Remembered(disk))
    except ImageError:
        return {}
    found: dict[str, bytes] = {}
    for path in sorted(volume.names(), key=_ours_first):
        if len(found) == _MOST_FILES:
            break
        data = volume.read(path)
        if len(data) <= _SMALL_BYTES:
            found[path] = data
    return found


def prover(path: str, files: Mapping[str, bytes]) -> Callable[[ReadAt], None]:
    """Give what PROOF calls: compares the card's files and raises WriteError on the first wrong."""

    def prove(card: ReadAt) -> None:
        if not files:
            return
        try:
            wrong = differing_files(open_boot_volume(Remembered(card)), files)
        except ImageError as error:
            raise WriteError(f"{path}: {error.message}", "take another card") from error
        if wrong:
            raise WriteError(f"{path}: {wrong[0]} is not what was written", "take another card")

    return prove


def differing_files(volume: BootVolume, files: Mapping[str, bytes]) -> tuple[str, ...]:
    """Give the paths whose content differs or that are missing."""
    return tuple(
        path for path, data in files.items() if not volume.exists(path) or volume.read(path) != data
    )


def _ours_first(path: str) -> tuple[bool, str]:
    return (not path.lower().startswith("rpi-image/"), path)
