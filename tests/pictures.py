"""`make pictures`: records real runs of the program as SVG for the README."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from imagebuilder.flash.records.class_status import ClassStatus
from imagebuilder.plan.overlays import load_overlay
from imagebuilder.resources import shipped_folder
from imagebuilder.shack.observe import Observation
from imagebuilder.web.board import BoardServer
from tests.lib.boot_folders import put_tree
from tests.lib.browser import chromium
from tests.lib.class_page import shack
from tests.lib.classroom_samples import make_classroom, node
from tests.lib.plan_samples import STOCK
from tests.lib.program import EPOCH
from tests.lib.served_board import serving
from tests.lib.shack_server import answering

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
# In the folder `bootfs` is the boot partition of Raspberry Pi OS, as Imager has written it.
APPLIED = """\
board: pi4
image: raspios-lite-bookworm-arm64
user: {name: ann, password: {file: ann.txt}}
wifi: {country: FR, networks: [{ssid: shack, passphrase: {file: wifi.txt}}]}
nodes:
  - {hostname: pi-04, owner: Zoë}
"""
RUNS = {
    "classroom": (
        ROOM,
        "cat classroom.yml",
        "rpi-image check classroom.yml",
        "rpi-image batch classroom.yml",
        "rpi-image diff classroom.yml",
    ),
    "apply": (
        APPLIED,
        "cat classroom.yml",
        "rpi-image apply bootfs -c classroom.yml --node pi-04 --dry-run",
        "rpi-image apply bootfs -c classroom.yml --node pi-04",
        "rpi-image verify bootfs -c classroom.yml --node pi-04",
    ),
}
OWNERS = ("Ada", "Grace", "Zoë", "Linus", "Margaret", "Alan")
SHOTS: dict[str, dict[str, Any]] = {
    "board": {"viewport": {"width": 1200, "height": 760}},
    "board-dark": {"viewport": {"width": 1200, "height": 760}, "color_scheme": "dark"},
    "board-phone": {"viewport": {"width": 390, "height": 760}},
}


def main() -> int:
    """Record every run in a folder of its own; stop at the first command that fails."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, run in RUNS.items():
        with tempfile.TemporaryDirectory() as folder:
            picture = recorded(run, Path(folder))
        (FOLDER / f"{name}.svg").write_text(picture, encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        photograph(Path(folder))
        photograph_station(Path(folder))
    return 0


def photograph(folder: Path) -> None:
    """Take pictures of the class page, with some Pis that are on their way."""
    templates = load_overlay(shipped_folder("overlays") / "shack")
    seats = [(row, column) for row in (1, 2, 3) for column in range(1, 7)]
    owners = OWNERS * 3
    nodes = [
        node(number, owner=owner, seat=f"{row}-{column}")
        for number, ((row, column), owner) in enumerate(zip(seats, owners, strict=True), start=1)
    ]
    with ExitStack() as stack:
        manager = stack.enter_context(answering({"/info": b'{"DriverStatus": []}'}))
        room = stack.enter_context(shack(folder, templates, nodes, manager))
        stack.enter_context(room.running_consul())
        browser = stack.enter_context(chromium())
        for number in range(1, 12):
            room.join(f"pi-{number:02d}", f"192.168.2.{100 + number}")
        room.join("pi-12", "192.168.2.66")
        room.tell("pi-13", stage="pulling consul", percent=40)
        room.tell("pi-14", stage="installing", percent=15)
        room.tell("pi-15", stage="pulling consul", error="no space left on device")
        for name, options in SHOTS.items():
            page = browser.new_page(**options)
            page.goto(room.url)
            page.locator("#pi-13[data-state=booting]").wait_for()
            page.screenshot(path=FOLDER / f"{name}.png")
            page.close()


def photograph_station(folder: Path) -> None:
    """Take pictures of the station screen: one card is written, one is done, one failed."""
    room = make_classroom(folder, *(node(n, owner=owner) for n, owner in enumerate(OWNERS, 1)))
    cards = [
        {"number": 3, "node": "pi-03", "owner": "Zoë", "state": "writing", "percent": 64},
        {"number": 2, "node": "pi-02", "owner": "Grace", "state": "done"},
        {"number": 1, "node": "pi-01", "owner": "Ada", "state": "failed",
         "error": "read back differently at 18 MB: the card is worn out or counterfeit"},
    ]  # fmt: skip
    for card in cards:
        card |= {"label": card["number"], "reader": f"/dev/sd{'abc'[int(str(card['number'])) - 1]}"}
    station = {
        "station": "laptop 1",
        "next": "pi-01",
        "label": 1,
        "owner": "Ada",
        "left": 4,
        "of": 6,
    }
    server = BoardServer(
        classroom=room,
        look=lambda: ClassStatus((), Observation(None, ())),
        stations=lambda: [station | {"cards": cards}],
        findings=tuple,
        port=0,
    )
    with serving(server) as served, chromium() as browser:
        for name, options in SHOTS.items():
            page = browser.new_page(**options)
            page.goto(f"{served.url}station")
            page.locator("#cards li").first.wait_for()
            page.screenshot(path=FOLDER / f"{name.replace('board', 'station')}.png")
            page.close()


def recorded(run: tuple[str, ...], folder: Path) -> str:
    """Return the picture of a terminal in which the commands have been run for a classroom file."""
    room, *commands = run
    (folder / "classroom.yml").write_text(room, encoding="utf-8")
    put_tree(folder / "bootfs", STOCK["firstrun-bookworm"])
    for name in ("ann.txt", "wifi.txt"):
        (folder / name).write_text("correct horse\n", encoding="utf-8")
    return drawn([(f"$ {command}", output(command, folder)) for command in commands])


def drawn(steps: list[tuple[str, str]]) -> str:
    """Return the picture of a terminal with commands, each followed by what it printed."""
    terminal = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    for command, printed in steps:
        terminal.print(Text(command, style="bold green"))
        terminal.print(Text.from_ansi(printed))
    svg = terminal.export_svg(title="rpi-image", unique_id="rpi-image")
    # A page of the project loads nothing from elsewhere; the reader's own font does.
    plain = re.sub(r"\s*@font-face \{.*?\n\s*\}", "", svg, flags=re.DOTALL)
    # With another font than Rich's own, the borders of a line would cut off its underscores.
    plain = re.sub(r' clip-path="[^"]*"', "", plain)
    return "\n".join(line.rstrip() for line in plain.splitlines()) + "\n"


def output(command: str, folder: Path) -> str:
    """Return what a command prints on both streams, in colour."""
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    place = {"PATH": programs, "RPI_IMAGE_CACHE": str(folder / "cache")}
    place |= {"SOURCE_DATE_EPOCH": EPOCH}
    done = subprocess.run(
        command.split(), cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        check=True, env={**os.environ, **place, "RPI_IMAGE_COLOR": "always"},
    )  # fmt: skip
    lines = [line for line in done.stdout.splitlines() if not re.match(r"nodes: \d", line)]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
