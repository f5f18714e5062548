"""Comparing a card (or an image file) with what it should be, and finding out whose it is."""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from imagebuilder.build.inspect import ImageReport, inspect_disk
from imagebuilder.devices import blockdev
from imagebuilder.devices.inventory import load_device
from imagebuilder.disk.extent import Extent, Partition
from imagebuilder.disk.fat.volume import MOST_TEXT_BYTES, BootVolume
from imagebuilder.disk.partitions import boot_partition, read_partitions
from imagebuilder.disk.reader import CachedReader, RawFile, open_raw
from imagebuilder.disk.write_set import chunks, join, total_bytes
from imagebuilder.errors import ImageError, RpiImageError, WriteError
from imagebuilder.flash.readahead import Buffers, read_ahead
from imagebuilder.model import SECTOR_BYTES
from imagebuilder.plan.card_layout import FOLDER
from imagebuilder.progress import SILENT, Reporter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from imagebuilder.disk.patched import PatchedImage
    from imagebuilder.disk.reader import ReadAt
    from imagebuilder.model import BootEdit


class Medium(Protocol):
    """A card or an image file that can be read in pieces."""

    size_bytes: int

    def read(self, offset_bytes: int, view: memoryview) -> None:
        """Fill `view`."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A range that is not what it should be, and the partition it lies in (0: none)."""

    start_bytes: int
    end_bytes: int
    partition: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """What differs: byte ranges rounded to pages, and files of the boot partition by name.

    Where the medium ends before the image does, what is missing is the one range.
    """

    ranges: tuple[Difference, ...]
    files: tuple[str, ...]
    compared_bytes: int
    missing_bytes: int = 0

    @property
    def same(self) -> bool:
        """Whether every byte that was compared is right."""
        return not self.ranges


class FileMedium:
    """An image file as a Medium."""

    def __init__(self, raw: RawFile) -> None:
        self.size_bytes = raw.size_bytes
        self._raw = raw

    def read(self, offset_bytes: int, view: memoryview) -> None:
        """Fill `view`; behind the end come zeros."""
        data = self._raw.read_at(offset_bytes, len(view))
        view[: len(data)] = data
        view[len(data) :] = bytes(len(view) - len(data))


@contextmanager
def open_medium(path: Path) -> Iterator[tuple[Medium, ReadAt]]:
    """Open a card past the cache, or an image file; raises ImageError where it cannot be read."""
    if path.exists() and stat.S_ISBLK(path.stat().st_mode):
        with blockdev.open_for_reading(load_device(str(path))) as device:
            yield device, blockdev.DeviceReader(device)
    else:
        with open_raw(path) as raw:
            yield FileMedium(raw), raw


def identify(disk: ReadAt) -> ImageReport:
    """Tell whose card this is; raises ImageError where no boot partition can be read."""
    return inspect_disk(CachedReader(disk))


def compare(
    medium: Medium,
    disk: ReadAt,
    source: PatchedImage,
    write_set: Sequence[Extent],
    reporter: Reporter = SILENT,
) -> Comparison:
    """Compare the write set byte for byte; raises WriteError or ImageError on a read error."""
    if medium.size_bytes < source.size_bytes:
        return _too_short(medium.size_bytes, source)
    pieces = tuple(chunks(write_set))
    buffers = Buffers()
    wrong: list[Extent] = []
    with (
        reporter.meter("comparing", total_bytes(pieces)) as meter,
        read_ahead(source.fill, pieces, buffers) as expected,
    ):
        for piece, should in expected:
            found = buffers.spare.view[: piece.size_bytes]
            medium.read(piece.start_bytes, found)
            if bytes(found) != bytes(should):  # memoryviews compare item by item
                wrong += _pages(piece.start_bytes, found, should)
            meter.advance(piece.size_bytes)
    partitions = _partitions(source)
    ranges = join(wrong, SECTOR_BYTES, source.size_bytes)
    return Comparison(
        tuple(Difference(e.start_bytes, e.end_bytes, _holder(e, partitions)) for e in ranges),
        _files(disk, source, ranges),
        total_bytes(pieces),
    )


def check_length(target: Path, found: Comparison) -> None:
    """Raise WriteError where the medium ended before the image does."""
    if found.missing_bytes:
        missing = found.ranges[0]
        raise WriteError(
            f"{target} holds {missing.start_bytes} bytes, the image {missing.end_bytes}",
            "it was made from another image",
        )


def _too_short(size_bytes: int, source: PatchedImage) -> Comparison:
    missing = Extent(size_bytes, source.size_bytes - size_bytes)
    partition = _holder(missing, _partitions(source))
    lost = Difference(missing.start_bytes, missing.end_bytes, partition)
    return Comparison((lost,), (), 0, missing.size_bytes)


def _pages(offset_bytes: int, found: memoryview, should: memoryview) -> Iterator[Extent]:
    size = os.sysconf("SC_PAGE_SIZE")
    for at in range(0, len(found), size):
        if bytes(found[at : at + size]) != bytes(should[at : at + size]):
            yield Extent(offset_bytes + at, min(size, len(found) - at))


def _partitions(disk: ReadAt) -> tuple[Partition, ...]:
    try:
        return read_partitions(disk)
    except ImageError:
        return ()


def _holder(extent: Extent, partitions: Sequence[Partition]) -> int:
    for partition in partitions:
        if partition.start_bytes <= extent.start_bytes < partition.end_bytes:
            return partition.number
    return 0


def _files(disk: ReadAt, source: PatchedImage, ranges: Sequence[Extent]) -> tuple[str, ...]:
    """Name the differing files of the boot partition, where a difference lies in it."""
    try:
        boot = boot_partition(source, read_partitions(source))
    except ImageError:
        return ()
    if not any(r.start_bytes < boot.end_bytes and r.end_bytes > boot.start_bytes for r in ranges):
        return ()
    should = BootVolume(CachedReader(source), boot)
    try:
        found = BootVolume(CachedReader(disk), boot)
        return tuple(
            path
            for path in should.names()
            if differing_files(found, {path: should.read(path, should.size_of(path))})
        )
    except ImageError:
        return ("(its file system cannot be read)",)


def build_time_of(path: Path, otherwise: int) -> int:
    """Return when a card's node was composed (epoch seconds): it is part of what the card holds."""
    try:
        with open_medium(path) as (_, disk):
            built = identify(disk).node.get("RPI_IMAGE_BUILT", "")
    except RpiImageError:
        return otherwise
    return int(built) if built.isdigit() else otherwise


def owner_of(path: Path) -> dict[str, Any]:
    """Tell whose card this is; raises ImageError where it is nobody's, WriteError where unfinished.

    On a card the words about an image that should be fetched again would lead astray.
    """
    with open_medium(path) as (_, disk):
        try:
            report = identify(disk)
        except ImageError as error:
            if not path.is_block_device():
                raise
            raise WriteError(
                f"{path} holds no finished image ({error.message})", "flash it again"
            ) from error
    if not report.node and not report.hostname:
        raise ImageError(f"{path} carries no node of rpi-image", "`rpi-image inspect` shows more")
    return report.as_json()


_MOST_FILES = 64

# What says who a node is; kernels and firmware are large, and were compared with the write set.
_IDENTIFYING = (".txt", ".yaml", ".yml", ".env", ".conf", ".sh", "user-data", "meta-data")


def open_boot_volume(disk: ReadAt) -> BootVolume:
    """Find and open the boot partition; raises ImageError where there is none."""
    return BootVolume(disk, boot_partition(disk, read_partitions(disk)))


def files_of_edits(edits: Sequence[BootEdit]) -> dict[str, bytes]:
    """Return what the files of a plan must hold; the last edit of a path counts."""
    last = {edit.path: edit.data for edit in edits}
    return {path: data for path, data in last.items() if data is not None}


def files_of_image(disk: ReadAt) -> dict[str, bytes]:
    """Return some small files of an image's boot partition; none where it has no boot partition."""
    try:
        volume = open_boot_volume(CachedReader(disk))
    except ImageError:
        return {}
    chosen = sorted(filter(_is_identifying, volume.names()), key=_ours_first)[:_MOST_FILES]
    return {path: volume.read(path) for path in chosen if volume.size_of(path) <= MOST_TEXT_BYTES}


def prover(path: str, files: Mapping[str, bytes]) -> Callable[[ReadAt], None]:
    """Return a check of the card's files; it raises WriteError at the first difference."""

    def prove(card: ReadAt) -> None:
        if not files:
            return
        try:
            wrong = differing_files(open_boot_volume(CachedReader(card)), files)
        except ImageError as error:
            raise WriteError(f"{path}: {error.message}", "take another card") from error
        if wrong:
            raise WriteError(f"{path}: {wrong[0]} is not what was written", "take another card")

    return prove


def differing_files(volume: BootVolume, files: Mapping[str, bytes]) -> tuple[str, ...]:
    """Return the paths whose content differs or that are missing."""
    return tuple(path for path, data in files.items() if not _holds(volume, path, data))


def _holds(volume: BootVolume, path: str, data: bytes) -> bool:
    return (
        volume.exists(path)
        and volume.size_of(path) == len(data)
        and volume.read(path, len(data)) == data
    )


def _is_identifying(path: str) -> bool:
    return path.lower().endswith(_IDENTIFYING)


def _ours_first(path: str) -> tuple[bool, str]:
    return (not path.lower().startswith(FOLDER), path)
