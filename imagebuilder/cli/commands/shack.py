"""The commands `shack`, `export` and `labels`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from imagebuilder.cli.options import (
    classroom_file,
    dry_run,
    output_option,
    profile_folders,
    with_console,
)
from imagebuilder.cli.session import Session
from imagebuilder.settings.load import load_classroom, load_roster, with_whole_paths
from imagebuilder.shack.exports import EXPORTS, write_exports
from imagebuilder.shack.folder import make_shack, with_client_keys
from imagebuilder.shack.labels import SHEETS, write_labels

if TYPE_CHECKING:
    from imagebuilder.cli.console import Console
    from imagebuilder.model import Classroom
    from imagebuilder.shack.folder import Kind

kind_option = click.option(
    "--kind",
    type=click.Choice(["classic", "swarm-mode"]),
    help="consul and classic Swarm, or Docker's swarm mode; default: as in FILE.",
)


def roster_of(console: Console, file: Path, folders: tuple[Path, ...]) -> Classroom:
    """Return the classroom, without network: the list of its nodes needs no image."""
    lists = Session(console=console).lists(offline=True)
    return load_roster(file, environment=os.environ, profile_folders=folders, lists=lists)


@click.command()
@classroom_file
@output_option("Folder to write.", "shack")
@kind_option
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
    type=click.Choice(list(EXPORTS)),
    multiple=True,
    help="Only this format (may be repeated); default: all.",
)
@output_option("Folder for the files; default: export.")
@profile_folders
@with_console
def export(
    console: Console,
    file: Path,
    formats: tuple[str, ...],
    output: Path | None,
    folders: tuple[Path, ...],
) -> None:
    """Write the roster of FILE for other tools; a single format without -o to stdout."""
    roster = roster_of(console, file, folders)
    classroom = with_client_keys(roster)
    if len(formats) == 1 and output is None:
        console.out.write(EXPORTS[formats[0]].render(classroom, Path.cwd()))
        return
    names = formats or tuple(EXPORTS)
    _list_files(console, write_exports(classroom, names, output or Path("export")))


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
    roster = roster_of(console, file, folders)
    search_path = os.environ.get("PATH", os.defpath)
    sheet = SHEETS[paper]
    write_labels(roster, output, sheet, skip, search_path=search_path, reporter=console)
    _list_files(console, [output])


# ---- output


def _list_files(console: Console, paths: Any) -> None:
    if console.as_json:
        console.emit([str(path) for path in paths])
    else:
        for path in paths:
            console.result(str(path))
