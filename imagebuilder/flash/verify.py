"""Compare a card or an image file with its intended content, and identify its node."""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from imagebuilder.build.apply import check_boot_folder, compare_folder
from imagebuilder.build.boot_folder import BootFolder
from imagebuilder.build.inspect import ImageReport, inspect_disk, inspect_folder
from imagebuilder.devices import blockdev
from imagebuilder.devices.inventory import load_device
from imagebuilder.disk.extent import Extent, Partition
from imagebuilder.disk.fat.volume import MOST_TEXT_BYTES, BootVolume
from imagebuilder.disk.partitions import boot_partition, read_partitions
from imagebuilder.disk.reader import CachedReader, RawFile, open_raw
from imagebuilder.disk.write_set import chunks, join, total_bytes
from imagebuilder.errors import ImageError, RpiImageError, WriteError
from imagebuilder.files import has_folder
from imagebuilder.flash.readahead import Buffers, read_ahead
from imagebuilder.model import SECTOR_BYTES
from imagebuilder.plan.card_layout import FOLDER
from imagebuilder.progress import SILENT, Reporter, two_sizes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from imagebuilder.disk.patched import PatchedImage
    from imagebuilder.disk.reader import ReadAt
    from imagebuilder.model import BootEdit, NodeSettings, OverlayFile


class Medium(Protocol):
    """A card or an image file for reading."""

    size_bytes: int

    def read(self, offset_bytes: int, view: memoryview) -> None:
        """Fill `view` from `offset_bytes`."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A range that differs, and the number of its partition (0: none)."""

    start_bytes: int
    end_bytes: int
    partition: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """The differences: byte ranges rounded to pages, and paths of files on the boot partition.

    If the medium is shorter than the image, the only range is the missing part. A mounted boot
    partition has no ranges.
    """

    ranges: tuple[Difference, ...]
    files: tuple[str, ...]
    compared_bytes: int
    missing_bytes: int = 0

    @property
    def same(self) -> bool:
        """Whether there is no difference."""
        return not self.ranges and not self.files


class FileMedium:
    """An image file as a Medium."""

    def __init__(self, raw: RawFile) -> None:
        self.size_bytes = raw.size_bytes
        self._raw = raw

    def read(self, offset_bytes: int, view: memoryview) -> None:
        """Fill `view` from `offset_bytes`; with zeros past the end."""
        data = self._raw.read_at(offset_bytes, len(view))
        view[: len(data)] = data
        view[len(data) :] = bytes(len(view) - len(data))


@contextmanager
def open_medium(path: Path) -> Iterator[tuple[Medium, ReadAt]]:
    """Yield a card, read unbuffered, or an image file. Raise ImageError if it cannot be read."""
    if path.exists() and stat.S_ISBLK(path.stat().st_mode):
        with blockdev.open_for_reading(load_device(str(path))) as device:
            yield device, blockdev.DeviceReader(device)
    else:
        with open_raw(path) as raw:
            yield FileMedium(raw), raw


def identify(disk: ReadAt) -> ImageReport:
    """Return the report of a card. Raise ImageError if no boot partition can be read."""
    return inspect_disk(CachedReader(disk))


def compare(
    medium: Medium,
    disk: ReadAt,
    source: PatchedImage,
    write_set: Sequence[Extent],
    reporter: Reporter = SILENT,
) -> Comparison:
    """Compare the write set byte by byte. Raise WriteError or ImageError on a read error."""
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
            if bytes(found) != bytes(should):  # memoryview compares item by item, which is slow
                wrong += _pages(piece.start_bytes, found, should)
            meter.advance(piece.size_bytes)
    partitions = _partitions(source)
    ranges = join(wrong, SECTOR_BYTES, source.size_bytes)
    return Comparison(
        tuple(Difference(e.start_bytes, e.end_bytes, _holder(e, partitions)) for e in ranges),
        _files(disk, source, ranges),
        total_bytes(pieces),
    )


def compare_mounted(
    folder: Path, settings: NodeSettings, epoch: int, packages: Sequence[OverlayFile] = ()
) -> Comparison:
    """Compare the files on a mounted boot partition with those of a node.

    A card whose Pi has installed this configuration is the same, though its secrets are gone.
    """
    boot = BootFolder(folder)
    check_boot_folder(boot)
    plan = compare_folder(boot, settings, epoch, packages=packages)
    wrong = tuple(change.path for change in plan.changes if change.status != "same")
    return Comparison((), wrong, sum(change.size_bytes for change in plan.changes))


def check_length(target: Path, found: Comparison) -> None:
    """Raise WriteError if the medium is shorter than the image."""
    if found.missing_bytes:
        missing = found.ranges[0]
        size, needed = two_sizes(missing.start_bytes, missing.end_bytes)
        raise WriteError(
            f"{target} has {size}, the image {needed}",
            "compare it with the image it was made from",
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
    """Return the files that differ, if a difference is in the boot partition."""
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
        return ("(the file system cannot be read)",)


def build_time_of(path: Path, otherwise: int) -> int:
    """Return the build time on a card, in epoch seconds; `otherwise` if it has none.

    The build time is part of the card's files, so a comparison needs the same one.
    """
    try:
        built = _report_of(path).node.get("RPI_IMAGE_BUILT", "")
    except RpiImageError:
        return otherwise
    return int(built) if built.isdigit() else otherwise


def owner_of(path: Path) -> dict[str, Any]:
    """Return the report of a card as JSON.

    Raise ImageError if it has no node. Raise WriteError if it is unfinished, because the hints of
    ImageError are about images to fetch again.
    """
    try:
        report = _report_of(path)
    except ImageError as error:
        if not path.is_block_device():
            raise
        raise WriteError(
            f"{path} has no complete image ({error.message})", "flash it again"
        ) from error
    if not report.node and not report.hostname:
        raise ImageError(f"{path} has no node of rpi-image", "see `rpi-image inspect`")
    return report.as_json()


def _report_of(path: Path) -> ImageReport:
    """Return the report of a card, an image file or a mounted boot partition."""
    if has_folder(path):
        return inspect_folder(path)
    with open_medium(path) as (_, disk):
        return identify(disk)


_MOST_FILES = 64

# Files with settings; kernels and firmware are large, and are compared with the write set.
_IDENTIFYING = (".txt", ".yaml", ".yml", ".env", ".conf", ".sh", "user-data", "meta-data")


def open_boot_volume(disk: ReadAt) -> BootVolume:
    """Return the boot partition. Raise ImageError if there is none."""
    return BootVolume(disk, boot_partition(disk, read_partitions(disk)))


def files_of_edits(edits: Sequence[BootEdit]) -> dict[str, bytes]:
    """Return the content of the files of a plan; the last edit of a path counts."""
    last = {edit.path: edit.data for edit in edits}
    return {path: data for path, data in last.items() if data is not None}


def files_of_image(disk: ReadAt) -> dict[str, bytes]:
    """Return some small files of an image's boot partition; none if it has no boot partition."""
    try:
        volume = open_boot_volume(CachedReader(disk))
    except ImageError:
        return {}
    chosen = sorted(filter(_is_identifying, volume.names()), key=_ours_first)[:_MOST_FILES]
    return {path: volume.read(path) for path in chosen if volume.size_of(path) <= MOST_TEXT_BYTES}


def prover(path: str, files: Mapping[str, bytes]) -> Callable[[ReadAt], None]:
    """Return a check of a card's files; it raises WriteError at the first difference."""

    def prove(card: ReadAt) -> None:
        if not files:
            return
        try:
            wrong = differing_files(open_boot_volume(CachedReader(card)), files)
        except ImageError as error:
            raise WriteError(f"{path}: {error.message}", "use another card") from error
        if wrong:
            raise WriteError(
                f"{path}: {wrong[0]} differs from what was written", "use another card"
            )

    return prove


def differing_files(volume: BootVolume, files: Mapping[str, bytes]) -> tuple[str, ...]:
    """Return the paths of files that differ or are missing."""
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
