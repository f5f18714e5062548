"""The processes that a test run has left behind.

Every process of a run inherits a mark in its environment; one that was given an environment of its
own is still of the run's process group. A process that escapes both would have to be a daemon that
clears its environment, which none of ours is.
"""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

MARK = "RPI_IMAGE_TEST_RUN"
_TEST = "PYTEST_CURRENT_TEST"
_WORKER = "PYTEST_XDIST_WORKER"
# How long a process that has been killed may take to go.
GRACE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Process:
    """A process that runs; `test` is the one that started it, where its environment tells."""

    pid: int
    command: str
    test: str


def mark_this_run() -> None:
    """Put the mark into the environment; the workers of xdist inherit it."""
    if _WORKER not in os.environ:
        os.environ[MARK] = uuid.uuid4().hex


def left_behind(grace_seconds: float = GRACE_SECONDS) -> list[Process]:
    """Return what still runs of this run beside this process and its ancestors."""
    end = time.monotonic() + grace_seconds
    while (found := list(_running())) and time.monotonic() < end:
        time.sleep(0.1)
    return found


def _running() -> Iterator[Process]:
    ours = _started(os.getpid())
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError):  # it has ended, or is not ours to look at
            pid = int(folder.name)
            environment = _texts(folder / "environ")
            marked = f"{MARK}={os.environ[MARK]}" in environment
            grouped = os.getpgid(pid) == os.getpgrp() and _started(pid) > ours
            if pid != os.getpid() and (marked or grouped) and _state(pid) != "Z":
                test = next((text for text in environment if text.startswith(_TEST)), "")
                yield Process(pid, " ".join(_texts(folder / "cmdline")), test.partition("=")[2])


def _texts(path: Path) -> list[str]:
    return path.read_bytes().decode("utf-8", "replace").rstrip("\0").split("\0")


def _stat(pid: int) -> list[str]:
    """Return the fields of proc_pid_stat(5) from the third on, which follow the name's bracket."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _state(pid: int) -> str:
    return _stat(pid)[0]


def _started(pid: int) -> int:
    """Return when a process started, in clock ticks since the machine did: field 22."""
    return int(_stat(pid)[19])
