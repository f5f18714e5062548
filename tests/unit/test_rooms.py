"""The rooms of the package have an order, and each of them a door."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "imagebuilder"
ORDER = (
    "errors", "progress", "model", "workers", "files", "resources",
    "devices", "disk", "images", "plan", "settings", "build", "boot", "shack", "flash", "web",
    "cli",
)  # fmt: skip
MODULES = sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").as_posix().replace("/", ".")


def imports_of(path: Path) -> set[tuple[str, str]]:
    """Return the module and the name of each import from our own package, wherever it stands."""
    return {
        (node.module or "", alias.name)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("imagebuilder.")
        for alias in node.names
    }


def room_of(module: str) -> str:
    return module.removeprefix("imagebuilder.").split(".")[0]


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_imports_only_from_the_rooms_before_its_own(path: Path) -> None:
    room = room_of(name_of(path))
    if room in {"__init__", "__main__"}:
        return
    allowed = set(ORDER[: ORDER.index(room) + 1])
    assert {module for module, _ in imports_of(path) if room_of(module) not in allowed} == set()


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_imports_no_private_name(path: Path) -> None:
    assert [name for _, name in imports_of(path) if name.startswith("_")] == []


def test_no_module_imports_itself_in_a_circle() -> None:
    known = {name_of(path) for path in MODULES}
    graph = {
        name_of(path): {
            found if found in known else f"{found}.{name}"
            for module, name in imports_of(path)
            for found in [module.removeprefix("imagebuilder.")]
        }
        for path in MODULES
    }
    assert set(TopologicalSorter(graph).static_order()) >= known


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_can_be_read_in_one_sitting(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 420


def test_a_room_says_what_it_is_for_and_where_to_enter_it() -> None:
    doors = [path for path in MODULES if path.name == "__init__.py" and path.parent != PACKAGE]
    assert {room_of(name_of(path)) for path in doors} == {
        room for room in ORDER if not (PACKAGE / f"{room}.py").exists()
    }
    for path in doors:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert len(tree.body) == 1, f"{path} holds more than its docstring"
        text = ast.get_docstring(tree) or ""
        assert "May import" in text
        assert "Entry point" in text


def test_a_room_has_about_a_dozen_modules() -> None:
    folders = {path.parent for path in MODULES}
    assert {
        folder.name: n for folder in folders if (n := len(list(folder.glob("*.py")))) > 15
    } == {}
