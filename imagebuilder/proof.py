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

_MOST_FILES = 64
# What says who a node is; kernels and firmware are large, and were compared with the write set.
_TELLING = (".txt", ".yaml", ".yml", ".env", ".conf", ".sh", "user-data", "meta-data")


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
    chosen = sorted(filter(_tells_who, volume.names()), key=_ours_first)[:_MOST_FILES]
    return {path: volume.read(path) for path in chosen}


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


def _tells_who(path: str) -> bool:
    return path.lower().endswith(_TELLING)


def _ours_first(path: str) -> tuple[bool, str]:
    return (not path.lower().startswith("rpi-image/"), path)
