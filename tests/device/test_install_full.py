"""The installer on file systems that refuse: a full root, a read-only boot partition."""

from __future__ import annotations

import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.lib.pi_tree import HASH, Pi, make_pi
from tests.lib.tools import need, need_root

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.root


@contextmanager
def mounted(folder: Path, *options: str) -> Iterator[Path]:
    """Mount something over a folder."""
    need_root()
    need("mount", "umount")
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", *options, str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def _full_root(folder: Path, free_bytes: int) -> Pi:
    """Fill the root up; the boot partition is a file system of its own and has room."""
    pi = make_pi(folder, "wheezy")
    room = subprocess.run(
        ["stat", "-f", "-c", "%a %S", str(folder / "root")],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    filler = int(room[0]) * int(room[1]) - free_bytes
    with (folder / "root" / "filler").open("wb") as file:
        for _ in range(filler // 4096):
            file.write(bytes(4096))
    return pi


@pytest.mark.parametrize("free_bytes", [0, 4096 * 5, 4096 * 14])
def test_a_full_root(free_bytes: int, tmp_path: Path) -> None:
    first = make_pi(tmp_path / "first", "wheezy")
    before = {name: data for name, (_, _, data) in first.snapshot().items()}
    with mounted(tmp_path / "pi" / "root", "-t", "tmpfs", "-o", "size=2m", "none") as root:
        pi = _full_root(root.parent, free_bytes)
        boot = tmp_path / "boot"
        subprocess.run(["cp", "-r", str(pi.boot), str(boot)], check=True)
        with mounted(pi.boot, "--bind", str(boot)):
            done = pi.run()
            assert done.returncode == 0
            assert str(pi.status()["install"]).startswith("failed: ")
            assert "No space left on device" in (pi.card / "status").read_text()
            assert not pi.path("var/lib/rpi-image/installed").exists()
            for name in ("etc/passwd", "etc/shadow", "etc/group", "etc/network/interfaces"):
                old, new = before[name], pi.path(name).read_bytes()
                assert new.startswith(old.split(b"\n")[0]), f"{name} has lost its beginning"
                assert new, name
            (root / "filler").unlink()
            assert pi.run().returncode == 0
            assert pi.status()["install"] == "ok"
            assert pi.read("var/lib/rpi-image/installed") == f"{HASH}\n"
            assert pi.leftovers() == []


def test_a_boot_partition_that_is_read_only(tmp_path: Path) -> None:
    pi = make_pi(tmp_path, "wheezy")
    with mounted(pi.boot, "--bind", str(pi.boot)):
        subprocess.run(["mount", "-o", "remount,bind,ro", str(pi.boot)], check=True)
        done = pi.run()
        assert done.returncode == 0
        assert "the boot partition cannot be written" in done.stderr
        assert pi.read("etc/hostname") == "pi-03\n", "the Pi is its node all the same"
        assert pi.read("var/lib/rpi-image/installed") == f"{HASH}\n"
        assert "it cannot be written" in pi.read("var/lib/rpi-image/install_result")
        assert not (pi.card / "status").exists()
        subprocess.run(["mount", "-o", "remount,bind,rw", str(pi.boot)], check=True)
        assert pi.run().returncode == 0
        assert pi.status()["install"] == "ok"
        assert "hunter22" not in (pi.boot / "occidentalis.txt").read_text(), "taken off now"
