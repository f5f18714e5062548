"""Options that several commands share, such as those that describe a node."""

from __future__ import annotations

import functools
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from imagebuilder.cli.completion import (
    complete_board,
    complete_generation,
    complete_image,
    complete_node,
    complete_nodes,
    complete_profile,
)
from imagebuilder.cli.console import Console
from imagebuilder.cli.help import AliasedOption
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


def _refuse_profiles(context: click.Context, option: click.Parameter, value: object) -> None:
    """Raise InputError for the former name of --profiles-dir, which is too much like --profile."""
    del context, option
    if value:
        raise InputError("--profiles is now --profiles-dir", "use --profiles-dir DIR")


_former_profiles = click.option(
    "--profiles",
    "former_profiles",
    multiple=True,
    hidden=True,
    expose_value=False,
    callback=_refuse_profiles,
    help="The former name of --profiles-dir.",
)


def profile_folders(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --profiles-dir; the command gets `folders`."""
    option = click.option(
        "--profiles-dir",
        "folders",
        type=PATH,
        multiple=True,
        metavar="DIR",
        help="Folder of your own profiles and images.",
    )
    return option(_former_profiles(command))


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
    click.option(
        "--profile",
        metavar="NAME",
        shell_complete=complete_profile,
        help="Board family (see `profiles`).",
    ),
    click.option(
        "--board",
        metavar="WORD",
        shell_complete=complete_board,
        help="Board, for example pi4; chooses the profile.",
    ),
    click.option(
        "--hostname",
        metavar="NAME",
        shell_complete=complete_node,
        help="Name of the node, for example pi-03.",
    ),
    click.option(
        "--image",
        metavar="IMAGE",
        shell_complete=complete_image,
        help="Base image: name, file or URL (see `images`).",
    ),
    published_list,
    click.option("--sha256", metavar="HEX", help="Checksum of the image as downloaded."),
    click.option("--no-checksum", is_flag=True, help="Take the image without any checksum."),
    allow_http,
    click.option(
        "--generation",
        metavar="NAME",
        shell_complete=complete_generation,
        help="How the image takes settings, if unsure.",
    ),
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
    click.option(
        "--profiles-dir",
        "profiles",
        type=PATH,
        multiple=True,
        metavar="DIR",
        help="Folder of your own profiles.",
    ),
    _former_profiles,
    allowed,
)


def node_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that describe a node; the command gets them as `flags`."""

    @functools.wraps(command)
    def wrapped(*args: Any, **rest: Any) -> Any:
        given = {field.name: rest.pop(field.name) for field in fields(NodeFlags)}
        return command(*args, flags=NodeFlags(**given), **rest)

    return functools.reduce(lambda made, option: option(made), reversed(_FLAGS), wrapped)


_OUTPUT = (
    click.option("--json", "as_json", is_flag=True, help="Print the result as JSON."),
    click.option("-q", "--quiet", is_flag=True, help="Print only warnings and errors."),
    click.option("-v", "--verbose", is_flag=True, help="Print more."),
    click.option(
        "--color",
        "colour",
        type=click.Choice(["auto", "always", "never"]),
        default="auto",
        envvar="RPI_IMAGE_COLOR",
        help="Colour the messages.",
    ),
    click.option("--no-input", is_flag=True, help="Never ask for input; fail instead."),
)


def output_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --json, -q, -v, --color and --no-input to a command or a group of commands."""
    return functools.reduce(lambda made, option: option(made), reversed(_OUTPUT), command)


def with_console(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the output options; the command gets them as a Console."""

    @output_options
    @functools.wraps(command)
    def wrapped(**given: Any) -> Any:
        names = ("as_json", "quiet", "verbose", "colour", "no_input")
        said = {name: _said(name, given.pop(name)) for name in names}
        return command(Console(**said), **given)

    return wrapped


def _said(name: str, value: Any) -> Any:
    """Return what the command line says after the command, or before it, else `value`."""
    context: click.Context | None = click.get_current_context()
    while context:
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            return context.params[name]
        context = context.parent
    return value


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


# One name is documented, the other is accepted.
chosen_nodes = click.option(
    "--node",
    "--nodes",
    "nodes",
    cls=AliasedOption,
    default="",
    callback=not_empty,
    metavar="NAMES",
    shell_complete=complete_nodes,
    help="Only these nodes, for example pi-01,pi-[03-05].",
)
node_option = click.option(
    "--node",
    "--nodes",
    "node",
    cls=AliasedOption,
    default="",
    callback=not_empty,
    metavar="NAME",
    shell_complete=complete_node,
    help="Node of the classroom.",
)
# Two options where --node may also write a node again (docs/flashing.md).
card_node = click.option(
    "--node",
    default="",
    callback=not_empty,
    metavar="NAMES",
    shell_complete=complete_nodes,
    help="Nodes of the classroom, for example pi-03; written again if they have a card.",
)
other_card_nodes = click.option(
    "--nodes",
    default="",
    callback=not_empty,
    metavar="NAMES",
    shell_complete=complete_nodes,
    hidden=True,
    help="As --node, but a node that has a card is refused.",
)
