"""The content of a card: an image as it is, or a node composed with its base."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from imagebuilder.disk.extent import Patch
from imagebuilder.disk.partitions import cut_off, read_partitions
from imagebuilder.disk.patched import PatchedImage
from imagebuilder.disk.reader import open_raw
from imagebuilder.disk.write_set import plan_write_set
from imagebuilder.errors import ImageError
from imagebuilder.flash.verify import files_of_edits, files_of_image, prover
from imagebuilder.flash.writer import CardJob
from imagebuilder.progress import SILENT, Reporter

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from typing import Self

    from imagebuilder.build.compose import Composer
    from imagebuilder.build.wanted import WantedSettings
    from imagebuilder.devices.device import Device
    from imagebuilder.disk.extent import Extent
    from imagebuilder.images.cache import Cache
    from imagebuilder.model import BaseImage, ImageSource, NodeSettings


@dataclass(frozen=True, slots=True)
class CardContent:
    """The content of a card, for any device that is large enough.

    `settings` is what a node was made from, for the ledger.
    """

    source: PatchedImage
    write_set: tuple[Extent, ...]
    files: Mapping[str, bytes]
    node: str = ""
    config_hash: str = ""
    base_sha256: str = ""
    warnings: tuple[str, ...] = ()
    settings: str = ""

    def job(self, device: Device) -> CardJob:
        """Return the job that writes the content to a device."""
        return CardJob(
            device=device,
            source=self.source,
            write_set=self.write_set,
            prove=prover(device.path, self.files),
            node=self.node,
        )


@dataclass(kw_only=True)
class CardContents:
    """Makes contents; opens every base image once, and closes all at the end of the block."""

    full: bool = False
    epoch: int = 0
    reporter: Reporter = SILENT
    cache: Cache | None = None
    _stack: ExitStack = field(init=False, default_factory=ExitStack)
    _composers: dict[Path, Composer] = field(init=False, default_factory=dict)
    _wanted: WantedSettings | None = field(init=False, default=None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_raised: object) -> None:
        self._stack.close()

    def image(self, base: BaseImage) -> CardContent:
        """Return the content of an image as it is."""
        source = PatchedImage(self._stack.enter_context(open_raw(base.path)), Patch(), base.name)
        with suppress(ImageError):  # it may have no partition table
            for fact in cut_off(read_partitions(source), source.size_bytes):
                self.reporter.warn(f"{base.name} {fact}")
        return CardContent(
            source=source,
            write_set=plan_write_set(source, source.patch, full=self.full),
            files=files_of_image(source),
            base_sha256=base.sha256,
        )

    def node(
        self, settings: NodeSettings, obtain: Callable[[ImageSource], BaseImage]
    ) -> CardContent:
        """Return the content of a node. Raise RpiImageError if it cannot be composed."""
        base = obtain(settings.image)
        composer = self._composer(base)
        composition = composer.compose(settings)
        source = PatchedImage(
            composer.raw, composition.patch, f"{base.name} for {settings.hostname}"
        )
        return CardContent(
            source=source,
            write_set=plan_write_set(source, source.patch, full=self.full),
            files=files_of_edits(composition.plan.edits),
            node=settings.hostname,
            config_hash=composition.plan.config_hash,
            base_sha256=base.sha256,
            warnings=composition.plan.warnings,
            settings=self._settings_of(settings),
        )

    def _settings_of(self, settings: NodeSettings) -> str:
        # Imported here for the same reason as the composer.
        from imagebuilder.build.wanted import WantedSettings, as_recorded  # noqa: PLC0415

        self._wanted = self._wanted or WantedSettings()
        return as_recorded(self._wanted.of(settings))

    def _composer(self, base: BaseImage) -> Composer:
        # Imported here because Jinja2 is slow and not needed for an image as it is.
        from imagebuilder.build.compose import open_composer  # noqa: PLC0415
        from imagebuilder.build.packages import PackageIndex  # noqa: PLC0415

        if base.path not in self._composers:
            index = PackageIndex(self.cache, self.reporter) if self.cache else None
            opened = open_composer(base, epoch=self.epoch, reporter=self.reporter, index=index)
            self._composers[base.path] = self._stack.enter_context(opened)
        return self._composers[base.path]
