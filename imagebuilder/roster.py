"""The roster's short forms: ranges in a node's values, and tables as spreadsheets save them."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass
from typing import Any

from imagebuilder.findings import Finding, did_you_mean

MAX_NODES = 10_000
MAX_DIGITS = 18  # a serial number has 16
# A passphrase may hold brackets too, so only these keys are looked into.
RANGE_KEYS = ("hostname", "address", "serial", "mac", "seat", "owner")
# What people write there may be "Class [2]".
FREE_KEYS = ("seat", "owner")
COLUMNS = (*RANGE_KEYS, "profile", "labels", "image", "generation", "timezone", "keyboard")
_RANGE = re.compile(r"\[([0-9]+(?:-[0-9]+)?(?:,[0-9]+(?:-[0-9]+)?)*)\]")


class RangeError(ValueError):
    """A range that cannot be; the text is a fact for the user."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table: values by column, and the line it begins on."""

    line: int
    values: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Table:
    """The rows of a CSV file; a finding's loc is (line,)."""

    rows: tuple[Row, ...]
    findings: tuple[Finding, ...] = ()


def expand_range(text: str, *, lone: bool = True) -> tuple[str, ...]:
    """Write out `pi-[01-30]` and `pi-[1-3,7]`; leading zeros of the first number are kept.

    A text without a range gives itself; without `lone` `[7]` is none. Raises RangeError.
    """
    ranges = [found for found in _RANGE.finditer(text) if lone or not found[1].isdecimal()]
    if not ranges:
        return (text,)
    if len(ranges) > 1:
        raise RangeError(f"`{text}` has two ranges")
    found = ranges[0]
    head, tail = text[: found.start()], text[found.end() :]
    return tuple(f"{head}{number}{tail}" for number in _numbers(found[1]))


def _numbers(listing: str) -> list[str]:
    numbers: list[str] = []
    for part in listing.split(","):
        first, _, last = part.partition("-")
        last = last or first
        if max(len(first), len(last)) > MAX_DIGITS:
            raise RangeError(f"a range has a number of over {MAX_DIGITS} digits")
        if int(first) > int(last):
            raise RangeError(f"the range [{part}] runs backwards")
        if int(last) - int(first) + len(numbers) >= MAX_NODES:
            raise RangeError(f"the range [{part}] is over {MAX_NODES} nodes")
        numbers += [str(n).zfill(len(first)) for n in range(int(first), int(last) + 1)]
    return numbers


def expand_node(node: dict[str, Any]) -> list[dict[str, Any]]:
    """Write out a node whose values hold ranges, matched in step. Raises RangeError.

    A value without a range is the same for all; ranges of different lengths do not match.
    """
    spread = {
        key: expand_range(node[key], lone=key not in FREE_KEYS)
        for key in RANGE_KEYS
        if isinstance(node.get(key), str)
    }
    if isinstance(node.get("labels"), dict):
        spread |= {
            f"labels.{key}": expand_range(value, lone=False)
            for key, value in node["labels"].items()
            if isinstance(value, str)
        }
    sizes = {key: len(values) for key, values in spread.items() if len(values) > 1}
    if len(set(sizes.values())) > 1:
        counts = ", ".join(f"{key} has {size}" for key, size in sizes.items())
        raise RangeError(f"the ranges do not match in step: {counts}")
    if sizes and len(spread.get("hostname", ())) == 1:
        raise RangeError("several nodes would have one host name")
    count = next(iter(sizes.values()), 1)
    return [_pick(node, spread, index) for index in range(count)]


def _pick(node: dict[str, Any], spread: dict[str, tuple[str, ...]], index: int) -> dict[str, Any]:
    chosen = {key: values[index if len(values) > 1 else 0] for key, values in spread.items()}
    labels = {k.removeprefix("labels."): v for k, v in chosen.items() if k.startswith("labels.")}
    plain = {key: value for key, value in chosen.items() if not key.startswith("labels.")}
    return {**node, **plain, **({"labels": {**node["labels"], **labels}} if labels else {})}


# ---- tables


def decode_table(raw: bytes) -> str:
    """Decode what spreadsheets write: UTF-8 with or without BOM, UTF-16 with BOM, Windows-1252."""
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        return raw.decode("utf-16", errors="replace")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return raw.decode("cp1252", errors="replace")


def parse_table(text: str) -> Table:
    """Read a CSV with a header line; `;`, `,` or tab apart, quoted as spreadsheets do.

    Empty rows and columns are passed over; `labels` holds `k=v` pairs, and a column `label.k`
    is one label.
    """
    separator = re.match(r"sep=(.)\r?\n", text)
    skipped = 1 if separator else 0
    body = text[separator.end() :] if separator else text
    delimiter = separator[1] if separator else _delimiter(body)
    lines, faults = _records(body, delimiter, skipped)
    if faults:
        return Table((), faults)
    if not lines:
        return Table((), (Finding((1,), "the table is empty", "first line: hostname,address"),))
    line, head = lines[0]
    names = [_column(cell) for cell in head]
    findings = tuple(_check_head(line, names))
    if findings:
        return Table((), findings)
    return _rows(names, lines[1:])


def _records(
    body: str, delimiter: str, skipped: int
) -> tuple[list[tuple[int, list[str]]], tuple[Finding, ...]]:
    reader = csv.reader(io.StringIO(body, newline=""), delimiter=delimiter, strict=True)
    records, line = [], skipped + 1
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                records.append((line, [cell.strip() for cell in cells]))
            line = skipped + reader.line_num + 1
    except csv.Error as error:
        hint = 'close every `"`, and write `""` for one within a quoted cell'
        return [], (Finding((line,), f"not a CSV table: {error}", hint),)
    return records, ()


def _delimiter(body: str) -> str:
    head = re.sub(r'"[^"]*"', "", next((ln for ln in body.splitlines() if ln.strip()), ""))
    return max(",;\t", key=head.count)


def _column(cell: str) -> str:
    name = re.sub(r"[\s_-]+", "_", cell.strip())
    return name if name.lower().startswith("label.") else name.lower()


def _check_head(line: int, names: list[str]) -> list[Finding]:
    findings = []
    for name in dict.fromkeys(filter(None, names)):
        if names.count(name) > 1:
            findings.append(Finding((line,), f"column `{name}` stands twice"))
        if name not in COLUMNS and not name.lower().startswith("label."):
            findings.append(
                Finding((line,), f"unknown column `{name}`", did_you_mean(name, COLUMNS))
            )
    if "hostname" not in names:
        findings.append(
            Finding((line,), "no column `hostname`", "the first line names the columns")
        )
    return findings


def _rows(names: list[str], lines: list[tuple[int, list[str]]]) -> Table:
    rows, findings = [], []
    for line, cells in lines:
        if any(cells[len(names) :]):
            findings.append(Finding((line,), f"{len(cells)} cells under {len(names)} columns"))
        values = {n: c for n, c in zip(names, cells, strict=False) if n and c}
        try:
            rows.append(Row(line, _with_labels(values)))
        except ValueError:
            findings.append(
                Finding((line,), "labels are not k=v pairs", "as `row=3 side=left` or `row=3;a=b`")
            )
    return Table(tuple(rows), tuple(findings))


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
