"""Plans as they were last looked at; a change shows as a diff in review.

Made anew by `python -m tests.lib.make_golden`, after reading what changed.
"""

from __future__ import annotations

import pytest

from tests.lib.make_golden import CASES, FOLDER, golden


@pytest.mark.parametrize("case", CASES)
def test_the_plan_is_what_was_looked_at(case: str) -> None:
    assert golden(case) == (FOLDER / f"{case}.txt").read_text(encoding="utf-8")


def test_no_text_is_left_over() -> None:
    assert {path.stem for path in FOLDER.glob("*.txt")} == set(CASES)
