"""Every generation of base image, booted with what `rpi-image build` wrote onto it."""

from __future__ import annotations

import json
import re
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.boot import nodes, radio, recorder
from tests.boot.outside import expect_reached
from tests.boot.vendorfacts import expect_ready_user, expect_settings, expect_vendor_done

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from tests.boot.conftest import StartPi
    from tests.boot.pi import Pi
    from tests.device.swarmlab import Machine

pytestmark = [pytest.mark.boot, pytest.mark.root]

STATIC = {"address": "10.0.2.50/24", "gateway": "10.0.2.2", "dns": ["10.0.2.3"]}
# A node of its own address and login, without the cluster.
ALONE: dict[str, Any] = {
    "network": STATIC,
    "cluster": {"enabled": False},
    "user": {"name": "teacher", "password_hash": nodes.PASSWORD_HASH, "groups": ["video"]},
}
UP_SECONDS = 600.0


def up(pi: Pi) -> dict[str, Any]:
    """Wait until the node says that Docker runs and that the installer is done; give its status."""
    status = pi.tell_until(
        "cat /var/lib/rpi-image/status.json", r'"docker": "[0-9]', seconds=UP_SECONDS
    )
    found: dict[str, Any] = json.loads(status)
    return found


def words_of_dockerd(pi: Pi) -> list[str]:
    return pi.tell("tr '\\0' ' ' </proc/$(pidof dockerd)/cmdline").split()


def expect_node(pi: Pi, image: Path, driver: str, arch: str = "armv7") -> None:
    """Check what holds for every node of SETTINGS, on every generation."""
    manifest = json.loads(image.with_suffix(".json").read_text())
    hostname = manifest["hostname"]
    assert pi.tell("hostname; cat /etc/hostname").split() == [hostname, hostname]
    assert pi.tell(f"getent hosts {hostname}").split()[0].startswith("127.0.")
    assert pi.tell("getent hosts shack").split() == [nodes.SHACK, "shack"]
    assert pi.tell("cat /var/lib/rpi-image/installed").strip() == manifest["config_hash"]
    words = words_of_dockerd(pi)
    for word in (f"--storage-driver={driver}", "-D", f"arch={arch}"):
        assert words.count(word) == 1, words
    # Only the seed's profiles open Docker to the network without being told to.
    assert words.count("tcp://0.0.0.0:2375") == (arch == "armv7"), words
    assert f"--registry-mirror=http://{nodes.SHACK}:5001" in words
    labels = pi.tell("docker info --format '{{json .Labels}}'")
    assert sorted(json.loads(labels)) == [f"arch={arch}", "room=B12/é"]
    assert pi.tell("docker info --format '{{.Driver}}'").strip() == driver
    # The card was built hours ahead of the Pi's clock.
    assert int(pi.tell("date +%s")) >= int((image.parent / "epoch").read_text())


def expect_login(pi: Pi, folder: Path, user: str) -> None:
    key = nodes.key(folder).read_text().strip()
    listed = pi.tell(f"cat $(getent passwd {user} | cut -d: -f6)/.ssh/authorized_keys")
    assert key in listed.splitlines()
    assert pi.tell(f"stat -c '%U %a' $(getent passwd {user} | cut -d: -f6)/.ssh").split() == [
        user,
        "700",
    ]


def expect_alone(pi: Pi, folder: Path) -> None:
    """Check what ALONE adds: the static address is the only one, the login has its password."""
    addresses = re.findall(r"inet ([0-9./]+)", pi.tell("ip -4 addr show eth0"))
    assert addresses == [STATIC["address"]]
    assert "default via 10.0.2.2" in pi.tell("ip route")
    shadow = pi.tell("getent shadow teacher").split(":")
    assert shadow[1] == nodes.PASSWORD_HASH
    assert "video" in pi.tell("id -nG teacher").split()
    expect_login(pi, folder, "teacher")


def networks_of_wpa(text: str) -> dict[str, str]:
    """Read wpa_supplicant.conf as its manual says: quoted, P"…" with escapes, or hex."""
    found = {}
    for block in re.findall(r"network=\{\n(.*?)\n\s*\}", text, re.DOTALL):
        lines = dict(line.strip().split("=", 1) for line in block.splitlines() if "=" in line)
        name = lines["ssid"]
        if name.startswith('"'):
            name = name[1:-1]
        elif name.startswith('P"'):
            name = name[2:-1].encode().decode("unicode_escape").encode("latin-1").decode()
        else:
            name = bytes.fromhex(name).decode()
        found[name] = lines["psk"]
    return found


BOTH = {
    nodes.SSID: nodes.psk_of(nodes.SSID, nodes.PASSPHRASE),
    nodes.SECOND_SSID: nodes.psk_of(nodes.SECOND_SSID, nodes.SECOND_PASSPHRASE),
}


def expect_wpa(pi: Pi) -> None:
    text = pi.tell("cat /etc/wpa_supplicant/wpa_supplicant.conf")
    assert networks_of_wpa(text) == BOTH
    assert "country=FR" in text
    assert nodes.PASSPHRASE not in text
    assert pi.tell("stat -c %a /etc/wpa_supplicant/wpa_supplicant.conf").strip() == "600"


def expect_netplan(pi: Pi, more: Mapping[str, str] = MappingProxyType({})) -> None:
    """Netplan itself merges what cloud-init gave it."""
    wifi = yaml.safe_load(pi.tell("netplan get wifis.wlan0"))
    points = wifi["access-points"]
    psks = {
        name: point.get("password") or point["auth"]["password"] for name, point in points.items()
    }
    assert psks == {**BOTH, **more}
    assert points[nodes.SECOND_SSID]["hidden"] is True
    assert wifi["regulatory-domain"] == "FR"


def expect_networks_joined(pi: Pi) -> None:
    """Check that a radio of the kernel's joins what netplan was given: WPA2 and WPA3."""
    expect_netplan(pi, {radio.WPA3_SSID: radio.WPA3_PASSPHRASE})
    radio.expect_joined(pi)


def expect_network_manager(pi: Pi) -> None:
    """NetworkManager itself reads the profiles."""
    found = {}
    for name in pi.tell("nmcli -g NAME,TYPE connection show").splitlines():
        if name.endswith(":802-11-wireless"):
            profile = name.removesuffix(":802-11-wireless").replace("\\:", ":")
            shown = pi.tell(
                "nmcli -s -m multiline -e no -f 802-11-wireless.ssid,802-11-wireless-security.psk"
                f" connection show {json.dumps(profile)}",
                seconds=120,
            )
            ssid, psk = (line.split(":", 1)[1].strip() for line in shown.splitlines())
            found[ssid] = psk
    assert found == BOTH


EXPECT_WIFI: dict[str, Callable[[Pi], None]] = {
    "occidentalis-wheezy": expect_wpa,
    "device-init-1.0": expect_wpa,
    "device-init-1.6": expect_wpa,
    "cloud-init-1.12": expect_wpa,
    "cloud-init-trixie": expect_netplan,
    "trixie-without-user-data": expect_netplan,
    "firstrun-bookworm": expect_network_manager,
    "trixie-arm64": expect_netplan,
    "ubuntu-24.04": expect_netplan,
    "ubuntu-25.10": expect_networks_joined,
}
# Their images expect the storage driver overlay; HypriotOS from 1.2 on expects overlay2.
OF_2015 = ("occidentalis-wheezy", "occidentalis-jessie", "device-init-1.0")
# Their vendor writes time zone and locale after us.
LATE = ("occidentalis-wheezy", "occidentalis-jessie")


ARM64 = {"profile": "arm64"}
# Ours, where the image does not tell it.
NAMED: dict[str, dict[str, Any]] = {
    "trixie-without-user-data": {"generation": "cloud-init"},
    "trixie-arm64": ARM64,
    "ubuntu-24.04": ARM64,
    "ubuntu-25.10": ARM64,
}
# Too long for CI, or booted there as another of their kind.
RARE = ("trixie-without-user-data", "ubuntu-24.04", "ubuntu-25.10")


@pytest.mark.parametrize(
    "generation",
    [pytest.param(name, marks=pytest.mark.full if name in RARE else ()) for name in EXPECT_WIFI],
)
def test_card_makes_the_node(
    generation: str, start: StartPi, wire: Machine, tmp_path: Path
) -> None:
    wifi = {"wifi": radio.WIFI} if EXPECT_WIFI[generation] == expect_networks_joined else {}
    settings = ALONE | NAMED.get(generation, {}) | wifi
    image = nodes.build(nodes.Node(generation, settings=settings), tmp_path)
    pi = start(image, wire=wire)
    status = up(pi)
    assert status["install"] == "ok", status
    assert status["address"] == "10.0.2.50"
    arch = settings.get("profile", nodes.SETTINGS["profile"])
    expect_node(pi, image, "overlay" if generation in OF_2015 else "overlay2", arch)
    expect_alone(pi, tmp_path)
    EXPECT_WIFI[generation](pi)
    expect_vendor_done(pi, generation)
    if generation not in LATE:
        expect_settings(pi)
    if generation == "firstrun-bookworm":
        expect_ready_user(pi, "teacher")
    expect_reached(pi, image, "10.0.2.50")
    pi.halt()
    pi.expect_sound()
    assert pi.read_boot("rpi-image/status.json"), "the card says nothing about the Pi"
    assert nodes.PASSPHRASE.encode() not in (pi.read_boot("occidentalis.txt") or b"")


def test_cluster_and_a_second_boot(start: StartPi, wire: Machine, tmp_path: Path) -> None:
    """Jessie's occidentalis: containers, an address that changes, and nothing done twice."""
    settings = {"cluster": {"tarballs": [str(nodes.tarball(tmp_path))]}}
    image = nodes.build(nodes.Node("occidentalis-jessie", settings=settings), tmp_path)
    pi = start(image, wire=wire)
    joined(pi, "10.0.2.15")
    expect_node(pi, image, "overlay")
    expect_wpa(pi)
    expect_login(pi, tmp_path, "pi")
    expect_reached(pi, image, "10.0.2.15")
    before = pi.tell(FILES)
    pi.network = ",dhcpstart=10.0.2.77"
    pi.reboot()
    joined(pi, "10.0.2.77")
    asked = pi.tell("docker exec consul cat /requests").splitlines()
    assert "DELETE /v1/kv/swarm/10.0.2.15:2375" in asked
    assert pi.tell(FILES) == before
    pi.halt()
    pi.expect_sound()


# What the installer may have written, with contents; what lives at run time is left out.
FILES = (
    "find /etc /root /home /boot ! -name '*.log' ! -name 'status*' ! -path /etc/resolv.conf"
    " ! -path '/etc/adjtime' ! -path /etc/mtab ! -path /etc/docker/key.json"
    " ! -path '/etc/systemd/system/*wants/*' -type f -exec md5sum {} + | sort -k 2"
)


def joined(pi: Pi, address: str) -> None:
    """Wait until both containers run with this address, started exactly as the seed has it."""
    status = pi.tell_until(
        "cat /var/lib/rpi-image/status.json",
        f'"swarm": "joined as {re.escape(address)}:2375"',
        seconds=UP_SECONDS,
    )
    assert json.loads(status)["address"] == address
    names = pi.tell("docker ps --format '{{.Names}} {{.Image}}'").splitlines()
    assert sorted(names) == [f"consul {recorder.CONSUL}", f"swarm {recorder.SWARM}"]
    consul = pi.tell("docker logs consul").split("argv: ")[1].split("\n")[0]
    assert consul.startswith("/bin/consul agent -config-dir=/config ")
    assert f"-node pi-03 -advertise {address} " in consul
    assert f"-retry-join {nodes.SHACK} " in consul
    assert "-server" not in consul
    swarm = pi.tell("docker logs swarm").split("argv: ")[1].split("\n")[0]
    assert swarm == f"/bin/swarm join --addr {address}:2375 consul://{address}:8500/swarm"
