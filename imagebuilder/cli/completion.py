"""Values for the completion of the shell: what exists here, found without network and questions."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from click.shell_completion import CompletionItem

    from imagebuilder.cli.session import Session

    # From the context to the values and their descriptions.
    Values = Callable[[click.Context], Iterable[tuple[str, str]]]

VARIABLE = "_RPI_IMAGE_COMPLETE"


class Completer:
    """The completion of one kind of values; click calls it with what is typed so far."""

    def __init__(self, values: Values, *, several: bool = False, files: bool = False) -> None:
        self._values, self._several, self._files = values, several, files

    def __call__(
        self, context: click.Context, option: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Return the values that begin with `incomplete`, or with what is after its last comma."""
        from click.shell_completion import CompletionItem

        del option
        before, comma, begin = incomplete.rpartition(",") if self._several else ("", "", incomplete)
        found = [
            CompletionItem(f"{before}{comma}{value}", help=text or None)
            for value, text in self._found(context)
            if value.startswith(begin)
        ]
        return found or ([CompletionItem(incomplete, type="file")] if self._files else [])

    def _found(self, context: click.Context) -> list[tuple[str, str]]:
        from imagebuilder.errors import RpiImageError

        try:
            return sorted(set(self._values(context)))
        except (RpiImageError, OSError):
            return []  # an error would be printed into the line that is typed


def _session() -> Session:
    """Return a session that says and asks nothing."""
    from imagebuilder.cli.console import Console
    from imagebuilder.cli.session import Session

    console = Console(quiet=True, no_input=True, out=io.StringIO(), err=io.StringIO())
    return Session(console=console)


def _folders(context: click.Context) -> tuple[Path, ...]:
    return context.params.get("folders") or context.params.get("profiles") or ()


def _profiles(context: click.Context) -> Iterable[tuple[str, str]]:
    from imagebuilder.settings.catalog import load_profiles

    return ((profile.name, profile.description) for profile in load_profiles(_folders(context)))


def _boards(_context: click.Context) -> Iterable[tuple[str, str]]:
    from imagebuilder.plan.vendor.boards import BOARDS

    return ((board.word, f"Raspberry Pi {board.name}") for board in BOARDS)


def _images(context: click.Context) -> Iterable[tuple[str, str]]:
    """Yield our own images, and those of the published list in its last known state."""
    from imagebuilder.images.list_snapshot import load_snapshot
    from imagebuilder.settings import catalog

    folders = _folders(context)
    for image in catalog.load_catalogue(folders):
        yield image.name, image.description
    place = context.params.get("catalog") or catalog.list_place(folders)
    if snapshot := load_snapshot(place, _session().cache) if place else None:
        for entry in catalog.published_list(snapshot).entries:
            yield entry.name, entry.title


def _generations(_context: click.Context) -> Iterable[tuple[str, str]]:
    from imagebuilder.plan.overlays import load_generations
    from imagebuilder.resources import shipped_folder

    return ((one.name, "") for one in load_generations((shipped_folder("overlays"),)))


def _nodes(context: click.Context) -> Iterable[tuple[str, str]]:
    """Yield the nodes of the classroom file on the command line."""
    from imagebuilder.settings.load import load_roster

    # After an option without its value, click leaves the arguments unparsed.
    files = [context.params.get("config"), context.params.get("file"), *map(Path, context.args)]
    if not (file := next(filter(None, files), None)):
        return ()
    session = _session()
    roster = load_roster(
        file,
        environment=session.environment,
        profile_folders=_folders(context),
        lists=session.lists(offline=True),
    )
    return ((node.hostname, node.network.address or "") for node in roster.nodes)


def _devices(context: click.Context) -> Iterable[tuple[str, str]]:
    """Yield the devices that may be written, with vendor, model and size."""
    from imagebuilder.devices.device import describe
    from imagebuilder.devices.safety import WritePolicy
    from imagebuilder.devices.targets import judge_devices

    policy = WritePolicy(
        allow_loop=bool(context.params.get("allow_loop")),
        allow_large=bool(context.params.get("allow_large")),
    )
    for device, reasons in judge_devices(policy):
        if not reasons:
            yield device.path, describe(device).partition(" ")[2][1:-1]


def _cached(_context: click.Context) -> Iterable[tuple[str, str]]:
    return ((name, "") for image in _session().cache.listing() for name in image.names)


complete_profile = Completer(_profiles)
complete_board = Completer(_boards)
complete_image = Completer(_images, files=True)
complete_generation = Completer(_generations)
complete_node = Completer(_nodes)
complete_nodes = Completer(_nodes, several=True)
complete_device = Completer(_devices)
complete_card = Completer(_devices, files=True)
complete_cached = Completer(_cached)


def script_of(shell: str, group: click.Command) -> str:
    """Return the script that makes `shell` ask rpi-image for completions."""
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    if found is None:
        raise click.BadParameter(f"no completion for {shell}")
    # Not source(), which starts a bash to ask for its version.
    made = found(group, {}, "rpi-image", VARIABLE)
    return made.source_template % made.source_vars()
