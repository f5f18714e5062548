"""The record of nodes and their cards: a YAML file next to the classroom file."""

from __future__ import annotations

import json
import os
import platform
import sys
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imagebuilder.errors import InputError, RefusedError, WriteError
from imagebuilder.files import hand_over, write_file
from imagebuilder.flash.records.history import CardEvent, append_event, read_history, user_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

WRITING, WRITTEN, FAILED = "writing", "written", "failed"
_HEAD = "# The cards of nodes, written by `rpi-image`. Delete an entry to forget a card.\n"
_LOCK_SECONDS = 10
MOST_VALUES = 400_000  # budget, in keys and values: 10,000 nodes of 15 fields


class NodeTakenError(RefusedError):
    """The node has a card, or another program is writing it; other nodes may be free."""


class UnusableCardError(RefusedError):
    """A written card must not be used: another station has the node, or may have it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerEntry:
    """The card of one node; times are ISO 8601 with zone, `by` is host:pid of the program.

    A card is identified by `config_hash` and `built` (epoch seconds, as text), because a card of an
    earlier class may have the same configuration. `settings` is what the card was written from, as
    JSON (`build.wanted`), and empty in ledgers of earlier versions; `serial` is the CID or serial
    number of the card, or that of its volume. An entry of another station has `settings_hash`
    instead of `settings`.
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
    serial: str = ""
    settings: str = ""
    settings_hash: str = ""

    def is_on(self, config_hash: str, built: str) -> bool:
        """Return whether a card with this configuration is the card of this entry."""
        same = bool(config_hash) and self.config_hash == config_hash
        return same and self.state == WRITTEN and self.built in ("", built)

    @property
    def recorded(self) -> Mapping[str, str]:
        """The settings as a mapping; empty if they were not recorded or are not valid."""
        try:
            found = json.loads(self.settings) if self.settings else None
        except (ValueError, RecursionError):
            return {}
        if not isinstance(found, dict):
            return {}
        return {key: value for key, value in found.items() if isinstance(value, str)}


class Ledger:
    """The last entry of every node; locked, so that several programs may use it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def entries(self) -> tuple[LedgerEntry, ...]:
        """Return all entries. Raise InputError if the file is not a ledger or cannot be read."""
        return self.stored()

    def stored(self) -> tuple[LedgerEntry, ...]:
        """Return the entries of the file, as `entries` does."""
        try:
            text = self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return ()
        except (UnicodeDecodeError, IsADirectoryError) as error:
            raise _no_ledger(str(self.path)) from error
        except OSError as error:
            raise InputError(
                f"cannot read {self.path}: {error.strerror}", "fix its permissions, or move it away"
            ) from error
        return parse_ledger(text, str(self.path))

    def done(self) -> frozenset[str]:
        """Return the nodes that are written, or being written by a running program."""
        return frozenset(e.node for e in self.entries() if e.state == WRITTEN or is_alive(e))

    @property
    def history_path(self) -> Path:
        """The file with every card that was written, beside the ledger."""
        return self.path.with_suffix(".jsonl")

    def history(self, node: str = "") -> tuple[CardEvent, ...]:
        """Return what was written, of one node or of all, oldest first."""
        return read_history(self.history_path, node)

    def last(
        self, node: str, *, again: bool = False, outdated: LedgerEntry | None = None
    ) -> LedgerEntry | None:
        """Return the entry of a node. Raise NodeTakenError if `claim` would."""
        return last_of(self.entries(), node, again=again, outdated=outdated)

    def claim(
        self, entry: LedgerEntry, *, again: bool = False, outdated: LedgerEntry | None = None
    ) -> LedgerEntry | None:
        """Record that a node is being written; return its previous entry.

        Raise NodeTakenError if it is being written, or has a card that is not the `outdated` one.
        """
        with self._changing() as entries:
            last = last_of(entries, entry.node, again=again, outdated=outdated)
            _put(entries, replace(entry, state=WRITING, by=_myself()))
        return last

    def settle(self, entry: LedgerEntry, lost: LedgerEntry | None = None, why: str = "") -> None:
        """Record the result; mark the entry `lost`, whose card was overwritten, as failed.

        Raise UnusableCardError if another station has the node.
        """
        with self._changing() as entries:
            gone = replace(lost, state=FAILED, error=why) if lost and lost in entries else None
            for changed in filter(None, (gone, entry)):
                _put(entries, changed)
        self._note(*filter(None, (gone, entry)))

    def restore(self, entry: LedgerEntry) -> None:
        """Put back the previous entry of a node whose card was not changed."""
        with self._changing() as entries:
            _put(entries, entry)

    def forget(self, node: str) -> None:
        """Remove the entry of a node."""
        with self._changing() as entries:
            entries[:] = [entry for entry in entries if entry.node != node]

    def _note(self, *entries: LedgerEntry) -> None:
        try:
            for entry in entries:
                append_event(self.history_path, event_of(entry))
        except OSError as error:
            raise WriteError(
                f"cannot write {self.history_path}: {error.strerror}",
                "free some space, or fix its permissions; the ledger itself was written",
            ) from error

    @contextmanager
    def _changing(self) -> Iterator[list[LedgerEntry]]:
        from filelock import FileLock, Timeout  # noqa: PLC0415 - slow, needed with a class only

        lock = FileLock(f"{self.path}.lock", timeout=_LOCK_SECONDS)
        try:
            with lock:
                hand_over(Path(lock.lock_file))
                entries = list(self.stored())
                yield entries
                write_file(self.path, render_ledger(entries).encode())
        except Timeout as error:
            raise RefusedError(
                f"{self.path} is locked", "wait for the other rpi-image, or stop it"
            ) from error
        except OSError as error:
            raise WriteError(
                f"cannot write {self.path}: {error.strerror}",
                "free some space, or fix its permissions",
            ) from error


def ledger_of(config: Path) -> Ledger:
    """Return the ledger of a classroom file, which is stored beside it."""
    return Ledger(config.with_suffix(".cards.yml"))


def event_of(entry: LedgerEntry) -> CardEvent:
    """Return the event that an entry of the ledger describes."""
    return CardEvent(
        when=entry.finished or entry.started,
        who=user_name(),
        node=entry.node,
        state=entry.state,
        config_hash=entry.config_hash,
        card=entry.card,
        serial=entry.serial,
        device=entry.device,
        slot=entry.slot,
        error=entry.error,
    )


def parse_ledger(text: str, name: str) -> tuple[LedgerEntry, ...]:
    """Return the entries of a ledger; ignore unknown keys of later versions.

    Raise InputError if it is not a ledger.
    """
    import yaml  # noqa: PLC0415 - slow, needed with a class only

    from imagebuilder.plan.plain_yaml import LOADER, load_plain  # noqa: PLC0415

    known = {field.name for field in fields(LedgerEntry)}
    try:
        found = load_plain(text, loader=LOADER, most_values=MOST_VALUES)
        cards: list[dict[str, Any]] = (found or {"cards": []})["cards"] or []
        return tuple(_parse_entry({k: v for k, v in c.items() if k in known}) for c in cards)
    except (
        yaml.YAMLError,
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
        OverflowError,
    ) as error:
        raise _no_ledger(name) from error


def _no_ledger(name: str) -> InputError:
    return InputError(f"{name} is not a ledger of cards", "fix it, or move it away")


def _parse_entry(found: dict[str, Any]) -> LedgerEntry:
    """Return an entry; convert values to text or number, because a user may have edited them."""
    kinds = {"bytes_written": int, "seconds": float}
    return LedgerEntry(**{key: kinds.get(key, str)(value) for key, value in found.items()})


def render_ledger(entries: list[LedgerEntry]) -> str:
    """Return the entries as YAML, without empty values."""
    import yaml  # noqa: PLC0415 - slow, as above

    cards = [{k: v for k, v in asdict(entry).items() if v} for entry in entries]
    body: str = yaml.dump({"cards": cards}, Dumper=_dumper(), sort_keys=False, allow_unicode=True)
    return _HEAD + body


def _dumper() -> type[Any]:
    import yaml  # noqa: PLC0415 - slow, as above

    return getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def is_alive(entry: LedgerEntry) -> bool:
    """Return whether the program that writes this node is running; on another host assume so."""
    if entry.state != WRITING:
        return False
    host, _, pid = entry.by.rpartition(":")
    if host != platform.node() or not pid.isdigit():
        return bool(host) and host != platform.node()
    if sys.platform == "win32":
        return False  # os.kill would end the process; `apply` takes seconds only
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def last_of(
    entries: Iterable[LedgerEntry], node: str, *, again: bool, outdated: LedgerEntry | None
) -> LedgerEntry | None:
    """Return the entry of a node. Raise NodeTakenError if it must not be written."""
    last = next((entry for entry in entries if entry.node == node), None)
    rewrites = again or (last is not None and last == outdated)
    if last and (is_alive(last) or (last.state == WRITTEN and not rewrites)):
        raise _taken(last)
    return last


def _taken(last: LedgerEntry) -> NodeTakenError:
    if last.state == WRITING:
        return NodeTakenError(
            f"{last.node} is being written to {last.device}", "wait for it, or stop that program"
        )
    return NodeTakenError(
        f"{last.node} was written to {last.card or last.device} on {last.finished}",
        "use --again to write it again",
    )


def skipped(taken: Mapping[str, NodeTakenError]) -> str:
    """Return in one sentence which nodes were found taken; empty if none was."""
    if len(taken) > 1:
        first, *_, last = taken
        return f"skipping {len(taken)} nodes that other programs took, {first} to {last}"
    return "".join(f"skipping {node}: {error.message}" for node, error in taken.items())


def _put(entries: list[LedgerEntry], entry: LedgerEntry) -> None:
    for at, old in enumerate(entries):
        if old.node == entry.node:
            entries[at] = entry
            return
    entries.append(entry)


def _myself() -> str:
    return f"{platform.node()}:{os.getpid()}"
