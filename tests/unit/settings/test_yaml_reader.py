"""YAML with lines: what was typed stays, every fault has a line, nothing secret is quoted."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from imagebuilder.plan.plain_yaml import ENDLESS, TOO_DEEP, TOO_MANY
from imagebuilder.settings.yaml_reader import MAX_VALUES, CsvReference, parse_yaml

PLAIN = st.recursive(
    st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), max_size=12),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abcd", min_size=1), inner),
    max_leaves=12,
)


@given(PLAIN)
def test_what_pyyaml_writes_comes_back(value: object) -> None:
    parsed = parse_yaml(yaml.safe_dump({"value": value}, allow_unicode=True))
    assert not parsed.problems
    assert parsed.data == {"value": value}


@pytest.mark.parametrize(
    "text", ["no", "yes", "on", "0123", "1e3", "2024-01-01", "0x1f", "1_000", "12:30", "0o17", ".5"]
)
def test_a_plain_scalar_keeps_its_letters(text: str) -> None:
    assert parse_yaml(f"hostname: {text}").data == {"hostname": text}


@pytest.mark.parametrize("text", ["", "~", "null"])
def test_an_empty_value_is_none_and_a_quoted_one_a_text(text: str) -> None:
    assert parse_yaml(f"a: {text}").data == {"a": None}
    assert parse_yaml(f"a: '{text}'").data == {"a": text}


def test_lines_of_keys_items_and_what_is_missing() -> None:
    parsed = parse_yaml("a: 1\nb:\n  - c: 2\n    d: 3\n  - c: 4\n")
    assert parsed.line(("a",)) == 1
    assert parsed.line(("b",)) == 2
    assert parsed.line(("b", 0, "d")) == 4
    assert parsed.line(("b", 1, "c")) == 5
    assert parsed.line(("b", 1, "missing")) == 5
    assert parsed.line(("nowhere",)) == 1


def test_lines_through_anchors_and_merges() -> None:
    parsed = parse_yaml("base: &base\n  x: 1\n  y: 2\nnode:\n  <<: *base\n  y: 3\n")
    assert parsed.data["node"] == {"x": "1", "y": "3"}
    assert parsed.line(("node", "x")) == 2
    assert parsed.line(("node", "y")) == 6


def test_merging_a_list_of_mappings_keeps_the_first() -> None:
    text = "a: &a {x: 1}\nb: &b {x: 2, y: 2}\nc: {<<: [*a, *b]}"
    assert parse_yaml(text).data["c"] == yaml.safe_load(text)["c"] | {"x": "1", "y": "2"}


def test_csv_tag() -> None:
    assert parse_yaml("nodes: !csv a b.csv").data == {"nodes": CsvReference("a b.csv")}


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, "twice"),
        ("a:\n  - x: 1\n    x: 2\n", 3, "twice"),
        ("a: 1\n\tb: 2\n", 2, "not YAML"),
        ("a: b: c", 1, "not YAML"),
        ("a: 'never closed", 1, "not YAML"),
        ("a: 1\n--- \nb: 2", 2, "another document"),
        ("", 1, "empty"),
        ("# only a comment\n", 1, "empty"),
        ("x: 1\na: &a [*a]", 2, "own anchor"),
        ("a: 1\n? [1, 2]\n: 3", 2, "key must be a string"),
        ("a: {<<: 3}", 1, "needs a mapping"),
        ("a: \x07", 1, "UTF-8"),
    ],
)
def test_faults_have_their_line(text: str, line: int, words: str) -> None:
    problem = parse_yaml(text).problems[0]
    assert problem.line == line
    assert words in problem.message


def test_all_faults_at_once() -> None:
    problems = parse_yaml("a: 1\na: 2\nb: !x 1\nc: {[1]: 2}\n").problems
    assert [problem.line for problem in problems] == [2, 3, 4]


@pytest.mark.parametrize(
    "text", ["p: *hunter2x", "p: !hunter2x", "p: !hunter2x y", "p: {{hunter2x}}", "p: &hunter2x"]
)
def test_what_may_be_a_secret_is_not_quoted(text: str) -> None:
    assert "hunter2x" not in str(parse_yaml(text).problems)


def test_aliases_of_aliases_are_bounded() -> None:
    rows = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    rows += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]
    assert [p.message for p in parse_yaml("\n".join(rows)).problems] == [TOO_MANY]


@given(st.text(max_size=60))
def test_any_text_gives_data_or_problems(text: str) -> None:
    parsed = parse_yaml(text)
    assert parsed.problems or parsed.root is not None


@given(st.text("{}[]:,- \n\t#&*!|>'\"%@`ab1", max_size=60))
def test_any_punctuation_gives_data_or_problems(text: str) -> None:
    parsed = parse_yaml(text)
    assert parsed.problems or parsed.root is not None
    assert all(problem.line >= 1 for problem in parsed.problems)


def test_a_range_within_brackets_is_to_be_quoted() -> None:
    (problem,) = parse_yaml("a: 1\nnodes: [{hostname: pi-[01-03]}]\n").problems
    assert problem.line == 2
    assert "quote values like 'pi-[01-30]'" in problem.hint


DEEP = "a0: &a0 [x]\n" + "\n".join(f"a{i}: &a{i} [*a{i - 1}]" for i in range(1, 99))
MERGED = "b0: &b0 {x: 1}\n" + "\n".join(
    f"b{i}: &b{i} {{<<: [{', '.join([f'*b{i - 1}'] * 10)}]}}" for i in range(1, 10)
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- a\n" * (MAX_VALUES + 1), TOO_MANY),
        (DEEP, TOO_DEEP),
        ("a: &a [*a]", ENDLESS),
        (MERGED, TOO_MANY),
    ],
    ids=["list", "deep", "endless", "merged"],
)
def test_what_no_person_writes_is_one_problem(text: str, said: str) -> None:
    assert [problem.message for problem in parse_yaml(text).problems] == [said]
