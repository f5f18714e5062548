"""The class page in a real browser: a real consul, nginx as the shack runs it, hostile nodes."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from imagebuilder.cli.main import run as run_rpi_image
from imagebuilder.flash.records.class_status import ClassStatus
from imagebuilder.model import Network
from imagebuilder.shack.observe import Observation
from imagebuilder.web.board import BoardServer
from tests.lib.boot_folders import put_tree
from tests.lib.browser import chromium, serious_faults
from tests.lib.class_page import shack
from tests.lib.classroom_samples import make_classroom, node
from tests.lib.plan_samples import STOCK
from tests.lib.served_board import serving
from tests.lib.shack_server import RECORDINGS, answering

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page

    from imagebuilder.model import NodeSettings, OverlayFile

pytestmark = pytest.mark.long

NASTY = "<img src=x onerror=alert(1)>\u202e\u0000\"'&"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


def nodes(count: int, **changes: Any) -> list[NodeSettings]:
    return [node(n, **changes) for n in range(1, count + 1)]


@contextmanager
def opened(browser: Browser, url: str, **options: Any) -> Iterator[Page]:
    """Open a page; anything that it says on the console or asks elsewhere is an error."""
    page = browser.new_page(**options)
    said: list[str] = []
    asked: list[str] = []
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: said.append(f"dialog {dialog.message}"))
    origin = "/".join(url.split("/")[:3])
    page.on("request", lambda request: asked.append(request.url))
    page.goto(url)
    yield page
    assert said == []
    assert {url for url in asked if not url.startswith(origin)} == set()
    page.close()


def state(page: Page, name: str, wanted: str) -> str:
    """Wait for the state of a tile; return its whole text."""
    tile = page.locator(f"#{name}[data-state={wanted}]")
    tile.wait_for(timeout=15_000)
    return " ".join(tile.inner_text().split())


def test_the_board_follows_the_class(
    tmp_path: Path, templates: tuple[OverlayFile, ...], browser: Browser
) -> None:
    with ExitStack() as stack:
        manager = stack.enter_context(answering({"/info": b'{"DriverStatus": []}'}))
        made = shack(tmp_path, templates, nodes(30, owner="Ada"), manager)
        room = stack.enter_context(made)
        page = stack.enter_context(opened(browser, room.url))
        assert "not known" in state(page, "pi-01", "unknown")
        with room.running_consul():
            room.join("pi-01", "192.168.2.101")
            room.join("pi-02", "192.168.2.66")
            room.join("pi-03", "192.168.2.103", lost=True)
            room.tell("pi-04", stage="pulling consul", percent=40)
            room.tell("pi-05", stage="pulling consul", error="no space left on device")
            assert "✔ joined" in state(page, "pi-01", "joined")
            assert "192.168.2.66" in state(page, "pi-02", "other-address")
            state(page, "pi-03", "missing")
            assert "pulling consul, 40 %" in state(page, "pi-04", "booting")
            assert page.locator("#pi-04 progress").get_attribute("value") == "40"
            assert "no space left" in state(page, "pi-05", "problem")
            totals = page.locator("#totals").inner_text().replace("\u00a0", " ")
            assert re.search(r"1 joined.*1 setting up.*1 problem.*1 other.*26 missing", totals)
            assert page.locator("#advice li").count() == 4
            assert not page.locator("#trouble").is_visible()
            assert serious_faults(page) == []
            room.join("pi-04", "192.168.2.104")
            room.tell("pi-04", stage="ready")
            assert "pulling" not in state(page, "pi-04", "joined")
        page.locator("#trouble:not([hidden])").wait_for(timeout=15_000)
        assert "✔ joined" in state(page, "pi-01", "joined")  # what was known last
        page.reload()
        state(page, "pi-01", "unknown")
        with room.running_consul():
            state(page, "pi-01", "joined")


def test_the_page_of_a_node_is_where_its_label_leads(
    tmp_path: Path, templates: tuple[OverlayFile, ...], browser: Browser
) -> None:
    phone = {"viewport": {"width": 390, "height": 800}, "color_scheme": "dark"}
    with shack(tmp_path, templates, nodes(3, owner="Ada")) as room, room.running_consul():
        room.tell("pi-02", stage="joining the swarm", percent=80)
        with opened(browser, f"{room.url}#pi-02", **phone) as page:
            page.locator("#one-facts :text('joining the swarm, 80 %')").wait_for(timeout=15_000)
            assert not page.locator("#all").is_visible()
            assert "192.168.2.102" in page.locator("#one").inner_text()
            page.wait_for_function("document.activeElement.id === 'one-name'")
            assert serious_faults(page) == []
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            page.keyboard.press("Tab")
            page.keyboard.press("Enter")  # "Show all nodes"
            page.locator("#all").wait_for()
            page.keyboard.press("Tab")
            page.keyboard.press("Enter")
            page.locator("#one").wait_for()
            assert page.evaluate("document.activeElement.id") == "one-name"
            page.evaluate("location.hash = '%E0%A4%A'")
            page.locator("#all").wait_for()


def test_live_nodes_come_and_go_beside_recorded_ones(
    tmp_path: Path, templates: tuple[OverlayFile, ...], browser: Browser
) -> None:
    """Consul clients as cards run them; what a real class of 1.8.7 had is registered as well."""
    recorded = json.loads((RECORDINGS / "consul-1.8.7" / "catalog_nodes.json").read_bytes())
    names = [each["Node"] for each in recorded]
    roster = [node(n, hostname=name, network=Network()) for n, name in enumerate(names, 1)]
    roster += [node(n, hostname=f"live-{n}", network=Network()) for n in (91, 92)]
    with (
        shack(tmp_path, templates, roster) as room,
        room.running_consul(),
        opened(browser, room.url) as page,
    ):
        for each in recorded:
            if each["Node"] != "shack":
                room.join(each["Node"], each["Address"])
        with room.member("live-91"):
            for name in ("live-91", *names):
                state(page, name, "joined")
            with room.member("live-92"):
                state(page, "live-92", "joined")
            page.locator("#live-92[data-state=missing]").wait_for(timeout=90_000)
            state(page, "live-91", "joined")


def test_hostile_stations_are_text(browser: Browser) -> None:
    """What a damaged or foreign file beside the ledger says is shown as text, or not at all."""
    card = {"number": 1, "reader": NASTY, "node": NASTY * 99, "state": "constructor",
            "percent": 10**9, "owner": [NASTY], "error": NASTY}  # fmt: skip
    found: list[Any] = [
        {"station": NASTY, "next": NASTY * 500, "label": NASTY, "owner": {}, "left": NASTY,
         "of": None, "cards": [card, None, 7, {"reader": {}}, card | {"state": "failed"}] * 40},
        {"cards": {"length": 9}}, {"station": "\u202e", "cards": None}, 7, None, [], "x",
    ]  # fmt: skip
    server = BoardServer(
        classroom=make_classroom(Path("/class"), shack=None),
        look=lambda: ClassStatus((), Observation(None, ())),
        stations=lambda: found,
        findings=tuple,
        port=0,
    )
    with ExitStack() as stack:
        served = stack.enter_context(serving(server))
        page = stack.enter_context(opened(browser, f"{served.url}station"))
        page.locator("#cards li").first.wait_for()
        assert page.locator("img, b, script:not([src])").count() == 0
        assert page.locator("#cards li").count() == 2
        assert not page.locator("#trouble").is_visible()
        assert "\u202e" not in page.locator("main").inner_text()
        assert serious_faults(page) == []


def test_hostile_nodes_are_text(
    tmp_path: Path, templates: tuple[OverlayFile, ...], browser: Browser
) -> None:
    documents: list[bytes] = [
        json.dumps({"stage": NASTY * 500, "error": NASTY, "percent": 10**9}).encode(),
        b"[" * 4000, b"null", b"\xff\xfe", b"{", b'"text"', b"x" * 60_000,
        json.dumps({"stage": {"toString": 1}, "error": [NASTY], "updated": {}}).encode(),
        b'{"__proto__": {"stage": "x"}, "percent": "40"}',
    ]  # fmt: skip
    owners = nodes(12, owner=NASTY.replace("\0", ""))
    with shack(tmp_path, templates, owners) as room, room.running_consul():
        for number, document in enumerate(documents, start=1):
            room.put(f"kv/rpi-image/nodes/pi-{number:02}", document)
        room.tell("pi-11", stage=NASTY, error=NASTY, percent=50)
        room.put("kv/rpi-image/nodes/__proto__", {"stage": "x"})
        room.join("<b>guest</b>", "10.0.0.1")
        room.join("pi-12", "192.168.2.112")
        with opened(browser, room.url) as page:
            state(page, "pi-12", "joined")
            assert "<img src=x" in state(page, "pi-11", "problem")
            assert page.locator("img, b, script:not([src])").count() == 0
            for number in range(1, 10):
                text = page.locator(f"#pi-{number:02} .what").inner_text()
                assert len(text) < 500
                assert "\u202e" not in text


def test_the_board_of_the_instructor_has_the_cards(tmp_path: Path, browser: Browser) -> None:
    """`rpi-image board` as a program of its own, without a shack; the file changes meanwhile."""
    file = tmp_path / "room.yml"
    file.write_text(
        "profile: armv7\nallow: [no-login]\nimage: sample\n"
        "nodes: [{hostname: pi-01, owner: Ada}, {hostname: pi-02, owner: Bob}]\n"
    )
    card = put_tree(tmp_path / "card", STOCK["firstrun-bookworm"])
    assert run_rpi_image(["apply", str(card), "-c", str(file), "--node", "pi-01"]) == 0
    program = subprocess.Popen(
        [sys.executable, "-m", "imagebuilder", "board", str(file), "--port", "0"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert program.stdout
        url = program.stdout.readline().strip()
        with opened(browser, url) as page:
            page.locator("#pi-01 .card:text('card: current')").wait_for(timeout=15_000)
            page.locator("#pi-02 .card:text('card: never written')").wait_for()
            page.locator("#findings li:has-text('room.yml:1 warning')").wait_for()
            assert serious_faults(page) == []
            file.write_text(file.read_text().replace("Ada", "Eve"))
            page.locator("#pi-01 .card:text('card: outdated (owner)')").wait_for(timeout=20_000)
            page.locator("#pi-01 a").click()
            page.locator("#one-facts :text('flash DEVICE')").wait_for()
    finally:
        program.send_signal(2)
        _, said = program.communicate(timeout=20)
    assert (program.returncode, said.splitlines()[-1]) == (130, "interrupted")
    assert f"{url}station" in said


def test_seats_are_rows_and_columns(
    tmp_path: Path, templates: tuple[OverlayFile, ...], browser: Browser
) -> None:
    seats = [node(n, seat=f"{'AB'[n % 2]}{(n + 1) // 2}") for n in range(1, 7)]
    with (
        shack(tmp_path, templates, seats) as room,
        opened(browser, room.url, viewport={"width": 1000, "height": 700}) as page,
    ):
        tops = [page.locator(f"#pi-{n:02}").bounding_box() for n in range(1, 7)]
    assert all(tops)
    assert tops[1]["x"] < 60  # type: ignore[index]
    row_b, row_a = tops[0]["y"], tops[1]["y"]  # type: ignore[index]
    assert row_b > row_a
    assert [box["y"] for box in tops if box] == [row_b, row_a] * 3


def test_only_what_is_on_the_list_is_passed_on(
    tmp_path: Path, templates: tuple[OverlayFile, ...]
) -> None:
    with shack(tmp_path, templates, nodes(2)) as room, room.running_consul():
        room.join("pi-01", "192.168.2.101")
        room.put("kv/secret", b"swordfish")

        def status(path: str, method: str = "GET") -> tuple[int, bytes]:
            url = room.url + path
            data = b"{}" if method != "GET" else None
            try:
                request = urllib.request.Request(url, data, method=method)
                with urllib.request.urlopen(request, timeout=5) as answer:
                    return answer.status, answer.read()
            except urllib.error.HTTPError as error:
                return error.code, b""

        code, body = status("api/members?raw&dc=elsewhere")
        assert (code, b"pi-01" in body) == (200, True)
        for method in ("PUT", "POST", "DELETE", "PATCH"):
            assert status("api/progress", method)[0] in {403, 405}
        for path in (
            "api/", "api/kv/secret", "api/progress/../../secret", "api/members/", "v1/kv/secret",
            "api/progress%2f..%2f..%2fsecret", "api/members%3f", "api//members/../kv/secret?raw",
        ):  # fmt: skip
            code, body = status(path)
            assert (code, b"swordfish" in body) in {(404, False), (400, False)}, path
        room.tell("pi-01", stage="ready")
        entries = json.loads(status("api/progress?keys&separator=/")[1])
        assert json.loads(base64.b64decode(entries[0]["Value"]))["stage"] == "ready"


def test_three_hundred_tiles_are_painted_in_a_second(
    tmp_path: Path, templates: tuple[OverlayFile, ...], browser: Browser
) -> None:
    with (
        shack(tmp_path, templates, nodes(300, network=Network())) as room,
        room.running_consul(),
        opened(browser, room.url) as page,
    ):
        state(page, "pi-01", "missing")
        took: float = page.evaluate(
            "(() => { const start = performance.now(); for (const t of tiles.values())"
            " delete t.item.dataset.state; paint(); document.body.offsetHeight;"
            " return performance.now() - start; })()"
        )
    assert took < 1000


@pytest.mark.parametrize("answer", [b"7", b"{}", b'{"DriverStatus": 7}', b"[[[["])
def test_a_strange_manager_hides_nobody(
    answer: bytes, tmp_path: Path, templates: tuple[OverlayFile, ...], browser: Browser
) -> None:
    with (
        answering({"/info": answer}) as manager,
        shack(tmp_path, templates, nodes(2), manager) as room,
        room.running_consul(),
    ):
        room.join("pi-01", "192.168.2.101")
        with opened(browser, room.url) as page:
            state(page, "pi-01", "joined")
