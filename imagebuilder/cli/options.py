"""The flags that describe one node, the same for every command that makes one."""

from __future__ import annotations

import contextlib
import functools
import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from imagebuilder.cli.console import Console
from imagebuilder.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from imagebuilder.model import Classroom, NodeSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFlags:
    """What the flags of one command line say; None and empty where they say nothing."""

    profile: str | None = None
    hostname: str | None = None
    image: str | None = None
    sha256: str | None = None
    no_checksum: bool = False
    generation: str | None = None
    wifi_ssid: str | None = None
    wifi_passphrase_file: Path | None = None
    wifi_country: str | None = None
    shack: str | None = None
    registry: str | None = None
    label: tuple[tuple[str, str], ...] = ()
    ssh_key: tuple[Path, ...] = ()
    overlay: tuple[Path, ...] = ()
    set_: tuple[tuple[str, str], ...] = ()
    config: Path | None = None
    profiles: tuple[Path, ...] = ()


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
        said = {field.name: rest.pop(field.name) for field in fields(NodeFlags)}
        return command(*args, flags=NodeFlags(**said), **rest)

    return functools.reduce(lambda made, option: option(made), reversed(_FLAGS), wrapped)


def document_from_flags(flags: NodeFlags) -> dict[str, object]:
    """Return what the flags say in the form of a classroom file's top level.

    Raises InputError where flags contradict each other or lack their partner.
    """
    _check_partners(flags)
    said: dict[str, object | None] = {
        "profile": flags.profile,
        "image": _image(flags),
        "generation": flags.generation,
        "wifi": _wifi(flags),
        "shack": _shack(flags),
        "docker": _docker(flags),
        "ssh_keys": [{"file": str(path)} for path in flags.ssh_key],
        "overlays": [str(path) for path in flags.overlay],
        "set": dict(flags.set_),
        "nodes": [{"hostname": flags.hostname}] if flags.hostname is not None else None,
    }
    return {key: value for key, value in said.items() if value not in (None, [], {})}


def _check_partners(flags: NodeFlags) -> None:
    if flags.sha256 and flags.no_checksum:
        raise InputError("--sha256 and --no-checksum exclude each other", "give one of them")
    if (flags.sha256 or flags.no_checksum) and not flags.image:
        raise InputError("a checksum without its image", "give --image as well")
    if flags.wifi_passphrase_file and flags.wifi_ssid is None:
        raise InputError("a wifi passphrase without its network", "give --wifi-ssid as well")
    if flags.hostname is None and flags.config is None:
        raise InputError("the node has no name", "give --hostname NAME, or --config FILE")
    if flags.profile is None and flags.config is None:
        from imagebuilder.settings.catalog import load_profiles

        known = ", ".join(profile.name for profile in load_profiles(flags.profiles))
        raise InputError("the node has no profile", f"give --profile NAME, one of: {known}")


def _image(flags: NodeFlags) -> dict[str, object] | None:
    if flags.image is None:
        return None
    from imagebuilder.settings.schema.documents import classify_image

    said: dict[str, object] = {classify_image(flags.image): flags.image}
    if flags.sha256:
        said["sha256"] = flags.sha256
    return {**said, "unchecked": True} if flags.no_checksum else said


def _wifi(flags: NodeFlags) -> dict[str, object]:
    said: dict[str, object] = {}
    if flags.wifi_country is not None:
        said["country"] = flags.wifi_country
    if flags.wifi_ssid is not None:
        network: dict[str, object] = {"ssid": flags.wifi_ssid}
        if flags.wifi_passphrase_file:
            network["passphrase"] = {"file": str(flags.wifi_passphrase_file)}
        said["networks"] = [network]
    return said


def _shack(flags: NodeFlags) -> dict[str, object] | None:
    if flags.shack is None:
        return None
    # A flag names a machine and promises nothing of what runs there; a file says what does.
    services: dict[str, object] = {} if flags.config else {"services": []}
    return {"address": flags.shack, **services}


def _docker(flags: NodeFlags) -> dict[str, object]:
    said: dict[str, object] = {}
    if flags.label:
        said["labels"] = dict(flags.label)
    if flags.registry is not None:
        from imagebuilder.settings.schema.fields import host_port

        said["insecure_registries"] = [flags.registry]
        # One slip is one problem: nobody typed the mirror.
        with contextlib.suppress(ValueError):
            said["registry_mirrors"] = [f"http://{host_port(flags.registry)}"]
    return said


def classroom_from_flags(
    flags: NodeFlags, console: Console, environment: Mapping[str, str] = os.environ
) -> Classroom:
    """Load the classroom that the flags and their --config describe, saying what is doubtful.

    Prompted secrets are asked for; raises SettingsError with all problems.
    """
    from imagebuilder.settings.load import read_classroom, refusal

    reading = read_classroom(
        flags.config,
        overrides=document_from_flags(flags),
        environment=environment,
        ask=console.ask_secret,
        profile_folders=flags.profiles,
    )
    if reading.classroom is None:
        raise refusal(flags.config, reading.problems)
    for problem in reading.problems:
        console.warn(str(problem))
    return reading.classroom


def node_from_flags(
    flags: NodeFlags, console: Console, environment: Mapping[str, str] = os.environ
) -> tuple[Classroom, NodeSettings]:
    """Load the one node that the flags describe; InputError where the file holds several."""
    classroom = classroom_from_flags(flags, console, environment)
    if len(classroom.nodes) > 1:
        names = ", ".join(node.hostname for node in classroom.nodes[:3])
        raise InputError(
            f"{flags.config} holds {len(classroom.nodes)} nodes",
            f"give --hostname with one of {names} …",
        )
    return classroom, classroom.nodes[0]


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
