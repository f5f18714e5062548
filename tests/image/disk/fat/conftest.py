"""Boot partitions of every geometry, filled with the stock files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.lib.fat_edits import STOCK, geometry_name
from tests.lib.fat_images import (
    GEOMETRIES,
    FatImage,
    make_geometry,
    make_image,
)

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(params=GEOMETRIES, ids=geometry_name)
def image(request: pytest.FixtureRequest, tmp_path: Path) -> FatImage:
    return make_geometry(
        tmp_path / "base.img", request.param, files=STOCK, label="HYPRIOTOS", odd_bytes=256
    )


@pytest.fixture
def small(tmp_path: Path) -> FatImage:
    return make_image(
        tmp_path / "s.img", kind=32, size_mib=40, cluster_bytes=512, files=STOCK, root_mib=1
    )
