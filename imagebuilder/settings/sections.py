"""From one node's merged document to the values of its sections.

Pure: whatever lies outside (files, environment, prompts) is asked of an `Outside`.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import ipaddress
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from imagebuilder.errors import SettingsError, problems_of
from imagebuilder.model import (
    DOCKER_TLS_PORT,
    PASSPHRASE_BYTES,
    PSK,
    Cluster,
    Docker,
    ImageSource,
    Network,
    Secret,
    Shack,
    User,
    Wifi,
    WifiNetwork,
    image_version,
)
from imagebuilder.settings.merge import Layer, given, said_at
from imagebuilder.settings.schema.diagnostics import Diagnostic, Loc
from imagebuilder.settings.schema.documents import SERVICES, NodeDocument

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from imagebuilder.settings.schema.documents import (
        ImageDocument,
        KeyDocument,
        ProfileDocument,
        SecretDocument,
        SettingsDocument,
        WifiNetworkDocument,
    )

CONSUL_KEY_BYTES = (16, 24, 32)  # memberlist, ValidateKey
_CONSUL_SHORT_KEY = (0, 5, 2)  # the last consul that stops with "key size must be 16 bytes"
_DEFAULT_CONSUL = "0.5.0"
Result = TypeVar("Result")


class ReferenceResolver(Protocol):
    """What settings ask of the world; each raises SettingsError with a fact and a hint."""

    def profile(self, name: str) -> ProfileDocument:
        """Find a profile."""

    def image(self, document: ImageDocument) -> ImageSource:
        """Find a base image."""

    def secret(self, document: SecretDocument, what: str) -> Secret | None:
        """Read a secret; None where it cannot be had and need not be (a check)."""

    def public_keys(self, path: Path) -> tuple[str, ...]:
        """Read a file of SSH public keys."""

    def generation(self, name: str, overlays: tuple[Path, ...]) -> str:
        """Make sure that there is such a generation of base images."""

    def folder(self, path: Path) -> Path:
        """Make sure that a folder is there."""

    def file(self, path: Path) -> Path:
        """Make sure that a file is there."""


@dataclass(frozen=True, slots=True)
class Node:
    """One node on its way: its layers from low to high, and their sum."""

    layers: tuple[Layer, ...]
    merged: SettingsDocument
    references: ReferenceResolver
    say: Callable[[Diagnostic], None]
    salt: str = ""

    def at(self, *loc: str | int) -> Loc:
        """Return the place of `loc` in the highest layer that sets it."""
        return said_at(self.layers, loc) or self.layers[-1].loc

    def invalid(self, loc: Loc, message: str, hint: str = "", *, severe: bool = True) -> None:
        """Note a finding at `loc` of the highest layer that sets it."""
        self.say(Diagnostic(self.at(*loc), message, hint, severe))

    def attempt(self, loc: Loc, ask: Callable[[], Result]) -> Result | None:
        """Ask the outside; what it refuses becomes a finding."""
        try:
            return ask()
        except SettingsError as error:
            for problem in problems_of(error):
                self.invalid(loc, str(problem), problem.hint)
            return None

    def secret(self, document: SecretDocument, what: str, loc: Loc) -> Secret | None:
        """Read a secret; an inline one is allowed and spoken of."""
        if document.inline is not None:
            hint = "give {file: …}, {env: …} or {prompt: true}"
            self.invalid(loc, f"the {what} stands in the file", hint, severe=False)
            return Secret(document.inline.get_secret_value())
        try:
            found = self.references.secret(document, what)
        except SettingsError as error:
            for problem in problems_of(error):
                self.invalid(loc, str(problem), problem.hint)
            return None
        if found is None and document.env:
            message = f"${document.env} is not set here: {what} unchecked"
            self.invalid(loc, message, "set it before building", severe=False)
        return found


# ---- the shack and what nodes are pointed at


def shack_of(merged: SettingsDocument) -> Shack | None:
    """Return the shack, None where no address is set."""
    document = merged.shack
    if document is None or not document.address:
        return None
    ports = {f"{name}_port": port for name, port in given(document.ports).items()}
    images = {f"{name}_image": image for name, image in given(document.images).items()}
    services = SERVICES if document.services is None else document.services
    plain = given(document, "address", "hostname", "kind")
    return Shack(**plain, **ports, **images, services=services, ntp="ntp" in services)


def docker_of(node: Node, shack: Shack | None) -> Docker:
    """Return dockerd's options; registry and mirror are the shack's unless they are said."""
    document = node.merged.docker
    values = given(document)
    if values.get("tls"):
        values.setdefault("port", DOCKER_TLS_PORT)
    if shack and "registry" in shack.services:
        values.setdefault("insecure_registries", (f"{shack.url_host}:{shack.registry_port}",))
    if shack and "mirror" in shack.services:
        mirror = f"http://{shack.url_host}:{shack.mirror_port}"
        values.setdefault("registry_mirrors", (mirror,))
    values["labels"] = tuple(sorted(values.get("labels", {}).items()))
    return Docker(**values)


def apt_proxy_of(merged: SettingsDocument, shack: Shack | None) -> str:
    """Return the apt proxy: said, else the shack's, else none."""
    if merged.apt_proxy is not None or shack is None or "apt" not in shack.services:
        return merged.apt_proxy or ""
    return f"http://{shack.url_host}:{shack.apt_port}"


def ntp_server_of(merged: SettingsDocument, shack: Shack | None) -> str:
    """Return the time server: said, else the shack, else none."""
    if merged.ntp_server is not None or shack is None or not shack.ntp:
        return merged.ntp_server or ""
    return shack.address


def cluster_of(node: Node, shack: Shack | None) -> Cluster:
    """Return the cluster agents; on where there is a shack to join."""
    document = node.merged.cluster
    values = given(document, "enabled", "images")
    values.setdefault("enabled", shack is not None)
    if values["enabled"] and shack is None:
        hint = "add `shack: {address: …}` or say `enabled: false`"
        node.invalid(("cluster", "enabled"), "a cluster without a shack to join", hint)
    files = document.tarballs or () if document else ()
    loc = ("cluster", "tarballs")
    kept = (node.attempt(loc, functools.partial(node.references.file, path)) for path in files)
    values["tarballs"] = tuple(str(path) for path in kept if path)
    return Cluster(**values, **_consul(node, shack), **_swarm(node))


def _consul(node: Node, shack: Shack | None) -> dict[str, Any]:
    document = node.merged.cluster.consul if node.merged.cluster else None
    values = given(document, "image", "version", "server", "bootstrap_expect", "dns")
    _version_of_tag(values)
    if document and document.encrypt:
        loc = ("cluster", "consul", "encrypt")
        values["encrypt"] = found = node.secret(document.encrypt, "consul key", loc)
        consuls = [f"consul:{values.get('version', _DEFAULT_CONSUL)}"]
        consuls += [shack.consul_image] if shack else []
        if found and (fault := consul_key_fault(found, consuls)):
            node.invalid(loc, fault, "`head -c16 /dev/urandom | base64` makes one")
    return {f"consul_{name}": value for name, value in values.items()}


def consul_key_fault(key: Secret, consuls: Iterable[str]) -> str:
    """Say what keeps one of these images of consul from starting with a key; empty for nothing."""
    try:
        size = len(base64.b64decode(key.reveal(), validate=True))
    except ValueError:
        return "the consul key is not base64"
    if size not in CONSUL_KEY_BYTES:
        return f"the consul key has {size} bytes; consul takes 16, 24 or 32, as base64"
    old = [consul for consul in consuls if image_version(consul) <= _CONSUL_SHORT_KEY]
    if size != CONSUL_KEY_BYTES[0] and old:
        return f"the consul key has {size} bytes; `{old[0]}` takes 16, as base64"
    return ""


def _swarm(node: Node) -> dict[str, Any]:
    values = given(node.merged.cluster.swarm if node.merged.cluster else None)
    _version_of_tag(values)
    return {f"swarm_{name}": value for name, value in values.items()}


def _version_of_tag(values: dict[str, Any]) -> None:
    """Take the version from the image's tag where it is not said: flags differ by version."""
    tag = re.search(r":v?(\d+(?:\.\d+)+)[^:/]*$", values.get("image", ""))
    if tag:
        values.setdefault("version", tag[1])


# ---- wifi


def wifi_of(node: Node) -> Wifi:
    """Return the networks in order of preference."""
    document = node.merged.wifi
    if document is None:
        return Wifi()
    networks = (
        _network(node, network, index) for index, network in enumerate(document.networks or ())
    )
    return Wifi(document.country or "", tuple(networks))


def _network(node: Node, document: WifiNetworkDocument, index: int) -> WifiNetwork:
    values = given(document, "ssid", "hidden", "priority")
    if document.passphrase is None:
        return WifiNetwork(**values)
    loc = ("wifi", "networks", index, "passphrase")
    found = node.secret(document.passphrase, f"passphrase of wifi `{document.ssid}`", loc)
    if found is None:
        return WifiNetwork(**values)
    if PSK.fullmatch(key := found.reveal().lower()):
        return WifiNetwork(**values, psk=Secret(key))
    fault = passphrase_fault(found)
    if fault:
        node.invalid(loc, fault, "8 to 63 letters, or the 64 hex digits of a PSK")
    return WifiNetwork(**values, passphrase=found)


def passphrase_fault(passphrase: Secret) -> str:
    """Say what keeps a text from being a WPA passphrase; empty where nothing does."""
    text = passphrase.reveal()
    if any(ord(letter) < ord(" ") or letter == "\x7f" for letter in text):
        return "the passphrase holds a newline or control character"
    size = len(text.encode(errors="surrogatepass"))
    if size not in PASSPHRASE_BYTES:
        return f"the passphrase has {size} bytes; WPA takes 8 to 63"
    return ""


# ---- wired network


def network_of(node: Node) -> Network:
    """Return the wired addressing, the address with its prefix length."""
    values = given(node.merged.network)
    subnet = ipaddress.ip_network(values["subnet"]) if "subnet" in values else None
    if "address" in values:
        values["address"] = _with_prefix(node, values["address"], subnet)
    return Network(**values)


def _with_prefix(
    node: Node, address: str, subnet: ipaddress.IPv4Network | ipaddress.IPv6Network | None
) -> str:
    if "/" in address:
        return str(ipaddress.ip_interface(address))
    plain = ipaddress.ip_address(address)
    if subnet is not None and subnet.version == plain.version:
        return f"{plain}/{subnet.prefixlen}"
    # Nobody says the prefix in a roster; a classroom's router hands out a /24.
    prefix = 24 if plain.version == 4 else 64  # noqa: PLR2004 - IPv4
    hint = "say it: `network: {subnet: 192.168.2.0/24}`"
    node.say(
        Diagnostic(
            ("nodes",), f"no prefix length for addresses: taking /{prefix}", hint, severe=False
        )
    )
    return f"{plain}/{prefix}"


# ---- people


def user_of(node: Node) -> User | None:
    """Return the login, its password hashed."""
    document = node.merged.user
    if document is None:
        return None
    hashed = Secret(document.password_hash) if document.password_hash else None
    if document.password:
        plain = node.secret(document.password, "password", ("user", "password"))
        hashed = _hash(node, document.name or "", plain) if plain else None
    if document.name is None:
        node.invalid(("user",), "a user needs a name", "add `name:`")
        return None
    return User(document.name, hashed, document.groups or ())


def _hash(node: Node, user: str, password: Secret) -> Secret | None:
    text = password.reveal()
    if not text or "\n" in text or "\x00" in text:
        node.invalid(("user", "password"), "a password is one line and not empty")
        return None
    return hash_password(password, f"{node.salt}\0{user}")


@functools.lru_cache(maxsize=256)
def hash_password(password: Secret, context: str) -> Secret:
    """Hash by sha512-crypt; the same password and context give the same hash.

    The salt comes from the context alone: one made from the password would be a fast hash of it,
    printed beside the slow one.
    """
    # Only passwords pay for the import.
    from passlib.hash import sha512_crypt  # noqa: PLC0415

    salt = hashlib.sha256(b"rpi-image salt\0" + context.encode()).hexdigest()[:16]
    return Secret(str(sha512_crypt.using(salt=salt, rounds=5000).hash(password.reveal())))


def ssh_keys_of(node: Node) -> tuple[str, ...]:
    """Return the public keys, each once, in order."""
    found = (_keys(node, key, index) for index, key in enumerate(node.merged.ssh_keys or ()))
    return tuple(dict.fromkeys(line for lines in found for line in lines))


def _keys(node: Node, key: KeyDocument, index: int) -> tuple[str, ...]:
    if key.text is not None:
        return (key.text,)
    path = key.file
    if path is None:
        return ()
    return node.attempt(("ssh_keys", index), lambda: node.references.public_keys(path)) or ()


def overlays_of(node: Node) -> tuple[Path, ...]:
    """Return the user's overlay folders, low to high."""
    asked = (
        node.attempt(("overlays", i), functools.partial(node.references.folder, path))
        for i, path in enumerate(node.merged.overlays or ())
    )
    return tuple(path for path in asked if path)


def generation_of(node: Node, image: ImageSource | None, overlays: tuple[Path, ...]) -> str | None:
    """Return the generation that is said, None where the image is to be asked.

    What the catalogue says of the image has to be there as well: it counts where the image itself
    tells nothing.
    """
    name = node.merged.generation
    if not name:
        if image and (named := image.generation):
            node.attempt(("image",), lambda: node.references.generation(named, overlays))
        return None
    return node.attempt(("generation",), lambda: node.references.generation(name, overlays))


def roster_facts(documents: tuple[NodeDocument | None, ...]) -> dict[str, str]:
    """Return serial, mac, seat and owner; later documents win."""
    facts: dict[str, str] = {}
    for document in documents:
        facts |= given(document, "serial", "mac", "seat", "owner")
    return facts
