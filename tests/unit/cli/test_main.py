"""The door: lazy, documented, and never a traceback."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from imagebuilder import errors
from imagebuilder.cli import main

ROOT = Path(__file__).parents[3]
README = (ROOT / "README.md").read_text()


def rpi_image(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the program as a user would, with no terminal."""
    return subprocess.run(
        [sys.executable, "-m", "imagebuilder", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **environment},
    )


def test_help_imports_no_command_and_no_library_but_click() -> None:
    script = (
        "import sys; from imagebuilder.cli.main import run; run(['--help']); print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    )
    before = subprocess.run(
        [sys.executable, "-c", "import sys; print(*sys.modules)"],
        capture_output=True, text=True, check=True, cwd=ROOT,
    )  # fmt: skip
    loaded = set(done.stdout.splitlines()[-1].split()) - set(before.stdout.split())
    tops = {name.partition(".")[0] for name in loaded} - set(sys.stdlib_module_names)
    assert tops == {"click", "imagebuilder"}
    rooms = [name for name in loaded if name.startswith("imagebuilder.")]
    assert {name for name in rooms if name.count(".") > 1} == {
        "imagebuilder.cli.completion", "imagebuilder.cli.console", "imagebuilder.cli.help",
        "imagebuilder.cli.main",
        "imagebuilder.cli.options", "imagebuilder.cli.pages", "imagebuilder.cli.process",
        "imagebuilder.settings.flags",
    }  # fmt: skip


@pytest.mark.parametrize("command", ["check", "batch -n", "diff"])
def test_what_asks_no_server_and_makes_no_key_imports_neither(command: str, tmp_path: Path) -> None:
    (tmp_path / "room.yml").write_text(
        "profile: armv7\nimage: sample\nnodes: [{hostname: pi-01, timezone: Etc/UTC}]\n"
    )
    script = (
        "import sys; from imagebuilder.cli.main import run\n"
        "assert run(sys.argv[1:]) == 0; print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *command.split(), tmp_path / "room.yml"],
        capture_output=True, text=True, check=True, cwd=ROOT,
        env={**os.environ, "RPI_IMAGE_CACHE": str(tmp_path / "cache")},
    )  # fmt: skip
    loaded = set(done.stdout.splitlines()[-1].split())
    assert "imagebuilder.settings.load" in loaded
    assert not loaded & {"requests", "urllib3", "http.client", "cryptography"}


@pytest.mark.parametrize("name", sorted(main.COMMANDS))
def test_every_command_loads_and_explains_itself(name: str) -> None:
    command = main.cli.get_command(click.Context(main.cli), name)
    assert command is not None
    assert command.help or isinstance(command, click.Group)
    done = rpi_image(name, "--help")
    assert done.returncode == 0
    assert "Usage: rpi-image " + name in done.stdout


@pytest.mark.parametrize("name", sorted(main.COMMANDS))
def test_every_command_is_documented(name: str) -> None:
    pages = README + "".join(page.read_text() for page in (ROOT / "docs").glob("*.md"))
    assert re.search(rf"rpi-image {name}\b", pages), f"no page shows rpi-image {name}"


@pytest.mark.parametrize("name", sorted(main.COMMANDS))
def test_every_option_explains_itself(name: str) -> None:
    command = main.cli.get_command(click.Context(main.cli), name)
    assert command is not None
    commands = list(command.commands.values()) if isinstance(command, click.Group) else [command]
    for each in commands:
        silent = [p.name for p in each.params if isinstance(p, click.Option) and not p.help]
        assert silent == []


def test_the_readme_lists_the_exit_codes() -> None:
    table = {int(code) for code in re.findall(r"^\| (\d+) \|", README, re.MULTILINE)}
    classes = [
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, errors.RpiImageError)
    ]
    assert {value.exit_code for value in classes} | {0, 130} == table


def test_the_readmes_links_lead_somewhere() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    for page in pages:
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name} links to {link}"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("biuld",), "'biuld'"),
        (("build", "--hostnam", "x"), "--hostnam"),
        (("flash", "--image"), "--image"),
    ],
)
def test_usage_errors_exit_2_with_a_hint(arguments: tuple[str, ...], said: str) -> None:
    done = rpi_image(*arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert "hint:" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_bug_is_reported_without_a_traceback_and_without_values(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(**_: object) -> None:
        raise KeyError("hunter22")

    monkeypatch.setattr(main.cli, "main", broken)
    assert main.run([]) == 70
    said = capsys.readouterr().err
    assert "bug" in said
    report = Path(said.split("report it with ")[1].strip())
    text = report.read_text()
    report.unlink()
    assert "KeyError" in text
    assert "hunter22" not in text.replace('raise KeyError("hunter22")', "")


def test_ctrl_c_exits_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(**_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(main.cli, "main", interrupted)
    assert main.run([]) == 130
    assert capsys.readouterr().err == "interrupted\n"


_HANGS_UP = """
import os, signal
from imagebuilder.cli import main
main.cli.main = lambda **_: os.kill(os.getpid(), signal.SIGHUP)
main.main([])
"""


@pytest.mark.parametrize(("before", "code"), [("", 130), ("trap '' HUP;", 0)])
def test_a_closed_terminal_ends_it_unless_that_is_ignored(before: str, code: int) -> None:
    done = subprocess.run(
        ["sh", "-c", f'{before} exec "$0" -c "$1"', sys.executable, _HANGS_UP],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    assert done.stderr == ("interrupted\n" if code else "")


def test_an_error_has_its_exit_code_and_hint(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(**_: object) -> None:
        raise errors.RefusedError("sda carries the system", "take another")

    monkeypatch.setattr(main.cli, "main", refused)
    assert main.run([]) == 6
    assert capsys.readouterr().err == "error: sda carries the system\nhint: take another\n"


def test_the_reader_of_our_output_may_leave_early() -> None:
    command = f"{sys.executable} -m imagebuilder profiles --json | head -c 1"
    done = subprocess.run(
        ["sh", "-c", command], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.stderr == ""


@pytest.mark.parametrize("where", ["> /dev/full", ">&-"])
@pytest.mark.parametrize("command", ["profiles", "profiles --json", "schema", "--help"])
def test_output_that_cannot_be_written_is_said(command: str, where: str) -> None:
    done = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m imagebuilder {command} {where}"],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 7
    assert done.stderr.startswith("error: cannot print: ")
    assert len(done.stderr.splitlines()) == 2


def test_closed_words_stop_no_result() -> None:
    done = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m imagebuilder cache list --json 2>&-"],
        capture_output=True, text=True, check=True, cwd=ROOT,
    )  # fmt: skip
    assert json.loads(done.stdout)


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
@pytest.mark.parametrize("arguments", [("schema",), ("profiles", "--json"), ("profiles",)])
def test_a_terminal_of_few_letters(encoding: str, arguments: tuple[str, ...]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "imagebuilder", *arguments],
        capture_output=True, check=False, cwd=ROOT,
        env={**os.environ, "PYTHONIOENCODING": encoding},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    if arguments != ("profiles",):
        assert json.loads(done.stdout.decode(encoding)) == json.loads(rpi_image(*arguments).stdout)


def test_json_goes_to_stdout_alone() -> None:
    done = rpi_image("profiles", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)


@pytest.mark.parametrize(
    ("command", "code"), [("cache list", 7), ("profiles", 0), ("check nope.yml", 3), ("nope", 2)]
)
def test_words_that_cannot_be_said_end_no_work(command: str, code: int, tmp_path: Path) -> None:
    """Exit 7 where words were lost and all else went well; the code of what happened otherwise."""
    done = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m imagebuilder {command} 2> /dev/full"],
        capture_output=True, text=True, check=False, cwd=ROOT,
        env={**os.environ, "RPI_IMAGE_CACHE": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == code
    assert ("armv7" in done.stdout) is (command == "profiles")
