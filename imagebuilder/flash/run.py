"""Run `flash` and `verify`, from device names to cards; callable without a command line."""

from __future__ import annotations

import functools
import os
from collections import deque
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from imagebuilder.devices.blockdev import unmounted
from imagebuilder.devices.hotplug import open_uevents
from imagebuilder.devices.inventory import list_devices
from imagebuilder.devices.safety import WritePolicy, refuse
from imagebuilder.devices.targets import (
    choose_targets,
    confirm,
    prepare_access,
    protected_file,
    protected_folder,
)
from imagebuilder.errors import InputError, RpiImageError
from imagebuilder.files import has_file, has_folder
from imagebuilder.flash.choice import choose_by_card, choose_card_nodes, choose_image
from imagebuilder.flash.claims import CardClaims
from imagebuilder.flash.class_choice import choose_class, station_screen
from imagebuilder.flash.content import CardContents
from imagebuilder.flash.flasher import STALL_SECONDS, Flasher, flash_cards
from imagebuilder.flash.records.ledger import NodeTakenError, skipped
from imagebuilder.flash.records.station_screen import ScreenReporter
from imagebuilder.flash.station import Station, no_owner
from imagebuilder.flash.verify import build_time_of, compare, compare_mounted, open_medium
from imagebuilder.flash.writer import CardOptions
from imagebuilder.progress import agree
from imagebuilder.settings.flags import check_names

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from imagebuilder.devices.device import Device
    from imagebuilder.flash.class_choice import ClassChoice
    from imagebuilder.flash.content import CardContent
    from imagebuilder.flash.flasher import CardOutcome
    from imagebuilder.flash.verify import Comparison
    from imagebuilder.flash.writer import CardJob
    from imagebuilder.images.cache import Cache
    from imagebuilder.model import BaseImage, Classroom, ImageSource, NodeSettings, OverlayFile
    from imagebuilder.progress import Prompter, Reporter
    from imagebuilder.settings.flags import NodeFlags


class Workspace(Protocol):
    """What a run needs from its caller; each is used only if needed."""

    @property
    def epoch(self) -> int:
        """The build time, in seconds since 1970."""

    @property
    def cache(self) -> Cache:
        """The cache of base images."""

    def obtain(self, source: ImageSource) -> BaseImage:
        """Return the unpacked base image."""

    def packages(self, node: NodeSettings) -> tuple[OverlayFile, ...]:
        """Return the packages that a card of the node brings along."""

    def classroom(self, flags: NodeFlags) -> Classroom:
        """Return the classroom of the flags and their --config."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FlashOptions:
    """The flags of `flash` that are not settings of nodes, with their defaults."""

    node: str = ""
    nodes: str = ""
    yes: bool = False
    allow_loop: bool = False
    allow_large: bool = False
    full: bool = False
    reuse: bool = False
    no_verify: bool = False
    eject: bool = False
    unmount: bool = False
    again: bool = False
    queue: bool = False
    outdated: bool = False
    stall_seconds: float = STALL_SECONDS

    @property
    def names(self) -> str:
        """The names of --node or --nodes."""
        return self.node or self.nodes

    @property
    def card(self) -> CardOptions:
        """The options for writing cards; the flash station always ejects.

        An outdated card mostly has the same base, which is not written again.
        """
        return CardOptions(
            reuse=self.reuse or self.outdated,
            verify=not self.no_verify,
            eject=self.eject or self.queue,
        )

    @property
    def may_unmount(self) -> bool | None:
        """Whether to unmount a card; None: ask."""
        return True if self.unmount else False if self.yes else None

    def check(self) -> None:
        """Raise InputError if flags exclude each other or have no valid value."""
        if self.node and self.nodes:
            raise InputError("--node and --nodes exclude each other", "use one of them")
        if self.again and self.outdated:
            raise InputError("--again and --outdated exclude each other", "use one of them")
        if not self.stall_seconds > 0:  # click accepts "nan", for which every comparison is false
            raise InputError(f"--stall-seconds is {self.stall_seconds:g}", "use a number above 0")


@dataclass(frozen=True, slots=True)
class FlashResult:
    """The results of all cards, and the exit code."""

    outcomes: tuple[CardOutcome, ...]
    exit_code: int


def _ignore(_: CardOutcome) -> None:
    """Do nothing with an outcome."""


@dataclass(kw_only=True)
class FlashRun:
    """One run of `flash`; `finished` is called for each card as soon as it ends.

    After an error, `refused` is set if no card was begun.
    """

    workspace: Workspace
    prompter: Prompter
    flags: NodeFlags
    options: FlashOptions
    finished: Callable[[CardOutcome], None] = _ignore
    refused: bool = field(init=False, default=False)

    def run(self, targets: Sequence[str]) -> FlashResult:
        """Write the devices, or run the flash station. Raise RpiImageError on failure."""
        check_names(self.flags, self.options.names)
        self.options.check()
        if self.options.no_verify:
            self.prompter.warn(
                "not verifying: defects of worn or counterfeit cards will not be found"
            )
        if self.options.queue:
            return self._queue(targets)
        self.refused = True
        return self._write(targets)

    def _write(self, targets: Sequence[str]) -> FlashResult:
        if not targets:
            raise InputError("no device given", "see `rpi-image devices`")
        # Before anything is fetched or unpacked, so that a refusal comes at once.
        devices = choose_targets(
            targets, self._policy(), self.prompter, unmount=self.options.may_unmount
        )
        with self._contents() as contents:
            if self.flags.describe_nodes:
                return self._write_nodes(devices, contents)
            return self._write_image(devices, contents)

    def _write_image(self, devices: tuple[Device, ...], contents: CardContents) -> FlashResult:
        base = choose_image(self.flags, self.workspace.obtain, self.prompter, self.workspace.cache)
        content = contents.image(base)
        policy = replace(self._policy(base.path), image_bytes=content.source.size_bytes)
        for device in devices:
            refuse(device, policy)
        self._confirm([(device, base.name) for device in devices])
        claims = CardClaims(None, self.prompter, again=True)
        return self._flash([content] * len(devices), devices, claims)

    def _write_nodes(self, devices: tuple[Device, ...], contents: CardContents) -> FlashResult:
        chosen_class = self._chosen()
        if not chosen_class.nodes:
            return self._nothing_to_write()
        claims = self._claims(chosen_class, named=bool(self.options.node or self.flags.hostname))
        order = claims.free_nodes(chosen_class.nodes, len(devices))
        if self.options.outdated:
            names = choose_by_card(devices, [node.hostname for node in order], claims.owner_name)
            order = deque(sorted(order, key=lambda node: names.index(node.hostname)))
        chosen = [(device, order.popleft()) for device in devices]
        # Without names, a node that is taken is replaced by the next free one.
        spare = deque() if self.options.names else order

        def compose(node: NodeSettings, device: Device) -> CardContent:
            return self._compose(node, device, contents)

        pick = functools.partial(pick_node, spare=spare, compose=compose, reporter=self.prompter)
        picked = [pick(device, compose(node, device), claims.check) for device, node in chosen]
        pairs = list(zip(devices, picked, strict=True))
        self._confirm([(device, content.node) for device, content in pairs])
        try:
            picked = [pick(device, content, claims.begin) for device, content in pairs]
        except RpiImageError:
            claims.take_back()
            raise
        return self._flash(picked, devices, claims)

    def _flash(
        self, contents: list[CardContent], devices: tuple[Device, ...], claims: CardClaims
    ) -> FlashResult:
        self.refused = False

        unusable: dict[str, CardOutcome] = {}

        def finished(outcome: CardOutcome) -> None:
            if refused := claims.end(outcome):
                outcome = replace(outcome, report=None, error=refused)
                unusable[outcome.job.device.path] = outcome
            self.finished(outcome)

        written = flash_cards(
            [content.job(device) for device, content in zip(devices, contents, strict=True)],
            self.options.card,
            self.prompter,
            stall_seconds=self.options.stall_seconds,
            finished=finished,
        )
        outcomes = tuple(unusable.get(each.job.device.path, each) for each in written)
        codes = [outcome.error.exit_code for outcome in outcomes if outcome.error]
        return FlashResult(outcomes, max(codes, default=0))

    def _queue(self, readers: Sequence[str]) -> FlashResult:
        """Run the flash station until the roster is done, with `readers` only if any are given.

        A reader may be given as a link of udev, for example in /dev/disk/by-path.
        """
        if not self.flags.config:
            raise InputError("the flash station needs a roster", "use -c FILE")
        chosen = self._chosen()
        if not chosen.nodes:
            return self._nothing_to_write()
        claims, classroom = self._claims(chosen), chosen.classroom
        names = claims.pending([node.hostname for node in chosen.nodes])
        waiting = [node for node in chosen.nodes if node.hostname in names]
        prepare_access()
        with self._contents() as contents, open_uevents() as events:
            # Fetch now, so that no card waits for a download later.
            for image in {node.image for node in waiting}:
                self.workspace.obtain(image)
            station = self._station(classroom, waiting, readers, contents, claims)
            self._confirm_queue(classroom, names)
            # The station only returns when every node has a card, even if cards failed before.
            return FlashResult(station.run(events), 0)

    def _station(
        self,
        classroom: Classroom,
        nodes: list[NodeSettings],
        readers: Sequence[str],
        contents: CardContents,
        claims: CardClaims,
    ) -> Station[CardJob, CardOutcome]:
        settings = {node.hostname: node for node in nodes}
        screen = station_screen(classroom, self.flags.config)

        def prepare(name: str, device: Device) -> CardJob:
            content = self._compose(settings[name], device, contents)
            claims.begin(content, device)
            return content.job(device)

        return Station(
            nodes=tuple(settings),
            roster=screen.roster,
            owners=screen.owners,
            flasher=Flasher(
                options=self.options.card,
                reporter=ScreenReporter(self.prompter, screen),
                stall_seconds=self.options.stall_seconds,
            ),
            screen=screen,
            look=functools.partial(_devices_in, readers),
            free=lambda device: unmounted(device) if self.options.unmount else device,
            prepare=prepare,
            settle=claims.end,
            others=claims.others,
            policy=self._policy(),
            reporter=self.prompter,
            owner=claims.owner_name if self.options.outdated else no_owner,
        )

    def _compose(self, node: NodeSettings, device: Device, contents: CardContents) -> CardContent:
        """Return the content of a node. Raise RefusedError if the device may not be written."""
        content = contents.node(node, self.workspace.obtain)
        for warning in content.warnings:
            self.prompter.warn(f"{node.hostname}: {warning}")
        policy = self._policy(*([node.image.file] if node.image.file else []))
        refuse(device, replace(policy, image_bytes=content.source.size_bytes))
        return content

    def _chosen(self) -> ClassChoice:
        """Return the nodes to write. Raise InputError for --outdated without a roster."""
        return choose_class(
            self.workspace.classroom(self.flags),
            self.options.names,
            self.flags.config,
            self.prompter,
            self.workspace.obtain if self.options.outdated else None,
        )

    def _claims(self, chosen: ClassChoice, *, named: bool = False) -> CardClaims:
        again, epoch = self.options.again, self.workspace.epoch
        return chosen.claims(self.prompter, again=again, named=named, epoch=epoch)

    def _nothing_to_write(self) -> FlashResult:
        self.prompter.note("every card is current")
        return FlashResult((), 0)

    def _policy(self, *files: Path) -> WritePolicy:
        """Return what the user allows, and what must not be overwritten."""
        cache = self.workspace.cache.folder
        image = Path(self.flags.image) if self.flags.image else None
        named = [path for path in (self.flags.config, image, *files) if path and has_file(path)]
        return WritePolicy(
            allow_loop=self.options.allow_loop,
            allow_large=self.options.allow_large,
            protected=(
                protected_folder(cache, f"the cache ({cache})"),
                *map(protected_file, named),
            ),
        )

    def _contents(self) -> CardContents:
        place = self.workspace
        return CardContents(
            full=self.options.full, epoch=place.epoch, reporter=self.prompter, cache=place.cache
        )

    def _confirm(self, targets: Sequence[tuple[Device, str]]) -> None:
        confirm(targets, self.prompter, yes=self.options.yes)

    def _confirm_queue(self, classroom: Classroom, names: Sequence[str]) -> None:
        if self.options.yes:
            return
        self.prompter.note(
            f"every card inserted from now on will be written as one of {', '.join(names)}"
        )
        agree(f"Type {classroom.name} to begin:", classroom.name, self.prompter)


def pick_node(
    device: Device,
    content: CardContent,
    enter: Callable[[CardContent, Device], None],
    *,
    spare: deque[NodeSettings],
    compose: Callable[[NodeSettings, Device], CardContent],
    reporter: Reporter,
) -> CardContent:
    """Return the content that `enter` accepts: `content`, or that of the next free node."""
    taken: dict[str, NodeTakenError] = {}
    while True:
        try:
            enter(content, device)
        except NodeTakenError as error:
            if not spare:
                raise
            taken[content.node] = error
            content = compose(spare.popleft(), device)
        else:
            if taken:
                reporter.warn(skipped(taken))
            return content


def _devices_in(readers: Sequence[str]) -> tuple[Device, ...]:
    """Return the devices in `readers`, by default all."""
    named = {os.path.realpath(path) for path in readers}
    return tuple(device for device in list_devices() if not named or device.path in named)


def compare_target(
    target: Path, workspace: Workspace, prompter: Prompter, flags: NodeFlags, names: str = ""
) -> Comparison:
    """Compare a card or an image file with the node or image described by the flags.

    A mounted boot partition is compared by its files, and only with a node.
    """
    epoch = build_time_of(target, workspace.epoch)
    if has_folder(target):
        if not flags.describe_nodes:
            raise InputError(f"{target} is a folder", "compare it with a node: use -c FILE --node")
        node = _one_node(workspace, flags, names)
        return compare_mounted(target, node, epoch, workspace.packages(node))
    with CardContents(epoch=epoch, reporter=prompter, cache=workspace.cache) as contents:
        if flags.describe_nodes:
            content = contents.node(_one_node(workspace, flags, names), workspace.obtain)
        else:
            content = contents.image(
                choose_image(flags, workspace.obtain, prompter, workspace.cache)
            )
        with open_medium(target) as (medium, disk):
            return compare(medium, disk, content.source, content.write_set, prompter)


def _one_node(workspace: Workspace, flags: NodeFlags, names: str) -> NodeSettings:
    nodes = choose_card_nodes(workspace.classroom(flags), names)
    if len(nodes) != 1:
        raise InputError(f"{len(nodes)} nodes to compare with", "choose one with --node")
    return nodes[0]
