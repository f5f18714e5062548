"""The view against a plain bytearray: same reads, and a patch that turns one into the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagebuilder.disk.cow import CowView
from imagebuilder.disk.extent import Patch, Run
from imagebuilder.disk.patched import PatchedImage, merge
from imagebuilder.disk.reader import CACHED_BYTES, CachedReader
from imagebuilder.errors import ImageError
from imagebuilder.model import SECTOR_BYTES

if TYPE_CHECKING:
    from imagebuilder.disk.reader import RawFile

SIZE = 5 * 4096
START = 2 * SECTOR_BYTES
WINDOW = SIZE - 3 * SECTOR_BYTES


class Memory:
    """A disk in memory that counts how often it is read."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.size_bytes = len(data)
        self.reads = 0

    def read_at(self, offset_bytes: int, size_bytes: int) -> bytes:
        self.reads += 1
        return self.data[offset_bytes : offset_bytes + size_bytes]


BASE = bytes(index * 7 % 251 for index in range(SIZE))
WRITES = st.lists(
    st.tuples(st.integers(0, WINDOW), st.binary(max_size=9000)).map(
        lambda pair: (pair[0], pair[1][: WINDOW - pair[0]])
    ),
    max_size=6,
)


def written(writes: list[tuple[int, bytes]]) -> tuple[CowView, bytes]:
    view = CowView(Memory(BASE), START, WINDOW)
    wanted = bytearray(BASE)
    for offset, data in writes:
        view.write_at(offset, data)
        wanted[START + offset : START + offset + len(data)] = data
    return view, bytes(wanted)


@given(WRITES, st.integers(0, WINDOW), st.integers(0, WINDOW))
def test_a_view_reads_what_was_written_over_the_disk(
    writes: list[tuple[int, bytes]], offset: int, size: int
) -> None:
    view, wanted = written(writes)
    size = min(size, WINDOW - offset)
    assert view.read_at(offset, size) == wanted[START + offset : START + offset + size]


@given(WRITES)
def test_a_patch_turns_the_disk_into_the_view_by_whole_sorted_sectors(
    writes: list[tuple[int, bytes]],
) -> None:
    view, wanted = written(writes)
    patch = view.patch()
    result = bytearray(BASE)
    end = -1
    for run in patch.runs:
        assert run.offset_bytes % SECTOR_BYTES == 0
        assert len(run.data) % SECTOR_BYTES == 0
        assert run.offset_bytes > end, "runs that touch must be one"
        end = run.offset_bytes + len(run.data)
        for at in range(0, len(run.data), SECTOR_BYTES):
            place = run.offset_bytes + at
            assert run.data[at : at + SECTOR_BYTES] != BASE[place : place + SECTOR_BYTES]
        result[run.offset_bytes : end] = run.data
    assert bytes(result) == wanted


@given(WRITES, st.integers(0, SIZE + 100), st.integers(0, SIZE))
def test_a_patched_disk_reads_as_base_with_patch(
    writes: list[tuple[int, bytes]], offset: int, size: int
) -> None:
    view, wanted = written(writes)
    patched = PatchedImage(cast("RawFile", Memory(BASE)), view.patch())
    assert patched.size_bytes == SIZE
    assert patched.read_at(offset, size) == wanted[offset : offset + size]


@given(WRITES, st.integers(1, 7000))
def test_merging_chunk_by_chunk_gives_the_patched_disk(
    writes: list[tuple[int, bytes]], step: int
) -> None:
    view, wanted = written(writes)
    patch = view.patch()
    parts = []
    for offset in range(0, SIZE, step):
        chunk = bytearray(BASE[offset : offset + step])
        merge(patch, offset, memoryview(chunk))
        parts.append(bytes(chunk))
    assert b"".join(parts) == wanted


def test_a_view_is_a_file() -> None:
    view = CowView(Memory(BASE), START, WINDOW)
    assert view.seek(100) == 100
    assert view.write(b"hello") == 5
    assert view.tell() == 105
    view.seek(98)
    assert view.read(9) == BASE[START + 98 : START + 100] + b"hello" + BASE[START + 105 :][:2]
    view.seek(WINDOW - 3)
    assert view.read() == BASE[START + WINDOW - 3 : START + WINDOW]
    assert view.read(1) == b""


@pytest.mark.parametrize(
    ("offset", "size"), [(WINDOW, 1), (WINDOW - 1, 2), (-1, 1), (WINDOW + 9, 0)]
)
def test_nothing_outside_the_window_is_read_or_written(offset: int, size: int) -> None:
    view = CowView(Memory(BASE), START, WINDOW)
    with pytest.raises(ImageError, match="outside the boot partition"):
        view.read_at(offset, size)
    with pytest.raises(ImageError, match="outside the boot partition"):
        view.write_at(offset, bytes(size))
    assert view.patch() == Patch()


def test_a_disk_that_ends_inside_the_window_is_cut_off() -> None:
    view = CowView(Memory(BASE[:-1]), START, SIZE - START)
    assert view.read_at(0, 10) == BASE[START : START + 10]
    with pytest.raises(ImageError, match="truncated"):
        view.read_at(SIZE - START - 10, 10)


def test_writing_what_is_there_already_gives_an_empty_patch() -> None:
    view = CowView(Memory(BASE), START, WINDOW)
    view.write_at(700, BASE[START + 700 : START + 6000])
    assert view.patch() == Patch()
    view.write_at(700, b"!")
    view.write_at(700, BASE[START + 700 : START + 701])
    assert view.patch() == Patch()


def test_a_window_that_ends_inside_a_block_is_patched_to_its_end() -> None:
    view = CowView(Memory(BASE), START, WINDOW)
    view.write_at(WINDOW - 1, b"\xff")
    (run,) = view.patch().runs
    assert run.offset_bytes + len(run.data) == START + WINDOW


def test_merge_leaves_a_chunk_between_runs_alone() -> None:
    patch = Patch((Run(512, b"a" * 512), Run(4096, b"b" * 512)))
    chunk = bytearray(b"." * 1000)
    merge(patch, 1024, chunk)
    assert chunk == b"." * 1000
    merge(patch, 1000, chunk)
    assert chunk == b"a" * 24 + b"." * 976


def test_what_was_read_once_is_not_read_again() -> None:
    disk = Memory(BASE)
    kept = CachedReader(disk)
    assert kept.size_bytes == SIZE
    assert [kept.read_at(5, 9) for _ in range(3)] == [BASE[5:14]] * 3
    assert disk.reads == 1


def test_remembering_is_bounded() -> None:
    class Endless(Memory):
        def read_at(self, offset_bytes: int, size_bytes: int) -> bytes:
            self.reads += offset_bytes >= 0
            return bytes(size_bytes)

    disk = Endless(b"")
    kept = CachedReader(disk)
    half = CACHED_BYTES // 2
    for offset in (0, 1, 2, 0):
        kept.read_at(offset, half)
    assert disk.reads == 4
    assert kept._kept_bytes <= CACHED_BYTES
