"""The order in which a plan is written to a card that may lose power at any moment; no disk.

Between two phases the folder is flushed. In each state the Pi boots with its earlier settings, with
the new ones, or as the image would without us: our installer never finds files of two plans, since
it is removed before the first of them changes and written when the last is there. The command line
is last; a line that starts the installer loses those words first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from imagebuilder.plan.boot_files import MemoryBootFiles, read_boot_text
from imagebuilder.plan.card_layout import (
    CONFIG,
    FOLDER,
    INSTALLER,
    NODE_ENV,
    PACKAGES,
    RECORD,
    STOCK,
    TARBALLS,
)
from imagebuilder.plan.cmdline import stopped
from imagebuilder.plan.vendor.stock import Record

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from imagebuilder.model import BootEdit, NodePlan
    from imagebuilder.plan.boot_files import BootFiles

# The vendor's own settings come after the other files, and in this order: cloud-init configures the
# network for a new instance-id only, which is in meta-data.
_VENDOR_SETTINGS = (
    "firstrun.sh",
    "occidentalis.txt",
    "device-init.yaml",
    "network-config",
    "user-data",
    "meta-data",
)


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
            self._stop(),
            self._shut(),
            self._keep(),
            self._settings(),
            self._open(),
            self._vendor_files(),
            self._command_line(),
            self._removed(),
            self._record(),
        )
        return tuple(phase for made in phases if (phase := tuple(made)))

    # ---- phases

    def _stop(self) -> Iterator[Step]:
        """Remove the words that start our installer from the command line."""
        if self._stops:
            path, text = self._started
            yield Step(path, stopped(text).encode("utf-8", "surrogateescape"))

    def _shut(self) -> Iterator[Step]:
        """Remove the installer, so that nothing reads our folder while it changes."""
        if self._changes_settings and self.boot.exists(INSTALLER):
            yield Step(INSTALLER, None)

    def _keep(self) -> Iterator[Step]:
        """Record what both plans made, and copy the files of the vendor that are replaced."""
        data = self._both_records.as_bytes()
        if self._both_records.worth_keeping and not self._has(RECORD, data):
            yield Step(RECORD, data)
        for edit in self._edits(lambda path: path.startswith(STOCK)):
            if edit.data is not None:
                yield Step(edit.path, edit.data)

    def _settings(self) -> Iterator[Step]:
        """Write and remove our own files, node.env last."""
        last = [INSTALLER, NODE_ENV]
        for edit in self._edits(lambda path: _is_setting(path) and path not in last):
            yield Step(edit.path, edit.data, wipe=self._may_hold_secrets(edit.path))
        for edit in self._edits(lambda path: path == NODE_ENV):
            yield Step(edit.path, edit.data, wipe=self.boot.exists(NODE_ENV))

    def _open(self) -> Iterator[Step]:
        """Write the installer; a Pi that has booted with our files takes the new ones from now."""
        if self._changes_settings:
            for edit in self.plan.edits:
                if edit.path == INSTALLER:
                    yield Step(edit.path, edit.data)

    def _vendor_files(self) -> Iterator[Step]:
        edits = self._edits(lambda path: self._is_vendors(path) and path != self.plan.cmdline)
        for edit in sorted(edits, key=lambda edit: _rank(edit.path)):
            if edit.data is not None:
                wipe = self._planned_before and edit.path not in {CONFIG, self._started[0]}
                yield Step(edit.path, edit.data, wipe=wipe, in_use=True)

    def _command_line(self) -> Iterator[Step]:
        for edit in self.plan.edits:
            if edit.path == self.plan.cmdline and edit.data is not None:
                rewritten = self._stops and self._started[0].lower() == edit.path.lower()
                if edit.path in self.changed or rewritten:
                    yield Step(edit.path, edit.data)

    def _removed(self) -> Iterator[Step]:
        """Remove what lies outside of our folder, and the copies of files that are back."""
        for edit in self._edits(lambda path: path.startswith(STOCK) or self._is_vendors(path)):
            if edit.data is None:
                yield Step(edit.path, None, wipe=True)

    def _record(self) -> Iterator[Step]:
        for edit in self.plan.edits:
            if edit.path == RECORD and edit.data != self._both_records.as_bytes():
                yield Step(edit.path, edit.data)

    # ---- what is there

    @property
    def _changes_settings(self) -> bool:
        return any(_is_setting(edit.path) for edit in self._edits(lambda _: True))

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

    @property
    def _started(self) -> tuple[str, str]:
        """The command line of the earlier plan: its path and text."""
        path = self._earlier.cmdline.path
        return path, read_boot_text(self.boot, path)

    @property
    def _stops(self) -> bool:
        path, text = self._started
        written = any(e.path == path and e.data is not None for e in self.plan.edits)
        return written and self._changes_settings and self._planned_before and stopped(text) != text

    def _edits(self, wanted: _Wanted) -> Iterable[BootEdit]:
        return (e for e in self.plan.edits if e.path in self.changed and wanted(e.path.lower()))

    def _has(self, path: str, data: bytes) -> bool:
        return self.boot.exists(path) and self.boot.read(path) == data

    def _is_vendors(self, path: str) -> bool:
        return not path.lower().startswith(FOLDER)

    def _may_hold_secrets(self, path: str) -> bool:
        return self.boot.exists(path) and not path.lower().startswith((PACKAGES, TARBALLS))


if TYPE_CHECKING:
    from collections.abc import Callable

    _Wanted = Callable[[str], bool]


def _is_setting(path: str) -> bool:
    """Return whether the installer or the node service reads this file."""
    name = path.lower()
    return name.startswith(FOLDER) and not name.startswith(STOCK) and name != RECORD


def _rank(path: str) -> int:
    """Return the place of a vendor's file in the order of writing."""
    name = path.lower().rpartition("/")[2]
    return _VENDOR_SETTINGS.index(name) + 1 if name in _VENDOR_SETTINGS else 0
