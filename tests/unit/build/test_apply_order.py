"""A card that loses power while it is changed boots as the old node, the new one, or as stock."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from imagebuilder.model import Cluster, User
from imagebuilder.plan.boot_files import MemoryBootFiles
from imagebuilder.plan.generations import detect
from imagebuilder.plan.vendor.boot_config import cmdline_path
from tests.lib.boot_folders import Tree, applied, each_state, put_tree, tree_of
from tests.lib.plan_samples import BUILD_TIME, STOCK, full_node, generations, plain_node

if TYPE_CHECKING:
    from pathlib import Path

    from imagebuilder.model import NodeSettings

FOLDER = "rpi-image/"
INSTALLER = "rpi-image/install"

# As Raspberry Pi Imager leaves a card with its own customisation.
BY_IMAGER = {
    **STOCK["firstrun-bookworm"],
    "firstrun.sh": b"#!/bin/bash\nset +e\necho theirs\nrm -f /boot/firstrun.sh\nexit 0\n",
    "cmdline.txt": STOCK["firstrun-bookworm"]["cmdline.txt"].strip()
    + b" systemd.run=/boot/firstrun.sh systemd.run_success_action=reboot"
    b" systemd.unit=kernel-command-line.target",
}
CARDS = {**STOCK, "firstrun-imager": BY_IMAGER}
OTHER = replace(
    plain_node(),
    hostname="pi-17",
    cluster=Cluster(enabled=False),
    user=User("pupil", full_node().user.password_hash),  # type: ignore[union-attr]
)


def settings_of(tree: Tree) -> Tree:
    """Return what the installer and the node service read."""
    apart = (f"{FOLDER}stock/", f"{FOLDER}made.json")
    unfinished = ".rpi-new"
    return {
        path: data
        for path, data in tree.items()
        if path.startswith(FOLDER) and not path.startswith(apart) and not path.endswith(unfinished)
    }


def vendors(tree: Tree) -> Tree:
    return {
        path: data
        for path, data in tree.items()
        if not path.startswith(FOLDER) and not path.endswith(".rpi-new")
    }


def line_of(tree: Tree) -> bytes:
    """Return the command line that the firmware would use."""
    path = cmdline_path(MemoryBootFiles(tree), plain_node().machines)
    return tree[path].split(b"\n")[0]


def without_start(line: bytes) -> bytes:
    """Return a command line without the words that start our installer, by rules of its own."""
    line = re.sub(rb' init=/bin/sh -c "[^"]*rpi-image/install[^"]*"', b"", line)
    return re.sub(rb" systemd\.(run|run_success_action|unit)=\S+", b"", line)


def judge(state: Tree, old: Tree, new: Tree) -> None:
    """Fail if a Pi with this card would be half of the old node and half of the new one."""
    if INSTALLER in state:
        assert settings_of(state) in (settings_of(old), settings_of(new))
    for path, data in vendors(state).items():
        if path != "cmdline.txt":
            assert data in {old.get(path), new.get(path)}, path
    assert vendors(old).keys() & vendors(new).keys() <= vendors(state).keys()
    assert line_of(state) in {line_of(old), without_start(line_of(old)), line_of(new)}
    if line_of(state) == line_of(new) != line_of(old):
        assert settings_of(state) == settings_of(new)
        assert vendors(new).items() <= vendors(state).items()
    assert detect(generations(), MemoryBootFiles(state)) == detect(
        generations(), MemoryBootFiles(old)
    )


def cut_everywhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, card: Tree, node: NodeSettings
) -> None:
    """Apply a node, judge each state on the way, and continue from each state."""
    folder = put_tree(tmp_path / "card", card)
    with each_state(monkeypatch, folder) as states:
        applied(folder, node)
    new = tree_of(folder)
    assert len(states) > 40
    # of the states that differ in an unfinished file only, the last one
    complete: list[tuple[Tree, Tree]] = []
    for state in states:
        judge(state, card, new)
        finished = {path: data for path, data in state.items() if not path.endswith(".rpi-new")}
        if complete and complete[-1][0] == finished:
            complete.pop()
        complete.append((finished, state))
    for number, (_, state) in enumerate(complete):
        again = put_tree(tmp_path / f"again-{number}", state)
        applied(again, node)
        assert tree_of(again) == new
        shutil.rmtree(again)


@pytest.mark.parametrize("name", CARDS)
def test_a_fresh_card_is_stock_or_the_node_at_any_moment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    cut_everywhere(monkeypatch, tmp_path, dict(CARDS[name]), full_node())


@pytest.mark.parametrize("name", CARDS)
def test_a_card_of_a_node_is_that_node_or_the_other_at_any_moment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    folder = put_tree(tmp_path / "first", CARDS[name])
    applied(folder, full_node(), BUILD_TIME - 999)
    cut_everywhere(monkeypatch, tmp_path, tree_of(folder), OTHER)


@pytest.mark.parametrize("name", CARDS)
def test_the_command_line_is_the_last_file_that_starts_anything(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    folder = put_tree(tmp_path / "card", CARDS[name])
    with each_state(monkeypatch, folder) as states:
        applied(folder, full_node())
    before, after = line_of(dict(CARDS[name])), line_of(tree_of(folder))
    for state in states:
        if line_of(state) == after != before:
            assert settings_of(state) == settings_of(tree_of(folder))
