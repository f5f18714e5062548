"""Mounted boot partitions as plain folders, and each state of one while it is changed."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from imagebuilder.build.apply import apply_plan, plan_apply
from imagebuilder.build.boot_folder import BootFolder
from imagebuilder.build.compose import OverlayFolders
from tests.lib.plan_samples import BUILD_TIME

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import pytest

    from imagebuilder.build.apply import ApplyPlan
    from imagebuilder.model import NodeSettings

Tree = dict[str, bytes]
_OVERLAYS = OverlayFolders()

# Every function of the system that changes a folder, and the flush.
CHANGES = ("replace", "rename", "unlink", "remove", "mkdir", "rmdir", "write", "fsync")


def put_tree(folder: Path, files: Mapping[str, bytes]) -> Path:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    folder.mkdir(exist_ok=True)
    return folder


def tree_of(folder: Path) -> Tree:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def applied(folder: Path, settings: NodeSettings, build_time: int = BUILD_TIME) -> ApplyPlan:
    """Apply a node to the folder, as the command does."""
    boot = BootFolder(folder)
    plan = plan_apply(boot, settings, build_time, _OVERLAYS)
    apply_plan(boot, plan)
    return plan


@contextmanager
def each_state(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Iterator[list[Tree]]:
    """Collect the folder as it is after every change, as a power cut would leave it."""
    states: list[Tree] = []

    def watch(name: str) -> None:
        real = getattr(os, name)

        def watched(*arguments: Any, **options: Any) -> Any:
            done = real(*arguments, **options)
            states.append(tree_of(folder))
            return done

        patched.setattr(os, name, watched)

    with monkeypatch.context() as patched:
        for name in CHANGES:
            watch(name)
        yield states
