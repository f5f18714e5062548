"""The state machine over a card of memory: properties of its write log, and every failure."""

from __future__ import annotations

import random
from contextlib import contextmanager
from dataclasses import replace
from threading import Event
from typing import TYPE_CHECKING

import pytest

from imagebuilder.devices import blockdev
from imagebuilder.devices.device import Device
from imagebuilder.disk.extent import Extent, Patch, Run
from imagebuilder.disk.patched import PatchedImage
from imagebuilder.disk.reader import open_raw
from imagebuilder.disk.write_set import CHUNK_BYTES, GRAIN_BYTES, join
from imagebuilder.errors import WriteError
from imagebuilder.flash.flasher import Flasher, flash_cards
from imagebuilder.flash.writer import (
    Cancelled,
    CardJob,
    CardOptions,
    CardReport,
    Stage,
    Watch,
    work_bytes,
    write_card,
)
from imagebuilder.progress import SilentReporter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from imagebuilder.disk.reader import ReadAt

MIB = 1 << 20
CARD_BYTES = 32 * MIB
OLD = 0xA5


class MemoryCard:
    """A card that keeps a log of every write; `fail_at` makes the n-th transfer fail."""

    def __init__(self, size_bytes: int = CARD_BYTES) -> None:
        self.path = "/dev/card"
        self.size_bytes = size_bytes
        self.store = bytearray([OLD]) * size_bytes
        self.log: list[tuple[int, int]] = []
        self.first_chunks: list[bytes] = []
        self.transfers = 0
        self.fail_at = -1
        self.ejected = False

    def write(self, offset_bytes: int, view: memoryview) -> None:
        self._count()
        self.store[offset_bytes : offset_bytes + len(view)] = view
        self.log.append((offset_bytes, len(view)))
        self.first_chunks.append(bytes(self.store[:512]) + bytes(self.store[MIB : MIB + 512]))

    def read(self, offset_bytes: int, view: memoryview) -> None:
        self._count()
        view[:] = self.store[offset_bytes : offset_bytes + len(view)]

    def flush(self) -> None:
        self._count()

    def reread_table(self) -> bool:
        return True

    def eject(self) -> bool:
        self.ejected = True
        return True

    def _count(self) -> None:
        self.transfers += 1
        if self.transfers == self.fail_at:
            raise WriteError(f"{self.path}: failed", "take another card")


class Totals:
    def __init__(self, card: MemoryCard) -> None:
        self.card, self.done = card, 0
        self.seen: list[tuple[int, int]] = []

    def advance(self, amount: int) -> None:
        self.done += amount
        self.seen.append((self.done, sum(size for _, size in self.card.log)))


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> MemoryCard:
    memory = MemoryCard()

    @contextmanager
    def claim(confirmed: Device) -> Iterator[MemoryCard]:
        del confirmed
        yield memory

    monkeypatch.setattr(blockdev, "claim", claim)
    return memory


def no_proof(disk: ReadAt) -> None:
    assert disk.size_bytes == CARD_BYTES


@contextmanager
def job_of(folder: Path, size_bytes: int, used: list[Extent], patch: Patch) -> Iterator[CardJob]:
    image = folder / "image"
    image.write_bytes(random.Random(size_bytes).randbytes(size_bytes))
    with open_raw(image) as raw:
        first = Extent(0, min(CHUNK_BYTES, size_bytes))
        runs = [Extent(run.offset_bytes, len(run.data)) for run in patch.runs]
        yield CardJob(
            device=Device(path="/dev/card", major_minor="8:16", size_bytes=CARD_BYTES),
            source=PatchedImage(raw, patch, "image"),
            write_set=join([first, *used, *runs], GRAIN_BYTES, size_bytes),
            prove=no_proof,
        )


def run(job: CardJob, card: MemoryCard, options: CardOptions | None = None) -> CardReport:
    return write_card(job, options or CardOptions(), Totals(card), Watch())


PATCH = Patch((Run(5 * MIB, b"patched " * 64), Run(9 * MIB + 512, b"also" * 128)))
SHAPES = [
    pytest.param(20 * MIB, [], id="nothing in use"),
    pytest.param(20 * MIB, [Extent(0, 20 * MIB)], id="all in use"),
    pytest.param(20 * MIB + 100, [Extent(0, 20 * MIB + 100)], id="half a sector at the end"),
    pytest.param(21 * MIB, [Extent(7 * MIB + 3, 10), Extent(19 * MIB, 2 * MIB)], id="islands"),
    pytest.param(CARD_BYTES, [Extent(30 * MIB, 2 * MIB)], id="up to the card's end"),
    pytest.param(10 * MIB, [Extent(6 * MIB, MIB)], id="small"),
]


@pytest.mark.parametrize(("size", "used"), SHAPES)
@pytest.mark.parametrize("patch", [Patch(), PATCH])
def test_the_write_log_keeps_every_promise(
    tmp_path: Path, card: MemoryCard, size: int, used: list[Extent], patch: Patch
) -> None:
    with job_of(tmp_path, size, used, patch) as job:
        report = run(job, card)
        should = job.source.read_at(0, size)
    allowed = [*job.write_set, Extent(0, CHUNK_BYTES), Extent(CARD_BYTES - MIB, MIB)]
    for offset, length in card.log:
        assert offset % 512 == length % 512 == 0
        assert length <= CHUNK_BYTES
        end = offset + length
        assert any(e.start_bytes <= offset and end <= e.end_bytes + 511 for e in allowed)
    # The first chunk: zero first of all, the image's last of all, and zero at every prefix between.
    assert card.log[0] == (0, CHUNK_BYTES)
    assert card.log[-1] == (0, min(CHUNK_BYTES, size))
    assert all(not any(seen) for seen in card.first_chunks[:-1])
    for extent in job.write_set:
        here = slice(extent.start_bytes, extent.end_bytes)
        assert card.store[here] == should[here]
    assert report.verified
    assert report.written_bytes == report.set_bytes


def test_what_is_not_in_the_write_set_is_left_alone(tmp_path: Path, card: MemoryCard) -> None:
    with job_of(tmp_path, 20 * MIB, [Extent(10 * MIB, MIB)], Patch()) as job:
        run(job, card)
    assert set(card.store[4 * MIB : 10 * MIB]) == {OLD}
    assert set(card.store[11 * MIB : 31 * MIB]) == {OLD}
    assert set(card.store[31 * MIB :]) == {0}


def test_half_a_sector_at_the_end_is_padded_with_zeros(tmp_path: Path, card: MemoryCard) -> None:
    size = 5 * MIB + 100
    with job_of(tmp_path, size, [Extent(0, size)], Patch()) as job:
        run(job, card)
        assert bytes(card.store[:size]) == job.source.read_at(0, size)
    assert set(card.store[size : size + 412]) == {0}
    assert card.store[size + 412] == OLD


@pytest.mark.parametrize("verify", [True, False])
def test_all_is_counted_only_once_the_proof_is_given(
    tmp_path: Path, card: MemoryCard, verify: bool
) -> None:
    options, totals, at_proof = CardOptions(verify=verify), Totals(card), []
    with job_of(tmp_path, 12 * MIB, [Extent(0, 12 * MIB)], Patch()) as job:
        watched = replace(job, prove=lambda _disk: at_proof.append(totals.done))
        write_card(watched, options, totals, Watch())
    total = work_bytes(job, options)
    assert at_proof == [total - CHUNK_BYTES]
    assert totals.done == total


def test_progress_is_what_is_on_the_card(tmp_path: Path, card: MemoryCard) -> None:
    with job_of(tmp_path, 20 * MIB, [Extent(0, 20 * MIB)], Patch()) as job:
        totals = Totals(card)
        write_card(job, CardOptions(), totals, Watch())
        total = work_bytes(job, CardOptions())
    assert totals.done == total == 40 * MIB
    overhead = 5 * MIB + (64 << 10)  # the zeros and the mark of INVALIDATE
    written = [(done, on_card - overhead) for done, on_card in totals.seen[:4]]
    assert written == [(4 * n * MIB, 4 * n * MIB) for n in (1, 2, 3, 4)]
    # All of it only once the first chunk is there and was read back.
    assert [done for done, _ in totals.seen].index(total) == len(totals.seen) - 1


@pytest.mark.parametrize("lands_at", [0, 64 << 10, 3 * MIB])
def test_an_end_that_is_also_the_start_is_found(
    tmp_path: Path, card: MemoryCard, monkeypatch: pytest.MonkeyPatch, lands_at: int
) -> None:
    """A counterfeit card whose last MiB is also a part of its first chunk."""
    shift = CARD_BYTES - MIB - lands_at
    write, read = card.write, card.read

    def real(offset_bytes: int) -> int:
        return offset_bytes - shift if offset_bytes >= CARD_BYTES - MIB else offset_bytes

    monkeypatch.setattr(card, "write", lambda at, view: write(real(at), view))
    monkeypatch.setattr(card, "read", lambda at, view: read(real(at), view))
    with (
        job_of(tmp_path, 20 * MIB, [Extent(0, 20 * MIB)], Patch()) as job,
        pytest.raises(WriteError, match="32505856 to 33554432 differ when read back"),
    ):
        run(job, card)
    assert not any(card.store[:CHUNK_BYTES])


@pytest.mark.parametrize("verify", [True, False])
def test_whatever_transfer_fails_the_card_does_not_boot(
    tmp_path: Path, card: MemoryCard, verify: bool
) -> None:
    options = CardOptions(verify=verify)
    with job_of(tmp_path, 12 * MIB, [Extent(0, 12 * MIB)], Patch()) as job:
        run(job, card, options)
        transfers = card.transfers
        for number in range(1, transfers + 1):
            card.__init__()  # type: ignore[misc]
            card.fail_at = number
            with pytest.raises(WriteError, match="/dev/card") as failed:
                run(job, card, options)
            assert "will not boot" in failed.value.hint
            assert not any(card.store[:CHUNK_BYTES])
    assert transfers > (14 if verify else 8)


def test_a_card_that_cannot_be_zeroed_again_is_said_so(tmp_path: Path, card: MemoryCard) -> None:
    with job_of(tmp_path, 12 * MIB, [Extent(0, 12 * MIB)], Patch()) as job:
        real = card.write

        def broken(offset_bytes: int, view: memoryview) -> None:
            if card.transfers > 6:
                raise WriteError("/dev/card: gone", "")
            real(offset_bytes, view)

        card.write = broken  # type: ignore[method-assign]
        with pytest.raises(WriteError) as failed:
            run(job, card)
    assert "do not use the card" in failed.value.hint


def test_a_failed_proof_takes_the_commit_back(tmp_path: Path, card: MemoryCard) -> None:
    def wrong(disk: ReadAt) -> None:
        assert disk.size_bytes == CARD_BYTES
        raise WriteError(
            "/dev/card: cmdline.txt differs from what was written", "take another card"
        )

    with job_of(tmp_path, 12 * MIB, [], Patch()) as job:
        bad = CardJob(device=job.device, source=job.source, write_set=job.write_set, prove=wrong)
        with pytest.raises(WriteError, match=r"cmdline\.txt"):
            run(bad, card)
    assert not any(card.store[:CHUNK_BYTES])


@pytest.mark.parametrize("stage", [s for s in Stage if s not in (Stage.CLAIM, Stage.DONE)])
def test_cancelled_in_any_state_the_first_chunk_is_zero(
    tmp_path: Path, card: MemoryCard, stage: Stage
) -> None:
    class Impatient(Watch):
        def enter(self, stage_now: Stage) -> None:
            if stage_now == stage:
                self.cancelled.set()
            super().enter(stage_now)

    with job_of(tmp_path, 12 * MIB, [Extent(0, 12 * MIB)], Patch()) as job:
        watch = Impatient()
        with pytest.raises(Cancelled):
            write_card(job, CardOptions(), Totals(card), watch)
    if stage == Stage.INVALIDATE:
        assert set(card.store) == {OLD}
    else:
        assert not any(card.store[:CHUNK_BYTES])


def test_reuse_leaves_equal_pieces(tmp_path: Path, card: MemoryCard) -> None:
    with job_of(tmp_path, 20 * MIB, [Extent(0, 20 * MIB)], Patch()) as job:
        first = run(job, card)
        card.store[9 * MIB] ^= 1
        card.log.clear()
        second = run(job, card, CardOptions(reuse=True))
        assert bytes(card.store[: 20 * MIB]) == job.source.read_at(0, 20 * MIB)
    assert first.written_bytes == 20 * MIB
    assert second.written_bytes == 8 * MIB
    assert second.digest == first.digest


def test_the_digest_is_the_content_s(tmp_path: Path, card: MemoryCard) -> None:
    with job_of(tmp_path, 12 * MIB, [], Patch()) as job:
        plain = run(job, card).digest
        assert run(job, card).digest == plain
    with job_of(tmp_path, 12 * MIB, [], PATCH) as job:
        assert run(job, card).digest != plain


def test_eject_only_when_asked(tmp_path: Path, card: MemoryCard) -> None:
    with job_of(tmp_path, 6 * MIB, [], Patch()) as job:
        assert not run(job, card).ejected
        assert not card.ejected
        assert run(job, card, CardOptions(eject=True)).ejected
        assert card.ejected


def test_an_image_that_becomes_shorter_is_the_image_s_fault(
    tmp_path: Path, card: MemoryCard
) -> None:
    with job_of(tmp_path, 12 * MIB, [Extent(0, 12 * MIB)], Patch()) as job:
        (tmp_path / "image").write_bytes(b"short")
        with pytest.raises(Exception, match="was truncated"):
            run(job, card)
    assert set(card.store) == {OLD}


def test_many_jobs_report_in_their_order(tmp_path: Path, card: MemoryCard) -> None:
    with job_of(tmp_path, 6 * MIB, [], Patch()) as job:
        (outcome,) = flash_cards([job], CardOptions())
    assert outcome.stage == Stage.DONE
    assert outcome.report
    assert bytes(card.store[:512]) == (tmp_path / "image").read_bytes()[:512]


class Recorder(SilentReporter):
    """A voice that keeps its warnings, and calls `heard` with each."""

    def __init__(self, heard: Callable[[str], None]) -> None:
        self.heard = heard
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)
        self.heard(text)


def test_who_stops_hears_which_card_is_awaited(
    tmp_path: Path, card: MemoryCard, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck, freed, write = Event(), Event(), card.write

    def stalling(offset_bytes: int, view: memoryview) -> None:
        if offset_bytes == CHUNK_BYTES:
            stuck.set()
            assert freed.wait(30)
        write(offset_bytes, view)

    def heard(text: str) -> None:
        if "waiting" in text:
            freed.set()

    monkeypatch.setattr(card, "write", stalling)
    reporter = Recorder(heard)
    with job_of(tmp_path, 12 * MIB, [Extent(0, 12 * MIB)], Patch()) as job:
        flasher = Flasher(options=CardOptions(), reporter=reporter)
        flasher.start(job)
        assert stuck.wait(30)
        (outcome,) = flasher.stop()
    assert outcome.cancelled
    assert reporter.warnings[1:] == [
        "waiting for /dev/card: pull the reader to stop waiting",
    ]


def test_who_stops_cards_that_answer_hears_of_no_waiting(tmp_path: Path, card: MemoryCard) -> None:
    reporter = Recorder(lambda _text: None)
    with job_of(tmp_path, 12 * MIB, [Extent(0, 12 * MIB)], Patch()) as job:
        flasher = Flasher(options=CardOptions(), reporter=reporter)
        flasher.start(job)
        flasher.stop()
    assert len(reporter.warnings) == 1
    assert card.path == "/dev/card"
