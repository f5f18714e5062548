"""Edit a boot partition in a copy-on-write view and return the changes as a patch."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from imagebuilder.disk.cow import CowView
from imagebuilder.disk.fat.directory import (
    ARCHIVE,
    FOLDER,
    SLOT_BYTES,
    Directory,
    DirectoryEntry,
    Listing,
    new_folder,
    parse_listing,
)
from imagebuilder.disk.fat.names import DosTime, dos_time, fold, split_path
from imagebuilder.disk.fat.table import BootFat, damaged
from imagebuilder.disk.fat.tree import Tree, TreeReport, check_edited, check_tree
from imagebuilder.disk.fat.volume import BootVolume
from imagebuilder.disk.reader import CachedReader
from imagebuilder.errors import ImageError
from imagebuilder.progress import two_sizes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from imagebuilder.disk.extent import Partition, Patch
    from imagebuilder.disk.reader import ReadAt
    from imagebuilder.model import BootEdit

NAMED_IN_ERRORS = 5
MOST_REMEMBERED = 4096  # directories that are kept in memory


class BootBase:
    """The boot partition of a base image, parsed once to make patches for many nodes."""

    def __init__(self, disk: ReadAt, partition: Partition) -> None:
        self._disk = CachedReader(disk)
        self._parsed: dict[bytes, Listing] = {}  # by the digest of a folder's content
        self._base_report: TreeReport | None = None
        self.volume = BootVolume(self._disk, partition, self._parse)
        if not self.volume.fat.copies_agree:
            raise damaged("the two copies of its FAT differ")

    def apply(self, edits: Sequence[BootEdit], epoch: int) -> Patch:
        """Return the patch for the edits, in order, with file times of `epoch` (UTC seconds).

        Equal base, edits and epoch make an equal patch. Raise ImageError before any change if
        there is not enough space or a path is not valid, and after it if the file system check
        fails. The base is only read.
        """
        if self._base_report is None:
            self._base_report = check_tree(self.volume.tree)
        start = self.volume.partition.start_bytes
        view = CowView(self._disk, start, self.volume.fat.volume_bytes)
        session = _EditSession(self.volume.fat.fork(view), dos_time(epoch), self._parse)
        for edit in edits:
            session.make(edit)
        session.commit()
        check_edited(Tree(BootFat(view), self._parse), self._base_report)
        return view.patch()

    def _parse(self, content: bytes) -> Listing:
        key = hashlib.blake2b(content).digest()
        if (listing := self._parsed.get(key)) is None:
            if len(self._parsed) >= MOST_REMEMBERED:
                self._parsed.clear()
            listing = self._parsed[key] = parse_listing(content)
        return listing


@dataclass(eq=False, slots=True)
class _Folder:
    """A folder after the edits; `files` maps the `at` of an entry to path, entry and content."""

    directory: Directory
    chain: list[int]
    parent: _Folder | None = None
    entry: DirectoryEntry | None = None
    children: dict[int, _Folder] = field(default_factory=dict)
    files: dict[int, tuple[str, DirectoryEntry, bytes]] = field(default_factory=dict)


class _EditSession:
    """The edits of one node: collected in memory, then written if there is enough space."""

    def __init__(self, fat: BootFat, moment: DosTime, parse: Callable[[bytes], Listing]) -> None:
        self._fat = fat
        self._moment = moment
        self._parse = parse
        self._folders: list[_Folder] = []
        self._root = self._open(fat.root_cluster)

    def make(self, edit: BootEdit) -> None:
        """Add one edit in memory."""
        *parents, name = split_path(edit.path)
        folder: _Folder | None = self._root
        for index, parent in enumerate(parents):
            folder = folder and self._enter(
                folder, parent, "/".join(parents[: index + 1]), create=edit.data is not None
            )
        if folder is None:
            return
        if edit.data is None:
            self._remove(folder, name, edit.path)
        else:
            self._put(folder, name, edit.path, edit.data)

    def commit(self) -> None:
        """Write all edits to the view. Raise ImageError first if there is not enough space."""
        self._check_room()
        for folder in self._folders:
            self._place(folder)
            for _, entry, data in folder.files.values():
                chain = self._fat.allocate_bytes(len(data))
                self._fat.write_chain(chain, data)
                folder.directory.point(entry, chain[0] if chain else 0, len(data))
        for folder in self._folders:
            content = bytes(folder.directory.content)
            if folder.chain:
                self._fat.write_chain(folder.chain, content)
            else:
                self._fat.write_root(content)
        self._fat.flush_fat()

    def _open(self, cluster: int) -> _Folder:
        content = self._fat.read_folder(cluster)
        chain = self._fat.get_cluster_chain(cluster) if cluster else []
        directory = Directory(
            content, self._fat.bytes_per_cluster, is_fixed=not chain, parse=self._parse
        )
        folder = _Folder(directory, chain)
        self._folders.append(folder)
        return folder

    def _enter(self, folder: _Folder, name: str, path: str, *, create: bool) -> _Folder | None:
        entry = folder.directory.find(name)
        if entry is None:
            return self._new_folder(folder, name) if create else None
        if not entry.is_folder:
            raise ImageError(
                f"{path} is a file on the boot partition, not a folder",
                "rename the folder in the overlay",
            )
        if entry.at not in folder.children:
            child = self._open(self._fat.start_of(entry.cluster))
            child.parent, child.entry = folder, entry
            folder.children[entry.at] = child
        return folder.children[entry.at]

    def _new_folder(self, parent: _Folder, name: str) -> _Folder:
        entry = parent.directory.add(name, FOLDER, self._moment)
        content = new_folder(0, 0, self._moment, self._fat.bytes_per_cluster)
        child = _Folder(Directory(content, self._fat.bytes_per_cluster), [], parent, entry)
        parent.children[entry.at] = child
        self._folders.append(child)
        return child

    def _put(self, folder: _Folder, name: str, path: str, data: bytes) -> None:
        entry = folder.directory.find(name)
        if entry is None:
            entry = folder.directory.add(name, ARCHIVE, self._moment)
        elif entry.is_folder:
            raise _is_folder(path)
        elif entry.at in folder.files and fold(name) != fold(entry.name):
            raise ImageError(
                f"{path} and {folder.files[entry.at][0]} are the same file on the boot partition",
                "rename one of them in the overlay",
            )
        self._release(folder, entry)
        folder.directory.stamp(entry, self._moment)
        folder.files[entry.at] = (path, entry, data)

    def _remove(self, folder: _Folder, name: str, path: str) -> None:
        entry = folder.directory.find(name)
        if entry is None:
            return
        if entry.is_folder:
            raise _is_folder(path)
        self._release(folder, entry)
        folder.files.pop(entry.at, None)
        folder.directory.remove(entry)

    def _release(self, folder: _Folder, entry: DirectoryEntry) -> None:
        if entry.at not in folder.files:
            self._fat.free_cluster_chain(self._fat.start_of(entry.cluster))
            folder.directory.point(entry, 0, 0)

    def _check_room(self) -> None:
        size = self._fat.bytes_per_cluster
        files = [file for folder in self._folders for file in folder.files.values()]
        needed = sum(-(-len(data) // size) for _, _, data in files)
        needed += sum(self._missing(folder) for folder in self._folders)
        if needed > self._fat.free_count:
            names = [path for path, _, _ in files]
            more = len(names) - NAMED_IN_ERRORS
            listed = ", ".join(names[:NAMED_IN_ERRORS]) + (f" and {more} more" if more > 0 else "")
            wanted, free = two_sizes(needed * size, self._fat.free_count * size)
            raise ImageError(
                f"not enough space on the boot partition for {listed}:"
                f" {wanted} needed, {free} free",
                "remove files from the overlay, or use a base image with a larger boot partition",
            )

    def _missing(self, folder: _Folder) -> int:
        if folder is self._root and not folder.chain:
            return 0
        return len(folder.directory.content) // self._fat.bytes_per_cluster - len(folder.chain)

    def _place(self, folder: _Folder) -> None:
        """Allocate the clusters of a new or grown folder and link it to its parent."""
        if (missing := self._missing(folder)) == 0:
            return
        added = self._fat.allocate_bytes(missing * self._fat.bytes_per_cluster)
        is_new = not folder.chain
        self._fat.link([*folder.chain[-1:], *added])
        folder.chain += added
        if is_new and folder.parent is not None and folder.entry is not None:
            up = 0 if folder.parent is self._root else folder.parent.chain[0]
            dots = new_folder(folder.chain[0], up, self._moment, 2 * SLOT_BYTES)
            folder.directory.content[: len(dots)] = dots
            folder.parent.directory.point(folder.entry, folder.chain[0], 0)


def _is_folder(path: str) -> ImageError:
    return ImageError(f"{path} is a folder on the boot partition", "use the path of a file")
