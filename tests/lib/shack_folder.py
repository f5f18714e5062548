"""Render the folder of a shack, and read what it holds."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import yaml

from imagebuilder.shack.folder import Kind, ShackFile, plan_shack, write_shack
from tests.lib.tools import need

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from imagebuilder.model import (
        Classroom,
        OverlayFile,
    )


KINDS: tuple[Kind, ...] = ("classic", "swarm-mode")


def written(
    classroom: Classroom, templates: Sequence[OverlayFile], folder: Path, kind: Kind | None = None
) -> Path:
    write_shack(plan_shack(classroom, templates, kind), templates, folder)
    return folder


def text_of(files: Sequence[ShackFile], path: str) -> str:
    return next(file for file in files if file.path == path).data.decode()


def command_of(classroom: Classroom, templates: Sequence[OverlayFile], service: str) -> list[str]:
    """Return a service's command as YAML reads it out of the compose file."""
    text = text_of(plan_shack(classroom, templates), "docker-compose.yml")
    command: list[str] = yaml.safe_load(text)["services"][service]["command"]
    return command


def recorder(folder: Path, *, fails: str = "nothing") -> dict[str, str]:
    """Put a `docker` and an `ip` first on the PATH that write down how they were called."""
    programs = folder / "bin"
    programs.mkdir()
    (programs / "docker").write_text(
        f'#!/bin/sh\necho "docker $*" >> {folder}/log\n'
        f'case "$*" in *{fails}*) exit 1 ;; "info "*) echo inactive ;;'
        ' *join-token*) echo SWMTKN-1-secret ;; "compose version") exit 1 ;; esac\n'
    )
    (programs / "docker-compose").write_text(f'#!/bin/sh\necho "compose $*" >> {folder}/log\n')
    (programs / "ip").write_text("#!/bin/sh\necho '2: eth0    inet 192.168.2.1/24 brd x'\n")
    for program in programs.iterdir():
        program.chmod(0o755)
    return {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}


def called(folder: Path) -> list[str]:
    return (folder / "log").read_text().splitlines()


def make(
    folder: Path, target: str, environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    need("make")
    return subprocess.run(
        ["make", target], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
