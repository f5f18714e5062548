"""At the door: what Python raises over foreign bytes is an error that names them, not a bug."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest

from imagebuilder.build import compose, inspect
from imagebuilder.errors import ImageError, InputError, SettingsError, reading
from imagebuilder.images.cache import Cache
from imagebuilder.model import BaseImage
from imagebuilder.settings import load
from imagebuilder.settings.load import check_classroom

if TYPE_CHECKING:
    from pathlib import Path

RAISED = [
    IndexError("1"),
    KeyError("a"),
    MemoryError(),
    OverflowError("x"),
    RecursionError("x"),
    TypeError("x"),
    UnicodeDecodeError("utf-8", b"secret", 0, 1, "x"),
    ValueError("secret"),
    struct.error("x"),
]


@pytest.mark.parametrize("raised", RAISED, ids=lambda error: type(error).__name__)
def test_an_exception_of_a_parser_names_the_file_and_not_its_content(raised: Exception) -> None:
    with pytest.raises(ImageError) as caught, reading("base.img", ImageError):
        raise raised
    assert caught.value.message.startswith(f"base.img cannot be read: {type(raised).__name__} at ")
    assert "secret" not in caught.value.message


def test_our_own_errors_pass() -> None:
    with pytest.raises(InputError, match=r"^mine$"), reading("base.img", ImageError):
        raise InputError("mine")


def test_a_settings_file_that_upsets_the_program_is_exit_3(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def upset(*_: object) -> None:
        raise IndexError

    monkeypatch.setattr(load, "resolve_classroom", upset)
    path = tmp_path / "room.yml"
    path.write_text("profile: armv7\nnodes: [{hostname: a}]\n")
    said = r"room\.yml cannot be read: IndexError at settings/load"
    with pytest.raises(SettingsError, match=said):
        check_classroom(path, environment={})


def test_an_image_that_upsets_the_program_is_exit_5(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def upset(*_: object) -> None:
        raise struct.error

    monkeypatch.setattr(inspect, "read_partitions", upset)
    path = tmp_path / "base.img"
    path.write_bytes(bytes(1 << 16))
    with pytest.raises(ImageError, match=r"base\.img cannot be read: error at build/inspect"):
        inspect.inspect_file(path, Cache(tmp_path))


def test_a_base_that_upsets_the_program_is_exit_5(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def upset(*_: object) -> None:
        raise KeyError

    monkeypatch.setattr(compose, "read_partitions", upset)
    path = tmp_path / "base.img"
    path.write_bytes(bytes(1 << 16))
    base = BaseImage(path, "0" * 64, 1 << 16, "base.img")
    with (
        pytest.raises(ImageError, match=r"base\.img cannot be read: KeyError at build/compose"),
        compose.open_composer(base, epoch=1),
    ):
        pytest.fail("it was opened")
