"""Tests reach a program only by `need()`, so that the lists of packages can be proven."""

from __future__ import annotations

import pytest

from tests.lib.programs import calls, needed, started

# In every Debian: the packages that are essential, apt, and Python's own.
EVERYWHERE = {
    "apt-get", "cmp", "cp", "dd", "du", "env", "find", "ldd", "sh", "stat", "sync", "tar", "touch",
    "true", "truncate", "/usr/bin/python3",
}  # fmt: skip
# Ways around need(), and where they may be; the tour is no test, and tells people what it needs.
FORBIDDEN = {
    "shutil.which": ("tests/lib/tools.py", "tests/tour/__main__.py"),
    "which": (),
    "pytest.importorskip": (),
    "pytest.mark.skipif": (),
    "pytest.mark.skip": (),
}


@pytest.mark.parametrize("name", FORBIDDEN)
def test_nothing_looks_a_program_up_but_need(name: str) -> None:
    found = [call.place for call in calls() if call.name == name]
    assert [place for place in found if place.partition(":")[0] not in FORBIDDEN[name]] == []


def test_need_is_called_with_literal_names() -> None:
    assert [call.place for call in calls() if call.name == "need" and None in call.arguments] == []


def test_every_program_that_is_started_is_asked_for() -> None:
    known = needed() | EVERYWHERE
    assert {name: place for name, place in started().items() if name not in known} == {}
