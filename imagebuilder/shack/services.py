"""The services of the instructor's machine: one list for the compose file and the shell script."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from imagebuilder.errors import SettingsError
from imagebuilder.model import DOCKER_PORT, image_version

if TYPE_CHECKING:
    from imagebuilder.model import Classroom, NodeSettings, Secret, Shack


# Classic Swarm used other KV paths before 0.3, and consul had other flags before 0.6.
_SWARM_KV_MOVED = (0, 3)
_SWARM_KV_PATH = (1, 0, 1)  # takes --discovery-opt kv.path (docker/swarm pull request 1368)
_CONSUL_UI_FLAG = (0, 6)

# Swarm 1.2 and later cannot manage Docker before 1.8 (docker/swarm issues 2150 and 2330), which
# images of these generations may have.
_MANAGER = "swarm:1.2.9"
_MANAGER_OF_OLD_DOCKER = "swarm:1.1.3"
_GENERATIONS_OF_OLD_DOCKER = frozenset({"occidentalis"})
_DEFAULT_CONSUL_PORT = 8500
_TLS_FLAGS = (
    "--tlsverify",
    "--tlscacert=/tls/ca.pem",
    "--tlscert=/tls/cert.pem",
    "--tlskey=/tls/key.pem",
)

# Docker platforms by arch, lowest first: the lowest of a class runs on all of its boards.
_PLATFORMS = {"armv6": "linux/arm/v6", "armv7": "linux/arm/v7", "arm64": "linux/arm64"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """One container; `ports` and `volumes` as in `docker run`, `build` is a folder or ""."""

    name: str
    container: str
    image: str
    what: str
    port: int
    host_network: bool = False
    ports: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    env_file: str = ""
    build: str = ""

    @property
    def data(self) -> tuple[str, ...]:
        """The names of the volumes managed by Docker."""
        return tuple(v.partition(":")[0] for v in self.volumes if not v.startswith((".", "/")))


def plan_services(classroom: Classroom, shack: Shack) -> tuple[Service, ...]:
    """Return the services in starting order. Raise SettingsError if nodes could not join."""
    makers = {
        "registry": _registry,
        "mirror": _mirror,
        "apt": _apt,
        "ntp": _time,
        "web": _web,
    }
    return (
        _consul(classroom, shack),
        _manager(classroom, shack),
        *(make(shack) for name, make in makers.items() if name in shack.services),
    )


def uses_tls(classroom: Classroom) -> bool:
    """Return whether the Docker sockets of nodes need certificates of the class."""
    return any(node.docker.tls for node in classroom.nodes)


def encryption_key(classroom: Classroom) -> Secret | None:
    """Return the gossip key of the class. Raise SettingsError if nodes have different ones."""
    keys = {node.cluster.consul_encrypt for node in _joining(classroom)}
    if len(keys) > 1:
        raise SettingsError(
            "the nodes have different consul_encrypt keys",
            "set cluster.consul_encrypt once, at the top of the classroom file",
        )
    return next(iter(keys), None)


def swarm_path(classroom: Classroom) -> str:
    """Return the KV path where nodes register. Raise SettingsError if nodes have different ones."""
    paths = {node.cluster.swarm_path for node in _joining(classroom)}
    if len(paths) > 1:
        raise SettingsError(
            f"the nodes have different swarm_path values: {', '.join(sorted(paths))}",
            "set cluster.swarm_path once, at the top of the classroom file",
        )
    return next(iter(paths), "swarm")


def bootstrap_expect(classroom: Classroom) -> int:
    """Return the number of consul servers to wait for, including the shack.

    Raise SettingsError if there are fewer: they would never elect a leader.
    """
    nodes = _joining(classroom)
    expect = max((node.cluster.consul_bootstrap_expect for node in nodes), default=0) or 1
    servers = 1 + sum(node.cluster.consul_server for node in nodes)
    if expect > servers:
        raise SettingsError(
            f"consul_bootstrap_expect is {expect}, but there are {servers} consul servers",
            "lower it, or make more nodes consul servers",
        )
    return expect


def project_name(classroom: Classroom) -> str:
    """Return the prefix of a class's containers and volumes, unique on a shack of several classes.

    If the class is only named by its file, often `classroom`, its folder is part of the name.
    """
    stem = classroom.path.stem
    name = classroom.name if classroom.name != stem else f"{classroom.path.parent.name} {stem}"
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40]
    mark = "" if name.isascii() else f"-{_digest(name)}"
    return f"shack-{slug}{mark}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def class_images(classroom: Classroom, shack: Shack) -> tuple[str, ...]:
    """Return the container images that nodes pull from elsewhere, each once, in roster order."""
    names = [name for node in _joining(classroom) for name in _images_of(node, shack)]
    own = tuple(f"{host}:{shack.registry_port}/" for host in (shack.url_host, shack.hostname))
    return tuple(dict.fromkeys(name for name in names if name and not name.startswith(own)))


def _images_of(node: NodeSettings, shack: Shack) -> tuple[str, ...]:
    cluster = node.cluster
    swarm = () if shack.kind == "swarm-mode" else (cluster.swarm_image,)
    return (cluster.consul_image, *swarm, *cluster.images)


def class_platform(classroom: Classroom) -> str:
    """Return the Docker platform that all boards of the class can run."""
    archs = {node.arch for node in classroom.nodes}
    return next((_PLATFORMS[arch] for arch in _PLATFORMS if arch in archs), "linux/arm/v7")


def manager_image(classroom: Classroom, shack: Shack) -> str:
    """Return the image of the classic manager: as set, else one for the Docker of the class."""
    generations = {node.generation or node.image.generation for node in _joining(classroom)}
    old = not generations.isdisjoint(_GENERATIONS_OF_OLD_DOCKER)
    return shack.swarm_image or (_MANAGER_OF_OLD_DOCKER if old else _MANAGER)


def follows_addresses(image: str) -> bool:
    """Return whether a classic manager follows a node's address: 1.1.3 does, 0.2.0 does not."""
    return image_version(image) >= _SWARM_KV_MOVED


def _joining(classroom: Classroom) -> list[NodeSettings]:
    return [node for node in classroom.nodes if node.cluster.enabled]


def _consul(classroom: Classroom, shack: Shack) -> Service:
    key = encryption_key(classroom)
    # consul stores its first key with its data and ignores another one (serf/local.keyring).
    data = f"/consul/data/{_digest(key.reveal())}" if key else "/consul/data"
    return Service(
        name="consul",
        container="consul",
        image=shack.consul_image,
        what="members of the class (web page at /ui)",
        port=shack.consul_port,
        host_network=True,
        volumes=("consul-data:/consul/data",),
        command=_consul_command(shack, bootstrap_expect(classroom), data),
        env_file="consul.env" if key or classroom.ledger_consul else "",
    )


def _consul_command(shack: Shack, expect: int, data: str) -> tuple[str, ...]:
    # The entrypoint of dduportal/arm-consul adds `consul agent` and configures the UI itself.
    agent = () if "arm-consul" in shack.consul_image else ("agent",)
    new = image_version(shack.consul_image) >= _CONSUL_UI_FLAG
    words = [*agent, "-server", "-bootstrap-expect", str(expect), "-node", shack.hostname]
    words += ["-advertise", shack.address, "-client", "0.0.0.0"]  # noqa: S104 - for the class
    words += ["-data-dir", data] + (["-ui"] if new else [])
    if shack.consul_port != _DEFAULT_CONSUL_PORT:
        words += ["-http-port", str(shack.consul_port)]
    return tuple(words)


def _manager(classroom: Classroom, shack: Shack) -> Service:
    classic = Service(
        name="manager",
        container="swarmmanager",
        image=manager_image(classroom, shack),
        what="the Docker of the whole class",
        port=shack.swarm_port,
        ports=(f"{shack.swarm_port}:{DOCKER_PORT}",),
    )
    if shack.kind == "swarm-mode":
        return replace(
            classic,
            image=shack.web_image,
            what="a read-only view of this machine's swarm",
            command=("nginx", "-g", "daemon off;"),
            volumes=(
                "./manager/nginx.conf:/etc/nginx/nginx.conf:ro",
                "/var/run/docker.sock:/var/run/docker.sock",
            ),
        )
    tls = uses_tls(classroom)
    return replace(
        classic,
        command=_manage_command(classroom, shack, tls=tls),
        volumes=("./tls:/tls:ro",) if tls else (),
    )


def _manage_command(classroom: Classroom, shack: Shack, *, tls: bool) -> tuple[str, ...]:
    """Return the arguments of `swarm manage`, with the KV path that the nodes' version uses.

    Raise SettingsError if the manager cannot find them.
    """
    path, store = swarm_path(classroom), f"consul://{shack.url_host}:{shack.consul_port}"
    nodes = {image_version(f":{n.cluster.swarm_version}") for n in _joining(classroom)}
    old_nodes = {version < _SWARM_KV_MOVED for version in nodes}
    image = manager_image(classroom, shack)
    version = image_version(image)
    old_manager, knows_path = version < _SWARM_KV_MOVED, version >= _SWARM_KV_PATH
    found = {True} if old_manager else {True, False} if knows_path else {False}
    if len(old_nodes) > 1 or not old_nodes <= found:
        raise SettingsError(
            f"the swarm manager {image} cannot find nodes with these swarm versions",
            "use the same cluster.swarm_version for all nodes; versions before 0.3 need a manager "
            "before 0.3, or from 1.0.1",
        )
    verify = _TLS_FLAGS if tls else ()
    if True in old_nodes and not old_manager:
        return ("manage", *verify, "--discovery-opt", f"kv.path={path}", store)
    return ("manage", *verify, f"{store}/{path}")


def _registry(shack: Shack) -> Service:
    what = "the class's own images (push here)"
    return _distribution("registry", shack.registry_image, what, shack.registry_port)


def _mirror(shack: Shack) -> Service:
    what = "cache of Docker Hub (read only)"
    return _distribution("mirror", shack.registry_image, what, shack.mirror_port)


def _distribution(name: str, image: str, what: str, port: int) -> Service:
    """Return a service with the image `registry`: a registry or a mirror, by its config.yml."""
    return Service(
        name=name,
        container=f"shack-{name}",
        image=image,
        what=what,
        port=port,
        ports=(f"{port}:5000",),
        volumes=(
            f"./{name}/config.yml:/etc/docker/registry/config.yml:ro",
            f"{name}-data:/var/lib/registry",
        ),
    )


def _apt(shack: Shack) -> Service:
    return Service(
        name="apt",
        container="shack-apt",
        image=shack.apt_image or "rpi-image/apt-cacher-ng",
        what="Debian packages, downloaded once",
        port=shack.apt_port,
        ports=(f"{shack.apt_port}:3142",),
        volumes=("apt-data:/var/cache/apt-cacher-ng",),
        build="" if shack.apt_image else "./apt",
    )


def _time(shack: Shack) -> Service:
    return Service(
        name="time",
        container="shack-time",
        # Change the tag when ./time changes: compose does not build an existing image again.
        image=shack.ntp_image or "rpi-image/chrony:2",
        what="the time (NTP)",
        port=123,
        ports=("123:123/udp",),
        build="" if shack.ntp_image else "./time",
    )


def _web(shack: Shack) -> Service:
    return Service(
        name="web",
        container="shack-web",
        image=shack.web_image,
        what="the class page",
        port=shack.web_port,
        ports=(f"{shack.web_port}:80",),
        volumes=("./nginx.conf:/etc/nginx/nginx.conf:ro", "./web:/usr/share/nginx/html:ro"),
        command=("nginx", "-g", "daemon off;"),
    )
