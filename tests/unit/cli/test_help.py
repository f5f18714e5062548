"""The help: examples that are taken, few options, and an answer to what is mistyped."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING

import click
import pytest

from imagebuilder.cli.help import grouped, long_name
from imagebuilder.cli.main import cli, run
from imagebuilder.cli.pages import PAGES, Page
from tests.lib.command_reference import DOCS, Reference, command_pages, references

if TYPE_CHECKING:
    from pathlib import Path

EVERY = list(references())
MOST_OPTIONS = 12
every_command = pytest.mark.parametrize("each", EVERY, ids=lambda each: each.name)


def test_every_command_has_a_page_and_no_page_is_left() -> None:
    assert [each.path for each in EVERY if each.path not in PAGES] == []
    assert set(PAGES) == {each.path for each in EVERY}


def test_the_page_of_the_commands_is_current() -> None:
    pages = command_pages()
    assert {f"commands/{path.name}" for path in (DOCS / "commands").iterdir()} < set(pages)
    for name, page in pages.items():
        assert (DOCS / name).read_text(encoding="utf-8") == page, "run `make golden`"


@every_command
def test_the_help_begins_with_examples(each: Reference, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*each.path.split(), "--help"]) == 0
    text = capsys.readouterr().out
    assert text.index("Examples:\n") < text.index("  -h, --help")
    shown = [line.strip() for line in text.splitlines() if line.startswith("  $ ")]
    assert shown == [f"$ {command}" for command, _ in each.page.examples]
    assert 2 <= len(shown) <= 3


@every_command
def test_the_help_shows_few_options(each: Reference, capsys: pytest.CaptureFixture[str]) -> None:
    run([*each.path.split(), "--help"])
    lines = capsys.readouterr().out.splitlines()
    options = [line for line in lines if line.startswith("  -")]
    assert len(options) == each.count(every=False) <= MOST_OPTIONS


@every_command
def test_help_all_shows_every_option(each: Reference, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*each.path.split(), "--help-all"]) == 0
    text = capsys.readouterr().out
    params = each.command.get_params(each.context)
    options = [p for p in params if isinstance(p, click.Option) and not p.hidden]
    assert [long_name(p) for p in options if long_name(p) not in text.split()] == []


@every_command
def test_a_group_names_options_that_exist(each: Reference) -> None:
    flags = [flag for group in each.page.groups.values() for flag in group.split()]
    params = each.command.get_params(each.context)
    known = {long_name(p) for p in params if isinstance(p, click.Option) and not p.hidden}
    assert [flag for flag in flags if flag not in known] == []
    assert len(flags) == len(set(flags))


@pytest.mark.parametrize(
    ("path", "example"),
    [(each.path, command) for each in EVERY if each.path for command, _ in each.page.examples],
)
def test_an_example_is_taken(path: str, example: str) -> None:
    """Parse it as the command line would; nothing is run."""
    plain = example.removeprefix('eval "$(').removesuffix(')"')
    words = shlex.split(plain.partition("|")[0].partition(">")[0])
    assert words[0] == "rpi-image"
    context, command, rest = click.Context(cli, info_name="rpi-image"), cli, words[1:]
    found: click.Command = command
    while isinstance(found, click.Group):
        name, next_command, rest = found.resolve_command(context, rest)
        assert next_command
        context = next_command.make_context(name, list(rest), parent=context)
        rest = [*context._protected_args, *context.args]
        found = next_command
    assert plain.startswith("rpi-image " + path.split(maxsplit=1)[0])
    assert not context.args


def test_an_option_that_no_group_names_is_shown_by_help_all() -> None:
    option = click.Option(["--brand-new"], help="New.")
    assert dict(grouped([option], Page(), every=True)) == {"Other options": [option]}
    assert dict(grouped([option], Page(), every=False)) == {}


# ---- what is mistyped


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ("biuld", "did you mean `rpi-image build`?"),
        ("flahs x", "did you mean `rpi-image flash`?"),
        ("profile", "did you mean `rpi-image profiles`?"),
        ("cache lst", "did you mean `rpi-image cache list`?"),
        ("-q image", "did you mean `rpi-image images`?"),
        ("zzzz", "see rpi-image --help"),
        ("build --hostnam x", "did you mean --hostname?"),
        ("--jsno build", "did you mean --json?"),
        ("status room.yml --watc", "did you mean --watch?"),
        ("build --zzzz", "see rpi-image build --help"),
    ],
)
def test_the_nearest_is_named(words: str, hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(words.split()) == 2
    assert capsys.readouterr().err.splitlines()[1] == f"hint: {hint}"


def test_without_arguments_it_shows_the_first_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 2
    shown = capsys.readouterr()
    commands = [line.split()[1] for line in shown.err.splitlines() if "  rpi-image " in line]
    assert commands == ["init", "flash", "status"]
    assert "rpi-image --help" in shown.err
    assert shown.out == ""


@pytest.mark.parametrize("command", ["profiles", "images", "check x.yml", "build", "batch x.yml"])
def test_the_former_name_of_profiles_dir(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*command.split(), "--profiles", "mine"]) == 2
    assert capsys.readouterr().err == (
        "error: --profiles is now --profiles-dir\nhint: use --profiles-dir DIR\n"
    )


# ---- before and after the command


@pytest.mark.parametrize(
    "words", ["--json profiles", "profiles --json", "-q --json profiles", "--json -v profiles -q"]
)
def test_json_before_and_after_the_command(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(words.split()) == 0
    assert json.loads(capsys.readouterr().out)["profiles"]


@pytest.mark.parametrize(
    "words", ["--json cache list", "cache --json list", "cache list --json", "-q cache list --json"]
)
def test_json_before_and_after_a_group(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RPI_IMAGE_CACHE", str(tmp_path))
    assert run(words.split()) == 0
    assert json.loads(capsys.readouterr().out)["images"] == []


@pytest.mark.parametrize(
    ("words", "silent"),
    [
        ("-q cache list", True),
        ("cache list -q", True),
        ("-v cache list", False),
        ("cache list", False),
    ],
)
def test_quiet_before_and_after_the_command(
    words: str, silent: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("RPI_IMAGE_CACHE", str(tmp_path))
    assert run(words.split()) == 0
    assert (capsys.readouterr().err == "") is silent


@pytest.mark.parametrize(
    ("words", "environment", "coloured"),
    [
        ("--color always cache verify nope", "", True),
        ("cache verify nope --color always", "never", True),
        ("--color never cache verify nope", "always", False),
        ("--color never cache verify nope --color always", "", True),
        ("cache verify nope", "always", True),
    ],
)
def test_the_nearest_colour_counts(
    words: str, environment: str, coloured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the command, before it, then the environment."""
    seen: list[str] = []
    monkeypatch.setenv("RPI_IMAGE_COLOR", environment or "auto")
    monkeypatch.setattr(
        "imagebuilder.cli.commands.fetch.Session", lambda *, console: seen.append(console.colour)
    )
    run(words.split())
    assert (seen == ["always"]) is coloured


@pytest.mark.parametrize("command", ["batch", "diff"])
def test_both_names_choose_nodes(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    room = tmp_path / "room.yml"
    room.write_text("profile: armv7\nimage: sample\nnodes: [{hostname: pi-01}]\n")
    for flag in ("--node", "--nodes"):
        assert run([command, str(room), flag, "pi-99"]) == 2
        assert "not in the roster: pi-99" in capsys.readouterr().err
    run([command, "--help-all"])
    assert "--nodes" not in capsys.readouterr().out
