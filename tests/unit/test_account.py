"""The account of a run: whose card is whose, with several at once, over weeks."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from imagebuilder import account as account_module
from imagebuilder.account import Account
from imagebuilder.card import CardJob, Stage
from imagebuilder.console import Console
from imagebuilder.errors import RefusedError
from imagebuilder.flash import CardOutcome
from imagebuilder.jobs import Recipe
from imagebuilder.ledger import Ledger
from imagebuilder.model import Device
from tests.unit.reports import REPORT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from imagebuilder.source import Source

LAST_WEEK, TODAY = 1_700_000_000, 1_700_600_000


@dataclass
class Desk:
    """Cards by the path of their reader; what is on one is (node, time it was built)."""

    ledger: Ledger
    cards: dict[str, tuple[str, int]] = field(default_factory=dict)

    def account(self, epoch: int, *, again: bool = True) -> Account:
        return Account(self.ledger, Console(), again=again, epoch=epoch)

    def begin(self, account: Account, node: str, path: str) -> CardJob:
        source = cast("Source", None)
        device = Device(path=path, major_minor=path, size_bytes=1)
        recipe = Recipe(source=source, write_set=(), files={}, node=node, config_hash=node)
        account.begin(recipe, device)
        return CardJob(device=device, source=source, write_set=(), prove=print, node=node)

    def end(self, account: Account, job: CardJob, epoch: int) -> None:
        self.cards[job.device.path] = (job.node, epoch)
        account.end(CardOutcome(job=job, stage=Stage.DONE, report=REPORT))

    def write(self, account: Account, node: str, path: str, epoch: int) -> None:
        self.end(account, self.begin(account, node, path), epoch)

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
    first = desk.account(LAST_WEEK)
    desk.write(first, "pi-01", "a", LAST_WEEK)
    desk.write(first, "pi-02", "b", LAST_WEEK)
    second = desk.account(TODAY)
    desk.write(second, "pi-01", "b", TODAY)
    desk.write(second, "pi-02", "a", TODAY)
    assert desk.states() == {"pi-01": "written", "pi-02": "written"}


def test_a_card_of_this_run_is_not_overwritten_by_it(desk: Desk) -> None:
    account = desk.account(TODAY)
    desk.write(account, "pi-01", "a", TODAY)
    with pytest.raises(RefusedError, match="became pi-01 just now"):
        desk.begin(account, "pi-02", "a")


def test_another_node_s_card_needs_to_be_told(desk: Desk) -> None:
    desk.write(desk.account(LAST_WEEK), "pi-01", "a", LAST_WEEK)
    with pytest.raises(RefusedError, match="is pi-01 already"):
        desk.begin(desk.account(TODAY, again=False), "pi-02", "a")
    desk.write(desk.account(TODAY), "pi-02", "a", TODAY)
    assert desk.states() == {"pi-01": "failed", "pi-02": "written"}


def test_two_cards_swapped_at_once_are_both_written_whoever_ends_first(desk: Desk) -> None:
    first = desk.account(LAST_WEEK)
    desk.write(first, "pi-01", "a", LAST_WEEK)
    desk.write(first, "pi-02", "b", LAST_WEEK)
    again = desk.account(TODAY)
    slow, quick = desk.begin(again, "pi-01", "b"), desk.begin(again, "pi-02", "c")
    desk.end(again, quick, TODAY)
    desk.end(again, slow, TODAY)
    assert desk.states() == {"pi-01": "written", "pi-02": "written"}


def test_a_node_whose_old_card_was_taken_is_not_restored(desk: Desk) -> None:
    desk.write(desk.account(LAST_WEEK), "pi-01", "a", LAST_WEEK)
    again = desk.account(TODAY)
    mine = desk.begin(again, "pi-01", "x")
    desk.write(again, "pi-02", "a", TODAY)
    busy = RefusedError("x is in use", "")
    again.end(CardOutcome(job=mine, stage=Stage.CLAIM, error=busy))
    assert desk.states() == {"pi-01": "failed", "pi-02": "written"}


def test_untouched_it_is_as_before(desk: Desk) -> None:
    desk.write(desk.account(LAST_WEEK), "pi-01", "a", LAST_WEEK)
    before = desk.ledger.path.read_text()
    again = desk.account(TODAY)
    job = desk.begin(again, "pi-01", "x")
    again.end(CardOutcome(job=job, stage=Stage.CLAIM, cancelled=True))
    assert desk.ledger.path.read_text() == before
    desk.begin(again, "pi-02", "y")
    again.take_back()
    assert desk.ledger.path.read_text() == before


def test_an_entry_of_an_earlier_version_knows_no_time(desk: Desk) -> None:
    desk.write(desk.account(LAST_WEEK), "pi-01", "a", LAST_WEEK)
    desk.ledger.settle(replace(desk.ledger.entries()[0], built=""))
    with pytest.raises(RefusedError, match="is pi-01 already"):
        desk.begin(desk.account(TODAY, again=False), "pi-02", "a")
