"""A folder becomes a node, or an error says why and what to do."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from imagebuilder.build.apply import plan_apply
from imagebuilder.build.boot_folder import BootFolder
from imagebuilder.errors import RefusedError, WriteError
from tests.lib.boot_folders import applied, put_tree, tree_of
from tests.lib.plan_samples import BUILD_TIME, STOCK, full_node, plain_node
from tests.lib.tools import need_root, small_tmpfs

TRIXIE = STOCK["cloud-init-trixie"]


@pytest.mark.root
def test_a_partition_without_space_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    need_root()
    with small_tmpfs(tmp_path / "card", "128k") as folder:
        put_tree(folder, TRIXIE)
        with pytest.raises(RefusedError, match="not enough space") as caught:
            applied(folder, full_node())
        assert "remove files" in caught.value.hint
        assert tree_of(folder) == TRIXIE


@pytest.mark.root
def test_the_space_is_enough_if_it_is_not_refused(tmp_path: Path) -> None:
    """A card that has just enough space: a node fits there, and another one in its place."""
    need_root()
    sizes = iter(range(128, 800, 4))
    while True:
        with small_tmpfs(tmp_path / f"{(size := next(sizes))}", f"{size}k") as folder:
            put_tree(folder, TRIXIE)
            try:
                plan_apply(BootFolder(folder), full_node(), BUILD_TIME)
            except RefusedError:
                continue
            applied(folder, full_node())
            applied(folder, plain_node())
            return


@pytest.mark.parametrize("code", [errno.EIO, errno.EROFS, errno.ENOSPC])
@pytest.mark.parametrize("after", [0, 5, 15])
def test_a_card_that_fails_on_the_way_is_finished_by_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, after: int
) -> None:
    done: list[object] = []
    real = os.fsync

    def failing(descriptor: int) -> None:
        done.append(descriptor)
        if len(done) > after:
            raise OSError(code, os.strerror(code))
        real(descriptor)

    folder = put_tree(tmp_path / "card", TRIXIE)
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", failing)
        with pytest.raises(WriteError) as caught:
            applied(folder, full_node())
    assert str(folder) in caught.value.message
    assert ("fsck.vfat" in caught.value.hint) == (code != errno.ENOSPC)
    applied(folder, full_node())
    wanted = put_tree(tmp_path / "wanted", TRIXIE)
    applied(wanted, full_node())
    assert tree_of(folder) == tree_of(wanted)


@pytest.mark.parametrize("name", ["node.env", "cmdline.txt", "wpa_supplicant.conf"])
def test_a_worn_card_that_changes_what_is_written_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    real = os.replace

    def worn(source: Any, target: Any, **options: Any) -> None:
        real(source, target, **options)
        if Path(target).name == name:
            data = bytearray(Path(target).read_bytes())
            data[7] ^= 1
            Path(target).write_bytes(data)

    folder = put_tree(tmp_path / "card", TRIXIE)
    monkeypatch.setattr(os, "replace", worn)
    with pytest.raises(WriteError, match=f"{name} on .* is not what was written"):
        applied(folder, full_node())


def test_empty_folders_of_a_class_are_removed_with_their_files(tmp_path: Path) -> None:
    """The installer looks for the folder `identities`."""
    left = {"rpi-image/identities/serial-1/rpi-image/node.env": b"NODE_HOSTNAME='pi-01'\n"}
    folder = put_tree(tmp_path / "card", {**TRIXIE, **left})
    applied(folder, full_node())
    assert not (folder / "rpi-image/identities").exists()
    assert (folder / "rpi-image/wifi").is_dir()
