"""The commands `shack`, `export` and `labels`."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from imagebuilder.build.packages import PackageIndex
from imagebuilder.cli.help import Command
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
from imagebuilder.shack.exports import EXPORTS, write_exports
from imagebuilder.shack.folder import make_shack, with_client_keys
from imagebuilder.shack.served import class_packages, write_packages
from imagebuilder.shack.sheets.label_content import DEFAULT_SHEET, SHEETS
from imagebuilder.shack.sheets.labels import write_labels

if TYPE_CHECKING:
    from imagebuilder.cli.console import Console
    from imagebuilder.model import Classroom
    from imagebuilder.shack.folder import Kind

# The words of --paper, from before there was --stock.
_PAPERS = {"a4": DEFAULT_SHEET, "letter": "5160"}
kind_option = click.option(
    "--kind",
    type=click.Choice(["classic", "swarm-mode"]),
    help="consul and classic Swarm, or Docker's swarm mode; default: as in FILE.",
)


def roster_of(console: Console, file: Path, folders: tuple[Path, ...]) -> Classroom:
    """Return the classroom, without network: the list of its nodes needs no image."""
    lists = Session(console=console).lists(offline=True)
    return load_roster(file, environment=os.environ, profile_folders=folders, lists=lists)


@click.command(cls=Command)
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
    paths = make_shack(whole, output, kind, console, write=not dry_run)
    _list_files(console, (*paths, *_packages(console, whole, output, write=not dry_run)))


def _packages(
    console: Console, classroom: Classroom, output: Path, *, write: bool
) -> tuple[Path, ...]:
    """Write what `fetch --packages` has brought beside the class page; return the paths."""
    if classroom.shack is None or "web" not in classroom.shack.services:
        return ()
    session = Session(console=console)
    index = PackageIndex(session.cache, console)
    return write_packages(class_packages(classroom, session.find, index), output, write=write)


@click.command(cls=Command)
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
    roster = roster_of(console, file, folders)
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


@click.command(cls=Command)
@classroom_file
@output_option("PDF or HTML file, by its suffix.", "labels.html")
@click.option(
    "--stock",
    type=click.Choice(list(SHEETS), case_sensitive=False),
    help=f"Label sheet.  [default: {DEFAULT_SHEET}]",
)
@click.option(
    "--paper",
    type=click.Choice(list(_PAPERS)),
    hidden=True,
    help="Size of the paper instead of --stock.",
)
@click.option("--skip", type=click.IntRange(0, 1000), default=0, help="Labels used already.")
@profile_folders
@with_console
def labels(
    console: Console,
    file: Path,
    output: Path,
    stock: str | None,
    paper: str | None,
    skip: int,
    folders: tuple[Path, ...],
) -> None:
    """Write a sheet of labels with QR codes for the cards of FILE, in real size."""
    roster = roster_of(console, file, folders)
    sheet = SHEETS[stock or _PAPERS.get(paper or "", DEFAULT_SHEET)]
    search_path, epoch = os.environ.get("PATH", os.defpath), Session(console=console).epoch
    write_labels(
        roster, output, sheet, skip, search_path=search_path, epoch=epoch, reporter=console
    )
    _list_files(console, [output])


# ---- output


def _list_files(console: Console, paths: Any) -> None:
    if console.as_json:
        console.emit([str(path) for path in paths])
    else:
        for path in paths:
            console.result(str(path))
