"""Read what a plan holds, and make the nodes and overlays for one."""

from __future__ import annotations

import shlex
from dataclasses import replace

from imagebuilder.model import (
    NodePlan,
    NodeSettings,
    OverlayFile,
)
from tests.lib.plan_samples import (
    plain_node,
)


def files_of(planned: NodePlan) -> dict[str, bytes]:
    return {edit.path: edit.data for edit in planned.edits if edit.data is not None}


def text_of(planned: NodePlan, path: str) -> str:
    return files_of(planned)[path].decode()


def node_env(planned: NodePlan) -> dict[str, str]:
    lines = text_of(planned, "rpi-image/node.env").splitlines()
    words = [shlex.split(line) for line in lines if not line.startswith("#")]
    assert all(len(word) == 1 for word in words)
    return dict(word[0].split("=", 1) for word in words)


def overlay(path: str, text: str) -> OverlayFile:
    return OverlayFile(path, text.encode(), f"mine/{path}")


def node_with(**changes: object) -> NodeSettings:
    return replace(plain_node(), **changes)  # type: ignore[arg-type]
