"""All targets by name."""

from __future__ import annotations

from tests.fuzz import answers, archives, disks, roots, texts

MODULES = (disks, roots, archives, texts, answers)
TARGETS = {target.name: target for module in MODULES for target in module.TARGETS}
