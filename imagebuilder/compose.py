"""Base ⊕ patch: what makes a base image one node, found without writing anything."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from imagebuilder import bootfs, disk
from imagebuilder.errors import SettingsError
from imagebuilder.model import BaseImage, NodePlan, NodeSettings, OverlayFile, Patch
from imagebuilder.overlays import load_generations, load_overlay
from imagebuilder.plan import detect, plan_node
from imagebuilder.progress import SILENT, Voice
from imagebuilder.reading import RawFile, open_raw
from imagebuilder.shipped import shipped_folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from imagebuilder.generation import Generation


@dataclass(frozen=True, slots=True)
class Composition:
    """A node's plan and the patch that carries it out on its base; nothing is written yet."""

    settings: NodeSettings
    base: BaseImage
    plan: NodePlan
    patch: Patch


@dataclass(kw_only=True)
class Composer:
    """Composes many nodes over one base; parsing and detection happen once.

    `epoch` (seconds, UTC) becomes the time of every file set and the build time on the card.
    """

    base: BaseImage
    raw: RawFile
    epoch: int
    voice: Voice = SILENT
    _boot: bootfs.BootBase = field(init=False)
    _generations: tuple[Generation, ...] = field(init=False)
    _overlays: dict[Path, tuple[OverlayFile, ...]] = field(init=False, default_factory=dict)
    _detected: Generation | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        partitions = disk.read_partitions(self.raw)
        self._boot = bootfs.BootBase(self.raw, disk.boot_partition(self.raw, partitions))
        self._generations = load_generations((shipped_folder("overlays"),))
        if not self._boot.volume.clean:
            self.voice.warn(f"the boot partition of {self.base.name} was not cleanly unmounted")

    def plan(self, settings: NodeSettings) -> NodePlan:
        """Decide what goes onto the boot partition of this node."""
        return plan_node(
            settings,
            self._generation(settings.generation),
            self._layers(settings),
            self._boot.volume,
            self.epoch,
        )

    def compose(self, settings: NodeSettings) -> Composition:
        """Plan a node and find the patch; raises ImageError where it does not fit."""
        plan = self.plan(settings)
        patch = self._boot.apply(plan.edits, self.epoch)
        return Composition(settings, self.base, plan, patch)

    def _generation(self, wanted: str | None) -> Generation:
        if wanted is None:
            self._detected = self._detected or detect(self._generations, self._boot.volume)
            return self._detected
        for generation in self._generations:
            if generation.name == wanted:
                return generation
        names = ", ".join(generation.name for generation in self._generations)
        raise SettingsError(f"there is no generation {wanted!r}", f"one of: {names}")

    def _layers(self, settings: NodeSettings) -> tuple[OverlayFile, ...]:
        folders = (shipped_folder("overlays") / "node", *settings.overlays)
        return tuple(file for folder in folders for file in self._overlay(folder)) + tuple(
            _tarball(path) for path in settings.cluster.tarballs
        )

    def _overlay(self, folder: Path) -> tuple[OverlayFile, ...]:
        if folder not in self._overlays:
            self._overlays[folder] = load_overlay(folder)
        return self._overlays[folder]


def _tarball(text: str) -> OverlayFile:
    from pathlib import Path  # noqa: PLC0415 - a name for types above, needed here only

    path = Path(text)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SettingsError(
            f"cannot read the container image {path}: {error.strerror}",
            "`docker save NAME -o FILE` makes one",
        ) from error
    return OverlayFile(f"rpi-image/images/{path.name}", data, str(path))


@contextmanager
def open_composer(base: BaseImage, *, epoch: int, voice: Voice = SILENT) -> Iterator[Composer]:
    """Open a base for reading and compose nodes over it."""
    with open_raw(base.path) as raw:
        yield Composer(base=base, raw=raw, epoch=epoch, voice=voice)
