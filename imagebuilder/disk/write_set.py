"""The write set: which byte ranges of a disk must be written to a card."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from imagebuilder.disk import ext4
from imagebuilder.disk.extent import Extent
from imagebuilder.disk.fat import usage
from imagebuilder.disk.partitions import EXTENDED_KINDS, read_partitions
from imagebuilder.errors import ImageError
from imagebuilder.model import SECTOR_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from imagebuilder.disk.extent import Partition, Patch
    from imagebuilder.disk.reader import ReadAt

CHUNK_BYTES = 4 << 20
GRAIN_BYTES = 1 << 20
# As far as files of a node can have reached on a card that served another class: they follow the
# image's own, and Linux takes the next free clusters for each file that it writes again.
REACH_BYTES = 16 << 20


def plan_write_set(disk: ReadAt, patch: Patch, *, full: bool = False) -> tuple[Extent, ...]:
    """Return the ranges to write: sorted, disjoint, rounded to GRAIN_BYTES, within the disk.

    `disk` is the patched disk. The ranges include the first chunk, the patch, all gaps between
    partitions, every partition with an unknown file system, and on FAT the free clusters up to
    REACH_BYTES after the last used one, which may hold secrets of another class.
    """
    whole = Extent(0, disk.size_bytes)
    if full:
        return (whole,)
    parts = [
        Extent(0, min(CHUNK_BYTES, disk.size_bytes)),
        *_used(disk),
        *(Extent(run.offset_bytes, len(run.data)) for run in patch.runs),
    ]
    return join(parts, GRAIN_BYTES, disk.size_bytes)


def _used(disk: ReadAt) -> Iterator[Extent]:
    try:
        partitions = _within(read_partitions(disk), disk.size_bytes)
    except ImageError:
        partitions = ()
    if not partitions or _overlap(partitions):
        yield Extent(0, disk.size_bytes)
        return
    end = 0
    for partition in partitions:
        yield Extent(end, partition.start_bytes - end)
        yield from used_of(disk, partition)
        end = partition.end_bytes
    yield Extent(end, disk.size_bytes - end)


def used_of(disk: ReadAt, partition: Partition) -> tuple[Extent, ...]:
    """Return the used ranges of one partition; all of it if its file system is not known."""
    where = (partition.start_bytes, partition.size_bytes)
    if (found := ext4.used_extents(disk, *where)) is not None:
        return found
    if (found := usage.used_extents(disk, *where, reach_bytes=REACH_BYTES)) is not None:
        return found
    return (Extent(*where),)


def _within(partitions: Sequence[Partition], size_bytes: int) -> tuple[Partition, ...]:
    """Return the partitions sorted, without extended ones and those past the end of the image.

    What is left out is written as a gap.
    """
    kept = (p for p in partitions if p.kind not in EXTENDED_KINDS and p.end_bytes <= size_bytes)
    return tuple(sorted(kept, key=lambda partition: partition.start_bytes))


def _overlap(partitions: Sequence[Partition]) -> bool:
    return any(before.end_bytes > after.start_bytes for before, after in pairwise(partitions))


def join(parts: Iterable[Extent], grain_bytes: int, end_bytes: int) -> tuple[Extent, ...]:
    """Return the ranges rounded out to `grain_bytes`, joined if adjacent, cut at `end_bytes`."""
    joined: list[tuple[int, int]] = []
    for part in sorted(parts, key=lambda extent: extent.start_bytes):
        begin = part.start_bytes // grain_bytes * grain_bytes
        end = min(-(-part.end_bytes // grain_bytes) * grain_bytes, end_bytes)
        if not part.size_bytes or begin >= end:
            continue
        if joined and begin <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((begin, end))
    return tuple(Extent(begin, end - begin) for begin, end in joined)


def chunks(extents: Iterable[Extent]) -> Iterator[Extent]:
    """Yield the ranges cut at multiples of CHUNK_BYTES, their ends rounded up to whole sectors."""
    for extent in extents:
        begin = extent.start_bytes
        end = -(-extent.end_bytes // SECTOR_BYTES) * SECTOR_BYTES
        while begin < end:
            stop = min(end, (begin // CHUNK_BYTES + 1) * CHUNK_BYTES)
            yield Extent(begin, stop - begin)
            begin = stop


def total_bytes(extents: Iterable[Extent]) -> int:
    """Return the sum of the sizes, in bytes."""
    return sum(extent.size_bytes for extent in extents)
