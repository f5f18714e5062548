"""`flash --outdated` on loop devices: only cards that are not as in the file, each once."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.device.cards import (
    BOOT_START,
    CARD_BYTES,
    MIB,
    card,
    flash,
    garbage_file,
    loop,
    rpi_image,
)
from tests.device.test_flash import SAFE
from tests.device.test_flash_station import only_these_loops, queue
from tests.lib.tools import run

if TYPE_CHECKING:
    from pathlib import Path


def states(classroom: Path) -> list[str]:
    found = json.loads(rpi_image("status", classroom, "--json", "--timeout", "0.2").stdout)
    return [node["card"] for node in found["nodes"]]


def hostname(device: str) -> str:
    text = run("mtype", "-i", f"{device}@@{BOOT_START * MIB}", "::occidentalis.txt")
    return next(line for line in text.splitlines() if line.startswith("hostname="))


@pytest.mark.root
def test_only_outdated_cards_are_written_and_each_stays_its_node(
    tmp_path: Path, classroom: Path
) -> None:
    with ExitStack() as stack:
        cards = []
        for name in ("pi-01", "pi-02"):
            (tmp_path / name).mkdir()
            cards.append(stack.enter_context(card(tmp_path / name, CARD_BYTES)))
        assert flash(*cards, "-c", classroom, *SAFE).returncode == 0
        assert states(classroom) == ["current", "current", "never"]
        classroom.write_text(classroom.read_text().replace("pi-02}", "pi-02, owner: Ada}"))
        assert states(classroom) == ["current", "outdated", "never"]
        words = ("--outdated", "-c", classroom, *SAFE)
        refused = flash(cards[0], *words)  # the card of pi-01 is current, and not overwritten
        assert refused.returncode == 6
        assert "this card is pi-01" in refused.stderr
        done = flash(cards[1], *words, "--json")
        assert done.returncode == 0, done.stderr
        assert f"{cards[1]} was pi-02: owner: not set → Ada" in done.stderr
        (report,) = json.loads(done.stdout)["cards"]
        assert (report["node"], hostname(cards[1])) == ("pi-02", "hostname=pi-02")
        assert report["written_bytes"] <= 12 * MIB  # the same base is not written again
        assert states(classroom) == ["current", "current", "never"]
        nothing = flash(cards[1], *words, "--nodes", "pi-01,pi-02")
        assert (nothing.returncode, "every card is current" in nothing.stderr) == (0, True)


@pytest.mark.root
def test_the_station_takes_each_card_for_what_it_was(
    tmp_path: Path, classroom: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = only_these_loops(tmp_path, monkeypatch)
    text = classroom.read_text()
    file = garbage_file(tmp_path / "card.raw", CARD_BYTES)
    with loop(file) as device:
        mine.write_text(f"{device}\n")
        first = flash(device, "-c", classroom, "--node", "pi-02", *SAFE)
        assert first.returncode == 0, first.stderr
    mine.write_text("")
    changed = text.replace("pi-02}", "pi-02, owner: Ada}")
    classroom.write_text(changed.replace("pi-01}", "pi-01, owner: Bob}"))
    with queue(classroom, "--outdated", "--nodes", "pi-01,pi-02") as station:
        station.wait_for("2 nodes to write")
        with loop(file) as device:
            mine.write_text(f"{device}\n")
            station.wait_for(f"{device} was pi-02: owner: not set → Ada")
            station.wait_for(f"{device} is done: .* label 2 of 3, pi-02")
            assert hostname(device) == "hostname=pi-02"
