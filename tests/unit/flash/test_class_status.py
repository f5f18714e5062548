"""One answer for each node: its card from the ledger, where it is from the shack, what to do."""

from __future__ import annotations

import json
import platform
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from imagebuilder.build.config_hash import ConfigHash
from imagebuilder.build.wanted import WantedSettings, as_recorded
from imagebuilder.cli.main import run as rpi_image
from imagebuilder.flash.records.card_state import CardState, card_state
from imagebuilder.flash.records.class_status import ClassStatus, merge_status
from imagebuilder.flash.records.ledger import (
    FAILED,
    WRITING,
    WRITTEN,
    Ledger,
    LedgerEntry,
    render_ledger,
)
from imagebuilder.shack.node_progress import NodeProgress
from imagebuilder.shack.observe import Observation
from imagebuilder.shack.status import ClusterState, NodeStatus, StatusNote
from tests.lib.boot_folders import put_tree
from tests.lib.classroom_samples import make_classroom, node
from tests.lib.plan_samples import STOCK

CLASS = make_classroom(Path("/class"))
WANTED = WantedSettings().of(CLASS.nodes[0])
ENTRY = LedgerEntry(node="pi-01", state=WRITTEN, settings=as_recorded(WANTED), config_hash="aa")
OLD = replace(ENTRY, settings="")
RUNNING = replace(ENTRY, state=WRITING, by="elsewhere:1")
DEAD = replace(ENTRY, state=WRITING, by=f"{platform.node()}:nobody")
SAME, OTHER = ConfigHash("aa", exact=True), ConfigHash("bb", exact=True)
UNSURE = ConfigHash("bb", exact=False)
STATES: dict[str, tuple[LedgerEntry | None, ConfigHash | None, str]] = {
    "no entry": (None, None, "never"),
    "written": (ENTRY, None, "current"),
    "written, the base has changed nothing": (ENTRY, OTHER, "current"),
    "failed": (replace(ENTRY, state=FAILED, error="worn"), None, "failed"),
    "being written": (RUNNING, None, "unknown"),
    "its program was killed": (DEAD, None, "failed"),
    "earlier version, equal": (OLD, SAME, "current"),
    "earlier version, other": (OLD, OTHER, "outdated"),
    "earlier version, no image": (OLD, UNSURE, "unknown"),
    "earlier version, not planned": (OLD, None, "unknown"),
    "a state that we do not know": (replace(ENTRY, state="lent"), None, "current"),
}


@pytest.mark.parametrize("name", STATES)
def test_the_state_of_a_card(name: str) -> None:
    entry, planned, state = STATES[name]
    if name.startswith("a state"):
        state = "unknown"
    assert card_state(entry, WANTED, planned).state == state


@pytest.mark.parametrize("text", ["[]", "{", "7", '{"a": 1}', "[" * 5000])
def test_settings_that_someone_edited_count_as_not_recorded(text: str) -> None:
    assert dict(replace(ENTRY, settings=text).recorded) == {}
    assert card_state(replace(ENTRY, settings=text), WANTED).state == "unknown"


def test_an_outdated_card_names_its_settings() -> None:
    after = WantedSettings().of(node(1, owner="Ada", seat="B2", timezone="UTC", locale="fr_FR"))
    found = card_state(ENTRY, after)
    assert found.state == "outdated"
    assert found.detail == "locale, owner, 2 more"
    assert ("seat", "1", "B2") in [(c.setting, c.before, c.after) for c in found.changes]


def overview(*rows: NodeStatus, answered: bool = True, **cards: Any) -> ClassStatus:
    states = {
        n.hostname: CardState(state=cards.get(n.hostname.replace("-", ""), "current"), wanted="")
        for n in CLASS.nodes
    }
    nodes = merge_status(CLASS, Path("my class.yml"), states, rows, answered=answered)
    return ClassStatus(nodes, Observation(ClusterState("x", ()) if answered else None, rows))


def row(name: str, state: Any) -> NodeStatus:
    return NodeStatus(name, (StatusNote(state),))


JOINED = tuple(row(f"pi-0{n}", "joined") for n in (1, 2, 3))


def test_what_to_do_next() -> None:
    rows = (row("pi-01", "joined"), row("pi-02", "stale-address"), row("guest", "unknown"))
    first, second, third, guest = overview(*rows, pi01="outdated").nodes
    assert (first.there, first.next) == (
        "joined", "rpi-image flash DEVICE -c 'my class.yml' --node pi-01",
    )  # fmt: skip
    assert (second.there, second.next) == (
        "other-address", "rpi-image status 'my class.yml' --card DEVICE",
    )  # fmt: skip
    assert (third.there, guest.there, guest.card) == ("unknown", "unknown", None)


def test_a_node_that_tells_how_far_it_is_is_booting() -> None:
    said = NodeProgress("pulling consul", 40, is_fresh=True)
    first, second, _ = overview(
        replace(row("pi-01", "missing"), progress=said),
        replace(row("pi-02", "missing"), progress=replace(said, is_fresh=False)),
    ).nodes
    assert (first.there, first.detail, first.next) == ("booting", "pulling consul, 40 %", "")
    assert (second.there, second.detail) == ("missing", "pulling consul, 40 %")


def test_everything_is_as_wanted_if_cards_are_current_and_nodes_there() -> None:
    assert overview(*JOINED).as_wanted
    assert overview(*JOINED, row("guest", "unknown")).as_wanted
    assert overview(answered=False).as_wanted
    assert not overview(*JOINED, pi02="never").as_wanted
    assert not overview(*JOINED, pi02="unknown").as_wanted
    assert not overview(*JOINED[:2], row("pi-03", "missing")).as_wanted
    assert not overview(answered=False, pi03="failed").as_wanted


# ---- the command

ROOM = """\
profile: armv7
allow: [no-login]
image: sample
wifi: {country: FR, networks: [{ssid: shack, passphrase: correct horse battery}]}
nodes:
  - {hostname: pi-01, owner: Ada}
  - {hostname: pi-02, owner: Bob}
"""


def status(capsys: pytest.CaptureFixture[str], file: Path, *more: str) -> tuple[int, Any]:
    capsys.readouterr()
    code = rpi_image(["status", str(file), "--json", *more])
    return code, json.loads(capsys.readouterr().out)


def test_a_card_is_current_until_the_file_changes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RPI_IMAGE_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "room.yml"
    file.write_text(ROOM)
    code, found = status(capsys, file, "--check")
    assert (code, [n["card"] for n in found["nodes"]]) == (8, ["never", "never"])
    for name in ("pi-01", "pi-02"):
        card = put_tree(tmp_path / name, STOCK["firstrun-bookworm"])
        assert rpi_image(["apply", str(card), "-c", str(file), "--node", name]) == 0
    code, found = status(capsys, file, "--check")
    assert (code, [n["card"] for n in found["nodes"]]) == (0, ["current", "current"])
    file.write_text(ROOM.replace("Bob", "Eve").replace("battery", "staple"))
    code, found = status(capsys, file, "--check")
    assert code == 8
    assert [n["card"] for n in found["nodes"]] == ["outdated", "outdated"]
    assert [c["setting"] for c in found["nodes"][1]["changes"]] == ["owner", "wifi.key.1"]
    assert "horse" not in json.dumps(found) + file.with_suffix(".cards.yml").read_text()
    assert status(capsys, file)[0] == 0
    assert not (tmp_path / "cache").exists()


def test_diff_names_the_settings_of_a_node_or_a_card(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RPI_IMAGE_CACHE", str(tmp_path / "cache"))
    file, card = tmp_path / "room.yml", put_tree(tmp_path / "card", STOCK["firstrun-bookworm"])
    file.write_text(ROOM)
    assert rpi_image(["apply", str(card), "-c", str(file), "--node", "pi-02"]) == 0
    file.write_text(ROOM.replace("Bob", "Eve").replace("battery", "staple"))
    for words in (["--node", "pi-02"], ["--card", str(card)]):
        capsys.readouterr()
        assert rpi_image(["diff", str(file), *words, "-v"]) == 0
        said = capsys.readouterr()
        rows = [line.split() for line in said.out.splitlines()[1:]]
        assert rows == [["owner", "Bob", "Eve"], ["wifi.key.1", "(secret)", "(secret)"]]
        assert "pi-02: outdated" in said.err
        assert rpi_image(["diff", str(file), *words, "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert [c["setting"] for c in found["changes"]] == ["owner", "wifi.key.1"]
        assert found["history"][0]["state"] == "written"


def test_diff_of_a_card_that_the_ledger_does_not_know(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, card = tmp_path / "room.yml", put_tree(tmp_path / "card", STOCK["firstrun-bookworm"])
    file.write_text(ROOM)
    assert rpi_image(["diff", str(file), "--card", str(card)]) == 5
    assert rpi_image(["diff", str(file), "--node", "pi-09"]) == 2
    assert rpi_image(["diff", str(file), "--node", "pi-01", "--card", str(card)]) == 2
    assert rpi_image(["apply", str(card), "-c", str(file), "--node", "pi-02"]) == 0
    file.with_suffix(".cards.yml").unlink()
    capsys.readouterr()
    assert rpi_image(["diff", str(file), "--card", str(card)]) == 0
    assert "pi-02: unknown (the ledger does not know this card)" in capsys.readouterr().err


def test_a_thousand_nodes_take_few_seconds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "room.yml"
    file.write_text(ROOM.replace("{hostname: pi-01, owner: Ada}", "hostname: pi-[0003-1000]"))
    names = [f"pi-{n:04}" for n in range(3, 1001)]
    text = render_ledger([replace(ENTRY, node=name) for name in names])
    Ledger(file.with_suffix(".cards.yml")).path.write_text(text)
    start = time.process_time()
    _, found = status(capsys, file)
    assert found["cards"] == {"outdated": 998, "never": 1}
    assert time.process_time() - start < 3
