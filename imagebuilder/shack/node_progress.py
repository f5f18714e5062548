"""How far a node is, as it tells the shack's consul itself: hostile text, only ever shown."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

PREFIX = "rpi-image/nodes/"
# Budgets of one document: its bytes, and the letters that are shown of a text.
MOST_DOCUMENT_BYTES = 4096
MOST_STAGE_LETTERS = 60
MOST_ERROR_LETTERS = 200
FRESH = timedelta(minutes=15)
_READY = "ready"


@dataclass(frozen=True, slots=True)
class NodeProgress:
    """The stage of a node, with its percentage and error; nothing in it is checked or trusted.

    `is_fresh` says whether it was told in the last minutes, by the clock of the node.
    """

    stage: str
    percent: int | None = None
    error: str = ""
    address: str = ""
    updated: str = ""
    is_fresh: bool = False

    @property
    def words(self) -> str:
        """The stage for a line of text, for example `pulling consul, 40 %`; empty if ready."""
        if self.stage == _READY and not self.error:
            return ""
        percent = "" if self.percent is None else f"{self.percent} %"
        return ", ".join(filter(None, (self.stage, percent, self.error)))


def parse_progress(entries: Any, now: datetime) -> dict[str, NodeProgress]:
    """Return the documents below PREFIX in an answer of consul by hostname; skip what is not one.

    Raise TypeError if the answer is not a list.
    """
    if not isinstance(entries, list):
        raise TypeError(type(entries).__name__)
    found = {}
    for entry in entries:
        key, value = (entry.get("Key"), entry.get("Value")) if isinstance(entry, dict) else ("", "")
        if not isinstance(key, str) or not isinstance(value, str) or not key.startswith(PREFIX):
            continue
        if document := _document(value):
            found[key.removeprefix(PREFIX)] = _progress(document, now)
    return found


def _document(value: str) -> dict[str, Any] | None:
    if len(value) > MOST_DOCUMENT_BYTES * 4 // 3:
        return None
    try:
        found = json.loads(base64.b64decode(value))
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _progress(document: dict[str, Any], now: datetime) -> NodeProgress:
    percent = document.get("percent")
    known = isinstance(percent, int) and not isinstance(percent, bool)
    return NodeProgress(
        stage=_shown(document.get("stage"), MOST_STAGE_LETTERS),
        percent=min(max(percent, 0), 100) if known and percent is not None else None,
        error=_shown(document.get("error"), MOST_ERROR_LETTERS),
        address=_shown(document.get("address"), MOST_STAGE_LETTERS),
        updated=_shown(document.get("updated"), MOST_STAGE_LETTERS),
        is_fresh=_is_fresh(document.get("updated"), now),
    )


def _shown(value: object, most: int) -> str:
    """Return a text without what is not printable, cut off."""
    text = value if isinstance(value, str) else ""
    return "".join(c for c in text[: most * 4] if c.isprintable())[:most]


def _is_fresh(updated: object, now: datetime) -> bool:
    try:
        told = datetime.fromisoformat(updated) if isinstance(updated, str) else None
    except ValueError:
        return False
    return (
        told is not None and abs(now - (told if told.tzinfo else told.replace(tzinfo=UTC))) < FRESH
    )
