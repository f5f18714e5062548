"""SSIDs and keys in the formats of wpa_supplicant and NetworkManager."""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache

from imagebuilder.errors import SettingsError
from imagebuilder.model import PASSPHRASE_BYTES, SSID_BYTES
from imagebuilder.plan.boot_texts import check_line, split_lines

_COUNTRY = re.compile(r"country=[A-Z]{2}")


def check_ssid(ssid: str) -> str:
    """Return `ssid` unchanged. Raise SettingsError if it is not 1 to 32 bytes (IEEE 802.11)."""
    size = len(ssid.encode())
    if size not in SSID_BYTES:
        raise SettingsError(
            f"the SSID {ssid!r} has {size} bytes, not 1 to {SSID_BYTES[-1]}",
            "shorten it: characters outside ASCII take 2 to 4 bytes",
        )
    return check_line(ssid)


@lru_cache(maxsize=256)
def hash_psk(passphrase: str, ssid: str) -> str:
    """Return the WPA pre-shared key as 64 lower-case hex digits (IEEE 802.11i, H.4.1).

    Raise SettingsError if the passphrase does not have 8 to 63 bytes.
    """
    secret = check_line(passphrase).encode()
    if len(secret) not in PASSPHRASE_BYTES:
        raise SettingsError(
            f"the passphrase of {ssid!r} has {len(secret)} bytes, not 8 to 63",
            "use `psk` for a key of 64 hex digits",
        )
    return hashlib.pbkdf2_hmac("sha1", secret, ssid.encode(), 4096, 32).hex()


def wpa_ssid(ssid: str) -> str:
    """Return an SSID for wpa_supplicant.conf: quoted if plain, else as hex digits.

    Only the hex form is safe for quotes, `#` and bytes outside ASCII (wpa_config_parse_string).
    """
    plain = re.fullmatch(r"[A-Za-z0-9_.-](?:[A-Za-z0-9_. -]*[A-Za-z0-9_.-])?", check_ssid(ssid))
    return f'"{ssid}"' if plain else ssid.encode().hex()


def wpa_text(value: str) -> str:
    """Return a passphrase for wpa_supplicant.conf: it ends at the last quote of the line."""
    return f'"{check_line(value)}"'


def nm_text(value: str) -> str:
    """Return a text for a keyfile of GLib, which trims it and reads backslashes as escapes."""
    text = check_line(value).replace("\\", "\\\\")
    inner = text.strip(" ")
    begin = text.index(inner) if inner else len(text)
    return "\\s" * begin + inner + "\\s" * (len(text) - begin - len(inner))


def wpa_networks(text: str) -> str:
    """Return the `network={…}` blocks of a wpa_supplicant.conf, an empty line before each."""
    blocks: list[list[str]] = []
    inside = False
    for line in split_lines(text):
        if not inside and line.strip().replace(" ", "").startswith("network={"):
            blocks.append([])
            inside = True
        if inside:
            blocks[-1].append(line)
            inside = line.strip() != "}"
    return "".join("\n" + "".join(f"{line}\n" for line in block) for block in blocks)


def wpa_country(text: str) -> str:
    """Return the `country=` line of a wpa_supplicant.conf with its line end; empty without one."""
    lines = [line.strip() for line in split_lines(text)]
    return next((f"{line}\n" for line in lines if _COUNTRY.fullmatch(line)), "")


def nm_ssid(ssid: str) -> str:
    """Return an SSID for a NetworkManager keyfile: as text if plain, else as byte numbers.

    A keyfile (nm-settings-keyfile(5)) takes both; text that looks like numbers would be ambiguous.
    """
    if re.fullmatch(r"[A-Za-z_.-](?:[A-Za-z0-9_. -]*[A-Za-z0-9_.-])?", check_ssid(ssid)):
        return ssid
    return "".join(f"{byte};" for byte in ssid.encode())
