"""Bring the packages of all nodes of a class onto this machine, and those of one onto its card."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imagebuilder.build.compose import group_by_image, open_composer
from imagebuilder.plan.reach import apt_way

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from imagebuilder.build.packages import PackageIndex
    from imagebuilder.images.apt_tree import Package
    from imagebuilder.model import BaseImage, ImageSource, NodeSettings, OverlayFile


def fetch_class(
    nodes: Sequence[NodeSettings],
    obtain: Callable[[ImageSource], BaseImage],
    index: PackageIndex,
) -> dict[str, tuple[Package, ...]]:
    """Bring the packages of all nodes into the cache; return those of each node by hostname."""
    found: dict[str, tuple[Package, ...]] = {}
    fetched: dict[tuple[str, tuple[str, ...]], tuple[Package, ...]] = {}
    for source, group in group_by_image(nodes):
        base = obtain(source)
        with open_composer(base, epoch=0, reporter=index.reporter) as composer:
            for node in group:
                key = base.sha256, composer.packages(node)
                if key not in fetched:
                    way = apt_way(node)
                    fetched[key] = index.fetch(base, key[1], otherwise=way) if key[1] else ()
                found[node.hostname] = fetched[key]
    return found


def packages_on_card(
    node: NodeSettings, find: Callable[[ImageSource], BaseImage | None], index: PackageIndex
) -> tuple[OverlayFile, ...]:
    """Return the packages that a card of the node brings along; none without its base image.

    They are those of `Composer.plan`, for a writer that has only the card.
    """
    base = find(node.image) if index.has_packages else None
    if base is None:
        return ()
    with open_composer(base, epoch=0, index=index) as composer:
        return composer.carried(node)
