"""Every limit says of what, how much and in which unit."""

from __future__ import annotations

import importlib
import pkgutil

import imagebuilder
from imagebuilder.images.budgets import Budget

UNITS = {"bytes", "bytes a second", "characters", "count", "seconds"}


def test_the_budgets_of_every_module_can_be_listed() -> None:
    names = [
        module.name for module in pkgutil.walk_packages(imagebuilder.__path__, "imagebuilder.")
    ]
    modules = [importlib.import_module(name) for name in names if not name.endswith("__main__")]
    found = [budget for module in modules for budget in getattr(module, "BUDGETS", ())]
    assert all(isinstance(budget, Budget) and budget.limit > 0 for budget in found)
    assert {budget.unit for budget in found} <= UNITS
    assert len({budget.what for budget in found}) == len(found) > 0
