"""One target of the fuzzing, and the judgement over one input."""

from __future__ import annotations

import re
import struct
import time
import traceback
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from imagebuilder.errors import RpiImageError
from tests.fuzz.bytewise import shaken
from tests.lib.memory import peak_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from random import Random

# Honest inputs of this size are far from both; the program's own limits are 20 s and 400 MB.
MOST_SECONDS = 5.0
MOST_GROWTH_BYTES = 400 << 20
MOST_INPUT_BYTES = 1 << 14

# Settings, sources, images and cards: what foreign bytes may end in.
EXIT_CODES = frozenset({3, 4, 5})
# The text of `errors.reading`, which stands for an exception of Python.
_CAUGHT = re.compile(r" at (an unknown place|\S+\.py:\d+)$")
# Our own code raises none of them on purpose; parsers of libraries may.
_BUGS = (ArithmeticError, AttributeError, LookupError, MemoryError, TypeError, struct.error)
# The parsers of the shack's answers take what is missing for what is unexpected.
_ON_PURPOSE = "unexpected answer from"
_PACKAGE = str(Path(__file__).parents[2] / "imagebuilder")


class FindingError(Exception):
    """An input did what no input may do."""


@dataclass(frozen=True)
class Target:
    """A reader of foreign bytes.

    `change` changes a field or part of the format; `repair` makes checksums, lengths and copies
    fit again, so that a change reaches what is behind them. `read` raises nothing but errors for
    the user, and AssertionError where another reader found something else.
    """

    name: str
    seeds: Callable[[], Sequence[bytes]]
    change: Callable[[bytes, Random], bytes]
    read: Callable[[bytes, Path], None]
    repair: Callable[[bytes, Random], bytes] = lambda data, _: data

    def mutated(
        self, data: bytes, rng: Random, anywhere: Callable[[bytes, Random], bytes] = shaken
    ) -> bytes:
        """Return a changed input; `anywhere` changes bytes without regard to the format."""
        data = data or rng.choice(self.seeds())
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            data = anywhere(data, rng) if rng.random() < 0.2 else self.change(data, rng)
        return (data if rng.random() < 0.1 else self.repair(data, rng))[:MOST_INPUT_BYTES]


class Judge:
    """Tries inputs on a target in a folder of its own."""

    def __init__(self, target: Target, folder: Path) -> None:
        self.target, self.folder = target, folder
        self.start_bytes = 0
        self.executions = 0
        self.slowest_seconds = 0.0

    def try_one(self, data: bytes) -> None:
        """Raise FindingError where `data` does what no input may do."""
        begun = time.process_time()
        try:
            with allowed():
                self.target.read(data, self.folder)
        except FindingError:
            raise
        except Exception as error:
            raise FindingError("".join(traceback.format_exception(error)[-6:])) from error
        taken = time.process_time() - begun
        self.executions += 1
        self.slowest_seconds = max(self.slowest_seconds, taken)
        if taken > MOST_SECONDS:
            raise FindingError(f"took {taken:.1f} seconds of CPU")
        # What is loaded once with the first input is not of the input.
        self.start_bytes = self.start_bytes or peak_memory()
        if (grown := peak_memory() - self.start_bytes) > MOST_GROWTH_BYTES:
            raise FindingError(f"the process grew by {grown >> 20} MiB")


@contextmanager
def allowed() -> Iterator[None]:
    """End at an error for the user; raise FindingError where it is a bug or has no hint."""
    try:
        yield
    except RpiImageError as error:
        problems = getattr(error, "problems", ())
        if error.exit_code not in EXIT_CODES or not (error.hint or problems):
            raise FindingError(f"exit {error.exit_code}, hint {error.hint!r}: {error}") from error
        hidden = _is_bug(error) and not error.message.startswith(_ON_PURPOSE)
        if len(error.message) > 2000 or _CAUGHT.search(error.message) or hidden:
            raise FindingError("".join(traceback.format_exception(error)[-12:])) from error


def _is_bug(error: BaseException) -> bool:
    """Return whether the cause of an error is an exception out of our own code."""
    cause = error.__cause__
    while isinstance(cause, RpiImageError):
        cause = cause.__cause__
    if not isinstance(cause, _BUGS):
        return False
    return traceback.extract_tb(cause.__traceback__)[-1].filename.startswith(_PACKAGE)
