"""Compute the patch that makes a base image that of one node; write nothing."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from imagebuilder.disk.fat import edit
from imagebuilder.disk.partitions import boot_partition, cut_off, read_partitions
from imagebuilder.disk.reader import RawFile, open_raw
from imagebuilder.errors import ImageError, reading
from imagebuilder.files import read_file
from imagebuilder.images.root_system import read_root_system
from imagebuilder.model import BaseImage, ImageSource, NodePlan, NodeSettings, OverlayFile
from imagebuilder.plan.boot_files import MemoryBootFiles
from imagebuilder.plan.card_layout import CMDLINE, TARBALLS
from imagebuilder.plan.generations import detect, named_generation
from imagebuilder.plan.node import plan_node
from imagebuilder.plan.overlays import load_generations, load_overlay, node_overlay
from imagebuilder.plan.reach import reach_of, seen_in_root, serves_packages, vendor_state
from imagebuilder.plan.shared_image import identity_of, merge_plans, unclaimed_node
from imagebuilder.plan.vendor.docker import apt_words
from imagebuilder.progress import SILENT, Reporter
from imagebuilder.resources import shipped_folder
from imagebuilder.settings.fits import check_root

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from imagebuilder.build.packages import PackageIndex
    from imagebuilder.disk.extent import Patch
    from imagebuilder.model import RootSystem
    from imagebuilder.plan.generations import Generation

# Budget: a file of FAT has less than 4 GiB, and it is held in memory.
MOST_TARBALL_BYTES = 1 << 30

# Kept free on the boot partition: a kernel that apt brings is written beside the old one.
KEPT_FREE_BYTES = 64 << 20

WITHOUT_BASE = "planned without the base image: edits of the vendor's files are incomplete"


@dataclass(frozen=True, slots=True)
class Composition:
    """The plan of a node and the patch that applies it to its base."""

    settings: NodeSettings
    base: BaseImage
    plan: NodePlan
    patch: Patch


@dataclass(frozen=True, slots=True)
class OverlayFolders:
    """The overlay folders of many nodes, each read once."""

    _read: dict[Path, tuple[OverlayFile, ...]] = field(default_factory=dict)
    _generations: dict[tuple[Path, ...], tuple[Generation, ...]] = field(default_factory=dict)

    def generations(self, settings: NodeSettings) -> tuple[Generation, ...]:
        """Return the shipped generations, and those in the overlay folders of the node."""
        if settings.overlays not in self._generations:
            folders = (shipped_folder("overlays"), *settings.overlays)
            self._generations[settings.overlays] = load_generations(folders)
        return self._generations[settings.overlays]

    def of(self, settings: NodeSettings) -> tuple[OverlayFile, ...]:
        """Return the overlay files of a node, lowest priority first."""
        folders = (shipped_folder("overlays") / "node", *settings.overlays)
        tarballs = tuple(_tarball(Path(path)) for path in settings.cluster.tarballs)
        return tuple(file for folder in folders for file in self._folder(folder)) + tarballs

    def _folder(self, folder: Path) -> tuple[OverlayFile, ...]:
        if folder not in self._read:
            ours = folder == shipped_folder("overlays") / "node"
            self._read[folder] = node_overlay() if ours else load_overlay(folder)
        return self._read[folder]


@dataclass(kw_only=True)
class Composer:
    """Composes many nodes with one base, which is parsed and detected once.

    `epoch` (seconds, UTC) is the time of every written file and the build time on the card.
    """

    base: BaseImage
    raw: RawFile
    epoch: int
    reporter: Reporter = SILENT
    index: PackageIndex | None = None
    _boot: edit.BootBase = field(init=False)
    _overlays: OverlayFolders = field(init=False)
    _root: RootSystem | None = field(init=False)
    _faults: list[str] = field(init=False, default_factory=list)
    _detected: dict[tuple[Path, ...], Generation] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._overlays = OverlayFolders()
        with reading(self.base.name, ImageError):
            partitions = read_partitions(self.raw)
            self._boot = edit.BootBase(self.raw, boot_partition(self.raw, partitions))
        self._faults += [f"{self.base.name} {f}" for f in cut_off(partitions, self.raw.size_bytes)]
        if not self._boot.volume.clean:
            self._faults += [f"the boot partition of {self.base.name} was not cleanly unmounted"]
        self._root = self._read_root()

    def _read_root(self) -> RootSystem | None:
        """Return the system of the root; a damaged one is left to the Pi, which may repair it."""
        try:
            return read_root_system(self.raw)
        except ImageError as error:
            self._faults += [f"{self.base.name}: {error.message}"]
            return None

    def plan(self, settings: NodeSettings, *, carry: bool = True) -> NodePlan:
        """Return the plan of a node. Raise SettingsError if the packages of the base do not fit.

        With `carry`, its card brings the Debian packages along that are in the cache.
        """
        check_root(settings, self._root)
        self._warn(settings)
        overlays = self._overlays.of(settings)
        overlays += self._carried(settings, overlays) if carry else ()
        with reading(self.base.name, ImageError):
            generation = self._generation(settings)
            boot = self._boot.volume
            return plan_node(settings, generation, overlays, boot, self.epoch, self._root)

    def _warn(self, settings: NodeSettings) -> None:
        """Report once what is wrong with the image, unless the node acknowledges it."""
        if "image-state" not in settings.allow:
            for fault in self._faults:
                self.reporter.warn(fault)
            self._faults.clear()

    def packages(self, settings: NodeSettings) -> tuple[str, ...]:
        """Return the packages that a node installs, as apt-get takes them."""
        with reading(self.base.name, ImageError):
            generation = self._generation(settings)
            facts = generation.facts_of(self._boot.volume)
        vendor = seen_in_root(vendor_state(generation, facts), self._root)
        return apt_words(reach_of(settings, vendor).packages, settings.docker.version)

    def carried(self, settings: NodeSettings) -> tuple[OverlayFile, ...]:
        """Return the Debian packages that a card brings along, as far as they are in the cache."""
        return self._carried(settings, self._overlays.of(settings))

    def _carried(
        self, settings: NodeSettings, beside: tuple[OverlayFile, ...]
    ) -> tuple[OverlayFile, ...]:
        words = self.packages(settings) if self.index else ()
        if self.index is None or not words:
            return ()
        fat, taken = self._boot.volume.fat, sum(len(file.data) for file in beside)
        room = fat.free_count * fat.bytes_per_cluster - taken - KEPT_FREE_BYTES
        return self.index.carried(self.base, words, room=room, served=serves_packages(settings))

    def compose(self, settings: NodeSettings) -> Composition:
        """Return the plan and the patch of a node. Raise ImageError if it does not fit."""
        return self._composition(settings, self.plan(settings))

    def compose_one_image(self, nodes: Sequence[NodeSettings]) -> Composition:
        """Return one image for all nodes, where each Pi finds its own (`plan.shared_image`)."""
        fallback = unclaimed_node(nodes)
        carry = self._need_alike((*nodes, fallback))
        plans = {identity_of(node): self.plan(node, carry=carry) for node in nodes}
        plan = merge_plans(self.plan(fallback, carry=carry), plans)
        return self._composition(fallback, plan)

    def _need_alike(self, nodes: Sequence[NodeSettings]) -> bool:
        """Return whether all need the same packages; warn if some could have been on the card.

        Else each identity would have a copy of its own: thirty would not fit.
        """
        first = nodes[0]
        other = next((n for n in nodes if self.packages(n) != self.packages(first)), None)
        if other and any(self.carried(node) for node in nodes):
            self.reporter.warn(
                f"the one image brings no packages: {first.hostname} and {other.hostname} do not "
                "need the same ones, so each Pi installs its own; leave out --one-image, or use "
                "a file for each"
            )
        return other is None

    def _composition(self, settings: NodeSettings, plan: NodePlan) -> Composition:
        with reading(self.base.name, ImageError):
            return Composition(settings, self.base, plan, self._boot.apply(plan.edits, self.epoch))

    def _generation(self, settings: NodeSettings) -> Generation:
        generations = self._overlays.generations(settings)
        if settings.generation:
            return named_generation(generations, settings.generation)
        if settings.overlays not in self._detected:
            try:
                found = detect(generations, self._boot.volume)
            except ImageError:
                if not settings.image.generation:
                    raise
                found = named_generation(generations, settings.image.generation)
            _refuse_other(settings.image, found)
            self._detected[settings.overlays] = found
        return self._detected[settings.overlays]


def _refuse_other(image: ImageSource, found: Generation) -> None:
    """Raise ImageError if an image shows another generation than its publisher says.

    It would ignore the files of the other one without a word.
    """
    if image.init_format and image.generation and found.name != image.generation:
        raise ImageError(
            f"{image.name} is of generation `{found.name}`, but its publisher's list says "
            f"`{image.generation}` (init_format {image.init_format})",
            f"use another image, or --generation {found.name} (`generation:` in a file)",
        )


def plan_without_base(settings: NodeSettings, epoch: int) -> NodePlan:
    """Return the plan of a node without its base image.

    Files of the vendor count as missing. If the generation can only be detected from the image, it
    is empty and there are no files, because all files depend on it.
    """
    name = settings.generation or settings.image.generation
    if not name:
        warning = (
            f"the generation of {settings.image.name} is not known without the image: no files "
            "are planned; set `generation:` or --generation"
        )
        return NodePlan(
            hostname=settings.hostname,
            generation="",
            config_hash="",
            edits=(),
            cmdline=CMDLINE,
            warnings=(warning,),
        )
    overlays = OverlayFolders()
    generation = named_generation(overlays.generations(settings), name)
    return plan_node(settings, generation, overlays.of(settings), MemoryBootFiles({}), epoch)


def plan_one_image_without_base(nodes: Sequence[NodeSettings], epoch: int) -> NodePlan:
    """Return the plan of the one image of a class without its base image."""
    plans = {identity_of(node): plan_without_base(node, epoch) for node in nodes}
    return merge_plans(plan_without_base(unclaimed_node(nodes), epoch), plans)


def _tarball(path: Path) -> OverlayFile:
    data = read_file(path, "container image", MOST_TARBALL_BYTES)
    return OverlayFile(f"{TARBALLS}{path.name}", data, str(path))


@contextmanager
def open_composer(
    base: BaseImage,
    *,
    epoch: int,
    reporter: Reporter = SILENT,
    index: PackageIndex | None = None,
) -> Iterator[Composer]:
    """Yield a composer for the base image, which is opened for reading.

    Raise ImageError if it has no boot partition.
    """
    with open_raw(base.path) as raw:
        yield Composer(base=base, raw=raw, epoch=epoch, reporter=reporter, index=index)


def group_by_image(
    nodes: Sequence[NodeSettings],
) -> list[tuple[ImageSource, list[NodeSettings]]]:
    """Return the nodes of each base image, both in roster order."""
    groups: dict[ImageSource, list[NodeSettings]] = {}
    for node in nodes:
        groups.setdefault(node.image, []).append(node)
    return list(groups.items())
