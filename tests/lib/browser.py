"""Debian's Chromium by Playwright, and axe to look for faults of accessibility."""

from __future__ import annotations

import subprocess
import tarfile
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from filelock import FileLock
from playwright.sync_api import sync_playwright

from tests.lib.real_consul import CACHE
from tests.lib.tools import need

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, Page

FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking")
AXE = "axe-core@4.10.3"


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run Debian's Chromium, without a profile and without asking the network for anything."""
    (program,) = need("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(FLAGS))
        try:
            yield browser
        finally:
            browser.close()


def axe_script() -> Path:
    """Return axe-core's script, fetched once by npm."""
    (npm,) = need("npm")
    folder = CACHE / AXE
    with FileLock(CACHE / "axe.lock"):
        if not folder.exists():
            work = CACHE / "axe.work"
            work.mkdir(exist_ok=True)
            subprocess.run([npm, "pack", AXE], cwd=work, check=True, capture_output=True)
            with tarfile.open(next(work.glob("axe-core-*.tgz"))) as packed:
                packed.extract("package/axe.min.js", work, filter="data")
            work.rename(folder)
    return folder / "package" / "axe.min.js"


def serious_faults(page: Page) -> list[str]:
    """Return the rules that axe finds broken on a page, serious or worse."""
    # Past the page's own policy, which allows no foreign script.
    page.evaluate(axe_script().read_text(encoding="utf-8"))
    found: Any = page.evaluate("axe.run()")
    return [
        f"{fault['id']}: {node['html']} {node.get('failureSummary', '')}"
        for fault in found["violations"]
        if fault["impact"] in {"serious", "critical"}
        for node in fault["nodes"]
    ]
