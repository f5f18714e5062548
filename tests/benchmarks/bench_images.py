"""How long `rpi-image images` takes with a published list of 1 MB that has not changed."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from tests.benchmarks.bench_class import seconds
from tests.benchmarks.table import Row, report
from tests.lib.published_lists import listed, write_list

RUNS = 5
MOST_SECONDS = 0.5
MOST_BYTES = 1_000_000


def long_list(path: Path) -> int:
    """Write a list of at least 1 MB; return how many images it has."""
    count = MOST_BYTES // len(json.dumps(listed())) + 1
    entries = [
        listed(name=f"System {number}", release_date=f"2026-{number % 12 + 1:02}-01")
        for number in range(count)
    ]
    write_list(path, *entries)
    return count


def main() -> None:
    """Measure and report the quickest of some runs, which others disturb least."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        place, cache = Path(name, "list.json"), Path(name, "cache")
        count = long_list(place)
        for extra in ((), ("--board", "pi5"), ("--search", "system 7"), ("--json",)):
            words = ("images", "--catalog", place, *extra)
            taken = min(seconds(cache, *words) for _ in range(RUNS))
            rows.append(
                Row(
                    f"images {' '.join(extra)}".strip(),
                    f"{taken:.2f} s",
                    f"{place.stat().st_size / 1e6:.1f} MB, {count} images",
                    "",
                    "<= 0.5 s",
                    met=taken <= MOST_SECONDS,
                )
            )
    report("A published list of 1 MB", rows)


if __name__ == "__main__":
    main()
