"""Progress reports: the interfaces, implementations that print nothing, and sizes as text."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Protocol

from imagebuilder.errors import InputError, RefusedError

if TYPE_CHECKING:
    from imagebuilder.errors import RpiImageError


class Meter(Protocol):
    """A count of the bytes (or steps) done in one long operation."""

    def advance(self, amount: int) -> None:
        """Add `amount` of the unit the meter was opened with."""


class Reporter(Protocol):
    """Where the library sends its messages; `cli.console` implements it."""

    def note(self, text: str) -> None:
        """Report what is happening; hidden by --quiet."""

    def warn(self, text: str) -> None:
        """Report a risk or something to check; shown even with --quiet."""

    def meter(
        self, label: str, total: int | None, unit: str = "B"
    ) -> AbstractContextManager[Meter]:
        """Open a progress meter; `total` is None if it is not known."""


class Prompter(Reporter, Protocol):
    """A reporter that can also ask the user; `cli.console` implements it."""

    @property
    def interactive(self) -> bool:
        """Whether there is a terminal to ask at."""

    def fail(self, error: RpiImageError) -> None:
        """Report what is wrong with an answer, before it is asked for again."""

    def ask(self, question: str, default: str = "") -> str:
        """Return one line from the user; `default` without a terminal."""

    def ask_or_read(self, question: str, default: str = "") -> str:
        """Return one line from the user or from a pipe."""

    def ask_secret(self, question: str) -> str:
        """Return a secret, typed without echo. Raise InputError without a terminal."""

    def confirm_by_name(self, question: str, name: str) -> bool:
        """Return whether the user typed `name`. Raise InputError without a terminal."""


def agree(question: str, name: str, prompter: Prompter) -> None:
    """Ask the user to type `name`. Raise RefusedError for another answer or no terminal."""
    try:
        typed = prompter.confirm_by_name(question, name)
    except InputError as error:
        raise RefusedError(error.message, error.hint) from error
    if not typed:
        raise RefusedError(f"{name} was not confirmed", "nothing was written: try again")


class SilentMeter:
    """A meter that ignores every step."""

    def advance(self, amount: int) -> None:
        """Ignore `amount`."""


class SilentReporter:
    """A reporter that ignores every message."""

    def note(self, text: str) -> None:
        """Ignore `text`."""

    def warn(self, text: str) -> None:
        """Ignore `text`."""

    def meter(
        self, label: str, total: int | None, unit: str = "B"
    ) -> AbstractContextManager[Meter]:
        """Return a meter that ignores every step."""
        del label, total, unit
        return nullcontext(SilentMeter())


SILENT = SilentReporter()


def human_bytes(size_bytes: int) -> str:
    """Return a size with its unit, in powers of 1000 as on the label of a card."""
    size = float(size_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:  # noqa: PLR2004 - the SI step
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def two_sizes(size_bytes: int, other_bytes: int) -> tuple[str, str]:
    """Return two different sizes to compare; in bytes if they are the same after rounding."""
    first, second = human_bytes(size_bytes), human_bytes(other_bytes)
    return (f"{size_bytes} B", f"{other_bytes} B") if first == second else (first, second)


def counted(number: int, noun: str) -> str:
    """Return a count with its noun: `no errors`, `1 node`, `30 nodes`."""
    return f"{number or 'no'} {noun}{'' if number == 1 else 's'}"
