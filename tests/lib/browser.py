"""Debian's Chromium by Playwright, and axe to look for faults of accessibility."""

from __future__ import annotations

from contextlib import contextmanager
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from playwright.sync_api import sync_playwright

from tests.lib.tools import need

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page

FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking")
AXE = files("axe_playwright_python") / "axe.min.js"


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


def serious_faults(page: Page) -> list[str]:
    """Return the rules that axe finds broken on a page, serious or worse."""
    # Past the page's own policy, which allows no foreign script.
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found: Any = page.evaluate("axe.run()")
    return [
        f"{fault['id']}: {node['html']} {node.get('failureSummary', '')}"
        for fault in found["violations"]
        if fault["impact"] in {"serious", "critical"}
        for node in fault["nodes"]
    ]
