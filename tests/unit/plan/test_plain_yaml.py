"""YAML that others wrote: every reader of it survives any text, whatever the library's version."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from imagebuilder.errors import ImageError, RpiImageError
from imagebuilder.flash.records.ledger import parse_ledger
from imagebuilder.plan.boot_texts import parse_mapping
from imagebuilder.plan.generations import parse_generation
from imagebuilder.plan.plain_yaml import (
    ENDLESS,
    MAX_DEPTH,
    MAX_VALUES,
    MOST_DIGITS,
    NOT_A_NUMBER,
    TOO_DEEP,
    TOO_MANY,
    load_plain,
    yaml_reason,
)
from imagebuilder.settings.yaml_reader import parse_yaml
from tests.lib.plan_samples import boot_of, plain_node, plan

if TYPE_CHECKING:
    from collections.abc import Callable

# The line is that of the first level too many, or where the library itself gave up.
DEEP = {
    "flow": ("[" * 100_000, 1),
    "flow mappings": ("{a: " * 5_000, 1),
    "flow, lines": ("[\n" * 100_000, 51),
    "flow in block": ("a:\n  b:\n    - " + "[" * 100_000, 3),
    "block": ("- " * 100_000 + "a", 1),
    "block, lines": ("\n".join(f"{' ' * depth}a:" for depth in range(1_500)), 51),
    "closed": ("[" * 5_000 + "]" * 5_000, 1),
    "just too deep": ("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), 1),
}
# Each makes a constructor of PyYAML raise another exception of Python.
UNFIT = [
    "a: 2015-13-45",
    "!!int ''",
    "!!float x",
    "!!bool maybe",
    "!!timestamp soon",
    "!!binary ü",
    "? [a]\n: b",
    "!!omap a",
    "9" * 5_000,
]
READERS: dict[str, Callable[[str], object]] = {
    "generation.yml": lambda text: parse_generation(text, "demo", "demo/generation.yml"),
    "user-data": lambda text: parse_mapping(text.encode(), "user-data"),
    "cards.yml": lambda text: parse_ledger(text, "cards.yml"),
}


@pytest.mark.parametrize("name", DEEP)
def test_what_is_nested_too_deeply_is_told_with_its_line(name: str) -> None:
    text, line = DEEP[name]
    (problem,) = parse_yaml(text).problems
    assert (problem.line, problem.message) == (line, TOO_DEEP)
    with pytest.raises(yaml.YAMLError) as caught:
        load_plain(text)
    assert yaml_reason(caught.value) == f"line {line}: {TOO_DEEP}"


def test_what_is_nested_as_deeply_as_allowed_is_read() -> None:
    text = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    assert not parse_yaml(text).problems
    assert load_plain(text) == yaml.safe_load(text)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("text", [*(text for text, _ in DEEP.values()), *UNFIT])
def test_no_text_crashes_a_reader(reader: str, text: str) -> None:
    with pytest.raises(RpiImageError):
        READERS[reader](text)


@given(st.text("{}[]:,- \n\t#&*!|>'\"%@`ab1?=<~.", max_size=60) | st.text(max_size=60))
def test_any_text_gives_what_safe_load_gives_or_a_yaml_error(text: str) -> None:
    try:
        found, reason = load_plain(text), ""
    except yaml.YAMLError as error:
        found, reason = None, yaml_reason(error)
    # As texts: a NaN is not equal to itself.
    assert reason or repr(found) == repr(yaml.safe_load(text))
    assert "\n" not in reason


def test_a_full_stack_is_told_as_nesting(monkeypatch: pytest.MonkeyPatch) -> None:
    def overflow(_: object) -> None:
        raise RecursionError

    monkeypatch.setattr(yaml.SafeLoader, "get_single_node", overflow)
    with pytest.raises(yaml.YAMLError) as caught:
        load_plain("a: 1")
    assert yaml_reason(caught.value) == TOO_DEEP


LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "\n".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)
)
MERGED = "b0: &b0 {x: 1}\n" + "\n".join(
    f"b{i}: &b{i} {{<<: [{', '.join([f'*b{i - 1}'] * 10)}]}}" for i in range(1, 10)
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- a\n" * (MAX_VALUES + 1), TOO_MANY),
        (LAUGHS, TOO_MANY),
        (MERGED, TOO_MANY),
        ("a: &a [*a]", ENDLESS),
        ("a: &a {b: {<<: *a}}", ENDLESS),
        (
            "\n".join(f"a{i}: &a{i} [*a{i - 1}]" if i else "a0: &a0 [x]" for i in range(99)),
            TOO_DEEP,
        ),
    ],
)
@pytest.mark.parametrize("reader", READERS)
def test_what_grows_without_end_is_refused(reader: str, text: str, said: str) -> None:
    with pytest.raises(yaml.YAMLError, match=said):
        load_plain(text)
    with pytest.raises(RpiImageError):
        READERS[reader](text)


# Numbers as long as a text on a boot partition may be: PyYAML computes the first for a minute,
# and Python writes none of the others as a text.
LONG = {
    "sexagesimal": "1" + ":1" * (1 << 18),
    "negative": "-1" + ":59" * 100_000,
    "hexadecimal": "0x" + "f" * 100_000,
    "binary": "0b" + "1" * 100_000,
    "octal": "0" + "7" * 100_000,
    "tagged": "!!int 0x" + "f" * 5_000,
    "float": "1" + ":1" * 100_000 + ".5",
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", LONG)
def test_a_number_with_too_many_digits_is_refused_soon(reader: str, name: str) -> None:
    begun = time.process_time()
    with pytest.raises(yaml.YAMLError, match=NOT_A_NUMBER):
        load_plain(f"a: {LONG[name]}")
    with pytest.raises(RpiImageError):
        READERS[reader](f"a: {LONG[name]}")
    assert time.process_time() - begun < 5


@pytest.mark.parametrize("number", ["9" * MOST_DIGITS, "1:30:00", "0x" + "f" * 64, "1e3", "1_000"])
def test_other_numbers_are_those_of_safe_load(number: str) -> None:
    assert load_plain(number) == yaml.safe_load(number)


@pytest.mark.parametrize("path", ["user-data", "network-config"])
@pytest.mark.parametrize(
    "text",
    [
        LAUGHS,
        MERGED,
        "a: &a [*a]",
        "a: " + "[" * 9_999,
        *(f"a: {number}" for number in LONG.values()),
    ],
)
def test_a_bomb_on_the_base_image_is_refused_by_the_name_of_its_file(path: str, text: str) -> None:
    begun = time.process_time()
    with pytest.raises(ImageError, match=f"^{path} is not a single YAML mapping: ") as caught:
        plan(plain_node(), boot_of("cloud-init-trixie", **{path: text.encode()}))
    assert caught.value.hint
    assert len(caught.value.message) < 200
    assert time.process_time() - begun < 5
