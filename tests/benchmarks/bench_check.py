"""`rpi-image check` of a class of 1,000, beside a plain parse of the same YAML, and its growth."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.benchmarks.table import Row, report

LIMIT_SECONDS = 3.0
NODES = 1000
# Four times the nodes may cost this much more before the growth counts as more than linear.
LINEAR = 5.0

HEAD = """\
profile: armv7
image: sample
shack: {address: 10.2.0.1}
network: {subnet: 10.2.0.0/16}
user: {name: pupil, password: {env: BENCH_PASSWORD}}
wifi: {country: FR, networks: [{ssid: shack, passphrase: {env: BENCH_PASSWORD}}]}
nodes:
"""


def write_class(path: Path, nodes: int) -> Path:
    """Write a class of `nodes`, each with an entry of its own."""
    entries = (
        f"  - hostname: pi-{i:04}\n    address: 10.2.{i // 250 + 1}.{i % 250 + 1}\n"
        f'    serial: "{i:016x}"\n    owner: Pupil {i}\n    labels: {{seat: s{i}}}\n'
        for i in range(nodes)
    )
    path.write_text(HEAD + "".join(entries))
    return path


def best(*command: str) -> float:
    """Run a program three times and give its best wall time in seconds."""
    times = []
    for _ in range(3):
        start = time.perf_counter()
        subprocess.run(
            command,
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "BENCH_PASSWORD": "correct horse"},
        )
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> None:
    """Measure and report."""
    with tempfile.TemporaryDirectory() as folder:
        large = write_class(Path(folder) / "large.yml", NODES)
        small = write_class(Path(folder) / "small.yml", NODES // 4)
        check = (sys.executable, "-m", "imagebuilder", "check")
        parse = "import sys, yaml; yaml.safe_load(open(sys.argv[1]))"
        ours, quarter = best(*check, str(large)), best(*check, str(small))
        empty = best(*check, str(write_class(Path(folder) / "one.yml", 1)))
        plain = best(sys.executable, "-c", parse, str(large))
    growth = (ours - empty) / max(quarter - empty, 1e-3)
    report(
        "Checking a class of 1,000",
        [
            Row(
                f"`check`, {NODES} nodes",
                f"{ours:.2f} s",
                f"{plain:.2f} s (PyYAML's safe_load)",
                f"{ours / plain:.2f} x",
                f"< {LIMIT_SECONDS:.0f} s",
                ours < LIMIT_SECONDS,
            ),
            Row(
                "four times the nodes",
                f"{ours - empty:.2f} s",
                f"{quarter - empty:.2f} s ({NODES // 4} nodes)",
                f"{growth:.1f} x",
                f"< {LINEAR:.0f} x",
                growth < LINEAR,
            ),
        ],
    )


if __name__ == "__main__":
    main()
