"""The table of budgets in docs/security.md is that of the code."""

from __future__ import annotations

import pytest

from tests.lib.budgets import PAGE, page, shown, table


def test_the_table_of_budgets_is_that_of_the_code() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run `make golden`"


def test_every_budget_says_what_it_is() -> None:
    rows = table().splitlines()[2:]
    assert len(rows) > 50
    assert [row for row in rows if row.endswith("|  |")] == []


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("MOST_BYTES", 4 << 20, "4 MiB"),
        ("MOST_BYTES", 1 << 30, "1 GiB"),
        ("MOST_BYTES", 30_000, "30,000 bytes"),
        ("MOST_SECONDS", 20.0, "20 s"),
        ("MOST_NODES", 10_000, "10,000"),
        ("MOST_CLUSTERS", {12: 4084}, "12: 4,084"),
    ],
)
def test_a_limit_is_shown_with_its_unit(name: str, value: object, text: str) -> None:
    assert shown(name, value) == text
