"""The budgets of the program, as the table in docs/security.md: `python -m tests.lib.budgets`."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/security.md"
BEGIN, END = "<!-- budgets -->\n", "<!-- end of budgets -->\n"
HEAD = "| budget | limit | |\n|---|---|---|\n"
# What is doubtful beyond it, not refused.
ADVICE = {"settings.lint.MOST_SERVERS"}
NAME = re.compile(r"(MOST|MAX|LARGEST|LONGEST|LEAST)_[A-Z_]+")
UNITS = {"GiB": 1 << 30, "MiB": 1 << 20, "KiB": 1 << 10}


def table() -> str:
    """Return the table: every public constant of a budget, in the order of rooms and modules."""
    return HEAD + "".join(_rows())


def _rows() -> Iterator[str]:
    for path in sorted((ROOT / "imagebuilder").rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        lines = text.splitlines()
        for node in ast.parse(text).body:
            target = node.targets[0] if isinstance(node, ast.Assign) else None
            if isinstance(target, ast.Name) and NAME.fullmatch(target.id):
                value = getattr(importlib.import_module(module), target.id)
                name = f"{module.removeprefix('imagebuilder.')}.{target.id}"
                if name in ADVICE:
                    continue
                comment = _told(_comment(lines, node.lineno - 1))
                yield f"| `{name}` | {shown(target.id, value)} | {comment} |\n"


def shown(name: str, value: object) -> str:
    """Return a limit with its unit, as the name says it."""
    if isinstance(value, dict):
        return ", ".join(f"{key}: {each:,}" for key, each in value.items())
    if name.endswith("_SECONDS"):
        return f"{value:g} s"
    if name.endswith("_BYTES") and isinstance(value, int):
        unit = next((unit for unit, size in UNITS.items() if value % size == 0), "bytes")
        return f"{value // UNITS.get(unit, 1):,} {unit}"
    return f"{value:,}"


def _comment(lines: list[str], at: int) -> str:
    """Return the comment behind a line, or that above it or above the constants before it."""
    if "  # " in lines[at]:
        return lines[at].partition("  # ")[2]
    above = at - 1
    while above >= 0 and NAME.match(lines[above]) and "#" not in lines[above]:
        above -= 1
    words: list[str] = []
    while above >= 0 and lines[above].startswith("# "):
        words.insert(0, lines[above][2:])
        above -= 1
    return " ".join(words)


def _told(comment: str) -> str:
    """Return a comment as a cell: without the word that they all begin with."""
    text = re.sub(r"^([Bb]udgets?|[Ll]imits?)\b(?: of one rendered file)?[:,] *", "", comment)
    text = text.removesuffix(".").replace("|", "\\|")
    return text[:1].upper() + text[1:] if not re.match(r"\w+\.\w", text) else text


def page() -> str:
    """Return the page with the table of today."""
    text = PAGE.read_text(encoding="utf-8")
    head, _, rest = text.partition(BEGIN)
    return head + BEGIN + "\n" + table() + "\n" + END + rest.partition(END)[2]


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
