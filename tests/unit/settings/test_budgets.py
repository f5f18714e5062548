"""Settings that no person writes are refused with their place, in little time and memory."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from imagebuilder.errors import InputError
from imagebuilder.settings.flags import choose_nodes
from imagebuilder.settings.roster import MAX_NODES, MOST_COLUMNS, MOST_RANGES
from tests.lib.classrooms import WrittenClassroom
from tests.lib.tools import run

if TYPE_CHECKING:
    from pathlib import Path

HEAD = "profile: armv7\ndocker: {tls: true}\n"
TABLE = HEAD + "nodes: !csv table.csv\n"
TOO_MANY_NODES = f"the class has more than {MAX_NODES} nodes"
YAML = {
    "ranges": (
        HEAD + "nodes:\n" + "".join(f"  - hostname: {x}-[1-6000]\n" for x in "abcdefgh"),
        f"5 error: nodes[1]: {TOO_MANY_NODES}",
    ),
    "many ranges": (
        HEAD + "nodes:\n" + "".join(f"  - hostname: a{i}-[1-10000]\n" for i in range(50_000)),
        f"5 error: nodes[1]: {TOO_MANY_NODES}",
    ),
    "labels": (
        HEAD
        + "nodes:\n  - hostname: a-[1-10000]\n    labels: {"
        + ", ".join(f"l{i}: 'x[1-10000]'" for i in range(900))
        + "}\n",
        f"4 error: nodes[0]: the node has more than {MOST_RANGES} ranges",
    ),
    "wifi": (
        HEAD
        + "nodes: [{hostname: 'a-[1-10000]'}]\nwifi: {country: FR, networks: ["
        + ", ".join(f"{{ssid: n{i}, passphrase: 'password{i}'}}" for i in range(900))
        + "]}\n",
        "1 error: the nodes have too many list entries in all",
    ),
    "list": (
        HEAD + "nodes: [{hostname: a}]\noverlays: [" + "x, " * 5000 + "x]\n",
        "1 error: `overlays` has more than 1000 entries",
    ),
    "keys": (
        HEAD + "nodes: [{hostname: a}]\n" + "".join(f"k{i}: v\n" for i in range(140_000)),
        "1 error: 139500 more problems",
    ),
    "long": (HEAD + f"name: {'a' * 15_000_000}\n", "3 error: the value is too long"),
    "values": (HEAD + "nodes:\n" + "- a\n" * 4_000_000, "too many values"),
}
CSV = {
    "rows": (
        "hostname,owner\n" + "\n".join(f"pi-{i},x" for i in range(400_000)),
        f"the table has more than {MAX_NODES} nodes",
    ),
    "ranges in a table": (
        "hostname\n" + "\n".join(f"{x}-[1-6000]" for x in "abcdefgh"),
        TOO_MANY_NODES,
    ),
    "columns": ("hostname," + "," * 3_000_000 + "\n", f"more than {MOST_COLUMNS} columns"),
    "names": (
        "hostname," + ",".join(f"c{i}" for i in range(500_000)),
        f"more than {MOST_COLUMNS} columns",
    ),
    "cell": ('hostname\n"' + "a" * 7_000_000 + '"\n', "field larger than field limit"),
    "bytes": ("hostname\n" + "a" * 9_000_000, "is over 8 MiB"),
}
CHECK = """
import resource, sys
from pathlib import Path
from imagebuilder.settings.load import check_classroom
from tests.lib.memory import peak_memory
for problem in check_classroom(Path(sys.argv[1]), environment={}):
    print(problem.line, "error:" if problem.severe else "warning:", problem.message)
assert peak_memory() < 400 << 20, f"{peak_memory() >> 20} MiB"
seconds = resource.getrusage(resource.RUSAGE_SELF).ru_utime
assert seconds < 20, f"{seconds} s"
"""


def check(path: Path) -> str:
    return run(sys.executable, "-c", CHECK, path, timeout=300)


@pytest.mark.parametrize("name", YAML)
def test_a_file_that_no_person_writes(name: str, tmp_path: Path) -> None:
    text, said = YAML[name]
    assert said in check(WrittenClassroom(tmp_path).write(text).path)


@pytest.mark.parametrize("name", CSV)
def test_a_table_that_no_person_writes(name: str, tmp_path: Path) -> None:
    text, said = CSV[name]
    (tmp_path / "table.csv").write_text(text)
    assert said in check(WrittenClassroom(tmp_path).write(TABLE).path)


def test_a_class_may_be_as_large_as_that(tmp_path: Path) -> None:
    text = HEAD + f"nodes:\n  - hostname: a-[1-{MAX_NODES - 1}]\n  - hostname: b\n"
    classroom = WrittenClassroom(tmp_path).write(text).load()
    assert len(classroom.nodes) == MAX_NODES
    with pytest.raises(InputError, match="names more than"):
        choose_nodes(classroom, "a-[1-9999],a-[1-9999]")
