"""A command parses, calls the library and shows the result: it decides nothing itself."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from imagebuilder.cli.main import COMMANDS

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(__file__).parents[3] / "imagebuilder"
CLI = sorted((PACKAGE / "cli").rglob("*.py"))
LIBRARY = sorted(set(PACKAGE.rglob("*.py")) - set(CLI) - {PACKAGE / "__main__.py"})
MOST_LINES = 15
TERMINAL = {
    "print",
    "input",
    "exit",
    "quit",
    "breakpoint",
    "os.environ",
    "os.getenv",
    "os.environb",
}
TERMINAL |= {"sys.exit", "sys.stdin", "sys.stdout", "sys.stderr", "sys.argv", "getpass.getpass"}


def callbacks() -> Iterator[tuple[Path, ast.FunctionDef]]:
    """Yield every function that click calls for a command or a group."""
    for path in CLI:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and any(map(makes_command, node.decorator_list)):
                yield path, node


def makes_command(decorator: ast.expr) -> bool:
    call = decorator.func if isinstance(decorator, ast.Call) else decorator
    return isinstance(call, ast.Attribute) and call.attr in {"command", "group"}


def lines_of(function: ast.FunctionDef) -> int:
    """Return the lines of a body, without its docstring."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def test_the_body_of_a_command_has_at_most_fifteen_lines() -> None:
    sizes = {f"{path.name}:{node.name}": lines_of(node) for path, node in callbacks()}
    assert {name for _, name in (key.split(":") for key in sizes)} >= set(COMMANDS)
    assert {name: size for name, size in sizes.items() if size > MOST_LINES} == {}


@pytest.mark.parametrize("path", LIBRARY, ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_the_library_knows_no_command_line(path: Path) -> None:
    """No module outside cli imports click, prints, prompts, exits or reads the environment."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported = {
        alias.name for n in ast.walk(tree) if isinstance(n, ast.Import) for alias in n.names
    }
    imported |= {n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    used = {ast.unparse(n) for n in ast.walk(tree) if isinstance(n, ast.Name | ast.Attribute)}
    assert not {"click", "getpass"} & {name.partition(".")[0] for name in imported}
    assert used & TERMINAL == set()
