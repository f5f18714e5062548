"""What is legal in a classroom and still wrong, or worth a look: found over all its nodes."""

from __future__ import annotations

import ipaddress
from collections import defaultdict
from typing import TYPE_CHECKING

from imagebuilder.model import image_version
from imagebuilder.settings.schema.diagnostics import Diagnostic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from imagebuilder.model import NodeSettings, Shack
    from imagebuilder.settings.merge import Place
    from imagebuilder.settings.resolve import Resolved
    from imagebuilder.settings.schema.diagnostics import Loc

MOST_SERVERS = 7

# What consul listens on beside its HTTP port, and Docker's own swarm.
CONSUL_PORTS = (8300, 8301, 8302, 8600)
SWARM_MODE_PORTS = (2377, 7946)

# From here on Swarm manages no Docker before 1.8 (docker-archive/classicswarm, issue 2150).
SWARM_OF_DOCKER_1_8 = (1, 2)
Placed = tuple["Place", "NodeSettings"]


def lint_classroom(resolved: Resolved) -> tuple[Diagnostic, ...]:
    """Find duplicates (severe), addresses off the subnet (severe) and what deserves a warning."""
    nodes = list(zip(resolved.places, resolved.nodes, strict=True))
    found = [*_duplicates(nodes), *_labels(nodes), *_machines(nodes)]
    found += _once(diagnostic for rule in _RULES for diagnostic in rule(nodes))
    return tuple(dict.fromkeys(found))


def _once(diagnostics: Iterable[Diagnostic]) -> Iterator[Diagnostic]:
    """Return what holds for many nodes at the first of them, not at each."""
    first: dict[str, Diagnostic] = {}
    for diagnostic in diagnostics:
        first.setdefault(diagnostic.message, diagnostic)
    yield from first.values()


def _duplicates(nodes: Sequence[Placed]) -> Iterator[Diagnostic]:
    keys: dict[str, Callable[[NodeSettings], str]] = {
        "hostname": lambda node: node.hostname,
        "address": lambda node: node.network.address.partition("/")[0],
        "serial": lambda node: node.serial,
        "mac": lambda node: node.mac,
    }
    for name, value_of in keys.items():
        holders: dict[str, list[Placed]] = defaultdict(list)
        for place, node in nodes:
            if value := value_of(node):
                holders[value].append((place, node))
        for value, same in holders.items():
            for place, node in same[1:]:
                yield _duplicate(name, value, same[0][1], node, place)


def _duplicate(
    name: str, value: str, first: NodeSettings, node: NodeSettings, place: Place
) -> Diagnostic:
    if name == "hostname":
        loc = (*place.loc, name)
        return Diagnostic(loc, f"two nodes are called `{value}`", "give each its own name")
    loc = place.at(("network", name)) if name == "address" else (*place.loc, name)
    message = f"`{node.hostname}` has {name} {value} of `{first.hostname}`"
    return Diagnostic(loc, message, "each node needs its own")


def _addresses(nodes: Sequence[Placed]) -> Iterator[Diagnostic]:
    for place, node in nodes:
        network = node.network
        if not network.address:
            continue
        address = ipaddress.ip_interface(network.address)
        where = place.at(("network", "address"))
        faults = list(_off_subnet(node, address))
        for fact, hint in faults:
            yield Diagnostic(where, f"{address.ip} of `{node.hostname}` {fact}", hint)
        if not faults:
            yield from _unreachable(place, node, address)
        if network.dhcp_range and _within(address.ip, network.dhcp_range):
            fact = f"is in the DHCP range {network.dhcp_range}"
            hint = "the router may give it away: take one outside"
            message = f"{address.ip} of `{node.hostname}` {fact}"
            yield Diagnostic(where, message, hint, severe=False)


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


def _shacks(nodes: Sequence[Placed]) -> Iterator[Diagnostic]:
    for place, node in nodes:
        if node.shack and node.shack.hostname == node.hostname and _runs_consul(node):
            message = f"`{node.hostname}` is the shack's name: consul takes each name once"
            yield Diagnostic((*place.loc, "hostname"), message, "give one of them another name")
    for shack, place in {node.shack: place for place, node in reversed(nodes)}.items():
        if shack:
            yield from _shack_address(shack, place.at(("shack", "address")))
            yield from _ports(shack, place.at(("shack", "ports")))


def _shack_address(shack: Shack, where: Loc) -> Iterator[Diagnostic]:
    address = ipaddress.ip_address(shack.address)
    if kind := _unfit(address):
        yield Diagnostic(where, f"{address} is {kind}", "give that of the instructor's machine")
    elif address.is_loopback:
        message = f"{address} is each node's own: none reaches the shack there"
        yield Diagnostic(where, message, "give the address that the nodes see", severe=False)


def _runs_consul(node: NodeSettings) -> bool:
    return bool(node.shack and node.shack.kind == "classic" and node.cluster.enabled)


def _ports(shack: Shack, where: Loc) -> Iterator[Diagnostic]:
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
            yield Diagnostic(where, message, "give each service a port of its own")
        taken.setdefault(port, f"`{name}`")


def _swarm(nodes: Sequence[Placed]) -> Iterator[Diagnostic]:
    for place, node in nodes:
        if _runs_consul(node) and not node.docker.tcp:
            message = "the Docker API is closed: the swarm manager reaches no node"
            hint = "`docker: {tls: true}` opens it to the class alone"
            yield Diagnostic(place.at(("docker", "tcp")), message, hint, severe=False)


def _generations(nodes: Sequence[Placed]) -> Iterator[Diagnostic]:
    """Doubt clusters that the Docker of 2015 cannot join."""
    for place, node in nodes:
        generation, shack = node.generation or node.image.generation, node.shack
        if not shack or not node.cluster.enabled or generation != "occidentalis":
            continue
        old = "the Docker 1.6 of `occidentalis` images"
        manager = shack.swarm_image
        if shack.kind == "swarm-mode":
            where = place.at(("shack", "kind"), ("generation",), ("image",))
            message = f"{old} has no swarm mode, which came with 1.12"
            yield Diagnostic(where, message, "`kind: classic`, or a newer base image", severe=False)
        elif manager and image_version(manager) >= SWARM_OF_DOCKER_1_8:
            where = place.at(("shack", "images", "swarm"), ("generation",), ("image",))
            message = f"`{manager}` cannot manage {old}"
            yield Diagnostic(where, message, "Swarm 1.1.3 can: leave the image out", severe=False)


def _certificates(nodes: Sequence[Placed]) -> Iterator[Diagnostic]:
    bare = [
        (place, node)
        for place, node in nodes
        if _runs_consul(node) and node.docker.tls and not node.network.addresses
    ]
    if bare:
        place, node = bare[0]
        more = f" and {len(bare) - 1} more" if len(bare) > 1 else ""
        fact = f"no fixed address for the Docker certificate of `{node.hostname}`{more}"
        message = f"{fact}: the swarm manager will refuse it"
        hint = "give `network.address` or a `dhcp_range`"
        yield Diagnostic(place.at(("docker", "tls")), message, hint, severe=False)


def _unreachable(
    place: Place, node: NodeSettings, address: ipaddress.IPv4Interface | ipaddress.IPv6Interface
) -> Iterator[Diagnostic]:
    gateway, shack = node.network.gateway, node.shack
    if gateway and ipaddress.ip_address(gateway) not in address.network:
        where = place.at(("network", "gateway"))
        message = f"the gateway {gateway} is not in {address.network}"
        yield Diagnostic(where, message, "no node can reach it", severe=False)
    if shack and not gateway and ipaddress.ip_address(shack.address) not in address.network:
        where = place.at(("shack", "address"))
        message = f"the shack {shack.address} is not in {address.network}, and there is no gateway"
        hint = "change the addresses, or add `network.gateway`"
        yield Diagnostic(where, message, hint, severe=False)


def _within(address: ipaddress.IPv4Address | ipaddress.IPv6Address, dhcp_range: str) -> bool:
    first, last = (ipaddress.ip_address(end) for end in dhcp_range.split("-"))
    return first.version == address.version and int(first) <= int(address) <= int(last)


def _labels(nodes: Sequence[Placed]) -> Iterator[Diagnostic]:
    for place, node in nodes:
        said = dict(node.docker.labels).get("arch")
        if said and node.arch and said != node.arch:
            message = f"label arch={said} on a node of profile `{node.profile}` ({node.arch})"
            hint = "leave the label out: the profile gives it"
            yield Diagnostic((*place.loc, "labels"), message, hint)


def _machines(nodes: Sequence[Placed]) -> Iterator[Diagnostic]:
    for place, node in nodes:
        able = node.image.machines
        if able and node.machines and not set(able) & set(node.machines):
            message = f"profile `{node.profile}` does not fit image `{node.image.name}`"
            hint = f"that image boots on {', '.join(able)}"
            yield Diagnostic((*place.loc, "profile"), message, hint, severe=False)


def _wifi(nodes: Sequence[Placed]) -> Iterator[Diagnostic]:
    for place, node in nodes:
        if node.wifi.networks and not node.wifi.country:
            message = "wifi without a country: the radio may stay off"
            hint = "add `country:`, as FR or US"
            yield Diagnostic(place.at(("wifi",)), message, hint, severe=False)
        for network in node.wifi.networks:
            if network.ssid != network.ssid.strip():
                where = place.at(("wifi", "networks"))
                message = "an SSID begins or ends with a blank"
                yield Diagnostic(where, message, "is that meant?", severe=False)


def _docker(nodes: Sequence[Placed]) -> Iterator[Diagnostic]:
    for place, node in nodes:
        if node.docker.tcp and not node.docker.tls:
            where = place.at(("docker", "tcp"), ("docker", "tls"))
            message = "the Docker API is open: whoever is on the network is root on every node"
            yield Diagnostic(where, message, "`docker: {tls: true}` closes it", severe=False)
        for name, value in node.docker.labels:
            if "=" in value:  # ValidateLabel of dockerd 1.6 counts them
                where = place.at(("docker", "labels"))
                message = f"label `{name}` has an `=` in its value: dockerds of 2015 refuse it"
                yield Diagnostic(where, message, "put another sign there", severe=False)


def _consul(nodes: Sequence[Placed]) -> Iterator[Diagnostic]:
    servers = [place for place, node in nodes if node.cluster.consul_server]
    shacks = len({node.shack.address for _, node in nodes if node.shack})
    total = len(servers) + min(shacks, 1)
    if not servers:
        return
    where = servers[0].at(("cluster", "consul", "server"))
    if total % 2 == 0:
        message = f"{total} consul servers with the shack's: an even number loses to a tie"
        yield Diagnostic(where, message, "make it 1, 3 or 5", severe=False)
    elif total > MOST_SERVERS:
        message = f"{total} consul servers: each unplugged Pi puts the quorum at risk"
        yield Diagnostic(where, message, "make it 1, 3 or 5", severe=False)


def _images(nodes: Sequence[Placed]) -> Iterator[Diagnostic]:
    for place, node in nodes:
        image = node.image
        checked = image.sha256 or image.raw_sha256
        if image.unchecked:
            message, hint = f"image `{image.name}` is taken without a checksum", "add `sha256:`"
        elif image.file and not checked:
            message = f"image `{image.name}` has no checksum"
            hint = "add `sha256:` (`sha256sum FILE`)"
        elif image.url and not (checked or image.checksum_url):
            told = "" if image.hint else " of its own: the publisher's is fetched"
            message, hint = f"image `{image.name}` has no checksum{told}", image.hint
        else:
            continue
        yield Diagnostic(place.at(("image",)), message, hint or "add `sha256:`", severe=False)


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
