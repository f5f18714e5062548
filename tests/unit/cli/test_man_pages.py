"""The man pages are those of the commands and of the schema, and mandoc finds no fault in them."""

from __future__ import annotations

import json
import re

import pytest

from imagebuilder.settings.starter import classroom_schema
from tests.lib.command_reference import Reference, references
from tests.lib.man_pages import FOLDER, man_pages
from tests.lib.tools import need, run

PAGES = man_pages()


def test_the_pages_are_current() -> None:
    written = {path.relative_to(FOLDER).as_posix(): path for path in FOLDER.rglob("*.[15]")}
    assert set(written) == set(PAGES), "run `make golden`"
    texts = {name: path.read_text(encoding="utf-8") for name, path in written.items()}
    old = [name for name, text in texts.items() if text != PAGES[name]]
    assert old == [], "run `make golden`"


def test_every_command_has_a_page() -> None:
    names = {each.name.replace(" ", "-") for each in references()}
    assert {f"man1/{name}.1" for name in names} == {name for name in PAGES if name.endswith(".1")}


def test_mandoc_finds_no_fault() -> None:
    (mandoc,) = need("mandoc")
    assert run(mandoc, "-T", "lint", *sorted(FOLDER.rglob("*.[15]"))) == ""


@pytest.mark.parametrize("each", list(references()), ids=lambda each: each.name)
def test_mandoc_shows_every_option_and_example(each: Reference) -> None:
    (mandoc,) = need("mandoc")
    page = FOLDER / "man1" / f"{each.name.replace(' ', '-')}.1"
    shown = run(mandoc, "-T", "utf8", "-O", "width=200", page)
    text = _plain(shown)
    names = [names for _, rows in each.groups(every=True) for names, _ in rows]
    assert [name for name in names if name not in text] == []
    assert [example for example, _ in each.page.examples if example not in text] == []


def test_the_page_of_the_file_lists_every_key() -> None:
    (mandoc,) = need("mandoc")
    text = _plain(run(mandoc, "-T", "utf8", FOLDER / "man5" / "classroom.yml.5"))
    shown = {line.split(maxsplit=1)[0] for line in text.splitlines() if line.strip()}
    assert set(json.loads(classroom_schema())["properties"]) - shown == set()
    assert {"wifi.networks[].ssid", "nodes[].hostname", "shack.ports.apt"} <= shown


def _plain(shown: str) -> str:
    """Return what a terminal shows: without letters that are printed twice or underlined."""
    return re.sub(r".\x08", "", shown)
