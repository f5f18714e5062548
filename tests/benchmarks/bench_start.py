"""How long commands take to start: the help, and a check and a plan of one node."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.benchmarks.table import Row, report
from tests.lib.program import SAMPLE, SAMPLE_SHA256

RUNS = 9
MOST_SECONDS = 0.15
ROOM = """\
profile: armv7
image: {{file: {image}, sha256: {sha256}}}
nodes: [{{hostname: pi-01}}]
"""
PYTHON = ("-c", "import click")
PROGRAM = ("-m", "imagebuilder")


def seconds(environment: dict[str, str], *arguments: object) -> float:
    """Return the wall time of the quickest run of Python, which others disturb least."""
    taken = []
    for _ in range(RUNS):
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, *map(str, arguments)],
            check=True, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        taken.append(time.perf_counter() - start)
    return min(taken)


def main() -> None:
    """Measure and report."""
    with tempfile.TemporaryDirectory() as name:
        room = Path(name, "room.yml")
        room.write_text(ROOM.format(image=SAMPLE, sha256=SAMPLE_SHA256))
        environment = {**os.environ, "RPI_IMAGE_CACHE": f"{name}/cache"}
        commands = {
            "--help": ("--help",),
            "check": ("check", room),
            "batch -n": ("batch", room, "-n"),
        }
        least = seconds(environment, *PYTHON)
        rows = []
        for shown, words in commands.items():
            own = seconds(environment, *PROGRAM, *words)
            held = shown == "--help"
            rows.append(
                Row(
                    f"rpi-image {shown}",
                    f"{own * 1000:.0f} ms",
                    f"{least * 1000:.0f} ms (Python with click)",
                    f"{own / least:.2f}",
                    "<= 150 ms" if held else "(told only)",
                    met=own <= MOST_SECONDS or not held,
                )
            )
    report("Start", rows)


if __name__ == "__main__":
    main()
