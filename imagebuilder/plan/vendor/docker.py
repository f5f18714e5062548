"""Which Docker an image gets, and which cluster it can join; the table in docs/docker.md.

The sources of the facts are in the table itself. A version is a text such as `26.1.5`, or
`17.05 or later` where only the oldest is known.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from imagebuilder.model import image_version

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from imagebuilder.model import ImageSource

DOCKER_PACKAGE = "docker.io"

# docker.io of the suites, which the Pi installs (packages.debian.org; Raspbian has the same).
DOCKER_OF_SUITE = {
    "buster": "18.09.1",
    "bullseye": "20.10.5",
    "bookworm": "20.10.24",
    "trixie": "26.1.5",
}
# Today's consul for swarm mode, by arch. Docker's official image has one for ARMv6 (platforms in
# docker-library/repo-info); that of HashiCorp has arm and arm64.
CONSUL_OF_ARCH = {
    "armv6": "consul:1.15.4",
    "armv7": "hashicorp/consul:1.15.4",
    "arm64": "hashicorp/consul:1.15.4",
}
# Suites whose packages are only on archive.debian.org and legacy.raspbian.org any more.
MOVED_SUITES = ("wheezy", "jessie", "stretch", "buster")

# Raspberry Pi OS by the date of its images (its release notes); the newest last.
_RASPIOS = (
    ("2019-06", "buster"),
    ("2021-10-30", "bullseye"),
    ("2023-10", "bookworm"),
    ("2025-10", "trixie"),
)
_SUITES = re.compile("|".join((*MOVED_SUITES, "bullseye", "bookworm", "trixie")))

# Container images pushed before Docker 1.10 (February 2016), which made the first of schema 2.
_SCHEMA_1 = re.compile(r"(?:^|/)dduportal/|(?:^|/)swarm:(?:0\.|1\.0)|(?:^|/)progrium/consul(?::|$)")


@dataclass(frozen=True, slots=True)
class Boundary:
    """From `version` on, Docker does or does not do what a cluster needs."""

    version: tuple[int, int]
    what: str
    source: str

    def reached(self, docker: str) -> bool | None:
        """Return whether a Docker is of this version or newer; None if it is not known."""
        found = re.match(r"(\d+)\.(\d+)", docker)
        if not found:
            return None
        if (int(found[1]), int(found[2])) >= self.version:
            return True
        return None if "later" in docker else False


SWARM_MODE = Boundary((1, 12), "has swarm mode", "release notes of Docker 1.12")
NO_OLD_API = Boundary(
    (25, 0),
    "refuses API versions before 1.24, which classic Swarm speaks",
    "release notes of Docker 25.0",
)
NO_SCHEMA_1 = Boundary((26, 0), "pulls no schema-1 images", "moby pull request 47459")
BOUNDARIES = (SWARM_MODE, NO_OLD_API, NO_SCHEMA_1)


def suite_by_name(image: ImageSource) -> str:
    """Return the suite that the name of an image tells; empty if it tells none."""
    name = image.name.lower()
    if found := _SUITES.search(name):
        return found[0]
    if not re.search("raspios|raspbian", name):
        return ""
    date = re.search(r"20\d\d-\d\d(?:-\d\d)?", name)
    if not date:
        return _RASPIOS[-1][1]
    return next((suite for first, suite in reversed(_RASPIOS) if date[0] >= first), "")


def apt_words(packages: Sequence[str], docker_version: str) -> tuple[str, ...]:
    """Return packages as apt-get takes them: that of Docker with the beginning of its version."""
    word = f"{DOCKER_PACKAGE}={docker_version}*" if docker_version else DOCKER_PACKAGE
    return tuple(word if name == DOCKER_PACKAGE else name for name in packages)


def short(docker: str) -> str:
    """Return a version as it is said: 26.1 for 26.1.5, and other texts as they are."""
    found = re.match(r"\d+\.\d+", docker)
    return found[0] if found and "later" not in docker else docker


def cluster_faults(kind: str, docker: str, images: Sequence[str], *, swarm: bool) -> Iterator[str]:
    """Yield why a Docker cannot join a cluster of a kind; nothing if it can, or nobody knows.

    `images` are the container images of the agents, `swarm` whether classic Swarm is one of them.
    """
    name = f"Docker {short(docker)}"
    if kind == "swarm-mode" and SWARM_MODE.reached(docker) is False:
        yield f"{name} has no swarm mode, which needs 1.12"
    if NO_SCHEMA_1.reached(docker):
        yield from (f"{name} {NO_SCHEMA_1.what}: {i}" for i in images if _SCHEMA_1.search(i))
    if kind == "classic" and swarm and NO_OLD_API.reached(docker):
        yield f"{name} {NO_OLD_API.what}"


def consul_today(image: str, arch: str) -> str:
    """Return today's consul in place of an image of schema 1 or none; empty if it stays."""
    return CONSUL_OF_ARCH.get(arch, "") if not image or _SCHEMA_1.search(image) else ""


def agent_faults(version: str, server_image: str) -> Iterator[str]:
    """Yield why a consul agent does not work with a server: servers are updated first.

    The source is "Upgrading Consul" in its documentation.
    """
    if not re.match(r"\d+\.\d+", version):
        return
    if image_version(f":{version}")[:2] > image_version(server_image)[:2]:
        yield f"consul {version} on the nodes is newer than that of the shack: {server_image}"


def fitting_kind(dockers: Sequence[str], *, classic: bool = True) -> str:
    """Return the kind of cluster for all of these; empty if there is none.

    `classic` says whether there is an agent of classic Swarm for all of them.
    """
    if classic and not any(NO_OLD_API.reached(docker) for docker in dockers):
        return "classic"
    return "" if any(SWARM_MODE.reached(docker) is False for docker in dockers) else "swarm-mode"


def boundary_rows() -> Iterator[tuple[str, str, str]]:
    """Yield version, what changes and the source, for the documentation."""
    for each in BOUNDARIES:
        yield f"{each.version[0]}.{each.version[1]}", each.what, each.source
