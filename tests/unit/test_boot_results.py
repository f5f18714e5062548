"""The file that keeps how each boot case ended, and the page that shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.boot import results

if TYPE_CHECKING:
    from pathlib import Path

CUT = "tests/boot/test_power.py::test_power_cut"
CARD = "tests/boot/test_generations.py::test_card_makes_the_node[cloud-init-1.12]"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "build" / "results.jsonl"
    monkeypatch.setattr(results, "FILE", file)
    return file


def test_what_passed_with_these_files_is_left_out(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results.add(CARD, "passed", 60, 50)
    results.add(f"{CUT}[upgrade-0]", "passed", 60, 50)
    results.add(f"{CUT}[upgrade-0]", "failed", 60, 50)
    results.add(f"{CUT}[upgrade-1]", "skipped", 60, 50)
    assert results.passed() == {CARD}
    monkeypatch.setattr(results, "tested", lambda: "another state")
    assert results.passed() == set()


def test_a_line_that_was_cut_off_is_a_case_to_run_again(file: Path) -> None:
    results.add(CARD, "passed", 60, 50)
    results.add(f"{CUT}[upgrade-0]", "passed", 60, 50)
    file.write_text(file.read_text()[:-20])
    assert results.passed() == {CARD}


def test_the_page_has_a_row_for_each_test(file: Path, tmp_path: Path) -> None:
    for number, outcome in enumerate(("passed", "failed", "passed")):
        results.add(f"{CUT}[upgrade-{number}]", outcome, 60, 30)
    results.add(CARD, "passed", 90, 45)
    page = tmp_path / "boot.md"
    page.write_text(f"before\n{results.BEGIN}\nold\n{results.END}\nafter\n")
    for _ in range(2):
        results.write_page(page)
        before, *table, after = page.read_text().splitlines()
        assert (before, after) == ("before", "after")
        rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table[3:-1]]
        assert [[row[0], row[1], *row[3:]] for row in rows] == [
            ["`test_generations.py::test_card_makes_the_node[cloud-init-1.12]`", "passed", "1.5",
             "0.8"],
            ["`test_power.py::test_power_cut[upgrade-…]`", "1 failed, 2 passed", "3.0",
             "1.5"],
        ]  # fmt: skip
