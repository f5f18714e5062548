"""Each fact has one home: what several modules need is spelled in one of them alone."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from imagebuilder import model
from imagebuilder.disk import boot_sector
from imagebuilder.plan import card_layout

PACKAGE = Path(__file__).parents[2] / "imagebuilder"
MODULES = sorted(PACKAGE.rglob("*.py"))
LAYOUT = "plan/card_layout.py"
HOMES: dict[object, str] = {
    boot_sector.SIGNATURE: "disk/boot_sector.py",
    model.DOCKER_PORT: "model.py",
    model.DOCKER_TLS_PORT: "model.py",
    model.HOSTNAME.pattern: "model.py",
    card_layout.CMDLINE: LAYOUT,
    card_layout.CONFIG: LAYOUT,
}

# The program's name to servers, container images that the shack builds, and keys in consul: no
# paths on a card.
NOT_ON_A_CARD = {
    "images/http_client.py": ("rpi-image/",),
    "shack/claim_store.py": ("rpi-image/claims/",),
    "shack/consul_access.py": ("rpi-image/swarm/",),
    "shack/node_progress.py": ("rpi-image/nodes/",),
    "shack/services.py": ("rpi-image/apt-cacher-ng", "rpi-image/chrony:2"),
}


def literals(path: Path) -> list[object]:
    """Return every constant of a module, and the pieces of its f-strings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_a_fact_is_spelled_in_its_home_alone(path: Path) -> None:
    here = path.relative_to(PACKAGE).as_posix()
    assert [value for value in literals(path) if HOMES.get(value, here) != here] == []


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_a_path_on_the_card_comes_from_its_layout(path: Path) -> None:
    here = path.relative_to(PACKAGE).as_posix()
    texts = [value for value in literals(path) if isinstance(value, str)]
    ours = [text for text in texts if text.startswith(card_layout.FOLDER) and here != LAYOUT]
    assert [text for text in ours if text not in NOT_ON_A_CARD.get(here, ())] == []
