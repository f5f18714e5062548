"""A class of 1,000 nodes: `check` and `batch --dry-run`, and how planning grows with the roster."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.benchmarks.table import Row, report
from tests.lib.program import SAMPLE, SAMPLE_SHA256

ROOM = """\
profile: armv7
image: {{file: {image}, sha256: {sha256}}}
shack: {{address: 10.0.0.1}}
network: {{gateway: 10.0.0.1, subnet: 10.0.0.0/16}}
wifi: {{country: FR, networks: [{{ssid: shack, passphrase: {{env: CLASS_WIFI}}}}]}}
nodes:
"""
SIZES = (250, 500, 1000)
LIMITS = {"check": 3.0, "batch": 10.0}


def write_classroom(path: Path, count: int) -> None:
    """Write a roster of `count` nodes, each with its own address and label."""
    text = ROOM.format(image=SAMPLE, sha256=SAMPLE_SHA256)
    for number in range(count):
        text += f"  - hostname: pi-{number:04}\n"
        text += f"    address: 10.0.{1 + number // 250}.{number % 250 + 1}/16\n"
        text += f"    labels: {{desk: d{number}}}\n"
    path.write_text(text)


def seconds(cache: Path, *arguments: object) -> float:
    """Run the program and give its wall time."""
    environment = {**os.environ, "CLASS_WIFI": "correct horse", "RPI_IMAGE_CACHE": str(cache)}
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "imagebuilder", *map(str, arguments)],
        check=True, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    return time.perf_counter() - start


def main() -> None:
    """Measure and report; growth is the time of 1,000 nodes over that of 250, four being linear."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_classroom(folder / "one.yml", 1)
        seconds(folder / "cache", "batch", folder / "one.yml", "--dry-run")
        for command, extra in (("check", ()), ("batch", ("--dry-run",))):
            taken = {}
            for size in SIZES:
                classroom = folder / f"{size}.yml"
                write_classroom(classroom, size)
                taken[size] = seconds(folder / "cache", command, classroom, *extra)
            growth = taken[1000] / taken[250]
            limit = LIMITS[command]
            met = taken[1000] <= limit and growth <= 4.4
            rows.append(
                Row(
                    f"{command} {' '.join(extra)} of 1,000 nodes", f"{taken[1000]:.2f} s",
                    f"{taken[250]:.2f} s for 250", f"{growth:.2f}",
                    f"<= {limit:.0f} s, growth <= 4", met,
                )
            )  # fmt: skip
    report("A class of 1,000 nodes", rows)


if __name__ == "__main__":
    main()
