"""The commands `flash` and `devices`."""

from __future__ import annotations

import functools
import os
from collections import deque
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from imagebuilder.cli.cards import (
    Allowances,
    OutcomeReporter,
    agree,
    choose_targets,
    confirm,
    device_as_json,
    device_row,
    devices_as_rows,
    keep_safe,
    load_nodes,
    open_image,
    pick_node,
    show_json,
    show_refusal,
)
from imagebuilder.cli.options import NodeFlags, node_options, not_empty, with_console, yes
from imagebuilder.cli.session import Session
from imagebuilder.devices.blockdev import unmounted
from imagebuilder.devices.inventory import list_devices
from imagebuilder.devices.safety import WritePolicy, refuse
from imagebuilder.errors import InputError, RpiImageError, WriteError
from imagebuilder.files import has_file
from imagebuilder.flash.claims import CardClaims
from imagebuilder.flash.content import CardContents
from imagebuilder.flash.flasher import STALL_SECONDS, Flasher, flash_cards
from imagebuilder.flash.ledger import Ledger
from imagebuilder.flash.station import Station
from imagebuilder.flash.verify import build_time_of, compare, open_medium, whose
from imagebuilder.flash.writer import CardOptions
from imagebuilder.progress import human_bytes

if TYPE_CHECKING:
    from imagebuilder.cli.console import Console
    from imagebuilder.devices.device import Device
    from imagebuilder.flash.content import CardContent
    from imagebuilder.flash.verify import Comparison
    from imagebuilder.flash.writer import CardJob
    from imagebuilder.model import Classroom, NodeSettings

node_option = click.option(
    "--node", default="", callback=not_empty, help="The node of the classroom to write."
)
nodes_option = click.option(
    "--nodes", default="", callback=not_empty, help="Only these of the roster, comma-separated."
)
allow_loop = click.option("--allow-loop", is_flag=True, help="Take loop devices too.")
allow_large = click.option("--allow-large", is_flag=True, help="Take cards over 256 GB too.")


@dataclass(frozen=True, slots=True, kw_only=True)
class FlashFlags:
    """The flags of `flash` that are not about the node."""

    node: str
    nodes: str
    yes: bool
    allow_loop: bool
    allow_large: bool
    full: bool
    reuse: bool
    no_verify: bool
    eject: bool
    unmount: bool
    again: bool
    queue: bool
    stall_seconds: float

    @property
    def allowed(self) -> Allowances:
        """What the user allows the program to do."""
        return Allowances(
            yes=self.yes, loop=self.allow_loop, large=self.allow_large, unmount=self.unmount
        )

    @property
    def options(self) -> CardOptions:
        """How cards are written."""
        return CardOptions(
            reuse=self.reuse, verify=not self.no_verify, eject=self.eject or self.queue
        )


@click.command()
@click.argument("targets", metavar="DEVICE...", nargs=-1)
@node_option
@nodes_option
@node_options
@yes
@allow_loop
@allow_large
@click.option("--full", is_flag=True, help="Write every byte, and erase what was there.")
@click.option("--reuse", is_flag=True, help="Write only what differs on the card.")
@click.option("--no-verify", is_flag=True, help="Do not read back what was written.")
@click.option("--eject", is_flag=True, help="Eject every card that is done.")
@click.option("--unmount", is_flag=True, help="Unmount the card first.")
@click.option("--again", is_flag=True, help="Write nodes and cards that were written before.")
@click.option("--queue", is_flag=True, help="Write every card that is inserted from now on.")
@click.option(
    "--stall-seconds",
    type=float,
    default=STALL_SECONDS,
    show_default=True,
    help="Report a card that takes longer for one piece.",
)
@with_console
def flash(
    console: Console,
    targets: tuple[str, ...],
    flags: NodeFlags,
    **rest: Any,
) -> int:
    """Write an image, or nodes of a classroom, onto cards: only what is in use, proven, safe.

    --image alone is written as it is, compressed or not; without it the one image in build/ is
    taken. With -c alone the next nodes of the roster that have no card are written side by side.
    """
    said = FlashFlags(**rest)
    check_names(flags, said.node or said.nodes)
    _check_flags(said)
    if said.no_verify:
        console.warn("not verifying: a worn or counterfeit card will not be noticed")
    run = _Flash(Session(console=console), said, flags)
    if said.queue:
        return run.queue(targets)
    try:
        return run.write(targets)
    except RpiImageError as error:
        if not run.begun:
            show_refusal(targets, error, console)
        raise


@click.command()
@allow_loop
@allow_large
@with_console
def devices(console: Console, allow_loop: bool, allow_large: bool) -> None:
    """List block devices and why each would be refused."""
    rows = devices_as_rows(WritePolicy(allow_loop=allow_loop, allow_large=allow_large))
    if console.as_json:
        console.emit({"devices": [device_as_json(device, why) for device, why in rows]})
        return
    head = ("device", "size", "by", "model", "serial", "slot", "may be written")
    console.table(head, [(*device_row(device), "; ".join(why) or "yes") for device, why in rows])


def check_names(flags: NodeFlags, names: str) -> None:
    """Raise InputError where nodes are named that no file describes."""
    if names and not flags.config:
        raise InputError(f"{names} without a classroom file", "give -c FILE as well")


def _check_flags(said: FlashFlags) -> None:
    if said.node and said.nodes:
        raise InputError("--node and --nodes exclude each other", "give one of them")
    if not said.stall_seconds > 0:  # "nan" is a number to click, and compares as nothing
        raise InputError(f"--stall-seconds is {said.stall_seconds:g}", "give more than 0")


def names_nodes(flags: NodeFlags) -> bool:
    """Return whether the flags are about nodes, not about an image as it is."""
    return bool(flags.config or flags.hostname or flags.profile)


class _Flash:
    """One run of `flash`."""

    def __init__(self, session: Session, said: FlashFlags, flags: NodeFlags) -> None:
        self._session = session
        self._console = session.console
        self._said = said
        self._flags = flags
        self.begun = False

    def write(self, targets: tuple[str, ...]) -> int:
        """Write the devices named."""
        if not targets:
            raise InputError("no device is named", "`rpi-image devices` lists them")
        policy = self._policy()
        # Before anything is fetched or unpacked: a refusal should come at once.
        found = choose_targets(targets, policy, self._said.allowed, self._console)
        with self._contents() as contents:
            if names_nodes(self._flags):
                return self._write_nodes(found, contents)
            return self._write_image(found, contents)

    def queue(self, readers: tuple[str, ...]) -> int:
        """Serve at the flash station until the roster is done; only `readers` where some are named.

        A reader may be named by a link that udev keeps, such as one of /dev/disk/by-path.
        """
        from imagebuilder.devices.hotplug import open_uevents

        if not self._flags.config:
            raise InputError("the flash station needs a roster", "give -c FILE")
        classroom, nodes = self._nodes()
        claims = self._claims(again=self._said.again)
        names = claims.pending([node.hostname for node in nodes])
        waiting = [node for node in nodes if node.hostname in names]
        with self._contents() as contents, open_uevents() as events:
            # A card should not wait for a download, nor the others for its failure.
            for image in {node.image for node in waiting}:
                self._session.obtain(image)
            station = self._station(classroom, waiting, readers, contents, claims)
            self._agree_to_queue(classroom, names)
            outcomes = station.run(events)
        show_json(outcomes, self._console)
        return 0  # every node has its card, whatever failed on the way

    def _station(
        self,
        classroom: Classroom,
        nodes: list[NodeSettings],
        readers: tuple[str, ...],
        contents: CardContents,
        claims: CardClaims,
    ) -> Station:
        settings = {node.hostname: node for node in nodes}

        def look() -> tuple[Device, ...]:
            named = {os.path.realpath(path) for path in readers}
            return tuple(d for d in list_devices() if not named or d.path in named)

        def prepare(name: str, device: Device) -> CardJob:
            content = self._fitting(settings[name], device, contents)
            claims.begin(content, device)
            return content.job(device)

        return Station(
            nodes=tuple(settings),
            roster=tuple(node.hostname for node in classroom.nodes),
            flasher=Flasher(
                options=self._said.options,
                reporter=self._console,
                stall_seconds=self._said.stall_seconds,
            ),
            look=look,
            free=lambda device: unmounted(device) if self._said.unmount else device,
            prepare=prepare,
            settle=claims.end,
            policy=self._policy(),
            reporter=self._console,
        )

    def _write_image(self, found: tuple[Device, ...], contents: CardContents) -> int:
        base = open_image(self._session, self._flags)
        content = contents.image(base)
        for device in found:
            refuse(device, replace(self._policy(base.path), image_bytes=content.source.size_bytes))
        confirm([(device, base.name) for device in found], self._said.allowed, self._console)
        return self._run([content] * len(found), found, self._claims(again=True))

    def _write_nodes(self, found: tuple[Device, ...], contents: CardContents) -> int:
        _, nodes = self._nodes()
        named = bool(self._said.node or self._flags.hostname)
        claims = self._claims(again=self._said.again, named=named)
        order = claims.free_nodes(nodes, len(found))
        chosen = [(device, order.popleft()) for device in found]
        # Who named nodes wants these; the roster's next one may be any that is free.
        spare = deque() if self._said.node or self._said.nodes else order

        def compose(node: NodeSettings, device: Device) -> CardContent:
            return self._fitting(node, device, contents)

        pick = functools.partial(pick_node, spare=spare, compose=compose, console=self._console)
        chosen_contents = [pick(d, compose(node, d), claims.check) for d, node in chosen]
        pairs = list(zip(found, chosen_contents, strict=True))
        confirm([(d, content.node) for d, content in pairs], self._said.allowed, self._console)
        try:
            chosen_contents = [pick(device, content, claims.begin) for device, content in pairs]
        except RpiImageError:
            claims.take_back()
            raise
        return self._run(chosen_contents, found, claims)

    def _fitting(self, node: NodeSettings, device: Device, contents: CardContents) -> CardContent:
        """Compose a node; raises RefusedError where the device is not fit for it."""
        content = self._content_of(node, contents)
        policy = self._policy(*([node.image.file] if node.image.file else []))
        refuse(device, replace(policy, image_bytes=content.source.size_bytes))
        return content

    def _run(
        self, chosen_contents: list[CardContent], found: tuple[Device, ...], claims: CardClaims
    ) -> int:
        self.begun = True
        outcome_reporter = OutcomeReporter(
            settle=claims.end, console=self._console, options=self._said.options
        )
        outcomes = flash_cards(
            [content.job(device) for device, content in zip(found, chosen_contents, strict=True)],
            self._said.options,
            self._console,
            stall_seconds=self._said.stall_seconds,
            finished=outcome_reporter,
        )
        return outcome_reporter.end(outcomes)

    def _content_of(self, node: NodeSettings, contents: CardContents) -> CardContent:
        content = contents.node(node, self._session.obtain)
        for warning in content.warnings:
            self._console.warn(f"{node.hostname}: {warning}")
        return content

    def _nodes(self) -> tuple[Classroom, tuple[NodeSettings, ...]]:
        return load_nodes(self._session, self._flags, self._said.node or self._said.nodes)

    def _claims(self, *, again: bool, named: bool = False) -> CardClaims:
        config = self._flags.config
        ledger = Ledger(config.with_suffix(".cards.yml")) if config else None
        epoch = self._session.epoch
        return CardClaims(ledger, self._console, again=again, named=named, epoch=epoch)

    def _policy(self, *files: Path) -> WritePolicy:
        image = Path(self._flags.image) if self._flags.image else None
        named = [path for path in (self._flags.config, image, *files) if path and has_file(path)]
        return WritePolicy(
            allow_loop=self._said.allow_loop,
            allow_large=self._said.allow_large,
            protected=keep_safe(self._session, *named),
        )

    def _contents(self) -> CardContents:
        return CardContents(full=self._said.full, epoch=self._session.epoch, reporter=self._console)

    def _agree_to_queue(self, classroom: Classroom, names: tuple[str, ...]) -> None:
        if self._said.yes:
            return
        self._console.note(f"every card inserted from now on becomes one of {', '.join(names)}")
        agree(f"Type {classroom.name} to begin:", classroom.name, self._console)


_MOST_SHOWN = 10


@click.command()
@click.argument("target", metavar="DEVICE", type=click.Path(path_type=Path))
@node_option
@node_options
@with_console
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
    with CardContents(epoch=build_time_of(target, session.epoch), reporter=console) as contents:
        if names_nodes(flags):
            _, nodes = load_nodes(session, flags, node)
            if len(nodes) != 1:
                raise InputError(f"{len(nodes)} nodes to compare with", "name one with --node")
            content = contents.node(nodes[0], session.obtain)
        else:
            content = contents.image(open_image(session, flags))
        with open_medium(target) as (medium, disk):
            found = compare(medium, disk, content.source, content.write_set, console)
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
