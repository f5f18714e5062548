"""Simulated cards: loop devices over files, or over nbdkit where a card must misbehave."""

from __future__ import annotations

import subprocess
import textwrap
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tests.tools import need, need_root, run

if TYPE_CHECKING:
    from collections.abc import Iterator

GARBAGE = bytes((i * 37 + 11) % 251 + 1 for i in range(1 << 20))  # 1 MiB without a zero byte


@contextmanager
def loop(file: Path, *, read_only: bool = False, sector_bytes: int = 512) -> Iterator[str]:
    """Give a loop device over a file."""
    need_root()
    need("losetup")
    options = ["--read-only"] if read_only else []
    device = run(
        "losetup",
        "--find",
        "--show",
        "--direct-io=on",
        f"--sector-size={sector_bytes}",
        *options,
        file,
    ).strip()
    try:
        yield device
    finally:
        run("losetup", "--detach", device, check=False)


def garbage_file(path: Path, size_bytes: int) -> Path:
    """Make a file without a single zero byte: what is left over from an earlier life."""
    with path.open("wb") as file:
        for _ in range(size_bytes // len(GARBAGE)):
            file.write(GARBAGE)
        file.write(GARBAGE[: size_bytes % len(GARBAGE)])
    return path


@contextmanager
def card(folder: Path, size_bytes: int) -> Iterator[str]:
    """Give a good card full of garbage."""
    with loop(garbage_file(folder / "card.raw", size_bytes)) as device:
        yield device


@contextmanager
def served(folder: Path, *words: str | Path) -> Iterator[str]:
    """Give a loop device over what nbdkit serves with these words (filters, plugin, settings)."""
    need_root()
    need("nbdkit", "nbdfuse", "fusermount3")
    point = folder / "served"
    point.mkdir()
    file = point / "card"
    command = ["nbdfuse", file, "--command", "nbdkit", "--exit-with-parent", "-s", *words]
    server = subprocess.Popen(command, stderr=(folder / "nbdkit.log").open("wb"))
    try:
        _wait_for(file, server)
        with loop(file) as device:
            yield device
    finally:
        run("fusermount3", "-u", "-z", point, check=False)
        try:
            server.wait(timeout=10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


@contextmanager
def lying_card(folder: Path, size_bytes: int, body: str) -> Iterator[str]:
    """Give a card whose `pread` and `pwrite` a few lines of Python decide.

    The lines see `store` (a bytearray), `count`, `offset`, `buf`, and `switch`, the path of a
    file that the test may create to set the fault off.
    """
    script = folder / "lying.py"
    script.write_text(
        textwrap.dedent(
            f"""\
            import nbdkit, os, time
            API_VERSION = 2
            size = {size_bytes}
            store = bytearray({GARBAGE[:251]!r} * (size // 251 + 1))[:size]
            switch = {str(folder / "switch")!r}
            seen = {{"writes": 0}}
            def thread_model(): return nbdkit.THREAD_MODEL_SERIALIZE_ALL_REQUESTS
            def open(readonly): return 1
            def get_size(h): return size
            def can_flush(h): return True
            def flush(h, flags): pass
            def plain_read(buf, offset): buf[:] = store[offset:offset + len(buf)]
            def plain_write(buf, offset): store[offset:offset + len(buf)] = buf
            """
        )
        + textwrap.dedent(body)
    )
    with served(folder, "python", script) as device:
        yield device


def slow(megabytes_per_second: int) -> tuple[str, ...]:
    """Give nbdkit's words for a card of this speed in both directions."""
    return ("--filter=rate", f"rate={megabytes_per_second * 8}M", "burstiness=0.05")


def _wait_for(file: Path, server: subprocess.Popen[bytes]) -> None:
    for _ in range(200):
        if file.exists() and file.stat().st_size:
            return
        if server.poll() is not None:
            break
        time.sleep(0.05)
    message = (file.parent.parent / "nbdkit.log").read_text()
    raise AssertionError(f"nbdfuse did not start: {message}")
