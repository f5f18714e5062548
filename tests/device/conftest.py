"""Images that the device tests share: made once, never changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.device.cards import SmallImage, make_image

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> SmallImage:
    """Return the common small image."""
    return make_image(tmp_path_factory.mktemp("small"))


@pytest.fixture
def classroom(tmp_path: Path, small: SmallImage) -> Path:
    """Return a classroom of three over the small image."""
    file = tmp_path / "class" / "class.yml"
    file.parent.mkdir()
    file.write_text(
        f"profile: armv7\nimage: {{file: {small.path}, unchecked: true}}\n"
        "shack: {address: 192.168.2.1}\n"
        "nodes: [{hostname: pi-01}, {hostname: pi-02}, {hostname: pi-03}]\n"
    )
    return file
