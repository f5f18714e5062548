"""The image of one node: planned, or written under the name that was asked for."""

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
    from pathlib import Path

    from imagebuilder.build.compose import Composition
    from imagebuilder.build.image import WrittenImage
    from imagebuilder.model import BaseImage, ImageSource, NodePlan, NodeSettings

_RAW = ("img", "raw")


@dataclass(frozen=True, slots=True)
class BuiltNode:
    """An image that was written, and what it was made from."""

    composition: Composition
    written: WrittenImage

    def write_bmap(self) -> Path:
        """Write the block map beside the image and return its path."""
        return write_bmap(self.composition, self.written.path)


@dataclass(kw_only=True)
class NodeBuild:
    """One node's build into `output`: a file, or a folder for <hostname>.img.

    `compress` is one of compress.SUFFIXES, or empty for what the file's name says. Raise
    InputError where the two differ, and where a name could be a file's or a folder's.
    """

    output: Path
    compress: str = ""
    digest: bool = False
    reporter: Reporter = SILENT

    def __post_init__(self) -> None:
        self.compress = compression_of(self.output, self.compress)

    def plan(
        self, node: NodeSettings, find: Callable[[ImageSource], BaseImage | None], epoch: int
    ) -> NodePlan:
        """Plan the node, without its base where `find` has none; nothing is written."""
        base = find(node.image)
        if base is None:
            plan = plan_without_base(node, epoch)
            return replace(plan, warnings=(WITHOUT_BASE, *plan.warnings))
        with open_composer(base, epoch=epoch, reporter=self.reporter) as composer:
            return composer.plan(node)

    def write(self, node: NodeSettings, base: BaseImage, epoch: int) -> BuiltNode:
        """Write the node's image over `base`, with its manifest."""
        out = output_path(self.output, node.hostname, self.compress)
        with open_composer(base, epoch=epoch, reporter=self.reporter) as composer:
            composition = composer.compose(node)
        written = write_image(
            composition, out, compress=self.compress, digest=self.digest, reporter=self.reporter
        )
        return BuiltNode(composition, written)


def compression_of(output: Path, compress: str) -> str:
    """Return the compression: the one said, or that of the file's name.

    Raise InputError if the two differ, and where a name could be a file's or a folder's.
    """
    suffix = output.suffix.lower().removeprefix(".")
    if not suffix or has_folder(output):
        return compress
    if suffix not in (*_RAW, *SUFFIXES):
        hint = f"a file ends in {', '.join(_RAW + SUFFIXES)}; make the folder first if it is one"
        raise InputError(f"is {output} a file or a folder?", hint)
    named = "" if suffix in _RAW else suffix
    if compress not in {"", named}:
        hint = f"leave --compress out, or let the name end in .{compress}"
        raise InputError(f"{output} is no name for what {compress} makes", hint)
    return named


def output_path(output: Path, hostname: str, compress: str) -> Path:
    """Return the file to write: `output` itself, or <hostname>.img in that folder."""
    if output.suffix and not has_folder(output):
        return output
    return output / f"{hostname}.img{'.' + compress if compress else ''}"
