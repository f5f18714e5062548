"""Wifi without a radio: the kernel's mac80211_hwsim, access points by hostapd in the Pi itself."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Any

from tests.boot import nodes

if TYPE_CHECKING:
    from tests.boot.pi import Pi

WPA3_SSID = "newer é"
WPA3_PASSPHRASE = "staple # battery"
# One network of each kind; hidden ones take longer to find.
WIFI: dict[str, Any] = {
    "country": "FR",
    "networks": [
        *nodes.SETTINGS["wifi"]["networks"],
        {"ssid": WPA3_SSID, "passphrase": WPA3_PASSPHRASE, "security": "wpa3"},
    ],
}
AIR = "interface=wlan1\ndriver=nl80211\nhw_mode=g\nchannel=1\nwpa=2\nrsn_pairwise=CCMP\n"
JOIN_SECONDS = 240.0


def expect_joined(pi: Pi) -> None:
    """Check that the Pi joins a WPA2 and a WPA3 access point, one after the other, on its own."""
    pi.tell("modprobe mac80211_hwsim radios=2; udevadm settle")
    assert {"wlan0", "wlan1"} <= set(pi.tell("ls /sys/class/net").split())
    # As on a Pi whose radio was there from the start: the unit has given up waiting for it.
    pi.tell("systemctl restart netplan-wpa-wlan0")
    psk = nodes.psk_of(nodes.SSID, nodes.PASSPHRASE)
    _expect_network(pi, nodes.SSID, f"wpa_key_mgmt=WPA-PSK\nwpa_psk={psk}\n", "WPA2-PSK")
    sae = f"wpa_key_mgmt=SAE\nieee80211w=2\nsae_password={WPA3_PASSPHRASE}\n"
    _expect_network(pi, WPA3_SSID, sae, "SAE")


def _expect_network(pi: Pi, ssid: str, security: str, kind: str) -> None:
    text = f"{AIR}ssid2={ssid.encode().hex()}\n{security}"
    pi.tell(
        f"printf %s {shlex.quote(text)} >/run/air.conf; hostapd -B -P /run/air.pid /run/air.conf"
    )
    status = "wpa_cli -p /run/wpa_supplicant -i wlan0 status"
    said = pi.tell_until(status, rf"(?s)key_mgmt={kind}\n.*wpa_state=COMPLETED", JOIN_SECONDS)
    shown = re.findall(r"(?m)^ssid=(.*)$", said)
    # wpa_cli prints what is not ASCII as \xNN.
    assert [
        name.encode().decode("unicode_escape").encode("latin-1").decode() for name in shown
    ] == [ssid]
    pi.tell("kill $(cat /run/air.pid)")
