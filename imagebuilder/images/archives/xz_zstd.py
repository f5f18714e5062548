"""Parse the containers of zstd and xz files: completeness, raw size and blocks.

Formats: RFC 8878 (zstd) and the .xz file format specification 1.2.1.
"""

from __future__ import annotations

import itertools
import os
import struct
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import zstandard
from isal import isal_zlib

from imagebuilder.images.archives.decoders import (
    CHUNK_BYTES,
    INPUT_BYTES,
    LARGEST_WINDOW_BYTES,
    LimitError,
    make_xz,
    refuse_many,
    window_error,
)
from imagebuilder.workers import worker_pool

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future


# Larger blocks are decoded by one thread as a stream, in constant memory.
LARGEST_PARALLEL_BYTES = 32 << 20
AHEAD_BYTES = 64 << 20

# `xz --block-size=1MiB` of 128 GiB; a record of an index has some hundred bytes in memory.
MOST_XZ_BLOCKS = 1 << 17
LARGEST_INDEX_BYTES = 2 << 20

# 512 GiB in blocks of 128 KiB; each needs a read.
MOST_ZST_BLOCKS = 1 << 22
_ZST_MAGIC = 0xFD2FB528
_ZST_SKIPPABLE = 0x184D2A50
_ZST_HEADER_BYTES = 18
_ZST_RLE, _ZST_RESERVED = 1, 3
_XZ_MAGIC = b"\xfd7zXZ\x00"
_LONGEST_VARINT_BITS = 63  # specification, 1.2
_XZ_FOOTER = struct.Struct("<II2s2s")


# ---- zstd


def zst_size(descriptor: int) -> int | None:
    """Return the raw size of a zstd file, None if not stated. Raise EOFError if truncated."""
    end, at = os.fstat(descriptor).st_size, 0
    total: int | None = 0
    blocks = itertools.count()
    while at < end:
        at, size = _zst_frame(descriptor, at, blocks)
        total = None if total is None or size is None else total + size
        if at > end:
            raise EOFError("truncated")
    return total


def _zst_frame(descriptor: int, at: int, blocks: Iterator[int]) -> tuple[int, int | None]:
    """Return the end of the frame at `at`, and its raw size if stated."""
    _count_block(blocks)
    head = os.pread(descriptor, _ZST_HEADER_BYTES, at)
    magic = int.from_bytes(head[:4], "little")
    if magic & ~0xF == _ZST_SKIPPABLE:
        return at + 8 + int.from_bytes(head[4:8], "little"), 0
    if magic != _ZST_MAGIC:
        raise EOFError("unknown data after the end")
    parameters = zstandard.get_frame_parameters(head)
    if parameters.window_size > LARGEST_WINDOW_BYTES:
        raise window_error("zstd -d --long=31", parameters.window_size)
    if parameters.dict_id:
        raise LimitError(
            f"it needs the dictionary {parameters.dict_id}", "unpack it with `zstd -d -D`"
        )
    end = _zst_blocks(descriptor, at + zstandard.frame_header_size(head), blocks)
    stated = parameters.content_size
    return (
        end + 4 * parameters.has_checksum,
        None if stated == zstandard.CONTENTSIZE_UNKNOWN else stated,
    )


def _count_block(blocks: Iterator[int]) -> None:
    if next(blocks) >= MOST_ZST_BLOCKS:
        raise LimitError(
            f"it has more than {MOST_ZST_BLOCKS} blocks", "do not use it: it may be malicious"
        )


def _zst_blocks(descriptor: int, at: int, blocks: Iterator[int]) -> int:
    while len(head := os.pread(descriptor, 3, at)) == 3:  # noqa: PLR2004 - RFC 8878, 3.1.1.2
        _count_block(blocks)
        word = int.from_bytes(head, "little")
        last, kind, size = word & 1, word >> 1 & 3, word >> 3
        if kind == _ZST_RESERVED:
            raise EOFError("a block is damaged")
        at += 3 + (1 if kind == _ZST_RLE else size)
        if last:
            return at
    raise EOFError("truncated")


# ---- xz


@dataclass(frozen=True, slots=True)
class XzBlock:
    """One block: its offset, its size with and without padding, its raw size and stream flags."""

    offset_bytes: int
    padded_bytes: int
    unpadded_bytes: int
    raw_bytes: int
    flags: bytes


def xz_blocks(descriptor: int) -> tuple[XzBlock, ...]:
    """Return the blocks in the indexes of an xz file. Raise EOFError if it is truncated.

    It is read from the end, because each stream ends with its index (4.4).
    """
    streams: list[list[XzBlock]] = []
    count = 0
    end = _before_padding(descriptor, os.fstat(descriptor).st_size)
    while end > 0:
        blocks, end = _xz_stream(descriptor, end, MOST_XZ_BLOCKS - count)
        streams.append(blocks)
        count += len(blocks)
        refuse_many(len(streams))
        end = _before_padding(descriptor, end)
    return tuple(block for blocks in reversed(streams) for block in blocks)


def _before_padding(descriptor: int, end: int) -> int:
    """Return the offset of the padding that ends at `end`: zeros, a multiple of 4 (2.2)."""
    while end > 0:
        piece = os.pread(descriptor, min(INPUT_BYTES, end), max(end - INPUT_BYTES, 0))
        if not (zeros := (len(piece) - len(piece.rstrip(b"\0"))) & ~3):
            break
        end -= zeros
        if zeros < len(piece):
            break
    return end


def _xz_stream(descriptor: int, end: int, most_blocks: int) -> tuple[list[XzBlock], int]:
    """Return the blocks of the stream that ends at `end`, and its start."""
    if end < 2 * _XZ_FOOTER.size:
        raise EOFError("truncated")
    checksum, backward, flags, magic = _XZ_FOOTER.unpack(
        os.pread(descriptor, _XZ_FOOTER.size, end - _XZ_FOOTER.size)
    )
    if magic != b"YZ" or isal_zlib.crc32(struct.pack("<I2s", backward, flags)) != checksum:
        raise EOFError("truncated")
    index_bytes = (backward + 1) * 4
    index_at = end - _XZ_FOOTER.size - index_bytes
    if index_bytes > LARGEST_INDEX_BYTES:
        raise _too_many_blocks()
    if index_at < 0:
        raise EOFError("the index is damaged")
    sizes = _xz_index(os.pread(descriptor, index_bytes, index_at), most_blocks)
    # The header has the same flags as the footer (2.1.2.4).
    header = _xz_header(flags)
    start = index_at - sum(_padded(unpadded) for unpadded, _ in sizes) - len(header)
    if start < 0 or os.pread(descriptor, len(header), start) != header:
        raise EOFError("the index is damaged")
    return list(_placed(sizes, start + len(header), flags)), start


def _xz_header(flags: bytes) -> bytes:
    return _XZ_MAGIC + flags + _crc(flags)


def _placed(sizes: list[tuple[int, int]], at: int, flags: bytes) -> Iterator[XzBlock]:
    for unpadded, raw in sizes:
        yield XzBlock(at, _padded(unpadded), unpadded, raw, flags)
        at += _padded(unpadded)


def _padded(size_bytes: int) -> int:
    return (size_bytes + 3) & ~3


def _xz_index(index: bytes, most_blocks: int) -> list[tuple[int, int]]:
    if isal_zlib.crc32(index[:-4]) != int.from_bytes(index[-4:], "little"):
        raise EOFError("the index is damaged")
    numbers = _varints(index[1:-4])
    count = next(numbers, 0)
    if count > most_blocks:
        raise _too_many_blocks()
    sizes = list(itertools.islice(numbers, 2 * count))
    # It begins with a zero and is padded with zeros (4.1, 4.4), as xz demands.
    if len(sizes) < 2 * count or _written_index(sizes) != index:
        raise EOFError("the index is damaged")
    return list(zip(sizes[::2], sizes[1::2], strict=True))


def _written_index(sizes: list[int]) -> bytes:
    index = b"\0" + b"".join(map(_varint, (len(sizes) // 2, *sizes)))
    index += bytes(-len(index) % 4)
    return index + _crc(index)


def _too_many_blocks() -> LimitError:
    return LimitError(
        f"it has more than {MOST_XZ_BLOCKS} blocks",
        "unpack it with `xz -dk FILE`, and use the image itself",
    )


def _varints(data: bytes) -> Iterator[int]:
    value = shift = 0
    for byte in data:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:  # noqa: PLR2004 - the top bit is set if more bytes follow
            yield value
            value = shift = 0
        elif shift >= _LONGEST_VARINT_BITS:
            raise EOFError("the index is damaged")


def decode_xz(descriptor: int, blocks: tuple[XzBlock, ...]) -> Iterator[bytes]:
    """Yield the raw bytes of the blocks, decoded in several threads; lzma releases the GIL."""
    largest = max(block.raw_bytes for block in blocks)
    ahead = max(2, min(os.cpu_count() or 1, AHEAD_BYTES // max(largest, 1)))
    with worker_pool(ahead, "xz") as pool:
        waiting: deque[Future[deque[bytes]]] = deque()
        for block in blocks:
            waiting.append(pool.submit(_decode_block, descriptor, block))
            if len(waiting) >= ahead:
                yield from _emptied(waiting.popleft().result())
        while waiting:
            yield from _emptied(waiting.popleft().result())


def _emptied(chunks: deque[bytes]) -> Iterator[bytes]:
    """Yield chunks and free each at once, to limit the memory."""
    while chunks:
        yield chunks.popleft()


def _decode_block(descriptor: int, block: XzBlock) -> deque[bytes]:
    """Return one decoded block, framed as a stream of its own so that lzma checks it."""
    decoder = make_xz()
    chunks: deque[bytes] = deque()
    size = 0
    for piece in _framed(descriptor, block):
        data = piece
        while (data or not decoder.needs_input) and not decoder.eof and size <= block.raw_bytes:
            if chunk := decoder.decompress(data, CHUNK_BYTES):
                chunks.append(chunk)
                size += len(chunk)
            data = b""
    if not decoder.eof or size != block.raw_bytes:
        raise EOFError("a block is damaged")
    return chunks


def _framed(descriptor: int, block: XzBlock) -> Iterator[bytes]:
    yield _xz_header(block.flags)
    end = block.offset_bytes + block.padded_bytes
    for at in range(block.offset_bytes, end, INPUT_BYTES):
        yield os.pread(descriptor, min(INPUT_BYTES, end - at), at)
    yield _xz_tail(block)


def _xz_tail(block: XzBlock) -> bytes:
    index = _written_index([block.unpadded_bytes, block.raw_bytes])
    fields = struct.pack("<I2s", len(index) // 4 - 1, block.flags)
    return index + _crc(fields) + fields + b"YZ"


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:  # noqa: PLR2004 - seven bits in each byte
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _crc(data: bytes) -> bytes:
    return struct.pack("<I", isal_zlib.crc32(data))
