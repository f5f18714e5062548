"""Decide which node may be written to which card, and record it in the ledger."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from imagebuilder.build.inspect import inspect_folder
from imagebuilder.build.wanted import changes_between
from imagebuilder.devices.device import describe
from imagebuilder.errors import RefusedError, RpiImageError, WriteError
from imagebuilder.files import has_folder
from imagebuilder.flash.jobs import reason_of
from imagebuilder.flash.records.ledger import (
    FAILED,
    WRITTEN,
    Ledger,
    LedgerEntry,
    UnusableCardError,
    is_alive,
)
from imagebuilder.flash.verify import identify, open_medium
from imagebuilder.flash.writer import Stage
from imagebuilder.progress import counted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from imagebuilder.devices.device import Device
    from imagebuilder.flash.jobs import Content, Outcome, Report
    from imagebuilder.model import NodeSettings
    from imagebuilder.progress import Reporter


@dataclass(frozen=True, slots=True, kw_only=True)
class _Claim:
    """A card being written: its entry, the previous entry of its node, and the card's owner."""

    entry: LedgerEntry
    before: LedgerEntry | None
    owner: LedgerEntry | None


class CardClaims:
    """The claims of one run on nodes and cards; without a ledger nothing is recorded.

    `again` allows nodes that have a card and cards of other nodes; `named` only such nodes.
    `outdated` has nodes whose card may be written again, with its entry when that was decided.
    """

    def __init__(
        self,
        ledger: Ledger | None,
        reporter: Reporter,
        *,
        again: bool,
        named: bool = False,
        epoch: int = 0,
        outdated: Mapping[str, LedgerEntry] | None = None,
    ) -> None:
        self._ledger = ledger
        self._epoch = epoch
        self._reporter = reporter
        self._again = again
        self._named = named
        self._rewrites = again or named
        self._outdated = outdated or {}
        self._claims: dict[str, _Claim] = {}
        self._written: set[str] = set()

    def pending(self, names: Sequence[str]) -> tuple[str, ...]:
        """Return the nodes without a card. Raise RefusedError if there is none."""
        done = self._ledger.done() if self._ledger and not self._rewrites else frozenset()
        left = tuple(name for name in names if name not in done or name in self._outdated)
        if not left:
            raise RefusedError("every node has a card", "use --again to write them again")
        return left

    def free_nodes(self, nodes: Sequence[NodeSettings], count: int) -> deque[NodeSettings]:
        """Return the nodes that may be written. Raise RefusedError if fewer than `count`."""
        names = self.pending([node.hostname for node in nodes])
        if count > len(names):
            nodes_left = counted(len(names), "node")
            raise RefusedError(f"{count} devices for {nodes_left}", "use as many devices as nodes")
        return deque(node for node in nodes if node.hostname in names)

    def others(self, names: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return which nodes are free, and which ones other programs are writing just now."""
        entries = {entry.node: entry for entry in self._entries() if entry.node in names}
        busy = tuple(name for name in names if name in entries and is_alive(entries[name]))
        done = {name for name, entry in entries.items() if entry.state == WRITTEN}
        return tuple(name for name in names if name not in done and name not in busy), busy

    def check(self, content: Content, device: Device) -> None:
        """Raise RefusedError if `begin` would, before the user is asked; warn of a second card."""
        if self._ledger is None:
            return
        owner = self._owner_of(content, device)
        outdated = self._outdated.get(content.node)
        last = self._ledger.last(content.node, again=self._rewrites, outdated=outdated)
        if (self._named or outdated) and last and last.state == WRITTEN and owner != last:
            where = f"{last.card or last.device} on {last.finished}"
            self._reporter.warn(f"{last.node} was written to {where}: it will have two cards")

    def begin(self, content: Content, device: Device) -> None:
        """Record that a node is being written. Raise RefusedError if node or card is done."""
        if self._ledger is None:
            return
        owner = self._owner_of(content, device)
        entry = replace(_entry(content, device), built=str(self._epoch))
        try:
            outdated = self._outdated.get(content.node)
            before = self._ledger.claim(entry, again=self._rewrites, outdated=outdated)
        except WriteError as error:
            hint = f"{error.hint}; nothing was written to {device.path}"
            raise WriteError(error.message, hint) from error
        self._claims[content.node] = _Claim(entry=entry, before=before, owner=owner)
        if owner:
            self._reporter.note(f"{device.path} was {owner.node}: {_difference(owner, entry)}")

    def owner_name(self, device: Device) -> str:
        """Return the node that the ledger knows a card as; empty if it does not."""
        owner = self._owner(device)
        return owner.node if owner else ""

    def _owner_of(self, content: Content, device: Device) -> LedgerEntry | None:
        """Return the owner of a card. Raise RefusedError if it must not be overwritten."""
        owner = self._owner(device)
        if owner and owner.node in self._written:
            raise RefusedError(
                f"{device.path}: this card was just written for {owner.node}", "use another card"
            )
        if owner and owner.node != content.node and not self._again:
            raise RefusedError(
                f"{device.path}: this card is {owner.node}, written {owner.finished}",
                "use another card, or --again to overwrite it",
            )
        return owner

    def take_back(self) -> None:
        """Undo all claims, before any card was changed."""
        while self._ledger and self._claims:
            claim = self._claims.popitem()[1]
            try:
                _restore(self._ledger, claim)
            except RpiImageError as error:
                self._reporter.warn(f"{error.message}: {claim.entry.node} was not written")

    def end(self, outcome: Outcome) -> UnusableCardError | None:
        """Record the result of a card; return why it must not be used, if so.

        If the ledger cannot be written, only warn.
        """
        if self._ledger is None:
            return None
        claim = self._claims.pop(outcome.job.node)
        entry = claim.entry
        if outcome.stage != Stage.CLAIM:
            self._lose(*_overwritten(claim))
        try:
            if outcome.report:
                self._written.add(entry.node)
                self._ledger.settle(_finished(entry, outcome.report), *_overwritten(claim))
            elif outcome.stage == Stage.CLAIM:
                _restore(self._ledger, claim)
            else:
                failed = replace(entry, state=FAILED, error=reason_of(outcome), finished=_now())
                self._ledger.settle(failed, *_overwritten(claim))
        except UnusableCardError as error:
            self._written.discard(entry.node)
            return error
        except RpiImageError as error:
            self._reporter.warn(f"{error.message}: {entry.node} on {entry.device} was not recorded")
        return None

    def _lose(self, lost: LedgerEntry | None, reason: str) -> None:
        """Mark the previous entry of a node as lost if its card was overwritten in this run."""
        for node, claim in self._claims.items():
            if lost and claim.before == lost:
                gone = replace(lost, state=FAILED, error=reason)
                self._claims[node] = replace(claim, before=gone)

    def _owner(self, device: Device) -> LedgerEntry | None:
        """Return the ledger's entry of this card; None if there is none or it cannot be read."""
        try:
            node = _node_on(Path(device.path))
        except RpiImageError:
            return None
        found = node.get("RPI_IMAGE_HASH", ""), node.get("RPI_IMAGE_BUILT", "")
        known = [*(claim.before for claim in self._claims.values()), *self._entries()]
        return next((entry for entry in known if entry and entry.is_on(*found)), None)

    def _entries(self) -> tuple[LedgerEntry, ...]:
        return self._ledger.entries() if self._ledger else ()


def _node_on(card: Path) -> Mapping[str, str]:
    if has_folder(card):
        return inspect_folder(card).node
    with open_medium(card) as (_, disk):
        return identify(disk).node


def _difference(before: LedgerEntry, after: LedgerEntry) -> str:
    """Return what a card that is written again will change, setting by setting."""
    if not before.recorded:
        return f"written {before.finished}"
    changes = changes_between(before.recorded, after.recorded)
    return "; ".join(map(str, changes)) or "no setting changes"


def _restore(ledger: Ledger, claim: _Claim) -> None:
    """Restore the previous entry; the card was not changed."""
    if claim.before:
        ledger.restore(claim.before)
    else:
        ledger.forget(claim.entry.node)


def _overwritten(claim: _Claim) -> tuple[LedgerEntry | None, str]:
    """Return the entry of the node that owned this card, and the reason of its loss."""
    owner = claim.owner
    if owner is None or owner.node == claim.entry.node:
        return None, ""
    return owner, f"its card was overwritten with {claim.entry.node}"


def _entry(content: Content, device: Device) -> LedgerEntry:
    return LedgerEntry(
        node=content.node,
        state="",
        device=device.path,
        slot=device.slot,
        card=describe(device).partition(" ")[2].strip("()"),
        config_hash=content.config_hash,
        base_sha256=content.base_sha256,
        serial=device.serial,
        settings=content.settings,
        started=_now(),
    )


def _finished(entry: LedgerEntry, report: Report) -> LedgerEntry:
    return replace(
        entry,
        state=WRITTEN,
        digest=report.digest,
        bytes_written=report.written_bytes,
        seconds=round(report.seconds, 1),
        finished=_now(),
    )


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")
