"""Make a mounted boot partition that of one node: the same files as `build` makes for its image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from imagebuilder.build.apply_order import Phase, Step, WriteOrder
from imagebuilder.build.compose import OverlayFolders
from imagebuilder.build.inspect import parse_node_env
from imagebuilder.errors import ImageError, RefusedError, WriteError, reading
from imagebuilder.plan.boot_files import read_boot_text
from imagebuilder.plan.card_layout import CMDLINE, NODE_ENV
from imagebuilder.plan.generations import detect, named_generation
from imagebuilder.plan.node import plan_node
from imagebuilder.progress import SILENT, Reporter, human_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from imagebuilder.build.boot_folder import BootFolder
    from imagebuilder.model import NodePlan, NodeSettings, OverlayFile
    from imagebuilder.plan.generations import Generation

Status = Literal["new", "changed", "removed", "same"]


@dataclass(frozen=True, slots=True)
class FileChange:
    """What becomes of one file of the plan; `size_bytes` is the new size, 0 if it is removed."""

    path: str
    status: Status
    size_bytes: int
    old_bytes: int


@dataclass(frozen=True, slots=True)
class ApplyPlan:
    """The plan of a node for a folder, what it changes there, and in which order.

    `hostname` and `earlier_hash` are the node of the card until now and its configuration, empty
    if there is none. A card that `is_current` has installed this one; nothing is written.
    """

    node: NodePlan
    hostname: str
    earlier_hash: str
    changes: tuple[FileChange, ...]
    phases: tuple[Phase, ...]
    is_current: bool = False


def plan_apply(
    boot: BootFolder,
    settings: NodeSettings,
    epoch: int,
    overlays: OverlayFolders | None = None,
    packages: Sequence[OverlayFile] = (),
) -> ApplyPlan:
    """Return what makes the folder a boot partition of the node; write nothing.

    `packages` are Debian packages that the card brings along. Raise RefusedError if it is not a
    boot partition or has not enough space, ImageError if its generation is unsure.
    """
    check_boot_folder(boot)
    plan = compare_folder(boot, settings, epoch, overlays, packages)
    _check_space(boot, [step for phase in plan.phases for step in phase])
    return plan


def compare_folder(
    boot: BootFolder,
    settings: NodeSettings,
    epoch: int,
    overlays: OverlayFolders | None = None,
    packages: Sequence[OverlayFile] = (),
) -> ApplyPlan:
    """Return what `plan_apply` does, of any folder and whatever space it has.

    Raise ImageError if its generation is unsure.
    """
    overlays = overlays or OverlayFolders()
    with reading(str(boot.root), ImageError):
        card = parse_node_env(read_boot_text(boot, NODE_ENV, errors="replace"))
        generation = _generation(boot, settings, overlays)
        # The Pi has installed packages, and removed them from its card, before it was scrubbed.
        carried = () if card.get("RPI_IMAGE_SCRUBBED") else tuple(packages)
        plan = plan_node(settings, generation, overlays.of(settings) + carried, boot, epoch)
        is_current = _is_current(card, plan)
        changes = tuple(_changes(boot, plan, keep=is_current))
        changed = {change.path for change in changes if change.status != "same"}
        phases = WriteOrder(plan, boot, changed).phases()
    name, earlier = card.get("NODE_HOSTNAME", ""), card.get("RPI_IMAGE_HASH", "")
    return ApplyPlan(plan, name, earlier, changes, phases, is_current)


def apply_plan(boot: BootFolder, plan: ApplyPlan, reporter: Reporter = SILENT) -> None:
    """Carry out a plan of the same folder, and compare every file with it.

    Raise WriteError if a file cannot be written or is not what was written.
    """
    boot.clean()
    steps = sum(map(len, plan.phases))
    with reporter.meter("writing", steps, "files") as meter:
        for phase in plan.phases:
            for step in phase:
                _carry_out(boot, step)
                meter.advance(1)
            boot.flush()
    if not plan.is_current:
        _verify(boot, plan.node)


def check_boot_folder(boot: BootFolder) -> None:
    """Raise RefusedError if the folder is not the boot partition of a Raspberry Pi."""
    if not boot.is_boot_partition:
        raise RefusedError(
            f"{boot.root} is not the boot partition of a Raspberry Pi",
            f"use the folder or drive that has {CMDLINE} in it; see `rpi-image apply`",
        )


def _generation(boot: BootFolder, settings: NodeSettings, overlays: OverlayFolders) -> Generation:
    generations = overlays.generations(settings)
    if settings.generation:
        return named_generation(generations, settings.generation)
    return detect(generations, boot)


def _is_current(card: dict[str, str], plan: NodePlan) -> bool:
    """Return whether the Pi has installed this plan and removed its secrets from the card.

    It would not install it again, so that secrets that are written again would stay there.
    """
    return card.get("RPI_IMAGE_HASH") == plan.config_hash and bool(card.get("RPI_IMAGE_SCRUBBED"))


def _changes(boot: BootFolder, plan: NodePlan, *, keep: bool) -> Iterator[FileChange]:
    for edit in plan.edits:
        old = boot.size_of(edit.path)
        new = len(edit.data or b"")
        there = boot.has_file(edit.path)
        status: Status = "changed" if there else "new"
        if edit.data is None:
            status = "removed" if there else "same"
        elif boot.holds(edit.path, edit.data):
            status = "same"
        yield FileChange(edit.path, "same" if keep else status, new, old)


def _check_space(boot: BootFolder, steps: list[Step]) -> None:
    """Raise RefusedError if a step would not find enough space; each writes before it replaces."""
    space = boot.space()
    free = space.free
    sizes: dict[str, int] = {}
    made: set[str] = set()
    for step in steps:
        key = step.path.lower()
        old = sizes.get(key, boot.size_of(step.path))
        missing = boot.missing_folders(step.path) - made if step.data is not None else set()
        made |= missing
        free -= space.clusters(len(step.data or b"")) + len(missing)
        if free < 0:
            needed, left = -free * space.cluster_bytes, space.free * space.cluster_bytes
            raise RefusedError(
                f"not enough space on {boot.root}: {human_bytes(left)} are free,"
                f" {human_bytes(needed)} more are needed",
                "remove files from the partition, or overlays from the settings",
            )
        free += space.clusters(old)
        sizes[key] = len(step.data or b"")


def _carry_out(boot: BootFolder, step: Step) -> None:
    if step.data is None:
        boot.remove(step.path, wipe=step.wipe)
    else:
        boot.write(step.path, step.data, wipe=step.wipe, in_use=step.in_use)


def _verify(boot: BootFolder, plan: NodePlan) -> None:
    for edit in plan.edits:
        gone = edit.data is None and not boot.exists(edit.path)
        if not gone and (edit.data is None or not boot.holds(edit.path, edit.data)):
            raise WriteError(
                f"{edit.path} on {boot.root} is not what was written",
                "the card is worn or counterfeit: use another one",
            )
