"""Where to write what is fuzzed."""

from __future__ import annotations

import os
from pathlib import Path

BUILD = Path(__file__).parents[2] / "build" / "fuzz"


def fast_folder() -> str | None:
    """Return a folder in memory if there is one: inputs are written thousands of times."""
    memory = "/dev/shm"  # a tmpfs (shm_overview(7))
    return memory if os.access(memory, os.W_OK) else None
