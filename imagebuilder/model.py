"""The frozen values that the rooms pass to each other."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pathlib import Path

MOST_ADDRESSES = 256  # addresses of a DHCP range, in a certificate

# 256 GiB, more than usual cards: a larger image is a decompression bomb.
LARGEST_IMAGE_BYTES = 1 << 38

# The unit of partition tables on cards; devices with larger sectors are refused.
SECTOR_BYTES = 512

# RFC 1123, in lower case; no file format or shell changes it.
HOSTNAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")

# IEEE 802.11: an SSID of 1 to 32 bytes, a passphrase of 8 to 63 or a key of 256 bits.
SSID_BYTES = range(1, 33)
PASSPHRASE_BYTES = range(8, 64)
PSK = re.compile(r"[0-9a-f]{64}")

# Registered with IANA for the Docker API: plain text, and over TLS.
DOCKER_PORT = 2375
DOCKER_TLS_PORT = 2376


class Secret:
    """A string that `repr` and `str` hide; equal and hashable by value."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the text; only for what is written to a card."""
        return self._text

    def __repr__(self) -> str:
        return "Secret(***)"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(("Secret", self._text))


@dataclass(frozen=True, slots=True)
class BaseImage:
    """An unpacked, read-only raw image in the cache (or the user's own raw file)."""

    path: Path
    sha256: str
    size_bytes: int
    name: str
    source_sha256: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RootSystem:
    """What the root of an image says of its system; empty where it does not say it.

    `arch` is Debian's word for its packages (armhf, arm64), `os_id` and `codename` are those of
    os-release. `docker` is the version of the installed Docker, empty if none is installed.
    """

    arch: str = ""
    os_id: str = ""
    codename: str = ""
    docker: str = ""


@dataclass(frozen=True, slots=True)
class ImageSource:
    """Where a base image comes from; one of `url` and `file` is set.

    `sha256` is of the download (the zip), `raw_sha256` of the unpacked image if the publisher
    states it. `checksum_url` is a checksum file; None means "<url>.sha256". `machines` are the
    `uname -m` values it boots on, empty if unknown. `init_format` is how the publisher says
    that it takes settings. `hint` is shown if it cannot be fetched. With `allow_http` a redirect
    from https to http is followed.
    """

    name: str
    url: str = ""
    file: Path | None = None
    sha256: str = ""
    raw_sha256: str = ""
    raw_size_bytes: int | None = None
    checksum_url: str | None = None
    generation: str | None = None
    unchecked: bool = False
    machines: tuple[str, ...] = ()
    init_format: str = ""
    hint: str = ""
    allow_http: bool = False


@dataclass(frozen=True, slots=True)
class BootEdit:
    """One file of the boot partition: new content, or None to remove it; '/'-separated path."""

    path: str
    data: bytes | None = field(repr=False)  # may hold secrets


@dataclass(frozen=True, slots=True)
class OverlayFile:
    """A file to put on the boot partition; `*.j2` files are rendered and lose the suffix.

    If `secrets` is set, its template may use passphrases, keys and password hashes.
    """

    path: str
    data: bytes = field(repr=False)
    origin: str
    secrets: bool = False


# ---- nodes


WifiSecurity = Literal["open", "wpa2", "wpa3", "wpa2+wpa3"]


@dataclass(frozen=True, slots=True)
class WifiNetwork:
    """An SSID (1 to 32 bytes of UTF-8) and its passphrase or 64-hex PSK; both None: open.

    Without `security`, a network with a key uses WPA2.
    """

    ssid: str
    passphrase: Secret | None = None
    psk: Secret | None = None
    hidden: bool = False
    priority: int = 0
    security: WifiSecurity | None = None

    @property
    def protocol(self) -> WifiSecurity:
        """The security as set, else `wpa2` with a key and `open` without."""
        return self.security or ("wpa2" if self.passphrase or self.psk else "open")


@dataclass(frozen=True, slots=True)
class Wifi:
    """Networks in order of preference, and the ISO 3166 country of the radio rules."""

    country: str = ""
    networks: tuple[WifiNetwork, ...] = ()


@dataclass(frozen=True, slots=True)
class Network:
    """Wired addressing; `address` is CIDR (192.168.2.101/24), empty meaning DHCP."""

    interface: str = "eth0"
    address: str = ""
    gateway: str = ""
    dns: tuple[str, ...] = ()
    subnet: str = ""
    dhcp_range: str = ""

    @property
    def fixed_address(self) -> str:
        """The address without its prefix length; empty with DHCP."""
        return str(ipaddress.ip_interface(self.address).ip) if self.address else ""

    @property
    def addresses(self) -> tuple[str, ...]:
        """The addresses the node may have: its own, or up to 256 of the DHCP range."""
        if self.address:
            return (self.fixed_address,)
        bounds = [part.strip() for part in self.dhcp_range.replace(",", "-").split("-")]
        try:
            first, last = (ipaddress.IPv4Address(part) for part in bounds[:2])
        except ValueError:
            return ()
        if not 0 <= int(last) - int(first) < MOST_ADDRESSES:
            return ()
        return tuple(str(ipaddress.IPv4Address(n)) for n in range(int(first), int(last) + 1))


def url_host(name: str) -> str:
    """Return a name or address for a URL: IPv6 in brackets (RFC 3986, 3.2.2)."""
    return f"[{name}]" if ":" in name else name


@dataclass(frozen=True, slots=True)
class Shack:
    """The instructor's machine: the ports and the container images of its services.

    An empty `apt_image` or `ntp_image` means one built on the shack from Debian's package, an
    empty `swarm_image` one that can manage the Docker of the class (see `shack.services`).
    """

    address: str
    hostname: str = "shack"
    kind: Literal["classic", "swarm-mode"] = "classic"
    consul_port: int = 8500
    swarm_port: int = 10000
    registry_port: int = 5000
    mirror_port: int = 5001
    apt_port: int = 3142
    ntp: bool = True
    web_port: int = 8080
    services: tuple[str, ...] = ("registry", "mirror", "apt", "ntp", "web")
    consul_image: str = "consul:1.15.4"
    swarm_image: str = ""
    registry_image: str = "registry:2"
    apt_image: str = ""
    ntp_image: str = ""
    web_image: str = "nginx:1.26-alpine"

    @property
    def url_host(self) -> str:
        """The address for a URL."""
        return url_host(self.address)


@dataclass(frozen=True, slots=True)
class DockerTls:
    """PEM texts for dockerd's --tlsverify."""

    ca: str
    certificate: str
    key: Secret


@dataclass(frozen=True, slots=True)
class Docker:
    """dockerd's options, and whether it is installed: `auto` where the image has none.

    An empty `storage_driver` means that of the generation, `default` that dockerd chooses.
    """

    install: Literal["auto", "never", "always"] = "auto"
    version: str = ""
    storage_driver: str = ""
    debug: bool = True
    tcp: bool = True
    port: int = DOCKER_PORT
    labels: tuple[tuple[str, str], ...] = ()
    insecure_registries: tuple[str, ...] = ()
    registry_mirrors: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    tls: bool = False


@dataclass(frozen=True, slots=True)
class Cluster:
    """The consul and Swarm agents of a node: container images and versions.

    Without a `swarm_image` the node joins consul alone.
    """

    enabled: bool = True
    consul_image: str = "dduportal/arm-consul:0.5.0"
    consul_version: str = "0.5.0"
    consul_server: bool = False
    consul_bootstrap_expect: int = 0
    consul_encrypt: Secret | None = None
    consul_dns: bool = False
    swarm_image: str = "dduportal/arm-swarm:0.2.0"
    swarm_version: str = "0.2.0"
    swarm_path: str = "swarm"
    images: tuple[str, ...] = ()
    tarballs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class User:
    """A user account; `password_hash` is in crypt(3) format ($6$…).

    With `pending_password` there is a password, which was not read: the settings are only checked.
    """

    name: str
    password_hash: Secret | None = None
    groups: tuple[str, ...] = ()
    pending_password: bool = False


@dataclass(frozen=True, slots=True)
class HostKey:
    """An SSH host key, as OpenSSH texts, that a node keeps when its card is written again."""

    kind: str
    private: Secret
    public: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSettings:
    """All settings of one node: profile, class and node merged and validated.

    `allow` are the words of acknowledged warnings (errors.WARNINGS), `login` is the user to log in
    as, that of the settings or of the image; empty if it is not known.
    """

    hostname: str
    profile: str
    arch: str
    machines: tuple[str, ...]
    image: ImageSource
    generation: str | None = None
    shack: Shack | None = None
    wifi: Wifi = field(default_factory=Wifi)
    network: Network = field(default_factory=Network)
    docker: Docker = field(default_factory=Docker)
    cluster: Cluster = field(default_factory=Cluster)
    user: User | None = None
    keep_vendor_login: bool = False
    ssh_keys: tuple[str, ...] = ()
    keep_host_keys: bool = False
    host_keys: tuple[HostKey, ...] = ()
    docker_tls: DockerTls | None = None
    consul_token: Secret | None = None
    timezone: str = ""
    keyboard: str = ""
    locale: str = ""
    packages: tuple[str, ...] = ()
    apt_proxy: str = ""
    ntp_server: str = ""
    upgrade: bool = False
    overlays: tuple[Path, ...] = ()
    variables: tuple[tuple[str, str], ...] = ()
    board: str = ""
    login: str = ""
    allow: tuple[str, ...] = ()
    serial: str = ""
    mac: str = ""
    seat: str = ""
    owner: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Classroom:
    """One resolved classroom file: its nodes in roster order and what they share.

    `ledger_consul` is the URL of the consul with the claims of several stations; often empty.
    """

    name: str
    path: Path
    nodes: tuple[NodeSettings, ...]
    shack: Shack | None = None
    secrets: Path
    ledger_consul: str = ""

    @property
    def has_keys(self) -> bool:
        """Whether a node gets keys that are made for the class."""
        nodes = any(node.keep_host_keys or node.docker.tls for node in self.nodes)
        return nodes or bool(self.ledger_consul)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodePlan:
    """The files to write to the boot partition of one node.

    `packages` are those that the Pi installs at its first boot.
    `config_hash` is the SHA-256 (hex) of the rendered configuration without the build time;
    `cmdline` the file from which the firmware reads the command line, `reach` how the card is
    reached, in one line.
    """

    hostname: str
    generation: str
    config_hash: str
    edits: tuple[BootEdit, ...]
    cmdline: str
    warnings: tuple[str, ...] = ()
    reach: str = ""
    packages: tuple[str, ...] = ()


# Names that every template has; a user's variables must not hide them.
_RESERVED = """
node fact config_hash build_time vars networks user_password_hash consul_encrypt consul_token
host_keys tls boot_yaml boot_network take_text
"""
RESERVED_VARIABLES = frozenset(_RESERVED.split())
_UNKNOWN_VERSION = (99, 0, 0)


def image_version(image: str) -> tuple[int, int, int]:
    """Return the version in an image's tag; missing parts (`2`, `latest`) count as newest."""
    found = re.search(r":v?(\d+)\.(\d+)(?:\.(\d+))?[^/]*$", image)
    return (int(found[1]), int(found[2]), int(found[3] or 99)) if found else _UNKNOWN_VERSION
