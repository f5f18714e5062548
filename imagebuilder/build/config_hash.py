"""The configuration hashes of nodes, exact if the base image is available."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from imagebuilder.build.compose import open_composer, plan_without_base
from imagebuilder.errors import RpiImageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from imagebuilder.build.compose import Composer
    from imagebuilder.model import BaseImage, ImageSource, NodeSettings


@dataclass(frozen=True, slots=True)
class ConfigHash:
    """A configuration hash; one without the base image may differ from that of the card."""

    text: str
    exact: bool


@dataclass(kw_only=True)
class ConfigHashes:
    """Plans nodes for their hash; `find` returns a base image without network, or None."""

    find: Callable[[ImageSource], BaseImage | None]
    _stack: ExitStack = field(init=False, default_factory=ExitStack)
    _composers: dict[ImageSource, Composer | None] = field(init=False, default_factory=dict)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_raised: object) -> None:
        self._stack.close()

    def of(self, node: NodeSettings) -> ConfigHash:
        """Return the hash of a node; empty if it cannot be planned."""
        try:
            composer = self._composer(node.image)
            if composer:
                return ConfigHash(composer.plan(node).config_hash, exact=True)
            return ConfigHash(plan_without_base(node, 0).config_hash, exact=False)
        except RpiImageError:
            return ConfigHash("", exact=False)

    def _composer(self, source: ImageSource) -> Composer | None:
        if source not in self._composers:
            self._composers[source] = self._open(source)
        return self._composers[source]

    def _open(self, source: ImageSource) -> Composer | None:
        try:
            base = self.find(source)
            return self._stack.enter_context(open_composer(base, epoch=0)) if base else None
        except RpiImageError:
            return None
