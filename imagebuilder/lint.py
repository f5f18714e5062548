"""What is legal in a classroom and still wrong, or worth a look: found over all its nodes."""

from __future__ import annotations

import ipaddress
from collections import defaultdict
from typing import TYPE_CHECKING

from imagebuilder.checksums import basename
from imagebuilder.findings import Finding, Loc

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from imagebuilder.model import ImageSource, NodeSettings, Shack
    from imagebuilder.settings import Resolved

MOST_SERVERS = 7
# What consul listens on beside its HTTP port, and Docker's own swarm.
CONSUL_PORTS = (8300, 8301, 8302, 8600)
SWARM_MODE_PORTS = (2377, 7946)

Place = tuple[Loc, "NodeSettings"]


def lint_classroom(resolved: Resolved) -> tuple[Finding, ...]:
    """Find duplicates (severe), addresses off the subnet (severe) and what deserves a warning."""
    nodes = list(zip(resolved.places, resolved.nodes, strict=True))
    found = [*_duplicates(nodes), *_addresses(nodes), *_labels(nodes), *_machines(nodes)]
    found += [*_shacks(nodes), *_swarm(resolved.nodes)]
    found += [*_wifi(resolved.nodes), *_docker(resolved.nodes), *_consul(resolved.nodes)]
    found += _images(resolved.nodes)
    return tuple(dict.fromkeys(found))


def _duplicates(nodes: Sequence[Place]) -> Iterator[Finding]:
    keys: dict[str, Callable[[NodeSettings], str]] = {
        "hostname": lambda node: node.hostname,
        "address": lambda node: node.network.address.partition("/")[0],
        "serial": lambda node: node.serial,
        "mac": lambda node: node.mac,
    }
    for name, value_of in keys.items():
        holders: dict[str, list[Place]] = defaultdict(list)
        for loc, node in nodes:
            if value := value_of(node):
                holders[value].append((loc, node))
        for value, same in holders.items():
            for loc, node in same[1:]:
                yield _duplicate(name, value, same[0][1], node, loc)


def _duplicate(name: str, value: str, first: NodeSettings, node: NodeSettings, loc: Loc) -> Finding:
    if name == "hostname":
        return Finding((*loc, name), f"two nodes are called `{value}`", "give each its own name")
    message = f"`{node.hostname}` has {name} {value} of `{first.hostname}`"
    return Finding((*loc, name), message, "each node needs its own")


def _addresses(nodes: Sequence[Place]) -> Iterator[Finding]:
    for loc, node in nodes:
        network = node.network
        if not network.address:
            continue
        address = ipaddress.ip_interface(network.address)
        where = (*loc, "address")
        faults = list(_off_subnet(node, address))
        for fact, hint in faults:
            yield Finding(where, f"{address.ip} of `{node.hostname}` {fact}", hint)
        if not faults:
            yield from _unreachable(node, address)
        if network.dhcp_range and _within(address.ip, network.dhcp_range):
            fact = f"is in the DHCP range {network.dhcp_range}"
            hint = "the router may give it away: take one outside"
            message = f"{address.ip} of `{node.hostname}` {fact}"
            yield Finding(where, message, hint, severe=False)


def _off_subnet(
    node: NodeSettings, address: ipaddress.IPv4Interface | ipaddress.IPv6Interface
) -> Iterator[tuple[str, str]]:
    network = node.network
    if kind := _unfit(address.ip) or ("a loopback address" if address.ip.is_loopback else ""):
        yield f"is {kind}", "take one of the classroom's network"
        return
    subnet = ipaddress.ip_network(network.subnet) if network.subnet else address.network
    if address.ip not in subnet:
        yield f"is outside the subnet {subnet}", "change the address or `network.subnet`"
    elif subnet.prefixlen < subnet.max_prefixlen - 1 and address.ip in (
        subnet.network_address,
        subnet.broadcast_address,
    ):
        yield f"is the network's own or broadcast address of {subnet}", "take another"
    if str(address.ip) == network.gateway:
        yield "is the gateway's", "take another"
    if node.shack and str(address.ip) == node.shack.address:
        yield "is the shack's", "take another"


def _unfit(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    """Say why no machine can have an address."""
    if address.is_multicast:
        return "a multicast address"
    if address.is_unspecified:
        return "no machine's address"
    return "a reserved address" if address.version == 4 and address.is_reserved else ""  # noqa: PLR2004


def _shacks(nodes: Sequence[Place]) -> Iterator[Finding]:
    for loc, node in nodes:
        if node.shack and node.shack.hostname == node.hostname and _runs_consul(node):
            message = f"`{node.hostname}` is the shack's name: consul takes each name once"
            yield Finding((*loc, "hostname"), message, "give one of them another name")
    for shack in dict.fromkeys(node.shack for _, node in nodes if node.shack):
        address = ipaddress.ip_address(shack.address)
        where = ("shack", "address")
        if kind := _unfit(address):
            yield Finding(where, f"{address} is {kind}", "give that of the instructor's machine")
        elif address.is_loopback:
            message = f"{address} is each node's own: none reaches the shack there"
            hint = "give the address that the nodes see"
            yield Finding(where, message, hint, severe=False)
        yield from _ports(shack)


def _runs_consul(node: NodeSettings) -> bool:
    return bool(node.shack and node.shack.kind == "classic" and node.cluster.enabled)


def _ports(shack: Shack) -> Iterator[Finding]:
    taken = dict.fromkeys(CONSUL_PORTS, "consul itself")
    if shack.kind == "swarm-mode":
        taken |= dict.fromkeys(SWARM_MODE_PORTS, "Docker's swarm")
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
            message = f"port {port} of `{name}` is that of {taken[port]}"
            yield Finding(("shack", "ports"), message, "give each service a port of its own")
        taken.setdefault(port, f"`{name}`")


def _swarm(nodes: Sequence[NodeSettings]) -> Iterator[Finding]:
    for node in nodes:
        if _runs_consul(node) and not node.docker.tcp:
            message = "the Docker API is closed: the swarm manager reaches no node"
            hint = "`docker: {tls: true}` opens it to the class alone"
            yield Finding(("docker", "tcp"), message, hint, severe=False)


def _unreachable(
    node: NodeSettings, address: ipaddress.IPv4Interface | ipaddress.IPv6Interface
) -> Iterator[Finding]:
    gateway, shack = node.network.gateway, node.shack
    if gateway and ipaddress.ip_address(gateway) not in address.network:
        message = f"the gateway {gateway} is not in {address.network}"
        yield Finding(("network", "gateway"), message, "no node can reach it", severe=False)
    if shack and not gateway and ipaddress.ip_address(shack.address) not in address.network:
        message = f"the shack {shack.address} is not in {address.network}, and there is no gateway"
        hint = "change the addresses, or add `network.gateway`"
        yield Finding(("shack", "address"), message, hint, severe=False)


def _within(address: ipaddress.IPv4Address | ipaddress.IPv6Address, dhcp_range: str) -> bool:
    first, last = (ipaddress.ip_address(end) for end in dhcp_range.split("-"))
    return first.version == address.version and int(first) <= int(address) <= int(last)


def _labels(nodes: Sequence[Place]) -> Iterator[Finding]:
    for loc, node in nodes:
        said = dict(node.docker.labels).get("arch")
        if said and node.arch and said != node.arch:
            message = f"label arch={said} on a node of profile `{node.profile}` ({node.arch})"
            hint = "leave the label out: the profile gives it"
            yield Finding((*loc, "labels"), message, hint)


def _machines(nodes: Sequence[Place]) -> Iterator[Finding]:
    for loc, node in nodes:
        able = node.image.machines
        if able and node.machines and not set(able) & set(node.machines):
            message = f"profile `{node.profile}` does not fit image `{node.image.name}`"
            hint = f"that image boots on {', '.join(able)}"
            yield Finding((*loc, "profile"), message, hint, severe=False)


def _wifi(nodes: Sequence[NodeSettings]) -> Iterator[Finding]:
    for node in nodes:
        if node.wifi.networks and not node.wifi.country:
            message = "wifi without a country: the radio may stay off"
            yield Finding(("wifi",), message, "add `country:`, as FR or US", severe=False)
        for network in node.wifi.networks:
            if network.ssid != network.ssid.strip():
                message = "an SSID begins or ends with a blank"
                yield Finding(("wifi",), message, "is that meant?", severe=False)


def _docker(nodes: Sequence[NodeSettings]) -> Iterator[Finding]:
    if any(node.docker.tcp and not node.docker.tls for node in nodes):
        message = "the Docker API is open: whoever is on the network is root on every node"
        hint = "`docker: {tls: true}` closes it"
        yield Finding(("docker", "tcp"), message, hint, severe=False)
    labels = dict.fromkeys(label for node in nodes for label in node.docker.labels)
    for name, value in labels:
        if "=" in value:  # ValidateLabel of dockerd 1.6 counts them
            message = f"label `{name}` has an `=` in its value: dockerds of 2015 refuse it"
            yield Finding(("docker", "labels"), message, "put another sign there", severe=False)


def _consul(nodes: Sequence[NodeSettings]) -> Iterator[Finding]:
    servers = sum(node.cluster.consul_server for node in nodes)
    shacks = len({node.shack.address for node in nodes if node.shack})
    total = servers + min(shacks, 1)
    loc = ("cluster", "consul", "server")
    if servers and total % 2 == 0:
        message = f"{total} consul servers with the shack's: an even number loses to a tie"
        yield Finding(loc, message, "make it 1, 3 or 5", severe=False)
    elif total > MOST_SERVERS:
        message = f"{total} consul servers: each unplugged Pi puts the quorum at risk"
        yield Finding(loc, message, "make it 1, 3 or 5", severe=False)


def _images(nodes: Sequence[NodeSettings]) -> Iterator[Finding]:
    # A catalogue entry (it knows its generation, and goes by its own name) comes with its
    # publisher's checksum.
    for image in dict.fromkeys(node.image for node in nodes):
        if image.unchecked:
            message = f"image `{image.name}` is taken without a checksum"
            yield Finding(("image",), message, "add `sha256:`", severe=False)
        elif image.file and not (image.sha256 or image.raw_sha256):
            message = f"image `{image.name}` has no checksum"
            yield Finding(("image",), message, "add `sha256:` (`sha256sum FILE`)", severe=False)
        elif image.url and not (image.sha256 or image.raw_sha256 or _is_listed(image)):
            message = f"image `{image.name}` has no checksum of its own: the publisher's is fetched"
            yield Finding(("image",), message, "add `sha256:`", severe=False)


def _is_listed(image: ImageSource) -> bool:
    return bool(image.generation) and image.name != basename(image.url)
