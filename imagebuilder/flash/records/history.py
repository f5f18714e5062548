"""The history of cards: one JSON document a line, appended beside the ledger, never rewritten."""

from __future__ import annotations

import contextlib
import json
import os
import platform
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING

from imagebuilder.files import hand_over

if TYPE_CHECKING:
    from pathlib import Path


MOST_HISTORY_BYTES = 4 << 20  # of the end of the file are read, about 10,000 cards


@dataclass(frozen=True, slots=True, kw_only=True)
class CardEvent:
    """One card that was written or failed; `who` is user@host, `serial` as in the ledger."""

    when: str
    who: str
    node: str
    state: str
    config_hash: str = ""
    card: str = ""
    serial: str = ""
    device: str = ""
    slot: str = ""
    error: str = ""


def append_event(path: Path, event: CardEvent) -> None:
    """Append an event durably. Raise OSError on failure.

    A line that was cut off by a power failure is ended first, so that it spoils only itself.
    """
    line = json.dumps({k: v for k, v in asdict(event).items() if v}, ensure_ascii=False)
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
    descriptor = os.open(path, flags | getattr(os, "O_BINARY", 0), 0o644)
    with os.fdopen(descriptor, "r+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1))
        torn = file.read(1) not in (b"", b"\n")
        file.write(b"\n" * torn + line.encode("utf-8", "replace") + b"\n")
        file.flush()
        os.fsync(file.fileno())
    hand_over(path)


def read_history(path: Path, node: str = "") -> tuple[CardEvent, ...]:
    """Return the events of a node, by default of all, oldest first; damaged lines are left out."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - MOST_HISTORY_BYTES))
            lines = file.read(MOST_HISTORY_BYTES).splitlines()
    except OSError:
        return ()
    events = (_parsed(line) for line in lines)
    return tuple(event for event in events if event and node in ("", event.node))


def _parsed(line: bytes) -> CardEvent | None:
    known = {field.name for field in fields(CardEvent)}
    with contextlib.suppress(ValueError, TypeError, AttributeError, RecursionError):
        found = json.loads(line)
        return CardEvent(**{k: str(v) for k, v in found.items() if k in known})
    return None


def user_name() -> str:
    """Return user@host, or the host where the user has no name."""
    try:
        import pwd  # noqa: PLC0415 - not on Windows

        return f"{pwd.getpwuid(os.geteuid()).pw_name}@{platform.node()}"
    except (ImportError, KeyError):
        return platform.node()
