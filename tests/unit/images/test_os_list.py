"""Published lists in the form of Raspberry Pi Imager: what is taken, skipped and refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from imagebuilder.errors import SourceError
from imagebuilder.images.os_list import (
    LARGEST_LIST_BYTES,
    MOST_GROUP_DEPTH,
    MOST_LISTED,
    parse_list,
)


def parse(content: Any) -> Any:
    return parse_list(json.dumps(content).encode(), "list.json")


def names(content: Any) -> list[str]:
    return [entry["name"] for entry in parse(content).entries]


def nested(depth: int) -> dict[str, Any]:
    item: dict[str, Any] = {"name": "deep", "url": "https://h/deep.img"}
    for _ in range(depth):
        item = {"name": "group", "subitems": [item]}
    return item


def test_groups_are_flattened_in_order() -> None:
    image = {"url": "https://h/a.img"}
    listed = [
        {"name": "a", **image},
        {"name": "g", "subitems": [{"name": "b", **image}, {"name": "h", "subitems": [
            {"name": "c", **image}]}, {"name": "d", **image}]},
        {"name": "e", **image},
    ]  # fmt: skip
    assert names({"os_list": listed}) == ["a", "b", "c", "d", "e"]


def test_links_are_kept_and_the_imagers_own_choices_are_not_images() -> None:
    page = parse({"os_list": [
        {"name": "Erase", "url": "internal://format"},
        {"name": "more", "subitems_url": "https://h/more.json"},
        {"name": "in a group", "subitems": [{"name": "x", "subitems_url": "y.json"}]},
    ]})  # fmt: skip
    assert (page.entries, page.links, page.notes) == ((), ("https://h/more.json", "y.json"), ())


def test_boards_have_names_and_tags() -> None:
    page = parse({"os_list": [], "imager": {"devices": [
        {"name": "Raspberry Pi 5", "tags": ["pi5-64bit", 7], "matching_type": "exclusive"},
        {"name": "No filtering", "tags": [], "matching_type": "inclusive"},
        {"tags": ["x"]}, {"name": "n", "tags": "x"}, "y", {"name": ["z"], "tags": []},
    ]}})  # fmt: skip
    assert [(d.name, set(d.tags), d.inclusive) for d in page.devices] == [
        ("Raspberry Pi 5", {"pi5-64bit"}, False),
        ("No filtering", set(), True),
    ]


@pytest.mark.parametrize("devices", [None, 7, "x", {"a": 1}])
def test_boards_of_a_wrong_form_do_not_end_the_list(devices: object) -> None:
    for imager in ({"devices": devices}, devices):
        assert parse({"os_list": [], "imager": imager}).devices == ()


@pytest.mark.parametrize("item", [None, 7, "x", [], True])
def test_an_item_of_a_wrong_form_is_skipped_alone(item: object) -> None:
    good = {"name": "a", "url": "https://h/a.img"}
    page = parse({"os_list": [item, good]})
    assert [entry["name"] for entry in page.entries] == ["a"]
    assert len(page.notes) == 1


@pytest.mark.parametrize(
    "group", [{"subitems": 7}, {"subitems": {"a": 1}}, {"subitems_url": 7}, {"subitems": "x"}]
)
def test_a_group_of_a_wrong_form_is_skipped_alone(group: dict[str, object]) -> None:
    page = parse({"os_list": [{"name": "g", **group}, {"name": "a", "url": "https://h/a.img"}]})
    assert [entry["name"] for entry in page.entries] == ["a"]
    assert len(page.notes) == 1


@pytest.mark.parametrize(
    "data",
    [
        b"", b"<!DOCTYPE html>", b"\xff\xfe\x00", b"{", b"[]", b"null", b"7", b'"os_list"', b"{}",
        b'{"os_list": null}', b'{"os_list": {}}', b'{"os_list": "x"}', b'{"os_list": 7}',
        b"[" * 200_000, b'{"os_list":' + b"[" * 200_000, b'{"a":' * 100_000,
        b'{"os_list": [' + b"9" * 5000 + b"]}",
    ],
    ids=lambda data: data[:16].decode("latin-1"),
)  # fmt: skip
def test_what_is_not_a_list_is_refused_with_its_name(data: bytes) -> None:
    with pytest.raises(SourceError, match=r"^list\.json is not a list of images: it ") as caught:
        parse_list(data, "list.json")
    assert caught.value.exit_code == 4
    assert "os_list_imagingutility_v4.json" in caught.value.hint


def test_a_byte_order_mark_is_no_part_of_the_list() -> None:
    assert parse_list(b"\xef\xbb\xbf" + b'{"os_list": []}', "x").entries == ()


def test_the_depth_of_groups_has_a_limit() -> None:
    assert names({"os_list": [nested(MOST_GROUP_DEPTH - 1)]}) == ["deep"]
    page = parse({"os_list": [nested(MOST_GROUP_DEPTH), {"name": "a", "url": "https://h/a"}]})
    assert [entry["name"] for entry in page.entries] == ["a"]
    assert page.notes == (f"a group is skipped: it is {MOST_GROUP_DEPTH} levels deep",)


def test_the_number_of_entries_has_a_limit() -> None:
    assert len(parse({"os_list": [{}] * MOST_LISTED}).entries) == MOST_LISTED
    wrong: list[list[Any]] = [[{}] * (MOST_LISTED + 1), [{"subitems": [{}] * MOST_LISTED}]]
    for listed in wrong:
        with pytest.raises(SourceError, match="more than"):
            parse({"os_list": listed})


def test_a_list_as_large_as_the_publishers_is_far_below_the_limits() -> None:
    one = {"name": "x" * 40, "description": "y" * 200, "url": "https://h/" + "z" * 200}
    data = json.dumps({"os_list": [one] * 2100}).encode()
    assert 1_000_000 < len(data) < LARGEST_LIST_BYTES
    assert len(parse_list(data, "x").entries) == 2100
