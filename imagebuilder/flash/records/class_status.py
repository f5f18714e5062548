"""Merge what the file, the ledger and the shack say about each node."""

from __future__ import annotations

import shlex
import sys
from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

from imagebuilder.flash.records.card_state import TO_WRITE
from imagebuilder.flash.records.shared import class_ledger
from imagebuilder.progress import SILENT
from imagebuilder.shack.observe import observe
from imagebuilder.shack.status import summarise

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from imagebuilder.flash.records.card_state import CardState, CardStates
    from imagebuilder.model import Classroom
    from imagebuilder.progress import Reporter
    from imagebuilder.shack.observe import Observation
    from imagebuilder.shack.status import ClusterState, NodeStatus, PiReport, State

There = Literal[
    "joined", "booting", "missing", "unhealthy", "wrong-arch", "other-address", "unknown"
]
_THERE: dict[State, There] = {
    "joined": "joined",
    "missing": "missing",
    "unhealthy": "unhealthy",
    "wrong-arch": "wrong-arch",
    "stale-address": "other-address",
    "unknown": "unknown",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeOverview:
    """One node: its card, whether it is there, and the command to run next, empty if none.

    `card` is None for a node that is not in the roster.
    """

    hostname: str
    there: There
    next: str = ""
    card: CardState | None = None
    seen: NodeStatus | None = None
    expected: bool = False
    expected_address: str = ""

    @property
    def state(self) -> State | There:
        """What the shack and cards in a reader tell of the node; `unknown` if they do not."""
        return self.seen.state if self.seen else self.there

    @property
    def detail(self) -> str:
        """What is known of the card and of the node, in one line."""
        card = self.card.detail if self.card else ""
        return "; ".join(filter(None, (card, self.seen.detail if self.seen else "")))


@dataclass(frozen=True, slots=True)
class ClassStatus:
    """One look at the class: its nodes, and the answers of the shack."""

    nodes: tuple[NodeOverview, ...]
    seen: Observation

    @property
    def answered(self) -> bool:
        """Whether the shack has answered."""
        return self.seen.state is not None

    @property
    def state(self) -> ClusterState | None:
        """The answers of the shack, None without any."""
        return self.seen.state

    @property
    def rows(self) -> tuple[NodeStatus, ...]:
        """What the shack and cards in a reader tell."""
        return self.seen.rows

    @property
    def warning(self) -> str:
        """Why an answer is missing or in doubt."""
        return self.seen.warning

    @property
    def as_wanted(self) -> bool:
        """Whether each card is current and, if the shack has answered, each node has joined."""
        return all(
            node.card.state == "current"
            and (node.there == "joined" or not node.expected or not self.answered)
            for node in self.nodes
            if node.card
        )


def watch_class(
    classroom: Classroom,
    file: Path,
    states: CardStates,
    reports: Sequence[PiReport],
    timeout_seconds: float,
    interval_seconds: float | None,
    reporter: Reporter = SILENT,
) -> Iterator[ClassStatus]:
    """Yield a look at the class of a file; with an interval until all nodes have joined."""
    for seen in observe(
        classroom, reports, timeout_seconds=timeout_seconds, interval_seconds=interval_seconds
    ):
        cards = states.of(classroom, class_ledger(classroom, file, reporter).entries())
        answered = seen.state is not None
        nodes = merge_status(classroom, file, cards, seen.rows, answered=answered)
        yield ClassStatus(nodes, seen)


def merge_status(
    classroom: Classroom,
    file: Path,
    cards: Mapping[str, CardState],
    rows: Iterable[NodeStatus],
    *,
    answered: bool,
) -> tuple[NodeOverview, ...]:
    """Return the nodes of the roster in order, then those that only the shack knows.

    `answered` says whether the shack answered; otherwise `rows` has only what cards tell. `file` is
    named in commands.
    """
    seen = {row.hostname: row for row in rows}
    nodes = []
    for node in classroom.nodes:
        row, card = seen.pop(node.hostname, None), cards[node.hostname]
        there = _there(row, answered=answered)
        nodes.append(
            NodeOverview(
                hostname=node.hostname,
                there=there,
                next=_next(file, node.hostname, card, there),
                card=card,
                seen=row,
                expected=node.cluster.enabled,
                expected_address=node.network.fixed_address,
            )
        )
    strangers = [
        NodeOverview(hostname=name, there=_there(row, answered=answered), seen=row)
        for name, row in seen.items()
    ]
    return (*nodes, *strangers)


def _there(row: NodeStatus | None, *, answered: bool) -> There:
    if row is None or (row.state == "missing" and not answered):
        return "unknown"
    if row.state == "missing" and row.progress and row.progress.is_fresh:
        return "booting"
    return _THERE[row.state]


# `flash` writes cards on Linux only.
_WRITE = "flash DEVICE" if sys.platform == "linux" else "apply FOLDER"


def _next(path: Path, hostname: str, card: CardState, there: There) -> str:
    """Return the command to run next; DEVICE stands for the card in its reader."""
    file = shlex.quote(str(path))
    if card.state in TO_WRITE:
        return f"rpi-image {_WRITE} -c {file} --node {hostname}"
    if card.state == "unknown":
        return f"rpi-image verify DEVICE -c {file} --node {hostname}"
    if there in {"joined", "booting", "unknown"}:
        return ""
    return f"rpi-image status {file} --card DEVICE"


def count_cards(seen: ClassStatus) -> dict[str, int]:
    """Return how many cards are in each state."""
    return dict(Counter(node.card.state for node in seen.nodes if node.card))


def status_as_json(seen: ClassStatus) -> dict[str, object]:
    """Return a look at the class as JSON; the keys are stable."""
    found = seen.state
    return {
        "leader": (found.leader or None) if found else None,
        "manager_error": found.manager_error if found else None,
        "summary": summarise(seen.rows),
        "cards": count_cards(seen),
        "as_wanted": seen.as_wanted,
        "nodes": [_node_report(node) for node in seen.nodes],
    }


def _node_report(node: NodeOverview) -> dict[str, object]:
    """Return a node as JSON; the keys are stable."""
    seen, card = node.seen, node.card
    return {
        "hostname": node.hostname,
        "wanted": card.wanted if card else "",
        "card": card.state if card else "unknown",
        "changes": [asdict(change) for change in card.changes] if card else [],
        "reason": card.reason if card else "",
        "there": node.there,
        "next": node.next,
        "state": node.state,
        "findings": [asdict(note) for note in seen.notes] if seen else [],
        "address": seen.address if seen else "",
        "expected_address": seen.expected_address if seen else node.expected_address,
        "arch": seen.arch if seen else "",
        "docker": seen.version if seen else "",
        "progress": asdict(seen.progress) if seen and seen.progress else None,
        "report": asdict(seen.card) if seen and seen.card else None,
    }
