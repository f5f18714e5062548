"""Byte ranges of a disk: extents, partitions and the runs of a patch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Extent:
    """A half-open byte range [start_bytes, end_bytes) of a disk."""

    start_bytes: int
    size_bytes: int

    @property
    def end_bytes(self) -> int:
        """The first byte after the range."""
        return self.start_bytes + self.size_bytes


@dataclass(frozen=True, slots=True)
class Partition:
    """One entry of an MBR or GPT; `kind` is the type byte (`0x0c`) or the type GUID."""

    number: int
    start_bytes: int
    size_bytes: int
    kind: str

    @property
    def end_bytes(self) -> int:
        """The first byte after the partition."""
        return self.start_bytes + self.size_bytes


@dataclass(frozen=True, slots=True)
class Run:
    """Bytes that replace those of the base at `offset_bytes` from the start of the disk."""

    offset_bytes: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Patch:
    """The changes to a base image for one node: sector-aligned runs, sorted and not adjacent."""

    runs: tuple[Run, ...] = ()

    @property
    def size_bytes(self) -> int:
        """The sum of the sizes of the runs."""
        return sum(len(run.data) for run in self.runs)
