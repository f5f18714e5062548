"""The lock fits pyproject.toml, has a hash for everything, and names no place to fetch it from."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LOCK = (ROOT / ".ci/requirements.lock").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS = PROJECT["project"]["optional-dependencies"]
OWN_EXTRA = "rpi-image[board]"
RANGES = [
    *PROJECT["build-system"]["requires"],
    *PROJECT["project"]["dependencies"],
    *EXTRAS["board"],
    *(text for text in EXTRAS["dev"] if text != OWN_EXTRA),
]
HASHES = r"(?: \\\n +--hash=sha256:[0-9a-f]{64})+"
# Name, version, marker and hashes; a line of the lock goes on where it ends with a backslash.
ENTRIES = re.findall(rf"^(\S+)==(\S+)([^\\\n]*)({HASHES})$", LOCK, re.MULTILINE)


@pytest.mark.parametrize("text", RANGES)
def test_what_is_locked_is_in_the_range_of_pyproject(text: str) -> None:
    locked = {name: version for name, version, _, _ in ENTRIES}
    wanted = Requirement(text)
    assert wanted.specifier.contains(locked[canonicalize_name(wanted.name)])


def test_developers_have_every_extra() -> None:
    assert set(EXTRAS) == {"board", "dev"}
    assert OWN_EXTRA in EXTRAS["dev"]


def test_the_lock_holds_nothing_but_versions_with_hashes() -> None:
    entries = ["".join((name, "==", *rest)) for name, *rest in ENTRIES]
    comments = [line for line in LOCK.splitlines() if line.startswith("#")]
    assert LOCK.splitlines() == [*comments, *"\n".join(entries).splitlines()]
    assert "://" not in LOCK


def test_the_lock_is_for_every_python() -> None:
    assert [marker for _, _, marker, _ in ENTRIES if "python_version" in marker] == []
