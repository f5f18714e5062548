"""Ranges written out, and tables as spreadsheets save them."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagebuilder.settings.roster import (
    RangeError,
    decode_table,
    expand_in_part,
    expand_node,
    expand_range,
    parse_table,
)
from tests.lib.tools import need, run

ROWS = [
    {"hostname": "pi-01", "owner": "Zoë Müller"},
    {"hostname": "pi-02", "owner": 'Ann "A" O\'Hara; jr, III'},
]


@given(st.integers(0, 120), st.integers(0, 40), st.integers(1, 4))
def test_a_range_is_what_counting_gives(first: int, more: int, width: int) -> None:
    start = str(first).zfill(width)
    expected = [f"pi-{str(n).zfill(len(start))}" for n in range(first, first + more + 1)]
    assert list(expand_range(f"pi-[{start}-{first + more}]")) == expected


@pytest.mark.parametrize(("ours", "bash"), [("[01-30]", "{01..30}"), ("[8-12]", "{8..12}")])
def test_ranges_agree_with_bash(ours: str, bash: str) -> None:
    need("bash")
    expected = run("bash", "-c", f"echo a-{bash}-z").split()
    assert list(expand_range(f"a-{ours}-z")) == expected


def test_lists_within_a_range() -> None:
    assert expand_range("n[1-3,07,9]") == ("n1", "n2", "n3", "n07", "n9")


@pytest.mark.parametrize(
    "text",
    ["pi", "[a-c]", "fe80::[1]x]"[:6], "[]", "[1-]", "pi-[01-30", "[²-³]", "[\u0661-\u0663]"],
)
def test_what_is_no_range_stays(text: str) -> None:
    assert expand_range(text) == (text,)


@pytest.mark.parametrize(
    "text", ["[3-1]", "[1-2][1-2]", "[1-99999999999]", "[0-10000]", f"[1-{'9' * 5000}]"]
)
def test_impossible_ranges(text: str) -> None:
    with pytest.raises(RangeError):
        expand_range(text)


def test_values_go_in_step() -> None:
    node = {
        "hostname": "pi-[08-10]",
        "address": "192.168.2.[108-110]/24",
        "labels": {"seat": "[1-3]", "room": "b12"},
        "owner": "class",
        "wifi": {"networks": [{"ssid": "a[1-3]"}]},
    }
    nodes = expand_node(node)
    assert [n["hostname"] for n in nodes] == ["pi-08", "pi-09", "pi-10"]
    assert [n["address"] for n in nodes] == [f"192.168.2.{i}/24" for i in (108, 109, 110)]
    assert [n["labels"] for n in nodes] == [{"seat": str(i), "room": "b12"} for i in (1, 2, 3)]
    assert {n["owner"] for n in nodes} == {"class"}
    assert all(n["wifi"] == node["wifi"] for n in nodes)


@pytest.mark.parametrize(
    ("node", "words"),
    [
        ({"hostname": "p[1-3]", "address": "10.0.0.[1-4]"}, "different lengths"),
        ({"hostname": "p", "address": "10.0.0.[1-4]"}, "the same hostname"),
        ({"hostname": "p[2-1]"}, "ends before it begins"),
    ],
)
def test_ranges_that_do_not_match(node: dict[str, str], words: str) -> None:
    with pytest.raises(RangeError, match=words):
        expand_node(node)


@pytest.mark.parametrize(
    ("node", "hosts"),
    [
        ({"hostname": "p[1-3]", "address": "10.0.0.[1-2]"}, ["p1", "p2"]),
        ({"hostname": "p", "address": "10.0.0.[1-4]"}, ["p"]),
        ({"hostname": "p[2-1]"}, []),
    ],
)
def test_of_ranges_that_do_not_match_what_can_be_is_looked_at(
    node: dict[str, str], hosts: list[str]
) -> None:
    with pytest.raises(RangeError):
        expand_node(node)
    assert [found["hostname"] for found in expand_in_part(node)] == hosts


def test_a_range_of_one() -> None:
    node = {"hostname": "pi-[07]", "address": "10.0.0.[7]", "labels": {"seat": "[1-1]", "a": 1}}
    assert expand_node(node) == [
        {"hostname": "pi-07", "address": "10.0.0.7", "labels": {"seat": "1", "a": 1}}
    ]


@pytest.mark.parametrize("name", ["pi", "pi-[1-2]"])
def test_a_number_in_brackets_stays_where_people_write_freely(name: str) -> None:
    said = {"owner": "Class [2] of [3]", "seat": "[4]", "labels": {"row": "a[1]"}}
    for node in expand_node({"hostname": name, **said}):
        assert node == {"hostname": node["hostname"], **said}


def test_a_node_without_ranges_is_itself() -> None:
    assert expand_node({"hostname": "a", "upgrade": True}) == [{"hostname": "a", "upgrade": True}]


# ---- tables


def written(delimiter: str, **options: object) -> str:
    """Write ROWS with the standard library's writer, whose default is Excel's dialect."""
    out = io.StringIO()
    writer = csv.DictWriter(out, ["hostname", "owner"], delimiter=delimiter, **options)  # type: ignore[arg-type]
    writer.writeheader()
    writer.writerows(ROWS)
    return out.getvalue()


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
@pytest.mark.parametrize("end", ["\r\n", "\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_every_dialect_gives_the_same_rows(
    delimiter: str, quoting: int, end: str, encoding: str
) -> None:
    raw = written(delimiter, quoting=quoting, lineterminator=end).encode(encoding)
    table = parse_table(decode_table(raw))
    assert not table.diagnostics
    assert [row.values for row in table.rows] == ROWS
    assert [row.line for row in table.rows] == [2, 3]


def test_old_windows_letters() -> None:
    assert decode_table("Zoë;Müller".encode("cp1252")) == "Zoë;Müller"


def test_excel_says_its_separator_and_leaves_empty_rows_and_columns() -> None:
    text = 'sep=;\r\nHostname;Owner;;\r\n;;;\r\npi-01;"two\r\nlines";;\r\n\r\npi-02;;;\r\n'
    table = parse_table(text)
    assert not table.diagnostics
    assert [(row.line, row.values["hostname"]) for row in table.rows] == [
        (4, "pi-01"),
        (7, "pi-02"),
    ]


@pytest.mark.parametrize("delimiter", [",", ";"])
@pytest.mark.parametrize("title", ["Table 1\r\n", '"The nodes; all"\r\n\r\n', "Table 1{}\r\n"])
def test_a_title_above_the_header_is_passed_over(delimiter: str, title: str) -> None:
    text = title.format(delimiter) + written(delimiter)
    table = parse_table(text)
    assert not table.diagnostics
    assert [row.values for row in table.rows] == ROWS
    assert table.rows[0].line == text.count("\n") - 1


def test_labels_as_pairs_and_as_columns() -> None:
    table = parse_table("hostname,labels,label.row\npi-1,a=1 b=2=3,7\npi-2,,\n")
    assert table.rows[0].values["labels"] == {"a": "1", "b": "2=3", "row": "7"}
    assert "labels" not in table.rows[1].values


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("", 1, "empty"),
        ("\n\n", 1, "empty"),
        ("adress,hostname\n1,2\n", 1, "unknown column `adress`"),
        ("owner\nx\n", 1, "no column `hostname`"),
        ("hostname,hostname\na,b\n", 1, "twice"),
        ("hostname,owner\na,b,c\n", 2, "3 cells in a row, but 2"),
        ("hostname,labels\na,nope\n", 2, "k=v"),
        ("hostname\n\0\n", 1, "not a text file"),
        ("Table 1\nowner\nx\n", 1, "unknown column `table_1`"),
        ('hostname\n"a"b\n', 2, "not a CSV"),
        ('hostname\na\nb\n\nc\nd\n"e\nf\ng\n', 7, "not a CSV"),
        ('sep=;\nhostname;owner\na;"x\ny"\nb;"z"w\n', 5, "not a CSV"),
    ],
)
def test_faults_of_a_table(text: str, line: int, words: str) -> None:
    diagnostic = parse_table(text).diagnostics[0]
    assert diagnostic.loc == (line,)
    assert words in diagnostic.message


def test_what_is_sound_beside_a_fault_of_the_table_stays() -> None:
    table = parse_table("hostname,adress,owner,owner,labels\na,10.0.0.1,Ann,Bea,nope\n")
    assert [row.values for row in table.rows] == [{"hostname": "a", "owner": "Ann"}]
    assert [diagnostic.loc for diagnostic in table.diagnostics] == [(1,), (1,), (2,)]


def test_unknown_column_gets_a_suggestion() -> None:
    assert parse_table("hostname,adress\n").diagnostics[0].hint == "did you mean `address`?"


@given(st.binary(max_size=80))
def test_any_bytes_give_a_table_or_findings(raw: bytes) -> None:
    table = parse_table(decode_table(raw))
    assert table.diagnostics or isinstance(table.rows, tuple)


@given(st.text('ab;,\t"\r\n= hostname', max_size=60))
def test_any_table_text_gives_rows_or_findings(text: str) -> None:
    table = parse_table("hostname;labels\n" + text)
    assert all(row.line > 1 for row in table.rows)
