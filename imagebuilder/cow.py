"""The protocol by which pure code reads a disk."""

from __future__ import annotations

from typing import Protocol


class ReadAt(Protocol):
    """Random access for reading; offsets and sizes in bytes from the start of the disk."""

    size_bytes: int

    def read_at(self, offset_bytes: int, size_bytes: int) -> bytes:
        """Give up to `size_bytes` from `offset_bytes`; shorter only at the end."""
