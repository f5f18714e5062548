"""The documentation of overlays, templates and generations holds what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from imagebuilder.plan.boot_files import MemoryBootFiles
from imagebuilder.plan.context import node_variables
from imagebuilder.plan.generations import detect, parse_generation
from imagebuilder.plan.node import plan_node
from tests.lib.plan_samples import (
    BUILD_TIME,
    boot_of,
    full_node,
    generations,
    node_files,
    plain_node,
    plan,
)
from tests.lib.plans import files_of, node_with, overlay, text_of
from tests.lib.tools import run

DOCS = Path(__file__).parents[3] / "docs"


# ---- the documentation


def test_the_example_of_the_documentation_runs(tmp_path: Path) -> None:
    guide = (DOCS / "overlays.md").read_text()
    (source,) = re.findall(r"^(#!/bin/sh\n.*?)```$", guide, re.MULTILINE | re.DOTALL)
    node = node_with(variables=(("room", "B 12"),))
    planned = plan(node, boot_of("occidentalis"), overlay("motd.j2", source))
    script = text_of(planned, "motd").replace("/etc/motd", str(tmp_path / "motd"))
    run("sh", "-c", script)
    assert (tmp_path / "motd").read_text() == "This is pi-03 in room B 12\n"


def test_what_templates_may_use_is_documented() -> None:
    guide = (DOCS / "overlays.md").read_text()
    facts = node_variables(full_node(), "x")
    assert not [name for name in facts if not re.search(rf"`(node)?\.{name}\b", guide)]
    shipped = [file for file in node_files() if file.path.endswith(".j2")]
    filters = {name for file in shipped for name in re.findall(rb"\| (\w+)", file.data)}
    assert not [name.decode() for name in filters - {b"join"} if name.decode() not in guide]


def test_the_example_generation_of_the_documentation_parses() -> None:
    guide = (DOCS / "generations.md").read_text()
    (text,) = re.findall(r"```yaml\n(title:.*?)```", guide, re.DOTALL)
    generation = parse_generation(text, "mine", "docs")
    files = {"settings.ini": b"hostname=x\n", "os-release": b"ID=mine\nVERSION_ID=2.1\n"}
    assert detect((*generations(), generation), MemoryBootFiles(files)).name == "mine"
    planned = plan_node(plain_node(), generation, node_files(), MemoryBootFiles(files), BUILD_TIME)
    assert files_of(planned)["settings.ini"] == b"hostname=pi-03\n"
    assert files_of(planned)["cmdline.txt"] == b"quiet"


def test_every_generation_is_documented() -> None:
    guide = (DOCS / "generations.md").read_text()
    assert not [one.name for one in generations() if f"| `{one.name}` |" not in guide]
