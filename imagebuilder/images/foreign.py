"""Turn the exceptions of parsers, which untrusted bytes cause, into errors for the user."""

from __future__ import annotations

import struct
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imagebuilder.errors import RpiImageError


# What parsers of the standard library and of packages raise for invalid bytes.
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
    """Turn a parsing error into one of `kind`; `what` is the file and the place in it."""
    try:
        yield
    except PARSING_ERRORS as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise kind(f"cannot read {what}: {reason}", hint) from error
