"""Where cards are mounted, and which folders are never written."""

from __future__ import annotations

import os
import sys
from pathlib import Path, PureWindowsPath
from typing import cast

import pytest

from imagebuilder.devices import volumes
from imagebuilder.devices.volumes import (
    Volume,
    VolumeWatch,
    parse_mounts,
    refuse_volume,
    serial_of,
)
from imagebuilder.errors import RefusedError
from tests.lib.tools import need_root, run, small_tmpfs

# As a desktop with two readers has it; a blank in a name is \040 (fstab(5)).
MOUNTS = r"""/dev/nvme0n1p2 / ext4 rw,relatime 0 0
/dev/nvme0n1p1 /boot/efi vfat rw,relatime,errors=remount-ro 0 0
/dev/sdb1 /media/ann/boot\040fs vfat rw,nosuid,nodev,uid=1000,errors=remount-ro 0 0
/dev/sdc1 /media/ann/bootfs vfat ro,nosuid,nodev,errors=remount-ro 0 0
fusefat /home/ann/card fuse.fusefat rw,user_id=1000 0 0
/dev/sdb2 /media/ann/rootfs ext4 rw 0 0
"""


def test_fat_partitions_are_found_in_the_list_of_mounts() -> None:
    assert parse_mounts(MOUNTS) == (
        Volume(Path("/boot/efi"), "/dev/nvme0n1p1", "vfat"),
        Volume(Path("/media/ann/boot fs"), "/dev/sdb1", "vfat"),
        Volume(Path("/media/ann/bootfs"), "/dev/sdc1", "vfat", read_only=True),
        Volume(Path("/home/ann/card"), "fusefat", "fuse.fusefat"),
    )


def test_only_the_drivers_of_the_kernel_keep_the_clusters_of_a_replaced_file() -> None:
    kept = [volume.keeps_unlinked for volume in parse_mounts(MOUNTS)]
    assert kept == [True, True, True, False]


def test_the_boot_partition_of_this_computer_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "boot"
    own.mkdir()
    (tmp_path / "link").symlink_to(own)
    for folder in (own, tmp_path / "link", own / "." / ".." / "boot"):
        with pytest.raises(RefusedError, match="of this computer"):
            refuse_volume(Volume(folder), system_boot=(own,))
        with pytest.raises(RefusedError, match="of this computer"):
            refuse_volume(Volume(folder), system_boot=(own,), this_machine=True)
    model = tmp_path / "model"
    model.write_bytes(b"Raspberry Pi 4 Model B Rev 1.1\0")
    monkeypatch.setattr(volumes, "_MODEL", model)
    with pytest.raises(RefusedError) as caught:
        refuse_volume(Volume(own), system_boot=(own,))
    assert "--this-machine" in caught.value.hint
    refuse_volume(Volume(own), system_boot=(own,), this_machine=True)


def test_the_real_boot_folder_is_refused() -> None:
    with pytest.raises(RefusedError, match="of this computer"):
        refuse_volume(Volume(Path("/boot")))


def test_a_read_only_card_says_how_to_repair_it_on_each_system(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="read-only") as caught:
        refuse_volume(Volume(tmp_path, read_only=True))
    for word in ("lock switch", "fsck.vfat", "First Aid", "chkdsk"):
        assert word in caught.value.hint


def test_a_folder_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="is not a folder"):
        refuse_volume(Volume(tmp_path / "nowhere"))


@pytest.mark.root
def test_a_file_system_that_is_mounted_read_only_is_seen(tmp_path: Path) -> None:
    need_root()
    with small_tmpfs(tmp_path / "card", "1m") as folder:
        refuse_volume(Volume(folder))
        run("mount", "-o", "remount,ro", folder)
        with pytest.raises(RefusedError, match="read-only"):
            refuse_volume(Volume(folder))


@pytest.mark.root
def test_a_bind_mount_of_the_own_boot_partition_is_refused(tmp_path: Path) -> None:
    need_root()
    with small_tmpfs(tmp_path / "boot", "1m") as own:
        other = tmp_path / "other"
        other.mkdir()
        (own / "below").mkdir()
        run("mount", "--bind", own, other)
        try:
            for folder in (other, own / "below"):
                with pytest.raises(RefusedError, match="of this computer"):
                    refuse_volume(Volume(folder), system_boot=(own,))
        finally:
            run("umount", other)


@pytest.mark.root
def test_eject_unmounts_a_folder(tmp_path: Path) -> None:
    need_root()
    folder = tmp_path / "card"
    with small_tmpfs(folder, "1m"):
        assert volumes.eject(Volume(folder))
        assert not os.path.ismount(folder)
        assert not volumes.eject(Volume(folder))


@pytest.mark.parametrize("code", [0, 1])
def test_eject_on_windows_says_whether_the_drive_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """No PowerShell here: what it is asked, and what its exit code means."""
    shell = tmp_path / "powershell"
    shell.write_text(
        f'#!/bin/sh\nfor word; do :; done\nprintf %s "$word" >{tmp_path}/asked\nexit {code}\n'
    )
    shell.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(sys, "platform", "win32")
    drive = cast("Path", PureWindowsPath("K:\\"))
    assert volumes.eject(Volume(drive)) == (code == 0)
    asked = (tmp_path / "asked").read_text()
    assert "ParseName('K:').InvokeVerb('Eject')" in asked
    assert "Test-Path 'K:\\'" in asked
    assert "E:" not in asked


def test_a_card_is_known_by_its_cid_else_by_its_volume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folders of sysfs as the kernel makes them for a slot and for a reader on USB."""
    slot, reader = tmp_path / "devices/mmc0/mmcblk0", tmp_path / "devices/usb1/sdb"
    for part in (slot / "mmcblk0p1", reader / "sdb1"):
        part.mkdir(parents=True)
        (part / "partition").write_text("1\n")
        (tmp_path / "block" / part.name).parent.mkdir(exist_ok=True)
        (tmp_path / "block" / part.name).symlink_to(part)
    (slot / "device").mkdir()
    (slot / "device/cid").write_text("035344534c3332478061a3a1b9013400\n")
    serials = tmp_path / "by-uuid"
    serials.mkdir()
    for name, serial in (("mmcblk0p1", "1A2B-3C4D"), ("sdb1", "5E6F-7A8B")):
        (tmp_path / name).touch()
        (serials / serial).symlink_to(tmp_path / name)
    monkeypatch.setattr(volumes, "_BLOCK", tmp_path / "block")
    monkeypatch.setattr(volumes, "_BY_SERIAL", serials)
    monkeypatch.setattr(Path, "resolve", lambda path: Path(os.path.realpath(_at(path, tmp_path))))
    assert serial_of(Volume(tmp_path, "/dev/mmcblk0p1", "vfat")) == (
        "035344534c3332478061a3a1b9013400"
    )
    assert serial_of(Volume(tmp_path, "/dev/sdb1", "vfat")) == "5E6F-7A8B"
    assert serial_of(Volume(tmp_path, "fusefat", "fuse.fusefat")) == ""


def _at(path: Path, folder: Path) -> Path:
    """Return a file in `folder` for one in /dev, which has no such devices here."""
    return folder / path.name if path.parent == Path("/dev") else path


def test_a_card_that_was_changed_between_two_looks_is_another_medium(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = tmp_path / "block/sdb"
    disk.mkdir(parents=True)
    (disk / "diskseq").write_text("7\n")
    monkeypatch.setattr(volumes, "_BLOCK", tmp_path / "block")
    card = Volume(tmp_path, "/dev/sdb", "vfat")
    watch = VolumeWatch(lambda _: True, lambda: (card,))
    (first,) = watch.look()
    assert watch.look() == (first,)
    (disk / "diskseq").write_text("8\n")
    (second,) = watch.look()
    assert (second.path, second.sequence) != (first.path, first.sequence)
    assert watch.volume_of(second) == card
    with pytest.raises(RefusedError, match="was removed"):
        watch.volume_of(first)
