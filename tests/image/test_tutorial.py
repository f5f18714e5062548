"""docs/classroom.md: every command of the page, run in the page's order.

What needs a network, a card or a class is marked there as simulated and gets a stand-in here:
`apt-get`, `pip` and the shack's docker write down how they were called, the card is a loop device,
the base image is the shipped sample, and the class is a server that answers as consul and swarm do.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from imagebuilder.exports import EXPORTS
from tests.device.cards import loop
from tests.image.shack_server import Answer, answering
from tests.tools import need, need_root

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = Path(__file__).parents[2] / "docs" / "classroom.md"
IMAGE = "hypriotos-1.12.3"
ROSTER = [("pi-01", "192.168.2.101"), ("pi-02", "192.168.2.102"), ("pi-03", "192.168.2.103")]
BLOCK = re.compile(
    r"(?:<!-- simulated: (?P<how>\w+) -->\n)?```(?P<kind>\w+)\n(?P<text>.*?)```", re.DOTALL
)


@dataclass(frozen=True)
class Block:
    """A fenced block of the page; `how` is what it must be simulated with."""

    kind: str
    how: str
    text: str

    @property
    def commands(self) -> list[str]:
        """The lines a reader types."""
        return [line.removeprefix("$ ") for line in self.text.splitlines() if line[:2] == "$ "]


def blocks() -> list[Block]:
    return [
        Block(found["kind"], found["how"] or "", found["text"])
        for found in BLOCK.finditer(PAGE.read_text())
    ]


def test_the_page_has_only_blocks_that_a_test_knows() -> None:
    assert PAGE.read_text().count("```") == 2 * len(blocks())
    assert {block.kind for block in blocks()} == {"console", "yaml", "csv"}
    assert {block.how for block in blocks()} == {"", "install", "shack", "card", "classroom"}
    for block in blocks():
        if block.kind == "console":
            assert len(block.commands) == len(block.text.splitlines())


def test_the_page_and_the_seed_end_alike() -> None:
    commands = [command for block in blocks() for command in block.commands]
    assert "docker -H tcp://192.168.2.1:10000 info" in commands


@dataclass
class Reader:
    """Someone who does what the page says, in a folder of their own."""

    folder: Path
    device: str
    ports: tuple[int, int]

    def __post_init__(self) -> None:
        self.programs = self.folder / "bin"
        self.place = self.folder
        self.environment = {
            **os.environ,
            "PATH": f"{self.programs}:{os.environ['PATH']}:/usr/sbin",
            "XDG_CACHE_HOME": str(self.folder / "cache"),
            "RPI_IMAGE_CACHE": str(self.folder / "cache"),
            "HOME": str(self.folder),
        }
        self._lay_out_programs()

    def _lay_out_programs(self) -> None:
        self.programs.mkdir()
        log = self.folder / "log"
        stand_ins = {
            "rpi-image": f'exec {sys.executable} -m imagebuilder "$@"',
            "sudo": 'exec "$@"',
            "ip": "echo '2: eth0    inet 192.168.2.1/24 brd 192.168.2.255'",
            "docker": '[ "$*" != "compose version" ]',
        }
        for name in ("apt-get", "pip", "docker-compose", "ln"):
            stand_ins[name] = ":"
        for name, text in stand_ins.items():
            note = "" if name in ("rpi-image", "sudo") else f'echo "{name} $*" >> {log}\n'
            (self.programs / name).write_text(f"#!/bin/sh\n{note}{text}\n")
            (self.programs / name).chmod(0o755)

    def called(self) -> list[str]:
        return (self.folder / "log").read_text().splitlines()

    def do(self, block: Block) -> str:
        """Type a block's commands; give what they said."""
        return "".join(self._type(self._simulated(line, block.how)) for line in block.commands)

    def _simulated(self, line: str, how: str) -> str:
        line = line.replace(IMAGE, "sample") if how != "install" else line
        if how == "card":
            line = line.replace("/dev/sdX", self.device)
            line = line.replace("rpi-image flash", "rpi-image flash --yes --allow-loop --again")
        if how == "install":
            # The environment that runs this test stands for the new one.
            line = line.replace("python3 -m venv ~/rpi && . ~/rpi/bin/activate", "true")
        if how == "shack" and "status" in line:
            line = line.replace("status", "-n status")  # asks real services: see tests/device
        return line.replace("--watch", "--watch --interval 0.2")

    def _type(self, line: str) -> str:
        if line.startswith("mkdir"):
            self.place = self.folder / shlex.split(line)[1]
        where = self.folder if line.startswith("mkdir") else self.place
        done = subprocess.run(
            ["sh", "-ec", line], cwd=where, env=self.environment, capture_output=True, text=True,
            check=False, timeout=120, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.returncode == 0, f"{line}: {done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def write(self, block: Block) -> None:
        """Save a block as the file it is."""
        if block.kind == "csv":
            (self.place / "nodes.csv").write_text(block.text)
            return
        text = block.text.replace(IMAGE, "sample")
        (self.place / "classroom.yml").write_text(text)

    def move_class_here(self) -> None:
        """Let the class's file point at the stand-in for the class."""
        file = self.place / "classroom.yml"
        consul, swarm = self.ports
        here = f"{{address: 127.0.0.1, ports: {{consul: {consul}, swarm: {swarm}}}}}"
        file.write_text(file.read_text().replace("{address: 192.168.2.1}", here))


@contextmanager
def class_of_three() -> Iterator[tuple[int, int]]:
    """Answer as a consul and a manager with three healthy nodes do."""
    members = [{"Node": name, "Address": address} for name, address in ROSTER]
    rows: list[list[str]] = [["\bStrategy", "spread"], ["\bNodes", "3"]]
    for name, address in ROSTER:
        rows += [[name, f"{address}:2375"], [" └ Labels", "arch=armv7, room=b12"]]
    consul: dict[str, Answer] = {
        "/v1/status/leader": b'"192.168.2.1:8300"',
        "/v1/catalog/nodes": json.dumps(members).encode(),
        "/v1/health/state/any": b"[]",
    }
    manager: dict[str, Answer] = {"/info": json.dumps({"DriverStatus": rows}).encode()}
    with answering(consul) as consul_port, answering(manager) as swarm_port:
        yield consul_port, swarm_port


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    need_root()
    need("losetup", "make")
    with ExitStack() as stack:
        sparse = tmp_path / "card"
        with sparse.open("wb") as file:
            file.truncate(1_300_000_768)
        device = stack.enter_context(loop(sparse))
        yield Reader(tmp_path, device, stack.enter_context(class_of_three()))


def test_a_teacher_can_follow_the_page(reader: Reader) -> None:
    page = blocks()
    said: list[str] = []
    for block in page:
        if block.kind != "console":
            reader.write(block)
            continue
        if block.how == "classroom":
            reader.move_class_here()
        elif "--card" in block.text:
            break
        said.append(reader.do(block))
    check_files(reader)
    check_shack(reader)
    assert "3 joined" in "".join(said)
    assert "docker -H tcp://192.168.2.1:10000 info" in reader.called()
    cards = next(text for text in said if "written and verified" in text)
    assert "pi-01 goes onto" in cards
    assert "are as they should be" in cards
    check_a_card_that_reports(reader, page[-1])


def check_files(reader: Reader) -> None:
    images = sorted(path.name for path in (reader.place / "images").glob("*.img"))
    assert images == ["pi-01.img", "pi-02.img", "pi-03.img"]
    assert (reader.place / "labels.html").read_text().count('class="host"') == 3
    assert "Linus &amp; Tove" in (reader.place / "labels.html").read_text()
    exported = {path.name for path in (reader.place / "export").iterdir()}
    assert exported == {export.file for export in EXPORTS.values()}


def check_shack(reader: Reader) -> None:
    compose = yaml.safe_load((reader.place / "shack" / "docker-compose.yml").read_text())
    assert len(compose["services"]) == 7
    called = reader.called()
    assert "ip addr add 192.168.2.1/24 dev eth0" in called
    assert "docker-compose up -d" in called
    assert any(line.startswith("docker push localhost:5000/") for line in called)


def check_a_card_that_reports(reader: Reader, block: Block) -> None:
    """Put a status file onto the written card as the Pi does, and read it as the page says."""
    need("mcopy")
    (reader.place / "report").write_text('{"hostname": "pi-01", "error": "no route to the shack"}')
    offset = 2048 * 512
    subprocess.run(
        ["mcopy", "-i", f"{reader.device}@@{offset}", reader.place / "report",
         "::rpi-image/status.json"], check=True,
    )  # fmt: skip
    subprocess.run(["sync"], check=True)
    assert "no route to the shack" in reader.do(block)
