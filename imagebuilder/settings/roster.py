"""Expand ranges in the values of a node, and read tables saved by spreadsheets."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from imagebuilder.settings.schema.diagnostics import Diagnostic, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Sized

# Budgets: nodes of a class, over all ranges and tables together.
MAX_NODES = 10_000
MAX_DIGITS = 18  # a serial number has 16
# Values of one node that have a range, labels too.
MOST_RANGES = 32
# Bytes of a table, its columns, and letters of a cell.
MOST_TABLE_BYTES = 8 << 20
MOST_COLUMNS = 256
MOST_CELL_LETTERS = 64 << 10

# Ranges are expanded in these keys only, because a passphrase may contain brackets, too.
RANGE_KEYS = ("hostname", "address", "serial", "mac", "seat", "owner")

# A single number is not a range in these keys: the text may be "Class [2]".
FREE_KEYS = ("seat", "owner")
COLUMNS = (*RANGE_KEYS, "profile", "labels", "image", "generation", "timezone", "keyboard")
_RANGE = re.compile(r"\[([0-9]+(?:-[0-9]+)?(?:,[0-9]+(?:-[0-9]+)?)*)\]")


class RangeError(ValueError):
    """A range is not valid; the text is the message, `hint` is what to write."""

    def __init__(self, fact: str, hint: str = "for example `pi-[01-30]`") -> None:
        super().__init__(fact)
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table: values by column, and the line it begins on."""

    line: int
    values: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Table:
    """The rows of a CSV file; the path of a diagnostic is (line,)."""

    rows: tuple[Row, ...]
    diagnostics: tuple[Diagnostic, ...] = ()


def expand_range(text: str, *, lone: bool = True) -> tuple[str, ...]:
    """Return the texts of `pi-[01-30]` or `pi-[1-3,7]`; keep leading zeros of the first number.

    A text without a range is returned alone; without `lone`, `[7]` is not a range. Raise
    RangeError if the range is not valid.
    """
    ranges = [found for found in _RANGE.finditer(text) if lone or not found[1].isdecimal()]
    if not ranges:
        return (text,)
    if len(ranges) > 1:
        raise RangeError(f"`{text}` has more than one range")
    found = ranges[0]
    head, tail = text[: found.start()], text[found.end() :]
    return tuple(f"{head}{number}{tail}" for number in _numbers(found[1]))


def _numbers(listing: str) -> list[str]:
    numbers: list[str] = []
    for part in listing.split(","):
        first, _, last = part.partition("-")
        last = last or first
        if max(len(first), len(last)) > MAX_DIGITS:
            raise RangeError(f"a range has a number with more than {MAX_DIGITS} digits")
        if int(first) > int(last):
            raise RangeError(f"range [{part}] ends before it begins")
        if int(last) - int(first) + len(numbers) >= MAX_NODES:
            raise RangeError(f"range [{part}] has more than {MAX_NODES} nodes")
        numbers += [str(n).zfill(len(first)) for n in range(int(first), int(last) + 1)]
    return numbers


def expand_node(node: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the nodes of a node with ranges; the n-th has the n-th value of each range.

    A value without a range is the same for all. Raise RangeError if the lengths differ.
    """
    spread = _spread(node)
    sizes = _sizes(spread)
    if len(set(sizes.values())) > 1:
        counts = ", ".join(f"{key} has {size}" for key, size in sizes.items())
        hint = "use ranges of the same length"
        raise RangeError(f"the ranges of the node have different lengths: {counts}", hint)
    if sizes and len(spread.get("hostname", ())) == 1:
        raise RangeError("several nodes would have the same hostname", "use a range in `hostname`")
    count = next(iter(sizes.values()), 1)
    return [_pick(node, spread, index) for index in range(count)]


def expand_in_part(node: dict[str, Any]) -> list[dict[str, Any]]:
    """Return as many nodes as possible of one that `expand_node` rejects, to check its values."""
    try:
        spread = _spread(node)
    except RangeError:
        return []
    count = min(_sizes(spread).values()) if len(spread.get("hostname", ())) > 1 else 1
    return [_pick(node, spread, index) for index in range(count)]


def _spread(node: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    labels = node["labels"] if isinstance(node.get("labels"), dict) else {}
    texts = [*(node.get(key) for key in RANGE_KEYS), *labels.values()]
    if sum(bool(_RANGE.search(text)) for text in texts if isinstance(text, str)) > MOST_RANGES:
        raise RangeError(f"the node has more than {MOST_RANGES} ranges", "use a table")
    spread = {
        key: expand_range(node[key], lone=key not in FREE_KEYS)
        for key in RANGE_KEYS
        if isinstance(node.get(key), str)
    }
    return spread | {
        f"labels.{key}": expand_range(value, lone=False)
        for key, value in labels.items()
        if isinstance(value, str)
    }


def _sizes(spread: dict[str, tuple[str, ...]]) -> dict[str, int]:
    return {key: len(values) for key, values in spread.items() if len(values) > 1}


def _pick(node: dict[str, Any], spread: dict[str, tuple[str, ...]], index: int) -> dict[str, Any]:
    chosen = {key: values[index if len(values) > 1 else 0] for key, values in spread.items()}
    labels = {k.removeprefix("labels."): v for k, v in chosen.items() if k.startswith("labels.")}
    plain = {key: value for key, value in chosen.items() if not key.startswith("labels.")}
    return {**node, **plain, **({"labels": {**node["labels"], **labels}} if labels else {})}


# ---- tables


def decode_table(raw: bytes) -> str:
    """Decode the text of a spreadsheet: UTF-8 or UTF-16, with or without BOM, or Windows-1252."""
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        return raw.decode("utf-16", errors="replace")
    # The first character is ASCII (a column name), so one of its two bytes is 0 in UTF-16.
    if raw[1:2] == b"\0" != raw[:1]:
        return raw.decode("utf-16-le", errors="replace")
    if raw[:1] == b"\0" != raw[1:2]:
        return raw.decode("utf-16-be", errors="replace")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return raw.decode("cp1252", errors="replace")


def parse_table(text: str) -> Table:
    """Parse CSV with a header line, separated by `;`, `,` or tab (RFC 4180 quoting).

    Ignore empty rows and columns, and a title above the header. `labels` holds `k=v` pairs, a
    column `label.k` is one label. `sep=;` in the first line is Excel's way to set the separator.
    """
    if "\0" in text:
        return Table(
            (), (Diagnostic((1,), "the table is not a text file", "save it as CSV UTF-8"),)
        )
    separator = re.match(r"sep=(.)\r?\n", text)
    skipped = 1 if separator else 0
    body = text[separator.end() :] if separator else text
    delimiter = separator[1] if separator else _delimiter(body)
    lines, faults = _records(body, delimiter, skipped)
    if faults:
        return Table((), faults)
    if not lines:
        return Table(
            (),
            (Diagnostic((1,), "the table is empty", "begin with a line like `hostname,address`"),),
        )
    return _below_head(lines[1:] if _is_titled(lines) else lines)


def _is_titled(lines: list[tuple[int, list[str]]]) -> bool:
    """Return whether there is a title above the header, as Apple Numbers writes it."""
    cells = [[_column(cell) for cell in line if cell] for _, line in lines[:2]]
    return len(cells[0]) == 1 and cells[0] != ["hostname"] and "hostname" in cells[-1]


def _below_head(lines: list[tuple[int, list[str]]]) -> Table:
    line, head = lines[0]
    names = [_column(cell) for cell in head]
    diagnostics = tuple(_check_head(line, names))
    if "hostname" not in names:
        return Table((), diagnostics)
    # Check the rows with the known columns only.
    kept = [name if _known(name) and name not in names[:i] else "" for i, name in enumerate(names)]
    table = _rows(kept, lines[1:])
    return Table(table.rows, diagnostics + table.diagnostics)


def _records(
    body: str, delimiter: str, skipped: int
) -> tuple[list[tuple[int, list[str]]], tuple[Diagnostic, ...]]:
    csv.field_size_limit(MOST_CELL_LETTERS)
    reader = csv.reader(io.StringIO(body, newline=""), delimiter=delimiter, strict=True)
    records: list[tuple[int, list[str]]] = []
    line = skipped + 1
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                if excess := _excess(records, cells):
                    return [], (Diagnostic((line,), excess, "check if it is the right file"),)
                records.append((line, [cell.strip() for cell in cells]))
            line = skipped + reader.line_num + 1
    except csv.Error as error:
        hint = 'close every `"`, and write `""` for a `"` inside a quoted cell'
        return [], (Diagnostic((line,), f"not a CSV table: {error}", hint),)
    return records, ()


def _excess(records: Sized, cells: Sized) -> str:
    """Return what is too large for a class; empty if nothing is."""
    # Besides the nodes there are the line of names and, sometimes, a title.
    if len(records) >= MAX_NODES + 2:
        return f"the table has more than {MAX_NODES} nodes"
    return f"more than {MOST_COLUMNS} columns" if len(cells) > MOST_COLUMNS else ""


def _delimiter(body: str) -> str:
    lines = [line for line in body.splitlines() if line.strip()][:2] or [""]
    head = next((line for line in lines if "hostname" in line.lower()), lines[0])
    return max(",;\t", key=re.sub(r'"[^"]*"', "", head).count)


def _column(cell: str) -> str:
    name = re.sub(r"[\s_-]+", "_", cell.strip())
    return name if name.lower().startswith("label.") else name.lower()


def _known(name: str) -> bool:
    return name in COLUMNS or name.lower().startswith("label.")


def _check_head(line: int, names: list[str]) -> list[Diagnostic]:
    diagnostics = []
    for name in dict.fromkeys(filter(None, names)):
        if names.count(name) > 1:
            diagnostics.append(Diagnostic((line,), f"column `{name}` occurs twice"))
        if not _known(name):
            diagnostics.append(
                Diagnostic((line,), f"unknown column `{name}`", did_you_mean(name, COLUMNS))
            )
    if "hostname" not in names:
        diagnostics.append(
            Diagnostic((line,), "no column `hostname`", "add the column names as the first line")
        )
    return diagnostics


def _rows(names: list[str], lines: list[tuple[int, list[str]]]) -> Table:
    rows, diagnostics = [], []
    for line, cells in lines:
        if any(cells[len(names) :]):
            diagnostics.append(
                Diagnostic((line,), f"{len(cells)} cells in a row, but {len(names)} columns")
            )
        values = {n: c for n, c in zip(names, cells, strict=False) if n and c}
        try:
            made = _with_labels(values)
        except ValueError:
            hint = "for example `row=3 side=left` or `row=3;a=b`"
            diagnostics.append(Diagnostic((line,), "labels are not k=v pairs", hint))
            made = _with_labels({**values, "labels": ""})
        rows.append(Row(line, made))
    return Table(tuple(rows), tuple(diagnostics))


def _with_labels(values: dict[str, str]) -> dict[str, Any]:
    pairs = re.split(r"[\s;,]+", values.get("labels", "").strip())
    labels = dict(_pair(pair) for pair in pairs if pair)
    labels |= {k[6:]: v for k, v in values.items() if k.lower().startswith("label.")}
    plain = {
        k: v for k, v in values.items() if k != "labels" and not k.lower().startswith("label.")
    }
    return {**plain, **({"labels": labels} if labels else {})}


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise ValueError(text)
    return key, value
