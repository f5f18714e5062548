"""Fixtures of the boot tests: each boots a real kernel, init and dockerd under QEMU."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.boot.pi import Pi
from tests.lib.tools import need, need_root

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    StartPi = Callable[..., Pi]


@pytest.fixture(scope="session", autouse=True)
def _tools() -> None:
    need_root()
    need("qemu-system-arm", "qemu-img", "mtools", "sfdisk", "mkfs.vfat", "e2fsck", "debugfs")


@pytest.fixture
def start(tmp_path: Path) -> Iterator[StartPi]:
    """Put an image's throw-away copy into a Pi and power it on; it is gone after the test."""
    started: list[Pi] = []

    def _start(image: Path, network: str = "") -> Pi:
        pi = Pi(image, tmp_path / f"pi-{len(started)}", network=network)
        started.append(pi)
        pi.power_on()
        return pi

    yield _start
    for pi in started:
        pi.throw_away()
