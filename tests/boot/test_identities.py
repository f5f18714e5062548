"""One image for a class, booted: the board finds its node by its MAC, unseen in early boot."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.boot import images
from tests.boot.nodes import ROOT, SHACK

if TYPE_CHECKING:
    from pathlib import Path

    from tests.boot.conftest import StartPi

pytestmark = pytest.mark.boot

# QEMU's first network card (docs/system/devices/net.rst).
QEMU_MAC = "52:54:00:12:34:56"


def one_image(
    folder: Path, macs: dict[str, str], generation: str = "occidentalis-jessie", **more: Any
) -> Path:
    """Run `rpi-image batch --one-image` for nodes with these MACs."""
    room = {
        "profile": "armv7",
        "image": {"file": str(images.golden(generation)), "unchecked": True},
        "shack": {"address": SHACK},
        "nodes": [{"hostname": name, "mac": mac} for name, mac in macs.items()],
        **more,
    }
    (folder / "room.yml").write_text(yaml.safe_dump(room))
    command = [sys.executable, "-m", "imagebuilder", "batch", "room.yml", "--one-image"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(folder / "cache")}
    subprocess.run(command, check=True, cwd=folder, env=environment)
    return folder / "build" / "room.img"


def test_a_board_becomes_its_node_and_forgets_the_others(start: StartPi, tmp_path: Path) -> None:
    macs = {"pi-01": "b8:27:eb:00:00:01", "pi-02": QEMU_MAC, "pi-03": "b8:27:eb:00:00:03"}
    pi = start(one_image(tmp_path, macs))
    # the node script's own words: for a moment the installer had the name right before, too
    pi.tell_until("cat /boot/rpi-image/status", "^pi-02 at ", 300)
    assert pi.tell("cat /etc/hostname; hostname").split() == ["pi-02", "pi-02"]
    assert "hostname=pi-02" in pi.tell("cat /boot/occidentalis.txt")
    pi.tell_until("ls /boot/rpi-image", r"^(?!.*identities)", 60)
    pi.halt()
    assert pi.read_boot("rpi-image/identities/mac-b827eb000001/rpi-image/node.env") is None
    pi.expect_sound()


@pytest.mark.full
def test_on_cloud_init_it_restarts_once_into_its_address(start: StartPi, tmp_path: Path) -> None:
    """Cloud-init has read the files of `unclaimed` before the board is known by its MAC."""
    others = {"hostname": "pi-01", "mac": "b8:27:eb:00:00:01", "address": "10.0.2.49/24"}
    mine = {"hostname": "pi-02", "mac": QEMU_MAC, "address": "10.0.2.50/24"}
    network, alone = {"gateway": "10.0.2.2"}, {"enabled": False}
    room = {"network": network, "cluster": alone, "allow": ["no-login"]}
    image = one_image(tmp_path, {}, "cloud-init-trixie", nodes=[others, mine], **room)
    pi = start(image)
    pi.tell_until("cat /boot/firmware/rpi-image/status", r"^pi-02 at 10\.0\.2\.50", 600)
    addresses = re.findall(r"inet ([0-9./]+)", pi.tell("ip -4 addr show eth0"))
    assert addresses == ["10.0.2.50/24"]
    assert pi.tell("cat /etc/hostname; hostname").split() == ["pi-02", "pi-02"]
    pi.let_run(30)
    assert pi.boots == 2
    pi.halt()
    assert pi.read_boot("rpi-image/identities/mac-b827eb000001/rpi-image/node.env") is None
    pi.expect_sound()


@pytest.mark.full
def test_a_board_in_no_roster_says_so(start: StartPi, tmp_path: Path) -> None:
    pi = start(one_image(tmp_path, {"pi-01": "b8:27:eb:00:00:01"}))
    pi.tell_until("cat /etc/hostname", "^unclaimed-[0-9a-f]{4}$", 240)
    pi.tell_until("cat /boot/rpi-image/status", "no roster", 60)
