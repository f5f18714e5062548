"""`make coverage`: what `coverage json` measured, as a table by room of imagebuilder/."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path, PurePosixPath
from typing import Any

PACKAGE = "imagebuilder"
GROUND = "(ground)"
LEAST_PERCENT = 90.0
COUNTS = ("num_statements", "covered_lines", "num_branches", "covered_branches")
HEAD = ("room", "modules", "lines", "branches", "both", "lowest module")


def modules(report: dict[str, Any]) -> dict[str, dict[str, int]]:
    """Return the counts of each module, named by its path below the package."""
    return {
        str(PurePosixPath(path).relative_to(PACKAGE)): {
            name: measured["summary"][name] for name in COUNTS
        }
        for path, measured in report["files"].items()
        if PurePosixPath(path).is_relative_to(PACKAGE)
    }


def percent(counts: dict[str, int]) -> float:
    """Return how much of lines and branches together has run, as coverage counts it."""
    all_of = counts["num_statements"] + counts["num_branches"]
    return 100 * (counts["covered_lines"] + counts["covered_branches"]) / all_of if all_of else 100


def table(found: dict[str, dict[str, int]]) -> list[tuple[str, ...]]:
    """Return a row for each room, its folder's path, and one for all."""
    rooms: dict[str, dict[str, dict[str, int]]] = defaultdict(dict)
    for module, counts in found.items():
        folder = PurePosixPath(module).parent.as_posix()
        rooms[GROUND if folder == "." else folder][module] = counts
    return [HEAD, *(_row(room, rooms[room]) for room in sorted(rooms)), _row("all", found)]


def _row(room: str, found: dict[str, dict[str, int]]) -> tuple[str, ...]:
    total = {name: sum(counts[name] for counts in found.values()) for name in COUNTS}
    lines = {**total, "num_branches": 0, "covered_branches": 0}
    branches = {**total, "num_statements": 0, "covered_lines": 0}
    lowest = min(found, key=lambda module: percent(found[module]))
    shares = (f"{percent(part):.1f} %" for part in (lines, branches, total))
    return (room, str(len(found)), *shares, f"{lowest} {percent(found[lowest]):.1f} %")


def printed(rows: list[tuple[str, ...]]) -> str:
    """Return the rows in columns: names to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    ends = {0, len(HEAD) - 1}
    return "\n".join(
        "  ".join(
            cell.ljust(width) if at in ends else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def main() -> None:
    """Print the table, and the modules of which too little has run."""
    found = modules(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    print(printed(table(found)))
    for module in sorted(found, key=lambda name: percent(found[name])):
        if percent(found[module]) < LEAST_PERCENT:
            print(f"below {LEAST_PERCENT:.0f} %: {module} {percent(found[module]):.1f} %")


if __name__ == "__main__":
    main()
