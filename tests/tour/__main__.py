"""`make tour`: build pi-03 on a tiny image of Debian's kernel and busybox, and boot it in QEMU.

What runs at that first boot is what runs on a Pi: the installer and the node script of the card.
Needs neither root nor a Pi. Debian's packages come by apt, which verifies them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.tour.card import make_image
from tests.tour.packages import KEYRING, fetch_packages

HERE = Path(__file__).parent
WORK = Path("build/tour")
LAST_LINE = "the tour ends here"
COMMANDS = (
    "build -c build/tour/classroom.yml --hostname pi-03 -o build/tour/pi-03.img",
    "boot build/tour/pi-03.img --timeout 110 --until",
)
# A program of each package.
PROGRAMS = {
    "qemu-system-arm": "qemu-system-arm",
    "qemu-img": "qemu-utils",
    "cpio": "cpio",
    "depmod": "kmod",
    "mcopy": "mtools",
    "mkfs.ext4": "e2fsprogs",
    "mkfs.vfat": "dosfstools",
    "sfdisk": "fdisk",
}


def missing() -> str:
    """Return what to do before the tour can begin; empty if nothing."""
    if not shutil.which("apt-get"):
        return "the tour needs a Debian or Ubuntu machine, whose apt fetches a kernel and busybox"
    absent = [package for program, package in PROGRAMS.items() if not shutil.which(program)]
    if not KEYRING.exists():
        absent.append("debian-archive-keyring")
    if not absent:
        return ""
    return f"the tour needs more programs: sudo apt install {' '.join(absent)}"


def main() -> int:
    """Make the image, run the commands as a user would, and return the first failure's code."""
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    if absent := missing():
        sys.stderr.write(f"{absent}\n")
        return 1
    WORK.mkdir(parents=True, exist_ok=True)
    make_image(fetch_packages(WORK / "packages"), WORK / "tiny.img")
    for name in ("classroom.yml", "wifi.txt"):
        shutil.copy(HERE / name, WORK / name)
    commands = (command.split() for command in COMMANDS)
    codes = (_run(words + [LAST_LINE] * (words[-1] == "--until")) for words in commands)
    return next((code for code in codes if code), 0)


def _run(arguments: list[str]) -> int:
    shown = [f"'{word}'" if " " in word else word for word in arguments]
    sys.stdout.write(f"\n$ rpi-image {' '.join(shown)}\n")
    sys.stdout.flush()
    program = Path(sys.executable).with_name("rpi-image")
    return subprocess.run([program, *arguments], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
