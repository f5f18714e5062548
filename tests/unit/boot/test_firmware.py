"""What the firmware would load, and the machine that is chosen for it."""

from __future__ import annotations

import pytest

from imagebuilder.boot.emulator import card_bytes
from imagebuilder.boot.firmware import (
    MACHINES,
    SERIAL_CONSOLE,
    choose_machine,
    command_line,
    read_firmware,
)
from imagebuilder.errors import ImageError

MAGIC = b"\xd0\x0d\xfe\xed"  # as dtc writes it


class Boot:
    """A boot partition in memory: files whose content is their name, and texts."""

    def __init__(self, *names: str, **texts: str) -> None:
        self.files = {name: MAGIC * name.endswith(".dtb") + name.encode() for name in names}
        self.files |= {name.replace("_", "."): text.encode() for name, text in texts.items()}

    def names(self) -> tuple[str, ...]:
        return tuple(self.files)

    def exists(self, path: str) -> bool:
        return path in self.files

    def read(self, path: str, most_bytes: int = 1 << 20) -> bytes:
        assert len(self.files[path]) <= most_bytes
        return self.files[path]


@pytest.mark.parametrize(
    ("names", "machine"),
    [
        (("kernel.img", "kernel7.img", "bcm2708-rpi-b.dtb", "bcm2709-rpi-2-b.dtb"), "raspi2b"),
        (("kernel8.img", "bcm2710-rpi-3-b-plus.dtb", "bcm2711-rpi-4-b.dtb"), "raspi3b"),
        (("kernel8.img", "bcm2710-rpi-3-b.dtb"), "raspi3b"),
        (("kernel.img", "bcm2708-rpi-b-plus.dtb"), "raspi0"),
        (("kernel7.img",), "virt"),
        (("kernel.img",), "virt"),
        (("kernel8.img",), "virt64"),
    ],
)
def test_the_machine_follows_from_kernel_and_device_tree(
    names: tuple[str, ...], machine: str
) -> None:
    assert choose_machine(Boot(*names)).name == machine


@pytest.mark.parametrize(
    "names",
    [
        (),
        ("bcm2709-rpi-2-b.dtb",),
        # A Pi's kernel without a device tree that QEMU's machines know would not start on `virt`.
        ("kernel7.img", "bcm2710-rpi-3-b.dtb"),
        ("kernel8.img", "bcm2711-rpi-4-b.dtb"),
        ("kernel8.img", "current/bcm2712-rpi-5-b.dtb"),
    ],
)
def test_nothing_to_boot_is_said(names: tuple[str, ...]) -> None:
    with pytest.raises(ImageError, match="no kernel with a device tree"):
        choose_machine(Boot(*names))


@pytest.mark.parametrize(
    ("names", "config", "said"),
    [
        (("kernel7.img", "bcm2709-rpi-2-b.dtb"), "", "has no kernel8.img,"),
        (("kernel8.img",), "", "has no bcm2710-rpi-3-b-plus.dtb or bcm2710-rpi-3-b.dtb,"),
        (("kernel8.img", "bcm2710-rpi-3-b.dtb"), "kernel=mine.img", "has no mine.img,"),
    ],
)
def test_what_a_wanted_machine_lacks_is_named(
    names: tuple[str, ...], config: str, said: str
) -> None:
    volume = Boot(*names, cmdline_txt="root=/dev/mmcblk0p2", config_txt=config)
    with pytest.raises(ImageError, match=f"{said} which the machine raspi3b needs"):
        read_firmware(volume, "raspi3b")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("kernel8.img", "kernel8.img on the boot partition is empty"),
        ("bcm2710-rpi-3-b.dtb", "bcm2710-rpi-3-b.dtb on the boot partition is not a device tree"),
    ],
)
def test_a_damaged_file_is_named_before_qemu_starts(name: str, said: str) -> None:
    volume = Boot("kernel8.img", "bcm2710-rpi-3-b.dtb", cmdline_txt="root=/dev/mmcblk0p2")
    volume.files[name] = b""
    with pytest.raises(ImageError, match=said):
        read_firmware(volume)


def test_firmware_reads_what_config_names() -> None:
    volume = Boot(
        "vmlinuz",
        "initrd",
        "kernel7.img",
        config_txt="kernel=vmlinuz\ninitramfs initrd followkernel\ncmdline=mine.txt\n",
        mine_txt="root=/dev/mmcblk0p2 quiet\nsecond line",
        cmdline_txt="never",
    )
    found = read_firmware(volume, words=("apparmor=0",))
    assert (found.kernel, found.image, found.initramfs) == ("vmlinuz", b"vmlinuz", b"initrd")
    assert found.cmdline == "apparmor=0 root=/dev/mmcblk0p2 quiet"
    assert found.tree == b""


@pytest.mark.parametrize(("wide", "machine"), [("arm_64bit=1\n", "virt64"), ("", "virt")])
def test_a_kernel_of_another_name_is_for_the_machine_that_config_says(
    wide: str, machine: str
) -> None:
    volume = Boot(
        "current/vmlinuz",
        "current/initrd.img",
        config_txt=f"{wide}os_prefix=current/\nkernel=vmlinuz\ninitramfs initrd.img followkernel\n",
        cmdline_txt="root=LABEL=writable",
    )
    found = read_firmware(volume)
    assert found.machine.name == machine
    assert (found.kernel, found.initramfs) == ("current/vmlinuz", b"current/initrd.img")


def test_initramfs_beside_the_kernel_has_its_name() -> None:
    volume = Boot("kernel7.img", "initramfs7", "initramfs", "bcm2709-rpi-2-b.dtb")
    found = read_firmware(volume)
    assert found.initramfs == b"initramfs7"
    assert found.tree == MAGIC + b"bcm2709-rpi-2-b.dtb"
    assert SERIAL_CONSOLE in found.cmdline


def test_command_line_speaks_to_the_uart_and_repeats_nothing() -> None:
    line = command_line("console=serial0,115200 console=tty1 quiet\n", (SERIAL_CONSOLE, "a=1"))
    assert line == "a=1 console=ttyAMA0,115200 console=tty1 quiet"
    assert command_line("", ("a=1",)) == "a=1"
    quoted = 'root=x init=/bin/sh -c "mount -n; exec /sbin/init"'
    assert command_line(quoted, ()) == quoted


@pytest.mark.parametrize(
    ("image", "card"),
    [(1, 1 << 28), (1 << 28, 1 << 28), ((1 << 28) + 1, 1 << 29), (1_363_148_800, 1 << 31)],
)
def test_cards_are_powers_of_two(image: int, card: int) -> None:
    assert card_bytes(image) == card


def test_every_machine_names_its_card() -> None:
    for machine in MACHINES:
        assert any("{disk}" in option for option in machine.options)
