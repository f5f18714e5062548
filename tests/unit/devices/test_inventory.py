"""Facts of block devices from lsblk, /proc and /sys texts, and from diskutil's property lists."""

from __future__ import annotations

import json
import plistlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from imagebuilder.devices import macos
from imagebuilder.devices.inventory import (
    Snapshot,
    SysfsDisk,
    device_holding,
    find_device,
    list_devices,
    load_device,
    parse_devices,
)
from imagebuilder.devices.safety import WritePolicy, refusals
from imagebuilder.errors import RefusedError

if TYPE_CHECKING:
    from imagebuilder.devices.device import Device

RECORDINGS = Path(__file__).parents[2] / "lib" / "recordings" / "devices"
MACHINES = sorted(path.stem for path in RECORDINGS.glob("*.json"))


def recorded(machine: str) -> dict[str, Device]:
    """Return the devices of a recorded machine by path."""
    text: dict[str, Any] = json.loads((RECORDINGS / f"{machine}.json").read_text())
    snapshot = Snapshot(
        lsblk=json.dumps(text["lsblk"]),
        mountinfo="\n".join(text["mountinfo"]),
        swaps="\n".join(text["swaps"]),
        sys=tuple((name, SysfsDisk(**facts)) for name, facts in text["sys"].items()),
    )
    return {device.path: device for device in parse_devices(snapshot)}


def recorded_mac() -> dict[str, Device]:
    folder = RECORDINGS / "macos"
    listed = plistlib.loads((folder / "list.plist").read_bytes())
    devices = [
        macos.parse_device(
            entry,
            plistlib.loads((folder / f"{entry['DeviceIdentifier']}.plist").read_bytes()),
            listed,
        )
        for entry in listed["AllDisksAndPartitions"]
    ]
    return {device.path: device for device in devices}


def test_a_system_on_lvm_on_luks_belongs_to_the_disk_below() -> None:
    disk = recorded("laptop-luks")["/dev/nvme0n1"]
    assert set(disk.system_mounts) == {"/", "/boot/efi", "[SWAP]"}
    assert disk.holders == ("crypt nvme0n1p2_crypt", "lvm vg-root", "lvm vg-swap")
    assert {part.major_minor for part in disk.parts} >= {"259:1", "259:2", "254:0", "254:1"}


def test_a_card_in_a_reader() -> None:
    card = recorded("laptop-luks")["/dev/sda"]
    assert (card.vendor, card.model) == ("Generic-", "SD/MMC CRW")
    assert (card.transport, card.removable, card.hotplug) == ("usb", True, True)
    assert card.slot == "usb-1-2.3"
    assert card.sequence == 21
    assert [part.label for part in card.parts] == ["HypriotOS", "root"]
    assert card.parts[1].mountpoints == ("/media/ada/root disk",)
    assert card.system_mounts == ()


def test_slots_of_one_reader_are_told_apart() -> None:
    machine = recorded("laptop-luks")
    assert machine["/dev/sdb"].slot == "usb-1-2.3-slot1"
    assert machine["/dev/sdb"].size_bytes == 0


def test_mmcblk1_is_not_mmcblk10() -> None:
    machine = recorded("pi-with-many-cards")
    assert set(machine["/dev/mmcblk1"].system_mounts) == {"/", "/boot/firmware"}
    assert machine["/dev/mmcblk10"].system_mounts == ()
    assert machine["/dev/mmcblk10"].slot == "mmc10"


def test_soldered_memory_is_no_card() -> None:
    machine = recorded("pi-with-many-cards")
    assert machine["/dev/mmcblk2"].transport == "emmc"
    assert machine["/dev/mmcblk10"].transport == "mmc"


def test_btrfs_is_found_by_its_source() -> None:
    assert recorded("server-raid-btrfs")["/dev/sdc"].system_mounts == ("/",)


def test_swap_counts_as_the_system() -> None:
    assert recorded("server-raid-btrfs")["/dev/sdd"].system_mounts == ("[SWAP]",)


def test_flags_and_numbers_of_an_old_lsblk() -> None:
    card = recorded("old-lsblk-odd-card")["/dev/sdb"]
    assert (card.size_bytes, card.logical_sector_bytes) == (7948206080, 4096)
    assert (card.removable, card.read_only) == (True, True)


def test_a_vendor_cannot_steer_the_terminal() -> None:
    card = recorded("old-lsblk-odd-card")["/dev/sdb"]
    assert (card.vendor, card.model) == ("[2JEvil", "Card Reader")


@pytest.mark.parametrize("machine", MACHINES)
def test_every_machine_s_own_disk_is_known_as_that(machine: str) -> None:
    devices = recorded(machine)
    if machine == "old-lsblk-odd-card":
        assert "/dev/sda" not in devices
        return
    assert any("/" in device.system_mounts for device in devices.values())


def test_a_partition_is_found_as_one() -> None:
    devices = tuple(recorded("laptop-luks").values())
    assert find_device(devices, "/dev/sda1", "8:1").kind == "part"
    assert find_device(devices, "/dev/mapper/vg-root", "254:1").kind == "part"
    assert find_device(devices, "/dev/sda", "8:0").kind == "disk"
    assert find_device(devices, "/dev/sdx", "65:0").size_bytes == 0


def test_a_loop_on_a_disk_is_its_holder() -> None:
    disk = {"name": "sdb", "path": "/dev/sdb", "maj:min": "8:16", "size": 9, "type": "disk"}
    above = {"name": "loop3", "path": "/dev/loop3", "maj:min": "7:3", "size": 9, "type": "loop"}
    snapshot = Snapshot(
        json.dumps({"blockdevices": [above, disk]}),
        "21 1 7:3 / /usr rw - ext4 /dev/loop3 rw",
        sys=(("loop3", SysfsDisk(backing="/dev/sdb")),),
    )
    found = {device.path: device for device in parse_devices(snapshot)}["/dev/sdb"]
    assert found.holders == ("loop /dev/loop3",)
    assert found.system_mounts == ("/usr",)


SYSTEM = "22 1 8:1 / / rw - ext4 /dev/sda1 rw"
STICK = "23 1 7:1 / /media rw - ext4 /dev/loop1 rw"


def over(backing: str, inode: str = "", device: str = "") -> SysfsDisk:
    return SysfsDisk(backing=backing, backing_inode=inode, backing_device=device)


LOOPS = [
    (SYSTEM, [over("/dev/sda")], ["system", "above"]),
    (SYSTEM, [over("/dev/sda2")], ["system", "above"]),
    (SYSTEM, [over("/old name", "6/9", "8:2")], ["system", "above"]),
    (SYSTEM, [over("/dev/sda2"), over("/dev/loop1")], ["system", "above"]),
    (SYSTEM, [over("/dev/loop2"), over("/dev/sda2")], ["system", "above"]),
    (SYSTEM, [over("/f"), over("/dev/loop1")], ["above"]),
    ("", [over("/dev/sda")], ["above"]),
    ("", [over("/hidden", "6/9", "1:0")], ["above"]),
    (STICK, [over("/f"), over("/dev/loop1")], ["above", "mounted"]),
    (STICK, [over("/f"), over("/f")], ["mounted"]),
    (STICK, [over("/f"), over("/g")], []),
    (STICK, [over("/f", "9/4"), over("/g", "9/4")], ["mounted"]),
    (STICK, [over("/f", "9/4"), over("/f", "8/4")], []),
    (STICK, [over("/f"), over("/g"), over("/f")], ["mounted"]),
    ("", [over("/swap file")], ["system"]),
    ("", [over("/card.img")], []),
]


@pytest.mark.parametrize(("mountinfo", "loops", "expected"), LOOPS)
def test_a_loop_carries_what_is_below_and_beside_it(
    mountinfo: str, loops: list[SysfsDisk], expected: list[str]
) -> None:
    """Asked of the last loop; a loop that another stands on is held by that."""
    common = {"size": 9, "log-sec": 512}
    parts = [
        {"name": f"sda{n}", "path": f"/dev/sda{n}", "maj:min": f"8:{n}", "type": "part", **common}
        for n in (1, 2)
    ]
    tree = [{"name": "sda", "maj:min": "8:0", "type": "disk", "children": parts, **common}]
    names = [f"loop{n}" for n in range(1, len(loops) + 1)]
    tree += [{"name": n, "maj:min": f"7:{n[4:]}", "type": "loop", **common} for n in names]
    snapshot = Snapshot(
        json.dumps({"blockdevices": tree}),
        mountinfo,
        "Filename Type Size Used Priority\n/swap\\040file file 9 0 -2",
        tuple(zip(names, loops, strict=True)),
    )
    found = {device.path: device for device in parse_devices(snapshot)}[f"/dev/{names[-1]}"]
    codes = [refusal.code for refusal in refusals(found, WritePolicy(allow_loop=True))]
    held = ["held"] if "/dev/" + names[-1] in {loop.backing for loop in loops} else []
    assert sorted(codes) == sorted(expected + held)


def test_what_is_no_device(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    assert load_device(str(file)).kind == "file"
    assert load_device(str(tmp_path)).kind == "file"
    assert load_device(str(tmp_path / "nothing")).kind == "absent"


def test_the_disk_under_a_file_that_is_not_there_yet(tmp_path: Path) -> None:
    assert device_holding(tmp_path / "a" / "b") == device_holding(tmp_path)


def test_windows_gets_a_clear_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    for ask in (lambda: load_device(r"\\.\PhysicalDrive1"), list_devices):
        with pytest.raises(
            RefusedError, match="writing cards is not supported on win32"
        ) as refused:
            ask()
        assert "--bmap" in refused.value.hint


def test_a_machine_without_lsblk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RefusedError, match="lsblk cannot list"):
        list_devices()


def test_a_mac_s_own_disk_is_refused_through_its_apfs_container() -> None:
    disk = recorded_mac()["/dev/disk0"]
    assert "/" in disk.system_mounts
    assert refusals(disk, WritePolicy(allow_large=True))[0].code == "system"


def test_a_mac_s_container_is_no_disk() -> None:
    found = {refusal.code for refusal in refusals(recorded_mac()["/dev/disk1"], WritePolicy())}
    assert {"system", "kind"} <= found


def test_cards_of_a_mac() -> None:
    machine = recorded_mac()
    usb, own = machine["/dev/disk4"], machine["/dev/disk5"]
    assert [r.code for r in refusals(usb, WritePolicy())] == ["mounted"]
    assert [r.code for r in refusals(own, WritePolicy())] == ["read-only"]
    assert usb.parts[0].label == "HypriotOS"
    assert macos.raw_path(usb.path) == "/dev/rdisk4"


def test_on_a_mac_unmounting_answers_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`diskutil unmountDisk` prints a sentence, no property list (its manual)."""
    said = tmp_path / "said"
    (tmp_path / "diskutil").write_text(
        f'#!/bin/sh\necho "$*" >>{said}\n[ "$2" = /dev/disk4 ] || exit 1\n'
        "echo Unmount of all volumes on disk4 was successful\n"
    )
    (tmp_path / "diskutil").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    macos.unmount("/dev/disk4")
    assert said.read_text() == "unmountDisk /dev/disk4\n"
    with pytest.raises(RefusedError, match="unmountDisk failed"):
        macos.unmount("/dev/disk5")


def test_on_a_mac_disks_are_listed_and_found_by_either_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "diskutil").write_text(
        f"#!/bin/sh\ncd {RECORDINGS / 'macos'}\n"
        'case $1 in list) exec cat list.plist ;; info) exec cat "$3.plist" ;; esac\n'
    )
    (tmp_path / "diskutil").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    expected = recorded_mac()
    assert {device.path: device for device in macos.list_devices()} == expected
    assert macos.load_device("/dev/disk4") == macos.load_device("/dev/rdisk4")
    assert macos.load_device("/dev/disk4") == expected["/dev/disk4"]
    # a partition is no whole disk
    assert macos.load_device("/dev/disk4s1").kind == "part"
