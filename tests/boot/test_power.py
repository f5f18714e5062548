"""The power is cut while a card becomes a node; the next boot ends configured, on a sound card.

It is cut in three stages: in the first boot, when the card becomes another node, and when a card of
an earlier version of this program is configured by this one.
"""

from __future__ import annotations

import json
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.boot import images, nodes
from tests.boot.pi import Pi

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = [pytest.mark.boot, pytest.mark.root]

GENERATION = "occidentalis-jessie"
CUTS = {"first boot": 20, "another node": 15, "upgrade": 15}
IN_CI = [("first boot", 7), ("first boot", 17)]
MARK = "-- next --"
SETTINGS = {
    "cluster": {"enabled": False},
    "network": {"address": "10.0.2.50/24", "gateway": "10.0.2.2"},
    "user": {"name": "teacher", "password_hash": nodes.PASSWORD_HASH},
}


def ready(pi: Pi) -> None:
    """Wait until the Pi answers; its vendor's first boot comes later."""
    pi.tell("true", seconds=300)


# The card becomes a node without wifi, with another name, address, login and password.
OTHER = {
    **SETTINGS,
    "network": {"address": "10.0.2.60/24", "gateway": "10.0.2.2"},
    "user": {"name": "pupil", "password_hash": nodes.PASSWORD_HASH.replace("$w8O", "$x9P")},
    "wifi": {},
}
# What 0.1.0 kept beside its marker was this, and no list of what the node owns.
OF_THIS_VERSION = ("owned", "vendor_done")


def state_of(pi: Pi) -> dict[str, str]:
    """Return what the installer makes, as the booted system has it."""
    reads = {
        "hostname": "hostname",
        "docker": "grep ^DOCKER_OPTS /etc/default/docker",
        "wifi": "cat /etc/wpa_supplicant/wpa_supplicant.conf",
        "shadow": "getent shadow teacher pupil | cut -d: -f1,2",
        "host keys": "find /etc/ssh -name 'ssh_host_*' -size +0 | sort",
        "keys": "cat /home/*/.ssh/authorized_keys",
        "network": "cat /etc/network/interfaces /etc/network/interfaces.d/* 2>/dev/null",
        "hosts": "cat /etc/hosts",
        "zone": "readlink -f /etc/localtime",
        "service": "systemctl is-enabled rpi-image-node.service",
        "node": "md5sum </var/lib/rpi-image/node",
        "marker": "cat /var/lib/rpi-image/installed",
    }
    # Its vendor's first boot comes after the answer to the first question.
    pi.tell_until("systemctl is-active rc-local", "^(active|failed)", seconds=600)
    said = pi.tell(f"; echo {MARK}; ".join(reads.values()))
    return dict(zip(reads, said.split(f"{MARK}\n"), strict=True))


@dataclass(frozen=True)
class Whole:
    """A boot without a cut: of which image, what it made, and the instants to cut others at."""

    image: Path
    made: dict[str, str]
    instants: tuple[float, ...]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Whole]:
    """Return what boots a stage without a cut, once."""
    done: dict[str, Whole] = {}

    def _whole(stage: str) -> Whole:
        if stage not in done:
            done[stage] = boot_whole(stage, tmp_path_factory.mktemp("cut"))
        return done[stage]

    return _whole


def boot_whole(stage: str, folder: Path) -> Whole:
    """Boot once without a cut, and spread the cuts: most into the installer, some around it."""
    node = nodes.Node(GENERATION, settings=SETTINGS)
    image = nodes.build(node, folder / "first")
    if stage != "first boot":
        pi = Pi(image, folder / "earlier")
        pi.power_on()
        state_of(pi)
        pi.halt()
        card = pi.raw().rename(folder / "earlier.img")
        pi.throw_away()
        if stage == "upgrade":
            age(card)
        else:
            node = nodes.Node(GENERATION, hostname="pi-04", settings=OTHER)
        image = nodes.build(node, folder / "then", base=card)
    pi = Pi(image, folder / "pi")
    try:
        begun = time.monotonic()
        pi.power_on()
        passed = []
        for seen in (
            b"Run /init as init process",
            b"EXT4-fs [^\n]*re-mounted",  # the installer makes the root writable
            b"systemd\\[1\\]: |Welcome to ",
        ):
            pi.wait_for(seen, 180)
            passed.append(time.monotonic() - begun)
        pi.tell("true", seconds=300)
        kernel, first, last, up = (*passed, time.monotonic() - begun)
        made = state_of(pi)
    finally:
        pi.throw_away()
    assert made["marker"].strip() == manifest(image)["config_hash"]
    assert made["hostname"].strip() == node.hostname
    user = node.settings["user"]
    assert made["shadow"].splitlines()[-1] == f"{user['name']}:{user['password_hash']}"
    count = CUTS[stage] - 5
    inside = [first + (last - first) * step / (count - 1) for step in range(count)]
    around = [kernel, (kernel + first) / 2, (last + up) / 2, up, up + 3]
    return Whole(image, made, tuple(sorted([*inside, *around])))


def age(card: Path) -> None:
    """Make a card of this version one of 0.1.0, configured from other settings."""
    vendor = images.GENERATIONS[GENERATION].fat
    offset = vendor.start_sectors * images.SECTOR_BYTES + vendor.size_mib * images.MIB
    marker = card.with_name("installed")
    marker.write_text("0" * 64 + "\n")
    commands = [f"rm /var/lib/rpi-image/{name}" for name in (*OF_THIS_VERSION, "installed")]
    commands.append(f"write {marker} /var/lib/rpi-image/installed")
    debugfs = ["debugfs", "-w", "-f", "-", f"{card}?offset={offset}"]
    subprocess.run(debugfs, input="\n".join(commands), text=True, check=True, capture_output=True)


def manifest(image: Path) -> dict[str, str]:
    found: dict[str, str] = json.loads(image.with_suffix(".json").read_text())
    return found


@pytest.mark.parametrize(
    ("stage", "cut"),
    [
        pytest.param(stage, cut, marks=() if (stage, cut) in IN_CI else pytest.mark.full)
        for stage, count in CUTS.items()
        for cut in range(count)
    ],
)
def test_power_cut(stage: str, cut: int, whole: Callable[[str], Whole], tmp_path: Path) -> None:
    undisturbed = whole(stage)
    pi = Pi(undisturbed.image, tmp_path / "pi")
    try:
        pi.power_on()
        pi.let_run(undisturbed.instants[cut])
        pi.cut()
        pi.power_on()
        pi.tell("true", seconds=300)
        assert state_of(pi) == undisturbed.made
        half = r"\( -name '*.rpi-image' -o -name '*.new' \)"
        assert pi.tell(f"find /etc /home /root /boot /var/lib/rpi-image {half}") == ""
        pi.halt()
        pi.expect_sound()
        boot, _ = pi.partitions()
        assert nodes.PASSPHRASE.encode() not in boot.read_bytes()
    finally:
        pi.throw_away()
