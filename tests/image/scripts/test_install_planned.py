"""What the plan writes onto a card, installed: the two sides of node.env and its folder meet."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from tests.lib.pi_tree import WITHOUT_DOCKER, Pi, make_pi
from tests.lib.plan_samples import STOCK, after, boot_of, full_node, plan
from tests.lib.tools import run

if TYPE_CHECKING:
    from pathlib import Path

    from imagebuilder.model import NodePlan

ROOTS = {
    "occidentalis": "wheezy",
    "device-init-1.0": "jessie",
    "device-init-1.6": "device-init",
    "cloud-init-hypriot": "cloud-init",
    "cloud-init-trixie": "trixie",
    "firstrun-bookworm": "bookworm",
}
SECRETS = ("PRIVATE", "KEY-PEM", "パスワード123", "cg8StVXbQJ0gPvMd9o7yrg==")


def planned(folder: Path, sample: str) -> tuple[Pi, NodePlan]:
    """Lay a full plan over the stock files of one sample's boot partition."""
    pi = make_pi(folder, ROOTS[sample])
    shutil.rmtree(pi.boot)
    boot = boot_of(sample)
    node_plan = plan(full_node(), boot)
    for name, data in after(boot, node_plan).files.items():
        path = pi.boot / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    pi.write("usr/share/zoneinfo/Europe/Paris", "TZif2")
    return pi, node_plan


@pytest.mark.parametrize("sample", STOCK)
def test_a_planned_card_installs(sample: str, tmp_path: Path) -> None:
    pi, node_plan = planned(tmp_path, sample)
    cmdline = (pi.boot / "cmdline.txt").read_bytes()
    done = pi.run()
    assert pi.status()["install"] == "ok", done.stderr
    assert pi.read("var/lib/rpi-image/installed") == f"{node_plan.config_hash}\n"
    assert pi.read("etc/hostname") == "pi-03\n"
    assert "teacher:$6$salt$abc.DEF/ghi:" in pi.read("etc/shadow")
    assert "ssh-ed25519 AAAAC3Nz teacher@shack\n" in pi.read("home/teacher/.ssh/authorized_keys")
    assert pi.read("etc/docker/tls/key.pem") == "KEY-PEM\n"
    assert pi.read("etc/ssh/ssh_host_ed25519_key") == "PRIVATE\n"
    # where there is no Docker yet, the options wait for it
    place = (
        "var/lib/rpi-image/node.env" if ROOTS[sample] in WITHOUT_DOCKER else "etc/default/docker"
    )
    options = run("dash", "-c", f'. "{pi.path(place)}"; printf %s "$DOCKER_OPTS"')
    assert "--tlsverify" in options
    assert "--label=seat=3" in options or "--label seat=3" in options
    assert (pi.boot / "cmdline.txt").read_bytes() == cmdline
    for path in pi.boot.rglob("*"):
        if path.is_file():
            text = path.read_text()
            assert not [secret for secret in SECRETS if secret in text], path
    assert pi.run().stderr == ""


@pytest.mark.parametrize("sample", STOCK)
def test_the_address_is_set_once(sample: str, tmp_path: Path) -> None:
    """By cloud-init where that does it, else by the installer."""
    pi, _ = planned(tmp_path, sample)
    pi.run()
    places = [pi.path("etc/dhcpcd.conf"), pi.boot / "network-config"]
    places += [*pi.path("etc/network").rglob("*"), *pi.path("etc/NetworkManager").rglob("*")]
    holding = [path for path in places if path.is_file() and "192.168.2.103" in path.read_text()]
    assert len(holding) == 1, holding


def test_hypriotos_before_1_12_1_gets_its_address_by_dhcpcd(tmp_path: Path) -> None:
    """It has cloud-init and dhcpcd, and only the latter is heeded."""
    pi, _ = planned(tmp_path, "cloud-init-hypriot")
    pi.path("etc/systemd/system/dhcpcd.service").unlink()
    pi.run()
    assert pi.status()["install"] == "ok"
    address = "interface eth0\nstatic ip_address=192.168.2.103/24\nstatic routers=192.168.2.1\n"
    assert address in pi.read("etc/dhcpcd.conf")
    assert "reboot" in pi.read("var/lib/rpi-image/todo").split()


def test_a_dhcpcd_that_netplan_does_not_ask_is_left_alone(tmp_path: Path) -> None:
    """The initramfs of trixie brings one along."""
    pi, _ = planned(tmp_path, "cloud-init-trixie")
    pi.write("etc/dhcpcd.conf", "hostname\n")
    pi.run()
    assert pi.status()["install"] == "ok"
    assert pi.read("etc/dhcpcd.conf") == "hostname\n"
    assert "reboot" not in pi.read("var/lib/rpi-image/todo").split()
