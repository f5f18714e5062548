"""What the installer does with wifi and addresses."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from tests.lib.pi_tree import (
    STATE,
    STATIC_DHCPCD,
    STATIC_NM,
    STOCK_INTERFACES,
    WIFI,
    WIFI_NM,
    Pi,
    install,
    make_pi,
)
from tests.lib.tools import need, run

if TYPE_CHECKING:
    from pathlib import Path


def test_wifi_where_wpa_supplicant_reads_its_file(wheezy: Pi) -> None:
    install(wheezy)
    path = wheezy.path("etc/wpa_supplicant/wpa_supplicant.conf")
    assert path.read_bytes() == WIFI.encode()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert wheezy.read("etc/network/interfaces").count("iface wlan0") == 1


def test_wifi_gets_a_stanza_where_there_is_none(tmp_path: Path) -> None:
    need("ifquery")
    pi = make_pi(tmp_path, "device-init")
    pi.write("etc/network/interfaces.d/wlan0", "iface wlan0 inet dhcp\n    wpa-ssid old\n")
    install(pi)
    stanza = pi.path("etc/network/interfaces.d/wlan0")
    words = run("ifquery", "-i", stanza, "--state-dir", tmp_path, "wlan0")
    assert words == "wpa-conf: /etc/wpa_supplicant/wpa_supplicant.conf\n"


def test_wifi_of_network_manager(tmp_path: Path) -> None:
    pi = make_pi(tmp_path, "bookworm")
    stale = "etc/NetworkManager/system-connections/rpi-image-wifi-9.nmconnection"
    pi.write(stale, "x")
    install(pi)
    path = pi.path("etc/NetworkManager/system-connections/rpi-image-wifi-2.nmconnection")
    assert path.read_bytes() == WIFI_NM.encode()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not pi.path(stale).exists()
    assert not pi.path("etc/wpa_supplicant/wpa_supplicant.conf").exists()
    assert pi.read("var/lib/systemd/rfkill/platform-fe300000.mmcnr:wlan") == "0\n"
    assert pi.read("etc/default/crda") == "REGDOMAIN=DE\n"


def test_wifi_that_netplan_has_is_left_to_it(tmp_path: Path) -> None:
    pi = make_pi(tmp_path, "cloud-init")
    text = 'network:\n  version: 2\n  wifis:\n    wlan0: {dhcp4: true}\n  x: "192.168.2.103/24"\n'
    (pi.boot / "network-config").write_text(text)
    made, own = "etc/netplan/50-cloud-init.yaml", "etc/netplan/10-own.yaml"
    pi.write(made, text)
    pi.write(own, text)
    install(pi)
    assert [stat.S_IMODE(pi.path(p).stat().st_mode) for p in (made, own)] == [0o600, 0o644]
    assert not pi.path("etc/wpa_supplicant").exists()
    assert pi.status()["install"] == "ok"


def test_wifi_that_netplan_has_is_switched_on(tmp_path: Path) -> None:
    """Raspberry Pi OS switches it off, and neither cloud-init nor netplan switches it on."""
    pi = make_pi(tmp_path, "trixie")
    before = pi.read("var/lib/NetworkManager/NetworkManager.state")
    install(pi)
    after = pi.read("var/lib/NetworkManager/NetworkManager.state")
    assert after == before.replace("WirelessEnabled=false", "WirelessEnabled=true")
    assert pi.read("var/lib/systemd/rfkill/platform-fe300000.mmcnr:wlan") == "0\n"
    assert "wifi" in pi.read(f"{STATE}/todo").split()
    assert list(pi.path("etc/NetworkManager/system-connections").iterdir()) == []
    wired = make_pi(tmp_path / "wired", "trixie")
    (wired.card / "wifi" / "wpa_supplicant.conf").unlink()
    install(wired)
    assert wired.read("var/lib/NetworkManager/NetworkManager.state") == before
    assert "wifi" not in wired.read(f"{STATE}/todo").split()


def test_a_static_address_in_interfaces(wheezy: Pi, tmp_path: Path) -> None:
    need("ifquery")
    install(wheezy)
    file = wheezy.path("etc/network/interfaces")
    state = tmp_path / "state"
    state.mkdir()
    asked = ("ifquery", "-i", file, "--state-dir", state)
    assert run(*asked, "eth0").splitlines() == [
        "address: 192.168.2.103",
        "netmask: 255.255.255.0",
        "gateway: 192.168.2.1",
        "broadcast: 192.168.2.255",
    ]
    assert run(*asked, "--list").split() == ["lo", "eth0"]
    assert run(*asked, "--list", "--allow=hotplug").split() == ["wlan0"]
    assert file.read_text().count("iface eth0") == 1
    assert "# the wire" in file.read_text()
    assert "metric 10" not in file.read_text()
    assert wheezy.read("etc/resolv.conf") == "nameserver 192.168.2.1\nnameserver 9.9.9.9\n"


def test_a_static_address_taken_back(wheezy: Pi) -> None:
    install(wheezy)
    wheezy.configure(RPI_IMAGE_HASH="dhcp", NETWORK_ADDRESS="")
    install(wheezy)
    assert wheezy.read("etc/network/interfaces") == STOCK_INTERFACES


def test_interfaces_named_together(wheezy: Pi) -> None:
    wheezy.write(
        "etc/network/interfaces",
        "auto lo eth0 br0\niface lo inet loopback\niface eth0 inet dhcp\n\tmtu 1400\n"
        "iface eth0 inet6 auto\niface eth00 inet dhcp\n",
    )
    install(wheezy)
    lines = wheezy.read("etc/network/interfaces").splitlines()
    assert "auto lo br0" in lines
    assert "iface eth0 inet6 auto" in lines
    assert "iface eth00 inet dhcp" in lines
    assert "iface eth0 inet dhcp" not in lines
    assert "\tmtu 1400" not in lines


def test_a_static_address_in_interfaces_d(tmp_path: Path) -> None:
    pi = make_pi(tmp_path, "device-init")
    install(pi)
    text = pi.read("etc/network/interfaces.d/eth0")
    assert "iface eth0 inet static" in text
    assert "dhcp" not in text
    assert "hotplug" not in text
    assert pi.read("etc/network/interfaces") == "source-directory /etc/network/interfaces.d\n"
    assert "reboot" in pi.read(f"{STATE}/todo").split()


def test_a_static_address_in_dhcpcd(tmp_path: Path) -> None:
    pi = make_pi(tmp_path, "bullseye")
    install(pi)
    marked = f"# rpi-image begin\n{STATIC_DHCPCD}# rpi-image end\n"
    assert pi.read("etc/dhcpcd.conf") == f"hostname\nclientid\n{marked}"
    pi.configure(RPI_IMAGE_HASH="dhcp", NODE_GENERATION="firstrun", NETWORK_ADDRESS="")
    install(pi)
    assert pi.read("etc/dhcpcd.conf") == "hostname\nclientid\n"


def test_a_static_address_in_network_manager(tmp_path: Path) -> None:
    pi = make_pi(tmp_path, "bookworm")
    install(pi)
    name = "etc/NetworkManager/system-connections/rpi-image-wired.nmconnection"
    assert pi.read(name) == STATIC_NM
    assert stat.S_IMODE(pi.path(name).stat().st_mode) == 0o600
    pi.configure(RPI_IMAGE_HASH="dhcp", NODE_GENERATION="firstrun", NETWORK_ADDRESS="")
    install(pi)
    assert not pi.path(name).exists()


def test_a_static_address_that_cloud_init_sets_itself(tmp_path: Path) -> None:
    pi = make_pi(tmp_path, "cloud-init")
    before = pi.read("etc/network/interfaces.d/eth0")
    install(pi)
    assert pi.status()["install"] == "ok"
    assert pi.read("etc/network/interfaces.d/eth0") == before
    assert pi.read("etc/dhcpcd.conf") == "hostname\n", "masked: it would do nothing"
    assert "reboot" not in pi.read(f"{STATE}/todo").split()
