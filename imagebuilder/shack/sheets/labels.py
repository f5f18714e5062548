"""Print labels for cards and cases, as HTML in real size or as PDF."""

from __future__ import annotations

import html
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from imagebuilder.errors import InputError, WriteError
from imagebuilder.files import write_error, write_file, write_text
from imagebuilder.progress import SILENT
from imagebuilder.shack.sheets.label_content import LONG_NAME, label_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from imagebuilder.model import Classroom
    from imagebuilder.progress import Reporter
    from imagebuilder.shack.sheets.label_content import Label, LabelSheet


_MOST_SHOWN = 8


def write_labels(
    classroom: Classroom,
    path: Path,
    sheet: LabelSheet,
    skip: int = 0,
    *,
    search_path: str,
    epoch: int = 0,
    reporter: Reporter = SILENT,
) -> None:
    """Write the sheets as HTML or PDF, by the suffix; `skip` labels are used already.

    Letters that our fonts lack are printed by a browser in `search_path`. Raise InputError for
    another suffix, WriteError if the folder is missing.
    """
    suffix = path.suffix.lower()
    if suffix not in {".pdf", ".html", ".htm"}:
        raise InputError(f"{path} is neither HTML nor PDF", "use -o labels.html or -o labels.pdf")
    if not path.parent.is_dir():
        raise WriteError(f"cannot write {path}: no folder {path.parent}", "make the folder first")
    skip %= sheet.count
    if suffix != ".pdf":
        write_text(path, render_labels(classroom, sheet, skip))
        return
    labels = _labels(classroom)
    from imagebuilder.shack.sheets.labels_pdf import draw_labels, missing_letters  # noqa: PLC0415 - slow

    if missing := missing_letters(labels):
        reporter.note(
            f"the fonts of labels have no {missing[:_MOST_SHOWN]}: printing with a browser"
        )
        write_labels_pdf(render_labels(classroom, sheet, skip), path, search_path, reporter)
        return
    _write(path, draw_labels(labels, sheet, skip, epoch))


def _labels(classroom: Classroom) -> list[Label]:
    return [label_of(classroom, node, n) for n, node in enumerate(classroom.nodes, start=1)]


def _write(path: Path, data: bytes) -> None:
    try:
        write_file(path, data)
    except OSError as error:
        raise write_error(path, error) from error


def render_labels(classroom: Classroom, paper: LabelSheet, skip: int = 0) -> str:
    """Return the sheets as HTML; `skip` leaves out labels that are used already."""
    cells: list[str] = ['<div class="label empty"></div>'] * skip
    cells += [_label(label, paper) for label in _labels(classroom)]
    sheets = "".join(_sheet(cells[i : i + paper.count]) for i in range(0, len(cells), paper.count))
    title = html.escape(f"{classroom.name}: labels")
    head = f'<meta charset="utf-8">\n<title>{title}</title>\n<style>{_style(paper)}</style>'
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n{head}\n</head>\n<body>\n'
        f'<p class="how">{_instructions(classroom, paper)}</p>\n{sheets}</body>\n</html>\n'
    )


def _sheet(cells: Sequence[str]) -> str:
    return f'<section class="sheet">\n{"".join(f"{cell}{chr(10)}" for cell in cells)}</section>\n'


def _label(label: Label, paper: LabelSheet) -> str:
    picture = label.code.svg_inline(border=4, omitsize=True, svgclass=None, lineclass=None)
    lines = [f'<div class="host">{html.escape(label.host)}</div>']
    lines += [f"<div>{html.escape(text)}</div>" for text in label.lines]
    lines.append(f'<div class="small">{html.escape(label.small)}</div>')
    size = " long" if len(label.host) > LONG_NAME else ""
    number = f'<div class="number">{label.number}</div>' if paper.numbered else ""
    return (
        f'<div class="label{size}">{number}'
        f'<div class="words">{"".join(lines)}</div><div class="code">{picture}</div></div>'
    )


def _instructions(classroom: Classroom, paper: LabelSheet) -> str:
    count = len(classroom.nodes)
    return html.escape(
        f"{count} labels for {paper.name}, {paper.columns} by {paper.rows} on a page. "
        "Print at 100 %, without margins, headers and footers; "
        "this line is not printed."
    )


def _style(paper: LabelSheet) -> str:
    width, height = paper.page
    top, left = paper.margin
    label_width, label_height = paper.label
    code = paper.code
    return f"""
@page {{ size: {width}mm {height}mm; margin: 0; }}
* {{ box-sizing: border-box; }}
body {{ margin: 0; font-family: "DejaVu Sans", Arial, sans-serif; color: #000; }}
.how {{ margin: 4mm; font-size: 10pt; color: #444; }}
.sheet {{ width: {width}mm; height: {height}mm; padding: {top}mm 0 0 {left}mm; overflow: hidden;
  display: grid; grid-template-columns: repeat({paper.columns}, {label_width}mm);
  grid-auto-rows: {label_height}mm; column-gap: {paper.gap}mm; align-content: start;
  break-after: page; }}
.sheet:last-child {{ break-after: auto; }}
.label {{ display: flex; align-items: center; gap: 1.5mm; padding: 1.5mm 2mm; overflow: hidden; }}
.number {{ flex: none; min-width: 8mm; font-size: 17pt; font-weight: bold; text-align: center; }}
.words {{ flex: 1; min-width: 0; font-size: 7.5pt; line-height: 1.25; }}
.words div {{ overflow: hidden; overflow-wrap: anywhere; text-overflow: ellipsis;
  display: -webkit-box; -webkit-box-orient: vertical; -webkit-line-clamp: 2; line-clamp: 2; }}
.host {{ font-size: 11pt; font-weight: bold; }}
.long .host {{ font-size: 7pt; line-height: 1.15; -webkit-line-clamp: 3; line-clamp: 3; }}
.small {{ color: #444; font-size: 6.5pt; }}
.code {{ flex: none; width: {code}mm; height: {code}mm; }}
.code svg {{ display: block; width: 100%; height: 100%; shape-rendering: crispEdges; }}
@media screen {{
  .sheet {{ margin: 4mm; box-shadow: 0 0 2mm #999; }}
  .label {{ outline: 0.2mm dashed #ccc; }}
}}
@media print {{ .how {{ display: none; }} }}
"""


PDF_SECONDS = 120
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
_BY_HAND = "use -o labels.html and print it from a browser"


# ---- PDF


def write_labels_pdf(page: str, path: Path, search_path: str, reporter: Reporter = SILENT) -> None:
    """Write the label sheet as PDF with the first program in `search_path` that succeeds.

    Raise InputError if there is none, WriteError if all fail.
    """
    programs = [shutil.which(name, path=search_path) for name in (*BROWSERS, "weasyprint")]
    printers = [Path(program) for program in programs if program]
    if not printers:
        raise InputError(
            "no program found that prints these letters to PDF",
            f"install chromium or weasyprint, or {_BY_HAND}",
        )
    try:
        # Not in /tmp or a hidden folder, which Chromium from snap cannot read.
        with tempfile.TemporaryDirectory(
            prefix="rpi-image-labels-", dir=path.parent.absolute(), ignore_cleanup_errors=True
        ) as folder:
            write_file(path, _print_pdf(page, Path(folder), printers, reporter))
    except OSError as error:
        raise write_error(path, error) from error


def _print_pdf(page: str, folder: Path, printers: Sequence[Path], reporter: Reporter) -> bytes:
    source, made = folder / "labels.html", folder / "labels.pdf"
    source.write_text(page, encoding="utf-8")
    for printer in printers:
        reporter.note(f"printing to PDF with {printer.name}")
        if _succeeds(_pdf_command(printer, source, made)) and made.is_file():
            return made.read_bytes()
    names = ", ".join(printer.name for printer in printers)
    raise WriteError(f"{names} failed to make a PDF", _BY_HAND)


def _succeeds(command: Sequence[str]) -> bool:
    try:
        done = subprocess.run(command, capture_output=True, timeout=PDF_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _pdf_command(printer: Path, source: Path, made: Path) -> list[str]:
    if printer.name not in BROWSERS:
        return [str(printer), str(source), str(made)]
    # Chromium does not run as root with its sandbox; the page is our own.
    root = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    browser = f"--user-data-dir={made.parent / 'browser'}"
    quiet = ["--headless", "--disable-gpu", "--no-pdf-header-footer"]
    return [str(printer), *root, *quiet, browser, f"--print-to-pdf={made}", source.as_uri()]
