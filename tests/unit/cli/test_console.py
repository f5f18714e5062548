"""The voice: what goes where, when, and in which colour."""

from __future__ import annotations

import io
import json
import os
import pty
import select
import termios
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from imagebuilder.cli import console as module
from imagebuilder.cli.console import Console
from imagebuilder.errors import InputError, Problem, SettingsError
from imagebuilder.progress import human_bytes, two_sizes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def make(**options: object) -> tuple[Console, io.StringIO, io.StringIO]:
    out, err = io.StringIO(), io.StringIO()
    return Console(out=out, err=err, **options), out, err  # type: ignore[arg-type]


def test_results_go_to_stdout_and_words_to_stderr() -> None:
    console, out, err = make()
    console.result("build/pi-03.img")
    console.note("unpacking")
    assert (out.getvalue(), err.getvalue()) == ("build/pi-03.img\n", "unpacking\n")


def test_quiet_keeps_warnings_and_errors() -> None:
    console, _, err = make(quiet=True)
    console.note("hidden")
    console.detail("hidden")
    console.warn("the checksum is not known")
    assert err.getvalue() == "warning: the checksum is not known\n"


def test_details_need_verbose() -> None:
    console, _, err = make(verbose=True)
    console.detail("cluster 17")
    assert err.getvalue() == "cluster 17\n"


def test_an_error_names_every_problem_with_file_and_line() -> None:
    console, _, err = make()
    problems = (
        Problem("unknown key 'hostnam'", "did you mean hostname", Path("c.yml"), 4),
        Problem("no nodes", "", Path("c.yml")),
    )
    console.fail(SettingsError("2 errors in c.yml", "mend them", problems), "pi-03")
    assert err.getvalue().splitlines() == [
        "c.yml:4: unknown key 'hostnam'",
        "  hint: did you mean hostname",
        "c.yml: no nodes",
        "error: pi-03: 2 errors in c.yml",
        "hint: mend them",
    ]


@pytest.mark.parametrize(("colour", "painted"), [("auto", False), ("always", True)])
def test_colour_is_for_terminals_unless_asked_for(colour: str, painted: bool) -> None:
    console, _, err = make(colour=colour)
    console.warn("look")
    assert ("\x1b[33m" in err.getvalue()) is painted


def test_json_keeps_order_and_letters() -> None:
    console, out, _ = make()
    console.emit({"ssid": "Café-📶", "a": 1})
    assert list(json.loads(out.getvalue())) == ["ssid", "a"]
    assert "Café-📶" in out.getvalue()


def test_tables_are_aligned_and_carry_no_trailing_blanks() -> None:
    console, out, _ = make()
    console.table(("node", "state"), [("pi-03", "built"), ("a", "x")])
    assert out.getvalue() == "node   state\npi-03  built\na      x\n"


def test_a_log_gets_a_plain_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    console, _, err = make()
    with console.meter("downloading", 1000) as meter:
        meter.advance(250)
        now[0] = 11.0
        meter.advance(250)
        meter.advance(1)
    assert err.getvalue() == "downloading: 500 B (50 %), 45 B/s, 0:11 left\n"


def test_a_plain_line_tells_the_rate_of_late(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    console, _, err = make()
    with console.meter("writing", 1_000_000_000) as meter:
        for done, at in ((400_000_000, 10.0), (10_000_000, 20.0), (589_999_999, 21.0), (1, 30.0)):
            now[0] = at
            meter.advance(done)
    assert err.getvalue().splitlines() == [
        "writing: 400.0 MB (40 %), 40.0 MB/s, 0:15 left",
        "writing: 410.0 MB (41 %), 1.0 MB/s, 9:50 left",
        "writing: 1.0 GB (100 %), 59.0 MB/s, 0:00 left",
    ]


def test_what_has_no_end_has_no_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PLAIN_INTERVAL_SECONDS", 0.0)
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    console, _, err = make()
    with console.meter("fetching", None) as meter:
        now[0] = 2.0
        meter.advance(3000)
    assert err.getvalue() == "fetching: 3.0 kB, 1.5 kB/s\n"


def test_quiet_draws_no_meter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PLAIN_INTERVAL_SECONDS", 0.0)
    console, _, err = make(quiet=True)
    with console.meter("downloading", 1000) as meter:
        meter.advance(250)
    assert err.getvalue() == ""


@contextmanager
def screen(rows: int, columns: int) -> Iterator[tuple[Console, Callable[[], str]]]:
    """Return a console at a terminal of this size, and a way to see what was drawn since."""
    leader, follower = pty.openpty()
    termios.tcsetwinsize(leader, (rows, columns))

    def drawn() -> str:
        seen = b""
        while select.select([leader], [], [], 0.05)[0]:
            seen += os.read(leader, 1 << 16)
        return seen.decode()

    with os.fdopen(follower, "w") as terminal:
        yield Console(err=terminal, out=terminal), drawn
    os.close(leader)


@pytest.mark.parametrize(("rows", "columns"), [(24, 80), (24, 101), (0, 0)])
def test_a_terminal_gets_a_bar(rows: int, columns: int) -> None:
    with screen(rows, columns) as (console, drawn):
        with console.meter("downloading", 1000) as meter:
            meter.advance(1000)
        lines = drawn().split("\r")
    assert any("downloading:   0%|" in line and "/1.00k" in line for line in lines)
    assert max(len(line) for line in lines) == ((columns or 80) - 1)


def test_percent_is_not_rounded_up() -> None:
    with screen(24, 100) as (console, drawn), console.meter("writing", 1000) as meter:
        time.sleep(0.12)  # longer than a bar waits between two drawings
        meter.advance(999)
        assert " 99%|" in drawn()
        time.sleep(0.12)
        meter.advance(1)
        assert "100%|" in drawn()


def test_a_bar_that_was_fast_shows_every_slow_step() -> None:
    with screen(24, 100) as (console, drawn), console.meter("writing", 1_000_000) as meter:
        for _ in range(3):
            time.sleep(0.12)
            meter.advance(100_000)
        drawn()
        time.sleep(0.12)
        meter.advance(1)
        assert " 30%|" in drawn()


def test_words_and_results_stand_above_the_bars() -> None:
    with (
        screen(24, 100) as (console, drawn),
        console.meter("one", 10),
        console.meter("two", 10),
    ):
        drawn()
        console.warn("look")
        console.result("/dev/sdb is done")
        seen = drawn()
    for words in ("\x1b[33mwarning:\x1b[0m look", "/dev/sdb is done"):
        before = seen[: seen.index(words)]
        assert before.endswith(("\r", "\x1b[A"))
    assert seen.rindex("two:") > seen.index("is done")


@pytest.mark.parametrize("ask", ["confirm_by_name", "ask_secret"])
def test_nobody_there_is_an_error_with_a_hint(ask: str) -> None:
    console, _, _ = make(no_input=True)
    arguments = ("Type sdb:", "sdb") if ask == "confirm_by_name" else ("wifi passphrase",)
    with pytest.raises(InputError) as caught:
        getattr(console, ask)(*arguments)
    assert caught.value.exit_code == 2
    assert caught.value.hint


def test_a_question_nobody_answers_has_its_default() -> None:
    console, _, _ = make(no_input=True)
    assert console.ask("Country", "FR") == "FR"


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (31914983424, "31.9 GB"), (4e12, "4.0 TB")],
)
def test_sizes_read_as_on_the_label_of_a_card(size: int, text: str) -> None:
    assert human_bytes(size) == text


@pytest.mark.parametrize(
    ("sizes", "texts"),
    [
        ((31914983424, 999), ("31.9 GB", "999 B")),
        ((31914983424, 31914983936), ("31914983424 B", "31914983936 B")),
    ],
)
def test_two_sizes_that_differ_never_look_the_same(
    sizes: tuple[int, int], texts: tuple[str, str]
) -> None:
    assert two_sizes(*sizes) == texts


HOSTILE = "a\x1b[2J\x1b]0;pwn\x07b\x9b31mc\u202ed\x7f\re\x00f"


def test_no_control_character_reaches_the_terminal() -> None:
    console, out, err = make(verbose=True, colour="never")
    problem = Problem(HOSTILE, HOSTILE, Path(f"c{HOSTILE}.yml"), 1)
    for say in (console.note, console.detail, console.warn, console.result):
        say(HOSTILE)
    console.fail(SettingsError(HOSTILE, HOSTILE, (problem,)), HOSTILE)
    console.table((HOSTILE,), [(HOSTILE,)])
    console.emit({"name": HOSTILE})
    for shown in (out.getvalue(), err.getvalue()):
        assert "\\x1b[2J" in shown or "\\u001b[2J" in shown
        assert [c for c in shown if not c.isprintable() and c != "\n"] == []
    assert json.loads(out.getvalue()[out.getvalue().index("{") :]) == {"name": HOSTILE}


def test_tabs_and_lines_of_a_result_stay() -> None:
    console, out, _ = make()
    console.result("a\n\tb")
    assert out.getvalue() == "a\n\tb\n"
