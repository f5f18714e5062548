"""The surroundings of a command: environment, time and cache, passed on as values."""

from __future__ import annotations

import functools
import os
import re
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from imagebuilder.errors import InputError
from imagebuilder.images.cache import Cache, default_folder
from imagebuilder.settings.flags import NodeFlags, classroom_from_flags, node_from_flags

if TYPE_CHECKING:
    from collections.abc import Mapping

    from imagebuilder.cli.console import Console
    from imagebuilder.model import BaseImage, Classroom, ImageSource, NodeSettings, OverlayFile
    from imagebuilder.settings.catalog import PublishedLists


@dataclass(kw_only=True)
class Session:
    """The surroundings of one run; nothing else reads the environment."""

    console: Console
    allow_http: bool = False
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    _obtained: dict[ImageSource, BaseImage] = field(init=False, default_factory=dict)

    @functools.cached_property
    def epoch(self) -> int:
        """The build time in seconds since 1970 (reproducible-builds.org, SOURCE_DATE_EPOCH)."""
        given = self.environment.get("SOURCE_DATE_EPOCH", "")
        if not given:
            return int(time.time())
        if not re.fullmatch(r"[0-9]{1,10}", given):
            raise InputError(
                f"SOURCE_DATE_EPOCH is {given!r}", "set it to whole seconds since 1970, or unset it"
            )
        return int(given)

    @property
    def cache(self) -> Cache:
        """The cache of base images, in RPI_IMAGE_CACHE if that is set."""
        folder = self.environment.get("RPI_IMAGE_CACHE", "")
        return Cache(Path(folder) if folder else default_folder())

    def lists(self, place: str = "", *, offline: bool = False) -> PublishedLists:
        """Return access to published lists of images; `place` overrides that of the settings."""
        from imagebuilder.settings.catalog import PublishedLists

        return PublishedLists(
            self.cache, self.console, place=place, offline=offline, allow_http=self.allow_http
        )

    def obtain(self, source: ImageSource) -> BaseImage:
        """Return the unpacked base image, from the cache or downloaded.

        It is obtained once in a run, so that warnings about it are not repeated for each node.
        """
        from imagebuilder.images.obtain import obtain_base

        if source not in self._obtained:
            wanted = replace(source, allow_http=True) if self.allow_http else source
            self._obtained[source] = obtain_base(wanted, self.cache, self.console)
        return self._obtained[source]

    def find(self, source: ImageSource) -> BaseImage | None:
        """Return the base image without network: from the cache or a local file, else None."""
        from imagebuilder.images.obtain import find_cached

        return self.obtain(source) if source.file or find_cached(source, self.cache) else None

    def packages(self, node: NodeSettings) -> tuple[OverlayFile, ...]:
        """Return the packages that a card of the node brings along, from the cache."""
        from imagebuilder.build.class_packages import packages_on_card
        from imagebuilder.build.packages import PackageIndex

        return packages_on_card(node, self.find, PackageIndex(self.cache, self.console))

    def classroom(self, flags: NodeFlags, *, write: bool = True) -> Classroom:
        """Return the classroom of the flags and their --config, with the keys of its nodes.

        Missing keys are made, and stored if `write` is set.
        """
        classroom = classroom_from_flags(flags, self.console, self.environment, self.lists())
        return _with_keys(classroom, write=write)

    def node(self, flags: NodeFlags, *, write: bool = True) -> NodeSettings:
        """Return the one node of the flags, with its keys."""
        classroom, node = node_from_flags(flags, self.console, self.environment, self.lists())
        return _with_keys(replace(classroom, nodes=(node,)), write=write).nodes[0]


def _with_keys(classroom: Classroom, *, write: bool) -> Classroom:
    if not classroom.has_keys:
        return classroom  # cryptography takes long to import
    from imagebuilder.shack.keystore import with_identities

    return with_identities(classroom, write=write)
