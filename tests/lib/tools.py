"""The programs that tests check against: a missing one skips here and fails in CI."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def need(*programs: str) -> tuple[str, ...]:
    """Return the paths of programs; skip the test where one is missing; in CI that is a failure.

    The names stand as texts in the code: tests/boot/test_fresh_machine.py collects them.
    """
    paths = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    found = {name: shutil.which(name, path=paths) for name in programs}
    if missing := [name for name, path in found.items() if path is None]:
        _absent(f"needs {', '.join(missing)} (make tools)")
    return tuple(path for path in found.values() if path)


def need_root() -> None:
    """Skip the test without root; in CI that is a failure."""
    if os.geteuid() != 0:
        _absent("needs root")


def _absent(reason: str) -> None:
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def run(*command: str | os.PathLike[str], check: bool = True, **options: object) -> str:
    """Run a program to its end and give what it printed on stdout."""
    environment = {
        **os.environ,
        "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin",
        "LC_ALL": "C.UTF-8",
    }
    done = subprocess.run(  # type: ignore[call-overload]
        command, capture_output=True, text=True, check=False, env=environment, **options
    )
    if check and done.returncode != 0:
        pytest.fail(f"{command[0]} gave {done.returncode}: {done.stdout}{done.stderr}")
    return str(done.stdout)


@contextmanager
def mounted(folder: Path, make: str, *options: str, mib: int = 400) -> Iterator[Path]:
    """Mount a new file system of a kind."""
    need_root()
    need("mkfs.btrfs", "mkfs.ext2", "mkfs.ext3", "mkfs.ext4", "mkfs.xfs")
    store, place = folder / "store", folder / "there"
    run("truncate", "-s", f"{mib}M", store)
    run(make, *options, store)
    place.mkdir()
    run("mount", "-o", "loop", store, place)
    try:
        yield place
    finally:
        # A mount namespace that another test made meanwhile may hold the mount after us.
        run("sync", "-f", place)
        run("umount", place)


@contextmanager
def small_tmpfs(folder: Path, size: str) -> Iterator[Path]:
    """Mount a tmpfs that is full after `size`, in a folder that is made."""
    need_root()
    folder.mkdir()
    run("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder)
    try:
        yield folder
    finally:
        run("umount", folder, check=False)
