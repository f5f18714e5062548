"""Run `apply --queue`: each card that is inserted becomes the next node, through its folder."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from imagebuilder.build.apply import apply_plan, plan_apply
from imagebuilder.build.boot_folder import BootFolder, may_be_boot_partition
from imagebuilder.build.wanted import WantedSettings, as_recorded
from imagebuilder.devices.hotplug import Uevents
from imagebuilder.devices.volumes import VolumeWatch, eject, refuse_volume
from imagebuilder.errors import ImageError, InputError, RefusedError, RpiImageError
from imagebuilder.flash.class_choice import choose_class, station_screen
from imagebuilder.flash.station import Station, no_owner
from imagebuilder.flash.writer import Stage
from imagebuilder.progress import agree
from imagebuilder.settings.flags import check_names

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from imagebuilder.build.apply import ApplyPlan
    from imagebuilder.devices.device import Device
    from imagebuilder.devices.volumes import Volume
    from imagebuilder.flash.apply_run import ApplyOptions, Workspace
    from imagebuilder.flash.claims import CardClaims
    from imagebuilder.flash.class_choice import ClassChoice
    from imagebuilder.flash.records.ledger import UnusableCardError
    from imagebuilder.model import Classroom, ImageSource, NodeSettings
    from imagebuilder.progress import Prompter
    from imagebuilder.settings.flags import NodeFlags


@dataclass(frozen=True, slots=True)
class FolderJob:
    """One card to write through its folder; `settings` is for the ledger."""

    device: Device
    volume: Volume
    boot: BootFolder
    plan: ApplyPlan
    settings: str = ""

    @property
    def node(self) -> str:
        """The hostname."""
        return self.plan.node.hostname

    @property
    def config_hash(self) -> str:
        """The hash of the configuration."""
        return self.plan.node.config_hash

    @property
    def base_sha256(self) -> str:
        """Empty: the base image is not known."""
        return ""


@dataclass(frozen=True, slots=True)
class FolderReport:
    """The result of a card whose files were written and read back."""

    written_bytes: int
    seconds: float
    ejected: bool
    digest: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderOutcome:
    """The result of one card: a report or an error."""

    job: FolderJob
    stage: Stage
    report: FolderReport | None = None
    error: RpiImageError | None = None


@dataclass
class FolderWriter:
    """Writes cards one after the other, in `poll`; each takes a second or two."""

    prompter: Prompter
    eject: Callable[[Volume], bool] = eject
    _waiting: deque[FolderJob] = field(init=False, default_factory=deque)

    @property
    def busy(self) -> tuple[FolderJob, ...]:
        """The cards that are not done yet."""
        return tuple(self._waiting)

    def start(self, job: FolderJob) -> None:
        """Take a card."""
        self._waiting.append(job)

    def poll(self, seconds: float) -> FolderOutcome | None:
        """Write the next card and return its result; without one, wait and return None."""
        if not self._waiting:
            time.sleep(seconds)
            return None
        outcome = self._written(self._waiting[0])
        self._waiting.popleft()
        return outcome

    def stop(self) -> tuple[FolderOutcome, ...]:
        """Return the cards that are not done; the first one may have been begun."""
        if self._waiting:
            self.prompter.warn(f"{self._waiting[0].device.path} may be unfinished: apply it again")
        stages = (Stage.WRITE, *[Stage.CLAIM] * len(self._waiting))
        jobs = tuple(self._waiting)
        self._waiting.clear()
        return tuple(
            FolderOutcome(job=job, stage=stage) for job, stage in zip(jobs, stages, strict=False)
        )

    def _written(self, job: FolderJob) -> FolderOutcome:
        begin = time.monotonic()
        try:
            apply_plan(job.boot, job.plan, self.prompter)
        except RpiImageError as error:
            return FolderOutcome(job=job, stage=Stage.WRITE, error=error)
        ejected = self.eject(job.volume)
        if not ejected:
            self.prompter.warn(f"{job.device.path} was not ejected: eject it before removing it")
        size = sum(c.size_bytes for c in job.plan.changes if c.status != "same")
        report = FolderReport(size, time.monotonic() - begin, ejected)
        return FolderOutcome(job=job, stage=Stage.DONE, report=report)


@dataclass(kw_only=True)
class ApplyQueue:
    """One run of `apply --queue`; `finished` is called for each card as soon as it ends."""

    workspace: Workspace
    prompter: Prompter
    flags: NodeFlags
    options: ApplyOptions
    finished: Callable[[FolderOutcome], None]
    watch: VolumeWatch = field(default_factory=lambda: VolumeWatch(may_be_boot_partition))
    eject: Callable[[Volume], bool] = eject
    clock: Callable[[], float] = time.monotonic
    _wanted: WantedSettings = field(init=False, default_factory=WantedSettings)

    def run(self, folder: Path | None = None) -> tuple[FolderOutcome, ...]:
        """Write the next node to each card that is inserted, until every node has a card.

        Raise InputError for flags that exclude each other, RefusedError if every node has a card.
        """
        self._check(folder)
        chosen = self._chosen()
        if not chosen.nodes:
            self.prompter.note("every card is current")
            return ()
        classroom, again = chosen.classroom, self.options.again
        claims = chosen.claims(self.prompter, again=again, epoch=self.workspace.epoch)
        names = claims.pending([node.hostname for node in chosen.nodes])
        if not self.options.yes:
            self.prompter.note(f"every card inserted from now on becomes one of {', '.join(names)}")
            agree(f"Type {classroom.name} to begin:", classroom.name, self.prompter)
        waiting = {node.hostname: node for node in chosen.nodes if node.hostname in names}
        return self._station(classroom, waiting, claims).run(Uevents(None))

    def _check(self, folder: Path | None) -> None:
        check_names(self.flags, self.options.node)
        if not self.flags.config:
            raise InputError("--queue needs a roster", "use -c FILE")
        if self.options.again and self.options.outdated:
            raise InputError("--again and --outdated exclude each other", "use one of them")
        if folder or self.options.dry_run or self.options.this_machine:
            raise InputError(
                "--queue takes no folder, --dry-run or --this-machine", "use it without them"
            )

    def _chosen(self) -> ClassChoice:
        find = _no_image if self.options.outdated else None
        return choose_class(
            self.workspace.classroom(self.flags),
            self.options.node,
            self.flags.config,
            self.prompter,
            find,
        )

    def _station(
        self, classroom: Classroom, nodes: dict[str, NodeSettings], claims: CardClaims
    ) -> Station[FolderJob, FolderOutcome]:
        def prepare(name: str, device: Device) -> FolderJob:
            job = self._job(nodes[name], device)
            claims.begin(job, device)
            return job

        def settle(outcome: FolderOutcome) -> UnusableCardError | None:
            if refused := claims.end(outcome):
                outcome = replace(outcome, report=None, error=refused)
            self.finished(outcome)
            return refused

        screen = station_screen(classroom, self.flags.config)
        return Station(
            nodes=tuple(nodes),
            roster=screen.roster,
            owners=screen.owners,
            screen=screen,
            flasher=FolderWriter(self.prompter, self.eject),
            look=self.watch.look,
            prepare=prepare,
            settle=settle,
            others=claims.others,
            owner=claims.owner_name if self.options.outdated else no_owner,
            policy=None,
            reporter=self.prompter,
            clock=self.clock,
        )

    def _job(self, node: NodeSettings, device: Device) -> FolderJob:
        """Return the card with its plan. Raise RefusedError if this card cannot be taken."""
        volume = self.watch.volume_of(device)
        try:
            refuse_volume(volume)
            boot = BootFolder(volume.folder, keeps_unlinked=volume.keeps_unlinked)
            workspace = self.workspace
            plan = plan_apply(boot, node, workspace.epoch, packages=workspace.packages(node))
        except ImageError as error:
            raise RefusedError(f"{device.path}: {error.message}", error.hint) from error
        except OSError as error:
            raise RefusedError(f"{device.path}: {error.strerror}", "insert it again") from error
        for warning in plan.node.warnings:
            self.prompter.warn(f"{node.hostname}: {warning}")
        return FolderJob(device, volume, boot, plan, as_recorded(self._wanted.of(node)))


def _no_image(_: ImageSource) -> None:
    """Return no base image: `apply` writes to cards of any, and has none."""
