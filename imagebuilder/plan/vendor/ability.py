"""The features of the programs of an image: methods of password hashes, kinds of wifi."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from imagebuilder.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Collection

    from imagebuilder.model import Wifi, WifiNetwork

# The methods of crypt(5) by the prefix of their hashes. The glibc of Debian up to buster supports
# the first three, libxcrypt of bullseye and later all of them.
CRYPT = {
    "1": "md5crypt",
    "5": "sha256crypt",
    "6": "sha512crypt",
    "7": "scrypt",
    "y": "yescrypt",
    "gy": "gost-yescrypt",
    "2a": "bcrypt",
    "2b": "bcrypt",
    "2y": "bcrypt",
}
HASH_HINT = "make one with `openssl passwd -6`"


# The kinds of personal wifi. WPA3 needs SAE, which wpa_supplicant has since Debian 11 (bullseye).
WIFI = ("open", "wpa2", "wpa3")
WIFI_HINT = "use a newer image, or allow WPA2 in the network, too (`security: wpa2+wpa3`)"


def crypt_method(password_hash: str) -> str:
    """Return the method of a hash in the format of crypt(3); empty if it is not known."""
    found = re.match(r"\$([^$]*)\$", password_hash)
    return CRYPT.get(found[1], "") if found else ""


def password_fault(password_hash: str, methods: Collection[str]) -> str:
    """Return why an image with these methods cannot verify a hash; empty if it can."""
    method = crypt_method(password_hash)
    if not method or method in methods:
        return ""
    prefix = password_hash[: password_hash.index("$", 1) + 1]
    return f"the password hash is {method} ({prefix}), which the libc of the image cannot verify"


def check_password(user: str, password_hash: str, methods: Collection[str]) -> None:
    """Raise SettingsError if the image cannot verify this hash."""
    if fault := password_fault(password_hash, methods):
        raise SettingsError(f"user {user}: {fault}", HASH_HINT)


def wifi_fault(network: WifiNetwork, kinds: Collection[str]) -> str:
    """Return why an image that supports `kinds` cannot join a network; empty if it can."""
    if network.protocol != "wpa3" or "wpa3" in kinds:
        return ""
    return f"the network `{network.ssid}` is WPA3 only, which the image cannot join"


def joinable(wifi: Wifi, kinds: Collection[str]) -> Wifi:
    """Return the networks for an image that supports `kinds`: WPA2 if a network has both.

    Raise SettingsError if it cannot join one of them.
    """
    for network in wifi.networks:
        if fault := wifi_fault(network, kinds):
            raise SettingsError(fault, WIFI_HINT)
    if "wpa3" in kinds:
        return wifi
    networks = (
        replace(network, security="wpa2") if network.protocol == "wpa2+wpa3" else network
        for network in wifi.networks
    )
    return replace(wifi, networks=tuple(networks))
