"""`apply` on the files of a card makes the same files as `build` on the image of that card."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from imagebuilder.build.compose import open_composer
from imagebuilder.model import BaseImage
from tests.lib.boot_folders import Tree, applied, tree_of
from tests.lib.fat_images import FatImage, fsck, make_image, write_patched
from tests.lib.plan_samples import BUILD_TIME, STOCK, full_node, plain_node
from tests.lib.tools import need, run

if TYPE_CHECKING:
    from pathlib import Path

    from imagebuilder.model import NodeSettings


def built(image: FatImage, node: NodeSettings, out: Path) -> FatImage:
    base = BaseImage(image.path, "", image.path.stat().st_size, image.path.name)
    with open_composer(base, epoch=BUILD_TIME) as composer:
        return write_patched(image, composer.compose(node).patch, out)


def extracted(image: FatImage, folder: Path) -> Path:
    """Copy all files of the boot partition by mtools, which we did not write."""
    need("mcopy")
    folder.mkdir()
    run("mcopy", "-s", "-n", "-Q", "-i", image.drive, "::", folder)
    return folder


def files_in(image: FatImage, folder: Path) -> Tree:
    return tree_of(extracted(image, folder))


@pytest.mark.parametrize("name", STOCK)
def test_an_applied_folder_is_the_boot_partition_of_the_built_image(
    tmp_path: Path, name: str
) -> None:
    stock = make_image(tmp_path / "stock.img", files=STOCK[name])
    first = built(stock, full_node(), tmp_path / "first.img")
    fsck(first)

    fresh = extracted(stock, tmp_path / "fresh")
    applied(fresh, full_node())
    assert tree_of(fresh) == files_in(first, tmp_path / "first")

    # a card of that node becomes another one, from the image and from the folder alike
    second = built(first, plain_node(), tmp_path / "second.img")
    applied(fresh, plain_node())
    assert tree_of(fresh) == files_in(second, tmp_path / "second")
