"""Plan one image for a whole class: the files of each node, under a name its Pi can find.

This is for cards that are duplicated with other tools. The image is that of a node called
`unclaimed`; what differs for a node is in rpi-image/identities/. The installer on the Pi moves its
own files from there into place and removes the rest.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any

from imagebuilder.errors import Problem, SettingsError
from imagebuilder.model import BootEdit, Cluster, Network, NodePlan, NodeSettings
from imagebuilder.plan.card_layout import IDENTITIES, RECORD, TARBALLS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

UNCLAIMED = "unclaimed"


def identity_of(node: NodeSettings) -> str:
    """Return the name of a node's folder: by serial number, else by MAC, empty without both.

    /proc/cpuinfo shows the serial number with 8 or 16 hex digits; only the last 8 differ.
    """
    if node.serial:
        return f"serial-{node.serial.lower().removeprefix('0x')[-8:]}"
    return f"mac-{node.mac.lower().replace(':', '').replace('-', '')}" if node.mac else ""


def check_identities(nodes: Sequence[NodeSettings]) -> None:
    """Raise SettingsError with every node that a Pi could not identify itself as."""
    problems = [
        Problem(f"{node.hostname} has neither serial nor mac", "set one of them for the node")
        for node in nodes
        if not identity_of(node)
    ]
    seen: dict[str, str] = {}
    for node in nodes:
        earlier = seen.setdefault(identity_of(node), node.hostname)
        if identity_of(node) and earlier != node.hostname:
            problems.append(Problem(f"{node.hostname} and {earlier} have the same serial or mac"))
    if len({node.image for node in nodes}) > 1:
        problems.append(Problem("the nodes have different base images"))
    if problems:
        raise SettingsError(
            "one image cannot be used for these nodes",
            "the serial number of a board is in /proc/cpuinfo",
            tuple(problems),
        )  # fmt: skip


def unclaimed_node(nodes: Sequence[NodeSettings]) -> NodeSettings:
    """Return the settings of a board that is not in the roster: those that all nodes share.

    It has no address, keys or cluster of its own. A variable that differs between nodes is empty,
    because the templates still use it.
    """
    first = nodes[0]
    blank = NodeSettings(
        hostname=UNCLAIMED,
        profile=first.profile,
        arch=first.arch,
        machines=first.machines,
        image=first.image,
    )
    agreed: NodeSettings = _agreed(nodes, blank)
    same_extra = len({node.docker.extra for node in nodes}) == 1
    return replace(
        agreed,
        hostname=UNCLAIMED,
        machines=first.machines,
        network=Network(interface=first.network.interface),
        cluster=Cluster(enabled=False),
        docker=replace(
            agreed.docker, tls=False, tcp=False, extra=first.docker.extra if same_extra else ()
        ),
        variables=_agreed_variables(nodes),
        host_keys=(),
        docker_tls=None,
        # A board that is not in the roster may have no login: it only waits to be claimed.
        allow=(*first.allow, "no-login", "no-network"),
        serial="",
        mac="",
        seat="",
        owner="",
    )


def _agreed(values: Sequence[Any], blank: Any) -> Any:
    """Return what all values share: field by field, the common members of tuples, else `blank`."""
    first = values[0]
    if all(value == first for value in values):
        return first
    if is_dataclass(blank) and not isinstance(blank, type) and None not in values:
        parts = {
            field.name: _agreed(
                [getattr(v, field.name) for v in values], getattr(blank, field.name)
            )
            for field in fields(blank)
        }
        return replace(blank, **parts)
    if isinstance(blank, tuple):
        return tuple(part for part in first if all(part in value for value in values))
    return blank


def _agreed_variables(nodes: Sequence[NodeSettings]) -> tuple[tuple[str, str], ...]:
    given = [dict(node.variables) for node in nodes]
    return tuple(
        (name, value if all(other[name] == value for other in given) else "")
        for name, value in given[0].items()
        if all(name in other for other in given)
    )


def merge_plans(fallback: NodePlan, plans: Mapping[str, NodePlan]) -> NodePlan:
    """Return `fallback` with what differs for each node in the folder of its identity.

    `plans` maps names of `identity_of` to plans for the same base as `fallback`. The Pi only adds
    its own files, so files that not all nodes have are removed from the fallback.
    """
    shared = [
        kept
        for edit in fallback.edits
        for kept in _for_all(edit, plans.values(), shared=edit.path in _shared(fallback))
    ]
    shared += _tarballs_of_all(fallback, tuple(plans.values()))
    common = {edit.path.lower(): edit.data for edit in shared}
    own = [edit for name, plan in plans.items() for edit in _own_edits(name, plan, common)]
    digests = {name: plan.config_hash for name, plan in plans.items()} | {"": fallback.config_hash}
    whole = hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()
    warnings = dict.fromkeys(_warnings(fallback, plans.values()))
    return replace(
        fallback,
        config_hash=whole,
        edits=(*shared, *own),
        warnings=tuple(warnings),
    )


def _tarballs_of_all(fallback: NodePlan, plans: Sequence[NodePlan]) -> Iterable[BootEdit]:
    """Yield the container images that every node loads, once: thirty copies would not fit.

    `unclaimed` has no cluster and does not load them.
    """
    for edit in plans[0].edits:
        same = (_find(plan, edit.path) == edit for plan in plans)
        if edit.path.startswith(TARBALLS) and not _find(fallback, edit.path) and all(same):
            yield edit


def _warnings(fallback: NodePlan, plans: Iterable[NodePlan]) -> Iterable[str]:
    yield from fallback.warnings
    for plan in plans:
        yield from plan.warnings
        if _command_line(plan) != _command_line(fallback):
            yield f"{plan.hostname}: its words for {plan.cmdline} are ignored: all nodes share it"


def _command_line(plan: NodePlan) -> bytes:
    """Return the planned kernel command line without cloud-init's instance id."""
    edit = _find(plan, plan.cmdline)
    data = edit.data if edit else None
    return (data or b"").replace(f";i={plan.config_hash}".encode(), b"")


def _for_all(edit: BootEdit, plans: Iterable[NodePlan], *, shared: bool) -> Iterable[BootEdit]:
    """Yield the edit if every plan writes the file, a removal if one of them removes it."""
    found = [_find(plan, edit.path) for plan in plans]
    if shared or edit.data is None or all(same and same.data is not None for same in found):
        yield edit
    elif any(same and same.data is None for same in found):
        yield replace(edit, data=None)


def _shared(plan: NodePlan) -> frozenset[str]:
    """Return the paths of files that are the same for every node.

    The Pi never rewrites its kernel command line: after a power cut it would not boot. made.json
    is the record of the planner.
    """
    return frozenset({plan.cmdline, RECORD})


def _find(plan: NodePlan, path: str) -> BootEdit | None:
    """Return a plan's edit of a file, in any case as on FAT; None if there is none."""
    return next((edit for edit in plan.edits if edit.path.lower() == path.lower()), None)


def _own_edits(name: str, plan: NodePlan, common: Mapping[str, bytes | None]) -> Iterable[BootEdit]:
    for edit in plan.edits:
        if edit.data is None or edit.path in _shared(plan):
            continue
        if common.get(edit.path.lower()) != edit.data:
            yield BootEdit(f"{IDENTITIES}{name}/{edit.path}", edit.data)
