"""Options that several commands share, such as those that describe a node."""

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


def list_place(context: click.Context, option: click.Parameter, text: str | None) -> str | None:
    """Return the URL of a list, or the absolute path of its file."""
    del context, option
    return text if text is None or "://" in text else str(Path(text).absolute())


# readable=False: the reader itself reports unreadable files, with its own exit code.
PATH = click.Path(path_type=Path, readable=False)
classroom_file = click.argument("file", type=PATH)
profile_folders = click.option(
    "--profiles",
    "folders",
    type=PATH,
    multiple=True,
    help="Folder of your own profiles and images.",
)
allow_http = click.option("--allow-http", is_flag=True, help="Follow redirects from https to http.")

published_list = click.option(
    "--catalog", metavar="URL|FILE", callback=list_place, help="Published list of images to use."
)
allowed = click.option(
    "--allow", multiple=True, metavar="WORD", help="Acknowledge a warning (see docs/settings.md)."
)


def _pair(text: str) -> tuple[str, str]:
    """Split KEY=VALUE at the first `=`."""
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise click.BadParameter(f"{text!r} is not KEY=VALUE")
    return key, value


_FLAGS = (
    click.option("--profile", metavar="NAME", help="Board family (see `profiles`)."),
    click.option("--board", metavar="WORD", help="Board, for example pi4; chooses the profile."),
    click.option("--hostname", metavar="NAME", help="Name of the node, for example pi-03."),
    click.option("--image", metavar="IMAGE", help="Base image: name, file or URL (see `images`)."),
    published_list,
    click.option("--sha256", metavar="HEX", help="Checksum of the image as downloaded."),
    click.option("--no-checksum", is_flag=True, help="Take the image without any checksum."),
    allow_http,
    click.option("--generation", metavar="NAME", help="How the image takes settings, if unsure."),
    click.option("--wifi-ssid", metavar="SSID", help="Wireless network."),
    click.option("--wifi-passphrase-file", type=PATH, help="File with the passphrase."),
    click.option(
        "--wifi-country", metavar="CC", help="Country of the radio rules, for example FR."
    ),
    click.option("--wifi-open", is_flag=True, help="The wireless network has no passphrase."),
    click.option("--address", metavar="ADDRESS", help="Fixed address; without it DHCP."),
    click.option("--user", metavar="NAME", help="User to create."),
    click.option("--user-password-file", type=PATH, help="File with the password of the user."),
    click.option("--timezone", metavar="ZONE", help="Time zone, for example Europe/Paris."),
    click.option("--locale", metavar="LOCALE", help="Locale, for example fr_FR.UTF-8."),
    click.option("--keyboard", metavar="LAYOUT", help="Layout of the keyboard, for example fr."),
    click.option("--shack", metavar="ADDRESS", help="Instructor's machine to join."),
    click.option("--registry", metavar="HOST:PORT", help="Registry and mirror over plain HTTP."),
    click.option(
        "--label",
        type=_pair,
        multiple=True,
        metavar="KEY=VALUE",
        help="Label of the Docker engine.",
    ),
    click.option("--ssh-key", type=PATH, multiple=True, help="Public key for login."),
    click.option("--overlay", type=PATH, multiple=True, help="Folder of files to add to the card."),
    click.option(
        "--set",
        "set_",
        type=_pair,
        multiple=True,
        metavar="KEY=VALUE",
        help="Variable for templates.",
    ),
    click.option("-c", "--config", type=PATH, help="Classroom file to start from."),
    click.option("--profiles", type=PATH, multiple=True, help="Folder of your own profiles."),
    allowed,
)


def node_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that describe a node; the command gets them as `flags`."""

    @functools.wraps(command)
    def wrapped(*args: Any, **rest: Any) -> Any:
        given = {field.name: rest.pop(field.name) for field in fields(NodeFlags)}
        return command(*args, flags=NodeFlags(**given), **rest)

    return functools.reduce(lambda made, option: option(made), reversed(_FLAGS), wrapped)


def with_console(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --json, -q, -v, --color and --no-input; the command gets them as a Console."""

    @click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
    @click.option("-q", "--quiet", is_flag=True, help="Print only warnings and errors.")
    @click.option("-v", "--verbose", is_flag=True, help="Print more.")
    @click.option(
        "--color",
        "colour",
        type=click.Choice(["auto", "always", "never"]),
        default="auto",
        envvar="RPI_IMAGE_COLOR",
        help="Colour the messages.",
    )
    @click.option("--no-input", is_flag=True, help="Never ask for input; fail instead.")
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
    """Raise InputError for `-o -`: writing to standard output is not supported."""
    del context, option
    if path == Path("-"):
        raise InputError("cannot write to standard output", "use a file or folder with -o")
    return path


def output_option(text: str, default: str | None = None) -> Callable[..., Any]:
    """Return the option -o of a command that writes files."""
    return click.option(
        "-o",
        "--output",
        type=PATH,
        default=default and Path(default),
        show_default=default is not None,
        callback=on_disk,
        help=text,
    )


dry_run = click.option(
    "-n", "--dry-run", is_flag=True, help="Show what would be done; write nothing."
)
yes = click.option("--yes", is_flag=True, help="Do not ask for confirmation.")


def not_empty(context: click.Context, option: click.Parameter, value: str) -> str:
    """Raise InputError for an empty value: an unset shell variable would select every node."""
    typed = context.get_parameter_source(option.name or "") is ParameterSource.COMMANDLINE
    if typed and not value.strip():
        flag = option.opts[0]
        raise InputError(f"{flag} is empty", f"use for example {flag} pi-01, or remove it")
    return value


chosen_nodes = click.option(
    "--nodes", default="", callback=not_empty, help="Only these nodes, comma-separated."
)
node_option = click.option(
    "--node", default="", callback=not_empty, help="Node of the classroom to write."
)
