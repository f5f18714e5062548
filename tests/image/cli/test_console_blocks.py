"""Each ```console block of the documentation is run by a test, or says what it needs."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.lib.program import run_program
from tests.lib.tools import need, run

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[3]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"(?:<!-- (\w[\w ]*): ([^\n]*) -->\n *)?```console\n(.*?)```", re.DOTALL)
# What no test has: hardware, or another system.
NEEDS = {"a card", "three cards", "the network", "Windows or macOS"}
# It runs every block of its page, and fails for one that it does not know.
TUTORIAL = "docs/classroom.md"
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
    lines = text.replace("\\\n", " ").splitlines()
    return [shlex.split(line.removeprefix("$ ")) for line in lines]


def test_a_marked_block_needs_hardware_or_is_run_by_a_test_that_is_there() -> None:
    for name, kind, what, text in blocks():
        if kind == "needs":
            assert what in NEEDS, name
        elif kind:
            assert kind == "run by", name
            for command, file in zip(text.splitlines(), what.split(", "), strict=True):
                assert command.removeprefix("$ ") in (ROOT / file).read_text("utf-8"), file


def test_the_blocks_are_found() -> None:
    assert {name for name, *_ in blocks()} >= {"README.md", "docs/any-computer.md"}
    assert len(RUN_HERE) >= 2


@pytest.mark.parametrize(("page", "text"), RUN_HERE, ids=[name for name, _ in RUN_HERE])
def test_a_block_does_what_the_page_says(page: str, text: str, tmp_path: Path) -> None:
    """The base image is the shipped sample instead of a download."""
    (room,) = YAML.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    (tmp_path / "classroom.yml").write_text(re.sub(r"image: .*", "image: sample", room))
    (tmp_path / "wifi.txt").write_text("correct horse\n")
    key = tmp_path / ".ssh" / "id_ed25519.pub"
    key.parent.mkdir()
    need("ssh-keygen")
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key.with_suffix(""))
    for program, *words in commands(text):
        assert program == "rpi-image", page
        image = ["--image", "sample"] if words[0] == "build" else []
        done = run_program(
            [word.replace("~", str(tmp_path)) for word in [*words, *image]], cwd=tmp_path
        )
        assert done.returncode == 0, f"{words}: {done.stderr}"
