"""`make pictures`: records real runs of the program as SVG for the README."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

FOLDER = Path(__file__).parents[1] / "docs" / "pictures"
COLUMNS = 100
ROOM = """\
profile: armv7
image: sample
shack: {address: 192.168.2.1}
user: {name: ann, password: {file: ann.txt}}
wifi: {country: FR, networks: [{ssid: shack, passphrase: {file: wifi.txt}}]}
allow: [open-docker]
nodes:
  - hostname: pi-[01-03]
"""
RUNS = {
    "classroom": (
        "cat classroom.yml",
        "rpi-image check classroom.yml",
        "rpi-image batch classroom.yml",
        "rpi-image diff classroom.yml",
    )
}


def main() -> int:
    """Record every run in a folder of its own; stop at the first command that fails."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, commands in RUNS.items():
        with tempfile.TemporaryDirectory() as folder:
            picture = recorded(commands, Path(folder))
        (FOLDER / f"{name}.svg").write_text(picture, encoding="utf-8")
    return 0


def recorded(commands: tuple[str, ...], folder: Path) -> str:
    """Return the picture of a terminal in which the commands have been run."""
    (folder / "classroom.yml").write_text(ROOM, encoding="utf-8")
    for name in ("ann.txt", "wifi.txt"):
        (folder / name).write_text("correct horse\n", encoding="utf-8")
    terminal = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    for command in commands:
        terminal.print(Text(f"$ {command}", style="bold green"))
        terminal.print(Text.from_ansi(output(command, folder)))
    svg = terminal.export_svg(title="rpi-image", unique_id="rpi-image")
    # A page of the project loads nothing from elsewhere; the reader's own font does.
    plain = re.sub(r"\s*@font-face \{.*?\n\s*\}", "", svg, flags=re.DOTALL)
    return "\n".join(line.rstrip() for line in plain.splitlines()) + "\n"


def output(command: str, folder: Path) -> str:
    """Return what a command prints on both streams, in colour."""
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    place = {"PATH": programs, "RPI_IMAGE_CACHE": str(folder / "cache")}
    done = subprocess.run(
        command.split(), cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        check=True, env={**os.environ, **place, "RPI_IMAGE_COLOR": "always"},
    )  # fmt: skip
    lines = [line for line in done.stdout.splitlines() if not re.match(r"nodes: \d", line)]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
