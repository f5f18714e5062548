"""The variables of templates: a node's settings as plain values, secrets kept apart."""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING

from imagebuilder.errors import SettingsError
from imagebuilder.model import DOCKER_PORT, DOCKER_TLS_PORT, HOSTNAME, PSK, Shack
from imagebuilder.plan.vendor.wifi import check_ssid, hash_psk

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imagebuilder.model import Docker, Network, NodeSettings, Secret, WifiNetwork

TLS_FOLDER = "/etc/docker/tls"

# The groups of a user without `groups:`; the vendors' own users are in the same ones.
DEFAULT_GROUPS = ("sudo", "docker", "video")

# A shell, a sysvinit script and systemd read the value, and each removes quotes in its own way.
_NOT_IN_OPTIONS = re.compile(r"[\s\"'\\`$\x00-\x1f\x7f]")

_COUNTRY = re.compile(r"[A-Z]{2}|00")


def docker_options(settings: NodeSettings) -> tuple[str, ...]:
    """Return dockerd's options, one word each. Raise SettingsError if one has a space or a quote.

    The order is that of the workshop's notes. `-H unix://` is always included, because sysvinit
    needs it; the installer removes it where systemd passes that socket with `-H fd://`.
    """
    words = tuple(_option_words(settings.arch, settings.docker))
    for word in words:
        if found := _NOT_IN_OPTIONS.search(word):
            raise SettingsError(
                f"the Docker option {word!r} contains {found[0]!r}",
                "remove it: init systems split DOCKER_OPTS at spaces and differ in quoting",
            )
    return words


def docker_port(docker: Docker) -> int:
    """Return dockerd's TCP port: with TLS, 2376 instead of the default."""
    return DOCKER_TLS_PORT if docker.tls and docker.port == DOCKER_PORT else docker.port


def registry_address(settings: NodeSettings) -> str:
    """Return host:port of the registry that a node pulls from first, or an empty string."""
    return next(iter(settings.docker.insecure_registries), "")


def node_variables(settings: NodeSettings, generation: str) -> dict[str, object]:
    """Return the variable `node` of all templates; nothing in it is secret."""
    return {
        "hostname": _require_match(HOSTNAME, settings.hostname, "a hostname"),
        "profile": settings.profile,
        "arch": settings.arch,
        "machines": list(settings.machines),
        "generation": generation,
        "docker": {
            "options": " ".join(docker_options(settings)),
            "install": settings.docker.install,
            "version": settings.docker.version,
            "tcp": settings.docker.tcp,
            "port": docker_port(settings.docker),
            "tls": settings.docker.tls,
            "labels": dict(settings.docker.labels),
        },
        "registry": registry_address(settings),
        "shack": _shack(settings),
        "cluster": _cluster(settings),
        "network": _network(settings.network),
        "wifi": _wifi(settings),
        "user": _user(settings),
        "keep_vendor_login": settings.keep_vendor_login,
        "ssh_keys": list(settings.ssh_keys),
        "timezone": settings.timezone,
        "keyboard": settings.keyboard,
        "locale": settings.locale,
        "packages": list(settings.packages),
        "apt_proxy": settings.apt_proxy,
        "ntp_server": settings.ntp_server,
        "upgrade": settings.upgrade,
        "serial": settings.serial,
        "mac": settings.mac,
        "seat": settings.seat,
        "owner": settings.owner,
    }


def secret_variables(settings: NodeSettings, *, plaintext: bool) -> dict[str, object]:
    """Return the secret variables, for our own templates and those of generations.

    Without `plaintext` each passphrase is replaced by its PSK. The configuration hash is made of
    that form, so that guessing a passphrase from it is as slow as from captured wifi traffic.
    """
    user, tls = settings.user, settings.docker_tls
    return {
        "networks": [
            _network_secrets(network, wifi, plaintext=plaintext)
            for network, wifi in zip(_wifi_networks(settings), settings.wifi.networks, strict=True)
        ],
        "user_password_hash": _reveal(user.password_hash if user else None),
        "consul_encrypt": _reveal(settings.cluster.consul_encrypt),
        "consul_token": _reveal(settings.consul_token),
        "host_keys": [
            {"kind": key.kind, "private": key.private.reveal(), "public": key.public}
            for key in settings.host_keys
        ],
        "tls": {"ca": tls.ca, "certificate": tls.certificate, "key": tls.key.reveal()}
        if tls
        else {"ca": "", "certificate": "", "key": ""},
    }


def _option_words(arch: str, docker: Docker) -> Iterator[str]:
    if docker.storage_driver not in ("", "default"):
        yield f"--storage-driver={docker.storage_driver}"
    if docker.debug:
        yield "-D"
    if docker.tcp:
        yield from ("-H", f"tcp://0.0.0.0:{docker_port(docker)}")
    yield from ("-H", "unix:///var/run/docker.sock")
    yield from ("--label", f"arch={arch}")
    for name, value in docker.labels:
        if name != "arch":
            yield from ("--label", f"{name}={value}")
    for registry in docker.insecure_registries:
        yield from ("--insecure-registry", registry)
    for mirror in docker.registry_mirrors:
        yield f"--registry-mirror={mirror if '://' in mirror else 'http://' + mirror}"
    if docker.tls:
        yield from ("--tlsverify", f"--tlscacert={TLS_FOLDER}/ca.pem")
        yield from (f"--tlscert={TLS_FOLDER}/cert.pem", f"--tlskey={TLS_FOLDER}/key.pem")
    yield from docker.extra


def _shack(settings: NodeSettings) -> dict[str, object]:
    shack = settings.shack or Shack(address="", hostname="")
    return {
        "address": shack.address,
        "hostname": shack.hostname,
        "kind": shack.kind,
        "consul_port": shack.consul_port,
        "swarm_port": shack.swarm_port,
        "registry_port": shack.registry_port,
        "web_port": shack.web_port,
    }


def _cluster(settings: NodeSettings) -> dict[str, object]:
    cluster = settings.cluster
    return {
        "enabled": cluster.enabled and settings.shack is not None,
        "consul_image": cluster.consul_image,
        "consul_version": cluster.consul_version,
        "consul_server": cluster.consul_server,
        "consul_bootstrap_expect": cluster.consul_bootstrap_expect,
        "consul_dns": cluster.consul_dns,
        "swarm_image": cluster.swarm_image,
        "swarm_version": cluster.swarm_version,
        "swarm_path": cluster.swarm_path,
        "images": list(cluster.images),
    }


def _network(network: Network) -> dict[str, object]:
    address = ipaddress.ip_interface(network.address) if network.address else None
    return {
        "interface": network.interface,
        "address": network.address,
        "ip": str(address.ip) if address else "",
        "prefix": address.network.prefixlen if address else 0,
        "netmask": str(address.netmask) if address else "",
        "family": "inet6" if address and address.version == 6 else "inet",  # noqa: PLR2004 - IPv6
        "gateway": network.gateway,
        "dns": list(network.dns),
    }


def _wifi(settings: NodeSettings) -> dict[str, object]:
    country = settings.wifi.country
    return {
        "country": country and _require_match(_COUNTRY, country, "an ISO 3166 country code"),
        "networks": _wifi_networks(settings),
    }


def _wifi_networks(settings: NodeSettings) -> list[dict[str, object]]:
    """Return the networks, each with a priority: by number, then by their order in the file."""
    networks = settings.wifi.networks
    order = sorted(range(len(networks)), key=lambda index: -networks[index].priority)
    rank = {index: len(networks) - place for place, index in enumerate(order)}
    return [
        {
            "ssid": check_ssid(net.ssid),
            "hidden": net.hidden,
            "priority": rank[index],
            "open": net.protocol == "open",
            "security": net.protocol,
        }
        for index, net in enumerate(networks)
    ]


def _network_secrets(
    network: dict[str, object], wifi: WifiNetwork, *, plaintext: bool
) -> dict[str, object]:
    passphrase = _reveal(wifi.passphrase)
    psk = _reveal(wifi.psk).lower() or (hash_psk(passphrase, wifi.ssid) if passphrase else "")
    if psk and not PSK.fullmatch(psk):
        raise SettingsError(
            f"the key of {wifi.ssid!r} is not 64 hex digits", "use `passphrase` for a passphrase"
        )
    if "wpa3" in wifi.protocol and not passphrase:
        raise SettingsError(
            f"WPA3 needs the passphrase of {wifi.ssid!r}, not a key of 64 hex digits",
            "use `passphrase`, or `security: wpa2`",
        )
    return {**network, "psk": psk, "passphrase": passphrase if plaintext or not passphrase else psk}


def _user(settings: NodeSettings) -> dict[str, object]:
    user = settings.user
    if user is None:
        return {"name": "", "groups": []}
    return {"name": user.name, "groups": list(user.groups or DEFAULT_GROUPS)}


def _require_match(pattern: re.Pattern[str], value: str, what: str) -> str:
    if not pattern.fullmatch(value):
        raise SettingsError(f"{value!r} is not {what}", f"it must match {pattern.pattern}")
    return value


def _reveal(secret: Secret | None) -> str:
    return secret.reveal() if secret else ""
