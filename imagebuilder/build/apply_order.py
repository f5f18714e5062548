"""The order in which a plan is written to a card that may lose power at any moment; no disk.

Between two phases the folder is flushed. In each state the Pi boots with its earlier settings, with
the new ones, or as the image would without us. Copies of the new files come first, which nothing
reads, then the list of them: from then on each installer that starts puts the copies in their
places before it reads anything (overlays/scripts/install/next.sh). Then the files themselves are
written: the installer, `node.env` last of ours, and of the vendor's first the one that starts the
installer, so that a card that was stock stays so until then.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from imagebuilder.plan.boot_files import MemoryBootFiles
from imagebuilder.plan.card_layout import (
    CONFIG,
    FOLDER,
    INSTALLER,
    NEXT,
    NEXT_LIST,
    NODE_ENV,
    PACKAGE_SUMS,
    PACKAGES,
    RECORD,
    STOCK,
    TARBALLS,
)
from imagebuilder.plan.vendor.stock import Record

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from imagebuilder.model import BootEdit, NodePlan
    from imagebuilder.plan.boot_files import BootFiles

# What starts our installer, in the vendor's files: its path, or systemd.run= on the command line.
_STARTS = (INSTALLER.encode(), b" systemd.run=")
_FIRSTRUN = "firstrun.sh"


@dataclass(frozen=True, slots=True)
class Step:
    """One file to write, or to remove if `data` is None.

    With `wipe` its old content is overwritten; while it is `in_use`, only when it was replaced.
    """

    path: str
    data: bytes | None
    wipe: bool = False
    in_use: bool = False


Phase = tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class WriteOrder:
    """The steps for the `changed` files of a plan on the partition `boot`."""

    plan: NodePlan
    boot: BootFiles
    changed: Collection[str]

    def phases(self) -> tuple[Phase, ...]:
        """Return the phases, none of them empty."""
        phases = (
            self._keep(),
            self._carried(),
            self._copies(),
            self._list(),
            self._installer(),
            self._settings(),
            *self._vendor_files(),
            self._removed(),
            self._record(),
            self._unlist(),
            self._without_copies(),
        )
        return tuple(phase for made in phases if (phase := tuple(made)))

    # ---- phases

    def _keep(self) -> Iterator[Step]:
        """Record what both plans made, and copy the files of the vendor that are replaced."""
        data = self._both_records.as_bytes()
        if self._both_records.worth_keeping and not self._has(RECORD, data):
            yield Step(RECORD, data)
        for edit in self._edits(lambda path: path.startswith(STOCK)):
            if edit.data is not None:
                yield Step(edit.path, edit.data)

    def _carried(self) -> Iterator[Step]:
        """Write packages and container images, which are large: there is no room for copies."""
        for edit in self._edits(_is_carried):
            if edit.data is not None:
                yield Step(edit.path, edit.data)

    def _copies(self) -> Iterator[Step]:
        for edit in self._listed():
            if edit.data is not None and not self._has(f"{self._next}{edit.path}", edit.data):
                yield Step(f"{self._next}{edit.path}", edit.data)

    def _list(self) -> Iterator[Step]:
        """Write the list: the folder of the copies, what to write and to remove, and its end."""
        lines = [f"from {self._next}"]
        lines += [f"{'write' if e.data is not None else 'remove'} {e.path}" for e in self._listed()]
        if len(lines) > 1:
            data = "".join(f"{line}\n" for line in (*lines, "end"))
            yield Step(NEXT_LIST, data.encode("utf-8", "surrogateescape"))

    def _installer(self) -> Iterator[Step]:
        """Write the installer, unless it is there; one of an earlier version knows no list."""
        for edit in self._edits(lambda path: path == INSTALLER):
            yield Step(edit.path, edit.data)

    def _settings(self) -> Iterator[Step]:
        """Write and remove our own files, node.env last."""
        last = [INSTALLER, NODE_ENV]
        for edit in self._edits(lambda path: _is_setting(path) and path not in last):
            if edit.data is None or not _is_carried(edit.path):
                yield Step(edit.path, edit.data, wipe=self._may_hold_secrets(edit.path))
        for edit in self._edits(lambda path: path == NODE_ENV):
            yield Step(edit.path, edit.data, wipe=self.boot.exists(NODE_ENV))

    def _vendor_files(self) -> Iterator[Phase]:
        """Write the vendor's files, first the one that starts the installer."""
        edits = [e for e in self._edits(self._is_vendors) if e.data is not None]
        for rank in sorted({self._rank(edit) for edit in edits}):
            yield tuple(
                Step(edit.path, edit.data, wipe=self._is_wiped(edit.path), in_use=True)
                for edit in edits
                if self._rank(edit) == rank
            )

    def _removed(self) -> Iterator[Step]:
        """Remove what lies outside of our folder, and the copies of files that are back."""
        for edit in self._edits(lambda path: path.startswith(STOCK) or self._is_vendors(path)):
            if edit.data is None:
                yield Step(edit.path, None, wipe=True)

    def _record(self) -> Iterator[Step]:
        for edit in self.plan.edits:
            if edit.path == RECORD and edit.data != self._both_records.as_bytes():
                yield Step(edit.path, edit.data)

    def _unlist(self) -> Iterator[Step]:
        """Remove the list: all is in its place."""
        if self.boot.exists(NEXT_LIST) or any(self._list()):
            yield Step(NEXT_LIST, None)

    def _without_copies(self) -> Iterator[Step]:
        """Remove the copies, those of an interrupted run as well; they may hold secrets."""
        earlier = {path for path in self.boot.names() if path.lower().startswith(NEXT)}
        for path in sorted(earlier | {step.path for step in self._copies()}):
            yield Step(path, None, wipe=True)

    # ---- what is there

    @property
    def _next(self) -> str:
        """The folder of the copies: another one than that of an interrupted run of another plan."""
        return f"{NEXT}{self.plan.config_hash[:8]}/"

    def _listed(self) -> Iterable[BootEdit]:
        """Return the edits that the installer can carry out."""
        return self._edits(
            lambda path: path != RECORD and not path.startswith(STOCK) and not _is_carried(path)
        )

    @property
    def _planned_before(self) -> bool:
        return self.boot.exists(NODE_ENV) or self._earlier.worth_keeping

    @property
    def _earlier(self) -> Record:
        return Record.on(self.boot)

    @property
    def _both_records(self) -> Record:
        data = {e.path: e.data for e in self.plan.edits if e.path == RECORD and e.data is not None}
        return self._earlier.with_later(Record.on(MemoryBootFiles(data)))

    def _edits(self, wanted: _Wanted) -> Iterable[BootEdit]:
        return (
            e
            for e in self.plan.edits
            if e.path in self.changed and not _is_copy(e.path) and wanted(e.path.lower())
        )

    def _has(self, path: str, data: bytes) -> bool:
        return self.boot.exists(path) and self.boot.read(path) == data

    def _is_vendors(self, path: str) -> bool:
        return not path.lower().startswith(FOLDER)

    def _rank(self, edit: BootEdit) -> int:
        """Return the place of a vendor's file: firstrun.sh is there before what names it."""
        if edit.path.lower().endswith(_FIRSTRUN):
            return 0
        return 1 if any(word in (edit.data or b"") for word in _STARTS) else 2

    def _is_wiped(self, path: str) -> bool:
        """Return whether the earlier content may hold secrets; firmware files never do."""
        plain = {CONFIG, self._earlier.cmdline.path, self.plan.cmdline}
        return self._planned_before and path not in plain

    def _may_hold_secrets(self, path: str) -> bool:
        return self.boot.exists(path) and not path.lower().startswith((PACKAGES, TARBALLS))


if TYPE_CHECKING:
    from collections.abc import Callable

    _Wanted = Callable[[str], bool]


def _is_setting(path: str) -> bool:
    """Return whether the installer or the node service reads this file."""
    name = path.lower()
    return name.startswith(FOLDER) and not name.startswith(STOCK) and name != RECORD


def _is_carried(path: str) -> bool:
    """Return whether this is a package or container image; the node installs what the sums list."""
    name = path.lower()
    return name.startswith((PACKAGES, TARBALLS)) and name != PACKAGE_SUMS.lower()


def _is_copy(path: str) -> bool:
    return path.lower().startswith((NEXT, NEXT_LIST))
