"""The files of a boot partition for planning: names, contents and texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from imagebuilder.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Mapping


class BootFiles(Protocol):
    """The files of a boot partition; paths are '/'-separated and compared without case."""

    def names(self) -> tuple[str, ...]:
        """Return all file paths."""

    def exists(self, path: str) -> bool:
        """Return whether the file exists."""

    def read(self, path: str) -> bytes:
        """Return the content of a file. Raise ImageError if it does not exist."""


@dataclass(frozen=True, slots=True)
class MemoryBootFiles:
    """A boot partition in memory, for dry runs without an image."""

    files: Mapping[str, bytes]

    def names(self) -> tuple[str, ...]:
        """Return all file paths."""
        return tuple(self.files)

    def exists(self, path: str) -> bool:
        """Return whether the file exists."""
        return path.lower() in {name.lower() for name in self.files}

    def read(self, path: str) -> bytes:
        """Return the content of a file. Raise ImageError if it does not exist."""
        for name, data in self.files.items():
            if name.lower() == path.lower():
                return data
        raise ImageError(f"no {path} on the boot partition", "check the base image")


@dataclass(frozen=True, slots=True)
class EditedBootFiles:
    """A boot partition with some files replaced or added."""

    boot: BootFiles
    edits: Mapping[str, bytes]

    def names(self) -> tuple[str, ...]:
        """Return all file paths."""
        ours = {path.lower() for path in self.edits}
        return (*self.edits, *(path for path in self.boot.names() if path.lower() not in ours))

    def exists(self, path: str) -> bool:
        """Return whether the file exists."""
        return MemoryBootFiles(self.edits).exists(path) or self.boot.exists(path)

    def read(self, path: str) -> bytes:
        """Return the content of a file. Raise ImageError if it does not exist."""
        edited = MemoryBootFiles(self.edits)
        return edited.read(path) if edited.exists(path) else self.boot.read(path)


def read_boot_text(boot: BootFiles, path: str, *, errors: str = "surrogateescape") -> str:
    """Return the text of a file on the boot partition; empty if it does not exist."""
    return decode_boot_text(boot.read(path), errors) if boot.exists(path) else ""


def decode_boot_text(data: bytes, errors: str = "surrogateescape") -> str:
    """Return a vendor's text; by default, bytes that are not UTF-8 are kept when encoding it."""
    return data.decode("utf-8", errors)
