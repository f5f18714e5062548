"""All targets by name."""

from __future__ import annotations

from tests.fuzz import answers, archives, disks, texts

TARGETS = {
    target.name: target for module in (disks, archives, texts, answers) for target in module.TARGETS
}
