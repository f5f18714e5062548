"""Wifi names and keys as supplicants and NetworkManager want them written."""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache

from imagebuilder.errors import SettingsError
from imagebuilder.model import PASSPHRASE_BYTES, SSID_BYTES
from imagebuilder.plan.boot_texts import check_line


def check_ssid(ssid: str) -> str:
    """Return the SSID back if it is 1 to 32 bytes (IEEE 802.11) on one line."""
    size = len(ssid.encode())
    if size not in SSID_BYTES:
        raise SettingsError(
            f"the SSID {ssid!r} takes {size} bytes; 1 to {SSID_BYTES[-1]} are possible",
            "letters beyond ASCII take 2 to 4 bytes each",
        )
    return check_line(ssid)


@lru_cache(maxsize=256)
def hash_psk(passphrase: str, ssid: str) -> str:
    """Derive the 64 lower-case hex digits of a WPA pre-shared key (IEEE 802.11i, H.4.1)."""
    secret = check_line(passphrase).encode()
    if len(secret) not in PASSPHRASE_BYTES:
        raise SettingsError(
            f"the passphrase of {ssid!r} has {len(secret)} bytes; WPA takes 8 to 63",
            "64 hex digits are a key already: give them as `psk`",
        )
    return hashlib.pbkdf2_hmac("sha1", secret, ssid.encode(), 4096, 32).hex()


def wpa_ssid(ssid: str) -> str:
    """Write an SSID for wpa_supplicant.conf: quoted where plain, else as hex."""
    plain = re.fullmatch(r"[A-Za-z0-9_.-](?:[A-Za-z0-9_. -]*[A-Za-z0-9_.-])?", check_ssid(ssid))
    return f'"{ssid}"' if plain else ssid.encode().hex()


def nm_ssid(ssid: str) -> str:
    """Write an SSID for a NetworkManager keyfile: as text where plain, else as byte numbers."""
    if re.fullmatch(r"[A-Za-z_.-](?:[A-Za-z0-9_. -]*[A-Za-z0-9_.-])?", check_ssid(ssid)):
        return ssid
    return "".join(f"{byte};" for byte in ssid.encode())
