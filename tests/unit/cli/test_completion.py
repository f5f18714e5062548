"""Completion of values: what click offers, and what the real shells make of it."""

from __future__ import annotations

import os
import pty
import select
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete

from imagebuilder.cli.completion import VARIABLE
from imagebuilder.cli.main import COMMANDS, cli, run
from imagebuilder.devices.device import Device
from imagebuilder.plan.vendor.boards import BOARDS
from tests.lib.tools import need
from tests.lib.tools import run as run_tool

PROGRAMS = Path(sys.executable).parent  # with rpi-image as it is installed
ROOM = "profile: armv7\nimage: sample\nnodes: [{hostname: 'pi-[01-03]'}, {hostname: 'tv'}]\n"


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a folder with a classroom file the current one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RPI_IMAGE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "room.yml").write_text(ROOM)
    (tmp_path / "broken.yml").write_text("nodes: [{hostname: 'pi-['}]\nx: 1\n")
    return tmp_path


def offered(line: str) -> dict[str, str | None]:
    """Return the completions of the last word of a line, with their descriptions."""
    *words, last = shlex.split(line.replace("|", "''"))
    found = ShellComplete(cli, {}, "rpi-image", VARIABLE).get_completions(words[1:], last)
    return {item.value if item.type == "plain" else item.type: item.help for item in found}


@pytest.mark.parametrize(
    ("line", "values"),
    [
        ("rpi-image batch room.yml --node |", {"pi-01", "pi-02", "pi-03", "tv"}),
        ("rpi-image diff room.yml --node t", {"tv"}),
        ("rpi-image flash -c room.yml --node pi-01,pi-0", {f"pi-01,pi-0{n}" for n in "123"}),
        ("rpi-image apply -c room.yml --node t", {"tv"}),
        ("rpi-image verify -c room.yml --node t", {"tv"}),
        ("rpi-image build -c room.yml --hostname t", {"tv"}),
        ("rpi-image batch gone.yml --node |", set()),
        ("rpi-image batch broken.yml --node |", set()),
        ("rpi-image build --hostname |", set()),
        ("rpi-image build --profile arm", {"arm64", "armv6", "armv7"}),
        ("rpi-image init --profile armv7", {"armv7"}),
        ("rpi-image build --board pi5", {b.word for b in BOARDS if b.word.startswith("pi5")}),
        ("rpi-image images --board |", {board.word for board in BOARDS}),
        ("rpi-image build --generation occ", {"occidentalis"}),
        ("rpi-image fetch sampl", {"sample"}),
        ("rpi-image build --image nothing-of-ours", {"file"}),
        ("rpi-image completion |", {"bash", "zsh", "fish"}),
        ("rpi-image cache verify |", set()),
        ("rpi-image |", set(COMMANDS)),
        ("rpi-image fla", {"flash"}),
        ("rpi-image build --compress g", {"gz"}),
        ("rpi-image build --profiles-d", {"--profiles-dir"}),
        ("rpi-image build --profile", {"--profile", "--profiles-dir"}),
    ],
)
@pytest.mark.usefixtures("room")
def test_values_are_offered(line: str, values: set[str], capfd: pytest.CaptureFixture[str]) -> None:
    found = offered(line)
    assert set(found) == values
    assert capfd.readouterr() == ("", "")


def test_profiles_of_a_folder_are_offered(room: Path) -> None:
    (room / "mine").mkdir()
    (room / "mine" / "own.yml").write_text("arch: armv7\nmachines: [armv7l]\n")
    assert set(offered("rpi-image build --profiles-dir mine --profile o")) == {"own"}


@pytest.mark.usefixtures("room")
def test_devices_that_may_be_written_are_offered_with_their_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    card = Device(path="/dev/sdx", major_minor="8:1", size_bytes=32 * 10**9, model="USB Reader")
    disk = Device(path="/dev/sda", major_minor="8:0", size_bytes=10**12, model="Disk")
    monkeypatch.setattr(
        "imagebuilder.devices.targets.judge_devices",
        lambda _: [(disk, ("carries the system",)), (card, ())],
    )
    for line in ("rpi-image flash |", "rpi-image verify /dev/s", "rpi-image flash /dev/sdb |"):
        assert offered(line) == {"/dev/sdx": "USB Reader, 32.0 GB"}


def test_no_completion_asks_a_server(room: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise AssertionError("completion opened a connection")

    monkeypatch.setattr("socket.socket.connect", refused)
    (room / "listed.yml").write_text(ROOM.replace("image: sample", "image: raspios-x@2026-01-01"))
    offered("rpi-image build --image |")
    offered("rpi-image batch listed.yml --node |")


# ---- in the shells


def script_for(shell: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    assert run(["completion", shell]) == 0
    path = folder / f"completion.{shell}"
    path.write_text(capsys.readouterr().out)
    return path


@pytest.fixture
def path_of_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}")


LINES = [
    (["rpi-image", "batch", "room.yml", "--node", "t"], "tv"),
    (["rpi-image", "build", "--generation", "occ"], "occidentalis"),
    (["rpi-image", "complet"], "completion"),
]


@pytest.mark.parametrize(("words", "value"), LINES)
@pytest.mark.usefixtures("path_of_programs")
def test_in_bash(
    words: list[str], value: str, room: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = script_for("bash", room, capsys)
    line = f"COMP_WORDS=({shlex.join(words)}); COMP_CWORD={len(words) - 1}"
    ask = f"source {script}; {line}; _rpi_image_completion rpi-image; echo ${{COMPREPLY[@]}}"
    (bash,) = need("bash")
    shown = run_tool(bash, "--norc", "-euc", f"{ask}; complete -p rpi-image")
    assert shown.splitlines()[0] == value
    assert "-F _rpi_image_completion rpi-image" in shown


@pytest.mark.parametrize(("words", "value"), LINES)
@pytest.mark.usefixtures("path_of_programs")
def test_in_fish(
    words: list[str], value: str, room: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("HOME", str(room))
    script = script_for("fish", room, capsys)
    line = shlex.quote(shlex.join(words))
    (fish,) = need("fish")
    shown = run_tool(fish, "--no-config", "-c", f"source {script}; complete -C {line}")
    assert [found.split("\t")[0] for found in shown.splitlines()] == [value]


@pytest.mark.parametrize(("words", "value"), LINES)
@pytest.mark.usefixtures("path_of_programs")
def test_in_zsh(
    words: list[str], value: str, room: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """At a terminal, since its completion does not work without one."""
    script = script_for("zsh", room, capsys)
    (zsh,) = need("zsh")
    ours, theirs = pty.openpty()
    env = {**os.environ, "TERM": "dumb", "PS1": "READY ", "PS2": ""}
    with subprocess.Popen(
        [zsh, "-f", "-i"], stdin=theirs, stdout=theirs, stderr=theirs, env=env
    ) as shell:
        start = f"unsetopt zle_bracketed_paste; autoload -U compinit; compinit -u -d {room}/dump"
        os.write(ours, f"{start}; source {script}; echo LOADED\n".encode())
        read_until(ours, "\nLOADED")
        os.write(ours, f"{shlex.join(words)}\t".encode())
        shown = read_until(ours, value)
        shell.kill()
    os.close(ours)
    os.close(theirs)
    assert value in shown


def read_until(terminal: int, text: str) -> str:
    """Return what a terminal shows until `text`, or after a minute."""
    shown = ""
    end = time.monotonic() + 60
    while text not in shown.replace("\r", "") and time.monotonic() < end:
        if select.select([terminal], [], [], 1)[0]:
            shown += os.read(terminal, 4096).decode(errors="replace")
    return shown
