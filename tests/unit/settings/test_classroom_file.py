"""Faulty parts out, the rest untouched."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagebuilder.settings.classroom_file import FaultyParts, parts_to_remove, without_parts

DATA: dict[str, Any] = {
    "a": {"b": [1, {"c": 2, "d": 3}, 4]},
    "nodes": [{"hostname": "x", "mac": 1}, {"owner": "y"}],
}
TREES = st.recursive(
    st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from("ab"), inner)
)
LOCS = st.lists(st.sampled_from(["a", "b", "hostname", 0, 1]), max_size=4).map(tuple)


@pytest.mark.parametrize(
    ("loc", "left"),
    [
        (("a", "b", 1, "c"), {"b": [1, {"d": 3}, 4]}),
        (("a", "b", 1), {"b": [1, 4]}),
        (("a", "b", 1, "missing"), {"b": [1, 4]}),
        (("a", "b", 9), {}),
        (("a", "x"), None),
    ],
)
def test_what_is_left(loc: tuple[str | int, ...], left: object) -> None:
    before = copy.deepcopy(DATA)
    rest = without_parts(DATA, parts_to_remove(DATA, [loc]))
    assert rest.get("a") == left
    assert rest["nodes"] == DATA["nodes"]
    assert before == DATA


def test_names_are_stood_in_for() -> None:
    locs = [("nodes", 0, "hostname"), ("nodes", 1, "hostname"), ("nodes", 0, "mac")]
    rest = without_parts(DATA, parts_to_remove(DATA, locs))
    assert rest["nodes"] == [{"hostname": "unnamed-0"}, {"owner": "y", "hostname": "unnamed-1"}]


def test_a_fault_of_the_whole_leaves_nothing() -> None:
    assert without_parts(DATA, parts_to_remove(DATA, [()])) is None
    assert without_parts(DATA, parts_to_remove(DATA, [("missing",)])) is None


@given(TREES, st.lists(LOCS, max_size=3))
def test_any_tree_and_any_paths(tree: object, locs: list[tuple[str | int, ...]]) -> None:
    before = copy.deepcopy(tree)
    without_parts(tree, parts_to_remove(tree, locs))
    assert tree == before


def test_blame_covers_above_and_below() -> None:
    blame = FaultyParts()
    blame.add(("wifi", "networks", 0))
    assert blame.covers(("wifi",))
    assert blame.covers(("wifi", "networks", 0, "ssid"))
    assert not blame.covers(("wifi", "country"))
    assert not blame.covers(("wifi", "networks", 1))
    assert not blame.covers(())
