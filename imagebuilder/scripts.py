"""Joins the shell scripts of the Pi: a file a concern here, one file a script on the card."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from imagebuilder.errors import SettingsError
from imagebuilder.model import OverlayFile

if TYPE_CHECKING:
    from pathlib import Path

_PART = re.compile(r"[a-z_]+/[a-z0-9_]+\.sh")


def load_scripts(folder: Path) -> tuple[OverlayFile, ...]:
    """Return `rpi-image/NAME` for every list NAME.parts of a folder.

    Its parts are joined in the order of the list, then `main` is called. One file on the card
    cannot lack a part of itself. Raise SettingsError for a list that names what is not a part
    below the folder, and for a part that is in no list.
    """
    lists = sorted(folder.glob("*.parts"))
    scripts = {path.stem: _listed(path) for path in lists}
    used = {part for parts in scripts.values() for part in parts}
    for path in sorted(folder.rglob("*.sh")):
        part = path.relative_to(folder).as_posix()
        if part not in used and not path.name.startswith("."):
            raise SettingsError(f"{path} is in no list of parts", f"add it to one in {folder}")
    if not scripts:
        raise SettingsError(f"no script is listed in {folder}", "install the program again")
    return tuple(
        OverlayFile(
            f"rpi-image/{name}", _joined(folder, parts), str(folder / f"{name}.parts"), secrets=True
        )
        for name, parts in scripts.items()
    )


def _listed(path: Path) -> tuple[str, ...]:
    """Return the parts that a list names; blank lines and comments are skipped."""
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    parts = tuple(line for line in lines if line and not line.startswith("#"))
    for number, part in enumerate(parts):
        if not _PART.fullmatch(part):
            raise SettingsError(f"{path}: {part!r} is not a part", "write FOLDER/NAME.sh")
        if part in parts[:number]:
            raise SettingsError(f"{path}: {part} is listed twice", "remove one of the two lines")
    return parts


def _joined(folder: Path, parts: tuple[str, ...]) -> bytes:
    texts = [_read(folder, part) for part in parts]
    return b"\n".join([*texts, b'main "$@"\n'])


def _read(folder: Path, part: str) -> bytes:
    path = folder / part
    if not path.resolve().is_relative_to(folder.resolve()):
        raise SettingsError(f"{path} leads outside {folder}", "put the part itself there")
    try:
        return path.read_bytes()
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror}", "check the list") from error
