"""The host's processor time that an emulated Pi may have (`make test-boot SLOW=3`), and had."""

from __future__ import annotations

import os
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

# How many times slower than one processor of this machine an emulated Pi is to be.
SLOW = float(os.environ.get("RPI_IMAGE_TEST_SLOW") or "1")
PERIOD_US = 100_000
_numbers = count()
_spent: list[float] = []


@dataclass(frozen=True)
class Quota:
    """A control group of its own, whose processes get a part of one processor."""

    group: Path

    @classmethod
    def make(cls, slow: float) -> Quota:
        """Return a new group that gets a `slow`-th of a processor; needs root."""
        root, unified = _controller()
        if unified:
            (root / "cgroup.subtree_control").write_text("+cpu")
        group = root / f"rpi-image-{os.getpid()}-{next(_numbers)}"
        group.mkdir()
        share = round(PERIOD_US / slow)
        if unified:
            (group / "cpu.max").write_text(f"{share} {PERIOD_US}")
        else:
            (group / "cpu.cfs_period_us").write_text(str(PERIOD_US))
            (group / "cpu.cfs_quota_us").write_text(str(share))
        return cls(group)

    def within(self, command: Sequence[str]) -> list[str]:
        """Return the command that runs `command` in the group, as the same process."""
        enter = 'echo $$ >"$0/cgroup.procs" && exec "$@"'
        return ["sh", "-c", enter, str(self.group), *command]

    def remove(self) -> None:
        """Remove the group, once its processes are gone."""
        self.group.rmdir()


def _controller() -> tuple[Path, bool]:
    """Return where the kernel's processor controller is mounted, and whether it is version 2."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, place, kind, options, *_ = line.split()
        if kind == "cgroup" and "cpu" in options.split(","):
            return Path(place), False
        if kind == "cgroup2" and "cpu" in (Path(place) / "cgroup.controllers").read_text().split():
            return Path(place), True
    raise AssertionError("no cpu controller of control groups is mounted: SLOW needs one")


def seconds_of(process: int) -> float:
    """Return the processor time that a process has had, all its threads together."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text()
    except FileNotFoundError:
        return 0.0
    user, system = stat.rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def note(seconds: float) -> None:
    """Add to what the Pis of this run have taken."""
    _spent.append(seconds)


def spent() -> float:
    """Return the processor time that all Pis of this run have taken."""
    return sum(_spent)
