"""An initramfs for a Debian kernel that makes it like a Pi's, from unpacked packages."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

INIT = Path(__file__).parents[1] / "boot/recipe/initramfs-init"
FOLDERS = ("bin", "dev", "mnt", "proc", "root", "sys")
# What the init above loads, as far as the kernel has it as a module.
MODULES = (
    "sdhci-pci",
    "sdhci-iproc",
    "bcm2835",
    "crc32c_generic",
    "ext4",
    "vfat",
    "nls_cp437",
    "nls_ascii",
    "nls_utf8",
    "virtio_pci",
    "virtio_net",
    "virtio_console",
)


def lay_tree(tree: Path, busybox: Path, applets: list[str], kernel: Path) -> None:
    """Lay out busybox with its applets, the init, and the modules of an unpacked kernel package."""
    for name in FOLDERS:
        (tree / name).mkdir(parents=True)
    shutil.copy(busybox, tree / "bin/busybox")
    for applet in applets:
        if applet != "busybox":
            (tree / "bin" / applet).symlink_to("busybox")
    shutil.copy(INIT, tree / "init")
    _lay_modules(kernel, tree)


def _lay_modules(kernel: Path, tree: Path) -> None:
    (modules,) = (kernel / "lib/modules").iterdir()
    _run("depmod", "-b", str(kernel), modules.name)
    for name in MODULES:
        shown = _run("modprobe", "-d", str(kernel), "-S", modules.name, "--show-depends", name)
        for line in shown.splitlines():
            if not line.startswith("insmod "):
                continue
            source = Path(line.split()[1])
            target = tree / source.relative_to(kernel)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)
    for table in modules.glob("modules.[bo]*"):
        shutil.copy(table, tree / "lib/modules" / modules.name)
    _run("depmod", "-b", str(tree), modules.name)


def pack(tree: Path, out: Path) -> None:
    """Write the tree as a compressed cpio archive (initramfs buffer format of the kernel)."""
    names = subprocess.run(["find", "."], cwd=tree, stdout=subprocess.PIPE, check=True).stdout
    command = ["cpio", "-o", "-H", "newc", "--quiet", "-R", "0:0"]
    packed = subprocess.run(command, cwd=tree, input=names, stdout=subprocess.PIPE, check=True)
    with out.open("wb") as file:
        subprocess.run(["gzip", "-n"], input=packed.stdout, stdout=file, check=True)


def _run(*command: str) -> str:
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout
