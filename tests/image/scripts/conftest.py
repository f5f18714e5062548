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


@pytest.fixture(scope="session")
def installed_wheezy(tmp_path_factory: pytest.TempPathFactory) -> Pi:
    """Return a node whose installer has run; not to be changed, for it takes half a second."""
    pi = make_pi(tmp_path_factory.mktemp("installed"), "wheezy")
    assert pi.run().returncode == 0
    return pi


@pytest.fixture
def pi(tmp_path: Path, installed_wheezy: Pi) -> Pi:
    """Return a node whose installer has run, with docker, images and a leader."""
    pi = make_pi(tmp_path, "wheezy")
    pi.become(installed_wheezy)
    run_docker(pi)
    return pi
