"""Read a FAT boot partition."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imagebuilder.disk.cow import CowView
from imagebuilder.disk.fat.directory import DirectoryEntry, Listing, parse_listing
from imagebuilder.disk.fat.table import BootFat, damaged
from imagebuilder.disk.fat.tree import Tree
from imagebuilder.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from imagebuilder.disk.extent import Partition
    from imagebuilder.disk.reader import ReadAt


MOST_TEXT_BYTES = 1 << 20  # a text that is read from a boot partition


class BootVolume:
    """A FAT volume for reading; `disk` may be a base image or a patched one.

    Raise ImageError if the partition has no FAT volume, is truncated or too small for it. A volume
    that was not cleanly unmounted can be read, even if the copies of its FAT differ: the first one
    is used, as by Linux and by the firmware of the Pi.
    """

    def __init__(
        self,
        disk: ReadAt,
        partition: Partition,
        parse: Callable[[bytes], Listing] = parse_listing,
    ) -> None:
        self.partition = partition
        self.fat = BootFat(CowView(disk, partition.start_bytes, partition.size_bytes))
        self.tree = Tree(self.fat, parse)
        if partition.start_bytes + self.fat.volume_bytes > disk.size_bytes:
            raise ImageError(
                "the image is truncated inside its boot partition", "fetch the image again"
            )

    @property
    def kind(self) -> str:
        """FAT12, FAT16 or FAT32."""
        return f"FAT{self.fat.fat_type}"

    @property
    def free_bytes(self) -> int:
        """The free space, in whole clusters."""
        return self.fat.free_count * self.fat.bytes_per_cluster

    @property
    def clean(self) -> bool:
        """Whether it was cleanly unmounted."""
        return self.fat.is_clean

    def names(self) -> tuple[str, ...]:
        """Return the sorted paths of all files."""
        return tuple(sorted(f.path for f in self.tree.walk() if not f.entry.is_folder))

    def exists(self, path: str) -> bool:
        """Return whether a file or folder exists; upper and lower case are equal."""
        return self.tree.find(path.strip("/").split("/")) is not None

    def size_of(self, path: str) -> int:
        """Return the size of a file in bytes. Raise ImageError if it is missing."""
        return self._file(path).size_bytes

    def read(self, path: str, most_bytes: int = MOST_TEXT_BYTES) -> bytes:
        """Return the content of a file. Raise ImageError if it is missing or over `most_bytes`."""
        entry = self._file(path)
        if entry.size_bytes > most_bytes:
            raise ImageError(
                f"{path} on the boot partition has {entry.size_bytes} bytes,"
                f" more than {most_bytes}",
                "check that this is an image for a Raspberry Pi",
            )
        need = -(-entry.size_bytes // self.fat.bytes_per_cluster)
        chain = self.fat.first_of_chain(self.tree.start_of(entry), need)
        if len(chain) < need:
            raise damaged(f"{path!r} has fewer clusters than its size needs")
        return self.fat.read_chain(chain)[: entry.size_bytes]

    def _file(self, path: str) -> DirectoryEntry:
        entry = self.tree.find(path.strip("/").split("/"))
        if entry is None or entry.is_folder:
            fact = "is not on" if entry is None else "is a folder on"
            raise ImageError(
                f"{path} {fact} the boot partition", "list its files with `rpi-image inspect`"
            )
        return entry
