"""Each ```console block of the documentation is run by a test, or says what it needs."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.lib.command_reference import references
from tests.lib.program import rpi_image, succeed
from tests.lib.tools import need, run

if TYPE_CHECKING:
    from collections.abc import Iterator

    import click

ROOT = Path(__file__).parents[3]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
PLAIN = {"", "sh", "bash", "shell", "text"}
TYPED = re.compile(
    r"^ *(?:[$>] )?(?:rpi-image|sudo|make|apt|apt-get|brew|curl|docker|docker-compose|git|man"
    r"|pip|pipx|python3?|py|uv)(?: |$)",
    re.MULTILINE,
)
BLOCK = re.compile(r"(?:<!-- (\w[\w ]*): ([^\n]*) -->\n *)?```console\n(.*?)```", re.DOTALL)
# What no test has: hardware, or another system.
NEEDS = {"a card", "three cards", "the network", "Windows or macOS"}
# It runs every block of its page, and fails for one that it does not know.
TUTORIAL = "docs/classroom.md"
FILE = re.compile(r"^`([\w./-]+)`:\n\n```\w+\n(.*?)```", re.DOTALL | re.MULTILINE)
YAML = re.compile(r"```yaml\n(profile: .*?)```", re.DOTALL)


def blocks() -> Iterator[tuple[str, str, str, str]]:
    """Yield page, kind and text of the marker, and the commands of each block."""
    for page in PAGES:
        name = page.relative_to(ROOT).as_posix()
        for kind, what, text in BLOCK.findall(page.read_text(encoding="utf-8")):
            if name != TUTORIAL:
                yield name, kind, what, text


RUN_HERE = [(name, text) for name, kind, _, text in blocks() if not kind]


def commands(text: str) -> list[list[str]]:
    """Return the commands of a block, as a shell splits them."""
    lines = text.rstrip(" ").replace("\\\n", " ").splitlines()
    return [shlex.split(re.sub("^[$>] ", "", line.strip()), comments=True) for line in lines]


def outside(page: str) -> list[str]:
    """Return the blocks with something to type that are not `console` blocks."""
    return [text for kind, text in FENCE.findall(page) if kind in PLAIN and TYPED.search(text)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_is_typed_stands_in_a_console_block(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert outside(text) == []
    for kind, block in FENCE.findall(text):
        if kind == "console":
            lines = block.replace("\\\n", " ").splitlines()
            assert [line for line in lines if not re.match(" *[$>] ", line)] == []


@pytest.mark.parametrize("kind", ["", "sh", "bash"])
def test_a_command_outside_of_a_console_block_is_found(kind: str) -> None:
    for line in (
        "rpi-image boot x.img",
        "$ make tour",
        "# why\nsudo apt install x",
        "  > py -m pip",
    ):
        assert outside(f"```yaml\na: 1\n```\n\n```{kind}\n{line}\n```\n")
    for text in ("#!/bin/sh\nprintf x", "install/motd.sh  motd", "docker: {tls: true}"):
        assert not outside(f"```{kind}\n{text}\n```\n")


def test_a_marked_block_needs_hardware_or_is_run_by_a_test_that_is_there() -> None:
    for name, kind, what, text in blocks():
        if kind == "needs":
            assert what in NEEDS, name
        elif kind:
            assert kind == "run by", name
            for command, file in zip(text.splitlines(), what.split(", "), strict=True):
                assert command.removeprefix("$ ") in (ROOT / file).read_text("utf-8"), file


def test_the_commands_and_their_options_are_there() -> None:
    """Also of the blocks that no test runs."""
    known = {
        each.path: {name for p in each.command.get_params(each.context) for name in names(p)}
        for each in references()
    }
    for page, *_, text in blocks():
        for program, *words in commands(text):
            if program != "rpi-image" or words[0].startswith("-"):
                continue
            two = " ".join(words[:2])
            options = known[two if two in known else words[0]]
            assert [word for word in words if word[0] == "-" and word not in options] == [], page


def names(parameter: click.Parameter) -> list[str]:
    return [*parameter.opts, *parameter.secondary_opts]


def test_the_blocks_are_found() -> None:
    assert {name for name, *_ in blocks()} >= {"README.md", "docs/any-computer.md"}
    assert len(RUN_HERE) >= 2


@pytest.mark.long
@pytest.mark.parametrize(("page", "text"), RUN_HERE, ids=[name for name, _ in RUN_HERE])
def test_a_block_does_what_the_page_says(page: str, text: str, tmp_path: Path) -> None:
    """The base image is the shipped sample instead of a download, also where one is named."""
    cache = tmp_path / "cache"
    if "cache" in text:
        succeed(rpi_image("fetch", "sample", cache=cache))
    for name, content in FILE.findall((ROOT / page).read_text(encoding="utf-8")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content, encoding="utf-8")
    (room,) = YAML.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    (tmp_path / "classroom.yml").write_text(re.sub(r"image: .*", "image: sample", room))
    (tmp_path / "wifi.txt").write_text("correct horse\n")
    key = tmp_path / ".ssh" / "id_ed25519.pub"
    key.parent.mkdir()
    need("ssh-keygen")
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key.with_suffix(""))
    for program, *words in commands(text.replace("hypriotos-1.12.3", "sample")):
        assert program == "rpi-image", page
        image = ["--image", "sample"] if words[0] == "build" else []
        given = [word.replace("~", str(tmp_path)) for word in [*words, *image]]
        done = rpi_image(*given, cache=cache, cwd=tmp_path)
        assert done.returncode == 0, f"{words}: {done.stderr}"
