"""What is on a label, and the sheets of labels that are sold; all lengths in millimetres."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import segno

from imagebuilder.model import url_host
from imagebuilder.plan.reach import login_name, reachable_name

if TYPE_CHECKING:
    from imagebuilder.model import Classroom, NodeSettings

LONG_NAME = 12  # a longer hostname is printed smaller
_NARROW = 50  # a label of less has no room for its number beside words and code


@dataclass(frozen=True, slots=True)
class LabelSheet:
    """A sheet of labels: page and label as width and height, margin as top and left."""

    name: str
    page: tuple[float, float]
    margin: tuple[float, float]
    label: tuple[float, float]
    gap: float
    columns: int
    rows: int

    @property
    def count(self) -> int:
        """The number of labels on a sheet."""
        return self.columns * self.rows

    @property
    def code(self) -> float:
        """The size of the QR code with its margin."""
        return min(self.label[1] - 3, 26, 0.42 * self.label[0])

    @property
    def numbered(self) -> bool:
        """Whether there is room for the number of the label."""
        return self.label[0] >= _NARROW


# Sources: the templates of Avery (L7160: 21 to a page, 5160: 30, L7651: 65), in which columns and
# rows fill the page between equal margins; Brother DK-22205, continuous tape of 62 mm.
SHEETS = {
    "l7160": LabelSheet("Avery L7160", (210, 297), (15.15, 7.25), (63.5, 38.1), 2.5, 3, 7),
    "5160": LabelSheet("Avery 5160", (215.9, 279.4), (12.7, 4.7625), (66.675, 25.4), 3.175, 3, 10),
    "l7651": LabelSheet("Avery L7651", (210, 297), (10.7, 4.75), (38.1, 21.2), 2.5, 5, 13),
    "brother-62": LabelSheet("Brother 62 mm", (62, 29), (0, 0), (62, 29), 0, 1, 1),
}
DEFAULT_SHEET = "l7160"


@dataclass(frozen=True, slots=True)
class Label:
    """The content of one label; `lines` are below the host, `small` is the last line."""

    number: int
    host: str
    lines: tuple[str, ...]
    small: str
    link: str

    @property
    def texts(self) -> tuple[str, ...]:
        """All words."""
        return (self.host, *self.lines, self.small)

    @property
    def code(self) -> segno.QRCode:
        """The QR code of the link."""
        return segno.make(self.link, error="m", micro=False)


def label_of(classroom: Classroom, node: NodeSettings, number: int) -> Label:
    """Return the label of the node that is the `number`th of its class."""
    login = login_name(node)
    where = f"{login}{'@' * bool(login)}{reachable_name(node)}"
    seat = f"seat {node.seat}" if node.seat not in ("", str(number)) else ""
    lines = tuple(text for text in (where, node.owner, seat) if text)
    small = f"{classroom.name} · {node.profile}"
    return Label(number, node.hostname, lines, small, link_of(classroom, node))


def link_of(classroom: Classroom, node: NodeSettings) -> str:
    """Return the URL for the QR code: the node on the class page, else an ssh:// URL."""
    shack = classroom.shack
    if shack and "web" in shack.services:
        return f"http://{shack.url_host}:{shack.web_port}/#{node.hostname}"
    login = login_name(node)
    return f"ssh://{login}{'@' * bool(login)}{url_host(reachable_name(node))}"
