"""Turn the merged document of one node into the values of its sections.

Pure: files, environment and prompts are accessed through a `ReferenceResolver`.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import ipaddress
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

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
from imagebuilder.plan.vendor.ability import (
    HASH_HINT,
    WIFI_HINT,
    crypt_method,
    password_fault,
    wifi_fault,
)
from imagebuilder.plan.vendor.docker import consul_today
from imagebuilder.settings.merge import SettingsSource, find_setting, given
from imagebuilder.settings.schema.diagnostics import Diagnostic, Loc, warning
from imagebuilder.settings.schema.documents import SERVICES, NodeDocument

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from imagebuilder.settings.references import References
    from imagebuilder.settings.schema.base import SecretDocument
    from imagebuilder.settings.schema.documents import (
        KeyDocument,
        SettingsDocument,
        WifiNetworkDocument,
    )

CONSUL_KEY_BYTES = (16, 24, 32)  # hashicorp/memberlist, keyring.go, ValidateKey
_CONSUL_SHORT_KEY = (0, 5, 2)  # the last consul that fails with "key size must be 16 bytes"
_DEFAULT_CONSUL = "0.5.0"
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class UnresolvedNode:
    """One node while it is resolved: its layers from low to high, and the merged document."""

    sources: tuple[SettingsSource, ...]
    merged: SettingsDocument
    references: References
    say: Callable[[Diagnostic], None]
    salt: str = ""

    def at(self, *loc: str | int) -> Loc:
        """Return the path of `loc` in the highest layer that sets it."""
        return find_setting(self.sources, loc) or self.sources[-1].loc

    def invalid(self, loc: Loc, message: str, hint: str = "") -> None:
        """Report an error at `loc` of the highest layer that sets it."""
        self.say(Diagnostic(self.at(*loc), message, hint))

    def attempt(self, loc: Loc, ask: Callable[[], Result]) -> Result | None:
        """Return the result of `ask`; report a SettingsError at `loc` and return None."""
        try:
            return ask()
        except SettingsError as error:
            for problem in problems_of(error):
                self.invalid(loc, str(problem), problem.hint)
            return None

    def secret(self, document: SecretDocument, what: str, loc: Loc) -> Secret | None:
        """Return a secret; warn if it is in the file itself. None if it cannot be read."""
        if document.inline is not None:
            hint = "use {file: …}, {env: …} or {prompt: true} instead"
            fact = f"the {what} is in the file as plain text"
            self.say(warning("plain-secret", self.at(*loc), fact, hint))
            return Secret(document.inline.get_secret_value())
        try:
            found = self.references.secret(document, what)
        except SettingsError as error:
            for problem in problems_of(error):
                self.invalid(loc, str(problem), problem.hint)
            return None
        if found is None and document.env:
            message = f"${document.env} is not set: the {what} was not checked"
            self.say(warning("unset-secret", self.at(*loc), message, "set it before building"))
        return found


# ---- the shack and the services that nodes use


def shack_of(merged: SettingsDocument) -> Shack | None:
    """Return the shack; None if it has no address."""
    document = merged.shack
    if document is None or not document.address:
        return None
    ports = {f"{name}_port": port for name, port in given(document.ports).items()}
    images = {f"{name}_image": image for name, image in given(document.images).items()}
    services = SERVICES if document.services is None else document.services
    plain = given(document, "address", "hostname", "kind")
    return Shack(**plain, **ports, **images, services=services, ntp="ntp" in services)


def docker_of(node: UnresolvedNode, shack: Shack | None, cluster: Cluster) -> Docker:
    """Return dockerd's options; registry and mirror are those of the shack unless set.

    Docker listens on TCP where that is set, with TLS, and for a swarm manager of the shack.
    """
    document = node.merged.docker
    values = given(document)
    if values.get("tls"):
        values.setdefault("port", DOCKER_TLS_PORT)
    managed = shack is not None and bool(cluster.swarm_image)
    values.setdefault("tcp", bool(values.get("tls")) or managed)
    if shack and "registry" in shack.services:
        values.setdefault("insecure_registries", (f"{shack.url_host}:{shack.registry_port}",))
    if shack and "mirror" in shack.services:
        mirror = f"http://{shack.url_host}:{shack.mirror_port}"
        values.setdefault("registry_mirrors", (mirror,))
    values["labels"] = tuple(sorted(values.get("labels", {}).items()))
    return Docker(**values)


def apt_proxy_of(merged: SettingsDocument, shack: Shack | None) -> str:
    """Return the URL of the apt proxy: as set, else that of the shack, else empty."""
    if merged.apt_proxy is not None or shack is None or "apt" not in shack.services:
        return merged.apt_proxy or ""
    return f"http://{shack.url_host}:{shack.apt_port}"


def ntp_server_of(merged: SettingsDocument, shack: Shack | None) -> str:
    """Return the time server: as set, else the shack, else empty."""
    if merged.ntp_server is not None or shack is None or not shack.ntp:
        return merged.ntp_server or ""
    return shack.address


def cluster_of(node: UnresolvedNode, shack: Shack | None, arch: str) -> Cluster:
    """Return the cluster agents; by default they are enabled if there is a shack.

    In swarm mode the agent of Swarm is Docker itself, and consul is today's.
    """
    document = node.merged.cluster
    values = given(document, "enabled", "images")
    values.setdefault("enabled", shack is not None)
    if values["enabled"] and shack is None:
        hint = "add `shack: {address: …}` or set `enabled: false`"
        node.invalid(("cluster", "enabled"), "the cluster is enabled, but there is no shack", hint)
    files = document.tarballs or () if document else ()
    loc = ("cluster", "tarballs")
    kept = (node.attempt(loc, functools.partial(node.references.file, path)) for path in files)
    values["tarballs"] = tuple(str(path) for path in kept if path)
    agents = _consul(node, shack, arch) | _swarm(node)
    if shack and shack.kind == "swarm-mode":
        agents["swarm_image"] = ""
    return Cluster(**values, **agents)


def _consul(node: UnresolvedNode, shack: Shack | None, arch: str) -> dict[str, Any]:
    document = node.merged.cluster.consul if node.merged.cluster else None
    values = given(document, "image", "version", "server", "bootstrap_expect", "dns")
    today = consul_today(values.get("image", ""), arch)
    if today and shack and shack.kind == "swarm-mode" and not _names_consul(node):
        values |= {"image": today, "version": today.rpartition(":")[2]}
    _version_of_tag(values)
    if document and document.encrypt:
        loc = ("cluster", "consul", "encrypt")
        values["encrypt"] = found = node.secret(document.encrypt, "consul key", loc)
        consuls = [f"consul:{values.get('version', _DEFAULT_CONSUL)}"]
        consuls += [shack.consul_image] if shack else []
        if found and (fault := consul_key_fault(found, consuls)):
            node.invalid(loc, fault, "make one with `head -c16 /dev/urandom | base64`")
    return {f"consul_{name}": value for name, value in values.items()}


def _names_consul(node: UnresolvedNode) -> bool:
    """Return whether the class or the node, not only its profile, names the image of consul."""
    return find_setting(node.sources, ("cluster", "consul", "image")) is not None


def consul_key_fault(key: Secret, consuls: Iterable[str]) -> str:
    """Return why one of these consul images rejects a key; empty if all accept it."""
    try:
        size = len(base64.b64decode(key.reveal(), validate=True))
    except ValueError:
        return "the consul key is not base64"
    if size not in CONSUL_KEY_BYTES:
        return f"the consul key has {size} bytes, not 16, 24 or 32"
    old = [consul for consul in consuls if image_version(consul) <= _CONSUL_SHORT_KEY]
    if size != CONSUL_KEY_BYTES[0] and old:
        return f"the consul key has {size} bytes; `{old[0]}` needs 16"
    return ""


def _swarm(node: UnresolvedNode) -> dict[str, Any]:
    values = given(node.merged.cluster.swarm if node.merged.cluster else None)
    _version_of_tag(values)
    if not values.pop("enabled", True):
        values["image"] = ""
    return {f"swarm_{name}": value for name, value in values.items()}


def _version_of_tag(values: dict[str, Any]) -> None:
    """Set the version from the tag of the image if it is missing: flags depend on it."""
    tag = re.search(r":v?(\d+(?:\.\d+)+)[^:/]*$", values.get("image", ""))
    if tag:
        values.setdefault("version", tag[1])


# ---- wifi


def wifi_of(node: UnresolvedNode) -> Wifi:
    """Return the networks in order of preference."""
    document = node.merged.wifi
    if document is None:
        return Wifi()
    networks = (
        _network(node, network, index) for index, network in enumerate(document.networks or ())
    )
    return Wifi(document.country or "", tuple(networks))


def _network(node: UnresolvedNode, document: WifiNetworkDocument, index: int) -> WifiNetwork:
    values = given(document, "ssid", "hidden", "priority", "security")
    loc = ("wifi", "networks", index, "passphrase")
    if document.passphrase is None:
        if document.security not in {None, "open"}:
            fact = f"wifi `{document.ssid}` with {document.security} needs a passphrase"
            node.invalid(loc[:-1], fact, "add `passphrase:`")
        return WifiNetwork(**values)
    if document.security == "open":
        fact = f"the open wifi `{document.ssid}` has a passphrase"
        node.invalid(loc, fact, "remove `passphrase:` or `security:`")
    found = node.secret(document.passphrase, f"passphrase of wifi `{document.ssid}`", loc)
    if found is None:
        return WifiNetwork(**values)
    if PSK.fullmatch(key := found.reveal().lower()):
        if "wpa3" in (document.security or ""):
            fact = f"a PSK of 64 hex digits cannot join `{document.ssid}` with WPA3"
            node.invalid(loc, fact, "use the passphrase itself")
        return WifiNetwork(**values, psk=Secret(key))
    fault = passphrase_fault(found)
    if fault:
        node.invalid(loc, fault, "use 8 to 63 characters, or the 64 hex digits of a PSK")
    return WifiNetwork(**values, passphrase=found)


def passphrase_fault(passphrase: Secret) -> str:
    """Return why a text is not a WPA passphrase (IEEE 802.11i, H.4.1); empty if it is."""
    text = passphrase.reveal()
    if any(ord(letter) < ord(" ") or letter == "\x7f" for letter in text):
        return "the passphrase contains a newline or control character"
    size = len(text.encode(errors="surrogatepass"))
    if size not in PASSPHRASE_BYTES:
        return f"the passphrase has {size} bytes, not 8 to 63"
    return ""


# ---- wired network


def network_of(node: UnresolvedNode) -> Network:
    """Return the wired network; its address has a prefix length."""
    values = given(node.merged.network)
    subnet = ipaddress.ip_network(values["subnet"]) if "subnet" in values else None
    if "address" in values:
        values["address"] = _with_prefix(node, values["address"], subnet)
    return Network(**values)


def _with_prefix(
    node: UnresolvedNode, address: str, subnet: ipaddress.IPv4Network | ipaddress.IPv6Network | None
) -> str:
    if "/" in address:
        return str(ipaddress.ip_interface(address))
    plain = ipaddress.ip_address(address)
    if subnet is not None and subnet.version == plain.version:
        return f"{plain}/{subnet.prefixlen}"
    # Rosters rarely have a prefix length; the router of a classroom usually uses /24.
    prefix = 24 if plain.version == 4 else 64  # noqa: PLR2004 - IPv4
    hint = "set it, for example `network: {subnet: 192.168.2.0/24}`"
    fact = f"no prefix length for addresses: using /{prefix}"
    node.say(warning("no-prefix", ("nodes",), fact, hint))
    return f"{plain}/{prefix}"


# ---- users


def user_of(node: UnresolvedNode) -> User | None:
    """Return the user with the password hashed; None if there is none."""
    document = node.merged.user
    if document is None:
        return None
    hashed = Secret(document.password_hash) if document.password_hash else None
    if document.password:
        plain = node.secret(document.password, "password", ("user", "password"))
        hashed = _hash(node, document.name or "", plain) if plain else None
    if document.name is None:
        node.invalid(("user",), "the user has no name", "add `name:`")
        return None
    pending = hashed is None and document.password is not None
    return User(document.name, hashed, document.groups or (), pending)


def _hash(node: UnresolvedNode, user: str, password: Secret) -> Secret | None:
    text = password.reveal()
    if not text or "\n" in text or "\x00" in text:
        node.invalid(("user", "password"), "the password is empty or has several lines")
        return None
    return hash_password(password, f"{node.salt}\0{user}")


@functools.lru_cache(maxsize=256)
def hash_password(password: Secret, context: str) -> Secret:
    """Return the sha512-crypt hash; equal password and context make an equal hash.

    The salt depends on the context only: a salt derived from the password would be a fast hash of
    it, stored next to the slow one.
    """
    # Imported here because it is slow and only passwords need it.
    from passlib.hash import sha512_crypt  # noqa: PLC0415

    salt = hashlib.sha256(b"rpi-image salt\0" + context.encode()).hexdigest()[:16]
    return Secret(str(sha512_crypt.using(salt=salt, rounds=5000).hash(password.reveal())))


def ssh_keys_of(node: UnresolvedNode) -> tuple[str, ...]:
    """Return the public keys, each once, in order."""
    found = (_keys(node, key, index) for index, key in enumerate(node.merged.ssh_keys or ()))
    return tuple(dict.fromkeys(line for lines in found for line in lines))


def _keys(node: UnresolvedNode, key: KeyDocument, index: int) -> tuple[str, ...]:
    if key.text is not None:
        return (key.text,)
    path = key.file
    if path is None:
        return ()
    return node.attempt(("ssh_keys", index), lambda: node.references.public_keys(path)) or ()


def overlays_of(node: UnresolvedNode) -> tuple[Path, ...]:
    """Return the user's overlay folders, from low to high priority."""
    asked = (
        node.attempt(("overlays", i), functools.partial(node.references.folder, path))
        for i, path in enumerate(node.merged.overlays or ())
    )
    return tuple(path for path in asked if path)


def generation_of(
    node: UnresolvedNode, image: ImageSource | None, overlays: tuple[Path, ...]
) -> str | None:
    """Return the generation that is set; None if it is to be detected from the image.

    The generation in the catalogue must exist as well: it is used if detection finds none.
    """
    name = node.merged.generation
    if not name:
        if image and (named := image.generation):
            node.attempt(("image",), lambda: node.references.generation(named, overlays))
        return None
    return node.attempt(("generation",), lambda: node.references.generation(name, overlays))


def check_hash(
    node: UnresolvedNode, user: User | None, generation: str | None, overlays: tuple[Path, ...]
) -> None:
    """Report a password hash that the images of a known generation cannot verify."""
    if not generation or user is None or user.password_hash is None:
        return
    if crypt_method(user.password_hash.reveal()) in {"", "sha512crypt"}:
        return
    loc = ("user", "password_hash")
    methods = node.attempt(loc, lambda: node.references.ability("crypt", generation, overlays))
    if methods and (fault := password_fault(user.password_hash.reveal(), methods)):
        node.invalid(loc, fault, HASH_HINT)


def check_wifi(
    node: UnresolvedNode, wifi: Wifi, generation: str | None, overlays: tuple[Path, ...]
) -> None:
    """Report networks that the images of a known generation cannot join."""
    needy = [index for index, net in enumerate(wifi.networks) if net.protocol == "wpa3"]
    if not generation or not needy:
        return
    loc = ("wifi", "networks", needy[0], "security")
    kinds = node.attempt(loc, lambda: node.references.ability("wifi", generation, overlays))
    if kinds and (fault := wifi_fault(wifi.networks[needy[0]], kinds)):
        node.invalid(loc, fault, WIFI_HINT)


def roster_fields(documents: tuple[NodeDocument | None, ...]) -> dict[str, Any]:
    """Return serial, mac, seat and owner; later documents override earlier ones."""
    fields: dict[str, Any] = {}
    for document in documents:
        fields |= given(document, "serial", "mac", "seat", "owner")
    return fields
