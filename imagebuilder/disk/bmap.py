"""Block maps for bmaptool: the blocks of an image to write, each range with its digest.

The format is version 2.0 of the bmap XML (bmap-tools, `BmapCreate.py`): ranges of 4096-byte blocks
with both ends included, and a digest of the whole file, computed with its own field zeroed.
"""

from __future__ import annotations

import hashlib
from html import escape  # the same letters; xml.sax imports an HTTP client
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from imagebuilder.disk.extent import Extent
    from imagebuilder.disk.reader import ReadAt

BLOCK_BYTES = 4096
CHUNK_BYTES = 4 << 20
_HEAD = """<?xml version="1.0" ?>
<!-- Made by rpi-image; write the image with: bmaptool copy {name} DEVICE -->
<bmap version="2.0">
    <ImageSize> {size} </ImageSize>
    <BlockSize> {block} </BlockSize>
    <BlocksCount> {blocks} </BlocksCount>
    <MappedBlocksCount> {mapped} </MappedBlocksCount>
    <ChecksumType> sha256 </ChecksumType>
    <BmapFileChecksum> {checksum} </BmapFileChecksum>
    <BlockMap>
"""
_TAIL = """    </BlockMap>
</bmap>
"""


def render_bmap(disk: ReadAt, extents: Iterable[Extent], name: str) -> str:
    """Return the block map of `extents`, sorted and disjoint, widened to whole blocks."""
    ranges = list(_block_ranges(extents, disk.size_bytes))
    body = "".join(_range(disk, first, last) for first, last in ranges)
    head = {
        # XML allows no `--` inside a comment (XML 1.0, 2.5).
        "name": escape(name, quote=False).replace("--", "- -"),
        "size": disk.size_bytes,
        "block": BLOCK_BYTES,
        "blocks": _blocks(disk.size_bytes),
        "mapped": sum(last - first + 1 for first, last in ranges),
    }
    blank = _HEAD.format(checksum="0" * 64, **head) + body + _TAIL
    checksum = hashlib.sha256(blank.encode()).hexdigest()
    return _HEAD.format(checksum=checksum, **head) + body + _TAIL


def _blocks(size_bytes: int) -> int:
    return -(-size_bytes // BLOCK_BYTES)


def _block_ranges(extents: Iterable[Extent], size_bytes: int) -> Iterator[tuple[int, int]]:
    last_seen = -1
    for extent in extents:
        first = max(extent.start_bytes // BLOCK_BYTES, last_seen + 1)
        last = _blocks(min(extent.end_bytes, size_bytes)) - 1
        if first <= last:
            yield first, last
            last_seen = last


def _range(disk: ReadAt, first: int, last: int) -> str:
    digest = hashlib.sha256()
    end = min((last + 1) * BLOCK_BYTES, disk.size_bytes)
    for offset in range(first * BLOCK_BYTES, end, CHUNK_BYTES):
        digest.update(disk.read_at(offset, min(CHUNK_BYTES, end - offset)))
    blocks = str(first) if first == last else f"{first}-{last}"
    return f'        <Range chksum="{digest.hexdigest()}"> {blocks} </Range>\n'
