"""The pictures of the README are what the program prints."""

from __future__ import annotations

import html
import re
from pathlib import Path

import pytest

from tests.pictures import FOLDER, RUNS, SHOTS, recorded
from tests.pictures_teacher import STEPS

PAGES = [Path(__file__).parents[2] / "README.md", *FOLDER.parent.glob("*.md")]
TEXT = "".join(page.read_text(encoding="utf-8") for page in PAGES)


def words(picture: str) -> str:
    """Return the text of an SVG, without what places it."""
    found = re.findall(r"<text [^>]*>([^<]*)</text>", picture)
    return html.unescape("".join(found)).replace("\xa0", " ")


@pytest.mark.parametrize("name", RUNS)
def test_a_picture_shows_what_the_program_prints(name: str, tmp_path: Path) -> None:
    picture = (FOLDER / f"{name}.svg").read_text(encoding="utf-8")
    assert words(picture) == words(recorded(RUNS[name], tmp_path)), "run `make pictures`"


@pytest.mark.parametrize("name", RUNS)
def test_a_picture_is_shown_and_loads_nothing(name: str) -> None:
    picture = (FOLDER / f"{name}.svg").read_text(encoding="utf-8")
    assert f"pictures/{name}.svg" in TEXT
    assert not re.search(r"url\(['\"]?http|href=|<script|@import", picture)


def test_every_picture_is_shown() -> None:
    made = {f"{name}.svg" for name in RUNS} | {f"{name}.png" for name in SHOTS} | set(STEPS)
    made |= {f"{name.replace('board', 'station')}.png" for name in SHOTS}
    assert made == {path.name for path in FOLDER.iterdir()}
    assert [name for name in sorted(made) if f"pictures/{name}" not in TEXT] == []
