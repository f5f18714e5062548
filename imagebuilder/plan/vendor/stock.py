"""The changes of earlier plans to a boot partition, and the vendor's files before them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from imagebuilder.errors import ImageError
from imagebuilder.plan.boot_files import decode_boot_text, read_boot_text
from imagebuilder.plan.card_layout import CMDLINE, FOLDER, NODE_ENV, RECORD, STOCK
from imagebuilder.plan.cmdline import NO_EDIT, CmdlineEdit, both_edits, merge_cmdline

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from imagebuilder.plan.boot_files import BootFiles

# Budget, in bytes: settings and scripts are far smaller, kernels are larger.
MOST_KEPT_BYTES = 1 << 20

# Files that are never restored: a time stamp, and the command line: the vendor's first boot changes
# the PARTUUID of the root in it, so an older copy would not boot.
_NOT_KEPT = frozenset({"fake-hwclock.data", CMDLINE})


@dataclass(frozen=True, slots=True)
class Record:
    """The files that earlier plans made outside our folder; stored in made.json."""

    files: tuple[str, ...] = ()
    cmdline: CmdlineEdit = NO_EDIT

    @classmethod
    def on(cls, boot: BootFiles) -> Record:
        """Return the record on a partition; an empty one if it cannot be read.

        Earlier versions wrote no `replaced`, and wrote all of our words, even those that the
        vendor had as well.
        """
        try:
            found = json.loads(read_boot_text(boot, RECORD) or "{}")
            added = tuple(map(str, found["cmdline"]))
            replaced = tuple((int(at), str(word)) for at, word in found.get("replaced", []))
            edit = CmdlineEdit(added, replaced, str(found.get("cmdline_file", CMDLINE)))
            return cls(tuple(map(str, found["files"])), edit)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return cls()

    @property
    def worth_keeping(self) -> bool:
        """Whether the record has an entry."""
        return bool(self.files or self.cmdline.added or self.cmdline.replaced)

    def with_later(self, later: Record) -> Record:
        """Return the record of a partition while it changes from this one to `later`."""
        files = sorted({*self.files, *later.files})
        return Record(tuple(files), both_edits(self.cmdline, later.cmdline))

    def as_bytes(self) -> bytes:
        """Return the record as JSON."""
        parts: dict[str, object] = {"files": self.files, "cmdline": self.cmdline.added}
        if self.cmdline.replaced:
            parts["replaced"] = self.cmdline.replaced
        if self.cmdline.path != CMDLINE:
            parts["cmdline_file"] = self.cmdline.path
        text = json.dumps(parts, indent=1)
        return f"{text}\n".encode()


@dataclass(slots=True)
class StockBoot:
    """The boot partition as it was before an earlier plan changed it.

    `kept` are the copies to write, so that the next plan starts from the vendor's files and not
    from ours; `taken` are the files to remove, because one of ours holds what they say.
    """

    boot: BootFiles
    record: Record
    kept: dict[str, bytes] = field(default_factory=dict)
    taken: set[str] = field(default_factory=set)

    @property
    def planned_before(self) -> bool:
        """Whether an earlier plan was applied to this partition."""
        return self.boot.exists(NODE_ENV) or self.record.worth_keeping

    def names(self) -> tuple[str, ...]:
        """Return all file paths."""
        return tuple(path for path in self.boot.names() if self.exists(path))

    def exists(self, path: str) -> bool:
        """Return whether the vendor has such a file, or did before an earlier plan took it."""
        if self.boot.exists(STOCK + path):
            return True
        made = {name.lower() for name in self.record.files}
        return self.boot.exists(path) and path.lower() not in made

    def read(self, path: str) -> bytes:
        """Return the vendor's content of a file; of the command line, without our words."""
        if self.boot.exists(STOCK + path):
            return self.boot.read(STOCK + path)
        data = self.boot.read(path)
        if self.planned_before and path.lower() == self.record.cmdline.path.lower():
            text, _ = merge_cmdline(decode_boot_text(data), (), self.record.cmdline)
            return text.encode("utf-8", "surrogateescape")
        return data

    def record_of(self, files: Iterable[str], cmdline: CmdlineEdit) -> Record:
        """Return the record to write together with `files`: those that the vendor does not have."""
        made = (p for p in files if not p.lower().startswith(FOLDER) and not self.exists(p))
        return Record(tuple(sorted(made)), cmdline)

    def keep(self, path: str) -> bytes:
        """Return the vendor's content of a file, and write a copy of it; empty without one.

        Raise ImageError if it is over 1 MiB.
        """
        if not self.exists(path):
            return b""
        data = self.kept[STOCK + path] = self.read(path)
        if len(data) > MOST_KEPT_BYTES:
            raise ImageError(f"{path} of the image is over 1 MiB", "check the content of the image")
        return data

    def take(self, path: str) -> bytes:
        """Return the vendor's content of a file, which moves to the copy; empty without one."""
        data = self.keep(path)
        if data:
            self.taken.add(path)
        return data

    def keep_replaced(self, files: Mapping[str, bytes]) -> None:
        """Write a copy of each small file of the vendor that one of `files` replaces."""
        for path, data in files.items():
            if path.lower().startswith(FOLDER) or path.lower().rpartition("/")[2] in _NOT_KEPT:
                continue
            if STOCK + path not in self.kept and self.exists(path):
                found = self.read(path)
                if found != data and len(found) <= MOST_KEPT_BYTES:
                    self.kept[STOCK + path] = found

    def returning(self, files: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
        """Yield the vendor's files that an earlier plan replaced and this one does not."""
        ours = {path.lower() for path in files} | {path.lower() for path in self.taken}
        for name in self.boot.names():
            path = name[len(STOCK) :]
            inside = path.lower().startswith(FOLDER)
            if name.lower().startswith(STOCK) and not inside and path.lower() not in ours:
                yield path, self.boot.read(name)
