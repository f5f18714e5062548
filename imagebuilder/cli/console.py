"""Output for the terminal: messages and meters to stderr, results to stdout."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TextIO

from imagebuilder.errors import InputError, RpiImageError, SettingsError
from imagebuilder.progress import SILENT, Meter, human_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PLAIN_INTERVAL_SECONDS = 10.0
_BAR_FORMAT = (
    "{desc}: {floor:3d}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"
)
# Control characters (ECMA-48) can move the cursor, set the title or insert input. Those for the
# writing direction (Unicode TR 9) can make a name look like another.
_TURNING = (0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
_UNPRINTABLE = {n: f"\\x{n:02x}" for n in (*range(0x20), *range(0x7F, 0xA0))}
_UNPRINTABLE |= {n: f"\\u{n:04x}" for n in _TURNING}
_IN_LINES = {n: text for n, text in _UNPRINTABLE.items() if n not in (0x09, 0x0A)}
_IN_JSON = {n: f"\\u{n:04x}" for n in (*range(0x7F, 0xA0), *_TURNING)}
_COLOURS = {"red": "31", "yellow": "33", "green": "32", "bold": "1", "dim": "2"}


def printable(text: str) -> str:
    """Return `text` with control characters escaped: it may be from a card or a server."""
    return text.translate(_UNPRINTABLE)


@dataclass(kw_only=True)
class Console:
    """The output of one run: a Prompter for the library, and printing of results for commands."""

    quiet: bool = False
    verbose: bool = False
    as_json: bool = False
    colour: str = "auto"
    no_input: bool = False
    out: TextIO = field(default_factory=lambda: sys.stdout)
    err: TextIO = field(default_factory=lambda: sys.stderr)

    def paint(self, text: str, colour: str, stream: TextIO | None = None) -> str:
        """Return `text` in colour if enabled for `stream`."""
        wanted = self.colour == "always" or (
            self.colour == "auto" and (stream or self.err).isatty()
        )
        return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m" if wanted else text

    def note(self, text: str) -> None:
        """Report what is happening, unless --quiet is set."""
        if not self.quiet:
            self._say(printable(text))

    def detail(self, text: str) -> None:
        """Report details, if --verbose is set."""
        if self.verbose:
            self._say(self.paint(printable(text), "dim"))

    def warn(self, text: str) -> None:
        """Report a risk or something to check, even with --quiet."""
        self._say(f"{self.paint('warning:', 'yellow')} {printable(text)}")

    def fail(self, error: RpiImageError, about: str = "") -> None:
        """Report an error (about `about`): every problem, then the message, then the hint."""
        for problem in error.problems if isinstance(error, SettingsError) else ():
            self._say(printable(str(problem)))
            if problem.hint:
                self._say(f"  {self.paint('hint:', 'bold')} {printable(problem.hint)}")
        fact = f"{about}: {error.message}" if about else error.message
        self._say(f"{self.paint('error:', 'red')} {printable(fact)}")
        if error.hint:
            self._say(f"{self.paint('hint:', 'bold')} {printable(error.hint)}")

    def result(self, text: str) -> None:
        """Print one line of the result to stdout."""
        with _above_bars(self.out):
            self.out.write(text.translate(_IN_LINES) + "\n")
            self.out.flush()

    def emit(self, value: Any, *, on_one_line: bool = False) -> None:
        """Print `value` as JSON in the given order of keys; `on_one_line` if more values follow."""
        plain = "utf" not in (getattr(self.out, "encoding", None) or "utf-8").lower()
        text = json.dumps(value, indent=None if on_one_line else 2, ensure_ascii=plain)
        self.out.write(text.translate(_IN_JSON) + "\n")

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print rows in aligned columns."""
        shown = [[printable(str(cell)) for cell in row] for row in (head, *rows)]
        widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
        for row in shown:
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            self.result("  ".join(cells).rstrip())

    @contextlib.contextmanager
    def meter(self, label: str, total: int | None, unit: str = "B") -> Iterator[Meter]:
        """Draw a bar on a terminal, a plain line every 10 s elsewhere, nothing with --quiet."""
        if self.quiet:
            with SILENT.meter(label, total, unit) as silent:
                yield silent
        elif self.err.isatty():
            with _bar(label, total, unit, self.err) as bar:
                yield bar
        else:
            yield _PlainMeter(self, label, total, unit)

    @property
    def interactive(self) -> bool:
        """Whether there is a terminal to ask at."""
        return not self.no_input and sys.stdin is not None and sys.stdin.isatty()

    def confirm_by_name(self, question: str, name: str) -> bool:
        """Ask the user to type `name`. Raise InputError without a terminal."""
        if not self.interactive:
            raise InputError(
                "cannot ask for confirmation: no terminal",
                f"use --yes, or type {name} at a terminal",
            )
        self.err.write(f"{printable(question)} ")
        self.err.flush()
        return sys.stdin.readline().strip() == name

    def ask(self, question: str, default: str = "") -> str:
        """Ask for one line; return the default without a terminal."""
        if not self.interactive:
            return default
        self.err.write(f"{printable(question)}{f' [{default}]' if default else ''}: ")
        self.err.flush()
        return sys.stdin.readline().strip() or default

    def ask_or_read(self, question: str, default: str = "") -> str:
        """Ask for one line, from a terminal or a pipe; at its end note and return the default."""
        if self.no_input:
            return default
        try:
            if self.interactive:
                return self.ask(question, default)
            line = sys.stdin.readline() if sys.stdin else ""
        except UnicodeDecodeError:
            raise InputError("an answer is not valid UTF-8", "use the option for it") from None
        except OSError:
            line = ""
        if not line:
            self.note(f"{question}: {default or 'none'} (no answer)")
        return line.strip() or default

    def ask_secret(self, question: str) -> str:
        """Ask without echo. Raise InputError without a terminal."""
        if not self.interactive:
            raise InputError(
                f"{question} needs a prompt, but there is no terminal",
                "use {file: …} or {env: …} instead of {prompt: true}",
            )
        from getpass import getpass

        return getpass(f"{question}: ", stream=self.err)

    def _say(self, text: str) -> None:
        with _above_bars(self.err):
            self.err.write(text + "\n")
            self.err.flush()


class _PlainMeter:
    """A meter for logs: one line every PLAIN_INTERVAL_SECONDS, with the rate since the last."""

    def __init__(self, console: Console, label: str, total: int | None, unit: str) -> None:
        self._console, self._label, self._total, self._unit = console, label, total, unit
        self._done = self._reported = 0
        self._since = time.monotonic()

    def advance(self, amount: int) -> None:
        self._done += amount
        now = time.monotonic()
        if now >= self._since + PLAIN_INTERVAL_SECONDS:
            rate = (self._done - self._reported) / max(now - self._since, 0.001)
            self._reported, self._since = self._done, now
            self._console.note(f"{self._label}: {self._amount()}{self._pace(rate)}")

    def _amount(self) -> str:
        size = human_bytes if self._unit == "B" else str
        share = f" ({_percent(self._done, self._total)} %)" if self._total else ""
        return f"{size(self._done)}{share}"

    def _pace(self, rate: float) -> str:
        speed = f", {human_bytes(int(rate))}/s" if self._unit == "B" else ""
        if not self._total or rate <= 0:
            return speed
        left = max(0, round((self._total - self._done) / rate))
        return f"{speed}, {left // 60}:{left % 60:02} left"


class _BarMeter:
    def __init__(self, bar: Any) -> None:
        self._bar = bar

    def advance(self, amount: int) -> None:
        self._bar.update(amount)


def _percent(done: int, total: int) -> int:
    """Return the share in percent, rounded down: 100 only when all is done."""
    return 100 * done // total


@functools.cache
def _bar_class() -> Any:
    """Return a tqdm class whose percentage is rounded down.

    Cached, because tqdm keeps the positions of bars in the class.
    """
    from tqdm import tqdm  # noqa: TID251 - used here only, and slow to import

    class Bar(tqdm):  # type: ignore[type-arg]
        @property
        def format_dict(self) -> Any:
            fields = super().format_dict
            return {**fields, "floor": _percent(fields["n"], fields["total"] or 1)}

    return Bar


@contextlib.contextmanager
def _bar(label: str, total: int | None, unit: str, stream: TextIO) -> Iterator[Meter]:
    with _bar_class()(
        desc=printable(label),
        total=total,
        unit=unit,
        unit_scale=unit == "B",
        unit_divisor=1000,
        file=stream,
        leave=False,
        miniters=1,  # tqdm would adapt to fast chunks and then freeze at slow ones
        bar_format=_BAR_FORMAT if total else None,
        **_screen(stream),
    ) as bar:
        yield _BarMeter(bar)


def _screen(stream: TextIO) -> dict[str, Any]:
    """Return tqdm's size options; a terminal without a size (serial line) counts as 80 by 24."""
    try:
        known = all(os.get_terminal_size(stream.fileno()))
    except OSError:
        known = False
    return {"dynamic_ncols": True} if known else {"ncols": 79, "nrows": 24}


@contextlib.contextmanager
def _above_bars(stream: TextIO) -> Iterator[None]:
    """Clear the bars on the screen while the block prints, and draw them again."""
    if not _bar_class.cache_info().currsize:
        yield
        return
    with _bar_class().external_write_mode(file=stream):
        yield
