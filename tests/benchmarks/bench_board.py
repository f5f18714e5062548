"""The class page with 300 tiles in a real browser: when it is painted, and what it costs idle."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from imagebuilder.model import Network
from imagebuilder.plan.overlays import load_overlay
from imagebuilder.resources import shipped_folder
from tests.benchmarks.table import Row, report
from tests.lib.browser import chromium
from tests.lib.class_page import shack
from tests.lib.classroom_samples import node
from tests.lib.shack_server import answering

if TYPE_CHECKING:
    from playwright.sync_api import Browser

TILES = 300
PAINT_SECONDS = 1.0
IDLE_SHARE = 0.05
IDLE_SECONDS = 30.0
STATUS_NODES, STATUS_SECONDS = 1000, 3.0
# The end of the first frame after which every tile has a state, since the start of navigation.
PAINTED = """new Promise((done) => { const look = () => {
  const items = [...document.querySelectorAll("#nodes > li")];
  if (items.length && items.every((item) => item.dataset.state)) done(performance.now());
  else requestAnimationFrame(look); }; look(); })"""


def main() -> None:
    """Measure and report."""
    templates = load_overlay(shipped_folder("overlays") / "shack")
    nodes = [node(n, network=Network(), seat=str(n)) for n in range(1, TILES + 1)]
    with (
        tempfile.TemporaryDirectory() as folder,
        answering({"/info": b'{"DriverStatus": []}'}) as manager,
        shack(Path(folder), templates, nodes, manager) as room,
        room.running_consul(),
        chromium() as browser,
    ):
        for number in range(1, TILES, 2):
            room.join(f"pi-{number:02d}", f"192.168.2.{number % 250 + 1}")
        page = browser.new_page()
        page.goto(room.url, wait_until="commit")
        painted = page.evaluate(PAINTED) / 1000
        time.sleep(2)
        before = cpu_seconds(browser)
        time.sleep(IDLE_SECONDS)
        share = (cpu_seconds(browser) - before) / IDLE_SECONDS
    taken = status_seconds()
    report("The class page", [
        Row(f"{TILES} tiles painted", f"{painted:.2f} s", "", "", f"< {PAINT_SECONDS:.0f} s",
            painted < PAINT_SECONDS),
        Row(f"{TILES} tiles, idle", f"{100 * share:.1f} % of a core", "", "",
            f"< {100 * IDLE_SHARE:.0f} %", share < IDLE_SHARE),
        Row(f"`status` of {STATUS_NODES:,} nodes, no shack", f"{taken:.2f} s", "", "",
            f"< {STATUS_SECONDS:.0f} s", taken < STATUS_SECONDS),
    ])  # fmt: skip


def cpu_seconds(browser: Browser) -> float:
    """Return what all processes of the browser have used."""
    session = browser.new_browser_cdp_session()
    found = session.send("SystemInfo.getProcessInfo")["processInfo"]
    session.detach()
    return sum(float(process["cpuTime"]) for process in found)


def status_seconds() -> float:
    """Return how long `status` of a large class takes."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "room.yml"
        hosts = f"pi-[0001-{STATUS_NODES}]"
        room = "profile: armv7\nallow: [no-login, open-docker]\nimage: sample\n"
        file.write_text(f"{room}nodes: [{{hostname: '{hosts}'}}]\n")
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "imagebuilder", "status", file, "--json"],
            check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        return time.perf_counter() - start


if __name__ == "__main__":
    main()
