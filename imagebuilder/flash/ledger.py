"""Which node went onto which card: a YAML file beside the classroom file, locked and atomic."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imagebuilder.errors import InputError, RefusedError, WriteError
from imagebuilder.files import hand_over, write_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

WRITING, WRITTEN, FAILED = "writing", "written", "failed"
_HEAD = (
    "# Which node went onto which card; kept by `rpi-image flash`. Delete an entry to forget it.\n"
)
_LOCK_SECONDS = 10
MOST_VALUES = 400_000  # budget, in keys and values: 10,000 nodes of 15 fields


class NodeTakenError(RefusedError):
    """This node has its card, or another program is writing it; other nodes may be free."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerEntry:
    """One node's card; times are ISO 8601 with zone, `by` is host:pid of the program.

    A card is known by `config_hash` and `built` (epoch seconds, as text): the node of another year
    may have the same configuration.
    """

    node: str
    state: str
    device: str = ""
    slot: str = ""
    card: str = ""
    config_hash: str = ""
    built: str = ""
    base_sha256: str = ""
    digest: str = ""
    bytes_written: int = 0
    seconds: float = 0.0
    started: str = ""
    finished: str = ""
    error: str = ""
    by: str = ""


class Ledger:
    """The last entry of every node; several programs may use it at once."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def entries(self) -> tuple[LedgerEntry, ...]:
        """Return all entries; raises InputError where the file is no ledger or cannot be read."""
        try:
            text = self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return ()
        except (UnicodeDecodeError, IsADirectoryError) as error:
            raise _no_ledger(str(self.path)) from error
        except OSError as error:
            raise InputError(
                f"{self.path} cannot be read: {error.strerror}", "mend its rights, or move it away"
            ) from error
        return parse_ledger(text, str(self.path))

    def done(self) -> frozenset[str]:
        """Return the nodes that are written, or being written by a program that still runs."""
        return frozenset(e.node for e in self.entries() if e.state == WRITTEN or is_alive(e))

    def last(self, node: str, *, again: bool = False) -> LedgerEntry | None:
        """Return what is noted of a node; raises NodeTakenError where `claim` would."""
        return _last(self.entries(), node, again=again)

    def claim(self, entry: LedgerEntry, *, again: bool = False) -> LedgerEntry | None:
        """Note that a node is being written, and give what was noted of it before.

        Raises NodeTakenError where it is being written or has its card already.
        """
        with self._changing() as entries:
            last = _last(entries, entry.node, again=again)
            _put(entries, replace(entry, state=WRITING, by=_myself()))
        return last

    def settle(self, entry: LedgerEntry, lost: LedgerEntry | None = None, why: str = "") -> None:
        """Note how it ended; `lost` lost its card to it, unless it has another one by now."""
        with self._changing() as entries:
            if lost in entries:
                _put(entries, replace(lost, state=FAILED, error=why))
            _put(entries, entry)

    def forget(self, node: str) -> None:
        """Take out a node's entry."""
        with self._changing() as entries:
            entries[:] = [entry for entry in entries if entry.node != node]

    @contextmanager
    def _changing(self) -> Iterator[list[LedgerEntry]]:
        from filelock import FileLock, Timeout  # noqa: PLC0415 - a card without a class needs none

        lock = FileLock(f"{self.path}.lock", timeout=_LOCK_SECONDS)
        try:
            with lock:
                hand_over(Path(lock.lock_file))
                entries = list(self.entries())
                yield entries
                write_file(self.path, render_ledger(entries).encode())
        except Timeout as error:
            raise RefusedError(
                f"{self.path} is locked", "another rpi-image uses it: wait, or end that one"
            ) from error
        except OSError as error:
            raise WriteError(
                f"cannot write {self.path}: {error.strerror}", "make room, or mend its rights"
            ) from error


def parse_ledger(text: str, name: str) -> tuple[LedgerEntry, ...]:
    """Read a ledger; unknown keys are left out, so that an older program can read a newer file."""
    import yaml  # noqa: PLC0415 - a card without a class needs none

    from imagebuilder.plan.plain_yaml import LOADER, load_plain  # noqa: PLC0415

    known = {field.name for field in fields(LedgerEntry)}
    try:
        found = load_plain(text, loader=LOADER, most_values=MOST_VALUES)
        cards: list[dict[str, Any]] = (found or {"cards": []})["cards"] or []
        return tuple(_parse_entry({k: v for k, v in c.items() if k in known}) for c in cards)
    except (yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise _no_ledger(name) from error


def _no_ledger(name: str) -> InputError:
    return InputError(f"{name} is not a ledger of cards", "mend it, or move it away to begin anew")


def _parse_entry(found: dict[str, Any]) -> LedgerEntry:
    """Take the values as text or number, whatever YAML made of what a person typed."""
    kinds = {"bytes_written": int, "seconds": float}
    return LedgerEntry(**{key: kinds.get(key, str)(value) for key, value in found.items()})


def render_ledger(entries: list[LedgerEntry]) -> str:
    """Write the entries for people to read: what is empty is left out."""
    import yaml  # noqa: PLC0415 - as above

    cards = [{k: v for k, v in asdict(entry).items() if v} for entry in entries]
    body: str = yaml.safe_dump({"cards": cards}, sort_keys=False, allow_unicode=True)
    return _HEAD + body


def is_alive(entry: LedgerEntry) -> bool:
    """Return whether the program that writes this node still runs, here or on another machine."""
    if entry.state != WRITING:
        return False
    host, _, pid = entry.by.rpartition(":")
    if host != os.uname().nodename or not pid.isdigit():
        return bool(host) and host != os.uname().nodename
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _last(entries: Iterable[LedgerEntry], node: str, *, again: bool) -> LedgerEntry | None:
    last = next((entry for entry in entries if entry.node == node), None)
    if last and (is_alive(last) or (last.state == WRITTEN and not again)):
        raise _taken(last)
    return last


def _taken(last: LedgerEntry) -> NodeTakenError:
    if last.state == WRITING:
        return NodeTakenError(
            f"{last.node} is being written to {last.device}", "wait for it, or end that program"
        )
    return NodeTakenError(
        f"{last.node} was written to {last.card or last.device} on {last.finished}",
        "give --again to write it once more",
    )


def _put(entries: list[LedgerEntry], entry: LedgerEntry) -> None:
    for at, old in enumerate(entries):
        if old.node == entry.node:
            entries[at] = entry
            return
    entries.append(entry)


def _myself() -> str:
    return f"{os.uname().nodename}:{os.getpid()}"
