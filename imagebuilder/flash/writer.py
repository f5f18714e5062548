"""Write one card: a state machine that never leaves a partially written card bootable."""

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

NOT_BOOTING = "the card will not boot"
_MARK_BYTES = 64 << 10
_DEFECT = "use another card: this one is worn out or counterfeit"


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
    """The user cancelled the run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CardOptions:
    """How to write cards: only differences, with read-back, and with ejection at the end."""

    reuse: bool = False
    verify: bool = True
    eject: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CardJob:
    """One card: the device, the content, and the byte ranges of it to write.

    `prove` reads the finished card and raises WriteError if its files differ.
    """

    device: Device
    source: PatchedImage
    write_set: tuple[Extent, ...]
    prove: Callable[[ReadAt], None]
    node: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CardReport:
    """The result of a finished card; `digest` is the SHA-256 of the SHA-256s of its chunks.

    The chunks are the write set, cut at multiples of 4 MiB, in order.
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
    """The state of a card, shared between its thread and the flasher."""

    stage: Stage = Stage.CLAIM
    touched: bool = False
    beat: float = field(default_factory=time.monotonic)
    cancelled: threading.Event = field(default_factory=threading.Event)

    def enter(self, stage: Stage) -> None:
        """Enter the next stage. Raise Cancelled if the run was cancelled."""
        self.step()
        self.stage = stage

    def step(self) -> None:
        """Record that the card answered. Raise Cancelled if the run was cancelled."""
        self.beat = time.monotonic()
        if self.cancelled.is_set():
            raise Cancelled


def write_card(job: CardJob, options: CardOptions, meter: Meter, watch: Watch) -> CardReport:
    """Write one card through all stages. Raise RefusedError, WriteError or Cancelled.

    After a failure past CLAIM, zero the first chunk again; the error tells whether that succeeded.
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
    state = NOT_BOOTING if zeroed else "do not use the card: its start could not be zeroed"
    return WriteError(message, f"{error.hint}; {state}" if error.hint else state)


class _Writer:
    """The stages after CLAIM, for one device."""

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
        self._advance(self._pieces[0])  # last, because only now the card is complete
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
        """Zero the first chunk in any stage; return False if that fails."""
        try:
            self._zero_first()
            self._device.flush()
        except WriteError:
            return False
        return True

    def _hold_first(self) -> None:
        """Read the first chunk before the card is changed; it is written last."""
        first = self._pieces[0]
        self._first = self._buffers.first.view[: first.size_bytes]
        self._fill(first.start_bytes, self._first)

    def _invalidate(self) -> None:
        """Zero the first chunk and the last MiB, which may hold the backup of a GPT.

        First write random bytes to the end and read them back: a counterfeit card with a false
        size loses them or has them at its start.
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
                f"{self._device.path} does not store data at its end or start", _DEFECT
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
        """Raise WriteError if the last MiB past the image is not zero any more."""
        image_end = -(-self._job.source.size_bytes // SECTOR_BYTES) * SECTOR_BYTES
        tail = self._tail()
        rest = _last(tail, tail.end_bytes - image_end)
        if rest.size_bytes and not self._zeroed(rest):
            raise _differs(self._device.path, rest)

    def _commit(self) -> None:
        """Write the first chunk with the partition table; after that the card boots."""
        self._watch.enter(Stage.COMMIT)
        first = self._pieces[0]
        self._device.write(0, self._first)
        self._device.flush()
        self._written_bytes += first.size_bytes
        if self._options.verify:
            self._advance(first)
            if self._read_digest(first) != self._digests[0]:
                raise _differs(self._device.path, first)
            self._verify_end()  # a false size could have stored the first chunk there as well

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
        """Return whether the card has this chunk already."""
        return self._read_digest(piece) == self._digests[piece.start_bytes]

    def _read_digest(self, extent: Extent) -> bytes:
        # The spare buffer, because the ring may hold chunks not yet written.
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
    """Return the last `size_bytes` of an extent, or all of it if it is shorter."""
    size = max(0, min(size_bytes, extent.size_bytes))
    return Extent(extent.end_bytes - size, size)


def _differs(path: str, extent: Extent) -> WriteError:
    return WriteError(
        f"{path}: bytes {extent.start_bytes} to {extent.end_bytes} differ when read back", _DEFECT
    )


def _sha256(view: memoryview) -> bytes:
    return hashlib.sha256(view).digest()


def work_bytes(job: CardJob, options: CardOptions) -> int:
    """Return the total of a card's meter: each byte once written and once verified."""
    return total_bytes(chunks(job.write_set)) * (2 if options.verify else 1)
