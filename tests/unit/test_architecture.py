"""docs/architecture.md shows the rooms and the functions that exist."""

from __future__ import annotations

import ast
import importlib
import re
from functools import reduce
from pathlib import Path

import pytest

from tests.unit.test_rooms import MODULES, ORDER, PACKAGE, imports_of, name_of, room_of

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
(PICTURE,) = re.findall(r"```mermaid\n(.*?)```", PAGE, re.DOTALL)
GROUND = {name for name in ORDER if (PACKAGE / f"{name}.py").exists()}
NODES = dict(re.findall(r"^ *(\w+)\[\"(.*)\"\]$", PICTURE, re.MULTILINE))
MOST_NODES = 15


def drawn_edges() -> set[tuple[str, str]]:
    """Return the arrows of the picture."""
    arrows = re.findall(r"^ *(\w+) --> (.*)$", PICTURE, re.MULTILINE)
    return {(room, other) for room, others in arrows for other in others.split(" & ")}


def real_edges() -> set[tuple[str, str]]:
    """Return which room imports which, without what follows from other imports."""
    imports = {
        (room, "ground" if other in GROUND else other)
        for path in MODULES
        if (room := room_of(name_of(path))) in set(ORDER) - GROUND
        for module, _ in imports_of(path)
        if (other := room_of(module)) != room
    }
    return {edge for edge in imports if not _reaches(imports - {edge}, *edge)}


def _reaches(edges: set[tuple[str, str]], begin: str, end: str) -> bool:
    return any(
        other == end or _reaches(edges, other, end) for room, other in edges if room == begin
    )


def test_the_picture_shows_every_room() -> None:
    rooms = {path.parent.relative_to(PACKAGE).as_posix() for path in PACKAGE.glob("*/**/*.py")}
    shown = {name for text in NODES.values() for name in re.split(r"<br/>|, *", text)}
    assert rooms - shown == set()
    assert GROUND - shown == set()
    assert set(NODES) == {*set(ORDER) - GROUND, "ground"}


def test_the_arrows_are_the_imports() -> None:
    drawn, real = drawn_edges(), real_edges()
    assert (drawn - real, real - drawn) == (set(), set()), "arrows to remove, arrows to add"


def test_the_picture_can_be_read() -> None:
    lines = [line for line in PICTURE.splitlines() if line.strip()]
    nodes = [line for line in lines if '["' in line]
    arrows = [line for line in lines if " --> " in line]
    assert len(lines) == 1 + len(nodes) + len(arrows), "a line that this test does not understand"
    assert len(nodes) == len(NODES) <= MOST_NODES


def names_in(page: str) -> list[str]:
    """Return the names of modules and functions in backticks, as `room.module.function`."""
    rooms = "|".join(ORDER)
    return re.findall(rf"`((?:{rooms})(?:\.\w+)+)`", page)


@pytest.mark.parametrize("name", names_in(PAGE))
def test_a_name_on_the_page_is_in_the_code(name: str) -> None:
    parts = ["imagebuilder", *name.split(".")]
    depth = max(
        n
        for n in range(len(parts) + 1)
        if ROOT.joinpath(*parts[:n]).is_dir()
        or ROOT.joinpath(*parts[:n]).with_suffix(".py").exists()
    )
    module = importlib.import_module(".".join(parts[:depth]))
    assert reduce(getattr, parts[depth:], module)


@pytest.mark.parametrize(("file", "name"), re.findall(r"`(overlays/[^`]+)`: `(\w+)`", PAGE))
def test_a_shell_function_on_the_page_is_in_its_file(file: str, name: str) -> None:
    text = (ROOT / file).read_text(encoding="utf-8")
    assert re.search(rf"^{name}\(\) [{{(]$", text, re.MULTILINE)


def test_the_page_names_each_way() -> None:
    assert len(re.findall(r"^## The way of ", PAGE, re.MULTILINE)) == 3
    assert len(names_in(PAGE)) > 30
    assert "`overlays/" in PAGE


DOORS = [path for path in MODULES if path.name == "__init__.py" and path.parent != PACKAGE]


@pytest.mark.parametrize("path", DOORS, ids=name_of)
def test_the_entry_points_of_a_room_exist(path: Path) -> None:
    """A docstring names a module, a value of it, or a room within."""
    room = ".".join(path.parent.relative_to(ROOT).parts)
    doors = re.findall(r"`([\w.]+)`", _docstring(path).partition("Entry point")[2])
    assert doors
    for name, _, value in (door.partition(".") for door in doors):
        module = importlib.import_module(f"{room}.{name}")
        assert not value or hasattr(module, value), f"{room} has no {name}.{value}"


@pytest.mark.parametrize("path", DOORS, ids=name_of)
def test_the_docstring_of_a_room_lists_what_it_may_import(path: Path) -> None:
    room = path.parent.relative_to(PACKAGE).as_posix()
    text = " ".join(_docstring(path).split())
    allowed = re.search(r"May import the ground \(([^)]*)\)(?: and ([\w, ]*))?\.", text)
    if "/" in room or room == "cli":
        assert not allowed
        return
    assert allowed
    named = {*allowed[1].split(", "), *(allowed[2] or "").split(", ")} - {""}
    assert named == set(ORDER[: ORDER.index(room)])


def _docstring(path: Path) -> str:
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
