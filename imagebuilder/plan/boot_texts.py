"""Read and edit the vendor's text files on the boot partition."""

from __future__ import annotations

import re
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from functools import lru_cache
from typing import TYPE_CHECKING

import yaml

from imagebuilder.errors import ImageError, SettingsError
from imagebuilder.plan.card_layout import SCRIPT_FOLDERS
from imagebuilder.plan.plain_yaml import load_plain, yaml_reason

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_UTF16 = (BOM_UTF16_LE, BOM_UTF16_BE)
_JINJA = re.compile(rb"##\s*template:\s*jinja", re.IGNORECASE)
_FILTER = re.compile(r"\s*\[([^\]]*)\]")
_BOARD = re.compile(r"pi|cm|none")
_ALL_BOARDS: Mapping[str, str] = {}
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


# ---- texts


def read_appended(data: bytes, origin: str) -> str:
    """Return the lines to append, in any 8-bit encoding, with or without a byte order mark.

    Raise SettingsError if it is not text.
    """
    if b"\0" in data:
        raise SettingsError(
            f"{origin} is not a text file", "save it as UTF-8; it may be UTF-16 now"
        )
    return data.decode("utf-8-sig", "surrogateescape")


def as_script(path: str, data: bytes, origin: str) -> bytes:
    """Return a script as the Pi can run it: without byte order mark, with the line ends of Unix.

    Other files are returned unchanged. The kernel takes a carriage return as part of the name in
    `#!` (execve(2)), a shell as part of the last word. Raise SettingsError if it is UTF-16.
    """
    ours = path.lower().startswith(SCRIPT_FOLDERS)
    if ours and data.startswith(_UTF16):
        raise SettingsError(f"{origin} is UTF-16, which shells cannot read", "save it as UTF-8")
    text = data.removeprefix(BOM_UTF8)
    if b"\0" in text or not (ours or text.startswith(b"#!")):
        return data
    return text.replace(b"\r\n", b"\n").removesuffix(b"\r")


@lru_cache(maxsize=16)
def parse_mapping(text: bytes, path: str) -> Mapping[str, object]:
    """Return a vendor's YAML file; an empty mapping if it holds no values.

    Raise ImageError if it is anything else, because our own file would silently replace it.
    """
    hint = f"fix it in the image, or replace it with an overlay that has its own {path}"
    if _JINJA.match(text):
        raise ImageError(f"{path} is a Jinja template of cloud-init, which cannot be merged", hint)
    try:
        found = load_plain(text)
    except yaml.YAMLError as error:
        raise ImageError(
            f"{path} is not a single YAML mapping: {yaml_reason(error)}", hint
        ) from error
    if not isinstance(found, dict | None):
        raise ImageError(f"{path} is not a single YAML mapping but a {type(found).__name__}", hint)
    return found or {}


# ---- occidentalis.txt: name=value lines


def set_lines(text: str, values: dict[str, str]) -> str:
    """Set `name=value` lines in place; remove those with an empty value.

    Names are compared without case. The first line of a name is set and later ones are removed,
    because the last one counts on the Pi. Line ends and comments stay as they are.
    """
    ending = "\r\n" if "\r\n" in text else "\n"
    left = dict(values)
    lines: list[str] = []
    for line in split_lines(text):
        name = line.partition("=")[0].lower() if "=" in line else ""
        if name not in values:
            lines.append(line)
        elif left.get(name):
            lines.append(f"{name}={left.pop(name)}")
    lines += [f"{name}={value}" for name, value in left.items() if value]
    return "".join(line + ending for line in lines)


def line_value(text: str, name: str) -> str:
    """Return the value of the last `name=value` line, which the Pi uses; empty if there is none."""
    values = [line.partition("=") for line in split_lines(text)]
    return next((value for key, _, value in reversed(values) if key.lower() == name), "")


def split_lines(text: str) -> list[str]:
    """Return the lines as the Pi sees them: split at newlines, not at Unicode line separators."""
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    return lines[:-1] if lines[-1] == "" else lines


def check_line(value: str) -> str:
    """Return `value` unchanged. Raise SettingsError if it has a control character."""
    found = _CONTROL.search(value)
    if found:
        raise SettingsError(
            f"a value contains the control character {found[0]!r}",
            "remove it from the settings",
        )
    return value


def check_verbatim(value: str, what: str) -> str:
    """Return `value` unchanged. Raise SettingsError if a `name=value` line would change it."""
    if value != value.strip():
        raise SettingsError(
            f"{what} begins or ends with a space, which occidentalis.txt cannot store",
            "rename the network, or use a newer base image",
        )
    return check_line(value)


# ---- config.txt


def add_config_lines(text: str, lines: tuple[str, ...]) -> str:
    """Append lines that config.txt does not have yet for the same boards.

    The lines begin under `[all]` and may have filters of their own. Filters are closed at the
    end, because tools on the Pi append lines without a filter.
    """
    present, open_filters = set(), _ALL_BOARDS
    for open_filters, line in _filtered(split_lines(text)):
        present.add((frozenset(open_filters.values()), line.strip()))
    added: list[str] = []
    for filters, line in _filtered(list(lines)):
        if line.strip() and (frozenset(filters.values()), line.strip()) not in present:
            added += [*_switch(open_filters, filters), line]
            open_filters = filters
    if not added:
        return text
    start = text if not text or text.endswith("\n") else text + "\n"
    return start + "".join(f"{line}\n" for line in added + _switch(open_filters, _ALL_BOARDS))


def _filtered(lines: list[str]) -> Iterator[tuple[Mapping[str, str], str]]:
    """Yield each line with the filters that apply to it, by kind; a filter line is yielded empty.

    Filters of different kinds are combined, one of the same kind replaces the other.
    https://www.raspberrypi.com/documentation/computers/config_txt.html#conditional-filters
    """
    filters = _ALL_BOARDS
    for line in lines:
        found = _FILTER.match(line)
        if found is None:
            yield filters, line
            continue
        name = found[1].lower()
        if _BOARD.match(name):
            filters = {**filters, "board": f"[{name}]"}
        else:
            kind = re.split("[=:]|0x", name)[0]
            filters = {} if name == "all" else {**filters, kind: f"[{found[1]}]"}
        yield filters, ""


def _switch(now: Mapping[str, str], then: Mapping[str, str]) -> list[str]:
    """Return the filter lines that switch from the filters `now` to `then`."""
    if now == then:
        return []
    head = ["[all]"] if now.keys() - then.keys() else []
    return head + list(then.values())
