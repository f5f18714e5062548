"""Read a base image with a patch applied: the future content of a card."""

from __future__ import annotations

import os
from bisect import bisect_right
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from imagebuilder.errors import ImageError

if TYPE_CHECKING:
    from imagebuilder.disk.extent import Patch, Run
    from imagebuilder.disk.reader import RawFile


@dataclass(slots=True)
class PatchedImage:
    """Base ⊕ patch as a ReadAt; `fill` reads zeros past the end of the image.

    Threads may share it: reads have no common position. The image may end inside a sector.
    """

    raw: RawFile
    patch: Patch
    name: str = "the base image"
    size_bytes: int = field(init=False)

    def __post_init__(self) -> None:
        self.size_bytes = self.raw.size_bytes

    def read_at(self, offset_bytes: int, size_bytes: int) -> bytes:
        """Return up to `size_bytes` from `offset_bytes`; fewer only at the end."""
        chunk = bytearray(self.raw.read_at(offset_bytes, size_bytes))
        merge(self.patch, offset_bytes, chunk)
        return bytes(chunk)

    def fill(self, offset_bytes: int, view: memoryview) -> None:
        """Fill `view` from `offset_bytes` on. Raise ImageError if the base cannot be read."""
        inside = max(0, min(len(view), self.size_bytes - offset_bytes))
        done = 0
        try:
            while done < inside:
                count = os.preadv(self.raw.descriptor, [view[done:inside]], offset_bytes + done)
                if count == 0:
                    raise ImageError(f"{self.name} was truncated while it was read", _AGAIN)
                done += count
        except OSError as error:
            raise ImageError(f"cannot read {self.name}: {error.strerror}", _AGAIN) from error
        view[inside:] = bytes(len(view) - inside)
        merge(self.patch, offset_bytes, view)


_AGAIN = "check the disk of the image, then try again"


def merge(patch: Patch, offset_bytes: int, chunk: bytearray | memoryview) -> None:
    """Apply the patch to `chunk`, which holds the disk's bytes from `offset_bytes`."""
    end = offset_bytes + len(chunk)
    first = bisect_right(patch.runs, offset_bytes, key=_offset_of)
    for run in patch.runs[max(0, first - 1) :]:
        if run.offset_bytes >= end:
            break
        overlay(chunk, offset_bytes, run.data, run.offset_bytes)


def overlay(
    target: bytearray | memoryview, target_at: int, data: bytes | bytearray, data_at: int
) -> None:
    """Copy the part of `data` that lies within `target`; both `_at` are offsets in one disk."""
    start = max(target_at, data_at)
    end = min(target_at + len(target), data_at + len(data))
    if start < end:
        target[start - target_at : end - target_at] = data[start - data_at : end - data_at]


def _offset_of(run: Run) -> int:
    return run.offset_bytes
