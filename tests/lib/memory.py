"""How much memory a process has used."""

from __future__ import annotations

from pathlib import Path


def peak_memory() -> int:
    """Return the most memory in bytes that this process had at a time since it was started.

    Not `ru_maxrss`: across exec Linux keeps that of the process before, here the large one of
    pytest that forked it (exec_mmap in fs/exec.c).
    """
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) << 10
