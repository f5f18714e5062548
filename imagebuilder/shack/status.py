"""Compare the roster with the state of consul and swarm."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from imagebuilder.model import Classroom, NodeSettings
    from imagebuilder.shack.node_progress import NodeProgress

State = Literal["joined", "missing", "unknown", "wrong-arch", "stale-address", "unhealthy"]

# A node has the worst state of its notes.
_WORST_FIRST: tuple[State, ...] = (
    "missing",
    "wrong-arch",
    "unhealthy",
    "stale-address",
    "unknown",
    "joined",
)
NAMELESS = "(unknown)"

# States of a node that no longer answers, in swarm mode (NodeState in the Docker API).
_SWARM_LOST = ("down", "disconnected")


@dataclass(frozen=True, slots=True)
class Member:
    """A node in consul's catalog; `alive` is the result of its serfHealth check."""

    name: str
    address: str
    alive: bool = True


@dataclass(frozen=True, slots=True)
class Engine:
    """A Docker engine in the manager's list; `arch` is its label, `machine` its platform."""

    name: str
    address: str
    healthy: bool = True
    status: str = ""
    error: str = ""
    arch: str = ""
    machine: str = ""
    version: str = ""
    manager: bool = False


@dataclass(frozen=True, slots=True)
class ClusterState:
    """The answers of the shack; `engines` is None if the manager did not answer.

    `leader` is empty if it is not known; `progress` is what nodes tell of themselves, by hostname.
    """

    leader: str
    members: tuple[Member, ...]
    engines: tuple[Engine, ...] | None = None
    registered: tuple[str, ...] = ()
    manager_error: str = ""
    progress: Mapping[str, NodeProgress] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PiReport:
    """The status that a Pi wrote to its boot partition (`rpi-image/status.json`)."""

    hostname: str = ""
    hash: str = ""
    installed: str = ""
    install: str = ""
    booted: str = ""
    address: str = ""
    arch: str = ""
    docker: str = ""
    consul: str = ""
    swarm: str = ""
    error: str = ""
    updated: str = ""
    place: str = ""


@dataclass(frozen=True, slots=True)
class StatusNote:
    """One note about a node: a state with details."""

    state: State
    detail: str = ""


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """One line of `status`: a node of the roster, or an unknown one."""

    hostname: str
    notes: tuple[StatusNote, ...]
    expected_address: str = ""
    address: str = ""
    arch: str = ""
    version: str = ""
    card: PiReport | None = None
    progress: NodeProgress | None = None

    @property
    def state(self) -> State:
        """The worst state of the notes."""
        found = {note.state for note in self.notes}
        return next((state for state in _WORST_FIRST if state in found), "joined")

    @property
    def detail(self) -> str:
        """The details of all notes, and how far the node says that it is."""
        words = [note.detail for note in self.notes]
        words.append(self.progress.words if self.progress else "")
        return "; ".join(filter(None, words))


def compare(
    classroom: Classroom, cluster_state: ClusterState, cards: Iterable[PiReport] = ()
) -> tuple[NodeStatus, ...]:
    """Return the state of each node: those of the roster in order, then unknown ones by name."""
    swarm_mode = classroom.shack is not None and classroom.shack.kind == "swarm-mode"
    known = {node.hostname for node in classroom.nodes}
    members = {
        member.name.lower(): member for member in _class_members(classroom, cluster_state.members)
    }
    if swarm_mode:
        # The swarm knows whether a node has joined; consul keeps entries of earlier configurations.
        members = {name: member for name, member in members.items() if name not in known}
    engines = _engines_by_name(classroom, cluster_state, members)
    rows = [
        _swarm_node_status(node, engines.get(node.hostname), cluster_state)
        if swarm_mode
        else _node_status(
            node, members.get(node.hostname), engines.get(node.hostname), cluster_state
        )
        for node in expected_nodes(classroom)
    ]
    names = sorted((members.keys() | engines.keys()) - known)
    rows += [_stranger(name, members.get(name), engines.get(name)) for name in names]
    if not swarm_mode:
        rows = _with_stale_registrations(classroom, cluster_state, rows)
    rows = [replace(row, progress=cluster_state.progress.get(row.hostname)) for row in rows]
    return with_cards(classroom, rows, cards)


def expected_nodes(classroom: Classroom) -> tuple[NodeSettings, ...]:
    """Return the nodes that should join the cluster."""
    return tuple(node for node in classroom.nodes if node.cluster.enabled)


def with_cards(
    classroom: Classroom,
    rows: Iterable[NodeStatus],
    cards: Iterable[PiReport],
    *,
    shack_answers: bool = True,
) -> tuple[NodeStatus, ...]:
    """Add the reports of cards to their nodes; cards of other nodes become lines of their own."""
    reports = {card.hostname.lower(): card for card in cards}
    nodes = {node.hostname: node for node in classroom.nodes}
    done = []
    for row in rows:
        card = reports.pop(row.hostname, None)
        done.append(row if card is None else _with_card(row, card, nodes.get(row.hostname)))
    for name, card in sorted(reports.items()):
        state: State = "missing" if name in nodes else "unknown"
        why = f"card {card.place}" if shack_answers else f"card {card.place}, shack not queried"
        row = NodeStatus(name, (StatusNote(state, why),))
        done.append(_with_card(row, card, nodes.get(name)))
    return tuple(done)


def summarise(rows: Iterable[NodeStatus]) -> dict[str, int]:
    """Return the number of nodes in each state, worst last."""
    counts: dict[str, int] = dict.fromkeys(reversed(_WORST_FIRST), 0)
    for row in rows:
        counts[row.state] += 1
    return counts


def everyone_joined(classroom: Classroom, rows: Iterable[NodeStatus]) -> bool:
    """Return whether all expected nodes have joined; unknown ones do not matter."""
    joined = {row.hostname for row in rows if row.state == "joined"}
    return joined.issuperset(node.hostname for node in expected_nodes(classroom))


def _node_status(
    node: NodeSettings, member: Member | None, engine: Engine | None, cluster_state: ClusterState
) -> NodeStatus:
    notes = (
        *_member_notes(member),
        *(_engine_notes(member, engine) if _has_engine(node, cluster_state) else ()),
        *_arch_notes(node, engine),
        *_address_notes(node, member, engine),
    )
    return _row(node, notes, engine, member.address if member else "")


def _swarm_node_status(
    node: NodeSettings, engine: Engine | None, cluster_state: ClusterState
) -> NodeStatus:
    notes = (
        *_swarm_notes(engine, cluster_state),
        *_arch_notes(node, engine),
        *_swarm_address_notes(node, engine),
    )
    return _row(node, notes, engine)


def _row(
    node: NodeSettings, notes: tuple[StatusNote, ...], engine: Engine | None, address: str = ""
) -> NodeStatus:
    return NodeStatus(
        node.hostname,
        notes or (StatusNote("joined"),),
        expected_address=node.network.fixed_address,
        address=address or (engine.address if engine else ""),
        arch=(engine.arch or engine.machine) if engine else "",
        version=engine.version if engine else "",
    )


def _swarm_notes(engine: Engine | None, cluster_state: ClusterState) -> list[StatusNote]:
    if cluster_state.engines is None:
        return [StatusNote("missing", "the manager does not answer")]
    if engine is None:
        return [StatusNote("missing", "not in the swarm")]
    if engine.healthy:
        return []
    state: State = "missing" if engine.status in _SWARM_LOST else "unhealthy"
    return [StatusNote(state, _engine_detail(engine))]


def _swarm_address_notes(node: NodeSettings, engine: Engine | None) -> list[StatusNote]:
    expected = node.network.fixed_address
    # A manager reports its own address as it was connected to, for example 127.0.0.1.
    if engine is None or engine.manager or not expected or engine.address in ("", expected):
        return []
    return [StatusNote("stale-address", f"has {engine.address}, expected {expected}")]


def _member_notes(member: Member | None) -> list[StatusNote]:
    if member is None:
        return [StatusNote("missing", "not in consul")]
    return [] if member.alive else [StatusNote("missing", "failed in consul")]


def _has_engine(node: NodeSettings, cluster_state: ClusterState) -> bool:
    """Return whether the manager should know the Docker of a node."""
    return cluster_state.engines is not None and bool(node.cluster.swarm_image)


def _engine_notes(member: Member | None, engine: Engine | None) -> list[StatusNote]:
    if engine is None:
        there = member is not None and member.alive
        return [StatusNote("unhealthy", "not known to the swarm manager")] if there else []
    return [] if engine.healthy else [StatusNote("unhealthy", _engine_detail(engine))]


def _engine_detail(engine: Engine) -> str:
    return f"engine: {' '.join(filter(None, (engine.status, engine.error)))}"


def _arch_notes(node: NodeSettings, engine: Engine | None) -> list[StatusNote]:
    if engine is None:
        return []
    if engine.machine and engine.machine not in node.machines:
        return [StatusNote("wrong-arch", f"is {engine.machine}, not of profile {node.profile}")]
    if engine.arch and engine.arch != node.arch:
        return [StatusNote("wrong-arch", f"labelled arch={engine.arch}, expected {node.arch}")]
    return []


def _address_notes(
    node: NodeSettings, member: Member | None, engine: Engine | None
) -> list[StatusNote]:
    expected = node.network.fixed_address
    notes = []
    if member and expected and member.address != expected:
        notes.append(StatusNote("stale-address", f"has {member.address}, expected {expected}"))
    if member and engine and engine.address not in ("", member.address):
        notes.append(
            StatusNote("stale-address", f"{engine.address} in swarm, {member.address} in consul")
        )
    return notes


def _stranger(name: str, member: Member | None, engine: Engine | None) -> NodeStatus:
    where = [place for place, found in (("consul", member), ("swarm", engine)) if found]
    return NodeStatus(
        name,
        (StatusNote("unknown", f"in {' and '.join(where)}, not in the roster"),),
        address=member.address if member else engine.address if engine else "",
        arch=engine.arch if engine else "",
        version=engine.version if engine else "",
    )


def _with_stale_registrations(
    classroom: Classroom, cluster_state: ClusterState, rows: list[NodeStatus]
) -> list[NodeStatus]:
    """Add lines for stale swarm keys: swarm 0.2.0 writes them without a TTL."""
    there = {row.address for row in rows} | {member.address for member in cluster_state.members}
    owners = {node.network.fixed_address: node.hostname for node in classroom.nodes}
    by_name = {row.hostname: row for row in rows}
    for address in sorted(cluster_state.registered):
        host = host_of(address)
        if host in there:
            continue
        name = owners.get(host, host)
        row = by_name.get(name) or NodeStatus(name, (), address=host)
        left = StatusNote("stale-address", f"{address} is still registered with swarm")
        kept = tuple(note for note in row.notes if note.state != "joined")
        by_name[name] = replace(row, notes=(*kept, left))
    return list(by_name.values())


def _class_members(classroom: Classroom, members: Iterable[Member]) -> list[Member]:
    """Return the members without the shack, which may have any name."""
    shack, roster = classroom.shack, {node.hostname for node in classroom.nodes}
    own = (shack.hostname, shack.address) if shack else ()
    return [m for m in members if m.name.lower() in roster or not {m.name, m.address} & {*own}]


def _engines_by_name(
    classroom: Classroom, cluster_state: ClusterState, members: dict[str, Member]
) -> dict[str, Engine]:
    """Return engines by hostname; one without a name yet is found by its address."""
    roster = {node.hostname for node in classroom.nodes}
    owners = {node.network.fixed_address: node.hostname for node in classroom.nodes}
    owners |= {member.address: name for name, member in members.items()}
    found: dict[str, Engine] = {}
    for engine in cluster_state.engines or ():
        name = engine.name.lower()
        if engine.manager and name not in roster:
            continue
        if name in ("", NAMELESS):
            name = owners.get(engine.address, engine.address)
        if name not in found or not found[name].healthy:
            found[name] = engine
    return found


def _with_card(row: NodeStatus, card: PiReport, node: NodeSettings | None) -> NodeStatus:
    notes = [note for note in row.notes if note.state != "joined"]
    if node and card.arch and card.arch not in node.machines:
        notes.append(StatusNote("wrong-arch", f"card: is {card.arch}"))
    if card.install.startswith("failed"):
        notes.append(StatusNote("unhealthy", f"card: install {card.install}"))
    if card.error:
        notes.append(StatusNote("unhealthy", f"card: {card.error}"))
    return replace(
        row,
        notes=tuple(notes) or row.notes,
        card=card,
        address=row.address or card.address,
        arch=row.arch or card.arch,
        version=row.version or card.docker,
    )


def host_of(address: str) -> str:
    """Return the host in `host:port`."""
    return address.rpartition(":")[0] or address
