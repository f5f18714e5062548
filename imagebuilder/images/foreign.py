"""The door for bytes that others made: what parsing them raises becomes an error of the user's."""

from __future__ import annotations

import struct
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imagebuilder.errors import RpiImageError


# What parsers of the standard library and of others raise for bytes that nobody foresaw.
PARSING_ERRORS: tuple[type[Exception], ...] = (
    ArithmeticError,
    EOFError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)


@contextmanager
def foreign(kind: type[RpiImageError], what: str, hint: str) -> Iterator[None]:
    """Turn what parsing raises into an error of `kind`; `what` names the file and the place."""
    try:
        yield
    except PARSING_ERRORS as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise kind(f"{what} cannot be read: {reason}", hint) from error
