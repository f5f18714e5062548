"""What each boot case ended with: kept in a file, so that a long run goes on where it was stopped.

A run of every case writes the last result of each into docs/boot.md.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from tests.boot import roots
from tests.boot.processor import SLOW

if TYPE_CHECKING:
    from collections.abc import Iterable

ROOT = Path(__file__).parents[2]
FILE = ROOT / "build" / "boot-results.jsonl"
PAGE = ROOT / "docs" / "boot.md"
BEGIN, END = "<!-- results begin -->", "<!-- results end -->"
# What a case depends on; a result counts for exactly these files.
TESTED = ("imagebuilder", "overlays", "profiles", "tests/boot", "tests/lib")


@dataclass(frozen=True)
class Result:
    """How a case ended: `seconds` on the clock, `processor` those that its Pis took of the host."""

    case: str
    outcome: str
    date: str
    seconds: int
    processor: int
    slow: float
    tested: str


@cache
def tested() -> str:
    """Return a key of the files that the cases depend on."""
    files = (
        file
        for name in TESTED
        for file in sorted([ROOT / name, *(ROOT / name).rglob("*")])
        if file.is_file() and "__pycache__" not in file.parts
    )
    return roots.digest_of(files)


def read() -> dict[str, Result]:
    """Return the last result of each case; a line that a power cut left half written is dropped."""
    found = {}
    for line in FILE.read_text().splitlines() if FILE.exists() else []:
        try:
            result = Result(**json.loads(line))
        except (ValueError, TypeError):
            continue
        found[result.case] = result
    return found


def add(case: str, outcome: str, seconds: float, processor: float) -> None:
    """Append a result."""
    date = datetime.now(UTC).strftime("%Y-%m-%d")
    result = Result(case, outcome, date, round(seconds), round(processor), SLOW, tested())
    FILE.parent.mkdir(exist_ok=True)
    with FILE.open("a") as out:
        out.write(json.dumps(asdict(result)) + "\n")


def passed() -> set[str]:
    """Return the cases that have passed with the files as they are now, at this speed."""
    return {
        case
        for case, result in read().items()
        if (result.outcome, result.slow, result.tested) == ("passed", SLOW, tested())
    }


# ---- the page


def table(results: Iterable[Result]) -> str:
    """Return the table of docs/boot.md; numbered cases of one test share a row."""
    rows: dict[str, list[Result]] = {}
    for result in results:
        rows.setdefault(_row_of(result.case), []).append(result)
    head = "| case | result | date | minutes | of them QEMU's processor |\n|---|---|---|---|---|\n"
    return head + "".join(_line(name, rows[name]) for name in sorted(rows))


def _row_of(case: str) -> str:
    name = case.removeprefix("tests/boot/")
    return re.sub(r"(?<=[\[-])\d+\]$", "…]", name)


def _line(name: str, results: list[Result]) -> str:
    outcomes = [result.outcome for result in results]
    words = [f"{outcomes.count(outcome)} {outcome}" for outcome in sorted(set(outcomes))]
    said = ", ".join(words) if len(results) > 1 else outcomes[0]
    slow = max(result.slow for result in results)
    if slow != 1:
        said += f" (slowed to 1/{slow:g})"
    minutes = sum(result.seconds for result in results) / 60
    processor = sum(result.processor for result in results) / 60
    date = min(result.date for result in results)
    return f"| `{name}` | {said} | {date} | {minutes:.1f} | {processor:.1f} |\n"


def write_page(page: Path = PAGE) -> None:
    """Replace what stands between the two marks of the page."""
    before, _, rest = page.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n{table(read().values())}{END}{after}")
