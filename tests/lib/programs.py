"""Which programs the tests reach, read from their own text."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

TESTS = Path(__file__).parents[1]
_RUNNERS = {"run", "subprocess.run", "subprocess.Popen", "subprocess.check_output"}


@dataclass(frozen=True, slots=True, order=True)
class Call:
    """A call in the tests, `place` being its file and line."""

    name: str
    place: str
    arguments: tuple[str | None, ...]


@cache
def calls() -> tuple[Call, ...]:
    """Return every call of a function by its name, or by that of its module, in the tests."""
    return tuple(call for path in sorted(TESTS.rglob("*.py")) for call in _calls(path))


def _calls(path: Path) -> Iterator[Call]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    own = set(_other_names(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and (name := _dotted(node.func)) and name not in own:
            place = f"{path.relative_to(TESTS.parent)}:{node.lineno}"
            yield Call(name, place, tuple(map(_literal, node.args)))


def _other_names(tree: ast.Module) -> Iterator[str]:
    """Yield the names that a file takes for something else than what `tests.lib.tools` has."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            yield node.name
        elif isinstance(node, ast.ImportFrom) and node.module != "tests.lib.tools":
            yield from (alias.asname or alias.name for alias in node.names)


def _dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        before = _dotted(node.value)
        return f"{before}.{node.attr}" if before else ""
    return node.id if isinstance(node, ast.Name) else ""


def _literal(node: ast.expr) -> str | None:
    """Return a text; of a list or tuple its first, which is a command's program."""
    if isinstance(node, ast.List | ast.Tuple) and node.elts:
        return _literal(node.elts[0])
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def needed() -> frozenset[str]:
    """Return the programs that tests ask for by `need()`."""
    asked = (call.arguments for call in calls() if call.name == "need")
    return frozenset(name for names in asked for name in names if name)


def started() -> dict[str, str]:
    """Return the programs that tests name where they start them, each with such a place."""
    starts = (call for call in calls() if call.name in _RUNNERS and call.arguments)
    return {call.arguments[0]: call.place for call in starts if call.arguments[0]}
