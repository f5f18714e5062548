"""The commands `batch` and `diff`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from imagebuilder.build.batch import Batch, NodeOutcome, OneImage, exit_code_of, outcome_as_json
from imagebuilder.build.manifest import plan_as_json
from imagebuilder.build.packages import PackageIndex
from imagebuilder.cli.help import Command
from imagebuilder.cli.options import (
    PATH,
    allow_http,
    allowed,
    chosen_nodes,
    classroom_file,
    dry_run,
    output_option,
    profile_folders,
    with_console,
)
from imagebuilder.cli.session import Session
from imagebuilder.errors import Problem, RpiImageError, SettingsError
from imagebuilder.progress import counted
from imagebuilder.settings.flags import NodeFlags

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from imagebuilder.cli.console import Console

out_folder = output_option("Folder for the images.", "build")


@click.command(cls=Command)
@classroom_file
@out_folder
@chosen_nodes
@profile_folders
@click.option(
    "-j",
    "--jobs",
    type=click.IntRange(1, 64),
    default=2,
    show_default=True,
    help="Images to write in parallel.",
)
@click.option(
    "--one-image", is_flag=True, help="One image for all nodes; each Pi finds its own settings."
)
@allow_http
@allowed
@dry_run
@with_console
def batch(
    console: Console,
    file: Path,
    output: Path,
    nodes: str,
    folders: Sequence[Path],
    jobs: int,
    allow_http: bool,
    allow: tuple[str, ...],
    one_image: bool,
    dry_run: bool,
) -> int:
    """Write OUTPUT/<hostname>.img for every node of FILE that is not up to date."""
    session = Session(console=console, allow_http=allow_http)
    flags = NodeFlags(config=file, profiles=tuple(folders), allow=allow)
    run = _batch(session, flags, output, write=not dry_run)
    run.jobs = jobs
    if one_image:
        return _show_one_image(console, run.run_class(nodes, dry_run=dry_run), len(run.roster()))
    outcomes = run.run(nodes, dry_run=dry_run)
    code = _show(console, outcomes, _row)
    if dry_run and not console.as_json:
        _show_ways(console, outcomes)
    return code


@click.command(cls=Command)
@classroom_file
@out_folder
@chosen_nodes
@click.option("--card", type=PATH, help="Compare this card: a device, folder or image.")
@profile_folders
@with_console
def diff(
    console: Console,
    file: Path,
    output: Path,
    nodes: str,
    card: Path | None,
    folders: Sequence[Path],
) -> int:
    """Show, file by file, what a batch would change since the last build in OUTPUT.

    For a card, or one node whose card was written: setting by setting, what differs from it.
    """
    from imagebuilder.flash.records.card_state import has_card

    if card or has_card(file, nodes):
        from imagebuilder.cli.commands.status import show_card_diff  # loads requests

        return show_card_diff(console, file, tuple(folders), nodes, card)
    flags = NodeFlags(config=file, profiles=tuple(folders))
    run = _batch(Session(console=console), flags, output, write=False)
    plans = run.plan(run.roster(nodes))
    changed = [plan for plan in plans if plan.state != "unchanged"]
    if not changed and not console.as_json:
        console.note(f"{counted(len(plans), 'node')}, all up to date")
    return _show(console, changed, _diff_row)


def _batch(session: Session, flags: NodeFlags, output: Path, *, write: bool) -> Batch:
    return Batch(
        classroom=session.classroom(flags, write=write),
        folder=output,
        obtain=session.obtain if write else session.find,
        epoch=session.epoch,
        reporter=session.console,
        index=PackageIndex(session.cache, session.console),
    )


def _show_one_image(console: Console, one: OneImage, nodes: int) -> int:
    for warning in one.plan.warnings:
        console.warn(warning)
    if console.as_json:
        fields = {"image": str(one.image), "state": one.state, "changes": list(one.changes)}
        console.emit({**fields, **plan_as_json(one.plan)})
    else:
        files = f"{len(one.plan.edits)} files"
        console.note(
            f"{counted(nodes, 'node')} in one image, {files}: {one.state}{_why(one.changes)}"
        )
        console.result(str(one.image))
    return 0


def _why(changes: tuple[str, ...]) -> str:
    return f" ({_summary(changes)})" if changes else ""


def _show(
    console: Console,
    outcomes: Sequence[NodeOutcome],
    row: Callable[[NodeOutcome], tuple[str, ...]],
) -> int:
    failed = [outcome for outcome in outcomes if outcome.error]
    for warning in sorted({warning for outcome in outcomes for warning in outcome.warnings}):
        console.warn(warning)
    if console.as_json:
        console.emit({"nodes": [outcome_as_json(outcome) for outcome in outcomes]})
    elif outcomes:
        console.table(_HEAD, [row(outcome) for outcome in outcomes])
    for error, names in _by_error(failed):
        console.fail(error, _named(names))
    return exit_code_of(outcomes)


def _show_ways(console: Console, outcomes: Sequence[NodeOutcome]) -> None:
    """Say on which way the nodes get their packages, once for those that are alike."""
    groups: dict[tuple[str, str], list[str]] = {}
    for outcome in outcomes:
        if outcome.packages:
            key = ", ".join(outcome.packages), outcome.packages_way
            groups.setdefault(key, []).append(outcome.hostname)
    for (packages, way), names in groups.items():
        console.note(f"{_named(names)}: {packages} installed at first boot {way}")


def _by_error(failed: Sequence[NodeOutcome]) -> list[tuple[RpiImageError, list[str]]]:
    """Return each error with the nodes that have it."""
    groups: dict[tuple[str, str, tuple[Problem, ...]], tuple[RpiImageError, list[str]]] = {}
    for outcome in failed:
        if error := outcome.error:
            problems = error.problems if isinstance(error, SettingsError) else ()
            key = (error.message, error.hint, problems)
            groups.setdefault(key, (error, []))[1].append(outcome.hostname)
    return list(groups.values())


def _named(names: Sequence[str]) -> str:
    if len(names) <= _MOST_NAMES:
        return ", ".join(names)
    return f"{', '.join(names[: _MOST_NAMES - 1])} and {len(names) - _MOST_NAMES + 1} more"


_MOST_NAMES = 4
_HEAD = ("node", "state", "profile", "address", "generation", "what")


def _row(outcome: NodeOutcome) -> tuple[str, ...]:
    what = _summary(outcome.changes) if outcome.state == "planned" else str(outcome.image)
    return (*_columns(outcome), outcome.error.message if outcome.error else what)


def _summary(changes: tuple[str, ...]) -> str:
    return changes[0] if len(changes) == 1 else f"{len(changes)} files differ"


def _diff_row(outcome: NodeOutcome) -> tuple[str, ...]:
    what = outcome.error.message if outcome.error else " ".join(outcome.changes)
    return (*_columns(outcome), what)


def _columns(outcome: NodeOutcome) -> tuple[str, ...]:
    settings = outcome.settings
    address = settings.network.address or "dhcp"
    generation = outcome.generation or ("" if outcome.error else "?")
    return (outcome.hostname, outcome.state, settings.profile, address, generation)
