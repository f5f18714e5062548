"""One table of ratios, printed and kept in docs/benchmarks.md."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

PAGE = Path(__file__).parents[2] / "docs" / "benchmarks.md"


@dataclass(frozen=True)
class Row:
    """One measurement beside what a user would run instead; `target` as the issue states it."""

    what: str
    ours: str
    theirs: str
    ratio: str
    target: str
    met: bool


def report(section: str, rows: Sequence[Row]) -> None:
    """Print the table; with BENCH_WRITE=1 also replace its section in docs/benchmarks.md."""
    lines = ["| what | ours | instead | ratio | target | met |", "|---|---|---|---|---|---|"]
    lines += [
        f"| {r.what} | {r.ours} | {r.theirs} | {r.ratio} | {r.target} | {('NO', 'yes')[r.met]} |"
        for r in rows
    ]
    text = f"## {section}\n\n" + "\n".join(lines) + "\n"
    sys.stdout.write("\n" + text)
    if os.environ.get("BENCH_WRITE"):
        _keep(section, text)


def _keep(section: str, text: str) -> None:
    page = PAGE.read_text() if PAGE.exists() else "# Benchmarks\n"
    head, *sections = page.split("\n## ")
    kept = [part for part in sections if part.splitlines()[0] != section]
    kept.append(text.removeprefix("## ").rstrip("\n"))
    PAGE.write_text(
        head.rstrip("\n") + "\n" + "".join(f"\n## {part.rstrip()}\n" for part in sorted(kept))
    )
