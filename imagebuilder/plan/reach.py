"""Say of a planned card how it is reached: login, network, Docker and cluster; access no disk."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from imagebuilder.plan.card_layout import PACKAGE_SUMS, PACKAGES
from imagebuilder.plan.vendor.boards import find_board
from imagebuilder.plan.vendor.docker import (
    DOCKER_OF_SUITE,
    DOCKER_PACKAGE,
    MOVED_SUITES,
    agent_faults,
    cluster_faults,
    short,
    suite_by_name,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from imagebuilder.model import ImageSource, NodeSettings, RootSystem
    from imagebuilder.plan.generations import Generation
    from imagebuilder.plan.templates import Template

# What the name of an image tells about the facts of its generation. Raspberry Pi OS has no login
# since 2022-04-04 (its release notes); before, it was pi with a known password.
_NEW_RASPIOS = "2022-04"
_UNKNOWN = "?"
_WIFI = "wifi: {country: FR, networks: [{ssid: shack, passphrase: {file: PATH}}]}"


@dataclass(frozen=True, slots=True)
class VendorState:
    """What an image brings: its first user, and Docker; None where only the image tells.

    With `password` everyone knows the password of the user, and SSH is on. With `ready` the user is
    there, and the console does not ask for one. `docker_version` is that of the image, `suite`
    Debian's word for its release; both are empty if they are not known.
    """

    user: str | None = None
    password: bool = False
    ready: bool = False
    docker: bool | None = None
    docker_version: str = ""
    suite: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """Why a card would not be reached; `word` acknowledges it (errors.WARNINGS)."""

    word: str
    message: str
    hint: str
    severe: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """How a card is reached. `user` is None if only the image tells, empty if nobody can log in.

    `packages` are those that the Pi installs at its first boot.
    """

    hostname: str
    address: str
    user: str | None
    ways: tuple[str, ...]
    parts: tuple[str, ...]
    findings: tuple[Finding, ...]
    packages: tuple[str, ...] = ()

    @property
    def login(self) -> str:
        """How to log in, in a few words."""
        if self.user is None:
            return "login as the image has it"
        if not self.user:
            return "nobody can log in"
        return f"ssh {self.user}@{self.address} by {' and '.join(self.ways)}"

    @property
    def sentence(self) -> str:
        """All of it in one line, without the name of the card."""
        return "; ".join((self.login, *self.parts))

    @property
    def of_class(self) -> str:
        """The sentence for several cards: NAME and ADDRESS in place of what differs."""
        own = self.address == mdns_name(self.hostname)
        address = mdns_name("NAME") if own else "ADDRESS"
        return self.sentence.replace(f"@{self.address} ", f"@{address} ", 1)


def mdns_name(hostname: str) -> str:
    """Return the name by which other machines find a node without a DNS server (RFC 6762)."""
    return f"{hostname}.local"


def reachable_name(node: NodeSettings) -> str:
    """Return the name for clients: the fixed address, else the mDNS name."""
    return node.network.fixed_address or mdns_name(node.hostname)


def login_name(node: NodeSettings) -> str:
    """Return the user to log in as; empty if it is not known."""
    return node.login or (node.user.name if node.user else "")


def facts_by_name(generation: Generation, image: ImageSource) -> dict[str, bool] | None:
    """Return the facts of an image that its name tells; None if it tells nothing."""
    name = image.name.lower()
    unset = {fact: False for fact, _ in generation.facts}
    if "hypriot" in name:
        return unset | {"hypriot": True}
    date = re.search(r"20\d\d-\d\d", name)
    if re.search("raspios|raspbian", name) and (not date or date[0] >= _NEW_RASPIOS):
        return unset
    return None


def vendor_state(generation: Generation, facts: Mapping[str, bool] | None) -> VendorState:
    """Return what an image of a generation brings; None for facts if they are not known."""
    login, docker = generation.login, generation.docker
    words = [_UNKNOWN]
    if login and (facts is not None or not login.names):
        words = login.render({"fact": facts}).split() or [""]
    version = _rendered(docker, facts)
    found = VendorState(
        docker=None if version is None else bool(version),
        docker_version=version or "",
        suite=_rendered(generation.suite, facts) or "",
    )
    if words[0] == _UNKNOWN:
        return found
    known, ready = ("password" in words[1:], "ready" in words[1:])
    return replace(found, user=words[0], password=known, ready=ready)


def _rendered(template: Template | None, facts: Mapping[str, bool] | None) -> str | None:
    if template is None or (facts is None and template.names):
        return None
    return template.render({"fact": facts}).strip()


def seen_in_root(vendor: VendorState, root: RootSystem | None) -> VendorState:
    """Return what an image brings, with what its root says of Docker and its release."""
    if root is None or not root.arch:
        return vendor
    suite = root.codename or vendor.suite
    return replace(vendor, docker=bool(root.docker), docker_version=root.docker, suite=suite)


def docker_version_of(settings: NodeSettings, vendor: VendorState) -> str:
    """Return the version of Docker on a node after its first boot; empty if it is not known."""
    if vendor.docker and settings.docker.install != "always":
        return vendor.docker_version
    if not _installs_docker(settings, vendor):
        return ""
    return settings.docker.version or DOCKER_OF_SUITE.get(_suite(settings, vendor), "")


def _installs_docker(settings: NodeSettings, vendor: VendorState) -> bool:
    install = settings.docker.install
    return install == "always" or (install == "auto" and vendor.docker is False)


def _suite(settings: NodeSettings, vendor: VendorState) -> str:
    return vendor.suite or suite_by_name(settings.image)


def packages_way(paths: Iterable[str]) -> str:
    """Return how a card with these files gets its packages; empty if by the Pi's own apt."""
    ours = [path for path in paths if path.startswith(PACKAGES)]
    if any(path.endswith(".deb") for path in ours):
        return "from the card"
    return "from the shack" if PACKAGE_SUMS in ours else ""


def serves_packages(settings: NodeSettings) -> bool:
    """Return whether the class page of the shack has packages, too."""
    return settings.shack is not None and "web" in settings.shack.services


def reach_of(settings: NodeSettings, vendor: VendorState, way: str = "") -> Reach:
    """Return how a card with these settings is reached; `way` is that of `packages_way`."""
    user, ways = _login(settings, vendor)
    found = [*_login_findings(settings, user), *_network_findings(settings)]
    return Reach(
        hostname=settings.hostname,
        address=reachable_name(settings),
        user=user,
        ways=ways,
        parts=tuple(_parts(settings, vendor, way or apt_way(settings))),
        findings=(
            *found,
            *_docker_findings(settings, vendor),
            *_archive_findings(settings, vendor),
        ),
        packages=(*(DOCKER_PACKAGE,) * _installs_docker(settings, vendor), *settings.packages),
    )


def reach_lines(reaches: Sequence[Reach]) -> tuple[str, ...]:
    """Return one line for all cards that are alike."""
    groups: dict[str, list[Reach]] = {}
    for reach in reaches:
        groups.setdefault(reach.of_class, []).append(reach)
    return tuple(_line(sentence, group) for sentence, group in groups.items())


def _line(sentence: str, group: Sequence[Reach]) -> str:
    if len(group) == 1:
        return f"{group[0].hostname}: {group[0].sentence}"
    return f"{group[0].hostname} to {group[-1].hostname} ({len(group)} nodes): {sentence}"


# ---- login


def _login(settings: NodeSettings, vendor: VendorState) -> tuple[str | None, tuple[str, ...]]:
    user = settings.user
    ways: tuple[str, ...] = ("key",) if settings.ssh_keys else ()
    if user and (user.password_hash or user.pending_password):
        ways += ("password",)
    if user and ways:
        return user.name, ways
    kept = user is None or settings.keep_vendor_login or user.name == vendor.user
    if settings.overlays or (kept and vendor.user is None):
        return None, ()
    if kept and vendor.password:
        return vendor.user, (*ways, "the image's password")
    return (vendor.user, ways) if kept and ways else ("", ())


def _login_findings(settings: NodeSettings, user: str | None) -> Iterator[Finding]:
    if user != "":
        return
    fact = "the image has no login of its own, and there is neither a user nor an SSH key"
    add = "`user: {name: pupil, password: {prompt: true}}`"
    if settings.user:
        fact = f"user `{settings.user.name}` has neither a password nor an SSH key"
        add = f"`user: {{name: {settings.user.name}, password: {{prompt: true}}}}`"
    hint = f"add `ssh_keys: [{{file: ~/.ssh/id_ed25519.pub}}]` or {add}, or `allow: [no-login]`"
    yield Finding("no-login", f"nobody can log in: {fact}", hint, severe=True)


# ---- network


def _network_findings(settings: NodeSettings) -> Iterator[Finding]:
    board, wifi = find_board(settings.board), settings.wifi
    if board is None:
        return
    if wifi.networks and not board.wifi:
        message = f"board `{board.word}` has no wifi radio for the networks"
        hint = "remove `wifi:`, or `allow: [no-radio]` for an adapter"
        yield Finding("no-radio", message, hint)
    if board.ethernet or settings.overlays:
        return
    add = ""
    if not wifi.networks or not board.wifi:
        fact = "no Ethernet, and no wifi network is set"
        if board.wifi:
            add = f"add `{_WIFI}`, or "
    elif not wifi.country:
        fact, add = "no Ethernet, and its radio stays off without a country", "add `country:`, or "
    else:
        return
    hint = f"{add}`allow: [no-network]` for an adapter"
    message = f"board `{board.word}` does not get onto the network: it has {fact}"
    yield Finding("no-network", message, hint, severe=True)


# ---- Docker and the cluster


def _docker_findings(settings: NodeSettings, vendor: VendorState) -> Iterator[Finding]:
    missing = vendor.docker is False and not _installs_docker(settings, vendor)
    if _joins(settings) and missing and not settings.overlays:
        message = "the image has no Docker: the cluster cannot run on it"
        hint = "remove `install: never`, add an overlay, or set `cluster: {enabled: false}`"
        yield Finding("no-docker", message, hint, severe=True)
    if settings.shack and _joins(settings):
        cluster, kind = settings.cluster, settings.shack.kind
        images = (cluster.consul_image, cluster.swarm_image, *cluster.images)
        docker = docker_version_of(settings, vendor)
        for fault in cluster_faults(kind, docker, images, swarm=bool(cluster.swarm_image)):
            yield Finding("no-cluster", fault, _CLUSTER_HINTS[kind], severe=True)
        for fault in agent_faults(cluster.consul_version, settings.shack.consul_image):
            yield Finding("no-cluster", fault, _SERVER_HINT, severe=True)


_CLUSTER_HINTS = {
    "classic": "set `shack: {kind: swarm-mode}`, or use an image with an older Docker",
    "swarm-mode": "set `shack: {kind: classic}`, or use an image with a newer Docker",
}
_SERVER_HINT = "set `shack: {images: {consul: …}}` to the same version"


def _archive_findings(settings: NodeSettings, vendor: VendorState) -> Iterator[Finding]:
    suite = _suite(settings, vendor)
    installs = settings.upgrade or settings.packages or _installs_docker(settings, vendor)
    if installs and suite in MOVED_SUITES:
        message = f"the archive of {suite} has moved: the Pi changes its sources to the new place"
        hint = "there are no more updates: use a newer image, or remove `upgrade:` and `packages:`"
        yield Finding("old-archive", message, hint)


def _joins(settings: NodeSettings) -> bool:
    return settings.cluster.enabled and settings.shack is not None


def _parts(settings: NodeSettings, vendor: VendorState, way: str) -> Iterator[str]:
    asks = vendor.user and not vendor.password and not vendor.ready
    if asks and not settings.user:
        yield "the console asks for a user"
    networks = settings.wifi.networks
    if networks:
        more = f" and {len(networks) - 1} more" if len(networks) > 1 else ""
        yield f"wifi `{networks[0].ssid}`{more}"
    if installs := _installs_docker(settings, vendor):
        version = short(docker_version_of(settings, vendor))
        yield f"Docker{' ' * bool(version)}{version} installed at first boot {way}"
    elif vendor.docker is not None:
        yield "Docker in the image" if vendor.docker else "no Docker in the image"
    if settings.packages:
        yield f"{', '.join(settings.packages)} installed at first boot {way}"
    shack = settings.shack
    if shack and _joins(settings) and (installs or vendor.docker is not False):
        swarm = shack.kind == "swarm-mode" or settings.cluster.swarm_image
        yield f"joins {'the swarm' if swarm else 'consul'} at {shack.address}"


def apt_way(settings: NodeSettings) -> str:
    """Return on which way the apt of the Pi gets its packages."""
    shack = settings.shack
    through = shack and settings.apt_proxy and shack.url_host in settings.apt_proxy
    return "through the shack" if through else "from the network"
