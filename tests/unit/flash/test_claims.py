"""The account of a run: whose card is whose, with several at once, over weeks."""

from __future__ import annotations

import errno
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from imagebuilder.cli.console import Console
from imagebuilder.devices.device import Device
from imagebuilder.errors import RefusedError, WriteError
from imagebuilder.flash import claims as account_module
from imagebuilder.flash.claims import CardClaims
from imagebuilder.flash.content import CardContent
from imagebuilder.flash.flasher import CardOutcome
from imagebuilder.flash.records import ledger
from imagebuilder.flash.records.ledger import Ledger, NodeTakenError
from imagebuilder.flash.run import pick_node
from imagebuilder.flash.writer import CardJob, Stage
from imagebuilder.progress import SilentReporter
from tests.lib.reports import REPORT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from imagebuilder.disk.patched import PatchedImage


LAST_WEEK, TODAY = 1_700_000_000, 1_700_600_000


class Diary(SilentReporter):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


@dataclass
class Desk:
    """Cards by the path of their reader; what is on one is (node, time it was built)."""

    ledger: Ledger
    cards: dict[str, tuple[str, int]] = field(default_factory=dict)

    def claims(self, epoch: int, *, again: bool = True) -> CardClaims:
        return CardClaims(self.ledger, Console(), again=again, epoch=epoch)

    def device(self, path: str) -> Device:
        return Device(path=path, major_minor=path, size_bytes=1)

    def content(self, node: str) -> CardContent:
        source = cast("PatchedImage", None)
        return CardContent(source=source, write_set=(), files={}, node=node, config_hash=node)

    def begin(self, claims: CardClaims, node: str, path: str) -> CardJob:
        content, device = self.content(node), self.device(path)
        claims.begin(content, device)
        source = content.source
        return CardJob(device=device, source=source, write_set=(), prove=print, node=node)

    def end(self, claims: CardClaims, job: CardJob, epoch: int) -> None:
        self.cards[job.device.path] = (job.node, epoch)
        claims.end(CardOutcome(job=job, stage=Stage.DONE, report=REPORT))

    def write(self, claims: CardClaims, node: str, path: str, epoch: int) -> None:
        self.end(claims, self.begin(claims, node, path), epoch)

    def states(self) -> dict[str, str]:
        return {entry.node: entry.state for entry in self.ledger.entries()}


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    made = Desk(Ledger(tmp_path / "class.cards.yml"))

    @contextmanager
    def opened(path: Path) -> Iterator[tuple[None, str]]:
        yield None, str(path)

    def read(path: str) -> Any:
        node, built = made.cards.get(path, ("", 0))
        return SimpleNamespace(node={"RPI_IMAGE_HASH": node, "RPI_IMAGE_BUILT": str(built)})

    monkeypatch.setattr(account_module, "open_medium", opened)
    monkeypatch.setattr(account_module, "identify", read)
    return made


def test_last_week_s_cards_serve_again_in_any_order(desk: Desk) -> None:
    """The configuration has not changed: an old card of pi-01 is not the one of a minute ago."""
    first = desk.claims(LAST_WEEK)
    desk.write(first, "pi-01", "a", LAST_WEEK)
    desk.write(first, "pi-02", "b", LAST_WEEK)
    second = desk.claims(TODAY)
    desk.write(second, "pi-01", "b", TODAY)
    desk.write(second, "pi-02", "a", TODAY)
    assert desk.states() == {"pi-01": "written", "pi-02": "written"}


def test_a_card_of_this_run_is_not_overwritten_by_it(desk: Desk) -> None:
    claims = desk.claims(TODAY)
    desk.write(claims, "pi-01", "a", TODAY)
    with pytest.raises(RefusedError, match="was just written for pi-01"):
        desk.begin(claims, "pi-02", "a")


def test_another_node_s_card_needs_to_be_told(desk: Desk) -> None:
    desk.write(desk.claims(LAST_WEEK), "pi-01", "a", LAST_WEEK)
    with pytest.raises(RefusedError, match="this card is pi-01"):
        desk.begin(desk.claims(TODAY, again=False), "pi-02", "a")
    desk.write(desk.claims(TODAY), "pi-02", "a", TODAY)
    assert desk.states() == {"pi-01": "failed", "pi-02": "written"}


def test_two_cards_swapped_at_once_are_both_written_whoever_ends_first(desk: Desk) -> None:
    first = desk.claims(LAST_WEEK)
    desk.write(first, "pi-01", "a", LAST_WEEK)
    desk.write(first, "pi-02", "b", LAST_WEEK)
    again = desk.claims(TODAY)
    slow, quick = desk.begin(again, "pi-01", "b"), desk.begin(again, "pi-02", "c")
    desk.end(again, quick, TODAY)
    desk.end(again, slow, TODAY)
    assert desk.states() == {"pi-01": "written", "pi-02": "written"}


def test_a_node_whose_old_card_was_taken_is_not_restored(desk: Desk) -> None:
    desk.write(desk.claims(LAST_WEEK), "pi-01", "a", LAST_WEEK)
    again = desk.claims(TODAY)
    mine = desk.begin(again, "pi-01", "x")
    desk.write(again, "pi-02", "a", TODAY)
    busy = RefusedError("x is in use", "")
    again.end(CardOutcome(job=mine, stage=Stage.CLAIM, error=busy))
    assert desk.states() == {"pi-01": "failed", "pi-02": "written"}


def test_untouched_it_is_as_before(desk: Desk) -> None:
    desk.write(desk.claims(LAST_WEEK), "pi-01", "a", LAST_WEEK)
    before = desk.ledger.path.read_text()
    again = desk.claims(TODAY)
    job = desk.begin(again, "pi-01", "x")
    again.end(CardOutcome(job=job, stage=Stage.CLAIM, cancelled=True))
    assert desk.ledger.path.read_text() == before
    desk.begin(again, "pi-02", "y")
    again.take_back()
    assert desk.ledger.path.read_text() == before


def test_untouched_a_node_without_an_entry_gets_none(desk: Desk) -> None:
    claims = desk.claims(TODAY)
    job = desk.begin(claims, "pi-01", "a")
    claims.end(CardOutcome(job=job, stage=Stage.CLAIM, error=RefusedError("a is in use", "")))
    assert desk.states() == {}


def test_taken_back_two_nodes_that_swap_their_cards_keep_them(desk: Desk) -> None:
    first = desk.claims(LAST_WEEK)
    desk.write(first, "pi-01", "a", LAST_WEEK)
    desk.write(first, "pi-02", "b", LAST_WEEK)
    before = desk.ledger.path.read_text()
    again = desk.claims(TODAY)
    desk.begin(again, "pi-01", "b")
    desk.begin(again, "pi-02", "a")
    again.take_back()
    assert desk.ledger.path.read_text() == before


@pytest.mark.parametrize(
    ("named", "path", "warned"), [(True, "b", 1), (True, "a", 0), (False, "b", 0)]
)
def test_a_node_named_on_purpose_gets_a_twin_with_a_warning(
    desk: Desk, *, named: bool, path: str, warned: int
) -> None:
    desk.write(desk.claims(LAST_WEEK), "pi-01", "a", LAST_WEEK)
    diary = Diary()
    claims = CardClaims(desk.ledger, diary, again=not named, named=named, epoch=TODAY)
    claims.check(desk.content("pi-01"), desk.device(path))
    assert len(diary.warnings) == warned
    assert all("pi-01 was written to 0.0 GB on 2" in text for text in diary.warnings)
    assert desk.states() == {"pi-01": "written"}


def test_what_the_ledger_refuses_is_known_before_it_is_claimed(desk: Desk) -> None:
    desk.write(desk.claims(LAST_WEEK), "pi-01", "a", LAST_WEEK)
    before = desk.ledger.path.read_text()
    claims = desk.claims(TODAY, again=False)
    for node, path, words in (("pi-02", "a", "this card is pi-01"), ("pi-01", "b", "was written")):
        with pytest.raises(RefusedError, match=words):
            claims.check(desk.content(node), desk.device(path))
    assert desk.ledger.path.read_text() == before


def test_a_full_disk_under_the_ledger_says_what_became_of_the_card(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    claims = desk.claims(TODAY)
    desk.begin(claims, "pi-01", "a")
    monkeypatch.setattr(ledger, "write_file", full)
    with pytest.raises(WriteError, match="No space left") as failed:
        desk.begin(claims, "pi-02", "b")
    assert failed.value.hint == "free some space, or fix its permissions; nothing was written to b"
    claims.take_back()


def test_an_entry_of_an_earlier_version_knows_no_time(desk: Desk) -> None:
    desk.write(desk.claims(LAST_WEEK), "pi-01", "a", LAST_WEEK)
    desk.ledger.settle(replace(desk.ledger.entries()[0], built=""))
    with pytest.raises(RefusedError, match="this card is pi-01"):
        desk.begin(desk.claims(TODAY, again=False), "pi-02", "a")


@pytest.mark.parametrize(
    ("taken", "warnings"),
    [
        (0, []),
        (1, ["skipping pi-1: pi-1 is taken"]),
        (3, ["skipping 3 nodes that other programs took, pi-1 to pi-3"]),
    ],
)
def test_nodes_of_other_programs_are_skipped_in_one_warning(
    taken: int, warnings: list[str], tmp_path: Path
) -> None:
    desk, diary = Desk(Ledger(tmp_path / "room.cards.yml")), Diary()

    def enter(content: CardContent, _device: Device) -> None:
        if int(content.node[-1]) <= taken:
            raise NodeTakenError(f"{content.node} is taken")

    spare: Any = deque(["pi-2", "pi-3", "pi-4"])
    chosen = pick_node(
        desk.device("/dev/sdc"), desk.content("pi-1"), enter, spare=spare,
        compose=lambda node, _device: desk.content(str(node)), reporter=diary,
    )  # fmt: skip
    assert (chosen.node, diary.warnings) == (f"pi-{taken + 1}", warnings)
