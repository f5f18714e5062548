"""The flags that describe one node, the same for every command that makes one."""

from __future__ import annotations

import functools
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from imagebuilder.cli.console import Console
from imagebuilder.errors import InputError
from imagebuilder.settings.flags import NodeFlags

if TYPE_CHECKING:
    from collections.abc import Callable

allow_http = click.option("--allow-http", is_flag=True, help="Follow redirects from https to http.")


def _pair(text: str) -> tuple[str, str]:
    """Part KEY=VALUE at its first `=`."""
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise click.BadParameter(f"{text!r} is not KEY=VALUE")
    return key, value


_FILE = click.Path(path_type=Path, readable=False)
_FLAGS = (
    click.option("--profile", metavar="NAME", help="Board family, as armv7 (see `profiles`)."),
    click.option("--hostname", metavar="NAME", help="Name of the node, as pi-03."),
    click.option("--image", metavar="IMAGE", help="Base image: catalogue name, file or URL."),
    click.option("--sha256", metavar="HEX", help="Checksum of the image as downloaded."),
    click.option("--no-checksum", is_flag=True, help="Take the image without any checksum."),
    allow_http,
    click.option("--generation", metavar="NAME", help="How the image takes settings, if unsure."),
    click.option("--wifi-ssid", metavar="SSID", help="Wireless network; open without passphrase."),
    click.option("--wifi-passphrase-file", type=_FILE, help="File with the passphrase."),
    click.option("--wifi-country", metavar="CC", help="Country of the radio rules, as FR."),
    click.option("--shack", metavar="ADDRESS", help="Instructor's machine, whose cluster to join."),
    click.option("--registry", metavar="HOST:PORT", help="Plain-HTTP registry and mirror."),
    click.option(
        "--label",
        type=_pair,
        multiple=True,
        metavar="KEY=VALUE",
        help="Label of the Docker engine.",
    ),
    click.option("--ssh-key", type=_FILE, multiple=True, help="Public key that may log in."),
    click.option("--overlay", type=_FILE, multiple=True, help="Folder to lay over the card."),
    click.option(
        "--set",
        "set_",
        type=_pair,
        multiple=True,
        metavar="KEY=VALUE",
        help="Variable for templates.",
    ),
    click.option("-c", "--config", type=_FILE, help="Classroom file to start from."),
    click.option("--profiles", type=_FILE, multiple=True, help="Folder of your own profiles."),
)


def node_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Return a command the flags that describe a node, handed to it as `flags`."""

    @functools.wraps(command)
    def wrapped(*args: Any, **rest: Any) -> Any:
        given = {field.name: rest.pop(field.name) for field in fields(NodeFlags)}
        return command(*args, flags=NodeFlags(**given), **rest)

    return functools.reduce(lambda made, option: option(made), reversed(_FLAGS), wrapped)


def with_console(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --json, -q, -v, --color and --no-input to a command, and pass it their Console."""

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
