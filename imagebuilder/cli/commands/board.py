"""The command `board`."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING

import click

from imagebuilder.cli.commands.shack import roster_of
from imagebuilder.cli.help import Command
from imagebuilder.cli.options import classroom_file, profile_folders, with_console
from imagebuilder.cli.session import Session
from imagebuilder.flash.records.card_state import CardStates
from imagebuilder.flash.records.class_status import watch_class
from imagebuilder.flash.records.ledger import ledger_of
from imagebuilder.flash.records.station_screen import read_stations
from imagebuilder.settings.load import check_classroom
from imagebuilder.web.board import BoardServer

if TYPE_CHECKING:
    from pathlib import Path

    from imagebuilder.cli.console import Console
    from imagebuilder.errors import Problem
    from imagebuilder.flash.records.class_status import ClassStatus

ANSWER_SECONDS = 2.0  # of the shack; the page asks again soon


@click.command(cls=Command)
@classroom_file
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8090, show_default=True, help="0: a free one."
)
@profile_folders
@with_console
def board(console: Console, file: Path, port: int, folders: tuple[Path, ...]) -> None:
    """Serve the class of FILE as a page on 127.0.0.1, read-only, until Ctrl-C.

    It shows what `status` shows: each node, its card, and what to do next. What serves the
    page is an extra: pip install 'rpi-image[board]'.
    """

    def look() -> ClassStatus:
        states = CardStates(find=Session(console=console).find, secrets_read=False)
        roster = roster_of(console, file, folders)
        return next(watch_class(roster, file, states, (), ANSWER_SECONDS, None))

    made = BoardServer(
        classroom=roster_of(console, file, folders),
        look=look,
        stations=lambda: read_stations(ledger_of(file).path),
        findings=partial(_findings, console, file, folders),
        port=port,
    )
    server = made.open()
    _say(console, server.url)
    server.serve_forever()


def _findings(console: Console, file: Path, folders: tuple[Path, ...]) -> tuple[Problem, ...]:
    lists = Session(console=console).lists(offline=True)
    return check_classroom(file, environment=os.environ, profile_folders=folders, lists=lists)


def _say(console: Console, url: str) -> None:
    console.result(url)
    console.note(f"the screen of a station that writes cards is {url}station")
