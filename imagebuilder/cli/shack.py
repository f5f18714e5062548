"""The commands about the instructor's machine: shack, export, labels, status."""

from __future__ import annotations

import os
import time
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from imagebuilder.cli.options import dry_run, on_disk, with_console
from imagebuilder.errors import InputError, SourceError
from imagebuilder.files import write_text
from imagebuilder.plan.overlays import load_overlay
from imagebuilder.resources import shipped_folder
from imagebuilder.settings.load import load_classroom, read_classroom
from imagebuilder.shack.cluster import gather, read_card
from imagebuilder.shack.exports import EXPORTS, write_exports
from imagebuilder.shack.folder import has_open_socket, plan_shack, shack_of, write_shack
from imagebuilder.shack.keystore import client_bundle, with_identities
from imagebuilder.shack.labels import PAPERS, render_labels, write_labels_pdf
from imagebuilder.shack.services import uses_tls
from imagebuilder.shack.status import (
    ClusterState,
    NodeStatus,
    compare,
    everyone_joined,
    summarise,
    with_cards,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from imagebuilder.cli.console import Console
    from imagebuilder.model import Classroom
    from imagebuilder.shack.folder import Kind
    from imagebuilder.shack.status import PiReport

_PATH = click.Path(path_type=Path)
_file = click.argument("file", type=_PATH)
_profiles = click.option(
    "--profiles", "folders", type=_PATH, multiple=True, help="Folder of your own profiles."
)
_kind = click.option(
    "--kind",
    type=click.Choice(["classic", "swarm-mode"]),
    help="consul and classic Swarm, or Docker's swarm mode; default: what FILE says.",
)


@click.command()
@_file
@click.option(
    "-o", "--output", type=_PATH, callback=on_disk, default=Path("shack"), show_default=True,
    help="Folder to write.",
)  # fmt: skip
@_kind
@_profiles
@dry_run
@with_console
def shack(
    console: Console,
    file: Path,
    output: Path,
    kind: Kind | None,
    folders: tuple[Path, ...],
    dry_run: bool,
) -> None:
    """Write what the instructor's machine runs for the class of FILE: make up starts it."""
    classroom = _with_whole_path(
        load_classroom(
            file, environment=os.environ, ask=console.ask_secret, profile_folders=folders
        )
    )
    templates = load_overlay(shipped_folder("overlays") / "shack")
    files = plan_shack(classroom, templates, kind, write=not dry_run)
    if not dry_run:
        write_shack(files, templates, output)
        _warn_about_shack(console, classroom, kind, output)
    _list_files(console, [output / made.path for made in files])


@click.command()
@_file
@click.option(
    "--format",
    "formats",
    type=click.Choice(list(EXPORTS)),
    multiple=True,
    help="Only this format (more than once for several); default: all.",
)
@click.option(
    "-o", "--output", type=_PATH, callback=on_disk, help="Folder for the files; default: export."
)
@_profiles
@with_console
def export(
    console: Console,
    file: Path,
    formats: tuple[str, ...],
    output: Path | None,
    folders: tuple[Path, ...],
) -> None:
    """Write the roster of FILE for other tools; one format without -o goes to stdout."""
    classroom = with_identities(_roster(file, folders))
    if uses_tls(classroom):
        client_bundle(classroom)
    if len(formats) == 1 and output is None:
        console.out.write(EXPORTS[formats[0]].render(classroom, Path.cwd()))
    else:
        names = formats or tuple(EXPORTS)
        _list_files(console, write_exports(classroom, names, output or Path("export")))


@click.command()
@_file
@click.option(
    "-o", "--output", type=_PATH, callback=on_disk, default=Path("labels.html"), show_default=True,
    help="HTML file, or PDF where chromium or weasyprint is installed.",
)  # fmt: skip
@click.option(
    "--paper", type=click.Choice(list(PAPERS)), default="a4", show_default=True, help="Label sheet."
)
@click.option("--skip", type=click.IntRange(0, 1000), default=0, help="Labels used already.")
@_profiles
@with_console
def labels(
    console: Console, file: Path, output: Path, paper: str, skip: int, folders: tuple[Path, ...]
) -> None:
    """Write a sheet of labels for the cards of FILE, to scale, with a QR code each."""
    page = render_labels(_roster(file, folders), PAPERS[paper], skip % PAPERS[paper].count)
    if output.suffix.lower() == ".pdf":
        write_labels_pdf(page, output, os.environ.get("PATH", os.defpath), console)
    elif output.suffix.lower() in (".html", ".htm"):
        write_text(output, page)
    else:
        raise InputError(f"{output} is neither HTML nor PDF", "give -o labels.html or labels.pdf")
    _list_files(console, [output])


@click.command()
@_file
@_kind
@click.option("--watch", is_flag=True, help="Ask again until every node has joined.")
@click.option(
    "--interval", type=click.FloatRange(0.1, 3600), default=5.0, show_default=True,
    help="Seconds between two looks.",
)  # fmt: skip
@click.option(
    "--timeout", type=click.FloatRange(0.1, 600), default=5.0, show_default=True,
    help="Seconds to wait for an answer.",
)  # fmt: skip
@click.option(
    "--card", "cards", type=_PATH, multiple=True,
    help="Card to read as well: its mounted boot folder, its device or an image.",
)  # fmt: skip
@_profiles
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
    folders: tuple[Path, ...],
) -> None:
    """Ask the shack of FILE which nodes have joined, which are missing and which are not well."""
    classroom, reports = _roster(file, folders), tuple(map(read_card, cards))
    classroom = replace(classroom, shack=shack_of(classroom, kind))
    look = _looker(classroom, timeout, reports, forgiving=watch)
    while not _show(console, classroom, look(), watch=watch) and watch:
        time.sleep(interval)


# ---- how they speak


def _roster(file: Path, folders: tuple[Path, ...]) -> Classroom:
    """Read who is in the class; nobody is asked for a passphrase to print a label."""
    reading = read_classroom(file, environment=os.environ, profile_folders=folders, checking=True)
    return _with_whole_path(
        reading.classroom or load_classroom(file, environment=os.environ, profile_folders=folders)
    )


def _with_whole_path(classroom: Classroom) -> Classroom:
    """Name file and secrets so that what is written is right wherever it is read."""
    path = classroom.path.parent.resolve() / classroom.path.name
    return replace(classroom, path=path, secrets=classroom.secrets.resolve())


def _warn_about_shack(
    console: Console, classroom: Classroom, kind: Kind | None, folder: Path
) -> None:
    chosen = shack_of(classroom, kind)
    if has_open_socket(classroom):
        console.warn("the nodes' Docker sockets ask for no password: keep this network closed")
    if classroom.shack and chosen.kind != classroom.shack.kind:
        console.warn(
            f"the cards join a {classroom.shack.kind} cluster: set shack.kind in "
            f"{classroom.path.name} to {chosen.kind} and build them again"
        )
    console.note(f"start it on {chosen.address} with: make -C {folder} up")


def _list_files(console: Console, paths: Any) -> None:
    if console.as_json:
        console.emit([str(path) for path in paths])
    else:
        for path in paths:
            console.result(str(path))


@dataclass(frozen=True, slots=True)
class _Seen:
    """One look; `rows` is None where nothing could be seen."""

    gathering: ClusterState | None
    rows: tuple[NodeStatus, ...] | None
    warning: str = ""


def _looker(
    classroom: Classroom, timeout: float, cards: tuple[PiReport, ...], *, forgiving: bool
) -> Callable[[], _Seen]:
    """Return a function that looks once; a silent shack is only a warning with cards at hand."""

    def look() -> _Seen:
        try:
            found = gather(classroom, timeout_seconds=timeout)
        except SourceError as error:
            if not (cards or forgiving):
                raise
            rows = with_cards(classroom, (), cards, shack_answers=False) if cards else None
            return _Seen(None, rows, error.message)
        warning = _of_manager(classroom, found) if found.engines is None else ""
        return _Seen(found, compare(classroom, found, cards), warning)

    return look


def _of_manager(classroom: Classroom, found: ClusterState) -> str:
    # Swarm mode's nodes run no consul: without the manager nothing is known of them.
    swarm_mode = classroom.shack is not None and classroom.shack.kind == "swarm-mode"
    words = "the manager does not answer" if swarm_mode else "only consul was asked"
    return f"{words}: {found.manager_error}"


def _show(console: Console, classroom: Classroom, seen: _Seen, *, watch: bool) -> bool:
    """Print one look; say whether everyone is there."""
    if seen.rows is not None:
        _show_rows(console, seen.gathering, seen.rows, watch=watch)
    # After the table, which clears the screen of whoever watches.
    if seen.warning:
        console.warn(seen.warning)
    console.out.flush()
    return everyone_joined(classroom, seen.rows or ())


def _show_rows(
    console: Console, found: ClusterState | None, rows: tuple[NodeStatus, ...], *, watch: bool
) -> None:
    if console.as_json:
        console.emit(_report(found, rows), on_one_line=watch)
        return
    counts = summarise(rows)
    if watch and console.out.isatty():
        console.out.write("\x1b[H\x1b[2J")
    console.table(_HEAD, [_row(row) for row in rows])
    words = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    clock = datetime.now().astimezone().strftime("%H:%M:%S ") if watch else ""
    console.note(f"{clock}{words or 'nobody is expected'}")


_HEAD = ("node", "state", "address", "arch", "docker", "what")


def _row(row: NodeStatus) -> tuple[str, ...]:
    address = row.address or row.expected_address
    return (row.hostname, row.state, address, row.arch, row.version, row.detail)


def _report(found: ClusterState | None, rows: tuple[NodeStatus, ...]) -> dict[str, object]:
    return {
        "leader": (found.leader or None) if found else None,
        "manager_error": found.manager_error if found else None,
        "summary": summarise(rows),
        "nodes": [
            {
                "hostname": row.hostname,
                "state": row.state,
                "findings": [asdict(finding) for finding in row.findings],
                "address": row.address,
                "expected_address": row.expected_address,
                "arch": row.arch,
                "docker": row.version,
                "card": asdict(row.card) if row.card else None,
            }
            for row in rows
        ],
    }
