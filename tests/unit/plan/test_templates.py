"""Templates: exact quoting, judged by shells and YAML loaders, and errors with their place."""

from __future__ import annotations

import math
import subprocess
from datetime import UTC, datetime, timedelta, timezone

import pytest
import yaml as pyyaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from imagebuilder.errors import SettingsError
from imagebuilder.plan.templates import compile_template, sh, utc, yaml
from tests.lib.plan_samples import HOSTILE
from tests.lib.tools import need

# One line of anything that UTF-8 can hold.
LINES = st.text(
    st.characters(blacklist_categories=["Cs", "Cc"], min_codepoint=0x20), max_size=40
).filter(lambda text: "\x7f" not in text)


def rendered(source: str, **context: object) -> str:
    return compile_template(source, "demo.j2").render(context)


@pytest.mark.parametrize("shell", [["dash"], ["busybox", "sh"], ["bash"]])
def test_shell_reads_every_value_back_unchanged(shell: list[str]) -> None:
    need("dash", "busybox", "bash")
    script = "".join(f"V={sh(value)}\nprintf '%s\\0' \"$V\"\n" for value in HOSTILE)
    done = subprocess.run([*shell, "-c", script], capture_output=True, check=True)
    assert done.stdout.decode().split("\0")[:-1] == list(HOSTILE)


@settings(max_examples=60, deadline=None)
@given(st.lists(LINES, min_size=1, max_size=20))
def test_dash_reads_any_line_back_unchanged(values: list[str]) -> None:
    need("dash")
    script = "".join(f"V={sh(value)}\nprintf '%s\\0' \"$V\"\n" for value in values)
    done = subprocess.run(
        ["dash"], input=script.encode(), capture_output=True, check=True, timeout=20
    )
    assert done.stdout.decode().split("\0")[:-1] == values


@pytest.mark.parametrize("value", ["two\nlines", "nul\0", "carriage\r", "\x7f", "\x1b[31m"])
def test_shell_refuses_what_one_line_cannot_carry(value: str) -> None:
    with pytest.raises(SettingsError, match="control character"):
        sh(value)


def test_shell_forms_of_flags_lists_and_numbers() -> None:
    assert [sh(True), sh(False), sh(0), sh(["a", "b"]), sh(())] == [
        "'1'",
        "'0'",
        "'0'",
        "'a b'",
        "''",
    ]


@settings(max_examples=300, deadline=None)
@given(st.text(st.characters(blacklist_categories=["Cs"]), max_size=40))
@example("\x7f\x80\x9f\u2028\u2029\ufeff\ufffe\uffff")
@example("\x85next line")
def test_yaml_gives_any_text_back_unchanged(value: str) -> None:
    assert pyyaml.safe_load(f"key: {yaml(value)}\n") == {"key": value}


@pytest.mark.parametrize("value", [*HOSTILE, "yes", "~", "null", "1e3", "0x1f", "1:30", "", " "])
def test_yaml_keeps_texts_texts(value: str) -> None:
    assert pyyaml.safe_load(yaml(value)) == value
    assert pyyaml.safe_load(f"{yaml(value)}: 1\n") == {value: 1}


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.binary() | st.sampled_from(["no", "é", ""]),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["a", "no", "", 1, True, None]), inner, max_size=3)
        ),
        max_leaves=8,
    )
)
def test_yaml_keeps_numbers_bytes_and_keys_what_they_are(value: object) -> None:
    assert pyyaml.safe_load(f"key: {yaml(value)}\n") == {"key": value}


ZONES = st.sampled_from(
    [None, UTC, *(timezone(timedelta(hours=hours, minutes=30)) for hours in (-9, 0, 5))]
)
KEYS = st.text(max_size=5) | st.integers() | st.floats() | st.dates() | st.booleans() | st.none()
TYPED = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.binary(max_size=9)
    | st.text(max_size=9)
    | st.dates()
    | st.datetimes(timezones=ZONES)
    | st.sets(st.text(max_size=5) | st.integers() | st.dates(), max_size=3)
    | st.lists(st.tuples(KEYS, st.dates()), max_size=3)
)


@settings(max_examples=300, deadline=None)
@given(
    st.recursive(
        TYPED,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
        max_leaves=6,
    )
)
@example([1e30, -1e-7, 1e16, math.inf, -math.inf, math.nan, "1e30", "2032-09-01", ".nan"])
@example("\ud83d\ude00")
def test_yaml_keeps_every_type_that_a_loader_makes(value: object) -> None:
    """As texts: a NaN is not equal to itself, and 1 is equal to True."""
    assert shown(pyyaml.safe_load(f"key: {yaml(value)}\n")) == shown({"key": value})


def shown(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key!r}: {shown(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(shown, value)) + "]"
    if isinstance(value, set):
        return f"set of {sorted(map(repr, value))}"
    if isinstance(value, datetime):
        return f"{value.isoformat()}"
    return repr(value)


def test_yaml_gives_structures_back() -> None:
    value = {"a": [1, True, None, "no"], "b": {"c": "📶"}}
    assert pyyaml.safe_load(yaml(value)) == value


def test_hwclock_form() -> None:
    assert utc(1_429_212_937) == "2015-04-16 19:35:37"


def test_a_name_that_is_not_there_is_an_error_with_its_line() -> None:
    with pytest.raises(SettingsError, match=r"^demo\.j2:3: .*\bcolour\b") as caught:
        rendered("one\n{# two #}\n{{ colour }}\n")
    assert "--set" in caught.value.hint


def test_an_attribute_that_is_not_there_is_an_error_with_its_line() -> None:
    with pytest.raises(SettingsError, match=r"^demo\.j2:2: .*\bhostnam\b"):
        rendered("x\n{{ node.hostnam }}", node={"hostname": "pi"})


def test_a_syntax_error_has_its_line() -> None:
    with pytest.raises(SettingsError, match=r"^broken\.j2:2: "):
        compile_template("fine\n{% if %}\n", "broken.j2")


def test_an_exception_inside_is_an_error_with_its_line() -> None:
    with pytest.raises(SettingsError, match=r"^demo\.j2:4: ZeroDivisionError"):
        rendered("a\nb\nc\n{{ 1 // 0 }}")


def test_a_refused_value_names_the_template_and_line() -> None:
    with pytest.raises(SettingsError, match=r"^demo\.j2:2: .*control character"):
        rendered("a\n{{ value | sh }}", value="x\ny")


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ node.__init__ }}",
        "{% include 'other.j2' %}",
        "{{ cycler.__init__.__globals__ }}",
    ],
)
def test_a_template_cannot_leave_its_sandbox(source: str) -> None:
    with pytest.raises(SettingsError, match=r"^demo\.j2:1: "):
        rendered(source, node={})


def test_line_ends_and_the_last_newline_stay() -> None:
    assert rendered("a\n{% if true %}\nb\n{% endif %}\nc\n") == "a\nb\nc\n"
    assert rendered("{{ 'x' }}") == "x"


def test_the_names_of_a_template_are_known() -> None:
    assert compile_template("{{ a }}{% for b in c %}{{ b }}{% endfor %}", "x").names == {"a", "c"}
