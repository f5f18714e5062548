"""The scripts on the Pi: shellcheck, both shells' parsers, and what they read of node.env."""

from __future__ import annotations

import re

import pytest

from tests.lib.pi_tree import SCRIPTS, SETTINGS
from tests.lib.tools import need, run

BOTH = ("install", "node")
OWN = {"RPI_IMAGE_ROOT", "RPI_IMAGE_FAKES", "RPI_IMAGE_CALLER", "RPI_IMAGE_SCRUBBED"}
OWN |= {"RPI_IMAGE_PAUSE", "RPI_IMAGE_CHECK", "RPI_IMAGE_WAIT", "RPI_IMAGE_SETTLE"}
# Names that are not the plan's: of the environment, and the shell's own.
SHELL = {"PATH", "HOME", "LC_ALL", "DEBIAN_FRONTEND", "LANG", "NODE_ADDRESS"}
# Words that look like variables inside units that the installer reads or writes.
FOREIGN = {"EXTRA"}


@pytest.mark.parametrize("name", BOTH)
def test_shellcheck_is_content(name: str) -> None:
    need("shellcheck")
    assert run("shellcheck", "-s", "sh", SCRIPTS / name) == ""


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("shell", [("dash",), ("busybox", "sh"), ("bash", "--posix")])
def test_every_shell_parses_it(shell: tuple[str, ...], name: str) -> None:
    need("dash", "busybox", "bash")
    run(*shell, "-n", SCRIPTS / name)


@pytest.mark.parametrize("name", BOTH)
def test_nothing_that_only_bash_has(name: str) -> None:
    text = (SCRIPTS / name).read_text()
    assert text.startswith("#!/bin/sh\n")
    assert "." not in name, "the kernel drops words with a dot"
    assert not re.search(r"^\s*(local|source|declare|echo -[en]) ", text, re.MULTILINE)
    assert "[[ " not in re.sub(r"'[^']*'", "", text)
    assert "\r" not in text


def template_names() -> set[str]:
    text = (SCRIPTS / "node.env.j2").read_text()
    return set(re.findall(r"^([A-Z_]+)=", text, re.MULTILINE))


@pytest.mark.parametrize("name", BOTH)
def test_everything_that_is_read_is_rendered(name: str) -> None:
    text = (SCRIPTS / name).read_text()
    code = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    read = set(re.findall(r"(?<!\\)\$\{?([A-Z][A-Z_]+)", code))
    assert len(read) > 15
    assert read - OWN - SHELL - FOREIGN <= template_names()


def test_the_tests_know_every_setting() -> None:
    assert set(SETTINGS) == template_names()


def test_every_setting_is_read_by_a_script() -> None:
    text = "".join((SCRIPTS / name).read_text() for name in BOTH)
    unread = {
        name for name in template_names() if f"${name}" not in text and f"${{{name}" not in text
    }
    # the image's tag says which consul it is, and its flags are the same from 0.5.0 on
    assert unread == {"CONSUL_VERSION"}
