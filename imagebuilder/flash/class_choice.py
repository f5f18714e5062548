"""Choose the nodes of a class to write, with the ledger and what is outdated in it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from imagebuilder.errors import InputError
from imagebuilder.flash.choice import choose_card_nodes
from imagebuilder.flash.claims import CardClaims
from imagebuilder.flash.records.card_state import TO_WRITE, CardStates
from imagebuilder.flash.records.ledger import ledger_of
from imagebuilder.flash.records.shared import class_ledger
from imagebuilder.flash.records.station_screen import StationScreen

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from imagebuilder.flash.records.ledger import Ledger, LedgerEntry
    from imagebuilder.model import BaseImage, Classroom, ImageSource, NodeSettings
    from imagebuilder.progress import Prompter


@dataclass(frozen=True, slots=True)
class ClassChoice:
    """Nodes to write; `outdated` has the entries of those whose card may be written again."""

    classroom: Classroom
    nodes: tuple[NodeSettings, ...]
    ledger: Ledger | None
    outdated: Mapping[str, LedgerEntry]

    def claims(
        self, prompter: Prompter, *, again: bool, named: bool = False, epoch: int = 0
    ) -> CardClaims:
        """Return the claims of a run on these nodes."""
        return CardClaims(
            self.ledger, prompter, again=again, named=named, epoch=epoch, outdated=self.outdated
        )


def choose_class(
    classroom: Classroom,
    names: str,
    config: Path | None,
    prompter: Prompter,
    outdated: Callable[[ImageSource], BaseImage | None] | None = None,
) -> ClassChoice:
    """Return the nodes in `names`, by default all, and the ledger beside `config`.

    With `outdated`, which finds base images without network, only nodes whose card is not as in the
    file.
    """
    nodes = choose_card_nodes(classroom, names)
    if outdated and not config:
        raise InputError("--outdated needs a roster", "use -c FILE")
    ledger = class_ledger(classroom, config, prompter, prompter) if config else None
    if outdated is None or ledger is None:
        return ClassChoice(classroom, nodes, ledger, {})
    states = CardStates(find=outdated).of(replace(classroom, nodes=nodes), ledger.entries())
    chosen = tuple(node for node in nodes if states[node.hostname].state in TO_WRITE)
    entries = {node.hostname: states[node.hostname].entry for node in chosen}
    return ClassChoice(classroom, chosen, ledger, {k: e for k, e in entries.items() if e})


def station_screen(classroom: Classroom, config: Path | None) -> StationScreen:
    """Return the screen of a station that writes cards of a class."""
    return StationScreen(
        ledger=ledger_of(config).path if config else None,
        roster=tuple(node.hostname for node in classroom.nodes),
        owners={node.hostname: node.owner for node in classroom.nodes},
    )
