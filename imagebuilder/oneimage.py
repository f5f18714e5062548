"""One image for a whole class: every node's own files under a name the Pi can find by itself.

For people who duplicate cards with other tools. The image is that of a node called `unclaimed`;
what a node has otherwise lies in rpi-image/identities/, and the installer on the Pi moves its own
there into place and removes the rest.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import TYPE_CHECKING

from imagebuilder.errors import Problem, SettingsError
from imagebuilder.model import BootEdit, Cluster, Network, NodePlan

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from imagebuilder.model import NodeSettings

FOLDER = "rpi-image/identities"
UNCLAIMED = "unclaimed"

# The Pi never rewrites its kernel command line: a power cut there would brick it. The other two
# are the planner's own notes and stay those of the image.
SHARED = frozenset({"cmdline.txt", "rpi-image/made.json"})


def identity_of(node: NodeSettings) -> str:
    """Name a node's folder by its board's serial number, else by its MAC; empty without both.

    Serial numbers are hexadecimal and shown with 8 or 16 digits (/proc/cpuinfo); the last 8 differ.
    """
    if node.serial:
        return f"serial-{node.serial.lower().removeprefix('0x')[-8:]}"
    return f"mac-{node.mac.lower().replace(':', '').replace('-', '')}" if node.mac else ""


def check_identities(nodes: Sequence[NodeSettings]) -> None:
    """Raise SettingsError where a Pi could not tell which node it is, with every such node."""
    problems = [
        Problem(f"{node.hostname} has neither serial nor mac", "give one of them to the node")
        for node in nodes
        if not identity_of(node)
    ]
    seen: dict[str, str] = {}
    for node in nodes:
        earlier = seen.setdefault(identity_of(node), node.hostname)
        if identity_of(node) and earlier != node.hostname:
            problems.append(Problem(f"{node.hostname} and {earlier} are the same board"))
    if len({node.image for node in nodes}) > 1:
        problems.append(Problem("the nodes start from different images"))
    if problems:
        raise SettingsError(
            "one image cannot serve these nodes", "the board shows its serial in /proc/cpuinfo",
            tuple(problems),
        )  # fmt: skip


def unclaimed_node(node: NodeSettings) -> NodeSettings:
    """Give what a board becomes that is in no roster: no address, keys, or cluster of its own."""
    return replace(
        node,
        hostname=UNCLAIMED,
        network=Network(interface=node.network.interface),
        cluster=Cluster(enabled=False),
        docker=replace(node.docker, tls=False, tcp=False),
        host_keys=(),
        docker_tls=None,
        serial="",
        mac="",
        seat="",
        owner="",
    )


def merge_plans(fallback: NodePlan, plans: Mapping[str, NodePlan]) -> NodePlan:
    """Put what differs from `fallback` under each identity's folder; pure.

    `plans` maps the names of `identity_of` to plans over the same base as `fallback`.
    """
    common = {edit.path: edit.data for edit in fallback.edits}
    own = [edit for name, plan in plans.items() for edit in _own_edits(name, plan, common)]
    digests = {name: plan.config_hash for name, plan in plans.items()} | {"": fallback.config_hash}
    whole = hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()
    warnings = dict.fromkeys(w for plan in (fallback, *plans.values()) for w in plan.warnings)
    return replace(
        fallback,
        config_hash=whole,
        edits=(*fallback.edits, *own),
        warnings=tuple(warnings),
    )


def _own_edits(name: str, plan: NodePlan, common: Mapping[str, bytes | None]) -> Iterable[BootEdit]:
    for edit in plan.edits:
        if edit.data is None or edit.path in SHARED:
            continue
        if common.get(edit.path) != edit.data:
            yield BootEdit(f"{FOLDER}/{name}/{edit.path}", edit.data)
