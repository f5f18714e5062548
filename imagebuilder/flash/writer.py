"""One card from claim to release: the state machine that makes a half-written card unbootable."""

from __future__ import annotations

import enum
import hashlib
import os
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from imagebuilder.devices import blockdev
from imagebuilder.disk.extent import Extent
from imagebuilder.disk.write_set import CHUNK_BYTES, GRAIN_BYTES, chunks, total_bytes
from imagebuilder.errors import RpiImageError, WriteError
from imagebuilder.flash.readahead import Buffers, read_ahead
from imagebuilder.model import SECTOR_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable

    from imagebuilder.devices.blockdev import BlockDevice
    from imagebuilder.devices.device import Device
    from imagebuilder.disk.patched import PatchedImage
    from imagebuilder.disk.reader import ReadAt
    from imagebuilder.progress import Meter

NOT_BOOTING = "the card does not boot as it is"
_MARK_BYTES = 64 << 10
_DEFECT = "the card is worn out or counterfeit: take another one"


class Stage(enum.StrEnum):
    """The states of a card, in order."""

    CLAIM = "claim"
    INVALIDATE = "invalidate"
    WRITE = "write"
    FLUSH = "flush"
    VERIFY = "verify"
    COMMIT = "commit"
    PROOF = "proof"
    RELEASE = "release"
    DONE = "done"


class Cancelled(Exception):  # noqa: N818 - a request, not an error
    """The user asked to stop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CardOptions:
    """How cards are written: only what differs, read back or not, ejected at the end."""

    reuse: bool = False
    verify: bool = True
    eject: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CardJob:
    """One card: which device, what it becomes, which bytes of that must land on it.

    `prove` reads the finished card and raises WriteError where it is not what it should be.
    """

    device: Device
    source: PatchedImage
    write_set: tuple[Extent, ...]
    prove: Callable[[ReadAt], None]
    node: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CardReport:
    """What a finished card holds; `digest` is the SHA-256 of the SHA-256s of its pieces in order.

    The pieces are the write set cut at multiples of 4 MiB.
    """

    digest: str
    set_bytes: int
    written_bytes: int
    seconds: float
    write_seconds: float
    verified: bool
    ejected: bool
    table_reread: bool


@dataclass
class Watch:
    """What a card's thread shows to the one that watches over it."""

    stage: Stage = Stage.CLAIM
    touched: bool = False
    beat: float = field(default_factory=time.monotonic)
    cancelled: threading.Event = field(default_factory=threading.Event)

    def enter(self, stage: Stage) -> None:
        """Go on to the next state; raises Cancelled."""
        self.step()
        self.stage = stage

    def step(self) -> None:
        """Note that the card answered; raises Cancelled where the user wants to stop."""
        self.beat = time.monotonic()
        if self.cancelled.is_set():
            raise Cancelled


def write_card(job: CardJob, options: CardOptions, meter: Meter, watch: Watch) -> CardReport:
    """Take one card through all states; raises RefusedError, WriteError or Cancelled.

    On any failure behind CLAIM the first chunk is zeroed again, and the error says whether that
    succeeded.
    """
    with blockdev.claim(job.device) as device:
        writer = _Writer(job, options, meter, watch, device)
        try:
            return writer.run()
        except (RpiImageError, Cancelled) as error:
            if not watch.touched:
                raise
            zeroed = writer.invalidate_again()
            if isinstance(error, Cancelled):
                raise
            raise _failed(job.device.path, error, zeroed=zeroed) from error


def _failed(path: str, error: RpiImageError, *, zeroed: bool) -> WriteError:
    message = error.message if error.message.startswith(path) else f"{path}: {error.message}"
    state = NOT_BOOTING if zeroed else "its start could not be zeroed: do not use the card"
    return WriteError(message, f"{error.hint}; {state}" if error.hint else state)


class _Writer:
    """The states after CLAIM, for one device."""

    def __init__(
        self, job: CardJob, options: CardOptions, meter: Meter, watch: Watch, device: BlockDevice
    ) -> None:
        self._job = job
        self._options = options
        self._meter = meter
        self._watch = watch
        self._device = device
        self._buffers = Buffers()
        self._pieces = tuple(chunks(job.write_set))
        self._digests: dict[int, bytes] = {}
        self._written_bytes = 0

    def run(self) -> CardReport:
        begin = time.monotonic()
        self._hold_first()
        self._invalidate()
        self._write()
        self._flush()
        wrote = time.monotonic()
        if self._options.verify:
            self._verify()
        self._commit()
        self._prove()
        self._advance(self._pieces[0])  # now, and not before, all of it is done
        table, ejected = self._release()
        return CardReport(
            digest=self._digest(),
            set_bytes=total_bytes(self._pieces),
            written_bytes=self._written_bytes,
            seconds=time.monotonic() - begin,
            write_seconds=wrote - begin,
            verified=self._options.verify,
            ejected=ejected,
            table_reread=table,
        )

    def invalidate_again(self) -> bool:
        """Zero the first chunk, whatever state the card is in; False where that fails."""
        try:
            self._zero_first()
            self._device.flush()
        except WriteError:
            return False
        return True

    def _hold_first(self) -> None:
        """Read the first chunk before anything is touched; it is written last."""
        first = self._pieces[0]
        self._first = self._buffers.first.view[: first.size_bytes]
        self._fill(first.start_bytes, self._first)

    def _invalidate(self) -> None:
        """Zero the first chunk and the last MiB (the second partition table of a GPT).

        The end is first written with random bytes and read back: a card that lies about its size
        loses them, or shows them at its start.
        """
        self._watch.enter(Stage.INVALIDATE)
        self._watch.touched = True
        tail = self._tail()
        mark = _last(tail, _MARK_BYTES)
        view = self._buffers.ring[1].view[: mark.size_bytes]
        view[:] = os.urandom(mark.size_bytes)
        self._zero_first()
        self._device.write(mark.start_bytes, view)
        self._device.flush()
        self._watch.step()
        head = Extent(0, min(_MARK_BYTES, self._first_extent().size_bytes))
        if self._read_digest(mark) != _sha256(view) or not self._zeroed(head):
            raise WriteError(
                f"{self._device.path} does not keep what is written at its end or start", _DEFECT
            )
        self._zero(tail)
        self._device.flush()

    def _write(self) -> None:
        self._watch.enter(Stage.WRITE)
        with read_ahead(self._fill, self._pieces[1:], self._buffers) as pieces:
            for piece, view in pieces:
                if not (self._options.reuse and self._holds(piece)):
                    self._device.write(piece.start_bytes, view)
                    self._written_bytes += piece.size_bytes
                self._advance(piece)

    def _flush(self) -> None:
        self._watch.enter(Stage.FLUSH)
        self._device.flush()

    def _verify(self) -> None:
        self._watch.enter(Stage.VERIFY)
        with read_ahead(self._device.read, self._pieces[1:], self._buffers) as pieces:
            for piece, view in pieces:
                if _sha256(view) != self._digests[piece.start_bytes]:
                    raise _differs(self._device.path, piece)
                self._advance(piece)
        self._verify_end()

    def _verify_end(self) -> None:
        """Check that what lies behind the image in the last MiB is still zero."""
        image_end = -(-self._job.source.size_bytes // SECTOR_BYTES) * SECTOR_BYTES
        tail = self._tail()
        rest = _last(tail, tail.end_bytes - image_end)
        if rest.size_bytes and not self._zeroed(rest):
            raise _differs(self._device.path, rest)

    def _commit(self) -> None:
        """Write the first chunk, and with it the partition table: from here on the card boots."""
        self._watch.enter(Stage.COMMIT)
        first = self._pieces[0]
        self._device.write(0, self._first)
        self._device.flush()
        self._written_bytes += first.size_bytes
        if self._options.verify:
            self._advance(first)
            if self._read_digest(first) != self._digests[0]:
                raise _differs(self._device.path, first)
            self._verify_end()  # the first chunk did not land there, too

    def _prove(self) -> None:
        self._watch.enter(Stage.PROOF)
        self._job.prove(blockdev.DeviceReader(self._device))

    def _release(self) -> tuple[bool, bool]:
        self._watch.enter(Stage.RELEASE)
        table = self._device.reread_table()
        ejected = self._options.eject and self._device.eject()
        self._watch.stage = Stage.DONE
        return table, ejected

    def _fill(self, offset_bytes: int, view: memoryview) -> None:
        self._job.source.fill(offset_bytes, view)
        self._digests[offset_bytes] = _sha256(view)

    def _advance(self, piece: Extent) -> None:
        self._watch.step()
        self._meter.advance(piece.size_bytes)

    def _holds(self, piece: Extent) -> bool:
        """Return whether the card holds this piece already."""
        return self._read_digest(piece) == self._digests[piece.start_bytes]

    def _read_digest(self, extent: Extent) -> bytes:
        # The spare buffer: the ring may hold pieces that wait to be written.
        view = self._buffers.spare.view[: extent.size_bytes]
        self._device.read(extent.start_bytes, view)
        return _sha256(view)

    def _zeroed(self, extent: Extent) -> bool:
        return self._read_digest(extent) == hashlib.sha256(bytes(extent.size_bytes)).digest()

    def _zero_first(self) -> None:
        self._zero(self._first_extent())

    def _zero(self, extent: Extent) -> None:
        self._buffers.spare.zero()
        self._device.write(extent.start_bytes, self._buffers.spare.view[: extent.size_bytes])

    def _first_extent(self) -> Extent:
        return Extent(0, min(CHUNK_BYTES, self._device.size_bytes))

    def _tail(self) -> Extent:
        end = self._device.size_bytes
        begin = max(self._first_extent().end_bytes, end - GRAIN_BYTES)
        return Extent(begin, end - begin)

    def _digest(self) -> str:
        together = b"".join(self._digests[piece.start_bytes] for piece in self._pieces)
        return hashlib.sha256(together).hexdigest()


def _last(extent: Extent, size_bytes: int) -> Extent:
    """Return the end of an extent: `size_bytes` of it, or all, or nothing."""
    size = max(0, min(size_bytes, extent.size_bytes))
    return Extent(extent.end_bytes - size, size)


def _differs(path: str, extent: Extent) -> WriteError:
    return WriteError(
        f"{path}: bytes {extent.start_bytes} to {extent.end_bytes} read back differently", _DEFECT
    )


def _sha256(view: memoryview) -> bytes:
    return hashlib.sha256(view).digest()


def work_bytes(job: CardJob, options: CardOptions) -> int:
    """Return what the meter of this card counts to: each byte once written and once verified."""
    return total_bytes(chunks(job.write_set)) * (2 if options.verify else 1)
