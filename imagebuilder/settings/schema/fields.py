"""The kinds of value a settings document holds, each checked once and in one place.

Values that land in a shell-split line (/etc/default/docker) or on one line of a file may hold
neither blanks nor newlines; what a format cannot carry is refused here, with the reason.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, BeforeValidator, StringConstraints, ValidationInfo

from imagebuilder.model import HOSTNAME, SSID_BYTES, TAKEN
from imagebuilder.settings.schema.diagnostics import did_you_mean, invalid
from imagebuilder.settings.schema.json_schema import SCALAR, Matched, Shape, shaped

if TYPE_CHECKING:
    from collections.abc import Mapping

LAST_PORT = 65535
USER_BYTES = 32
_DRIVERS = "default aufs btrfs devicemapper fuse-overlayfs overlay overlay2 overlayfs vfs zfs"
STORAGE_DRIVERS = frozenset(_DRIVERS.split())
RESERVED_LABELS = r"(?:com\.docker|io\.docker|org\.dockerproject)\."
LOCALE = re.compile(r"(?:C|POSIX|[a-z]{2,3}(?:_[A-Z]{2})?)(?:\.[A-Za-z0-9-]+)?(?:@[a-z]+)?")
TIMEZONE = re.compile(r"[A-Z][A-Za-z0-9_+-]*(?:/[A-Za-z0-9_+-]+){0,2}")

# Docker's reference grammar, anchored: [host[:port]/]path[:tag][@digest].
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


def one_line(value: str) -> str:
    """Refuse what would break the line it is written on."""
    if any(ord(letter) < ord(" ") or letter == "\x7f" for letter in value):
        raise invalid("a newline or control character is in the value", "write it on one line")
    if any("\ud800" <= letter <= "\udfff" for letter in value):
        raise invalid("the value is no valid text", "save the file as UTF-8")
    return value


def hostname(value: str) -> str:
    """Check an RFC 1123 label in lower case."""
    if value == "localhost":
        raise invalid("every machine calls itself `localhost`", "write another name, as `pi-01`")
    if HOSTNAME.fullmatch(value):
        return value
    better = re.sub(r"[^a-z0-9]+", "-", value.lower()).strip("-")[:63].strip("-")
    raise invalid(
        f"`{value}` is no host name: 1 to 63 of a-z, 0-9 and `-`, no `-` at either end",
        f"write `{better}`" if better else "write a name, as `pi-01`",
    )


def ssid(value: str) -> str:
    """Check the length of an SSID, which counts bytes, not letters."""
    size = len(value.encode())
    if size not in SSID_BYTES:
        raise invalid(
            f"an SSID has 1 to {SSID_BYTES[-1]} bytes, this one has {size} in UTF-8",
            "accents take two bytes each and emoji four: shorten it",
        )
    return value


def country(value: str) -> str:
    """Check an ISO 3166-1 code; lower case is taken as upper."""
    code = value.upper()
    if code in COUNTRIES:
        return code
    hint = "the United Kingdom is GB" if code == "UK" else "two letters of ISO 3166-1, as FR or US"
    raise invalid(f"`{value}` is no country code", hint)


def ip_address(value: str) -> str:
    """Check an IPv4 or IPv6 address and write it the usual way."""
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        raise invalid(f"`{value}` is no IP address", "as 192.168.2.1") from None


def ip_interface(value: str) -> str:
    """Check an address with or without prefix length, as 192.168.2.101/24."""
    try:
        ipaddress.ip_interface(value)
    except ValueError:
        raise invalid(f"`{value}` is no IP address", "as 192.168.2.101/24") from None
    return value


def ip_network(value: str) -> str:
    """Check a subnet whose host bits are zero."""
    try:
        return str(ipaddress.ip_network(value))
    except ValueError:
        try:
            better = ipaddress.ip_network(value, strict=False)
        except ValueError:
            raise invalid(f"`{value}` is no subnet", "as 192.168.2.0/24") from None
        raise invalid(f"`{value}` is an address, not a subnet", f"write {better}") from None


def ip_range(value: str) -> str:
    """Check `FIRST - LAST`, both addresses of one family, in order."""
    first, _, last = (part.strip() for part in value.partition("-"))
    try:
        ends = ipaddress.ip_address(first), ipaddress.ip_address(last)
        in_order = ends[0].version == ends[1].version and int(ends[0]) <= int(ends[1])
    except ValueError:
        in_order = False
    if not in_order:
        raise invalid(f"`{value}` is no address range", "as 192.168.2.200-192.168.2.250")
    return f"{first}-{last}"


def port(value: int) -> int:
    """Check a TCP port."""
    if not 1 <= value <= LAST_PORT:
        raise invalid(f"{value} is no port", f"1 to {LAST_PORT}")
    return value


def host_port(value: str) -> str:
    """Check HOST:PORT of a registry: no scheme, no path."""
    if "://" in value:
        raise invalid(f"`{value}` is a URL", "write HOST:PORT without a scheme")
    host, colon, number = value.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    if (
        not colon
        or not re.fullmatch(r"[0-9]{1,5}", number)
        or not re.fullmatch(r"[A-Za-z0-9.:-]+", bare)
    ):
        raise invalid(f"`{value}` is not HOST:PORT", "as 192.168.2.1:5000")
    port(int(number))
    return value


def url(value: str) -> str:
    """Check an http or https URL without blanks."""
    _url_parts(value)
    return value


def _url_parts(value: str) -> SplitResult:
    """Part a URL; the value stays unsaid: it may hold a password."""
    fault = invalid("this is no http or https URL", "as http://192.168.2.1:3142")
    if not re.fullmatch(r"https?://[^\s/\"'`$\\]+[^\s\"'`$\\]*", value):
        raise fault
    try:
        parts = urlsplit(value)
        numbered = parts.port is None or 1 <= parts.port <= LAST_PORT
    except ValueError:
        raise fault from None
    if not (parts.hostname and numbered):
        raise fault
    return parts


def mirror(value: str) -> str:
    """Check a registry mirror; dockerd starts with nothing behind host and port (ValidateMirror).

    Its `/` goes: dockerd before 1.10 refuses that, too.
    """
    parts = _url_parts(value.removesuffix("/"))
    if parts.path or "?" in value or "#" in value or "@" in parts.netloc:
        raise invalid("a mirror is a host and a port alone", "as http://192.168.2.1:5001")
    return value.removesuffix("/")


def storage_driver(value: str) -> str:
    """Check the name of a storage driver of dockerd; `default` leaves the choice to it."""
    if value not in STORAGE_DRIVERS:
        raise invalid(f"no storage driver `{value}`", did_you_mean(value, STORAGE_DRIVERS))
    return value


def proxy(value: str) -> str:
    """Check a URL, or nothing, which says: none."""
    return url(value) if value else value


def mac(value: str) -> str:
    """Check a MAC address; written as aa:bb:cc:dd:ee:ff."""
    digits = re.sub(r"[:.-]", "", value).lower()
    if not re.fullmatch(r"[0-9a-f]{12}", digits):
        raise invalid(f"`{value}` is no MAC address", "as b8:27:eb:12:34:56")
    return ":".join(digits[i : i + 2] for i in range(0, 12, 2))


def serial(value: str) -> str:
    """Check a Pi's serial number as /proc/cpuinfo shows it; short ones get leading zeros."""
    digits = value.lower().removeprefix("0x")
    if not re.fullmatch(r"[0-9a-f]{8,16}", digits):
        raise invalid(f"`{value}` is no serial number", "8 to 16 hex digits, from /proc/cpuinfo")
    return digits.zfill(16)


def public_key(value: str) -> str:
    """Check one line of an authorized_keys file by decoding its blob."""
    if "PRIVATE KEY" in value:
        raise invalid("this is a private key", "give the public one, which ends in .pub")
    if len(value.strip().splitlines()) > 1:
        raise invalid("these are several lines", "one key an entry, or {file: PATH} with all")
    words = value.split()
    at = next((i for i, word in enumerate(words) if re.match(r"(ssh|ecdsa|sk)-", word)), None)
    if at is None or at + 1 >= len(words):
        raise invalid("this is no SSH public key", "as `ssh-ed25519 AAAA… name`")
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
    """Part a key into its texts, each behind its length (RFC 4251, 5); ValueError on a rest."""
    parts, at = [], 0
    while at < len(raw):
        begin = at + 4
        at = begin + int.from_bytes(raw[at:begin], "big")
        if at > len(raw):
            raise ValueError("the blob ends in the middle")
        parts.append(raw[begin:at])
    return parts


def password_hash(value: str) -> str:
    """Check the outer form of a crypt(3) hash."""
    if not re.fullmatch(r"\$(?:1|5|6|7|y|gy|2[aby])\$[!-9;-~]+", value):
        raise invalid("this is no crypt(3) password hash", "as printed by `openssl passwd -6`")
    return value


def word(value: str) -> str:
    """Check one word of a line that a shell splits."""
    if not value:
        raise invalid("the value is empty", "write a word, or leave it out")
    if not re.fullmatch(_WORD, value):
        raise invalid(
            "blanks, quotes, `$`, backquotes and backslashes cannot stand here",
            "write one plain word, as `room-B12`",
        )
    return one_line(value)


def label_key(value: str) -> str:
    """Check a label's name."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._/-]*", value):
        raise invalid(f"`{value}` is no label name", "letters, digits and `.` `_` `-` `/`")
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
            raise invalid(f"`{name}` is no variable name", "letters, digits and `_`")
        if name in TAKEN:
            raise invalid(f"the variable `{name}` is taken", "every template has it; rename yours")
    return variables


def _against_folder(value: Any, info: ValidationInfo) -> Any:
    """Make a path absolute against the folder of the file that names it."""
    if not isinstance(value, str | Path):
        return value
    if not str(value):
        raise invalid("the path is empty", "name a file or folder")
    one_line(str(value))
    context = info.context or {}
    return host_path(str(value), context.get("folder", ""), context.get("home", ""))


def host_path(text: str, folder: Path | str, home: str) -> Path:
    """Make a path absolute against `folder`; `~/` is `home`."""
    if home and (text == "~" or text.startswith("~/")):
        text = home + text[1:]
    return Path(folder) / text


def _as_is(value: Any) -> Any:
    return value


# No `\"` in it: the regular expressions of JSON Schema know no needless escapes.
_WORD = r"""[^\s"'`$\\]+"""
Text = Annotated[str, AfterValidator(one_line), SCALAR]
Word = Annotated[str, AfterValidator(word), shaped(_WORD)]

# What stands there instead of a name may be the secret itself and stays unsaid.
VariableName = Annotated[
    str,
    Matched(
        r"[A-Za-z_][A-Za-z0-9_]*",
        "env takes the name of an environment variable",
        "the name alone, without $, as {env: CLASS_WIFI}",
    ),
]

# A roster's ranges are written out before these are checked, but an editor sees them.
Hostname = Annotated[
    str, AfterValidator(hostname), shaped(r"[a-z0-9\[](?:[a-z0-9\[\],-]*[a-z0-9\]])?")
]
Interface = Annotated[
    str, AfterValidator(ip_interface), Shape({"pattern": r"^[0-9A-Fa-f:.\[\],/-]+(?:%\S+)?$"})
]
Mac = Annotated[str, AfterValidator(mac), shaped(r"[0-9A-Fa-f:.\[\],-]+")]
Serial = Annotated[str, AfterValidator(serial), shaped(r"(?:0[xX])?[0-9A-Fa-f\[\],-]+")]
Ssid = Annotated[Text, AfterValidator(ssid)]
Country = Annotated[str, AfterValidator(country)]
Address = Annotated[str, AfterValidator(ip_address)]
Subnet = Annotated[str, AfterValidator(ip_network)]
AddressRange = Annotated[str, AfterValidator(ip_range)]
Port = Annotated[int, AfterValidator(port)]
HostPort = Annotated[str, AfterValidator(host_port)]
Url = Annotated[str, AfterValidator(url)]
Mirror = Annotated[str, AfterValidator(mirror)]
StorageDriver = Annotated[str, AfterValidator(storage_driver)]
Proxy = Annotated[str, AfterValidator(proxy)]
PasswordHash = Annotated[str, AfterValidator(password_hash)]
Labels = Annotated[dict[str, Word], AfterValidator(_one_by_one)]
Variables = Annotated[dict[str, Text], AfterValidator(_variable_names)]
Question = Annotated[Text, BeforeValidator(_as_is, json_schema_input_type=str | bool)]
HostPath = Annotated[Path, BeforeValidator(_against_folder, json_schema_input_type=str)]
Sha256 = Annotated[
    str,
    StringConstraints(to_lower=True, strip_whitespace=True),
    Matched(r"[0-9a-f]{64}", "a SHA-256 is 64 hex digits", "as printed by `sha256sum FILE`"),
    shaped(r"\s*[0-9A-Fa-f]{64}\s*"),
]
Slug = Annotated[
    str,
    Matched(r"[A-Za-z0-9][A-Za-z0-9._-]*", "no plain name", "letters, digits, `.`, `_`, `-`"),
    SCALAR,
]
UserName = Annotated[
    str,
    Matched(
        rf"[a-z][a-z0-9-]{{0,{USER_BYTES - 1}}}",
        f"a user name has 1 to {USER_BYTES} of a-z, 0-9 and `-`, a letter first",
        "as `pirate`",
    ),
]
Group = Annotated[
    str, Matched(r"[a-z_][a-z0-9_-]{0,31}", "no group name", "as `docker` or `video`")
]
ImageReference = Annotated[
    str,
    Matched(
        IMAGE_REFERENCE.pattern, "no container image", "as dduportal/arm-consul:0.5.0, lower case"
    ),
]
Locale = Annotated[str, Matched(LOCALE.pattern, "no locale", "as fr_FR.UTF-8")]
Timezone = Annotated[str, Matched(TIMEZONE.pattern, "no time zone", "as Europe/Paris")]
Keyboard = Annotated[
    str, Matched(r"[a-z]{2,12}(?:,[a-z]{2,12})*", "no keyboard layout", "as fr, gb or us")
]
NetworkDevice = Annotated[
    str, Matched(r"[A-Za-z0-9][A-Za-z0-9._-]{0,14}", "no network interface", "as eth0")
]
NtpServer = Annotated[
    str,
    Matched(
        r"(?:[A-Za-z0-9](?:[A-Za-z0-9.:-]*[A-Za-z0-9])?)?",
        "no host name or address",
        "as pool.ntp.org or 192.168.2.1",
    ),
]
KeyValuePath = Annotated[
    str, Matched(r"[A-Za-z0-9._-]+(?:/[A-Za-z0-9._-]+)*", "no consul path", "as swarm")
]
Version = Annotated[
    str, Matched(r"\d+(?:\.\d+){0,3}(?:[-.][a-z0-9]+)*", "no version", "as 0.5.0"), SCALAR
]
