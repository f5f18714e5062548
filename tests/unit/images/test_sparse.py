"""Which bytes of a chunk are worth writing."""

from __future__ import annotations

import hashlib
import itertools
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagebuilder.errors import ImageError
from imagebuilder.images.archives.unpack import ImageStream
from imagebuilder.images.sparse import (
    BLOCK_BYTES,
    data_runs,
    hash_file,
    open_lazily_unpacked,
    write_raw,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PIECES = st.lists(
    st.tuples(st.integers(1, 9000), st.booleans()).map(lambda p: bytes([p[1]]) * p[0]), max_size=8
)


@settings(deadline=None)
@given(PIECES, st.integers(0, 3 * BLOCK_BYTES))
def test_runs_cover_every_byte_that_is_not_zero(pieces: list[bytes], offset: int) -> None:
    chunk = b"".join(pieces)
    rebuilt = bytearray(len(chunk))
    for start, end in data_runs(chunk, offset):
        assert start < end
        rebuilt[start:end] = chunk[start:end]
    assert rebuilt == chunk


@settings(deadline=None)
@given(PIECES, st.integers(0, 3 * BLOCK_BYTES))
def test_no_whole_block_of_zeros_is_written(pieces: list[bytes], offset: int) -> None:
    chunk = b"".join(pieces)
    for start, end in data_runs(chunk, offset):
        first = -(-(offset + start) // BLOCK_BYTES) * BLOCK_BYTES - offset
        for block in range(first, end - BLOCK_BYTES + 1, BLOCK_BYTES):
            assert any(chunk[block : block + BLOCK_BYTES])


@settings(deadline=None)
@given(PIECES)
def test_neighbouring_runs_do_not_touch(pieces: list[bytes]) -> None:
    runs = list(data_runs(b"".join(pieces), 0))
    assert all(one[1] < two[0] for one, two in itertools.pairwise(runs))


@pytest.mark.parametrize("size", [0, 1, 511, 4096, 4097, 3_000_001])
def test_written_bytes_are_the_streams(tmp_path: Path, size: int) -> None:
    data = (b"\0" * 5000 + b"x" * 700) * (size // 5700 + 1)
    data = data[:size]
    chunks = [data[i : i + 100_003] for i in range(0, size, 100_003)]
    out = tmp_path / "out"
    written = write_raw(ImageStream(iter(chunks), None, "x"), out)
    assert out.read_bytes() == data
    assert (written.sha256, written.size_bytes) == (hashlib.sha256(data).hexdigest(), size)
    assert hash_file(out) == written


@settings(deadline=None)
@given(data=st.data(), stated=st.booleans())
def test_a_stream_read_as_a_disk_is_unpacked_as_far_as_is_asked(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, *, stated: bool
) -> None:
    whole = bytes(5000) + bytes(range(256)) * 100 + bytes(9000)
    chunks = [whole[i : i + 1000] for i in range(0, len(whole), 1000)]
    taken = 0

    def counted() -> Iterator[bytes]:
        nonlocal taken
        for chunk in chunks:
            taken += len(chunk)
            yield chunk

    out = tmp_path_factory.mktemp("unrolled") / "part"
    stream = ImageStream(counted(), len(whole) if stated else None, "x")
    with open_lazily_unpacked(stream, out) as disk:
        assert disk.size_bytes == len(whole)
        farthest = 0
        for _ in range(3):
            start = data.draw(st.integers(0, len(whole)))
            size = data.draw(st.integers(1, 12_000))
            assert disk.read_at(start, size) == whole[start : start + size]
            farthest = max(farthest, start + size)
            assert taken < farthest + 1000 or not stated
    assert taken <= len(whole)


def test_a_stream_that_fails_leaves_no_file(tmp_path: Path) -> None:
    def broken() -> Iterator[bytes]:
        yield b"x" * 100_000
        raise ImageError("broken")

    with pytest.raises(ImageError, match="broken"):
        write_raw(ImageStream(broken(), None, "x"), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_leaves_no_file(tmp_path: Path) -> None:
    def interrupted() -> Iterator[bytes]:
        yield b"x" * 100_000
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_raw(ImageStream(interrupted(), None, "x"), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_an_absent_file_has_no_digest(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="cannot read"):
        hash_file(tmp_path / "none")
