"""Compare the ledger's entry of a node with what the node should be."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from imagebuilder.build.boot_folder import BootFolder
from imagebuilder.build.config_hash import ConfigHashes
from imagebuilder.build.inspect import parse_node_env
from imagebuilder.build.wanted import (
    WantedSettings,
    changes_between,
    same_settings,
    settings_digest,
    wanted_hash,
)
from imagebuilder.errors import ImageError, RpiImageError
from imagebuilder.flash.records.ledger import FAILED, WRITING, WRITTEN, is_alive, ledger_of
from imagebuilder.flash.verify import identify, open_medium
from imagebuilder.plan.boot_files import read_boot_text
from imagebuilder.plan.card_layout import NODE_ENV
from imagebuilder.settings.flags import choose_nodes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from imagebuilder.build.config_hash import ConfigHash
    from imagebuilder.build.wanted import SettingChange
    from imagebuilder.flash.records.history import CardEvent
    from imagebuilder.flash.records.ledger import Ledger, LedgerEntry
    from imagebuilder.model import BaseImage, Classroom, ImageSource, NodeSettings

State = Literal["current", "outdated", "never", "failed", "unknown"]
TO_WRITE: frozenset[State] = frozenset({"outdated", "never", "failed"})
_MOST_NAMES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class CardState:
    """The card of a node: its state, what is outdated, or why it failed or is not known.

    `wanted` is the hash of what the node should be now.
    """

    state: State
    wanted: str
    changes: tuple[SettingChange, ...] = ()
    reason: str = ""
    entry: LedgerEntry | None = None

    @property
    def detail(self) -> str:
        """What is outdated or wrong, in a few words."""
        names = [change.setting for change in self.changes]
        if len(names) > _MOST_NAMES:
            names[_MOST_NAMES - 1 :] = [f"{len(names) - _MOST_NAMES + 1} more"]
        return self.reason or ", ".join(names)


@dataclass(frozen=True, slots=True)
class CardDiff:
    """How the card of a node differs from the file, and what was written for the node before."""

    hostname: str
    card: CardState
    history: tuple[CardEvent, ...]


@dataclass(kw_only=True)
class CardStates:
    """Compares many nodes with their entries.

    `find` returns a base image without network; it is used for entries of earlier versions only,
    which have no settings. Without `secrets_read`, missing secrets count as unchanged.
    """

    find: Callable[[ImageSource], BaseImage | None]
    secrets_read: bool = True
    _wanted: WantedSettings = field(init=False, default_factory=WantedSettings)

    def of(self, classroom: Classroom, entries: Iterable[LedgerEntry]) -> dict[str, CardState]:
        """Return the state of each card by hostname, in the order of the roster."""
        cards = {entry.node: entry for entry in entries}
        with ConfigHashes(find=self.find) as hashes:
            return {
                node.hostname: self._state(node, cards.get(node.hostname), hashes)
                for node in classroom.nodes
            }

    def compare(
        self, classroom: Classroom, ledger: Ledger, node: str = "", card: Path | None = None
    ) -> CardDiff:
        """Compare a node with its entry, or a card with the entry that it was written from.

        Raise RpiImageError if there is no such node or no node on the card.
        """
        entries = ledger.entries()
        if card:
            on_card = node_on_card(card)
            node = on_card["NODE_HOSTNAME"]
            found = on_card.get("RPI_IMAGE_HASH", ""), on_card.get("RPI_IMAGE_BUILT", "")
            entries = tuple(entry for entry in entries if entry.is_on(*found))
        chosen = replace(classroom, nodes=choose_nodes(classroom, node)[:1])
        state = self.of(chosen, entries)[chosen.nodes[0].hostname]
        if card and state.entry is None:
            reason = "the ledger does not know this card"
            state = replace(state, state="unknown", reason=reason)
        return CardDiff(node, state, ledger.history(node))

    def _state(
        self, node: NodeSettings, entry: LedgerEntry | None, hashes: ConfigHashes
    ) -> CardState:
        try:
            wanted = self._wanted.of(node)
        except RpiImageError as error:
            return CardState(state="unknown", wanted="", reason=error.message, entry=entry)
        planned = hashes.of(node) if entry and _needs_hash(entry) else None
        return card_state(entry, wanted, planned, secrets_read=self.secrets_read)


def has_card(config: Path, node: str) -> bool:
    """Return whether the ledger of a classroom file knows a node with exactly this name."""
    return any(entry.node == node for entry in ledger_of(config).entries())


def node_on_card(path: Path) -> Mapping[str, str]:
    """Return what a card or its mounted boot partition says about its node.

    Raise ImageError if it has none.
    """
    if path.is_dir():
        found = parse_node_env(read_boot_text(BootFolder(path), NODE_ENV, errors="replace"))
    else:
        with open_medium(path) as (_, disk):
            found = dict(identify(disk).node)
    if not found.get("NODE_HOSTNAME"):
        raise ImageError(f"{path} has no node of rpi-image", "see `rpi-image inspect`")
    return found


def _needs_hash(entry: LedgerEntry) -> bool:
    return entry.state == WRITTEN and not (entry.recorded or entry.settings_hash)


def card_state(
    entry: LedgerEntry | None,
    wanted: Mapping[str, str],
    planned: ConfigHash | None = None,
    *,
    secrets_read: bool = True,
) -> CardState:
    """Return the state of a card; `planned` is needed for an entry without settings."""
    digest = wanted_hash(wanted)
    if entry is None:
        return CardState(state="never", wanted=digest)
    if entry.state == WRITTEN and entry.recorded:
        changes = changes_between(entry.recorded, wanted, secrets_read=secrets_read)
        state: State = "outdated" if changes else "current"
        return CardState(state=state, wanted=digest, changes=changes, entry=entry)
    if entry.state == WRITTEN and entry.settings_hash:
        now = settings_digest(wanted)
        same = same_settings(entry.settings_hash, now, secrets_read=secrets_read)
        reason = "" if same else "written by another station"
        there: State = "outdated" if reason else "current"
        return CardState(state=there, wanted=digest, reason=reason, entry=entry)
    state, reason = _without_settings(entry, planned)
    return CardState(state=state, wanted=digest, reason=reason, entry=entry)


def _without_settings(entry: LedgerEntry, planned: ConfigHash | None) -> tuple[State, str]:
    if entry.state == WRITING:
        if is_alive(entry):
            return "unknown", "being written"
        return "failed", "the program that wrote it has ended"
    if entry.state == FAILED:
        return "failed", entry.error
    if entry.state == WRITTEN and planned and entry.config_hash == planned.text:
        return "current", ""
    if entry.state == WRITTEN and planned and planned.exact:
        return "outdated", "the configuration"
    return "unknown", "written by an earlier version of rpi-image"
