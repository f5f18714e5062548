"""A mounted boot partition as operating systems show it, and changes of single files."""

from __future__ import annotations

import os
import unicodedata
from typing import TYPE_CHECKING

import pytest

from imagebuilder.build.boot_folder import BootFolder, Space
from imagebuilder.errors import ImageError, RefusedError, WriteError
from tests.lib.boot_folders import applied, put_tree, tree_of
from tests.lib.plan_samples import SECRETS, STOCK, full_node, plain_node

if TYPE_CHECKING:
    from pathlib import Path

OF_SYSTEMS = {
    "System Volume Information/IndexerVolumeGuid": b"{",
    "$RECYCLE.BIN/desktop.ini": b"x",
    ".Spotlight-V100/Store-V2/x": b"x",
    ".fseventsd/fseventsd-uuid": b"x",
    ".Trashes/x": b"x",
    "._cmdline.txt": b"\0\5\x16\7",
    ".DS_Store": b"x",
}


@pytest.mark.parametrize("name", STOCK)
def test_files_of_windows_and_macos_change_nothing_and_stay(tmp_path: Path, name: str) -> None:
    clean = put_tree(tmp_path / "clean", STOCK[name])
    used = put_tree(tmp_path / "used", {**STOCK[name], **OF_SYSTEMS})
    assert BootFolder(used).names() == BootFolder(clean).names()
    applied(clean, full_node())
    applied(used, full_node())
    assert tree_of(used) == {**tree_of(clean), **OF_SYSTEMS}


def test_names_are_compared_without_case_and_keep_theirs(tmp_path: Path) -> None:
    folder = put_tree(tmp_path / "card", {"CMDLINE.TXT": b"a", "RPI-IMAGE/Node.env": b"b"})
    boot = BootFolder(folder)
    assert boot.read("cmdline.txt") == b"a"
    assert boot.exists("rpi-image/node.env")
    assert boot.exists("rpi-image")
    boot.write("cmdline.txt", b"c")
    boot.write("rpi-image/node.env", b"d")
    boot.write("rpi-image/tls/key.pem", b"e")
    assert tree_of(folder) == {
        "CMDLINE.TXT": b"c", "RPI-IMAGE/Node.env": b"d", "RPI-IMAGE/tls/key.pem": b"e",
    }  # fmt: skip


def test_a_name_that_macos_decomposes_is_the_same_name(tmp_path: Path) -> None:
    name = "Überraschung.txt"
    folder = put_tree(tmp_path / "card", {unicodedata.normalize("NFD", name): b"a"})
    boot = BootFolder(folder)
    assert boot.read(name) == b"a"
    boot.write(name, b"b")
    assert list(tree_of(folder).values()) == [b"b"]


def test_what_is_replaced_and_may_hold_secrets_is_overwritten_in_place(tmp_path: Path) -> None:
    """A hard link stands for the clusters that the file had."""
    for name, stock in STOCK.items():
        folder = put_tree(tmp_path / name, stock)
        applied(folder, full_node())
        clusters = tmp_path / f"{name}-clusters"
        clusters.mkdir()
        for number, path in enumerate(sorted(folder.rglob("*"))):
            if path.is_file():
                os.link(path, clusters / str(number))
        applied(folder, plain_node())
        kept = b"".join(tree_of(clusters).values())
        for secret in SECRETS:
            assert secret.encode() not in kept, name


def test_unfinished_files_of_an_interrupted_run_are_removed(tmp_path: Path) -> None:
    left = {"rpi-image/tls/key.pem.rpi-new": b"KEY", "user-data.rpi-new": b"half"}
    folder = put_tree(tmp_path / "card", {**STOCK["cloud-init-trixie"], **left})
    os.link(folder / "rpi-image/tls/key.pem.rpi-new", tmp_path / "cluster")
    assert BootFolder(folder).names() == tuple(sorted(STOCK["cloud-init-trixie"]))
    applied(folder, full_node())
    assert not [path for path in tree_of(folder) if path.endswith(".rpi-new")]
    assert (tmp_path / "cluster").read_bytes() == bytes(3)


@pytest.mark.parametrize("place", ["rpi-image", "rpi-image/node.env", "user-data"])
def test_a_link_in_the_way_is_refused_and_never_followed(tmp_path: Path, place: str) -> None:
    """FAT has no links: such a folder was made to have us write elsewhere."""
    elsewhere = put_tree(tmp_path / "elsewhere", {"node.env": b"theirs"})
    target = elsewhere if place == "rpi-image" else elsewhere / "node.env"
    stock = {k: v for k, v in STOCK["cloud-init-trixie"].items() if k != place}
    folder = put_tree(tmp_path / "card", {**stock, "issue.txt": b"pi-gen"})
    (folder / place).parent.mkdir(exist_ok=True)
    (folder / place).symlink_to(target)
    boot = BootFolder(folder)
    assert not boot.exists(place)
    wanted = f"{place}/node.env" if place == "rpi-image" else place
    with pytest.raises(RefusedError, match="is not a f"):
        boot.write(wanted, b"ours")
    assert tree_of(elsewhere) == {"node.env": b"theirs"}


def test_a_folder_without_an_end_is_refused(tmp_path: Path) -> None:
    deep = tmp_path / "card"
    for _ in range(20):
        deep /= "a"
    deep.mkdir(parents=True)
    with pytest.raises(ImageError, match="too many levels"):
        BootFolder(tmp_path / "card")


def test_a_file_that_cannot_be_written_is_named_with_what_to_do(tmp_path: Path) -> None:
    folder = put_tree(tmp_path / "card", {"cmdline.txt": b"a"})
    boot = BootFolder(folder)
    (folder / "cmdline.txt").unlink()
    folder.rmdir()
    with pytest.raises(WriteError, match=r"cmdline\.txt") as caught:
        boot.write("cmdline.txt", b"b")
    assert "repeat the command" in caught.value.hint


def test_space_is_counted_in_clusters() -> None:
    assert [Space(9, 2048).clusters(size) for size in (0, 1, 2048, 2049)] == [0, 1, 1, 2]
