"""The commands `check`, `init`, `schema` and `profiles`, which run on any system."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from imagebuilder.cli.completion import complete_board, complete_image, complete_profile
from imagebuilder.cli.help import Command
from imagebuilder.cli.options import (
    PATH,
    allowed,
    classroom_file,
    profile_folders,
    published_list,
    with_console,
)
from imagebuilder.cli.session import Session
from imagebuilder.errors import Problem, SettingsError
from imagebuilder.plan.reach import reach_lines
from imagebuilder.progress import counted
from imagebuilder.settings.catalog import load_profiles
from imagebuilder.settings.load import read_classroom
from imagebuilder.settings.pin import pin_images
from imagebuilder.settings.starter import classroom_schema, make_starter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from imagebuilder.cli.console import Console
    from imagebuilder.model import NodeSettings
    from imagebuilder.settings.load import ClassroomReading
    from imagebuilder.settings.schema.documents import ProfileDocument


@click.command(cls=Command)
@classroom_file
@click.option("--pin", is_flag=True, help="Write what published images are today into FILE.")
@published_list
@profile_folders
@allowed
@with_console
def check(
    console: Console,
    file: Path,
    pin: bool,
    catalog: str | None,
    folders: tuple[Path, ...],
    allow: tuple[str, ...],
) -> int:
    """List all errors and warnings in a classroom FILE, with line and hint."""
    lists = Session(console=console).lists(catalog or "")
    names = pin_images(file, lists, folders, home=os.environ.get("HOME", "")) if pin else ()
    reading = read_classroom(
        file,
        overrides={"allow": list(allow)} if allow else None,
        environment=os.environ,
        profile_folders=folders,
        checking=True,
        lists=lists,
    )
    reading = _with_ledger(console, file, reading)
    _show(console, file, reading, names if pin else None)
    return SettingsError.exit_code if reading.classroom is None else 0


def _with_ledger(console: Console, file: Path, reading: ClassroomReading) -> ClassroomReading:
    """Return the reading with an error if the consul of the ledger is open or refuses us."""
    if reading.classroom is None or not reading.classroom.ledger_consul:
        return reading
    from imagebuilder.flash.records.shared import check_ledger

    try:
        check_ledger(reading.classroom, file, console)
    except SettingsError as error:
        lines = file.read_text(encoding="utf-8").splitlines()
        line = next((n for n, text in enumerate(lines, 1) if text.startswith("ledger:")), None)
        problem = Problem(error.message, error.hint, file, line)
        return replace(reading, classroom=None, problems=(*reading.problems, problem))
    return reading


def _show(
    console: Console, file: Path, reading: ClassroomReading, pinned: Sequence[str] | None
) -> None:
    if console.as_json:
        more = {} if pinned is None else {"pinned": list(pinned)}
        console.emit(_report(file, reading) | more)
    else:
        _say_problems(console, reading)
        for name in pinned or ():
            console.note(f"pinned {name}")


def _say_problems(console: Console, reading: ClassroomReading) -> None:
    for problem in reading.problems:
        console.result(_line(problem))
        if problem.hint:
            console.result(f"  hint: {problem.hint}")
    errors = sum(problem.severe for problem in reading.problems)
    counts = f"{counted(errors, 'error')}, {counted(len(reading.problems) - errors, 'warning')}"
    nodes = f"{counted(len(reading.classroom.nodes), 'node')}, " if reading.classroom else ""
    console.note(f"{nodes}{counts}")
    for line in reach_lines(reading.reaches):
        console.note(line)
    if reading.classroom and (locked := sum(map(_locks_logins, reading.classroom.nodes))):
        hint = "`keep_vendor_login: true` keeps them"
        console.note(f"the image's own logins are locked on {counted(locked, 'node')}; {hint}")


def _locks_logins(node: NodeSettings) -> bool:
    return node.user is not None and not node.keep_vendor_login


def _line(problem: Problem) -> str:
    if problem.severe:
        return str(problem)
    where = str(problem)[: -len(problem.message)]
    return f"{where}warning: {problem.message} [{problem.word}]"


def _report(file: Path, reading: ClassroomReading) -> dict[str, Any]:
    return {
        "file": str(file),
        "ok": reading.classroom is not None,
        "reach": {reach.hostname: reach.sentence for reach in reading.reaches},
        "nodes": [node.hostname for node in reading.classroom.nodes] if reading.classroom else [],
        "problems": [
            {
                "file": str(problem.file) if problem.file else None,
                "line": problem.line,
                "message": problem.message,
                "hint": problem.hint,
                "severe": problem.severe,
                "word": problem.word,
            }
            for problem in reading.problems
        ],
    }


@click.command(cls=Command)
@click.argument("file", type=PATH, default=Path("classroom.yml"))
@click.option("--hostnames", metavar="RANGE", help="Hostnames, for example pi-[01-30].")
@click.option(
    "--profile",
    metavar="NAME",
    shell_complete=complete_profile,
    help="Board family, for example armv7.",
)
@click.option(
    "--board",
    metavar="BOARD",
    shell_complete=complete_board,
    help="Board, for example pi4, instead of the profile.",
)
@click.option(
    "--image",
    metavar="IMAGE",
    shell_complete=complete_image,
    help="Base image: name, file or URL.",
)
@click.option("--wifi-ssid", metavar="SSID", help="Wireless network; empty for cable only.")
@click.option("--wifi-country", metavar="CC", help="Country of the radio rules, for example FR.")
@click.option("--shack", metavar="ADDRESS", help="Address of your own machine; empty for none.")
@click.option("--ssh-key", metavar="FILE", help="Public key for the login; empty for none.")
@click.option("--user", metavar="NAME", help="User to create; empty for none.")
@click.option("--timezone", metavar="ZONE", help="Time zone; by default that of this computer.")
@click.option("--force", is_flag=True, help="Overwrite an existing file.")
@with_console
def init(console: Console, file: Path, force: bool, **flags: str | None) -> None:
    """Write a commented starter FILE (classroom.yml) from a few answers or from flags."""
    lists = Session(console=console).lists()
    make_starter(file, flags, console, environment=os.environ, force=force, lists=lists)
    console.note(f"wrote {file}; edit it, then run: rpi-image check {file}")
    if console.as_json:
        console.emit({"file": str(file)})


@click.command(cls=Command)
@with_console
def schema(console: Console) -> None:
    """Print the JSON Schema of the classroom file, for editors."""
    console.result(classroom_schema().rstrip("\n"))


@click.command(cls=Command)
@profile_folders
@with_console
def profiles(console: Console, folders: tuple[Path, ...]) -> None:
    """List the profiles: families of boards, with their image and settings."""
    known = load_profiles(folders)
    if console.as_json:
        console.emit({"profiles": list(map(_profile, known))})
        return
    console.table(("PROFILE", "ARCH", "IMAGE", "BOARDS"), [_profile_row(p) for p in known])


def _profile(profile: ProfileDocument) -> dict[str, Any]:
    return {"name": profile.name, **profile.model_dump(mode="json", exclude_unset=True)}


def _profile_row(profile: ProfileDocument) -> tuple[str, ...]:
    image = profile.image.name or "own" if profile.image else ""
    return profile.name, profile.arch, image, ", ".join(profile.boards)
