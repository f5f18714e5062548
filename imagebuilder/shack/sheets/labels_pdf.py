"""Draw sheets of labels as PDF in real size, with embedded fonts; all lengths in millimetres."""

from __future__ import annotations

import unicodedata
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from fpdf import FPDF  # noqa: TID251 - the only module that draws PDF
from fpdf.enums import MethodReturnValue  # noqa: TID251 - as above
from fpdf.fonts import TTFFont  # noqa: TID251 - as above
from fpdf.prefs import ViewerPreferences  # noqa: TID251 - as above

from imagebuilder.shack.sheets.label_content import LONG_NAME

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager

    from imagebuilder.shack.sheets.label_content import Label, LabelSheet

_FONT = "Labels"
_FOLDER = Path(__file__).with_name("fonts")
_STYLES = {"": "DejaVuSans.ttf", "B": "DejaVuSans-Bold.ttf"}
_MM_OF_POINT = 25.4 / 72
_LINE = 1.25
_PADDING = 2.0
_GAP = 1.5
_NUMBER_MM = 8.0
_NUMBER_POINTS = 17.0
_QUIET_MODULES = 4  # ISO/IEC 18004, 6.3.8: the margin that a reader needs
_MOST_LINES = 2
_LEAST_SCALE = 0.7


@dataclass(frozen=True, slots=True)
class _Line:
    text: str
    points: float
    style: str = ""

    @property
    def height(self) -> float:
        return self.points * _MM_OF_POINT * _LINE


def draw_labels(labels: Sequence[Label], sheet: LabelSheet, skip: int, epoch: int) -> bytes:
    """Return the PDF; the first `skip` labels are used already. The same input gives its bytes."""
    with _document(sheet) as pdf:
        pdf.set_creation_date(datetime.fromtimestamp(epoch, UTC))
        for place, label in enumerate(labels, start=skip):
            index = place % sheet.count
            if index == 0 or not pdf.page:
                pdf.add_page()
            row, column = divmod(index, sheet.columns)
            top, left = sheet.margin
            x = left + column * (sheet.label[0] + sheet.gap)
            _draw(pdf, label, sheet, x, top + row * sheet.label[1])
        return bytes(pdf.output())


def missing_letters(labels: Sequence[Label]) -> str:
    """Return the letters of labels that the fonts do not have, each once and sorted."""
    with _with_fonts(FPDF()) as pdf:
        fonts = [font for font in pdf.fonts.values() if isinstance(font, TTFFont)]
        known = set.intersection(*(set(font.cmap) for font in fonts))
    used = {letter for label in labels for text in label.texts for letter in _composed(text)}
    return "".join(sorted(letter for letter in used if ord(letter) not in known))


def _composed(text: str) -> str:
    """Return the text with one letter for a letter and its accent, where Unicode has one."""
    return unicodedata.normalize("NFC", text)


def _document(sheet: LabelSheet) -> AbstractContextManager[FPDF]:
    pdf = FPDF(unit="mm", format=sheet.page)
    pdf.set_auto_page_break(auto=False)
    pdf.set_margin(0)
    pdf.c_margin = 0  # the space that a cell leaves beside its text
    pdf.set_title("labels")
    pdf.set_producer("rpi-image")
    # Otherwise a reader fits the page to its printer, and no label is where it should be.
    pdf.viewer_preferences = ViewerPreferences(print_scaling="None")
    return _with_fonts(pdf)


@contextmanager
def _with_fonts(pdf: FPDF) -> Iterator[FPDF]:
    """Add the fonts, and close their files at the end, which FPDF leaves open."""
    for style, file in _STYLES.items():
        pdf.add_font(_FONT, style, _FOLDER / file)
    try:
        yield pdf
    finally:
        for font in pdf.fonts.values():
            if isinstance(font, TTFFont):
                font.ttfont.close()


def _draw(pdf: FPDF, label: Label, sheet: LabelSheet, x: float, y: float) -> None:
    width, height = sheet.label
    number = _NUMBER_MM + _GAP if sheet.numbered else 0
    if sheet.numbered:
        _draw_number(pdf, str(label.number), x + _PADDING, y + height / 2)
    code = sheet.code
    room = width - 2 * _PADDING - number - _GAP - code
    _draw_words(pdf, label, x + _PADDING + number, y, (room, height))
    _draw_code(pdf, label, x + width - _PADDING - code, y + (height - code) / 2, code)


def _draw_number(pdf: FPDF, text: str, x: float, middle: float) -> None:
    pdf.set_font(_FONT, "B", _NUMBER_POINTS)
    points = _NUMBER_POINTS * min(1, _NUMBER_MM / pdf.get_string_width(text))
    pdf.set_font(_FONT, "B", points)
    left = x + (_NUMBER_MM - pdf.get_string_width(text)) / 2
    pdf.text(left, middle + points * _MM_OF_POINT * 0.36, text)


def _draw_words(pdf: FPDF, label: Label, x: float, y: float, room: tuple[float, float]) -> None:
    lines = next(
        lines
        for most in (_MOST_LINES, 1)
        if (lines := list(_fitted(pdf, label, room[0], most))) and _fits(lines, room[1], most)
    )
    place = y + (room[1] - sum(line.height for line in lines)) / 2
    for line in lines:
        pdf.set_font(_FONT, line.style, line.points)
        pdf.text(x, place + line.height * 0.76, line.text)
        place += line.height


def _fits(lines: Sequence[_Line], height: float, most: int) -> bool:
    return most == 1 or sum(line.height for line in lines) <= height - _GAP


def _fitted(pdf: FPDF, label: Label, width: float, most: int) -> Iterator[_Line]:
    """Yield the lines of a label; each text has at most `most`, and what is cut ends with `…`."""
    is_long = len(label.host) > LONG_NAME
    host = _Line(label.host, 7.0 if is_long else 11.0, "B")
    lines = [_Line(text, 7.5) for text in label.lines]
    for whole in [host, *lines, _Line(label.small, 6.5)]:
        text = whole if whole is host else _narrowed(pdf, whole, width)
        pdf.set_font(_FONT, text.style, text.points)
        broken = _broken(pdf, _composed(text.text), width)
        limit = most + (text is host and is_long and most > 1)
        kept = broken[:limit]
        if len(broken) > limit:
            kept[-1] = _cut(pdf, kept[-1], width)
        yield from (_Line(line, text.points, text.style) for line in kept)


def _narrowed(pdf: FPDF, line: _Line, width: float) -> _Line:
    """Return a line in smaller letters if its longest word, such as a login, would be broken."""
    pdf.set_font(_FONT, line.style, line.points)
    longest = max(map(pdf.get_string_width, line.text.split()), default=0)
    is_near = width < longest <= width / _LEAST_SCALE
    return replace(line, points=line.points * width / longest) if is_near else line


def _broken(pdf: FPDF, text: str, width: float) -> list[str]:
    """Return the lines of a text: broken between words, a word that is too long within."""
    lines = pdf.multi_cell(
        width, text=text, dry_run=True, output=MethodReturnValue.LINES, align="L"
    )
    return [str(line) for line in lines] if isinstance(lines, list) else [text]


def _cut(pdf: FPDF, text: str, width: float) -> str:
    while text and pdf.get_string_width(f"{text}…") > width:
        text = text[:-1]
    return f"{text.rstrip()}…"


def _draw_code(pdf: FPDF, label: Label, x: float, y: float, size: float) -> None:
    """Draw a QR code as bars, one for each run of dark modules in a row."""
    matrix = [list(map(bool, row)) for row in label.code.matrix]
    module = size / (len(matrix) + 2 * _QUIET_MODULES)
    pdf.set_fill_color(0)
    for number, row in enumerate(matrix):
        column = 0
        for dark, run in groupby(row):
            length = len(list(run))
            if dark:
                left = x + (column + _QUIET_MODULES) * module
                top = y + (number + _QUIET_MODULES) * module
                pdf.rect(left, top, length * module, module, style="F")
            column += length
