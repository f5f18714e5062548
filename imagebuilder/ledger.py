"""Which node went onto which card: a YAML file beside the classroom file, locked and atomic."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from imagebuilder.errors import InputError, RefusedError, WriteError
from imagebuilder.files import write_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WRITING, WRITTEN, FAILED = "writing", "written", "failed"
_HEAD = (
    "# Which node went onto which card; kept by `rpi-image flash`. Delete an entry to forget it.\n"
)
_LOCK_SECONDS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One node's card; times are ISO 8601 with zone, `by` is host:pid of the program."""

    node: str
    state: str
    device: str = ""
    slot: str = ""
    card: str = ""
    config_hash: str = ""
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

    def entries(self) -> tuple[Entry, ...]:
        """Give all entries; raises InputError where the file is not a ledger."""
        try:
            text = self.path.read_text()
        except FileNotFoundError:
            return ()
        return parse_ledger(text, str(self.path))

    def done(self) -> frozenset[str]:
        """Give the nodes that are written, or being written by a program that still runs."""
        return frozenset(e.node for e in self.entries() if e.state == WRITTEN or is_alive(e))

    def claim(self, entry: Entry, *, again: bool = False) -> None:
        """Note that a node is being written; raises RefusedError where it is or was already."""
        with self._changing() as entries:
            last = next((e for e in entries if e.node == entry.node), None)
            if last and (is_alive(last) or (last.state == WRITTEN and not again)):
                raise _refused(last)
            _put(entries, replace(entry, state=WRITING, by=_myself()))

    def settle(self, entry: Entry) -> None:
        """Note how it ended."""
        with self._changing() as entries:
            _put(entries, entry)

    def holder_of(self, config_hash: str) -> Entry | None:
        """Give the written entry with this configuration."""
        return next(
            (e for e in self.entries() if config_hash and e.config_hash == config_hash), None
        )

    @contextmanager
    def _changing(self) -> Iterator[list[Entry]]:
        from filelock import FileLock, Timeout  # noqa: PLC0415 - a card without a class needs none

        lock = FileLock(f"{self.path}.lock", timeout=_LOCK_SECONDS)
        try:
            with lock:
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


def parse_ledger(text: str, name: str) -> tuple[Entry, ...]:
    """Read a ledger; unknown keys are left out, so that an older program can read a newer file."""
    import yaml  # noqa: PLC0415 - a card without a class needs none

    known = {field.name for field in fields(Entry)}
    try:
        cards: list[dict[str, Any]] = (yaml.safe_load(text) or {})["cards"]
        return tuple(Entry(**{k: v for k, v in c.items() if k in known}) for c in cards)
    except (yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{name} is not a ledger of cards", "mend it, or move it away to begin anew"
        ) from error


def render_ledger(entries: list[Entry]) -> str:
    """Write the entries for people to read: what is empty is left out."""
    import yaml  # noqa: PLC0415 - as above

    cards = [{k: v for k, v in asdict(entry).items() if v} for entry in entries]
    body: str = yaml.safe_dump({"cards": cards}, sort_keys=False, allow_unicode=True)
    return _HEAD + body


def is_alive(entry: Entry) -> bool:
    """Tell whether the program that writes this node still runs, here or on another machine."""
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


def _refused(last: Entry) -> RefusedError:
    if last.state == WRITING:
        return RefusedError(
            f"{last.node} is being written to {last.device}", "wait for it, or end that program"
        )
    return RefusedError(
        f"{last.node} was written to {last.card or last.device} on {last.finished}",
        "give --again to write it once more",
    )


def _put(entries: list[Entry], entry: Entry) -> None:
    for at, old in enumerate(entries):
        if old.node == entry.node:
            entries[at] = entry
            return
    entries.append(entry)


def _myself() -> str:
    return f"{os.uname().nodename}:{os.getpid()}"
