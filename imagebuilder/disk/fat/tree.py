"""The folder tree of a FAT volume: look-up, bounded walk and file system check."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from imagebuilder.disk.fat.directory import FOLDER, DirectoryEntry, Listing, parse_listing
from imagebuilder.disk.fat.names import fold, shown_short
from imagebuilder.disk.fat.table import BootFat, damaged
from imagebuilder.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

# Limits: a vendor's boot partition has hundreds of files in folders of a few KiB.
MOST_ENTRIES = 1 << 16
MOST_FOLDER_BYTES = 32 << 20


class TreeEntry(NamedTuple):
    """An entry with its path and the first cluster of its folder (0 for a fixed root)."""

    path: str
    entry: DirectoryEntry
    folder: int


class TreeReport(NamedTuple):
    """The clusters used by files and folders, those used but lost, and faults that do no harm.

    `faults` are messages. Linux reads a volume with such faults, and an edit does not change them.
    """

    used: int
    lost: int
    faults: frozenset[str]


class Tree:
    """The folders of a volume; each is read at most once."""

    def __init__(self, fat: BootFat, parse: Callable[[bytes], Listing] = parse_listing) -> None:
        self.fat = fat
        self._parse = parse
        self._listings: dict[int, Listing] = {}
        self._read_bytes = 0

    def listing(self, cluster: int) -> Listing:
        """Return the folder at `cluster`; the root is at `fat.root_cluster`."""
        if (known := self._listings.get(cluster)) is None:
            content = self.fat.read_folder(cluster)
            self._read_bytes += len(content)
            if self._read_bytes > MOST_FOLDER_BYTES:
                raise damaged(f"its folders have more than {MOST_FOLDER_BYTES} bytes")
            known = self._listings[cluster] = self._parse(content)
        return known

    def read_listings(self) -> tuple[Listing, ...]:
        """Return the folders read so far: all of them after a complete walk."""
        return tuple(self._listings.values())

    def find(self, names: Sequence[str]) -> DirectoryEntry | None:
        """Return the entry of a path of long or short names, in any case; None if there is none."""
        cluster, entry = self.fat.root_cluster, None
        for name in names:
            if entry is not None and not entry.is_folder:
                return None
            if entry is not None:
                cluster = self.start_of(entry)
            entry = _named(self.listing(cluster).entries, fold(name))
            if entry is None:
                return None
        return entry

    def start_of(self, entry: DirectoryEntry) -> int:
        """Return the first cluster of an entry. Raise ImageError if a folder has no valid one."""
        start = self.fat.start_of(entry.cluster)
        if entry.attributes & FOLDER and not self.fat.is_cluster(start):
            raise damaged(f"folder {entry.name!r} is outside the volume")
        return start

    def walk(self) -> Iterator[TreeEntry]:
        """Yield every entry, a folder before its content. Raise ImageError on a loop or a flood."""
        root = self.fat.root_cluster
        waiting = [("", root)]
        seen = {root}
        count = 0
        while waiting:
            prefix, folder = waiting.pop()
            for entry in self.listing(folder).entries:
                count += 1
                if count > MOST_ENTRIES:
                    raise damaged(f"it has more than {MOST_ENTRIES} files")
                path = prefix + entry.name
                yield TreeEntry(path, entry, folder)
                if entry.is_folder:
                    start = self.start_of(entry)
                    if start in seen:
                        raise damaged(f"folder {path!r} is in two places")
                    seen.add(start)
                    waiting.append((path + "/", start))


def _named(entries: Sequence[DirectoryEntry], wanted: str) -> DirectoryEntry | None:
    for entry in entries:
        if fold(entry.name) == wanted:
            return entry
    for entry in entries:
        if fold(shown_short(entry.stored, 0)) == wanted:
            return entry
    return None


def check_tree(tree: Tree) -> TreeReport:
    """Check chains, cross-links, sizes and folders.

    Raise ImageError at the first fault that lets an edit damage another file.
    """
    fat = tree.fat
    used: set[int] = set()
    faults: set[str] = set()
    if fat.root_cluster:
        used.update(fat.get_cluster_chain(fat.root_cluster))
    for found in tree.walk():
        chain = _chain_of(tree, found)
        faults.update(_faults_of(tree, found, chain))
        before = len(used)
        used.update(chain)
        if len(used) != before + len(chain):
            raise damaged(f"{found.path!r} shares clusters with another file")
    faults.update(_twins(tree))
    lost = fat.cluster_count - fat.free_count - fat.count_bad() - len(used)
    return TreeReport(len(used), lost, frozenset(faults))


def _chain_of(tree: Tree, found: TreeEntry) -> list[int]:
    start = tree.start_of(found.entry)
    if start == 0 and not found.entry.is_folder:
        return []
    try:
        return tree.fat.get_cluster_chain(start)
    except ImageError as error:
        raise damaged(f"{found.path!r} has no valid clusters") from error


def _faults_of(tree: Tree, found: TreeEntry, chain: list[int]) -> Iterator[str]:
    if found.entry.is_folder:
        if not _has_right_dots(tree, found, chain[0]):
            yield f"folder {found.path!r} has wrong . or .. entries"
    elif len(chain) != -(-found.entry.size_bytes // tree.fat.bytes_per_cluster):
        yield f"the size of {found.path!r} does not match its clusters"


def _has_right_dots(tree: Tree, found: TreeEntry, start: int) -> bool:
    fat = tree.fat
    # fatgen103 wants 0 for the root; some drivers write its cluster on FAT32.
    parents = {found.folder, 0} if found.folder == fat.root_cluster else {found.folder}
    dots = [(dot.stored, fat.start_of(dot.cluster)) for dot in tree.listing(start).dots]
    return (b".".ljust(11), start) in dots[:1] and (
        len(dots) > 1 and dots[1][0] == b"..".ljust(11) and dots[1][1] in parents
    )


def _twins(tree: Tree) -> Iterator[str]:
    for listing in tree.read_listings():
        names = Counter(entry.stored for entry in listing.entries)
        for stored in (stored for stored, count in names.items() if count > 1):
            yield f"two files in one folder have the short name {shown_short(stored, 0)!r}"


def check_edited(tree: Tree, before: TreeReport) -> None:
    """Check a volume after an edit: as `check_tree`, no new fault, correct FSInfo.

    Raise ImageError at the first fault.
    """
    after = check_tree(tree)
    if new := sorted(after.faults - before.faults):
        raise ImageError(f"the edit damaged the boot partition: {new[0]}", "report this bug")
    if after.lost != before.lost:
        raise ImageError(f"the edit lost {after.lost - before.lost} clusters", "report this bug")
    stored = tree.fat.read_fsinfo()
    if stored is not None and stored[0] != tree.fat.free_count:
        raise ImageError("the edit left a wrong free count", "report this bug")
