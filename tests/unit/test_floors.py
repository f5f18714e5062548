"""The house has floors: a module imports only from floors below, and nothing in a circle."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "imagebuilder"

# A module may import from lower floors and, acyclically, from its own.
FLOORS: dict[str, int] = {
    "errors": 0,
    "progress": 0,
    "stopping": 0,
    "model": 1,
    **dict.fromkeys(
        [
            "bmap",
            "bootconfig",
            "checksums",
            "certificates",
            "generation",
            "cow",
            "disk",
            "documents",
            "exports",
            "ext4",
            "extents",
            "fatdir",
            "fatnames",
            "facts",
            "fatmap",
            "labels",
            "lint",
            "loops",
            "roster",
            "presence",
            "safety",
            "salvage",
            "scripts",
            "fields",
            "findings",
            "layers",
            "sections",
            "services",
            "settings",
            "shapes",
            "yamlfile",
            "starter",
            "template",
        ],
        2,
    ),
    **dict.fromkeys(
        [
            "archive",
            "blockdev",
            "bootfs",
            "cache",
            "cluster",
            "devices",
            "diskutil",
            "emulator",
            "fattree",
            "fetch",
            "frames",
            "firmware",
            "forms",
            "files",
            "keys",
            "catalogue",
            "ledger",
            "oneimage",
            "overlays",
            "parts",
            "packing",
            "plan",
            "rawcopy",
            "readahead",
            "records",
            "pyfat",
            "reading",
            "shipped",
            "uevents",
            "source",
            "sparse",
            "classfile",
            "workspace",
            "world",
        ],
        3,
    ),
    **dict.fromkeys(
        [
            "account",
            "base",
            "batch",
            "build",
            "card",
            "compose",
            "flash",
            "inspect",
            "jobs",
            "proof",
            "room",
            "shack",
            "station",
            "verify",
        ],
        4,
    ),
    "console": 5,
    **dict.fromkeys(
        [
            "__main__",
            "cli",
            "cli_batch",
            "cli_session",
            "cli_settings",
            "cli_boot",
            "cli_build",
            "cli_cards",
            "cli_class",
            "cli_fetch",
            "cli_flash",
            "cli_options",
            "cli_outcomes",
            "cli_shack",
            "cli_verify",
        ],
        6,
    ),
}

MODULES = sorted(path.stem for path in PACKAGE.glob("*.py") if path.stem != "__init__")


def imports_of(module: str) -> set[str]:
    """Give the package's own modules that `module` imports anywhere in its text."""
    found: set[str] = set()
    for node in ast.walk(ast.parse((PACKAGE / f"{module}.py").read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("imagebuilder"):
            parts = (node.module or "").split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {
                a.name.split(".")[1] for a in node.names if a.name.startswith("imagebuilder.")
            }
    return found - {"__version__"}


@pytest.mark.parametrize("module", MODULES)
def test_module_imports_only_from_its_floor_or_below(module: str) -> None:
    assert module in FLOORS, f"give {module} a floor"
    above = {name for name in imports_of(module) if FLOORS[name] > FLOORS[module]}
    assert not above


def test_there_is_no_import_cycle() -> None:
    graph = {module: imports_of(module) for module in MODULES}
    done: set[str] = set()
    while ready := {m for m in graph if m not in done and graph[m] <= done}:
        done |= ready
    assert set(graph) == done, f"in a circle: {sorted(set(graph) - done)}"


@pytest.mark.parametrize("module", MODULES)
def test_module_stays_readable_in_one_sitting(module: str) -> None:
    assert len((PACKAGE / f"{module}.py").read_text().splitlines()) <= 420
