"""Root trees of images, before the installer has run and after."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.lib.node_tree import run_docker
from tests.lib.pi_tree import Pi, make_pi

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def wheezy(tmp_path: Path) -> Pi:
    return make_pi(tmp_path, "wheezy")


@pytest.fixture
def jessie(tmp_path: Path) -> Pi:
    return make_pi(tmp_path, "jessie")


@pytest.fixture
def pi(tmp_path: Path) -> Pi:
    """Return a node whose installer has run, with docker, images and a leader."""
    pi = make_pi(tmp_path, "wheezy")
    assert pi.run().returncode == 0
    run_docker(pi)
    return pi
