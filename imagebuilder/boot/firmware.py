"""Find what the firmware of a Pi would load, and the QEMU machine that can run it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from imagebuilder.errors import ImageError
from imagebuilder.plan.boot_files import BootFiles, read_boot_text
from imagebuilder.plan.card_layout import CMDLINE
from imagebuilder.plan.vendor.boot_config import BootConfig, read_config

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST_BINARY_BYTES = 128 << 20  # a kernel with an initramfs in it
SERIAL_CONSOLE = "console=ttyAMA0,115200"
_TREE_MAGIC = bytes.fromhex("d00dfeed")  # Devicetree Specification 0.4, 5.2
_WRITE_AGAIN = "use a complete image, or build it again"


class BootPartition(BootFiles, Protocol):
    """A boot partition; `read` may return kernels, which are larger than other files."""

    def read(self, path: str, most_bytes: int = ...) -> bytes:
        """Return the content of the file."""


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine of QEMU; `filters` are the sections of config.txt that apply to it.

    `board` is QEMU's name for it where that is another. `kernels` and `trees` are in order of
    preference. A machine without `trees` has a device tree of its own. `words` go before those of
    the image on the kernel command line, where the firmware of a Pi adds its words.
    """

    name: str
    program: str
    kernels: tuple[str, ...]
    trees: tuple[str, ...]
    filters: tuple[str, ...]
    options: tuple[str, ...]
    words: tuple[str, ...] = ()
    board: str = ""


# SD cards have no write cache, and Linux never flushes them. writethrough updates qcow2 at each
# write, so that a killed QEMU is like a power cut; no-flush does not wait for the host's disk.
_CACHE = "cache=writethrough,cache.no-flush=on"

# Without fiq_fsm_enable=0 the USB host of Raspberry Pi kernels hangs in QEMU, and eth0 with it.
_PI_WORDS = ("dwc_otg.fiq_fsm_enable=0", SERIAL_CONSOLE)
_PI_DISK = (
    "-drive",
    f"if=sd,id=sd,format=qcow2,{_CACHE},file={{disk}}",
    "-device",
    "usb-net,netdev=net",
)
_VIRT_DISK = (
    *("-drive", f"if=none,id=sd,format=qcow2,{_CACHE},file={{disk}}", "-device", "sdhci-pci"),
    *("-device", "sd-card,drive=sd", "-device", "virtio-net-pci,netdev=net,romfile="),
)
_QEMU_64 = "qemu-system-aarch64"
MACHINES = (
    Machine(
        "raspi2b",
        "qemu-system-arm",
        ("kernel7.img",),
        ("bcm2709-rpi-2-b.dtb",),
        ("pi2",),
        _PI_DISK,
        _PI_WORDS,
    ),
    Machine(
        "raspi3b",
        _QEMU_64,
        ("kernel8.img",),
        ("bcm2710-rpi-3-b-plus.dtb", "bcm2710-rpi-3-b.dtb"),
        ("pi3",),
        _PI_DISK,
        _PI_WORDS,
    ),
    Machine(
        "raspi0",
        "qemu-system-arm",
        ("kernel.img",),
        ("bcm2708-rpi-zero.dtb", "bcm2708-rpi-b-plus.dtb", "bcm2708-rpi-b.dtb"),
        ("pi0",),
        _PI_DISK,
        _PI_WORDS,
    ),
    Machine(
        "virt",
        "qemu-system-arm",
        ("kernel7.img", "kernel.img"),
        (),
        (),
        ("-cpu", "cortex-a7", "-smp", "2", "-m", "1G", *_VIRT_DISK),
        # Without LPAE a 32-bit kernel cannot address the PCI window above 4 GiB (QEMU, arm/virt).
        board="virt,highmem=off",
    ),
    Machine(
        "virt64",
        _QEMU_64,
        ("kernel8.img",),
        (),
        (),
        ("-cpu", "cortex-a53", "-smp", "2", "-m", "1G", *_VIRT_DISK),
        board="virt",
    ),
)
_PI_TREE = re.compile(r"(?:^|/)bcm27\d\d-rpi-[^/]*\.dtb$", re.IGNORECASE)
_BY_NAME = {machine.name: machine for machine in MACHINES}
MACHINE_NAMES = tuple(_BY_NAME)


@dataclass(frozen=True, slots=True)
class Firmware:
    """What the firmware loads for `machine`; an empty `tree` means the one of the machine."""

    machine: Machine
    kernel: str
    image: bytes
    initramfs: bytes
    tree: bytes
    cmdline: str


def read_firmware(volume: BootPartition, wanted: str = "", words: Sequence[str] = ()) -> Firmware:
    """Return what the machine `wanted`, or the first that fits, would load; `words` go first.

    Raise ImageError if there is no kernel with a device tree for it.
    """
    machine = _BY_NAME[wanted] if wanted else choose_machine(volume)
    config = read_config(volume, machine.filters)
    kernel = _kernel(volume, machine, config)
    tree = _tree(volume, machine, config)
    if not kernel or (machine.trees and not tree):
        raise _lacking(machine, "" if kernel else config.kernel or " or ".join(machine.kernels))
    initramfs = _initramfs(volume, kernel, config)
    path = config.resolve(volume, config.cmdline or CMDLINE)
    cmdline = read_boot_text(volume, path, errors="replace")
    return Firmware(
        machine,
        kernel,
        _read_kernel(volume, kernel),
        volume.read(initramfs, MOST_BINARY_BYTES) if initramfs else b"",
        _read_tree(volume, tree) if tree else b"",
        command_line(cmdline, (*words, *machine.words)),
    )


def choose_machine(boot: BootFiles) -> Machine:
    """Return the first machine with kernel and device tree on the boot partition.

    A boot partition without any device tree of a Pi has a generic kernel for `virt`. Raise
    ImageError if no machine fits.
    """
    for machine in MACHINES:
        config = read_config(boot, machine.filters)
        tree = not machine.trees or _tree(boot, machine, config)
        if tree and _kernel(boot, machine, config) and not _is_misfit(boot, machine, config):
            return machine
    raise ImageError(
        "the boot partition has no kernel with a device tree for any machine of QEMU",
        "use an image for the Raspberry Pi Zero, 2 or 3, or choose with --machine",
    )


def command_line(text: str, words: Sequence[str]) -> str:
    """Return the kernel command line: `words`, then line 1 of cmdline.txt with QEMU's UART."""
    line = text.splitlines()[0].strip() if text.strip() else ""
    own = line.replace("console=serial0", "console=ttyAMA0").replace(
        "console=ttyS0", "console=ttyAMA0"
    )
    fresh = [word for word in words if word not in own.split()]
    return " ".join([*fresh, own]).strip()


def _kernel(boot: BootFiles, machine: Machine, config: BootConfig) -> str:
    names = (config.kernel,) if config.kernel else machine.kernels
    return _first(boot, config, names)


def _tree(boot: BootFiles, machine: Machine, config: BootConfig) -> str:
    return _first(boot, config, machine.trees)


def _first(boot: BootFiles, config: BootConfig, names: Sequence[str]) -> str:
    paths = (config.resolve(boot, name) for name in names)
    return next((path for path in paths if boot.exists(path)), "")


def _is_misfit(boot: BootFiles, machine: Machine, config: BootConfig) -> bool:
    """Return whether a generic machine would get a kernel that would not start on it.

    That is one of a Pi, or one whose own name does not say for how many bits it is.
    """
    if machine.trees:
        return False
    if config.kernel and config.arm_64bit != (machine.program == _QEMU_64):
        return True
    return any(_PI_TREE.search(name) for name in boot.names())


def _initramfs(boot: BootFiles, kernel: str, config: BootConfig) -> str:
    """Return the initramfs: as in config.txt, or the file with the name of the kernel."""
    namesake = kernel.replace("kernel", "initramfs").removesuffix(".img")
    path = config.resolve(boot, config.initramfs) if config.initramfs else namesake
    return path if boot.exists(path) else ""


def _read_kernel(volume: BootPartition, path: str) -> bytes:
    # QEMU would start an empty file and show nothing.
    if not (kernel := volume.read(path, MOST_BINARY_BYTES)):
        raise ImageError(f"{path} on the boot partition is empty", _WRITE_AGAIN)
    return kernel


def _read_tree(volume: BootPartition, path: str) -> bytes:
    tree = volume.read(path, MOST_BINARY_BYTES)
    if not tree.startswith(_TREE_MAGIC):
        raise ImageError(f"{path} on the boot partition is not a device tree", _WRITE_AGAIN)
    return tree


def _lacking(machine: Machine, kernel: str) -> ImageError:
    return ImageError(
        f"the boot partition has no {kernel or ' or '.join(machine.trees)},"
        f" which the machine {machine.name} needs",
        "use an image for that Raspberry Pi, or choose another one with --machine",
    )
