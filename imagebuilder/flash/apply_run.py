"""Run `apply`: from a folder or drive to a card that is another node; no command line."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

from imagebuilder.build.apply import apply_plan, check_boot_folder, plan_apply
from imagebuilder.build.boot_folder import BootFolder
from imagebuilder.build.wanted import WantedSettings, as_recorded
from imagebuilder.devices.volumes import (
    Volume,
    eject,
    mounted_volumes,
    refuse_volume,
    serial_of,
    volume_at,
)
from imagebuilder.errors import InputError, RpiImageError
from imagebuilder.flash.choice import choose_card_nodes
from imagebuilder.flash.records.ledger import FAILED, WRITTEN, LedgerEntry
from imagebuilder.flash.records.shared import class_ledger
from imagebuilder.progress import agree
from imagebuilder.settings.flags import check_names

if TYPE_CHECKING:
    from pathlib import Path

    from imagebuilder.build.apply import ApplyPlan
    from imagebuilder.flash.records.ledger import Ledger
    from imagebuilder.model import Classroom, NodeSettings, OverlayFile
    from imagebuilder.progress import Prompter
    from imagebuilder.settings.flags import NodeFlags


class Workspace(Protocol):
    """What a run needs from its caller."""

    @property
    def epoch(self) -> int:
        """The build time, in seconds since 1970."""

    def packages(self, node: NodeSettings) -> tuple[OverlayFile, ...]:
        """Return the packages that a card of the node brings along."""

    def classroom(self, flags: NodeFlags, *, write: bool = True) -> Classroom:
        """Return the classroom of the flags; missing keys are stored if `write` is set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplyOptions:
    """The flags of `apply` that are not settings of nodes."""

    node: str = ""
    yes: bool = False
    dry_run: bool = False
    eject: bool = False
    this_machine: bool = False
    queue: bool = False
    again: bool = False
    outdated: bool = False


@dataclass(frozen=True, slots=True)
class MountedCard:
    """A card with the plan of its node; `settings` is for the ledger."""

    volume: Volume
    serial: str
    boot: BootFolder
    plan: ApplyPlan
    classroom: Classroom
    settings: str = ""


@dataclass(kw_only=True)
class ApplyRun:
    """One run of `apply`; `volumes` are the mounted partitions to choose from."""

    workspace: Workspace
    prompter: Prompter
    flags: NodeFlags
    options: ApplyOptions
    volumes: tuple[Volume, ...] | None = None

    def prepare(self, folder: Path | None) -> MountedCard:
        """Return the card in a folder, by default the only one, with its plan; write nothing."""
        if self.options.outdated:
            raise InputError("--outdated needs --queue", "name the node with --node")
        check_names(self.flags, self.options.node)
        volume = volume_at(folder) if folder else self._only_card()
        refuse_volume(volume, this_machine=self.options.this_machine)
        boot = BootFolder(volume.folder, keeps_unlinked=volume.keeps_unlinked)
        check_boot_folder(boot)
        classroom = self.workspace.classroom(self.flags, write=not self.options.dry_run)
        node = self._node(classroom)
        workspace = self.workspace
        plan = plan_apply(boot, node, workspace.epoch, packages=workspace.packages(node))
        for warning in plan.node.warnings:
            self.prompter.warn(warning)
        settings = as_recorded(WantedSettings().of(node))
        return MountedCard(volume, serial_of(volume), boot, plan, classroom, settings)

    def write(self, card: MountedCard) -> bool:
        """Write the plan of a card and record it; return whether the card was ejected."""
        self._confirm(card)
        ledger = self._ledger(card.classroom)
        entry = self._entry(card)
        if ledger:
            self._warn_of_two(ledger.claim(entry, again=True), card)
        try:
            apply_plan(card.boot, card.plan, self.prompter)
        except RpiImageError as error:
            if ledger:
                ledger.settle(_finished(entry, FAILED, error.message))
            raise
        if ledger:
            lost = _earlier_node(ledger, card)
            ledger.settle(
                _finished(entry, WRITTEN), lost, f"its card was overwritten with {entry.node}"
            )
        return self.options.eject and self._ejected(card)

    def _only_card(self) -> Volume:
        volumes = mounted_volumes() if self.volumes is None else self.volumes
        cards = [volume for volume in volumes if _is_card(volume)]
        if len(cards) == 1:
            self.prompter.note(f"the card is in {cards[0].folder}")
            return cards[0]
        if not cards:
            raise InputError(
                "no mounted boot partition was found", "insert a card, or name its folder or drive"
            )
        names = ", ".join(str(volume.folder) for volume in cards)
        raise InputError(f"there are {len(cards)} boot partitions: {names}", "name one of them")

    def _node(self, classroom: Classroom) -> NodeSettings:
        nodes = choose_card_nodes(classroom, self.options.node)
        if len(nodes) != 1:
            raise InputError(f"{len(nodes)} nodes to choose from", "choose one with --node")
        return nodes[0]

    def _confirm(self, card: MountedCard) -> None:
        """Ask before a card of another node is changed."""
        old, new = card.plan.hostname, card.plan.node.hostname
        if old and old != new and not self.options.yes:
            agree(f"{card.volume.folder} is {old}. Type {new} to change it:", new, self.prompter)

    def _ledger(self, classroom: Classroom) -> Ledger | None:
        config, ask = self.flags.config, self.prompter
        return class_ledger(classroom, config, ask, ask) if config else None

    def _entry(self, card: MountedCard) -> LedgerEntry:
        return LedgerEntry(
            node=card.plan.node.hostname,
            state="",
            device=str(card.volume.folder.absolute()),
            card=card.serial,
            serial=card.serial,
            settings=card.settings,
            config_hash=card.plan.node.config_hash,
            built=str(self.workspace.epoch),
            bytes_written=sum(c.size_bytes for c in card.plan.changes if c.status != "same"),
            started=_now(),
        )

    def _warn_of_two(self, last: LedgerEntry | None, card: MountedCard) -> None:
        if last and last.state == WRITTEN and card.plan.hostname != last.node:
            self.prompter.warn(f"{last.node} has another card, written {last.finished}")

    def _ejected(self, card: MountedCard) -> bool:
        done = eject(card.volume)
        if not done:
            self.prompter.warn(f"{card.volume.folder} was not ejected: eject it before removing it")
        return done


def _is_card(volume: Volume) -> bool:
    """Return whether a volume is a boot partition that may be written."""
    try:
        refuse_volume(volume)
        check_boot_folder(BootFolder(volume.folder))
    except (RpiImageError, OSError):
        return False
    return True


def _earlier_node(ledger: Ledger, card: MountedCard) -> LedgerEntry | None:
    """Return the entry of the other node that this card was.

    The serial number of its volume does not tell: all cards from one image have the same.
    """
    name, earlier = card.plan.hostname, card.plan.earlier_hash
    if not earlier or name == card.plan.node.hostname:
        return None
    entries = (e for e in ledger.entries() if e.state == WRITTEN and e.node == name)
    return next((entry for entry in entries if entry.config_hash == earlier), None)


def _finished(entry: LedgerEntry, state: str, error: str = "") -> LedgerEntry:
    return replace(entry, state=state, error=error, finished=_now())


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")
