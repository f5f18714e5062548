"""The history of cards: every card, who wrote it and when, also after a power failure."""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from imagebuilder.errors import WriteError
from imagebuilder.flash.records.history import (
    MOST_HISTORY_BYTES,
    CardEvent,
    append_event,
    read_history,
)
from imagebuilder.flash.records.ledger import FAILED, WRITTEN, Ledger, LedgerEntry

if TYPE_CHECKING:
    from pathlib import Path

ENTRY = LedgerEntry(
    node="pi-01", state=WRITTEN, card="Generic, 31.9 GB", serial="0x1234", config_hash="ab" * 32,
    finished="2026-11-22T10:00:00+01:00",
)  # fmt: skip


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "class.cards.yml")


def test_every_card_is_kept_although_the_ledger_has_only_the_last(ledger: Ledger) -> None:
    for state, serial in ((WRITTEN, "0x1"), (FAILED, "0x2"), (WRITTEN, "0x3")):
        ledger.claim(ENTRY, again=True)
        ledger.settle(replace(ENTRY, state=state, serial=serial))
    ledger.settle(replace(ENTRY, node="pi-02"))
    assert [(e.state, e.serial) for e in ledger.history("pi-01")] == [
        (WRITTEN, "0x1"), (FAILED, "0x2"), (WRITTEN, "0x3"),
    ]  # fmt: skip
    assert len(ledger.entries()) == 2
    assert len(ledger.history()) == 4
    first = ledger.history()[0]
    assert (first.when, first.config_hash, first.card) == (
        ENTRY.finished, ENTRY.config_hash, ENTRY.card,
    )  # fmt: skip
    assert first.who.endswith(f"@{os.uname().nodename}")


def test_a_node_that_lost_its_card_is_an_event(ledger: Ledger) -> None:
    ledger.settle(ENTRY)
    ledger.settle(replace(ENTRY, node="pi-02"), ENTRY, "its card was overwritten with pi-02")
    assert [(e.node, e.state) for e in ledger.history()] == [
        ("pi-01", WRITTEN), ("pi-01", FAILED), ("pi-02", WRITTEN),
    ]  # fmt: skip


def test_an_attempt_that_wrote_nothing_is_no_event(ledger: Ledger) -> None:
    ledger.settle(ENTRY)
    ledger.restore(ENTRY)
    assert len(ledger.history()) == 1


@pytest.mark.parametrize("cut", range(0, 120, 7))
def test_a_line_cut_off_by_a_power_failure_spoils_only_itself(ledger: Ledger, cut: int) -> None:
    ledger.settle(ENTRY)
    whole = ledger.history_path.read_bytes()
    ledger.history_path.write_bytes(whole + whole[:cut])
    ledger.settle(replace(ENTRY, node="pi-02"))
    assert [e.node for e in ledger.history()] == ["pi-01", "pi-02"]


@pytest.mark.parametrize(
    "line", [b"[]", b"7", b"{", b"{}", b"\xff", b'{"node": []}', b"[" * 9000, b'"' + b"a" * 9000]
)
def test_lines_that_are_not_ours_are_left_out(ledger: Ledger, line: bytes) -> None:
    ledger.history_path.write_bytes(line + b"\n")
    ledger.settle(ENTRY)
    assert [e.node for e in ledger.history()] == ["pi-01"]


def test_only_the_end_of_an_endless_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "history"
    with path.open("wb") as file:
        file.truncate(MOST_HISTORY_BYTES * 1000)
    event = CardEvent(when="now", who="me", node="pi-01", state=WRITTEN)
    append_event(path, event)
    assert read_history(path) == (event,)


def test_a_history_that_cannot_be_written_is_said_and_the_ledger_is_right(ledger: Ledger) -> None:
    ledger.history_path.mkdir()
    with pytest.raises(WriteError, match="jsonl"):
        ledger.settle(ENTRY)
    assert ledger.entries() == (ENTRY,)
    assert ledger.history() == ()


def test_many_programs_lose_no_event(tmp_path: Path) -> None:
    path = tmp_path / "history"

    def write(number: int) -> None:
        for turn in range(20):
            event = CardEvent(when=str(turn), who="me", node=f"pi-{number}", state=WRITTEN)
            append_event(path, event)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read_history(path)) == 120
