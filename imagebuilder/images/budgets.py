"""Limits for untrusted input."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Budget:
    """One limit: of what, the number and its unit.

    A module has its limits as constants and lists them in `BUDGETS`, for the documentation.
    """

    what: str
    limit: float
    unit: str
