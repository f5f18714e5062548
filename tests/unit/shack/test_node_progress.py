"""What nodes tell of themselves is hostile: capped, printable, and never more than a text."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from imagebuilder.shack.node_progress import MOST_DOCUMENT_BYTES, NodeProgress, parse_progress

NOW = datetime(2026, 11, 28, 20, 0, tzinfo=UTC)


def entry(name: str, document: object, *, raw: bytes | None = None) -> dict[str, Any]:
    data = json.dumps(document).encode() if raw is None else raw
    return {"Key": f"rpi-image/nodes/{name}", "Value": base64.b64encode(data).decode()}


def one(document: object) -> NodeProgress:
    return parse_progress([entry("pi-07", document)], NOW)["pi-07"]


def test_the_line_of_a_node() -> None:
    found = one({"stage": "pulling consul", "percent": 40, "updated": "2026-11-28T19:59:00Z"})
    assert found.words == "pulling consul, 40 %"
    assert found.is_fresh
    assert one({"stage": "ready"}).words == ""
    assert one({"stage": "ready", "error": "no space"}).words == "ready, no space"


@pytest.mark.parametrize(
    ("percent", "shown"),
    [
        (0, 0),
        (100, 100),
        (-5, 0),
        (10**400, 100),
        (True, None),
        (4.5, None),
        ("40", None),
        ([], None),
    ],
)
def test_a_percentage_is_a_number_from_0_to_100(percent: object, shown: int | None) -> None:
    text = '{"stage": "x", "percent": ' + (
        "1" + "0" * 400 if percent == 10**400 else json.dumps(percent)
    )
    found = parse_progress([entry("pi-07", None, raw=(text + "}").encode())], NOW)
    assert found["pi-07"].percent == shown


def test_texts_are_cut_and_printable() -> None:
    found = one({"stage": "\x1b[2J\u202e" + "s" * 500, "error": "<script>\n" + "e" * 900})
    assert found.stage == "[2J" + "s" * 57
    assert len(found.error) == 200
    assert found.words.isprintable()


@pytest.mark.parametrize(
    "updated",
    ["", "soon", 7, None, "2026-11-28", "9999-12-31T23:59:59+00:00", "0001-01-01T00:00:00"],
)
def test_what_was_told_long_ago_or_never_is_not_fresh(updated: object) -> None:
    assert not one({"stage": "x", "updated": updated}).is_fresh


def test_the_clock_of_a_node_may_be_a_little_off() -> None:
    for minutes in (-14, 14):
        told = (NOW + timedelta(minutes=minutes)).isoformat()
        assert one({"stage": "x", "updated": told}).is_fresh


@pytest.mark.parametrize(
    "bad",
    [
        7, None, {}, {"Key": 7, "Value": ""}, {"Key": "rpi-image/nodes/a", "Value": None},
        {"Key": "rpi-image/nodes/a", "Value": "!"}, {"Key": "other", "Value": "e30="},
        entry("a", []), entry("a", "text"), entry("a", None, raw=b"[" * 3000),
        entry("a", {"stage": "x" * MOST_DOCUMENT_BYTES}), entry("a", None, raw=b"\xff\xfe"),
    ],
)  # fmt: skip
def test_one_bad_document_does_not_hide_the_others(bad: object) -> None:
    found = parse_progress([bad, entry("pi-07", {"stage": "x"})], NOW)
    assert list(found) == ["pi-07"]


def test_an_answer_that_is_no_list_is_refused() -> None:
    with pytest.raises(TypeError):
        parse_progress({}, NOW)
