"""docs/classroom.md: every command of the page, run in the page's order.

Each block is typed into one shell. Real are the venv, `pip install` (what the program needs is
there already; only the build's own backend is fetched), `usermod` and `ln` on a root of the test's,
`make`, the shack's scripts, `curl` and every `rpi-image`, which runs as installed. Stand-ins are:

- `sudo`, which only runs the command, for root reads the page; the real one: device/test_sudo.py
- `apt-get`, which writes down its call; no test installs the packages by it
- `ip`, which knows the shack's address; the real one: device/test_shack_compose.py
- `docker` and `docker-compose`, which write down their calls; `make up`, `status`, `preload` and
  `down` with the real ones: device/test_shack_compose.py. What `docker -H` asks of a classic Swarm
  manager in step 7 is run nowhere: its binary is not to be had here
- the shack's services and its class: HTTP servers that `curl` is led to by its own settings and
  `rpi-image status` by the class's file; the real ones: device/test_shack_compose.py
- the card, a loop device (`/dev/sdX` and the flags for it are put in), and the base image, the
  shipped sample instead of a download; the real name of a card: device/test_flash.py
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from imagebuilder.shack.exports import EXPORTS
from tests.device.cards import loop
from tests.lib.shack_server import Answer, answering
from tests.lib.tools import need, need_root

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "classroom.md"
IMAGE = "hypriotos-1.12.3"
# The shack's other services: the port of each, and what `make status` asks for there.
SHACK_ANSWERS = {5000: "/v2/", 5001: "/v2/", 3142: "/acng-report.html", 8080: "/"}
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
    """Someone who does what the page says, with a root, a home and a card of their own."""

    folder: Path
    device: str
    ports: dict[str, int]

    def __post_init__(self) -> None:
        self.programs, self.root = self.folder / "bin", self.folder / "root"
        self.place = ROOT
        self.environment = {
            **os.environ,
            # As after the login that the page asks for: nothing of the venv but the link.
            "PATH": f"{self.programs}:{self.root}/usr/local/bin:{os.environ['PATH']}:/usr/sbin",
            "PYTHONPATH": str(self._dependencies()),
            "XDG_CACHE_HOME": str(self.folder / "cache"),
            "RPI_IMAGE_CACHE": str(self.folder / "cache"),
            "HOME": str(self.folder),
            # Nothing newer than the lock: pip builds with the hatchling of PYTHONPATH. (In pip's
            # environment variables, a "no" option is switched on by a no.)
            "PIP_NO_BUILD_ISOLATION": "no",
            "PIP_NO_INDEX": "1",
            "USER": "teacher",
        }
        self._lay_out_root()
        self._lay_out_programs()
        self._lead_curl_here()

    def _dependencies(self) -> Path:
        """Return a folder of what this test runs with, the program itself left out."""
        folder = self.folder / "packages"
        folder.mkdir()
        for package in Path(sysconfig.get_path("purelib")).iterdir():
            if not re.search(r"imagebuilder|rpi_image", package.name):
                (folder / package.name).symlink_to(package)
        return folder

    def _lay_out_root(self) -> None:
        (self.root / "usr" / "local" / "bin").mkdir(parents=True)
        (self.root / "etc").mkdir()
        teacher = f"teacher:x:1000:1000::{self.folder}:/bin/sh\n"
        (self.root / "etc" / "passwd").write_text(teacher)
        (self.root / "etc" / "group").write_text("docker:x:999:\nteacher:x:1000:\n")

    def _lay_out_programs(self) -> None:
        self.programs.mkdir()
        usermod, ln = need("usermod", "ln")
        stand_ins = {
            "sudo": 'exec "$@"',
            "ip": "echo '2: eth0    inet 192.168.2.1/24 brd 192.168.2.255'",
            "docker": '[ "$1" != inspect ] || echo running\n[ "$*" != "compose version" ]',
            "apt-get": ":",
            "docker-compose": ":",
            "python3": f'exec {sys.executable} "$@"',
            "pip": "echo 'no venv is active' >&2; exit 1",
            "usermod": f'exec {usermod} --prefix {self.root} "$@"',
            "ln": f'exec {ln} "$1" "$2" "{self.root}$3"',
        }
        for name, text in stand_ins.items():
            note = f'echo "{name} $*" >> {self.folder / "log"}\n'
            (self.programs / name).write_text(f"#!/bin/sh\n{note}{text}\n")
            (self.programs / name).chmod(0o755)

    def _lead_curl_here(self) -> None:
        there = {8500: "consul", 10000: "swarm"}
        ports = {p: self.ports[there.get(p, "shack")] for p in (8500, 10000, *SHACK_ANSWERS)}
        lines = [f'connect-to = "192.168.2.1:{p}:127.0.0.1:{here}"' for p, here in ports.items()]
        (self.folder / ".curlrc").write_text("\n".join(lines) + "\n")

    def called(self) -> list[str]:
        return (self.folder / "log").read_text().splitlines()

    def do(self, block: Block) -> str:
        """Type a block into a shell; the next one starts in the folder where this one ends."""
        ended = self.folder / "place"
        lines = [self._simulated(line, block.how) for line in block.commands]
        done = subprocess.run(
            ["sh", "-ec", "\n".join([*lines, f"pwd > {ended}"])],
            cwd=self.place, env=self.environment, capture_output=True, text=True,
            check=False, timeout=300, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.returncode == 0, f"{block.text}: {done.stdout}{done.stderr}"
        self.place = Path(ended.read_text().strip())
        return done.stdout + done.stderr

    def _simulated(self, line: str, how: str) -> str:
        line = line.replace(IMAGE, "sample")
        if how == "card":
            line = line.replace("/dev/sdX", self.device)
            line = line.replace("rpi-image flash", "rpi-image flash --yes --allow-loop --again")
        return line.replace("--watch", "--watch --interval 0.2")

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
        ports = f"{{consul: {self.ports['consul']}, swarm: {self.ports['swarm']}}}"
        here = f"{{address: 127.0.0.1, ports: {ports}}}"
        file.write_text(file.read_text().replace("{address: 192.168.2.1}", here))


@contextmanager
def class_of_three() -> Iterator[dict[str, int]]:
    """Answer as a consul and a manager with three healthy nodes do, and as the other services."""
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
    rest: dict[str, Answer] = dict.fromkeys(SHACK_ANSWERS.values(), b"")
    with answering(consul) as first, answering(manager) as second, answering(rest) as third:
        yield {"consul": first, "swarm": second, "shack": third}


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    need_root()
    need("losetup", "make", "curl", "usermod")
    with ExitStack() as stack:
        sparse = tmp_path / "card"
        with sparse.open("wb") as file:
            file.truncate(1_300_000_768)
        device = stack.enter_context(loop(sparse))
        yield Reader(tmp_path, device, stack.enter_context(class_of_three()))


@pytest.mark.long
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
    check_install(reader)
    check_files(reader)
    check_shack(reader)
    status = next(text for text in said if "consul up" in text)
    assert status.count(" up\n") == 7
    assert "3 joined" in "".join(said)
    assert "docker -H tcp://192.168.2.1:10000 info" in reader.called()
    cards = next(text for text in said if "written and verified" in text)
    assert "pi-01 will be written to" in cards
    assert "no differences in" in cards
    check_a_card_that_reports(reader, page[-1])


def check_install(reader: Reader) -> None:
    assert reader.called()[0].startswith("sudo apt-get install docker.io docker-compose ")
    assert "docker:x:999:teacher" in (reader.root / "etc" / "group").read_text().splitlines()
    link = reader.root / "usr" / "local" / "bin" / "rpi-image"
    assert link.readlink() == reader.folder / "rpi" / "bin" / "rpi-image"
    site = reader.folder / "rpi" / "lib"
    assert list(site.glob("python3*/site-packages/imagebuilder/cli/main.py"))
    assert reader.place == reader.folder / "class-3b"


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
