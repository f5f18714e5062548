"""The command `apply`, which makes a card that is written already a node."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from imagebuilder.cli.help import Command
from imagebuilder.cli.options import dry_run, node_option, node_options, with_console, yes
from imagebuilder.cli.session import Session
from imagebuilder.progress import counted

if TYPE_CHECKING:
    from imagebuilder.cli.console import Console
    from imagebuilder.flash.apply_run import MountedCard
    from imagebuilder.settings.flags import NodeFlags


@click.command(cls=Command)
@click.argument("folder", required=False, type=click.Path(path_type=Path, readable=False))
@node_option
@node_options
@dry_run
@yes
@click.option("--eject", is_flag=True, help="Eject the finished card.")
@click.option("--this-machine", is_flag=True, help="Allow the boot partition of this Raspberry Pi.")
@with_console
def apply(console: Console, flags: NodeFlags, folder: Path | None, **options: Any) -> None:
    """Make a card that is written already a node.

    FOLDER is its boot partition as this computer shows it, for example E:, /Volumes/bootfs or
    /media/ann/bootfs; by default the only one.
    """
    from imagebuilder.flash.apply_run import ApplyOptions, ApplyRun

    run = ApplyRun(
        workspace=Session(console=console, allow_http=flags.allow_http),
        prompter=console,
        flags=flags,
        options=ApplyOptions(**options),
    )
    card = run.prepare(folder)
    ejected = None if run.options.dry_run else run.write(card)
    _show_card(console, card, ejected)


def _show_card(console: Console, card: MountedCard, ejected: bool | None) -> None:
    """Print what was done, or with `ejected` as None what would be."""
    plan = card.plan
    changed = [change for change in plan.changes if change.status != "same"]
    if console.as_json:
        console.emit(_card_as_json(card, ejected))
        return
    if ejected is None:
        rows = [(c.path, c.status, f"{c.size_bytes} B") for c in plan.changes]
        console.table(("file on the boot partition", "what", "size"), rows)
    where = f"{card.volume.folder} {'would be' if ejected is None else 'is'} {plan.node.hostname}"
    done = "it has this configuration already" if plan.is_current else _counts(changed)
    console.result(f"{where} ({plan.node.generation}): {done}")


def _counts(changed: list[Any]) -> str:
    kinds = ("new", "changed", "removed")
    found = {kind: sum(change.status == kind for change in changed) for kind in kinds}
    told = ", ".join(f"{number} {kind}" for kind, number in found.items() if number)
    return f"{counted(len(changed), 'file')}{f' ({told})' if told else ''}"


def _card_as_json(card: MountedCard, ejected: bool | None) -> dict[str, Any]:
    """Return the JSON; its keys are stable."""
    plan = card.plan
    return {
        "folder": str(card.volume.folder),
        "serial": card.serial,
        "hostname": plan.node.hostname,
        "before": plan.hostname,
        "generation": plan.node.generation,
        "config_hash": plan.node.config_hash,
        "written": ejected is not None and not plan.is_current,
        "ejected": bool(ejected),
        "warnings": list(plan.node.warnings),
        "files": [
            {"path": change.path, "what": change.status, "bytes": change.size_bytes}
            for change in plan.changes
        ],
    }
