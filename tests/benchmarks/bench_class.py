"""A class of 1,000 nodes: `check`, `batch --dry-run` and `status`, and how each grows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from imagebuilder.build.wanted import WantedSettings
from imagebuilder.flash.records.ledger import WRITTEN, LedgerEntry, ledger_of, render_ledger
from imagebuilder.settings.load import load_roster
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
LIMITS = {"check": 3.0, "batch": 10.0, "status": 3.0}
COMMANDS = (("check", ()), ("batch", ("--dry-run",)), ("status", ()))


def write_classroom(path: Path, count: int) -> None:
    """Write a roster of `count` nodes, each with its own address and label."""
    text = ROOM.format(image=SAMPLE, sha256=SAMPLE_SHA256)
    for number in range(count):
        text += f"  - hostname: pi-{number:04}\n"
        text += f"    address: 10.0.{1 + number // 250}.{number % 250 + 1}/16\n"
        text += f"    labels: {{desk: d{number}}}\n"
    path.write_text(text)


def write_cards(path: Path) -> None:
    """Take the shack out, write a ledger with the card of each node, and make all outdated."""
    path.write_text(path.read_text().replace("shack: {address: 10.0.0.1}\n", ""))
    room = load_roster(path, environment={"CLASS_WIFI": "correct horse"})
    wanted = WantedSettings()
    cards = [
        LedgerEntry(
            node=node.hostname, state=WRITTEN, settings=json.dumps(dict(wanted.of(node))),
            card="Generic, 31.9 GB", config_hash="a" * 64, built="1700000000",
        )
        for node in room.nodes
    ]  # fmt: skip
    ledger_of(path).path.write_text(render_ledger(cards))
    path.write_text("timezone: Europe/Paris\n" + path.read_text())


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
        for command, extra in COMMANDS:
            taken = {}
            for size in SIZES:
                classroom = folder / f"{size}.yml"
                write_classroom(classroom, size)
                if command == "status":
                    write_cards(classroom)
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
