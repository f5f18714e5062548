"""The state of an unfinished download: what is on the disk, and its file on the server."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from imagebuilder.files import write_file

if TYPE_CHECKING:
    from pathlib import Path

READ_BYTES = 1 << 20
LARGEST_STATE_BYTES = 1 << 14  # the notes beside a partial download


@dataclass(frozen=True, slots=True)
class PartState:
    """The origin of a part; `validator` is a value for If-Range, empty if there is none.

    `address` is the SHA-256 of the URL, which may contain a password. `gzipped` is whether the
    server compressed the file in transfer.
    """

    address: str
    validator: str = ""
    total_bytes: int | None = None
    gzipped: bool = False


def nothing_yet() -> tuple[hashlib._Hash, int]:
    """Return the digest and size of an empty part."""
    return hashlib.sha256(), 0


def digest_so_far(part: Path) -> tuple[hashlib._Hash, int]:
    """Return the digest and size of a part; one that does not exist counts as empty."""
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
    """Return the path of the state of a part."""
    return part.with_name(part.name + ".json")


def load_state(part: Path, url: str) -> PartState:
    """Return the state of a part; with an empty `address` it cannot be resumed."""
    try:
        with state_path(part).open("rb") as file:
            state = PartState(**json.loads(file.read(LARGEST_STATE_BYTES)))
    except (OSError, ValueError, TypeError, RecursionError):
        return PartState("")
    sound = isinstance(state.validator, str) and isinstance(state.total_bytes, int | None)
    return state if sound and state.address == address_digest(url) else PartState("")


def address_digest(url: str) -> str:
    """Return the digest of a URL, which hides its secrets."""
    return hashlib.sha256(url.encode()).hexdigest()


def forget(part: Path) -> None:
    """Remove a part and its state."""
    part.unlink(missing_ok=True)
    state_path(part).unlink(missing_ok=True)


def save_state(part: Path, state: PartState) -> None:
    """Write the state of a part."""
    write_file(state_path(part), json.dumps(asdict(state)).encode())
