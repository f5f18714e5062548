"""The station screen in a real browser, beside a real `flash --queue` onto loop devices."""

from __future__ import annotations

import subprocess
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.device.cards import CARD_BYTES, card, lying_card
from tests.device.test_flash_station import WORN_OUT, only_these_loops, queue
from tests.lib.browser import chromium, serious_faults
from tests.lib.program import RPI_IMAGE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser

pytestmark = [pytest.mark.root, pytest.mark.long]

SLOW = """
def pread(h, buf, offset, flags): plain_read(buf, offset)
def pwrite(h, buf, offset, flags):
    time.sleep(0.25)
    plain_write(buf, offset)
"""
FONT = "parseFloat(getComputedStyle(document.getElementById('next-node')).fontSize)"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@contextmanager
def board(classroom: Path) -> Iterator[str]:
    """Run `rpi-image board`; yield its address."""
    program = subprocess.Popen(
        [*RPI_IMAGE, "board", str(classroom), "--port", "0"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        assert program.stdout
        yield program.stdout.readline().strip()
    finally:
        program.kill()
        program.communicate()


def test_the_screen_beside_a_real_station(
    tmp_path: Path, classroom: Path, monkeypatch: pytest.MonkeyPatch, browser: Browser
) -> None:
    mine = only_these_loops(tmp_path, monkeypatch)
    with ExitStack() as stack:

        def insert(name: str, body: str) -> str:
            place = tmp_path / name
            place.mkdir()
            maker = lying_card(place, CARD_BYTES, body) if body else card(place, CARD_BYTES)
            device = stack.enter_context(maker)
            with mine.open("a") as file:
                file.write(f"{device}\n")
            return device

        url = stack.enter_context(board(classroom))
        page = browser.new_page(viewport={"width": 1280, "height": 720})
        wrong: list[str] = []
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto(f"{url}station")
        page.locator("#next-owner:text('No station is running')").wait_for(timeout=20_000)
        station = stack.enter_context(queue(classroom))
        page.locator("#next-node:text('pi-01')").wait_for(timeout=60_000)
        assert page.locator("#next-label").inner_text() == "label 1"
        assert page.evaluate(FONT) >= 100  # of 720: readable from two metres
        page.locator("#sound").click()
        assert page.locator("#sound").inner_text() == "Sound is on"
        worn = insert("worn", WORN_OUT)
        failed = page.locator("li[data-state=failed]")
        failed.wait_for(timeout=60_000)
        assert {word in failed.inner_text() for word in ("pi-01", worn)} == {True}
        assert page.evaluate("document.body.dataset.sound") == "failed"
        page.locator("#next-node:text('pi-01')").wait_for(timeout=20_000)
        slow = insert("slow", SLOW)
        bar = page.locator(f"li[data-state=writing]:has-text('{slow}') progress[value]")
        bar.wait_for(timeout=60_000)
        page.locator("#next-node:text('pi-02')").wait_for()
        page.reload()
        bar.wait_for()
        assert serious_faults(page) == []
        assert page.locator("#sound").inner_text() == "Sound is off"
        done = page.locator(f"li[data-state=done]:has-text('{slow}')")
        done.wait_for(timeout=90_000)
        assert "pi-01, label 1" in done.inner_text()
        assert page.evaluate("document.body.dataset.sound") == "muted"
        station.program.send_signal(2)
        station.program.wait(60)
        page.locator("#next-owner:text('No station is running')").wait_for(timeout=30_000)
        assert wrong == []
    assert not list(classroom.parent.glob("*.station-*"))
