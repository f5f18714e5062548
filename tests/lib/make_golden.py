"""Writes the plans of stock boot partitions as texts: `python -m tests.lib.make_golden`.

The scripts of the node folder stay out: they have tests of their own and change more often.
"""

from __future__ import annotations

import sys
from pathlib import Path

from imagebuilder.plan.generations import detect
from imagebuilder.plan.node import plan_node
from tests.lib.plan_samples import (
    BUILD_TIME,
    STOCK,
    boot_of,
    full_node,
    generations,
    node_files,
    plain_node,
)

FOLDER = Path(__file__).parents[1] / "unit" / "golden"
NODES = {"plain": plain_node, "full": full_node}
CASES = tuple(f"{boot}.{node}" for boot in STOCK for node in NODES)


def golden(case: str) -> str:
    """Return a plan as one text: every file in order, its content behind its name."""
    name, _, node = case.rpartition(".")
    boot = boot_of(name)
    files = tuple(file for file in node_files() if file.path.endswith(".j2"))
    generation = detect(generations(), boot)
    planned = plan_node(NODES[node](), generation, files, boot, BUILD_TIME)
    parts = [f"==== {edit.path}\n{(edit.data or b'').decode()}" for edit in planned.edits]
    return "".join(part if part.endswith("\n") else f"{part}\n-- no newline\n" for part in parts)


def main() -> int:
    """Write every case; what no longer is one goes."""
    FOLDER.mkdir(exist_ok=True)
    for old in FOLDER.glob("*.txt"):
        if old.stem not in CASES:
            old.unlink()
    for case in CASES:
        (FOLDER / f"{case}.txt").write_text(golden(case), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
