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
LIST = "rpi-image/next.list"

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


def read_by_pi(tree: Tree) -> Tree:
    """Return what the vendor's programs, the installer and the node service read."""
    apart = (f"{FOLDER}stock/", f"{FOLDER}made.json", f"{FOLDER}next")
    return {
        path: data
        for path, data in tree.items()
        if not path.startswith(apart) and not path.endswith(".rpi-new")
    }


def starts_installer(tree: Tree) -> bool:
    """Return whether something of the vendor runs our installer, by rules of its own."""
    line = tree[cmdline_path(MemoryBootFiles(tree), plain_node().machines)].split(b"\n")[0]
    started = INSTALLER.encode()
    scripts = [tree.get("user-data", b""), tree.get("device-init.yaml", b"")]
    if b"systemd.run=/boot/firstrun.sh" in line:
        scripts.append(tree["firstrun.sh"])
    elif re.search(rb' init=/bin/sh -c "[^"]*rpi-image/install', line):
        return INSTALLER in tree
    return INSTALLER in tree and any(started in script for script in scripts)


def finished_by_pi(tree: Tree) -> Tree:
    """Return the card after the installer has carried out the list, by rules of its own."""
    start, *lines, end = tree[LIST].decode().splitlines()
    assert (start.split()[0], end) == ("from", "end")
    made = dict(tree)
    for line in lines:
        verb, _, path = line.partition(" ")
        if verb == "write":
            made[path] = tree[start.split()[1] + path]
        else:
            assert verb == "remove"
            made.pop(path, None)
    return {path: data for path, data in made.items() if path != LIST}


def judge(state: Tree, old: Tree, new: Tree) -> str:
    """Return which card it is for a Pi; fail if it is half of one and half of another."""
    if LIST not in state:
        read = read_by_pi(state)
        assert read in (read_by_pi(old), read_by_pi(new))
        return "old" if read == read_by_pi(old) else "new"
    assert read_by_pi(finished_by_pi(state)) == read_by_pi(new)
    if starts_installer(state):
        return "new"
    # Nothing reads our folder, nor a firstrun.sh that nothing names.
    unread = (FOLDER, *({"firstrun.sh"} - old.keys()))
    theirs = {path: d for path, d in read_by_pi(state).items() if not path.startswith(unread)}
    assert theirs == {path: d for path, d in read_by_pi(old).items() if not path.startswith(FOLDER)}
    return "old"


def cut_everywhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, card: Tree, node: NodeSettings
) -> None:
    """Apply a node, judge each state on the way, and continue from every third."""
    folder = put_tree(tmp_path / "card", card)
    with each_state(monkeypatch, folder) as states:
        applied(folder, node)
    new = tree_of(folder)
    assert len(states) > 40
    order = [judge(state, card, new) for state in states]
    assert order == sorted(order, key=["old", "new"].index)
    assert set(order) == {"old", "new"}
    generation = detect(generations(), MemoryBootFiles(card))
    # of the states that differ in an unfinished file only, the last one
    complete: list[tuple[Tree, Tree]] = []
    for state in states:
        assert detect(generations(), MemoryBootFiles(state)) == generation
        finished = {path: data for path, data in state.items() if not path.endswith(".rpi-new")}
        if complete and complete[-1][0] == finished:
            complete.pop()
        complete.append((finished, state))
    for number, (_, state) in enumerate(complete[::3]):
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
def test_a_card_that_is_cut_off_between_two_nodes_becomes_a_third(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    """The list of the earlier run counts until that of the next one is complete."""
    first = put_tree(tmp_path / "first", CARDS[name])
    with each_state(monkeypatch, first) as states:
        applied(first, full_node())
    second = tree_of(first)
    cut = [state for state in states if LIST in state]
    folder = put_tree(tmp_path / "card", cut[len(cut) // 2])
    with each_state(monkeypatch, folder) as states:
        applied(folder, OTHER)
    third = read_by_pi(tree_of(folder))
    assert not [path for path in tree_of(folder) if path.startswith(f"{FOLDER}next")]
    order = []
    for state in states:
        last = read_by_pi(finished_by_pi(state) if LIST in state else state)
        assert last in (read_by_pi(second), third)
        order.append(last == third)
    assert order == sorted(order)
