"""`apply --queue`: mounted cards that come and go, each of which becomes the next node."""

from __future__ import annotations

import errno
import io
import itertools
import os
import shutil
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from imagebuilder.build.boot_folder import may_be_boot_partition
from imagebuilder.cli.console import Console
from imagebuilder.cli.main import run as rpi_image
from imagebuilder.cli.session import Session
from imagebuilder.devices.volumes import Volume, VolumeWatch
from imagebuilder.errors import InputError, RefusedError
from imagebuilder.flash.apply_queue import ApplyQueue, FolderOutcome
from imagebuilder.flash.apply_run import ApplyOptions
from imagebuilder.settings.flags import NodeFlags
from tests.lib.boot_folders import Tree, put_tree, tree_of
from tests.lib.plan_samples import STOCK

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ROOM = """\
name: class-3b
profile: armv7
allow: [no-login]
image: hypriotos-1.12.3
wifi: {country: FR, networks: [{ssid: shack, passphrase: correct horse battery}]}
nodes:
  - {hostname: pi-01, owner: Zoë}
  - {hostname: pi-02}
"""
CARD = STOCK["firstrun-bookworm"]


@dataclass
class Desk:
    """A reader at one folder; each move puts a card in, or does something else, once."""

    folder: Path
    moves: deque[Callable[[], None]]
    out: io.StringIO = field(default_factory=io.StringIO)
    err: io.StringIO = field(default_factory=io.StringIO)
    done: list[tuple[str, Tree]] = field(default_factory=list)
    ejects: bool = True
    others: tuple[Volume, ...] = ()
    _looks: Any = field(default_factory=itertools.count)

    @property
    def card(self) -> Path:
        return self.folder / "bootfs"

    def insert(self, files: Tree | None = None) -> None:
        shutil.rmtree(self.card, ignore_errors=True)
        put_tree(self.card, CARD if files is None else files)

    def remove(self) -> None:
        shutil.rmtree(self.card)

    def volumes(self) -> tuple[Volume, ...]:
        """Return what is mounted; every third time a hand has moved."""
        if next(self._looks) % 3 == 1:
            assert self.moves, "the queue looks on though every node should have a card"
            self.moves.popleft()()
        return (*self.others, *([Volume(self.card)] if self.card.exists() else []))

    def eject(self, volume: Volume) -> bool:
        self.done.append((volume.folder.name, tree_of(volume.folder)))
        if self.ejects:
            shutil.rmtree(volume.folder)
        return self.ejects

    def serve(self, **options: Any) -> tuple[FolderOutcome, ...]:
        """Serve; a second has passed whenever the clock is asked."""
        console = Console(out=self.out, err=self.err)
        ticks = itertools.count()
        found: list[FolderOutcome] = []
        ApplyQueue(
            workspace=Session(console=console, environment={"SOURCE_DATE_EPOCH": "1700000000"}),
            prompter=console,
            flags=NodeFlags(config=self.folder / "room.yml"),
            options=ApplyOptions(queue=True, yes=True, **options),
            finished=found.append,
            watch=VolumeWatch(may_be_boot_partition, self.volumes),
            eject=self.eject,
            clock=lambda: float(next(ticks)),
        ).run()
        return tuple(found)

    @property
    def ledger(self) -> dict[str, dict[str, Any]]:
        cards = yaml.safe_load((self.folder / "room.cards.yml").read_text())["cards"]
        return {card["node"]: card for card in cards}


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    (tmp_path / "room.yml").write_text(ROOM, encoding="utf-8")
    return Desk(tmp_path, deque())


def env_of(tree: Tree) -> str:
    return tree["rpi-image/node.env"].decode()


def test_each_card_becomes_the_next_node_and_is_ejected(desk: Desk) -> None:
    desk.moves.extend([desk.insert, desk.insert])
    outcomes = desk.serve()
    assert [(o.job.node, o.report is not None) for o in outcomes] == [
        ("pi-01", True),
        ("pi-02", True),
    ]
    for name, (_, tree) in zip(("pi-01", "pi-02"), desk.done, strict=True):
        assert f"NODE_HOSTNAME='{name}'" in env_of(tree)
        assert b"systemd.run" in tree["cmdline.txt"]
    said = desk.err.getvalue()
    assert "attach label 1 of 2, pi-01 (Zoë)" in said
    assert "attach label 2 of 2, pi-02\n" in said
    assert {name: entry["state"] for name, entry in desk.ledger.items()} == {
        "pi-01": "written",
        "pi-02": "written",
    }
    assert desk.ledger["pi-01"]["device"] == str(desk.card)
    with pytest.raises(RefusedError, match="every node has a card"):
        desk.serve()


def test_a_card_that_stays_in_is_not_taken_twice(desk: Desk) -> None:
    desk.ejects = False
    desk.moves.extend([desk.insert, lambda: None, desk.remove, desk.insert])
    assert [outcome.job.node for outcome in desk.serve()] == ["pi-01", "pi-02"]
    assert "was not ejected: eject it before removing it" in desk.err.getvalue()


def test_what_is_mounted_already_is_left_alone_until_it_is_inserted_again(desk: Desk) -> None:
    desk.insert()
    before = tree_of(desk.card)
    kept: list[Tree] = []
    desk.moves.extend([lambda: kept.append(tree_of(desk.card)), desk.remove, desk.insert])
    desk.moves.append(desk.insert)
    assert len(desk.serve()) == 2
    assert kept == [before]


def test_other_volumes_are_left_alone_without_a_word(desk: Desk, tmp_path: Path) -> None:
    stick = put_tree(tmp_path / "stick", {"notes.txt": b"x"})
    desk.moves.extend([lambda: setattr(desk, "others", (Volume(stick),)), desk.insert, desk.insert])
    assert len(desk.serve()) == 2
    assert "stick" not in desk.err.getvalue()
    assert tree_of(stick) == {"notes.txt": b"x"}


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"cmdline.txt": b"root=/dev/sda1"}, "matches no known generation"),
        ({**STOCK["occidentalis"], "user-data": b""}, "matches several generations"),
    ],
)
def test_a_card_that_cannot_be_taken_does_not_lose_the_node(
    desk: Desk, files: Tree, said: str
) -> None:
    desk.moves.extend([lambda: desk.insert(files), lambda: None, desk.remove])
    desk.moves.extend([desk.insert, desk.insert])
    assert [outcome.job.node for outcome in desk.serve()] == ["pi-01", "pi-02"]
    assert desk.err.getvalue().count(said) == 1


def test_a_read_only_card_is_refused_by_name(desk: Desk) -> None:
    locked = put_tree(desk.folder / "locked", CARD)
    desk.moves.extend(
        [
            lambda: setattr(desk, "others", (Volume(locked, read_only=True),)),
            desk.insert,
            desk.insert,
        ]
    )
    assert len(desk.serve()) == 2
    assert "is read-only" in desk.err.getvalue()
    assert tree_of(locked) == CARD


def test_a_card_that_fails_while_it_is_written_does_not_lose_the_node(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, done = os.fsync, itertools.count()

    def failing(descriptor: int) -> None:
        if next(done) == 12:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", failing)
    desk.moves.extend([desk.insert, desk.remove, desk.insert, desk.insert])
    outcomes = desk.serve()
    failed = [outcome.job.node for outcome in outcomes if outcome.error]
    assert len(failed) == 1
    assert f"insert another card for {failed[0]}" in desk.err.getvalue()
    assert {o.job.node for o in outcomes if o.report} == {"pi-01", "pi-02"}
    assert {entry["state"] for entry in desk.ledger.values()} == {"written"}


def test_a_card_of_the_ledger_is_not_made_another_node(desk: Desk) -> None:
    desk.moves.extend([desk.insert, lambda: desk.insert(desk.done[0][1]), desk.remove, desk.insert])
    assert [outcome.job.node for outcome in desk.serve()] == ["pi-01", "pi-02"]
    assert "this card was just written for pi-01" in desk.err.getvalue()
    again = desk.done[0][1]
    desk.moves.extend([lambda: desk.insert(again), lambda: desk.insert(desk.done[1][1])])
    assert len(desk.serve(again=True)) == 2


def test_an_interrupt_leaves_the_ledger_right(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def pulled(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("imagebuilder.flash.apply_queue.apply_plan", pulled)
    desk.moves.append(desk.insert)
    with pytest.raises(KeyboardInterrupt):
        desk.serve()
    assert desk.ledger["pi-01"]["state"] == "failed"
    assert "may be unfinished" in desk.err.getvalue()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-c", "room.yml", "--dry-run"], "--queue takes no folder, --dry-run"),
        (["bootfs", "-c", "room.yml"], "--queue takes no folder, --dry-run"),
        (["--board", "pi4", "--hostname", "pi-09"], "--queue needs a roster"),
    ],
)
def test_flags_that_exclude_the_queue_are_refused(
    desk: Desk,
    words: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(desk.folder)
    assert rpi_image(["apply", *words, "--queue", "--yes"]) == 2
    assert said in capsys.readouterr().err


def test_outdated_writes_only_what_differs_and_a_card_stays_its_node(desk: Desk) -> None:
    desk.moves.extend([desk.insert, desk.insert])
    desk.serve()
    cards = dict(zip(("pi-01", "pi-02"), (tree for _, tree in desk.done), strict=True))
    room = desk.folder / "room.yml"
    desk.done.clear()
    assert desk.serve(outdated=True) == ()
    assert "every card is current" in desk.err.getvalue()
    room.write_text(room.read_text().replace("{hostname: pi-02}", "{hostname: pi-02, owner: Bo}"))
    desk.moves.extend([lambda: desk.insert(cards["pi-01"]), lambda: desk.insert(cards["pi-02"])])
    outcomes = desk.serve(outdated=True)
    assert [outcome.job.node for outcome in outcomes] == ["pi-02"]
    said = desk.err.getvalue()
    assert "this card is pi-01" in said
    assert "was pi-02: owner: not set → Bo" in said
    assert rpi_image(["apply", "--outdated", "-c", str(room), "--node", "pi-01"]) == 2
    with pytest.raises(InputError, match="--again and --outdated"):
        desk.serve(outdated=True, again=True)
