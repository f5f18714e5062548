"""Whatever a parser raises for foreign bytes becomes an error with the name of the file."""

from __future__ import annotations

import json
import struct
import zlib
from typing import TYPE_CHECKING

import pytest

from imagebuilder.errors import ImageError, SourceError
from imagebuilder.images.foreign import foreign

if TYPE_CHECKING:
    from collections.abc import Callable

PARSERS: dict[str, Callable[[], object]] = {
    "a number": lambda: int("1\n2"),
    "a structure": lambda: struct.unpack("<I", b"abc"),
    "a document": lambda: json.loads("[1,"),
    "a name": lambda: b"\xff".decode("utf-8"),
    "a key": dict[str, str]().popitem,
    "a division": lambda: 1 // int("0"),
}


@pytest.mark.parametrize("what", PARSERS)
def test_what_a_parser_raises_names_the_file_in_one_line(what: str) -> None:
    with pytest.raises(ImageError) as caught, foreign(ImageError, "a.img", "get it again"):
        PARSERS[what]()
    assert caught.value.message.startswith("cannot read a.img: ")
    assert "\n" not in caught.value.message
    assert caught.value.hint == "get it again"
    assert caught.value.__cause__ is not None


def test_an_exception_without_words_is_named() -> None:
    with (
        pytest.raises(SourceError, match=r"cannot read x: EOFError"),
        foreign(SourceError, "x", "try later"),
    ):
        raise EOFError


def test_what_is_no_parsing_error_stays_what_it_is() -> None:
    with pytest.raises(zlib.error), foreign(ImageError, "a.img", "get it again"):
        zlib.decompress(b"no")
