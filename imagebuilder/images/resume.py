"""A download on its way: what lies on the disk, and what on the server it belongs to."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from imagebuilder.files import write_file

if TYPE_CHECKING:
    from pathlib import Path

READ_BYTES = 1 << 20
LARGEST_STATE_BYTES = 1 << 14


@dataclass(frozen=True, slots=True)
class PartState:
    """What a part belongs to; `validator` is what If-Range takes, empty where there is none.

    `gzipped`: the server says that it compressed the file on its way.

    The address stands as its SHA-256, for it may hold a password.
    """

    address: str
    validator: str = ""
    total_bytes: int | None = None
    gzipped: bool = False


def nothing_yet() -> tuple[hashlib._Hash, int]:
    """Return the digest and size of no bytes."""
    return hashlib.sha256(), 0


def digest_so_far(part: Path) -> tuple[hashlib._Hash, int]:
    """Read a part again for its running digest; an absent one counts as empty."""
    digest, have = nothing_yet()
    try:
        with part.open("rb", buffering=0) as file:
            while piece := file.read(READ_BYTES):
                digest.update(piece)
                have += len(piece)
    except OSError:
        return nothing_yet()
    return digest, have


def state_path(part: Path) -> Path:
    """Return where the state of a part lies."""
    return part.with_name(part.name + ".json")


def load_state(part: Path, url: str) -> PartState:
    """Read what a part belongs to; an empty `address` says that it cannot be gone on with."""
    try:
        with state_path(part).open("rb") as file:
            state = PartState(**json.loads(file.read(LARGEST_STATE_BYTES)))
    except (OSError, ValueError, TypeError, RecursionError):
        return PartState("")
    sound = isinstance(state.validator, str) and isinstance(state.total_bytes, int | None)
    return state if sound and state.address == address_digest(url) else PartState("")


def address_digest(url: str) -> str:
    """Name an address without what may be secret in it."""
    return hashlib.sha256(url.encode()).hexdigest()


def forget(part: Path) -> None:
    """Remove a part and what was noted beside it."""
    part.unlink(missing_ok=True)
    state_path(part).unlink(missing_ok=True)


def save_state(part: Path, state: PartState) -> None:
    """Write what a part belongs to."""
    write_file(state_path(part), json.dumps(asdict(state)).encode())
