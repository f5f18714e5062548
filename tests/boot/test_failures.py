"""Whatever is wrong with the card, the Pi boots, and says why it is not the node."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.boot import images, nodes
from tests.lib.tools import run

if TYPE_CHECKING:
    from pathlib import Path

    from tests.boot.conftest import StartPi

pytestmark = [pytest.mark.boot, pytest.mark.root]

GENERATION = "occidentalis-jessie"
SETTINGS = {"cluster": {"enabled": False}}
BOOT_OFFSET = images.GENERATIONS[GENERATION].fat.start_sectors * images.SECTOR_BYTES
ROOT_OFFSET = BOOT_OFFSET + images.GENERATIONS[GENERATION].fat.size_mib * images.MIB
LOGIN_SECONDS = 300.0


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return nodes.build(nodes.Node(GENERATION, settings=SETTINGS), tmp_path)


def test_without_the_installer_the_pi_boots(image: Path, start: StartPi) -> None:
    run("mdel", "-i", f"{image}@@{BOOT_OFFSET}", "::/rpi-image/install")
    pi = start(image)
    pi.wait_for(b"login: ", LOGIN_SECONDS)
    assert re.search(rb"rpi-image/install[^\n]*(No such file|not found|annot open)", pi.console)
    assert pi.tell("mount | grep -c ' /boot '").strip() == "1"
    # occidentalis.txt is the vendor's own way, and still names the Pi.
    pi.tell_until("cat /etc/hostname", "pi-03", seconds=300)


def test_with_a_full_root_the_pi_boots_and_the_card_says_why(image: Path, start: StartPi) -> None:
    fill_root(image)
    pi = start(image)
    pi.wait_for(b"login: ", LOGIN_SECONDS)
    assert "No space left" in pi.tell("cat /boot/rpi-image/install.log")
    pi.halt()
    status = (pi.read_boot("rpi-image/status") or b"").decode()
    assert "failed" in status.lower()
    assert "No space left" in status
    # Once there is room, the next boot does it.
    pi.power_on()
    pi.tell_until("rm -f /fill && sync && echo gone", "^gone", LOGIN_SECONDS)
    pi.cut()
    pi.power_on()
    pi.tell("true", seconds=LOGIN_SECONDS)
    assert pi.tell("cat /etc/hostname").strip() == "pi-03"
    assert pi.tell("test -s /var/lib/rpi-image/installed && echo done").strip() == "done"


def fill_root(image: Path) -> None:
    """Return every free block of the root file system to one file."""
    root = f"{image}?offset={ROOT_OFFSET}"
    shown = run("dumpe2fs", "-h", root)
    free = int(re.findall(r"Free blocks:\s+(\d+)", shown)[0])
    block = int(re.findall(r"Block size:\s+(\d+)", shown)[0])
    source = image.with_suffix(".fill")
    with source.open("wb") as file:
        file.truncate(block)
    subprocess.run(
        ["debugfs", "-w", "-f", "-", root],
        input=f"write {source} fill\nfallocate fill 1 {free - 1}\n",
        text=True,
        check=True,
        capture_output=True,
    )


def test_a_boot_partition_that_came_up_read_only_is_made_writable_for_the_status(
    image: Path, start: StartPi
) -> None:
    """It is mounted read-only, as the kernel leaves it after an error on it."""
    command = ("-i", f"{image}@@{BOOT_OFFSET}")
    line = run("mtype", *command, "::/cmdline.txt")
    assert "mount -n -t vfat" in line
    edited = image.with_name("cmdline.txt")
    edited.write_text(line.replace("mount -n -t vfat", "mount -n -r -t vfat"))
    run("mcopy", "-o", *command, edited, "::/cmdline.txt")
    pi = start(image)
    pi.wait_for(b"login: ", LOGIN_SECONDS)
    assert pi.tell("cat /etc/hostname").strip() == "pi-03"
    pi.halt()
    assert "installed" in (pi.read_boot("rpi-image/status") or b"").decode()


@pytest.mark.full
def test_a_runcmd_lost_in_a_power_cut_is_made_up_for(start: StartPi, tmp_path: Path) -> None:
    """cloud-init runs runcmd once; here its turn passes and nothing was done."""
    generation = "cloud-init-1.12"
    image = nodes.build(nodes.Node(generation, settings=SETTINGS), tmp_path)
    offset = images.GENERATIONS[generation].fat.start_sectors * images.SECTOR_BYTES
    command = ("-i", f"{image}@@{offset}")
    before, runcmd = run("mtype", *command, "::/user-data").split("runcmd:\n")
    edited = tmp_path / "user-data"
    edited.write_text(f"{before}runcmd:\n{runcmd.replace('rpi-image/install', 'not-there')}")
    run("mcopy", "-o", *command, edited, "::/user-data")
    pi = start(image)
    pi.tell_until("cat /var/lib/cloud/instance/boot-finished", "- v", 2 * LOGIN_SECONDS)
    assert pi.tell("ls /var/lib/rpi-image/installed 2>/dev/null") == ""
    pi.halt()
    pi.power_on()
    pi.tell_until("cat /var/lib/rpi-image/installed", "^[0-9a-f]{64}", LOGIN_SECONDS)
    assert "--label" in pi.tell_until("cat /etc/default/docker", "DOCKER_OPTS", LOGIN_SECONDS)
    pi.tell_until("systemctl is-active rpi-image-node", "^active", LOGIN_SECONDS)
