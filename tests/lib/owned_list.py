"""The list of what a node owns, as docs/first-boot.md shows it; `python -m` prints the table."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass

from imagebuilder.resources import shipped_folder

PARTS = shipped_folder("overlays") / "scripts" / "install"
_LINE = re.compile(
    r"^    own ('[^']+'|\w+) (\S+|\"[^\n]*\") (\w+) (before|gone|always) (late|no)$", re.MULTILINE
)
_UNDONE = {"before": "what was there before", "gone": "removed", "always": "always set"}


@dataclass(frozen=True)
class Owned:
    """A line of the list: what applies a setting, how it is undone, whether a vendor is late."""

    name: str
    wanted: str
    function: str
    undone: str
    late: bool

    @property
    def writes(self) -> str:
        """What the part with the function says that it writes."""
        for path in PARTS.glob("*.sh"):
            text = path.read_text()
            if f"\n{self.function}() {{\n" in text:
                found = re.search(r"^# Writes: ([^\0]+?)\.\n\n", text, re.MULTILINE)
                assert found
                return found[1].replace("\n# ", " ")
        raise AssertionError(self.function)

    def _sources(self) -> list[str]:
        files = re.findall(r"on_card '?([^)'\s]+)", self.wanted)
        names = re.findall(r"\b[A-Z][A-Z_]+", self.wanted)
        if self.wanted == '"$(vendor_logins_locked)"':
            names = ["USER_NAME", "KEEP_VENDOR_LOGIN"]
        return [f"rpi-image/{file}" for file in files] + names

    def row(self) -> str:
        """Return its row of the table."""
        cells = (
            self.name,
            ", ".join(f"`{source}`" for source in self._sources()),
            re.sub(r"(?<!\S)(\.?[\w.]*/[^\s;]*[^\s;,])", r"`\1`", self.writes),
            _UNDONE[self.undone],
            "yes" if self.late else "",
        )
        return f"| {' | '.join(cells)} |".replace("|  |", "| |")


def owned_list() -> tuple[Owned, ...]:
    """Return the list of owned_settings.sh."""
    text = (PARTS / "owned_settings.sh").read_text()
    found = _LINE.findall(text)
    assert len(found) == text.count("\n    own "), "a line of the list has another form"
    return tuple(
        Owned(name.strip("'"), wanted, function, undone, vendor == "late")
        for name, wanted, function, undone, vendor in found
    )


def owned_table() -> str:
    """Return the table of the page."""
    head = "| setting | from | writes | left out, it is | the image may write it later |"
    return "\n".join([head, "|---|---|---|---|---|", *(owned.row() for owned in owned_list()), ""])


if __name__ == "__main__":
    sys.stdout.write(owned_table())
