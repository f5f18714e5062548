"""Join the parts of the Pi's shell scripts into one file for each script on the card."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from imagebuilder.errors import SettingsError
from imagebuilder.model import OverlayFile
from imagebuilder.plan.card_layout import FOLDER

if TYPE_CHECKING:
    from pathlib import Path

_LINE = re.compile(
    r"(?P<path>[a-z_]+/[a-z0-9_]+\.sh)"
    r"(?:\s+(?P<function>[a-z_]+)(?:\s+(?P<label>[A-Za-z ]+))?)?"
)


@dataclass(frozen=True, slots=True)
class _ScriptPart:
    """A line of a list: a file, and the function and label of its step if it has one.

    A function without a label makes steps itself.
    """

    path: str
    function: str | None
    label: str | None


def load_scripts(folder: Path) -> tuple[OverlayFile, ...]:
    """Return `rpi-image/NAME` for every list NAME.parts of a folder.

    The parts are joined in the order of the list, with a function `steps` that runs their steps in
    this order; then `main` is called. As one file, no part can be missing on the card. Raise
    SettingsError if a list contains a file that is not a part in the folder, or if a part is in no
    list.
    """
    lists = sorted(folder.glob("*.parts"))
    if not lists:
        raise SettingsError(f"no *.parts list in {folder}", "install the program again")
    scripts = {path: _listed(path) for path in lists}
    _refuse_unlisted(folder, {part.path for parts in scripts.values() for part in parts})
    return tuple(
        OverlayFile(f"{FOLDER}{path.stem}", _joined(folder, parts), str(path), secrets=True)
        for path, parts in scripts.items()
    )


def _listed(path: Path) -> tuple[_ScriptPart, ...]:
    """Return the parts that a list names; blank lines and comments are skipped."""
    parts: dict[str, _ScriptPart] = {}
    for line in map(str.strip, path.read_text(encoding="utf-8").splitlines()):
        if not line or line.startswith("#"):
            continue
        found = _LINE.fullmatch(line)
        if not found:
            raise SettingsError(f"{path}: {line!r} is not a part", "write FOLDER/NAME.sh")
        part = _ScriptPart(**found.groupdict())
        if part.path in parts:
            raise SettingsError(f"{path}: {part.path} is listed twice", "remove one of the lines")
        parts[part.path] = part
    return tuple(parts.values())


def _refuse_unlisted(folder: Path, listed: set[str]) -> None:
    for path in sorted(folder.rglob("*.sh")):
        part = path.relative_to(folder).as_posix()
        if part not in listed and not path.name.startswith("."):
            raise SettingsError(f"{path} is in no list of parts", f"add it to one in {folder}")


def _joined(folder: Path, parts: tuple[_ScriptPart, ...]) -> bytes:
    texts = [_without_introduction(_read(folder, part)) for part in parts]
    if steps := [_step(part) for part in parts if part.function]:
        texts.append(f"steps() {{\n{''.join(steps)}}}\n".encode())
    return b"\n".join([*texts, b'main "$@"\n'])


def _without_introduction(text: bytes) -> bytes:
    """Return a part without its first comment, which is for developers; cards have little space."""
    lines = text.splitlines(keepends=True)
    if text.startswith(b"#!"):
        return text
    while lines and lines[0].startswith(b"#") and b"shellcheck" not in lines[0]:
        del lines[0]
    return b"".join(lines).lstrip(b"\n")


def _step(part: _ScriptPart) -> str:
    return f"    step '{part.label}' {part.function}\n" if part.label else f"    {part.function}\n"


def _read(folder: Path, part: _ScriptPart) -> bytes:
    path = folder / part.path
    if not path.resolve().is_relative_to(folder.resolve()):
        raise SettingsError(f"{path} links outside {folder}", "replace the link by a file")
    try:
        text = path.read_bytes()
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror}", "check the list") from error
    if part.function and f"\n{part.function}() {{\n".encode() not in text:
        raise SettingsError(f"{path} does not define {part.function}", "fix the name in the list")
    return text
