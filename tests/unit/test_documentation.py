"""The documentation names paths, make targets and a version that exist."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

import imagebuilder

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    path
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    if path.name != "CHANGELOG.md"  # says what was true at its time
)

LEAST_WORDS = 15


def paths_in(page: str) -> list[str]:
    """Return what looks like a path of this repository, in backticks or on a command's line."""
    tops = "|".join(
        re.escape(path.name) for path in ROOT.iterdir() if path.is_dir() and path.name[0] != "."
    )
    made = r"build/|dist/"
    return [
        path
        for text in re.findall(r"`([^`\n]+)`|^(?:\$ )?(make .*|.*pytest .*)$", page, re.MULTILINE)
        for path in re.findall(rf"(?<![\w/.<~-])((?:{tops})/[\w./*\[\]-]*)", " ".join(text))
        if not re.match(made, path)
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_path_on_a_page_exists(page: Path) -> None:
    paths = [path.rstrip(".") for path in paths_in(page.read_text(encoding="utf-8"))]
    assert [path for path in paths if not found(path)] == []


def found(path: str) -> bool:
    literal = path.replace("[", "[[]")
    return (ROOT / path).exists() or any(ROOT.glob(literal))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_make_target_on_a_page_exists(page: Path) -> None:
    own = targets(ROOT / "Makefile") | targets(ROOT / "overlays" / "shack" / "Makefile.j2")
    text = page.read_text(encoding="utf-8")
    named = re.findall(r"(?:`|^\$ )make (?:-C shack )?([a-z][a-z-]*)", text, re.MULTILINE)
    assert [name for name in named if name not in own] == []


def opening(page: str) -> str:
    """Return the paragraph after the title of a page."""
    title, paragraph, *_ = page.split("\n\n", 2)
    assert re.fullmatch(r"# .+", title)
    return paragraph


def is_said_at_once(page: str) -> bool:
    """Return whether a page begins with whole sentences, not with a block, a table or a list."""
    text = opening(page)
    return (
        re.match(r"```|~~~|\||[-*+] |\d+[.)] |#|<|>|!\[| {4}", text) is None
        and "\n```" not in text
        and len(re.findall(r"\w{2,}", text)) >= LEAST_WORDS
        and text.endswith(".")
    )


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.name)
def test_a_page_begins_with_what_it_is_good_for(page: Path) -> None:
    assert is_said_at_once(page.read_text(encoding="utf-8")), "begin with a sentence that says it"


@pytest.mark.parametrize(
    "begin",
    ["```\n{}\n```", "| {} |\n|---|", "- {}.", "1. {}.", "![{}](x.png)", "<!-- {} -->", "## {}",
     "{}:", "{}.\n```console\n$ x\n```", "Few words."],
)  # fmt: skip
def test_a_page_that_begins_with_something_else_is_found(begin: str) -> None:
    words = "words " * LEAST_WORDS
    assert is_said_at_once(f"# Title\n\n{words}.\n\nMore.\n")
    assert not is_said_at_once(f"# Title\n\n{begin.format(words)}\n\nMore.\n")


def test_the_site_has_every_page_and_no_other() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    listed = set(re.findall(r": ([\w-]+\.md)$", text, re.MULTILINE))
    beside = {"index.md", *(path.name for path in ROOT.glob("*.md"))}
    assert listed == {path.name for path in (ROOT / "docs").glob("*.md")} | beside - {"README.md"}


def targets(makefile: Path) -> set[str]:
    return set(re.findall(r"^([a-z-]+):", makefile.read_text(encoding="utf-8"), re.MULTILINE))


def test_paths_and_targets_are_looked_for() -> None:
    assert paths_in("see `tests/unit/nowhere.py` and `overlays/[x]/*`") == [
        "tests/unit/nowhere.py", "overlays/[x]/*",
    ]  # fmt: skip
    assert not found("tests/unit/nowhere.py")
    assert found("tests/unit/test_rooms.py")
    assert {"test", "check"} <= targets(ROOT / "Makefile")


def test_the_version_is_one_number() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == imagebuilder.__version__


def test_the_changelog_has_the_usual_form() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert versions[0] in {"Unreleased", imagebuilder.__version__}
    assert versions[-1] == "0.1.0"
    kinds = set(re.findall(r"^### (.*)$", text, re.MULTILINE))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    lines = [line for line in text.splitlines() if line.startswith("- ")]
    assert [line for line in lines if len(line) > 300] == []
    assert sorted(lines) == sorted(set(lines)), "a merge brought lines back"
