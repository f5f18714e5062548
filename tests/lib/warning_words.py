"""Write the table of warning words into docs/settings.md, from the code."""

from __future__ import annotations

from pathlib import Path

from imagebuilder.errors import WARNINGS

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"
BEGIN = "<!-- made by `make golden` from WARNINGS in imagebuilder/errors.py -->\n"
END = "<!-- end -->\n"


def table() -> str:
    """Return the table as Markdown."""
    rows = "".join(f"| `{word}` | {meaning} |\n" for word, meaning in WARNINGS.items())
    return f"| word | what it is about |\n|---|---|\n{rows}"


def with_table(text: str) -> str:
    """Return the page with the table between its marks."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
