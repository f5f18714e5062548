"""What a card is to become: a base image with a patch over it, read piece by piece."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from imagebuilder.cow import merge
from imagebuilder.errors import ImageError

if TYPE_CHECKING:
    from imagebuilder.model import Patch
    from imagebuilder.reading import RawFile


@dataclass(slots=True)
class Source:
    """Base ⊕ patch; a ReadAt, and a filler of buffers that behind the image's end gives zeros.

    Threads may share one: every read names its own offset. The image need not be whole sectors.
    """

    raw: RawFile
    patch: Patch
    name: str
    size_bytes: int = field(init=False)

    def __post_init__(self) -> None:
        self.size_bytes = self.raw.size_bytes

    def read_at(self, offset_bytes: int, size_bytes: int) -> bytes:
        """Give up to `size_bytes` from `offset_bytes`; shorter only at the end."""
        chunk = bytearray(self.raw.read_at(offset_bytes, size_bytes))
        merge(self.patch, offset_bytes, chunk)
        return bytes(chunk)

    def fill(self, offset_bytes: int, view: memoryview) -> None:
        """Fill `view` with the bytes from `offset_bytes` on; raises ImageError on a bad base."""
        inside = max(0, min(len(view), self.size_bytes - offset_bytes))
        done = 0
        try:
            while done < inside:
                count = os.preadv(self.raw.descriptor, [view[done:inside]], offset_bytes + done)
                if count == 0:
                    raise ImageError(f"{self.name} became shorter while it was read", _AGAIN)
                done += count
        except OSError as error:
            raise ImageError(f"cannot read {self.name}: {error.strerror}", _AGAIN) from error
        view[inside:] = bytes(len(view) - inside)
        merge(self.patch, offset_bytes, view)


_AGAIN = "check the disk that holds the image, then try again"
