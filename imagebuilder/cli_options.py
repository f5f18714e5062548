"""The options that mean the same in every command, and the console they make."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from imagebuilder.console import Console
from imagebuilder.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable


def voiced(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command --json, -q, -v, --color and --no-input, and hand it the Console they make."""

    @click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
    @click.option("-q", "--quiet", is_flag=True, help="Say only warnings and errors.")
    @click.option("-v", "--verbose", is_flag=True, help="Say more.")
    @click.option(
        "--color",
        "colour",
        type=click.Choice(["auto", "always", "never"]),
        default="auto",
        envvar="RPI_IMAGE_COLOR",
        help="Colour the words.",
    )
    @click.option("--no-input", is_flag=True, help="Never ask; fail instead.")
    @functools.wraps(command)
    def wrapped(
        as_json: bool, quiet: bool, verbose: bool, colour: str, no_input: bool, **rest: Any
    ) -> Any:
        console = Console(
            quiet=quiet, verbose=verbose, as_json=as_json, colour=colour, no_input=no_input
        )
        return command(console, **rest)

    return wrapped


def on_disk(context: click.Context, option: click.Parameter, path: Path | None) -> Path | None:
    """Refuse `-o -`, which elsewhere stands for standard output: nothing of ours goes there."""
    del context, option
    if path == Path("-"):
        raise InputError("nothing is written to standard output", "give a file or folder with -o")
    return path


dry_run = click.option("-n", "--dry-run", is_flag=True, help="Plan and show; write nothing.")
yes = click.option("--yes", is_flag=True, help="Do not ask for confirmation.")


def not_empty(context: click.Context, option: click.Parameter, value: str) -> str:
    """Refuse a name that is given and empty: a shell's unset variable would mean every node."""
    typed = context.get_parameter_source(option.name or "") is ParameterSource.COMMANDLINE
    if typed and not value.strip():
        flag = option.opts[0]
        raise InputError(f"{flag} names no node", f"name one, as {flag} pi-01, or leave it out")
    return value
