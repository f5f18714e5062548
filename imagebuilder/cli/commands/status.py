"""The command `status`."""

from __future__ import annotations

from dataclasses import asdict, replace
from datetime import datetime
from typing import TYPE_CHECKING

import click

from imagebuilder.cli.commands.shack import kind_option, roster_of
from imagebuilder.cli.help import Command
from imagebuilder.cli.options import PATH, classroom_file, profile_folders, with_console
from imagebuilder.cli.session import Session
from imagebuilder.errors import NOT_AS_WANTED, InputError
from imagebuilder.flash.records.card_state import CardStates
from imagebuilder.flash.records.class_status import (
    ClassStatus,
    count_cards,
    status_as_json,
    watch_class,
)
from imagebuilder.flash.records.shared import class_ledger
from imagebuilder.shack.cluster import read_card
from imagebuilder.shack.folder import shack_of
from imagebuilder.shack.status import summarise

if TYPE_CHECKING:
    from pathlib import Path

    from imagebuilder.cli.console import Console
    from imagebuilder.flash.records.card_state import CardDiff
    from imagebuilder.flash.records.class_status import NodeOverview
    from imagebuilder.shack.folder import Kind


@click.command(cls=Command)
@classroom_file
@kind_option
@click.option("--watch", is_flag=True, help="Repeat until every node has joined.")
@click.option(
    "--interval", type=click.FloatRange(0.1, 3600), default=5.0, show_default=True,
    help="Seconds between two queries.",
)  # fmt: skip
@click.option(
    "--timeout", type=click.FloatRange(0.1, 600), default=5.0, show_default=True,
    help="Seconds to wait for an answer.",
)  # fmt: skip
@click.option(
    "--card", "cards", type=PATH, multiple=True,
    help="Card to read as well: mounted boot partition, device or image.",
)  # fmt: skip
@click.option("--check", is_flag=True, help="Exit with 8 unless everything is as wanted.")
@profile_folders
@with_console
def status(
    console: Console,
    *,
    file: Path,
    kind: Kind | None,
    watch: bool,
    interval: float,
    timeout: float,
    cards: tuple[Path, ...],
    check: bool,
    folders: tuple[Path, ...],
) -> int:
    """Show what each node of FILE should be, its card, whether it is there, and what to do next."""
    roster = roster_of(console, file, folders)
    if roster.shack or kind or watch:
        roster = replace(roster, shack=shack_of(roster, kind))
    reports = tuple(map(read_card, cards))
    pause = interval if watch else None
    states = CardStates(find=Session(console=console).find, secrets_read=False)
    looks = watch_class(roster, file, states, reports, timeout, pause, console)
    codes = [_show(console, seen, watch=watch) for seen in looks]
    return codes[-1] if check else 0


def show_card_diff(
    console: Console, file: Path, folders: tuple[Path, ...], node: str, card: Path | None
) -> int:
    """Print how a card differs from the classroom file; return 0."""
    if node and card:
        raise InputError("--node and --card exclude each other", "use one of them")
    states = CardStates(find=Session(console=console).find, secrets_read=False)
    roster = roster_of(console, file, folders)
    found = states.compare(roster, class_ledger(roster, file, console), node, card)
    if console.as_json:
        console.emit(_diff_report(found))
        return 0
    changes = found.card.changes
    if changes:
        console.table(_DIFF_HEAD, [(c.setting, c.before, c.after) for c in changes])
    reason = f" ({found.card.reason})" if found.card.reason else ""
    console.note(f"{found.hostname}: {found.card.state}{reason}")
    for event in found.history:
        where = event.card or event.serial or event.device
        console.detail(f"{event.when} {event.who} {event.state} {where} {event.error}".rstrip())
    return 0


_DIFF_HEAD = ("setting", "on the card", "in the file")


def _diff_report(found: CardDiff) -> dict[str, object]:
    return {
        "hostname": found.hostname,
        "card": found.card.state,
        "reason": found.card.reason,
        "changes": [asdict(change) for change in found.card.changes],
        "history": [asdict(event) for event in found.history],
    }


# ---- output


def _show(console: Console, seen: ClassStatus, *, watch: bool) -> int:
    """Print one look at the class; return the exit code of --check."""
    if console.as_json:
        console.emit(status_as_json(seen), on_one_line=watch)
    else:
        _show_rows(console, seen, watch=watch)
    # After the table, which clears the screen with --watch.
    if seen.warning:
        console.warn(seen.warning)
    console.out.flush()
    return 0 if seen.as_wanted else NOT_AS_WANTED


def _show_rows(console: Console, seen: ClassStatus, *, watch: bool) -> None:
    if watch and console.out.isatty():
        console.out.write("\x1b[H\x1b[2J")
    console.table(_HEAD, [_row(node) for node in seen.nodes])
    clock = datetime.now().astimezone().strftime("%H:%M:%S ") if watch else ""
    shack = _words(summarise(seen.rows)) or "no nodes expected"
    console.note(f"{clock}cards: {_words(count_cards(seen)) or 'none'}")
    if seen.answered:
        console.note(f"{clock}{shack}")


_HEAD = ("node", "there", "card", "address", "what", "next")


def _row(node: NodeOverview) -> tuple[str, ...]:
    card = node.card.state if node.card else ""
    address = (node.seen.address or node.seen.expected_address) if node.seen else ""
    there = "booting" if node.there == "booting" else node.state
    return (node.hostname, there, card, address, node.detail, node.next)


def _words(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {word}" for word, count in counts.items() if count)
