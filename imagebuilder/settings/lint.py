"""Find settings that are valid on their own but wrong or doubtful for the whole classroom."""

from __future__ import annotations

import ipaddress
from collections import defaultdict
from typing import TYPE_CHECKING

from imagebuilder.files import has_file
from imagebuilder.images.checksums import SUFFIX
from imagebuilder.model import image_version
from imagebuilder.settings.schema.diagnostics import Diagnostic, warning

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from imagebuilder.model import NodeSettings, Shack
    from imagebuilder.settings.merge import NodeSources
    from imagebuilder.settings.resolve import Resolved
    from imagebuilder.settings.schema.diagnostics import Loc

MOST_SERVERS = 7

# The ports of consul besides HTTP (RPC, serf LAN and WAN, DNS), and of Docker's swarm mode.
CONSUL_PORTS = (8300, 8301, 8302, 8600)
SWARM_MODE_PORTS = (2377, 7946)

# Swarm from this version on cannot manage Docker before 1.8 (docker-archive/classicswarm, 2150).
SWARM_OF_DOCKER_1_8 = (1, 2)
SourcedNode = tuple["NodeSources", "NodeSettings"]


def lint_classroom(resolved: Resolved) -> tuple[Diagnostic, ...]:
    """Return errors (duplicates, addresses outside the subnet) and warnings for a classroom."""
    nodes = list(zip(resolved.node_sources, resolved.nodes, strict=True))
    found = [*_duplicates(nodes), *_labels(nodes)]
    found += _once(diagnostic for rule in _RULES for diagnostic in rule(nodes))
    return tuple(dict.fromkeys(found))


def _once(diagnostics: Iterable[Diagnostic]) -> Iterator[Diagnostic]:
    """Yield each message once, for the first node that has it."""
    first: dict[str, Diagnostic] = {}
    for diagnostic in diagnostics:
        first.setdefault(diagnostic.message, diagnostic)
    yield from first.values()


def _duplicates(nodes: Sequence[SourcedNode]) -> Iterator[Diagnostic]:
    keys: dict[str, Callable[[NodeSettings], str]] = {
        "hostname": lambda node: node.hostname,
        "address": lambda node: node.network.address.partition("/")[0],
        "serial": lambda node: node.serial,
        "mac": lambda node: node.mac,
    }
    for name, value_of in keys.items():
        holders: dict[str, list[SourcedNode]] = defaultdict(list)
        for sources, node in nodes:
            if value := value_of(node):
                holders[value].append((sources, node))
        for value, same in holders.items():
            for sources, node in same[1:]:
                yield _duplicate(name, value, same[0][1], node, sources)


def _duplicate(
    name: str, value: str, first: NodeSettings, node: NodeSettings, sources: NodeSources
) -> Diagnostic:
    if name == "hostname":
        loc = (*sources.loc, name)
        return Diagnostic(loc, f"two nodes are called `{value}`", "use different names")
    loc = sources.at(("network", name)) if name == "address" else (*sources.loc, name)
    message = f"`{node.hostname}` has the same {name} {value} as `{first.hostname}`"
    return Diagnostic(loc, message, f"use a different {name} for each node")


def _addresses(nodes: Sequence[SourcedNode]) -> Iterator[Diagnostic]:
    for sources, node in nodes:
        network = node.network
        if not network.address:
            continue
        address = ipaddress.ip_interface(network.address)
        where = sources.at(("network", "address"))
        faults = list(_off_subnet(node, address))
        for fact, hint in faults:
            yield Diagnostic(where, f"{address.ip} of `{node.hostname}` {fact}", hint)
        if not faults:
            yield from _unreachable(sources, node, address)
        if network.dhcp_range and _within(address.ip, network.dhcp_range):
            fact = f"is in the DHCP range {network.dhcp_range}"
            hint = "use an address outside: the router may assign this one to another machine"
            message = f"{address.ip} of `{node.hostname}` {fact}"
            yield warning("dhcp-range", where, message, hint)


def _off_subnet(
    node: NodeSettings, address: ipaddress.IPv4Interface | ipaddress.IPv6Interface
) -> Iterator[tuple[str, str]]:
    network = node.network
    if kind := _unfit(address.ip) or ("a loopback address" if address.ip.is_loopback else ""):
        yield f"is {kind}", "use an address of the classroom's network"
        return
    subnet = ipaddress.ip_network(network.subnet) if network.subnet else address.network
    if address.ip not in subnet:
        yield f"is outside the subnet {subnet}", "change the address or `network.subnet`"
    elif subnet.prefixlen < subnet.max_prefixlen - 1 and address.ip in (
        subnet.network_address,
        subnet.broadcast_address,
    ):
        yield f"is the network or broadcast address of {subnet}", "use another address"
    if str(address.ip) == network.gateway:
        yield "is the address of the gateway", "use another address"
    if node.shack and str(address.ip) == node.shack.address:
        yield "is the address of the shack", "use another address"


def _unfit(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    """Return the kind of an address that no machine can have; empty for others."""
    if address.is_multicast:
        return "a multicast address"
    if address.is_unspecified:
        return "the unspecified address"
    return "a reserved address" if address.version == 4 and address.is_reserved else ""  # noqa: PLR2004


def _shacks(nodes: Sequence[SourcedNode]) -> Iterator[Diagnostic]:
    for sources, node in nodes:
        if node.shack and node.shack.hostname == node.hostname and node.cluster.enabled:
            message = f"`{node.hostname}` is the name of the shack, too: names in consul are unique"
            yield Diagnostic((*sources.loc, "hostname"), message, "rename one of them")
    for shack, sources in {node.shack: sources for sources, node in reversed(nodes)}.items():
        if shack:
            yield from _shack_address(shack, sources.at(("shack", "address")))
            yield from _ports(shack, sources.at(("shack", "ports")))


def _shack_address(shack: Shack, where: Loc) -> Iterator[Diagnostic]:
    address = ipaddress.ip_address(shack.address)
    if kind := _unfit(address):
        yield Diagnostic(
            where, f"{address} is {kind}", "use the address of the instructor's machine"
        )
    elif address.is_loopback:
        message = f"{address} is a loopback address: no node can reach the shack there"
        yield warning("loopback-shack", where, message, "use an address that the nodes can reach")


def _is_classic(node: NodeSettings) -> bool:
    return bool(node.shack and node.shack.kind == "classic" and node.cluster.enabled)


def _ports(shack: Shack, where: Loc) -> Iterator[Diagnostic]:
    taken = dict.fromkeys(CONSUL_PORTS, "consul")
    if shack.kind == "swarm-mode":
        taken |= dict.fromkeys(SWARM_MODE_PORTS, "Docker's swarm mode")
    wanted = {"consul": shack.consul_port, "swarm": shack.swarm_port}
    optional = {
        "registry": shack.registry_port,
        "mirror": shack.mirror_port,
        "apt": shack.apt_port,
        "web": shack.web_port,
    }
    wanted |= {name: port for name, port in optional.items() if name in shack.services}
    for name, port in wanted.items():
        if port in taken:
            message = f"port {port} of `{name}` is already used by {taken[port]}"
            yield Diagnostic(where, message, "use a different port for each service")
        taken.setdefault(port, f"`{name}`")


def _swarm(nodes: Sequence[SourcedNode]) -> Iterator[Diagnostic]:
    for sources, node in nodes:
        if _is_classic(node) and node.cluster.swarm_image and not node.docker.tcp:
            message = "the Docker API is closed: the swarm manager cannot reach the nodes"
            hint = "set `docker: {tls: true}` to open it for the class only"
            yield warning("closed-docker", sources.at(("docker", "tcp")), message, hint)


def _generations(nodes: Sequence[SourcedNode]) -> Iterator[Diagnostic]:
    """Warn of swarm managers that cannot manage the Docker 1.6 of occidentalis images."""
    for sources, node in nodes:
        generation, shack = node.generation or node.image.generation, node.shack
        if not shack or not node.cluster.enabled or generation != "occidentalis":
            continue
        manager = shack.swarm_image
        classic = shack.kind == "classic"
        if classic and manager and image_version(manager) >= SWARM_OF_DOCKER_1_8:
            where = sources.at(("shack", "images", "swarm"), ("generation",), ("image",))
            message = f"`{manager}` cannot manage Docker 1.6 of `occidentalis` images"
            hint = "remove the image: the default, Swarm 1.1.3, can"
            yield warning("old-docker", where, message, hint)


def _certificates(nodes: Sequence[SourcedNode]) -> Iterator[Diagnostic]:
    bare = [
        (sources, node)
        for sources, node in nodes
        if _is_classic(node) and node.docker.tls and not node.network.addresses
    ]
    if bare:
        sources, node = bare[0]
        more = f" and {len(bare) - 1} more" if len(bare) > 1 else ""
        fact = f"no known address for the Docker certificate of `{node.hostname}`{more}"
        message = f"{fact}: the swarm manager will reject it"
        hint = "set `network.address` or `network.dhcp_range`"
        yield warning("certificate", sources.at(("docker", "tls")), message, hint)


def _unreachable(
    sources: NodeSources,
    node: NodeSettings,
    address: ipaddress.IPv4Interface | ipaddress.IPv6Interface,
) -> Iterator[Diagnostic]:
    gateway, shack = node.network.gateway, node.shack
    if gateway and ipaddress.ip_address(gateway) not in address.network:
        where = sources.at(("network", "gateway"))
        message = f"the gateway {gateway} is not in {address.network}"
        yield warning("unreachable", where, message, "change the gateway or the addresses")
    if shack and not gateway and ipaddress.ip_address(shack.address) not in address.network:
        where = sources.at(("shack", "address"))
        message = f"the shack {shack.address} is not in {address.network}, and there is no gateway"
        hint = "change the addresses, or add `network.gateway`"
        yield warning("unreachable", where, message, hint)


def _within(address: ipaddress.IPv4Address | ipaddress.IPv6Address, dhcp_range: str) -> bool:
    first, last = (ipaddress.ip_address(end) for end in dhcp_range.split("-"))
    return first.version == address.version and int(first) <= int(address) <= int(last)


def _labels(nodes: Sequence[SourcedNode]) -> Iterator[Diagnostic]:
    for sources, node in nodes:
        said = dict(node.docker.labels).get("arch")
        if said and node.arch and said != node.arch:
            message = f"label arch={said} on a node of profile `{node.profile}` ({node.arch})"
            hint = "remove the label: the profile sets it"
            yield Diagnostic((*sources.loc, "labels"), message, hint)


def _wifi(nodes: Sequence[SourcedNode]) -> Iterator[Diagnostic]:
    for sources, node in nodes:
        if node.wifi.networks and not node.wifi.country:
            message = "wifi without a country: the radio may stay off"
            hint = "add `country:`, for example FR or US"
            yield warning("no-country", sources.at(("wifi",)), message, hint)
        for network in node.wifi.networks:
            if network.ssid != network.ssid.strip():
                where = sources.at(("wifi", "networks"))
                message = "an SSID begins or ends with a space"
                yield warning("ssid-space", where, message, "check if this is intended")


def _docker(nodes: Sequence[SourcedNode]) -> Iterator[Diagnostic]:
    for sources, node in nodes:
        if node.docker.tcp and not node.docker.tls:
            where = sources.at(("docker", "tcp"), ("docker", "tls"))
            message = "the Docker API is open: everyone on the network is root on every node"
            yield warning("open-docker", where, message, "set `docker: {tls: true}`")
        for name, value in node.docker.labels:
            if "=" in value:  # ValidateLabel of dockerd 1.6 (opts/opts.go) allows one only
                where = sources.at(("docker", "labels"))
                message = f"label `{name}` has a `=` in its value: Docker 1.6 rejects it"
                yield warning("docker-label", where, message, "use another character")


def _consul(nodes: Sequence[SourcedNode]) -> Iterator[Diagnostic]:
    servers = [sources for sources, node in nodes if node.cluster.consul_server]
    shacks = len({node.shack.address for _, node in nodes if node.shack})
    total = len(servers) + min(shacks, 1)
    if not servers:
        return
    where = servers[0].at(("cluster", "consul", "server"))
    if total % 2 == 0:
        message = f"{total} consul servers with that of the shack: an even number adds no safety"
        yield warning("consul-servers", where, message, "use 1, 3 or 5")
    elif total > MOST_SERVERS:
        message = f"{total} consul servers: unplugged nodes may lose the quorum"
        yield warning("consul-servers", where, message, "use 1, 3 or 5")


def _images(nodes: Sequence[SourcedNode]) -> Iterator[Diagnostic]:
    for sources, node in nodes:
        image = node.image
        checked = image.sha256 or image.raw_sha256
        if image.unchecked:
            message, hint = f"image `{image.name}` is used without a checksum", "add `sha256:`"
        elif image.file and not checked and not _has_checksum_beside(image.file):
            message = f"image `{image.name}` has no checksum"
            hint = "add `sha256:` (`sha256sum FILE`)"
        elif image.url and not (checked or image.checksum_url):
            told = "" if image.hint else " in the file: that of the publisher is fetched"
            message, hint = f"image `{image.name}` has no checksum{told}", image.hint
        else:
            continue
        yield warning("no-checksum", sources.at(("image",)), message, hint or "add `sha256:`")


def _has_checksum_beside(image: Path) -> bool:
    """Return whether `build` finds a checksum next to the file, as images.obtain does."""
    return has_file(image.with_name(image.name + SUFFIX))


_RULES = (
    _addresses,
    _shacks,
    _swarm,
    _generations,
    _certificates,
    _wifi,
    _docker,
    _consul,
    _images,
)
