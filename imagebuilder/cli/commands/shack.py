"""The commands `shack`, `export`, `labels` and `status`."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from imagebuilder.cli.options import (
    PATH,
    classroom_file,
    dry_run,
    output_option,
    profile_folders,
    with_console,
)
from imagebuilder.cli.session import Session
from imagebuilder.errors import InputError
from imagebuilder.images.obtain import find_cached
from imagebuilder.settings.catalog import load_profiles
from imagebuilder.settings.load import load_classroom, load_roster, with_whole_paths
from imagebuilder.shack import imager
from imagebuilder.shack.cluster import read_card
from imagebuilder.shack.exports import EXPORTS, write_exports
from imagebuilder.shack.folder import make_shack, shack_of, with_client_keys
from imagebuilder.shack.labels import SHEETS, write_labels
from imagebuilder.shack.observe import observe
from imagebuilder.shack.status import summarise

if TYPE_CHECKING:
    from imagebuilder.cli.console import Console
    from imagebuilder.model import Classroom
    from imagebuilder.shack.folder import Kind
    from imagebuilder.shack.observe import Observation
    from imagebuilder.shack.status import ClusterState, NodeStatus

_kind = click.option(
    "--kind",
    type=click.Choice(["classic", "swarm-mode"]),
    help="consul and classic Swarm, or Docker's swarm mode; default: as in FILE.",
)


def _roster(console: Console, file: Path, folders: tuple[Path, ...]) -> Classroom:
    """Return the classroom, without network: the list of its nodes needs no image."""
    lists = Session(console=console).lists(offline=True)
    return load_roster(file, environment=os.environ, profile_folders=folders, lists=lists)


@click.command()
@classroom_file
@output_option("Folder to write.", "shack")
@_kind
@profile_folders
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
    """Write the services of the instructor's machine for FILE; start them with `make up`."""
    classroom = load_classroom(
        file,
        environment=os.environ,
        ask=console.ask_secret,
        profile_folders=folders,
        lists=Session(console=console).lists(offline=True),
    )
    whole = with_whole_paths(classroom)
    _list_files(console, make_shack(whole, output, kind, console, write=not dry_run))


@click.command()
@classroom_file
@click.option(
    "--format",
    "formats",
    type=click.Choice([*EXPORTS, imager.FORMAT]),
    multiple=True,
    help="Only this format (may be repeated); default: all but imager.",
)
@click.option(
    "--with-images",
    type=PATH,
    help="With imager: list the images that `batch` wrote to this folder, too.",
)
@output_option("Folder for the files; default: export.")
@profile_folders
@with_console
def export(
    console: Console,
    file: Path,
    formats: tuple[str, ...],
    with_images: Path | None,
    output: Path | None,
    folders: tuple[Path, ...],
) -> None:
    """Write the roster of FILE for other tools; a single format without -o to stdout."""
    roster = _roster(console, file, folders)
    names = tuple(name for name in formats or EXPORTS if name in EXPORTS)
    repository = _imager_repository(console, roster, formats, with_images, folders)
    classroom = with_client_keys(roster) if names else roster
    if len(formats) == 1 and output is None:
        console.out.write(_text(classroom, names, repository))
        return
    folder = output or Path("export")
    listed = [repository.write(folder)] if repository else []
    _list_files(console, [*listed, *write_exports(classroom, names, folder)])


def _imager_repository(
    console: Console,
    classroom: Classroom,
    formats: tuple[str, ...],
    images: Path | None,
    folders: tuple[Path, ...],
) -> imager.ImagerRepository | None:
    if imager.FORMAT not in formats:
        if images:
            raise InputError("--with-images is for Raspberry Pi Imager", "use --format imager")
        return None
    session = Session(console=console)
    today = datetime.fromtimestamp(session.epoch, tz=UTC).date().isoformat()
    return imager.ImagerRepository(
        classroom=classroom,
        images=images,
        boards={profile.name: profile.boards for profile in load_profiles(folders)},
        cached=lambda source: find_cached(source, session.cache),
        reporter=console,
        today=today,
    )


def _text(
    classroom: Classroom, names: tuple[str, ...], repository: imager.ImagerRepository | None
) -> str:
    if repository:
        return json.dumps(repository.content(), indent=2, ensure_ascii=False) + "\n"
    return EXPORTS[names[0]].render(classroom, Path.cwd())


@click.command()
@classroom_file
@output_option("HTML file, or PDF if chromium or weasyprint is installed.", "labels.html")
@click.option(
    "--paper",
    type=click.Choice(list(SHEETS)),
    default="a4",
    show_default=True,
    help="Label sheet.",
)
@click.option("--skip", type=click.IntRange(0, 1000), default=0, help="Labels used already.")
@profile_folders
@with_console
def labels(
    console: Console, file: Path, output: Path, paper: str, skip: int, folders: tuple[Path, ...]
) -> None:
    """Write a sheet of labels with QR codes for the cards of FILE, in real size."""
    roster = _roster(console, file, folders)
    search_path = os.environ.get("PATH", os.defpath)
    sheet = SHEETS[paper]
    write_labels(roster, output, sheet, skip, search_path=search_path, reporter=console)
    _list_files(console, [output])


@click.command()
@classroom_file
@_kind
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
    folders: tuple[Path, ...],
) -> None:
    """Show which nodes of FILE have joined the shack, are missing or have a problem."""
    roster = _roster(console, file, folders)
    reports = tuple(map(read_card, cards))
    classroom = replace(roster, shack=shack_of(roster, kind))
    pause = interval if watch else None
    for seen in observe(classroom, reports, timeout_seconds=timeout, interval_seconds=pause):
        _show(console, seen, watch=watch)


# ---- output


def _list_files(console: Console, paths: Any) -> None:
    if console.as_json:
        console.emit([str(path) for path in paths])
    else:
        for path in paths:
            console.result(str(path))


def _show(console: Console, seen: Observation, *, watch: bool) -> None:
    if seen.rows is not None:
        _show_rows(console, seen.state, seen.rows, watch=watch)
    # After the table, which clears the screen with --watch.
    if seen.warning:
        console.warn(seen.warning)
    console.out.flush()


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
    console.note(f"{clock}{words or 'no nodes expected'}")


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
                "findings": [asdict(note) for note in row.notes],
                "address": row.address,
                "expected_address": row.expected_address,
                "arch": row.arch,
                "docker": row.version,
                "card": asdict(row.card) if row.card else None,
            }
            for row in rows
        ],
    }
