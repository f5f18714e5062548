"""The types of values in settings documents, with their checks.

Values for a line that a shell splits (/etc/default/docker) must not contain spaces, and values for
one line of a file no newlines; what a file format cannot store is an error here already.
"""

from __future__ import annotations

import base64
import binascii
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, ValidationInfo

from imagebuilder.errors import WARNINGS
from imagebuilder.model import HOSTNAME, LARGEST_IMAGE_BYTES, RESERVED_VARIABLES, SSID_BYTES
from imagebuilder.plan.vendor.boards import WORDS
from imagebuilder.settings.schema.addresses import (
    consul,
    host_port,
    ip_address,
    ip_interface,
    ip_network,
    ip_range,
    mac,
    mirror,
    port,
    proxy,
    url,
)
from imagebuilder.settings.schema.diagnostics import did_you_mean, invalid
from imagebuilder.settings.schema.json_schema import SCALAR, Pattern, SchemaKeywords, scalar_pattern

if TYPE_CHECKING:
    from collections.abc import ItemsView, Mapping

USER_BYTES = 32

# Budget: entries of a list or mapping in a section.
MOST_ITEMS = 1_000
_DRIVERS = "default aufs btrfs devicemapper fuse-overlayfs overlay overlay2 overlayfs vfs zfs"
STORAGE_DRIVERS = frozenset(_DRIVERS.split())
RESERVED_LABELS = r"(?:com\.docker|io\.docker|org\.dockerproject)\."
LOCALE = re.compile(r"(?:C|POSIX|[a-z]{2,3}(?:_[A-Z]{2})?)(?:\.[A-Za-z0-9-]+)?(?:@[a-z]+)?")
TIMEZONE = re.compile(r"[A-Z][A-Za-z0-9_+-]*(?:/[A-Za-z0-9_+-]+){0,2}")

# [host[:port]/]path[:tag][@digest] (distribution/reference, reference.go).
IMAGE_REFERENCE = re.compile(
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::\d{1,5})?/)?"
    r"[a-z0-9]+(?:[._/-]+[a-z0-9]+)*(?::\w[\w.-]{0,127})?(?:@sha256:[0-9a-f]{64})?"
)

# ISO 3166-1 alpha-2, officially assigned.
_COUNTRIES = """
AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT
BV BW BY BZ CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH
ER ES ET FI FJ FK FM FO FR GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT
HU ID IE IL IM IN IO IQ IR IS IT JE JM JO JP KE KG KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS
LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO MP MQ MR MS MT MU MV MW MX MY MZ NA NC NE NF NG NI
NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW PY QA RE RO RS RU RW SA SB SC SD SE SG
SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF TG TH TJ TK TL TM TN TO TR TT TV TW TZ UA UG
UM US UY UZ VA VC VE VG VI VN VU WF WS YE YT ZA ZM ZW
"""
COUNTRIES = frozenset(_COUNTRIES.split())


def uncrowded(section: Mapping[str, object]) -> ItemsView[str, object]:
    """Return the items; raise an error for too many values in one: each node has them all."""
    for name, value in section.items():
        if name != "nodes" and isinstance(value, list | dict) and len(value) > MOST_ITEMS:
            raise invalid(f"`{name}` has more than {MOST_ITEMS} entries", "remove some")
    return section.items()


def one_line(value: str) -> str:
    """Raise an error if the value cannot be written on one line of UTF-8."""
    if any(ord(letter) < ord(" ") or letter == "\x7f" for letter in value):
        raise invalid("the value has a newline or control character", "write it on one line")
    if any("\ud800" <= letter <= "\udfff" for letter in value):
        raise invalid("the value is not valid text", "save the file as UTF-8")
    return value


def hostname(value: str) -> str:
    """Check a hostname: an RFC 1123 label in lower case."""
    if value == "localhost":
        raise invalid("`localhost` is reserved", "use another name, for example `pi-01`")
    if HOSTNAME.fullmatch(value):
        return value
    better = re.sub(r"[^a-z0-9]+", "-", value.lower()).strip("-")[:63].strip("-")
    raise invalid(
        f"`{value}` is not a hostname: 1 to 63 of a-z, 0-9 and `-`, no `-` at either end",
        f"use `{better}`" if better else "use a name like `pi-01`",
    )


def ssid(value: str) -> str:
    """Check the length of an SSID in bytes (IEEE 802.11)."""
    size = len(value.encode())
    if size not in SSID_BYTES:
        raise invalid(
            f"the SSID has {size} bytes in UTF-8, not 1 to {SSID_BYTES[-1]}",
            "shorten it: characters outside ASCII take 2 to 4 bytes",
        )
    return value


def country(value: str) -> str:
    """Check an ISO 3166-1 code; return it in upper case."""
    code = value.upper()
    if code in COUNTRIES:
        return code
    hint = "use GB" if code == "UK" else "use two letters of ISO 3166-1, for example FR or US"
    raise invalid(f"`{value}` is not a country code", hint)


def storage_driver(value: str) -> str:
    """Check the name of a storage driver of dockerd; `default` lets dockerd choose."""
    if value not in STORAGE_DRIVERS:
        raise invalid(f"no storage driver `{value}`", did_you_mean(value, STORAGE_DRIVERS))
    return value


def board_word(value: str) -> str:
    """Check the word of a board."""
    if value not in WORDS:
        raise invalid(f"no board `{value}`", did_you_mean(value, WORDS))
    return value


def warning_word(value: str) -> str:
    """Check the word of a warning."""
    if value not in WARNINGS:
        raise invalid(f"no warning `{value}`", did_you_mean(value, WARNINGS))
    return value


def serial(value: str) -> str:
    """Check a Pi's serial number, as in /proc/cpuinfo; return it with 16 digits."""
    digits = value.lower().removeprefix("0x")
    if not re.fullmatch(r"[0-9a-f]{8,16}", digits):
        raise invalid(f"`{value}` is not a serial number", "copy it from /proc/cpuinfo")
    return digits.zfill(16)


def public_key(value: str) -> str:
    """Check one line of an authorized_keys file by decoding its blob."""
    if "PRIVATE KEY" in value:
        raise invalid("this is a private key", "use the public key, which ends in .pub")
    if len(value.strip().splitlines()) > 1:
        raise invalid("these are several lines", "use one entry for each key, or {file: PATH}")
    words = value.split()
    at = next((i for i, word in enumerate(words) if re.match(r"(ssh|ecdsa|sk)-", word)), None)
    if at is None or at + 1 >= len(words):
        raise invalid("this is not an SSH public key", "for example `ssh-ed25519 AAAA… name`")
    if not _blob_names(words[at + 1], words[at]):
        raise invalid("this SSH public key is damaged", "copy the whole line of the .pub file")
    return value.strip()


def _blob_names(blob: str, kind: str) -> bool:
    try:
        parts = _blob_parts(base64.b64decode(blob, validate=True))
    except (binascii.Error, ValueError):
        return False
    return len(parts) > 1 and parts[0] == kind.encode()


def _blob_parts(raw: bytes) -> list[bytes]:
    """Return the strings of a key (RFC 4251, 5). Raise ValueError if one is incomplete."""
    parts, at = [], 0
    while at < len(raw):
        begin = at + 4
        at = begin + int.from_bytes(raw[at:begin], "big")
        if at > len(raw):
            raise ValueError("truncated")
        parts.append(raw[begin:at])
    return parts


def password_hash(value: str) -> str:
    """Check the format of a crypt(3) hash (crypt(5))."""
    if not re.fullmatch(r"\$(?:1|5|6|7|y|gy|2[aby])\$[!-9;-~]+", value):
        raise invalid("this is not a crypt(3) password hash", "make one with `openssl passwd -6`")
    return value


def word(value: str) -> str:
    """Check a word for a line that a shell splits."""
    if not value:
        raise invalid("the value is empty", "write a word, or remove it")
    if not re.fullmatch(_WORD, value):
        raise invalid(
            "the value has a space, quote, `$`, backquote or backslash",
            "use one plain word, for example `room-B12`",
        )
    return one_line(value)


def label_key(value: str) -> str:
    """Check the name of a Docker label."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._/-]*", value):
        raise invalid(f"`{value}` is not a label name", "use letters, digits and `.` `_` `-` `/`")
    if re.match(RESERVED_LABELS, value.lower()):
        raise invalid(f"label `{value}` is reserved: dockerd does not start with it", "rename it")
    return value


def _one_by_one(labels: Mapping[str, str]) -> Mapping[str, str]:
    for name in labels:
        label_key(name)
    return labels


def _variable_names(variables: Mapping[str, str]) -> Mapping[str, str]:
    for name in variables:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise invalid(f"`{name}` is not a variable name", "use letters, digits and `_`")
        if name in RESERVED_VARIABLES:
            raise invalid(f"the variable name `{name}` is reserved", "choose another name")
    return variables


def _against_folder(value: Any, info: ValidationInfo) -> Any:
    """Return a path relative to the folder of the file that contains it."""
    if not isinstance(value, str | Path):
        return value
    if not str(value):
        raise invalid("the path is empty", "use the path of a file or folder")
    one_line(str(value))
    context = info.context or {}
    return host_path(str(value), context.get("folder", ""), context.get("home", ""))


def host_path(text: str, folder: Path | str, home: str) -> Path:
    """Return a path relative to `folder`; `~/` is `home`."""
    if home and (text == "~" or text.startswith("~/")):
        text = home + text[1:]
    return Path(folder) / text


def _list_place(value: Any, info: ValidationInfo) -> Any:
    """Return the URL of a published list, or its path relative to the file with the setting."""
    if isinstance(value, str) and re.match(r"[a-z][a-z0-9+.-]+://", value, re.IGNORECASE):
        return url(value)
    path = _against_folder(value, info)
    return str(path) if isinstance(path, Path) else path


def _as_is(value: Any) -> Any:
    return value


# Without `\"`: the regular expressions of JSON Schema (ECMA-262, u flag) allow no such escape.
_WORD = r"""[^\s"'`$\\]+"""
Text = Annotated[str, AfterValidator(one_line), SCALAR]
Word = Annotated[str, AfterValidator(word), scalar_pattern(_WORD)]

# The message does not show the value, which may be the secret itself.
VariableName = Annotated[
    str,
    Pattern(
        r"[A-Za-z_][A-Za-z0-9_]*",
        "env needs the name of an environment variable",
        "use the name without $, for example {env: CLASS_WIFI}",
    ),
]

# The patterns for editors allow ranges, which are expanded before the checks.
Hostname = Annotated[
    str, AfterValidator(hostname), scalar_pattern(r"[a-z0-9\[](?:[a-z0-9\[\],-]*[a-z0-9\]])?")
]
Interface = Annotated[
    str,
    AfterValidator(ip_interface),
    SchemaKeywords({"pattern": r"^[0-9A-Fa-f:.\[\],/-]+(?:%\S+)?$"}),
]
Mac = Annotated[str, AfterValidator(mac), scalar_pattern(r"[0-9A-Fa-f:.\[\],-]+")]
Serial = Annotated[str, AfterValidator(serial), scalar_pattern(r"(?:0[xX])?[0-9A-Fa-f\[\],-]+")]
Ssid = Annotated[Text, AfterValidator(ssid)]
Country = Annotated[str, AfterValidator(country)]
Address = Annotated[str, AfterValidator(ip_address)]
Subnet = Annotated[str, AfterValidator(ip_network)]
AddressRange = Annotated[str, AfterValidator(ip_range)]
Port = Annotated[int, AfterValidator(port)]
HostPort = Annotated[str, AfterValidator(host_port)]
Url = Annotated[str, AfterValidator(url)]
Mirror = Annotated[str, AfterValidator(mirror)]
BoardWord = Annotated[str, AfterValidator(board_word), SchemaKeywords({"enum": [*WORDS]})]
WarningWord = Annotated[str, AfterValidator(warning_word), SchemaKeywords({"enum": [*WARNINGS]})]
StorageDriver = Annotated[str, AfterValidator(storage_driver)]
ConsulAddress = Annotated[str, AfterValidator(consul)]
Proxy = Annotated[str, AfterValidator(proxy)]
PasswordHash = Annotated[str, AfterValidator(password_hash)]
Labels = Annotated[dict[str, Word], AfterValidator(_one_by_one)]
Variables = Annotated[dict[str, Text], AfterValidator(_variable_names)]
Question = Annotated[Text, BeforeValidator(_as_is, json_schema_input_type=str | bool)]
ListPlace = Annotated[str, BeforeValidator(_list_place, json_schema_input_type=str)]
HostPath = Annotated[Path, BeforeValidator(_against_folder, json_schema_input_type=str)]
Sha256 = Annotated[
    str,
    StringConstraints(to_lower=True, strip_whitespace=True),
    Pattern(r"[0-9a-f]{64}", "a SHA-256 has 64 hex digits", "see `sha256sum FILE`"),
    scalar_pattern(r"\s*[0-9A-Fa-f]{64}\s*"),
]
Slug = Annotated[
    str,
    Pattern(
        r"[A-Za-z0-9][A-Za-z0-9._-]*", "not a plain name", "use letters, digits, `.`, `_`, `-`"
    ),
    SCALAR,
]
UserName = Annotated[
    str,
    Pattern(
        rf"[a-z][a-z0-9-]{{0,{USER_BYTES - 1}}}",
        f"not a user name: 1 to {USER_BYTES} of a-z, 0-9 and `-`, a letter first",
        "for example `pirate`",
    ),
]
Group = Annotated[
    str, Pattern(r"[a-z_][a-z0-9_-]{0,31}", "not a group name", "for example `docker` or `video`")
]
ImageReference = Annotated[
    str,
    Pattern(
        IMAGE_REFERENCE.pattern,
        "not a container image",
        "for example dduportal/arm-consul:0.5.0",
    ),
]
Locale = Annotated[str, Pattern(LOCALE.pattern, "not a locale", "for example fr_FR.UTF-8")]
Timezone = Annotated[str, Pattern(TIMEZONE.pattern, "not a time zone", "for example Europe/Paris")]
Keyboard = Annotated[
    str,
    Pattern(r"[a-z]{2,12}(?:,[a-z]{2,12})*", "not a keyboard layout", "for example fr, gb or us"),
]
NetworkDevice = Annotated[
    str, Pattern(r"[A-Za-z0-9][A-Za-z0-9._-]{0,14}", "not a network interface", "for example eth0")
]
NtpServer = Annotated[
    str,
    Pattern(
        r"(?:[A-Za-z0-9](?:[A-Za-z0-9.:-]*[A-Za-z0-9])?)?",
        "not a hostname or address",
        "for example pool.ntp.org or 192.168.2.1",
    ),
]
KeyValuePath = Annotated[
    str, Pattern(r"[A-Za-z0-9._-]+(?:/[A-Za-z0-9._-]+)*", "not a consul path", "for example swarm")
]
Version = Annotated[
    str,
    Pattern(r"\d+(?:\.\d+){0,3}(?:[-.][a-z0-9]+)*", "not a version", "for example 0.5.0"),
    SCALAR,
]
PackageName = Annotated[
    str,
    # Debian Policy, 5.6.1
    Pattern(r"[a-z0-9][a-z0-9+.-]+", "not the name of a Debian package", "for example git"),
    SCALAR,
]
ImageSize = Annotated[int, Field(gt=0, le=LARGEST_IMAGE_BYTES)]
ImageName = Annotated[
    str,
    Pattern(
        r"[A-Za-z0-9][A-Za-z0-9._-]*(?:@[0-9]{4}-[0-9]{2}-[0-9]{2})?",
        "not a plain name",
        "use letters, digits, `.`, `_`, `-`, and for a published image its date: NAME@2026-06-18",
    ),
    SCALAR,
]
