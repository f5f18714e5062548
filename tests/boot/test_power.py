"""The power is cut during the first boot; the next one ends fully configured, on a sound card."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.boot import nodes
from tests.boot.pi import Pi

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.boot, pytest.mark.root]

CUTS = 20
IN_CI = range(2, CUTS, 5)
MARK = "-- next --"
SETTINGS = {
    "cluster": {"enabled": False},
    "network": {"address": "10.0.2.50/24", "gateway": "10.0.2.2"},
    "user": {"name": "teacher", "password_hash": nodes.PASSWORD_HASH},
}


def ready(pi: Pi) -> None:
    """Wait until the Pi answers; its vendor's first boot comes later."""
    pi.tell("true", seconds=300)


def settled(pi: Pi) -> None:
    """Wait until the vendor's first boot is over."""
    pi.tell_until("systemctl is-active rc-local", "^(active|failed)", seconds=300)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cut")
    return nodes.build(nodes.Node("occidentalis-jessie", settings=SETTINGS), folder)


def state_of(pi: Pi) -> dict[str, str]:
    """Return what the installer makes, as the booted system has it."""
    reads = {
        "hostname": "hostname",
        "docker": "grep ^DOCKER_OPTS /etc/default/docker",
        "wifi": "cat /etc/wpa_supplicant/wpa_supplicant.conf",
        "shadow": "getent shadow teacher | cut -d: -f2",
        "host keys": "find /etc/ssh -name 'ssh_host_*' -size +0 | sort",
        "keys": "cat /home/teacher/.ssh/authorized_keys",
        "network": "cat /etc/network/interfaces /etc/network/interfaces.d/* 2>/dev/null",
        "hosts": "cat /etc/hosts",
        "zone": "readlink -f /etc/localtime",
        "service": "systemctl is-enabled rpi-image-node.service",
        "node": "md5sum </var/lib/rpi-image/node",
        "marker": "cat /var/lib/rpi-image/installed",
    }
    settled(pi)
    said = pi.tell(f"; echo {MARK}; ".join(reads.values()))
    return dict(zip(reads, said.split(f"{MARK}\n"), strict=True))


@dataclass(frozen=True)
class Whole:
    """An undisturbed first boot: what it made, and the instants to cut others at."""

    made: dict[str, str]
    instants: tuple[float, ...]


@pytest.fixture(scope="module")
def whole(image: Path, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """Boot once undisturbed, and spread the cuts: most into the installer, some around it."""
    pi = Pi(image, tmp_path_factory.mktemp("whole") / "pi")
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
        ready(pi)
        kernel, first, last, up = (*passed, time.monotonic() - begun)
        made = state_of(pi)
    finally:
        pi.throw_away()
    assert made["marker"].strip() == _manifest(image)["config_hash"]
    assert made["hostname"].strip() == "pi-03"
    assert made["shadow"].strip() == nodes.PASSWORD_HASH
    inside = [first + (last - first) * step / 14 for step in range(15)]
    around = [kernel, (kernel + first) / 2, (last + up) / 2, up, up + 3]
    return Whole(made, tuple(sorted([*inside, *around])))


def _manifest(image: Path) -> dict[str, str]:
    found: dict[str, str] = json.loads(image.with_suffix(".json").read_text())
    return found


@pytest.mark.parametrize(
    "cut",
    [pytest.param(cut, marks=() if cut in IN_CI else pytest.mark.full) for cut in range(CUTS)],
)
def test_power_cut_in_the_first_boot(cut: int, image: Path, whole: Whole, tmp_path: Path) -> None:
    pi = Pi(image, tmp_path / "pi")
    try:
        pi.power_on()
        pi.let_run(whole.instants[cut])
        pi.cut()
        pi.power_on()
        ready(pi)
        assert state_of(pi) == whole.made
        leftovers = pi.tell("find /etc /home /root /var/lib/rpi-image -name '*.rpi-image'")
        assert leftovers == ""
        pi.halt()
        pi.expect_sound()
    finally:
        pi.throw_away()
