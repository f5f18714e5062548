"""The templates of the shack's folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from imagebuilder.plan.overlays import load_overlay
from imagebuilder.resources import shipped_folder

if TYPE_CHECKING:
    from imagebuilder.model import (
        OverlayFile,
    )


@pytest.fixture(scope="module")
def templates() -> tuple[OverlayFile, ...]:
    return load_overlay(shipped_folder("overlays") / "shack")
