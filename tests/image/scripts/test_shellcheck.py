"""The scripts on the Pi: shellcheck, both shells' parsers, and what they read of node.env."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING

import pytest

from imagebuilder.resources import shipped_folder
from tests.lib.pi_tree import NODE_FILES, SETTINGS
from tests.lib.tools import need, run

if TYPE_CHECKING:
    from pathlib import Path

SHELLS = (("dash",), ("busybox", "sh"), ("bash", "--posix"))
BOTH = ("install", "node")
FOLDER = shipped_folder("overlays") / "scripts"
PARTS = tuple(sorted(path.relative_to(FOLDER).as_posix() for path in FOLDER.glob("*/*.sh")))
HEADS = ("install/head.sh", "node/head.sh")
FUNCTIONS = tuple(part for part in PARTS if part not in HEADS)
OWN = {
    "RPI_IMAGE_ROOT",
    "RPI_IMAGE_FAKES",
    "RPI_IMAGE_CALLER",
    "RPI_IMAGE_FINISHED",
    "RPI_IMAGE_SCRUBBED",
}
OWN |= {"RPI_IMAGE_PAUSE", "RPI_IMAGE_CHECK", "RPI_IMAGE_WAIT", "RPI_IMAGE_SETTLE"}
# Names that are not the plan's: of the environment, and the shell's own.
SHELL = {"PATH", "HOME", "LC_ALL", "DEBIAN_FRONTEND", "LANG", "NODE_ADDRESS"}
# Words that look like variables inside units that the installer reads or writes.
FOREIGN = {"EXTRA"}
WHOLE = re.DOTALL | re.MULTILINE
# A part's variables come from other parts; the joined scripts are checked for these.
ELSEWHERE = "SC2034,SC2153,SC2154"


@cache
def text_of(name: str) -> str:
    """Return a joined script by its name, a part by its path."""
    return (FOLDER / name).read_text() if name in PARTS else NODE_FILES[name].decode()


def code_of(name: str) -> str:
    """Return a script without its lines of comment."""
    lines = text_of(name).splitlines()
    return "\n".join(line for line in lines if not line.lstrip().startswith("#"))


def read_by(name: str) -> set[str]:
    """Return the variables with names like settings that a script or part reads."""
    code = re.sub(r"'\$\{?DOCKER_OPTS\}?'", "", code_of(name))  # words of Docker's unit
    return set(re.findall(r"(?<!\\)\$\{?([A-Z][A-Z_]+)", code))


def defined_in(name: str) -> list[str]:
    return re.findall(r"^([a-z_]+)\(\) \{$", text_of(name), re.MULTILINE)


@pytest.fixture(params=BOTH)
def joined(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Write a script as it lands on the card."""
    path = tmp_path / str(request.param)
    path.write_text(text_of(path.name))
    return path


def test_shellcheck_is_content(joined: Path) -> None:
    need("shellcheck")
    assert run("shellcheck", "-s", "sh", joined) == ""


@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_parses_it(shell: tuple[str, ...], joined: Path) -> None:
    need("dash", "busybox", "bash")
    run(*shell, "-n", joined)


def test_shellcheck_is_content_with_every_part() -> None:
    need("shellcheck")
    paths = [FOLDER / part for part in PARTS]
    assert run("shellcheck", "-s", "sh", "-e", ELSEWHERE, *paths) == ""


@pytest.mark.parametrize("part", FUNCTIONS)
def test_a_part_defines_functions_and_does_nothing_else(part: str) -> None:
    rest = re.sub(r"^[a-z_]+\(\) \{\n.*?^\}[^\n]*\n", "", code_of(part) + "\n", flags=WHOLE)
    assert rest.strip() == ""
    names = defined_in(part)
    assert names
    script = (
        f'PATH=/nowhere; set -eu; . "$0"; for name in {" ".join(names)}; do command -v $name; done'
    )
    for shell in SHELLS:
        need("dash", "busybox", "bash")
        assert run(*shell, "-c", script, FOLDER / part).split() == names


@pytest.mark.parametrize("part", PARTS)
def test_a_part_is_short_and_says_what_it_is_for(part: str) -> None:
    text = text_of(part)
    assert len(text.splitlines()) <= 180
    opening = text.partition("\n\n")[0]
    if part in FUNCTIONS:
        assert all(line.startswith("# ") for line in opening.splitlines())
        found = re.fullmatch(r"# \w[^\0]+\n# Reads: ([^\0]+)\n# Writes: \S[^\0]+\.", opening)
        assert found, "open with what it is for, `# Reads: ` and `# Writes: `"
        told = set(re.findall(r"[A-Z_]{2,}", found[1]))
        assert told == read_by(part) & (template_names() | {"RPI_IMAGE_SCRUBBED"})


@pytest.mark.parametrize("name", BOTH)
def test_every_function_is_defined_once_and_used(name: str) -> None:
    names = defined_in(name)
    assert sorted(names) == sorted(set(names))
    words = re.findall(r"[a-z_]+", code_of(name))
    assert {word for word in names if words.count(word) < 2} == set()


@pytest.mark.parametrize("name", BOTH)
def test_nothing_that_only_bash_has(name: str) -> None:
    text = text_of(name)
    assert text.startswith("#!/bin/sh\n")
    assert "." not in name, "the kernel drops words with a dot"
    assert not re.search(r"^\s*(local|source|declare|echo -[en]) ", text, re.MULTILINE)
    assert "[[ " not in re.sub(r"'[^']*'", "", text)
    assert "\r" not in text


def template_names() -> set[str]:
    text = NODE_FILES["node.env.j2"].decode()
    return set(re.findall(r"^([A-Z_]+)=", text, re.MULTILINE))


@pytest.mark.parametrize("name", BOTH)
def test_everything_that_is_read_is_rendered(name: str) -> None:
    read = read_by(name)
    assert len(read) > 15
    assert read - OWN - SHELL - FOREIGN <= template_names()


def test_the_tests_know_every_setting() -> None:
    assert set(SETTINGS) == template_names()


def test_every_setting_is_read_by_a_script() -> None:
    # the image's tag says which consul it is, and its flags are the same from 0.5.0 on
    assert template_names() - read_by("install") - read_by("node") == {"CONSUL_VERSION"}


@pytest.mark.parametrize("part", PARTS)
def test_no_part_needs_a_name_of_the_root(part: str) -> None:
    """On a Pi the root is empty text, so `${root:?}`, which shellcheck suggests, ends the run."""
    assert "${root:?" not in text_of(part)
