"""The command `apply`, which makes a card that is written already a node."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from imagebuilder.cli.help import Command
from imagebuilder.cli.options import dry_run, node_option, node_options, with_console, yes
from imagebuilder.cli.session import Session
from imagebuilder.progress import counted, human_bytes

if TYPE_CHECKING:
    from imagebuilder.cli.console import Console
    from imagebuilder.flash.apply_queue import FolderOutcome
    from imagebuilder.flash.apply_run import ApplyOptions, MountedCard
    from imagebuilder.settings.flags import NodeFlags


@click.command(cls=Command)
@click.argument("folder", required=False, type=click.Path(path_type=Path, readable=False))
@node_option
@node_options
@dry_run
@yes
@click.option("--eject", is_flag=True, help="Eject the finished card.")
@click.option("--queue", is_flag=True, help="Make every card that is inserted the next node.")
@click.option("--again", is_flag=True, help="With --queue: nodes that have a card, too.")
@click.option("--outdated", is_flag=True, help="With --queue: nodes whose card is not as in FILE.")
@click.option("--this-machine", is_flag=True, help="Allow the boot partition of this Raspberry Pi.")
@with_console
def apply(console: Console, flags: NodeFlags, folder: Path | None, **options: Any) -> None:
    """Make a card that is written already a node.

    FOLDER is its boot partition as this computer shows it, for example E:, /Volumes/bootfs or
    /media/ann/bootfs; by default the only one.
    """
    from imagebuilder.flash.apply_run import ApplyOptions, ApplyRun

    session = Session(console=console, allow_http=flags.allow_http)
    chosen = ApplyOptions(**options)
    if chosen.queue:
        _serve(console, session, flags, chosen, folder)
        return
    run = ApplyRun(workspace=session, prompter=console, flags=flags, options=chosen)
    card = run.prepare(folder)
    ejected = None if run.options.dry_run else run.write(card)
    _show_card(console, card, ejected)


def _serve(
    console: Console, session: Session, flags: NodeFlags, options: ApplyOptions, folder: Path | None
) -> None:
    from imagebuilder.flash.apply_queue import ApplyQueue

    def finished(outcome: FolderOutcome) -> None:
        if outcome.report and not console.as_json:
            console.result(f"{outcome.job.device.path} is {outcome.job.node}")
        if outcome.error:
            console.fail(outcome.error)

    queue = ApplyQueue(
        workspace=session, prompter=console, flags=flags, options=options, finished=finished
    )
    outcomes = queue.run(folder)
    if console.as_json:
        console.emit({"cards": [_outcome_as_json(outcome) for outcome in outcomes]})


def _outcome_as_json(outcome: FolderOutcome) -> dict[str, Any]:
    """Return the JSON; its keys are stable."""
    report, error = outcome.report, outcome.error
    return {
        "folder": outcome.job.device.path,
        "serial": outcome.job.device.model,
        "hostname": outcome.job.node,
        "before": outcome.job.plan.hostname,
        "written": report is not None,
        "ejected": bool(report and report.ejected),
        "error": error.message if error else "",
        "hint": error.hint if error else "",
        "exit_code": error.exit_code if error else 0,
    }


def _show_card(console: Console, card: MountedCard, ejected: bool | None) -> None:
    """Print what was done, or with `ejected` as None what would be."""
    plan = card.plan
    changed = [change for change in plan.changes if change.status != "same"]
    if console.as_json:
        console.emit(_card_as_json(card, ejected))
        return
    if ejected is None:
        rows = [(c.path, c.status, human_bytes(c.size_bytes)) for c in plan.changes]
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
