"""Read the next chunks while the last one is still in use, with bounded memory."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from queue import SimpleQueue
from typing import TYPE_CHECKING

from imagebuilder.devices.blockdev import Buffer
from imagebuilder.disk.write_set import CHUNK_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from imagebuilder.disk.extent import Extent

    Fill = Callable[[int, memoryview], None]

DEPTH = 3  # one chunk in use, one ready, one being read


class Buffers:
    """The buffers of one card, allocated once and used in every stage."""

    def __init__(self) -> None:
        self.first = Buffer(CHUNK_BYTES)
        self.spare = Buffer(CHUNK_BYTES)
        self.ring = tuple(Buffer(CHUNK_BYTES) for _ in range(DEPTH))


@contextmanager
def read_ahead(
    fill: Fill, pieces: Iterable[Extent], buffers: Buffers
) -> Iterator[Iterator[tuple[Extent, memoryview]]]:
    """Yield an iterator of (chunk, bytes); each view is valid until the next step.

    Exceptions of `fill` are raised by the iterator. The reader stops at the end of the block.
    """
    reader = _Reader(fill, pieces, buffers)
    thread = threading.Thread(target=reader.run, daemon=True)
    thread.start()
    try:
        yield reader.results()
    finally:
        # The thread must not read from a descriptor that the caller is about to close.
        reader.stop()
        thread.join()


class _Reader:
    def __init__(self, fill: Fill, pieces: Iterable[Extent], buffers: Buffers) -> None:
        self._fill = fill
        self._pieces = pieces
        self._stopped = False
        self._free: SimpleQueue[memoryview | None] = SimpleQueue()
        self._ready: SimpleQueue[tuple[Extent, memoryview] | BaseException | None] = SimpleQueue()
        for buffer in buffers.ring:
            self._free.put(buffer.view)

    def run(self) -> None:
        """Read all chunks into free buffers; runs in its own thread."""
        try:
            for piece in self._pieces:
                view = self._free.get()
                if view is None or self._stopped:
                    return
                self._fill(piece.start_bytes, view[: piece.size_bytes])
                self._ready.put((piece, view))
        except BaseException as error:  # noqa: BLE001 - raised again by `results`
            self._ready.put(error)
        self._ready.put(None)

    def results(self) -> Iterator[tuple[Extent, memoryview]]:
        while (item := self._ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            piece, view = item
            yield piece, view[: piece.size_bytes]
            self._free.put(view)

    def stop(self) -> None:
        self._stopped = True
        self._free.put(None)
