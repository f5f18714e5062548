"""Plan or write the image of one node."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from imagebuilder.build.compose import WITHOUT_BASE, open_composer, plan_without_base
from imagebuilder.build.image import write_bmap, write_image
from imagebuilder.errors import InputError
from imagebuilder.files import has_folder
from imagebuilder.images.archives.compress import SUFFIXES
from imagebuilder.progress import SILENT, Reporter

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from imagebuilder.build.compose import Composer, Composition
    from imagebuilder.build.image import WrittenImage
    from imagebuilder.build.packages import PackageIndex
    from imagebuilder.model import BaseImage, ImageSource, NodePlan, NodeSettings

_RAW = ("img", "raw")


@dataclass(frozen=True, slots=True)
class BuiltNode:
    """A written image and its composition."""

    composition: Composition
    written: WrittenImage

    def write_bmap(self) -> Path:
        """Write the block map next to the image; return its path."""
        return write_bmap(self.composition, self.written.path)


@dataclass(kw_only=True)
class NodeBuild:
    """The build of one node to `output`: a file, or a folder for <hostname>.img.

    `compress` is one of compress.SUFFIXES, or empty to use the suffix of the file. Raise InputError
    if they differ, or if it is not clear whether `output` is a file or a folder.
    """

    output: Path
    compress: str = ""
    digest: bool = False
    reporter: Reporter = SILENT
    index: PackageIndex | None = None

    def __post_init__(self) -> None:
        self.compress = compression_of(self.output, self.compress)

    def plan(
        self, node: NodeSettings, find: Callable[[ImageSource], BaseImage | None], epoch: int
    ) -> NodePlan:
        """Return the plan of the node, without its base if `find` returns None."""
        base = find(node.image)
        if base is None:
            plan = plan_without_base(node, epoch)
            return replace(plan, warnings=(WITHOUT_BASE, *plan.warnings))
        with self._composer(base, epoch) as composer:
            return composer.plan(node)

    def write(self, node: NodeSettings, base: BaseImage, epoch: int) -> BuiltNode:
        """Write the image of the node, made from `base`, and its manifest."""
        out = output_path(self.output, node.hostname, self.compress)
        with self._composer(base, epoch) as composer:
            composition = composer.compose(node)
        written = write_image(
            composition, out, compress=self.compress, digest=self.digest, reporter=self.reporter
        )
        return BuiltNode(composition, written)

    def _composer(self, base: BaseImage, epoch: int) -> AbstractContextManager[Composer]:
        return open_composer(base, epoch=epoch, reporter=self.reporter, index=self.index)


def compression_of(output: Path, compress: str) -> str:
    """Return the compression: `compress`, or the suffix of the file.

    Raise InputError if they differ, or if it is not clear whether `output` is a file or a folder.
    """
    suffix = output.suffix.lower().removeprefix(".")
    if not suffix or has_folder(output):
        return compress
    if suffix not in (*_RAW, *SUFFIXES):
        hint = f"use a suffix ({', '.join(_RAW + SUFFIXES)}) for a file, or create the folder first"
        raise InputError(f"cannot tell if {output} is a file or a folder", hint)
    named = "" if suffix in _RAW else suffix
    if compress not in {"", named}:
        hint = f"remove --compress, or use a name that ends in .{compress}"
        raise InputError(f"{output} does not match --compress {compress}", hint)
    return named


def output_path(output: Path, hostname: str, compress: str) -> Path:
    """Return the path to write: `output` itself, or <hostname>.img in that folder."""
    if output.suffix and not has_folder(output):
        return output
    return output / f"{hostname}.img{'.' + compress if compress else ''}"
