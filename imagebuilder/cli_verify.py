"""The command `verify`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from imagebuilder.cli_cards import load_nodes, open_image
from imagebuilder.cli_flash import check_names, names_nodes, node_option
from imagebuilder.cli_options import voiced
from imagebuilder.cli_session import Session
from imagebuilder.cli_settings import NodeFlags, node_options
from imagebuilder.errors import ImageError, InputError, RpiImageError, WriteError
from imagebuilder.jobs import Pantry
from imagebuilder.progress import human_bytes
from imagebuilder.verify import compare, identify, open_medium

if TYPE_CHECKING:
    from imagebuilder.console import Console
    from imagebuilder.verify import Comparison

_MOST_SHOWN = 10


@click.command()
@click.argument("target", metavar="DEVICE", type=click.Path(path_type=Path))
@node_option
@node_options
@voiced
def verify(console: Console, target: Path, node: str, flags: NodeFlags) -> int:
    """Compare a card (or an image file) with what it should be; alone: tell whose card it is."""
    check_names(flags, node)
    if not (flags.image or names_nodes(flags)):
        return _show_whose(console, target)
    return _show_comparison(console, target, flags, node)


def _show_whose(console: Console, target: Path) -> int:
    facts = whose(target)
    if console.as_json:
        console.emit(facts)
    else:
        console.result(f"{target} is {facts['hostname']} ({facts['generation']})")
        for key in ("arch", "address", "shack", "config_hash"):
            console.result(f"{key}: {facts[key]}")
    return 0


def _show_comparison(console: Console, target: Path, flags: NodeFlags, node: str) -> int:
    session = Session(console=console)
    with Pantry(epoch=build_time_of(target, session.epoch), voice=console) as pantry:
        if names_nodes(flags):
            _, nodes = load_nodes(session, flags, node)
            if len(nodes) != 1:
                raise InputError(f"{len(nodes)} nodes to compare with", "name one with --node")
            recipe = pantry.node(nodes[0], session.obtain)
        else:
            recipe = pantry.image(open_image(session, flags))
        with open_medium(target) as (medium, disk):
            found = compare(medium, disk, recipe.source, recipe.write_set, console)
            size_bytes = medium.size_bytes
    if console.as_json:
        console.emit(_comparison_as_json(target, found))
    if found.missing_bytes:
        raise WriteError(
            f"{target} holds {size_bytes} bytes, the image {size_bytes + found.missing_bytes}",
            "it was made from another image",
        )
    if not console.as_json:
        _say_comparison(console, target, found)
    return 0 if found.same else 7


def _comparison_as_json(target: Path, found: Comparison) -> dict[str, Any]:
    return {
        "device": str(target),
        "same": found.same,
        "compared_bytes": found.compared_bytes,
        "missing_bytes": found.missing_bytes,
        "files": list(found.files),
        "ranges": [
            {"start_bytes": r.start_bytes, "end_bytes": r.end_bytes, "partition": r.partition}
            for r in found.ranges
        ],
    }


def _say_comparison(console: Console, target: Path, found: Comparison) -> None:
    if found.same:
        console.result(f"{target}: {human_bytes(found.compared_bytes)} are as they should be")
        return
    for path in found.files:
        console.result(f"differs: {path}")
    for r in found.ranges[:_MOST_SHOWN]:
        where = f"partition {r.partition}" if r.partition else "outside the partitions"
        console.result(f"differs: bytes {r.start_bytes} to {r.end_bytes} ({where})")
    if len(found.ranges) > _MOST_SHOWN:
        console.result(f"and {len(found.ranges) - _MOST_SHOWN} further ranges")


def build_time_of(path: Path, otherwise: int) -> int:
    """Give when a card's node was composed (epoch seconds): it is part of what the card holds."""
    try:
        with open_medium(path) as (_, disk):
            built = identify(disk).node.get("RPI_IMAGE_BUILT", "")
    except RpiImageError:
        return otherwise
    return int(built) if built.isdigit() else otherwise


def whose(path: Path) -> dict[str, Any]:
    """Tell whose card this is; raises ImageError where it is nobody's, WriteError where unfinished.

    On a card the words about an image that should be fetched again would lead astray.
    """
    with open_medium(path) as (_, disk):
        try:
            report = identify(disk)
        except ImageError as error:
            if not path.is_block_device():
                raise
            raise WriteError(
                f"{path} holds no finished image ({error.message})", "flash it again"
            ) from error
    if not report.node and not report.hostname:
        raise ImageError(f"{path} carries no node of rpi-image", "`rpi-image inspect` shows more")
    return report.as_json()
