"""The tiny image of the tour: a boot partition like Hypriot's of 2015, busybox on the root."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.lib import initramfs
from tests.tour.packages import package_of

ROOT = Path(__file__).parent / "root"
BOOT = Path(__file__).parents[1] / "boot/vendors/occidentalis/boot"
MIB = 1 << 20
BOOT_MIB, ROOT_MIB = 48, 16
FIRST_SECTOR = 2048
TABLE = f"""label: dos
start={FIRST_SECTOR}, size={BOOT_MIB * 2048}, type=c
start={FIRST_SECTOR + BOOT_MIB * 2048}, size={ROOT_MIB * 2048}, type=83
"""
ZONE = "usr/share/zoneinfo/Europe/Paris"
EMPTY = ("boot", "dev", "home", "proc", "run", "root", "sys", "tmp", "var/log")
FOLDERS = ("bin", "sbin", "usr/bin", "etc/wpa_supplicant", *(f"etc/rc{n}.d" for n in range(2, 6)))


def make_image(packages: list[Path], image: Path) -> None:
    """Write the image from Debian's packages."""
    with TemporaryDirectory(dir=image.parent) as folder:
        work = Path(folder).resolve()
        for name in ("busybox-static", "linux-image", "tzdata"):
            _run("dpkg-deb", "-x", package_of(packages, name), work / name)
        busybox = work / "busybox-static/bin/busybox"
        _make_root(work, busybox)
        _make_boot(work, busybox)
        image.unlink(missing_ok=True)
        _run("truncate", "-s", f"{BOOT_MIB + ROOT_MIB + 1}M", image)
        subprocess.run(["sfdisk", "-q", image], input=TABLE, text=True, check=True)
        with image.open("r+b") as file:
            file.seek(FIRST_SECTOR * 512)
            file.write((work / "boot").read_bytes())
            file.write((work / "root").read_bytes())


def applets_of(busybox: Path) -> list[str]:
    """Return the names of the applets, which cannot be asked for on another processor.

    They stand in the program one after the other, each with a zero byte (applet_names of
    include/applet_tables.h, made by busybox's applets/applet_tables.c).
    """
    data = busybox.read_bytes()
    names = data[data.index(b"[\0[[\0") :].split(b"\0\0", 1)[0]
    return [name.decode("ascii") for name in names.split(b"\0") if name != b"busybox"]


def _make_boot(work: Path, busybox: Path) -> None:
    kernel, tree, boot = work / "linux-image", work / "tree", work / "boot"
    initramfs.lay_tree(tree, busybox, applets_of(busybox), kernel)
    initramfs.pack(tree, work / "initramfs7")
    (vmlinuz,) = (kernel / "boot").glob("vmlinuz-*")
    shutil.copy(vmlinuz, work / "kernel7.img")
    _run("truncate", "-s", f"{BOOT_MIB}M", boot)
    _run("mkfs.vfat", "-F", "16", "-n", "TOUR", boot)
    files = (work / "kernel7.img", work / "initramfs7", *sorted(BOOT.iterdir()))
    _run("mcopy", "-i", boot, *files, "::")


def _make_root(work: Path, busybox: Path) -> None:
    tree = work / "files"
    shutil.copytree(ROOT, tree)
    for name in (*EMPTY, *FOLDERS):
        (tree / name).mkdir(parents=True, exist_ok=True)
    shutil.copy(busybox, tree / "bin/busybox")
    for applet in applets_of(busybox):
        (tree / "bin" / applet).symlink_to("busybox")
    (tree / "sbin/init").symlink_to("../bin/busybox")
    (tree / ZONE).parent.mkdir(parents=True)
    shutil.copy(work / "tzdata" / ZONE, tree / ZONE)
    _run("truncate", "-s", f"{ROOT_MIB}M", work / "root")
    _run("mkfs.ext4", "-q", "-F", "-d", tree, work / "root")


def _run(*command: str | Path) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
