"""The ledger: who went where, once, whoever asks at the same time."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import yaml

from imagebuilder.errors import InputError, RefusedError, WriteError
from imagebuilder.flash.records.ledger import (
    FAILED,
    WRITING,
    WRITTEN,
    Ledger,
    LedgerEntry,
    NodeTakenError,
    is_alive,
)

if TYPE_CHECKING:
    from pathlib import Path

ENTRY = LedgerEntry(
    node="pi-01",
    state="",
    device="/dev/sdb",
    slot="usb-1-2",
    card="Generic, 31.9 GB",
    config_hash="ab" * 32,
    started="2026-11-22T10:00:00+01:00",
)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "class.cards.yml")


def dead_pid() -> int:
    with subprocess.Popen(["true"]) as gone:
        pass
    return gone.pid


def test_a_new_ledger_knows_nobody(ledger: Ledger) -> None:
    assert ledger.entries() == ()
    assert ledger.done() == frozenset()
    assert not ledger.path.exists()


def test_a_folder_or_a_file_that_cannot_be_read_is_no_ledger(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger.path.mkdir()
    for ask in (ledger.entries, lambda: ledger.claim(ENTRY)):
        with pytest.raises(InputError, match="is not a ledger"):
            ask()

    def locked(*_: object, **__: object) -> str:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("pathlib.Path.read_text", locked)  # root may read everything
    with pytest.raises(InputError, match="Permission denied"):
        ledger.entries()


def test_an_outdated_card_is_written_again_once(ledger: Ledger) -> None:
    """Two programs have found the same card outdated: the second one comes too late."""
    old = replace(ENTRY, state=WRITTEN, finished="last week")
    ledger.settle(old)
    assert ledger.last("pi-01", outdated=old) == old
    assert ledger.claim(ENTRY, outdated=old) == old
    with pytest.raises(NodeTakenError):
        ledger.claim(ENTRY, outdated=old)
    ledger.settle(replace(old, finished="today"))
    with pytest.raises(NodeTakenError, match="today"):
        ledger.claim(ENTRY, outdated=old)


def test_a_written_node_is_done_and_refused(ledger: Ledger) -> None:
    ledger.claim(ENTRY)
    ledger.settle(replace(ENTRY, state=WRITTEN, digest="cd" * 32, finished="noon"))
    assert ledger.done() == {"pi-01"}
    with pytest.raises(NodeTakenError, match=r"pi-01 was written to Generic, 31.9 GB on noon"):
        ledger.claim(ENTRY)
    ledger.claim(ENTRY, again=True)
    assert ledger.entries()[0].state == WRITING


def test_it_is_for_people_to_read(ledger: Ledger) -> None:
    ledger.settle(replace(ENTRY, state=WRITTEN, seconds=12.5))
    text = ledger.path.read_text()
    assert text.startswith("# ")
    assert yaml.safe_load(text)["cards"] == [
        {
            "node": "pi-01",
            "state": "written",
            "device": "/dev/sdb",
            "slot": "usb-1-2",
            "card": "Generic, 31.9 GB",
            "config_hash": "ab" * 32,
            "seconds": 12.5,
            "started": "2026-11-22T10:00:00+01:00",
        }
    ]


def test_a_failed_node_is_the_next_one_again(ledger: Ledger) -> None:
    ledger.claim(ENTRY)
    ledger.settle(replace(ENTRY, state=FAILED, error="worn out"))
    assert ledger.done() == frozenset()
    ledger.claim(ENTRY)


def test_one_that_is_being_written_is_refused_even_again(ledger: Ledger) -> None:
    ledger.claim(ENTRY)
    assert ledger.done() == {"pi-01"}
    with pytest.raises(RefusedError, match="is being written to /dev/sdb"):
        ledger.claim(ENTRY, again=True)


def test_a_program_that_died_holds_nothing(ledger: Ledger) -> None:
    by = f"{socket.gethostname()}:{dead_pid()}"
    ledger.settle(replace(ENTRY, state=WRITING, by=by))
    assert ledger.done() == frozenset()
    ledger.claim(ENTRY)


@pytest.mark.parametrize(
    ("state", "by", "alive"),
    [
        (WRITTEN, "{host}:{pid}", False),
        (WRITING, "{host}:{pid}", True),
        (WRITING, "{host}:1", True),
        (WRITING, "another-machine:17", True),
        (WRITING, "", False),
    ],
)
def test_who_still_runs(state: str, by: str, alive: bool) -> None:
    by = by.format(host=socket.gethostname(), pid=os.getpid())
    assert is_alive(replace(ENTRY, state=state, by=by)) is alive


def test_who_lost_the_card_is_noted_unless_it_has_another_by_now(ledger: Ledger) -> None:
    one, two = replace(ENTRY, state=WRITTEN), replace(ENTRY, node="pi-02", state=WRITTEN)
    ledger.settle(one)
    ledger.settle(two, one, "its card became pi-02")
    assert ledger.entries() == (replace(one, state=FAILED, error="its card became pi-02"), two)
    ledger.settle(replace(one, device="/dev/sdz"))
    ledger.settle(two, one, "its card became pi-02")
    assert ledger.done() == {"pi-01", "pi-02"}


def test_many_at_once_lose_nothing(ledger: Ledger) -> None:
    def work(number: int) -> None:
        mine = replace(ENTRY, node=f"pi-{number:02}")
        own = Ledger(ledger.path)
        own.claim(mine)
        own.settle(replace(mine, state=WRITTEN))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ledger.done()) == 12
    assert list(ledger.path.parent.glob("*.part")) == []


def test_only_one_of_two_gets_a_node(ledger: Ledger) -> None:
    refused: list[RefusedError] = []

    def work() -> None:
        try:
            Ledger(ledger.path).claim(ENTRY)
        except RefusedError as error:
            refused.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 3


@pytest.mark.parametrize(
    "text",
    [
        b"cards: 7\n",
        b"other: []\n",
        b"- x\n",
        b"cards: [{}]\n",
        b"a: [\n",
        b"cards: [{node: pi-01, state: written, seconds: soon}]\n",
        "cards: [{node: pi-01, state: written, card: Größe}]\n".encode("latin-1"),
    ],
)
def test_another_file_is_left_as_it_is(ledger: Ledger, text: bytes) -> None:
    ledger.path.write_bytes(text)
    with pytest.raises(InputError, match="is not a ledger"):
        ledger.claim(ENTRY)
    assert ledger.path.read_bytes() == text


@pytest.mark.parametrize("text", ["", "# nothing\n", "cards:\n", "cards: []\n"])
def test_every_entry_may_be_deleted(ledger: Ledger, text: str) -> None:
    ledger.path.write_text(text)
    ledger.claim(ENTRY)
    assert ledger.done() == {"pi-01"}


def test_what_a_person_types_is_text(ledger: Ledger) -> None:
    ledger.path.write_text("cards: [{node: 7, state: writing, by: 12, finished: 2026-11-23}]\n")
    (entry,) = ledger.entries()
    assert (entry.node, entry.by, entry.finished) == ("7", "12", "2026-11-23")
    assert not is_alive(entry)


def test_claiming_gives_what_was_there_before(ledger: Ledger) -> None:
    assert ledger.claim(ENTRY) is None
    ledger.settle(replace(ENTRY, state=WRITTEN))
    assert ledger.claim(ENTRY, again=True) == replace(ENTRY, state=WRITTEN)
    ledger.forget("pi-01")
    assert ledger.entries() == ()


def test_keys_of_a_newer_program_are_passed_over(ledger: Ledger) -> None:
    ledger.path.write_text("cards: [{node: pi-01, state: written, colour: red}]\n")
    assert ledger.done() == {"pi-01"}


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match="cannot write"):
        Ledger(tmp_path / "file" / "class.cards.yml").claim(ENTRY)
