"""The commands `flash`, `verify` and `devices`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from imagebuilder.cli.cards import (
    CardReporter,
    show_comparison,
    show_devices,
    show_owner,
    show_refusal,
)
from imagebuilder.cli.completion import complete_card, complete_device
from imagebuilder.cli.help import Command
from imagebuilder.cli.options import (
    card_node,
    node_option,
    node_options,
    other_card_nodes,
    with_console,
    yes,
)
from imagebuilder.cli.process import allow_helpers
from imagebuilder.cli.session import Session
from imagebuilder.devices.safety import WritePolicy
from imagebuilder.devices.targets import judge_devices
from imagebuilder.errors import RpiImageError
from imagebuilder.flash.flasher import STALL_SECONDS
from imagebuilder.flash.run import FlashOptions, FlashRun, compare_target
from imagebuilder.flash.verify import owner_of
from imagebuilder.settings.flags import check_names

if TYPE_CHECKING:
    from imagebuilder.cli.console import Console
    from imagebuilder.settings.flags import NodeFlags

allow_loop = click.option("--allow-loop", is_flag=True, help="Allow loop devices.")
allow_large = click.option("--allow-large", is_flag=True, help="Allow cards over 256 GB.")


@click.command(cls=Command)
@click.argument("targets", metavar="DEVICE...", nargs=-1, shell_complete=complete_device)
@card_node
@other_card_nodes
@node_options
@yes
@allow_loop
@allow_large
@click.option("--full", is_flag=True, help="Write every byte of the image, also all free ones.")
@click.option("--reuse", is_flag=True, help="Write only what differs from the card.")
@click.option("--no-verify", is_flag=True, help="Do not read back what was written.")
@click.option("--eject", is_flag=True, help="Eject each finished card.")
@click.option("--unmount", is_flag=True, help="Unmount the card first.")
@click.option("--again", is_flag=True, help="Write nodes and cards that were written before.")
@click.option("--outdated", is_flag=True, help="Write only cards that are not as in the file.")
@click.option("--queue", is_flag=True, help="Write every card that is inserted from now on.")
@click.option(
    "--stall-seconds",
    type=float,
    default=STALL_SECONDS,
    show_default=True,
    help="Give up a card that does not answer for this time.",
)
@with_console
def flash(
    console: Console,
    targets: tuple[str, ...],
    flags: NodeFlags,
    **options: Any,
) -> int:
    """Write an image, or nodes of a classroom, to cards, and verify them.

    An --image alone is written as it is, compressed or not; without it, the only image in build/.
    With -c, the next nodes of the roster without a card are written in parallel.
    """
    chosen = FlashOptions(**options)
    shown = CardReporter(console=console, options=chosen.card)
    session = Session(console=console, allow_http=flags.allow_http)
    allow_helpers()
    run = FlashRun(workspace=session, prompter=console, flags=flags, options=chosen, finished=shown)
    try:
        return shown.end(run.run(targets))
    except RpiImageError as error:
        if run.refused:
            show_refusal(targets, error, console)
        raise


@click.command(cls=Command)
@allow_loop
@allow_large
@with_console
def devices(console: Console, allow_loop: bool, allow_large: bool) -> None:
    """List block devices and why each would be refused."""
    policy = WritePolicy(allow_loop=allow_loop, allow_large=allow_large)
    show_devices(judge_devices(policy), console)


@click.command(cls=Command)
@click.argument(
    "target",
    metavar="DEVICE",
    type=click.Path(path_type=Path, readable=False),
    shell_complete=complete_card,
)
@node_option
@node_options
@with_console
def verify(console: Console, target: Path, node: str, flags: NodeFlags) -> int:
    """Compare a card with a node or an image; without one, show its node.

    DEVICE is a card, an image file or a mounted boot partition, whose files are compared.
    """
    check_names(flags, node)
    allow_helpers()
    if not (flags.image or flags.describe_nodes):
        return show_owner(target, owner_of(target), console)
    session = Session(console=console, allow_http=flags.allow_http)
    return show_comparison(target, compare_target(target, session, console, flags, node), console)
