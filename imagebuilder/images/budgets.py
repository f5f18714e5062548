"""The form of a limit on what was not made by this program in this run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Budget:
    """One limit: on what, how much, in which unit.

    A module names its limits as constants and lists them in its `BUDGETS`, which documentation is
    generated from.
    """

    what: str
    limit: float
    unit: str
