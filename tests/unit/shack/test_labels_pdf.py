"""The PDF of the labels, read by poppler and zbar: its size, its fonts and its codes."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from imagebuilder.shack.sheets.label_content import SHEETS, Label, label_of
from imagebuilder.shack.sheets.labels_pdf import draw_labels, missing_letters
from tests.lib.classroom_samples import make_classroom, node
from tests.lib.tools import need, run

DPI = 300
MM_OF_DOT = 25.4 / DPI
TOLERANCE_MM = 0.2
# The left and upper corner of the first label and of the last on a page, measured on the template
# of the vendor: margin, then steps from label to label.
CORNERS = {
    "l7160": ((7.25, 15.15), (7.25 + 2 * 66, 15.15 + 6 * 38.1)),
    "5160": ((4.7625, 12.7), (4.7625 + 2 * 69.85, 12.7 + 9 * 25.4)),
    "l7651": ((4.75, 10.7), (4.75 + 4 * 40.6, 10.7 + 12 * 21.2)),
    "brother-62": ((0, 0), (0, 0)),
}


def labels(count: int, owner: str = "Zoë") -> list[Label]:
    nodes = [node(n, owner=owner) for n in range(1, count + 1)]
    classroom = make_classroom(Path("/r"), *nodes)
    return [label_of(classroom, each, n) for n, each in enumerate(nodes, start=1)]


def drawn(stock: str, made: list[Label], folder: Path, skip: int = 0) -> Path:
    path = folder / "labels.pdf"
    path.write_bytes(draw_labels(made, SHEETS[stock], skip, 0))
    return path


@pytest.mark.parametrize("stock", SHEETS)
def test_a_reader_finds_every_code_on_its_label(stock: str, tmp_path: Path) -> None:
    pdftoppm, zbarimg = need("pdftoppm", "zbarimg")
    sheet = SHEETS[stock]
    made = labels(sheet.count + 2)
    run(pdftoppm, "-r", str(DPI), "-gray", drawn(stock, made, tmp_path), tmp_path / "page")
    pages = [Dots(path.read_bytes()) for path in sorted(tmp_path.glob("page*.pgm"))]
    assert len(pages) == -(-len(made) // sheet.count)
    for number in range(len(made)):
        row, column = divmod(number % sheet.count, sheet.columns)
        left = CORNERS[stock][0][0] + column * (sheet.label[0] + sheet.gap)
        top = CORNERS[stock][0][1] + row * sheet.label[1]
        label = pages[number // sheet.count].cut(left, top, *sheet.label)
        (tmp_path / f"label-{number:03}.pgm").write_bytes(label)
    read = subprocess.run(
        [zbarimg, "-q", "--raw", "--nodbus", *sorted(tmp_path.glob("label-*.pgm"))],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert read.stdout.split() == [label.link for label in made]


@pytest.mark.parametrize("stock", SHEETS)
def test_the_labels_are_where_the_sheet_has_them(stock: str, tmp_path: Path) -> None:
    (pdftoppm,) = need("pdftoppm")
    sheet = SHEETS[stock]
    made = labels(sheet.count)
    run(pdftoppm, "-r", str(DPI), "-gray", "-singlefile", drawn(stock, made, tmp_path),
        tmp_path / "page")  # fmt: skip
    dots = Dots((tmp_path / "page.pgm").read_bytes())
    assert dots.size_mm == pytest.approx(sheet.page, abs=TOLERANCE_MM)
    for label, (x, y) in zip((made[0], made[-1]), CORNERS[stock], strict=True):
        module = sheet.code / (len(label.code.matrix) + 8)
        right = x + sheet.label[0] - 2 - 4 * module
        left = right - sheet.code + 8 * module
        top = y + (sheet.label[1] - sheet.code) / 2 + 4 * module
        box = dots.dark_box(left - 2 * module, y, x + sheet.label[0], y + sheet.label[1])
        bottom = top + right - left
        assert box == pytest.approx((left, top, right, bottom), abs=TOLERANCE_MM)


class Dots:
    """A picture in the format PGM, in millimetres."""

    def __init__(self, data: bytes) -> None:
        _, width, height, _, self.dots = data.split(maxsplit=4)
        self.width, self.height = int(width), int(height)

    @property
    def size_mm(self) -> tuple[float, float]:
        return self.width * MM_OF_DOT, self.height * MM_OF_DOT

    def cut(self, left: float, top: float, width: float, height: float) -> bytes:
        """Return a part of the picture as a picture."""
        x, y = round(left / MM_OF_DOT), round(top / MM_OF_DOT)
        across, down = (
            min(round(width / MM_OF_DOT), self.width - x),
            min(round(height / MM_OF_DOT), self.height - y),
        )
        starts = [row * self.width + x for row in range(y, y + down)]
        rows = [self.dots[start : start + across] for start in starts]
        return b"P5 %d %d 255\n" % (across, down) + b"".join(rows)

    def dark_box(
        self, left: float, top: float, right: float, bottom: float
    ) -> tuple[float, float, float, float]:
        """Return the box around what is dark in a part of the picture."""
        columns = range(round(left / MM_OF_DOT), min(round(right / MM_OF_DOT), self.width))
        rows = range(round(top / MM_OF_DOT), min(round(bottom / MM_OF_DOT), self.height))
        dark = [(x, y) for y in rows for x in columns if self.dots[y * self.width + x] < 128]
        xs, ys = [x for x, _ in dark], [y for _, y in dark]
        low = (min(xs) * MM_OF_DOT, min(ys) * MM_OF_DOT)
        return (*low, (max(xs) + 1) * MM_OF_DOT, (max(ys) + 1) * MM_OF_DOT)


@pytest.mark.parametrize(
    "owner",
    ["Zoë Größler-Łuczak", "Ελευθέριος Ἀθηνᾶ", "Пётр Ґалаґан", "Nguyễn Thị Ő", "N°5 €"],
)
def test_letters_are_in_the_pdf_with_their_font(owner: str, tmp_path: Path) -> None:
    pdftotext, pdffonts = need("pdftotext", "pdffonts")
    made = labels(1, owner)
    assert missing_letters(made) == ""
    path = drawn("l7160", made, tmp_path)
    assert owner in " ".join(run(pdftotext, "-raw", path, "-").split())
    fonts = [line.split() for line in run(pdffonts, path).splitlines()[2:]]
    assert len(fonts) == 2
    assert {tuple(font[-5:-2]) for font in fonts} == {("yes", "yes", "yes")}  # embedded, subset


@pytest.mark.parametrize("stock", SHEETS)
def test_a_login_is_in_one_line_beside_the_code(stock: str, tmp_path: Path) -> None:
    (pdftotext,) = need("pdftotext")
    login = "pupil@pi-01.local"
    sheet = SHEETS[stock]
    (label,) = labels(1)
    path = drawn(stock, [replace(label, lines=(login, "Zoë"))], tmp_path)
    boxes = run(pdftotext, "-bbox", path, "-")
    (right,) = re.findall(rf'xMax="([\d.]+)" yMax="[\d.]+">{login}<', boxes)
    code = CORNERS[stock][0][0] + sheet.label[0] - 2 - sheet.code
    assert float(right) * 25.4 / 72 <= code


@pytest.mark.parametrize(
    ("owner", "missing"),
    [
        ("漢字 Ann", "字漢"),
        ("שרה", "הרש"),
        ("Ann 🍓", "🍓"),
        ("A\u0301\u0308n", "\u0308"),
        ("a\tb", "\t"),
    ],
)
def test_letters_that_the_fonts_lack_are_named(owner: str, missing: str) -> None:
    assert missing_letters(labels(1, owner)) == missing


@pytest.mark.parametrize("stock", SHEETS)
def test_what_has_no_room_is_visibly_cut(stock: str, tmp_path: Path) -> None:
    (pdftotext,) = need("pdftotext")
    owners = ("Ada", "Maximilian-Alexander von und zu Hohenstein " * 4, "W" * 300)
    nodes = [node(n, owner=owner) for n, owner in enumerate(owners, start=1)]
    nodes.append(node(4, hostname="n" * 63))
    classroom = make_classroom(tmp_path, *nodes)
    made = [label_of(classroom, each, n) for n, each in enumerate(nodes, start=1)]
    words = run(pdftotext, "-raw", drawn(stock, made, tmp_path), "-")
    assert words.count("…") >= 3
    assert "Ada\n" in words
    lines = [line for line in words.splitlines() if "W" in line]
    assert lines
    assert lines[-1].endswith("…")


def test_used_labels_are_left_out(tmp_path: Path) -> None:
    (pdftotext,) = need("pdftotext")
    path = drawn("l7160", labels(3), tmp_path, skip=19)
    first, second = run(pdftotext, path, "-").split("\f")[:2]
    assert [name for name in ("pi-01", "pi-02") if name in first] == ["pi-01", "pi-02"]
    assert "pi-03" in second


def test_the_same_class_gives_the_same_bytes() -> None:
    sheet = SHEETS["l7160"]
    assert draw_labels(labels(3), sheet, 0, 7) == draw_labels(labels(3), sheet, 0, 7)
