"""The label sheet: its QR codes read by zbar, its page looked at through a browser's PDF."""

from __future__ import annotations

import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from imagebuilder.model import Network, NodeSettings, Shack
from imagebuilder.shack.sheets.label_content import SHEETS, link_of
from imagebuilder.shack.sheets.labels import render_labels
from tests.lib.classroom_samples import make_classroom, node
from tests.lib.tools import need, run


def rows(count: int, owner: str = "Zoë") -> list[NodeSettings]:
    return [node(number, owner=owner) for number in range(1, count + 1)]


class Balance(HTMLParser):
    """Counts what is open; void elements and SVG's self-closing ones aside."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        del attrs
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("paper", SHEETS)
def test_the_page_is_well_formed_and_fits_its_sheet(paper: str) -> None:
    sheet = SHEETS[paper]
    text = render_labels(make_classroom(Path("/r"), *rows(25)), sheet)
    parser = Balance()
    parser.feed(text)
    assert not parser.open
    width = sheet.columns * sheet.label[0] + (sheet.columns - 1) * sheet.gap + sheet.margin[1]
    assert width <= sheet.page[0]
    assert sheet.rows * sheet.label[1] + sheet.margin[0] <= sheet.page[1]


def test_names_are_words_not_markup() -> None:
    nasty = make_classroom(
        Path("/r"), node(1, owner="<script>alert(1)</script>", seat='"><b>'), name="3<b>"
    )
    text = render_labels(nasty, SHEETS["l7160"])
    assert "<script>" not in text
    assert "&lt;script&gt;" in text
    assert "<b>" not in text


def test_the_code_leads_to_the_class_page_or_to_ssh() -> None:
    first = node(1)
    assert link_of(make_classroom(Path("/r")), first) == "http://192.168.2.1:8080/#pi-01"
    off = make_classroom(Path("/r"), shack=Shack("192.168.2.1", services=("registry",)))
    assert link_of(off, first) == "ssh://pi@192.168.2.101"
    ipv6 = node(1, network=Network(address="2001:db8::101/64"))
    assert link_of(off, ipv6) == "ssh://pi@[2001:db8::101]"
    there = make_classroom(Path("/r"), shack=Shack("2001:db8::1"))
    assert link_of(there, ipv6) == "http://[2001:db8::1]:8080/#pi-01"
    loose = node(1, network=Network(), user=None)
    assert link_of(make_classroom(Path("/r"), shack=None), loose) == "ssh://pi-01.local"


def test_skipped_labels_stay_empty() -> None:
    text = render_labels(make_classroom(Path("/r")), SHEETS["l7160"], skip=20)
    assert text.count('class="label empty"') == 20
    assert text.count("<section") == 2


def test_the_same_class_gives_the_same_sheet() -> None:
    assert render_labels(make_classroom(Path("/r")), SHEETS["l7160"]) == render_labels(
        make_classroom(Path("/r")), SHEETS["l7160"]
    )


def printed(page: str, folder: Path) -> Path:
    """Print a sheet to PDF with a browser."""
    need("chromium", "pdfinfo", "pdftoppm", "pdftotext", "zbarimg")
    sheet, made = folder / "labels.html", folder / "labels.pdf"
    sheet.write_text(page)
    run("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--no-pdf-header-footer",
        f"--user-data-dir={folder / 'browser'}",
        f"--print-to-pdf={made}", sheet.as_uri(), timeout=60)  # fmt: skip
    return made


@pytest.mark.parametrize("paper", SHEETS)
def test_what_has_no_room_is_visibly_cut(paper: str, tmp_path: Path) -> None:
    owners = ("Ada", "Maximilian-Alexander von und zu Hohenstein " * 4, "W" * 300)
    nodes = [node(n, owner=owner) for n, owner in enumerate(owners, start=1)]
    nodes.append(node(4, hostname="n" * 63))
    page = render_labels(make_classroom(tmp_path, *nodes), SHEETS[paper])
    assert "text-overflow: ellipsis" in page
    words = run("pdftotext", "-raw", printed(page, tmp_path), "-")
    assert words.count("…") == 3
    assert "Ada\n" in words


@pytest.mark.parametrize("paper", SHEETS)
def test_a_reader_finds_every_code_on_the_printed_sheet(paper: str, tmp_path: Path) -> None:
    classroom = make_classroom(tmp_path, *rows(30))
    made = printed(render_labels(classroom, SHEETS[paper]), tmp_path)
    run("pdftoppm", "-r", "200", "-png", made, tmp_path / "page")
    pages = sorted(tmp_path.glob("page*.png"))
    assert len(pages) == -(-30 // SHEETS[paper].count)
    read = subprocess.run(
        ["zbarimg", "-q", "--raw", "--nodbus", *pages], capture_output=True, text=True, check=True
    )
    assert sorted(read.stdout.split()) == sorted(link_of(classroom, n) for n in classroom.nodes)
    size = re.search(r"Page size: +([0-9.]+) x ([0-9.]+)", run("pdfinfo", made))
    assert size is not None
    millimetres = [float(points) / 72 * 25.4 for points in size.groups()]
    assert millimetres == pytest.approx(SHEETS[paper].page, abs=0.5)
