"""What a Pi's firmware would load from a boot partition, and the emulated machine that fits it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from imagebuilder.errors import ImageError
from imagebuilder.plan.card_layout import CMDLINE, CONFIG

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MOST_BINARY_BYTES = 128 << 20  # a kernel with an initramfs in it
SERIAL_CONSOLE = "console=ttyAMA0,115200"


class BootPartition(Protocol):
    """What is asked of a boot partition; `bootfs.BootVolume` is one."""

    def exists(self, path: str) -> bool:
        """Whether the file is there."""

    def read(self, path: str, most_bytes: int = ...) -> bytes:
        """Return the file's bytes."""


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine of QEMU and what it needs; `filters` are the config.txt sections that hold for it.

    `kernels` and `trees` are looked for in this order. A machine without `trees` makes its own
    device tree. `words` go before the image's own on the kernel's command line, as a Pi's firmware
    puts its own there.
    """

    name: str
    program: str
    kernels: tuple[str, ...]
    trees: tuple[str, ...]
    filters: tuple[str, ...]
    options: tuple[str, ...]
    words: tuple[str, ...] = ()


# An SD card has no cache to lose, and Linux never asks it to flush: a write goes through qcow2 at
# once, so that a killed QEMU leaves what a power cut leaves. Nothing waits for the host's disk.
_CACHE = "cache=writethrough,cache.no-flush=on"

# Without fiq_fsm_enable=0 the USB host of Raspberry Pi kernels hangs in QEMU, and with it eth0.
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
        "qemu-system-aarch64",
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
    ),
)
_BY_NAME = {machine.name: machine for machine in MACHINES}
MACHINE_NAMES = tuple(_BY_NAME)


@dataclass(frozen=True, slots=True)
class BootConfig:
    """The lines of config.txt that name what to load; empty where it names nothing."""

    kernel: str = ""
    initramfs: str = ""
    cmdline: str = ""
    auto_initramfs: bool = False


@dataclass(frozen=True, slots=True)
class Firmware:
    """What the firmware hands to the processor of `machine`; no device tree: the machine's own."""

    machine: Machine
    kernel: str
    image: bytes
    initramfs: bytes
    tree: bytes
    cmdline: str


def parse_config(text: str, filters: Sequence[str]) -> BootConfig:
    """Read config.txt as the firmware does: filters in brackets, the last line of a kind wins."""
    found: dict[str, str] = {}
    holds = True
    for line in (raw.strip() for raw in text.splitlines()):
        if line.startswith("[") and line.endswith("]"):
            holds = line[1:-1].lower() in {"all", *filters}
        elif holds and line.startswith("initramfs "):
            found["initramfs"] = line.split()[1]
        elif holds and "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found[key.strip()] = value.strip()
    return BootConfig(
        found.get("kernel", ""),
        found.get("initramfs", ""),
        found.get("cmdline", ""),
        found.get("auto_initramfs") == "1",
    )


def read_firmware(volume: BootPartition, wanted: str = "", words: Sequence[str] = ()) -> Firmware:
    """Read what `wanted` (or the first machine that fits) would load; `words` go first.

    Raises ImageError where no machine that QEMU has finds its kernel and device tree.
    """
    config = _decoded(volume, CONFIG)
    machine = _BY_NAME[wanted] if wanted else choose_machine(volume.exists, config)
    chosen = parse_config(config, machine.filters)
    kernel = _kernel(volume.exists, machine, chosen)
    tree = next((name for name in machine.trees if volume.exists(name)), "")
    if not kernel or (machine.trees and not tree):
        raise _nothing_to_boot(wanted)
    initramfs = _initramfs(volume.exists, kernel, chosen)
    return Firmware(
        machine,
        kernel,
        volume.read(kernel, MOST_BINARY_BYTES),
        volume.read(initramfs, MOST_BINARY_BYTES) if initramfs else b"",
        volume.read(tree, MOST_BINARY_BYTES) if tree else b"",
        command_line(_decoded(volume, chosen.cmdline or CMDLINE), (*words, *machine.words)),
    )


def choose_machine(exists: Callable[[str], bool], config: str) -> Machine:
    """Return the first machine whose kernel and device tree are on the boot partition.

    A boot partition without any Raspberry Pi device tree holds a general kernel: `virt`.
    """
    for machine in MACHINES:
        chosen = parse_config(config, machine.filters)
        tree = not machine.trees or any(exists(name) for name in machine.trees)
        if tree and _kernel(exists, machine, chosen) and not _is_misfit(exists, machine):
            return machine
    raise _nothing_to_boot("")


def command_line(text: str, words: Sequence[str]) -> str:
    """Return the kernel command line for QEMU's UART: ours, then line 1 of cmdline.txt."""
    line = text.splitlines()[0].strip() if text.strip() else ""
    own = line.replace("console=serial0", "console=ttyAMA0").replace(
        "console=ttyS0", "console=ttyAMA0"
    )
    fresh = [word for word in words if word not in own.split()]
    return " ".join([*fresh, own]).strip()


def _kernel(exists: Callable[[str], bool], machine: Machine, config: BootConfig) -> str:
    names = (config.kernel,) if config.kernel else machine.kernels
    return next((name for name in names if exists(name)), "")


def _is_misfit(exists: Callable[[str], bool], machine: Machine) -> bool:
    """Whether Pi device trees lie there although this is not a Pi: its kernel would not start."""
    pi_trees = (name for other in MACHINES for name in other.trees)
    return not machine.trees and any(exists(name) for name in pi_trees)


def _initramfs(exists: Callable[[str], bool], kernel: str, config: BootConfig) -> str:
    """Name the initramfs: the one config.txt names, or the kernel's namesake beside it."""
    namesake = kernel.replace("kernel", "initramfs").removesuffix(".img")
    name = config.initramfs or namesake
    return name if exists(name) else ""


def _decoded(volume: BootPartition, name: str) -> str:
    return volume.read(name).decode("utf-8", "replace") if volume.exists(name) else ""


def _nothing_to_boot(wanted: str) -> ImageError:
    what = f"the machine {wanted}" if wanted else "any machine QEMU has"
    return ImageError(
        f"the boot partition holds no kernel with a device tree for {what}",
        "QEMU knows the Raspberry Pi Zero, 2 and 3; give --machine to choose",
    )
