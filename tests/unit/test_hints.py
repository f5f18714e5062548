"""Every error a user can cause says what to do about it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "imagebuilder"
RAISED = {
    "invalid", "InputError", "SettingsError", "SourceError", "ImageError", "RefusedError",
    "WriteError", "Pattern",
}  # fmt: skip


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.stem)
def test_every_error_comes_with_a_hint(path: Path) -> None:
    silent = [
        f"line {node.lineno}: {ast.unparse(node)}"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and getattr(node.func, "id", getattr(node.func, "attr", "")) in RAISED
        and len(node.args) + len(node.keywords) < 2 + ("Pattern" in ast.unparse(node.func))
    ]
    assert silent == []
