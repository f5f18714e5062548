"""The refusals: a table of recorded machines, every rule alone, and what no flag lifts."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagebuilder.devices.device import Device, DevicePart
from imagebuilder.devices.safety import (
    LARGE_BYTES,
    ProtectedFile,
    WritePolicy,
    may_unmount,
    mounted_parts,
    printable,
    refusals,
    same_device,
    sanitise,
)
from tests.unit.devices.test_inventory import recorded

GB = 10**9
CARD = Device(
    path="/dev/sdb",
    major_minor="8:16",
    size_bytes=32 * GB,
    transport="usb",
    removable=True,
    hotplug=True,
    vendor="Generic",
    model="Reader",
    serial="1",
    sequence=7,
    parts=(DevicePart(path="/dev/sdb1", major_minor="8:17", size_bytes=GB),),
)
ALLOWED = WritePolicy(image_bytes=GB, allow_loop=True, allow_large=True)

TABLE = [
    ("laptop-luks", "/dev/sda", ["mounted"]),
    ("laptop-luks", "/dev/sdb", ["empty"]),
    ("laptop-luks", "/dev/sdc", ["large"]),
    ("laptop-luks", "/dev/sr0", ["kind"]),
    ("laptop-luks", "/dev/nvme0n1", ["system", "held", "fixed", "large"]),
    ("pi-with-many-cards", "/dev/mmcblk1", ["system"]),
    ("pi-with-many-cards", "/dev/mmcblk10", []),
    ("pi-with-many-cards", "/dev/mmcblk2", ["fixed"]),
    ("pi-with-many-cards", "/dev/zram0", ["system", "fixed", "small"]),
    ("server-raid-btrfs", "/dev/sda", ["system", "held", "fixed", "large"]),
    ("server-raid-btrfs", "/dev/sdc", ["system", "large"]),
    ("server-raid-btrfs", "/dev/sdd", ["system"]),
    ("server-raid-btrfs", "/dev/sde", ["held"]),
    ("old-lsblk-odd-card", "/dev/sdb", ["read-only", "sector"]),
    ("virtual-machine", "/dev/vda", ["system", "fixed", "large"]),
    ("virtual-machine", "/dev/zram0", ["empty"]),
]


def codes(device: Device, policy: WritePolicy = ALLOWED) -> list[str]:
    return [refusal.code for refusal in refusals(device, policy)]


@pytest.mark.parametrize(("machine", "path", "expected"), TABLE)
def test_recorded_machines(machine: str, path: str, expected: list[str]) -> None:
    assert codes(recorded(machine)[path], WritePolicy(image_bytes=GB)) == expected


def test_a_good_card_is_not_refused() -> None:
    assert codes(CARD, WritePolicy(image_bytes=GB)) == []


RULES = [
    ("absent", {"kind": "absent"}, {}),
    ("file", {"kind": "file"}, {}),
    ("part", {"kind": "part"}, {}),
    ("empty", {"size_bytes": 0}, {}),
    ("kind", {"kind": "rom"}, {}),
    ("kind", {"kind": "lvm"}, {}),
    ("loop", {"kind": "loop", "transport": "loop"}, {"allow_loop": False}),
    ("fixed", {"transport": "sata"}, {}),
    ("fixed", {"transport": "nvme"}, {}),
    ("fixed", {"transport": "emmc"}, {}),
    ("fixed", {"transport": ""}, {}),
    ("fixed", {"removable": False, "hotplug": False}, {}),
    ("system", {"system_mounts": ("/",)}, {}),
    ("system", {"system_mounts": ("[SWAP]",)}, {}),
    ("held", {"holders": ("raid1 md0",)}, {}),
    ("mounted", {"parts": (DevicePart(path="/dev/sdb1", mountpoints=("/media/x",)),)}, {}),
    ("kept", {}, {"protected": (ProtectedFile("the image", "8:17"),)}),
    ("kept", {}, {"protected": (ProtectedFile("the cache", "8:16"),)}),
    ("above", {"backing": "/dev/sda", "backing_device": "8:0"}, {}),
    ("kept", {"backing": "/a.img"}, {"protected": (ProtectedFile("the image", "9:9", "/a.img"),)}),
    ("kept", {"backing": "/a.img"}, {"protected": (ProtectedFile("the image", "", "/a.img"),)}),
    ("kept", {"backing": "/c/b.img"}, {"protected": (ProtectedFile("the cache", "", "/c"),)}),
    (
        "kept",
        {"backing_inode": "27/4"},
        {"protected": (ProtectedFile("the image", "", "/b.img", "27/4"),)},
    ),
    (
        "kept",
        {"relatives": (Device(path="/l", major_minor="7:1", size_bytes=1),)},
        {"protected": (ProtectedFile("the image", "7:1"),)},
    ),
    ("read-only", {"read_only": True}, {}),
    ("small", {"size_bytes": GB - 512}, {}),
    ("large", {"size_bytes": LARGE_BYTES + 512}, {"allow_large": False}),
    ("sector", {"logical_sector_bytes": 4096}, {}),
    ("twice", {}, {"taken": ("8:16",)}),
    (
        "twice",
        {"relatives": (Device(path="/l", major_minor="7:1", size_bytes=1),)},
        {"taken": ("7:1",)},
    ),
]


@pytest.mark.parametrize(("code", "facts", "policy"), RULES)
def test_each_rule_alone(code: str, facts: dict[str, object], policy: dict[str, object]) -> None:
    found = refusals(
        replace(CARD, **facts),  # type: ignore[arg-type]
        replace(ALLOWED, **policy),  # type: ignore[arg-type]
    )
    assert [refusal.code for refusal in found] == [code]
    assert found[0].hint
    assert not found[0].message.endswith(".")


@pytest.mark.parametrize(("size", "expected"), [(GB - 512, ["small"]), (GB, []), (LARGE_BYTES, [])])
def test_sizes_at_the_edge(size: int, expected: list[str]) -> None:
    assert codes(replace(CARD, size_bytes=size), WritePolicy(image_bytes=GB)) == expected


def test_a_file_whose_device_is_not_known_lies_on_no_other_one() -> None:
    protected = (
        ProtectedFile("the image", "", "/a.img", "27/4"),
        ProtectedFile("the cache", "", "/c"),
    )
    loop = replace(CARD, backing="/cards/a.img", backing_inode="28/4", transport="loop")
    assert codes(loop, replace(ALLOWED, protected=protected)) == []


def test_an_sd_slot_needs_no_removable_flag() -> None:
    slot = replace(CARD, transport="mmc", removable=False, hotplug=False)
    assert codes(slot) == []


@given(
    st.builds(
        WritePolicy,
        image_bytes=st.integers(0, 10**12),
        allow_loop=st.booleans(),
        allow_large=st.booleans(),
        taken=st.just(()),
    ),
    st.sampled_from(["usb", "mmc", "loop", "sata"]),
    st.sampled_from(["/", "/boot", "/boot/efi", "/home", "/usr", "[SWAP]", "/var/lib"]),
)
def test_no_flag_lifts_the_refusal_of_the_system(
    policy: WritePolicy, transport: str, point: str
) -> None:
    own = replace(CARD, transport=transport, system_mounts=(point,))
    assert codes(own, policy)[0] == "system"


@pytest.mark.parametrize(
    ("change", "may"),
    [
        ({}, True),
        ({"transport": "sata"}, False),
        ({"system_mounts": ("/boot",)}, False),
        ({"holders": ("crypt x",)}, False),
        ({"backing_device": "8:0", "transport": "loop"}, False),
    ],
)
def test_only_removable_media_may_be_unmounted(change: dict[str, object], may: bool) -> None:
    assert may_unmount(replace(CARD, **change)) is may  # type: ignore[arg-type]


def test_beside_the_system_other_mounts_are_noise() -> None:
    parts = (DevicePart(path="/dev/sdb1", mountpoints=("/", "/run/netns")),)
    assert codes(replace(CARD, parts=parts, system_mounts=("/",))) == ["system"]


def test_every_mount_is_named() -> None:
    parts = (
        DevicePart(path="/dev/sdb1", mountpoints=("/a", "/b")),
        DevicePart(path="/dev/sdb2"),
    )
    assert mounted_parts(replace(CARD, parts=parts)) == (("/dev/sdb1", "/a"), ("/dev/sdb1", "/b"))


@pytest.mark.parametrize(
    "change",
    [
        {"sequence": 8},
        {"serial": "2"},
        {"size_bytes": 31 * GB},
        {"major_minor": "8:32"},
        {"model": "Disk"},
        {"backing": "/other"},
    ],
)
def test_another_medium_is_not_the_same(change: dict[str, object]) -> None:
    assert same_device(CARD, replace(CARD))
    assert not same_device(CARD, replace(CARD, **change))  # type: ignore[arg-type]


@given(st.text())
def test_sanitised_text_is_short_and_harmless(text: str) -> None:
    clean = sanitise(text)
    assert len(clean) <= 40
    assert clean.isprintable()
    assert clean == clean.strip()


@given(st.text())
def test_printable_text_keeps_its_length(text: str) -> None:
    assert len(printable(text)) == len(text)
    assert printable(text).isprintable()
