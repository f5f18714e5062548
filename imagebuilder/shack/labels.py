"""Print labels for cards and cases, as HTML in real size or as PDF."""

from __future__ import annotations

import html
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import segno

from imagebuilder.errors import InputError, WriteError
from imagebuilder.files import make_folder, write_file, write_text
from imagebuilder.model import url_host
from imagebuilder.plan.reach import login_name, reachable_name
from imagebuilder.progress import SILENT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from imagebuilder.model import Classroom, NodeSettings
    from imagebuilder.progress import Reporter


@dataclass(frozen=True, slots=True)
class LabelSheet:
    """A sheet of labels; all lengths in millimetres."""

    name: str
    page: tuple[float, float]
    margin: tuple[float, float]
    label: tuple[float, float]
    gap: float
    columns: int
    rows: int
    example: str

    @property
    def count(self) -> int:
        """The number of labels on a sheet."""
        return self.columns * self.rows


LONG_NAME = 12
SHEETS = {
    "a4": LabelSheet("A4", (210, 297), (15.15, 7.25), (63.5, 38.1), 2.5, 3, 7, "Avery L7160"),
    "letter": LabelSheet(
        "letter", (215.9, 279.4), (12.7, 4.8), (66.7, 25.4), 3.1, 3, 10, "Avery 5160"
    ),
}


def write_labels(
    classroom: Classroom,
    path: Path,
    paper: LabelSheet,
    skip: int = 0,
    *,
    search_path: str,
    reporter: Reporter = SILENT,
) -> None:
    """Write the sheets as HTML or PDF, by the suffix; `skip` labels are used already.

    The PDF is made by a program in `search_path`. Raise InputError for another suffix.
    """
    page = render_labels(classroom, paper, skip % paper.count)
    suffix = path.suffix.lower()
    if suffix == ".pdf":
        write_labels_pdf(page, path, search_path, reporter)
    elif suffix in (".html", ".htm"):
        write_text(path, page)
    else:
        raise InputError(f"{path} is neither HTML nor PDF", "use -o labels.html or -o labels.pdf")


def render_labels(classroom: Classroom, paper: LabelSheet, skip: int = 0) -> str:
    """Return the sheets as HTML; `skip` leaves out labels that are used already."""
    cells: list[str] = ['<div class="label empty"></div>'] * skip
    cells += [_label(classroom, node, n) for n, node in enumerate(classroom.nodes, start=1)]
    sheets = "".join(_sheet(cells[i : i + paper.count]) for i in range(0, len(cells), paper.count))
    title = html.escape(f"{classroom.name}: labels")
    head = f'<meta charset="utf-8">\n<title>{title}</title>\n<style>{_style(paper)}</style>'
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n{head}\n</head>\n<body>\n'
        f'<p class="how">{_instructions(classroom, paper)}</p>\n{sheets}</body>\n</html>\n'
    )


def link_of(classroom: Classroom, node: NodeSettings) -> str:
    """Return the URL for the QR code: the node on the class page, else an ssh:// URL."""
    shack = classroom.shack
    if shack and "web" in shack.services:
        return f"http://{shack.url_host}:{shack.web_port}/#{node.hostname}"
    login = login_name(node)
    return f"ssh://{login}{'@' * bool(login)}{url_host(reachable_name(node))}"


def _sheet(cells: Sequence[str]) -> str:
    return f'<section class="sheet">\n{"".join(f"{cell}{chr(10)}" for cell in cells)}</section>\n'


def _label(classroom: Classroom, node: NodeSettings, number: int) -> str:
    code = segno.make(link_of(classroom, node), error="m", micro=False)
    picture = code.svg_inline(border=4, omitsize=True, svgclass=None, lineclass=None)
    lines = [f'<div class="host">{html.escape(node.hostname)}</div>']
    login = login_name(node)
    where = f"{login}{'@' * bool(login)}{reachable_name(node)}"
    lines.append(f"<div>{html.escape(where)}</div>")
    seat = f"seat {node.seat}" if node.seat not in ("", str(number)) else ""
    lines += [f"<div>{html.escape(text)}</div>" for text in (node.owner, seat) if text]
    lines.append(f'<div class="small">{html.escape(f"{classroom.name} · {node.profile}")}</div>')
    size = " long" if len(node.hostname) > LONG_NAME else ""
    return (
        f'<div class="label{size}"><div class="number">{number}</div>'
        f'<div class="words">{"".join(lines)}</div><div class="code">{picture}</div></div>'
    )


def _instructions(classroom: Classroom, paper: LabelSheet) -> str:
    count = len(classroom.nodes)
    return html.escape(
        f"{count} labels for {paper.name} sheets of {paper.columns} by {paper.rows} "
        f"({paper.example}). Print at 100 %, without margins, headers and footers; "
        "this line is not printed."
    )


def _style(paper: LabelSheet) -> str:
    width, height = paper.page
    top, left = paper.margin
    label_width, label_height = paper.label
    code = min(label_height - 3, 26)
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
            "no program to make PDF found",
            f"install chromium or weasyprint, or {_BY_HAND}",
        )
    try:
        make_folder(path.parent)
        # Not in /tmp or a hidden folder, which Chromium from snap cannot read.
        with tempfile.TemporaryDirectory(
            prefix="rpi-image-labels-", dir=path.parent.absolute(), ignore_cleanup_errors=True
        ) as folder:
            write_file(path, _print_pdf(page, Path(folder), printers, reporter))
    except OSError as error:
        raise WriteError(
            f"cannot write {path}: {error.strerror}", "check its permissions"
        ) from error


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
