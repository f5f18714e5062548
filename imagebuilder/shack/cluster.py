"""Query consul and the swarm manager of the shack over HTTP for the nodes of the class."""

from __future__ import annotations

import base64
import json
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import requests  # noqa: TID251 - one of the three modules that use HTTP

from imagebuilder.build.boot_folder import BootFolder
from imagebuilder.disk.fat.volume import BootVolume
from imagebuilder.disk.partitions import boot_partition, read_partitions
from imagebuilder.disk.reader import open_raw
from imagebuilder.errors import SourceError
from imagebuilder.images.deadline import Deadline
from imagebuilder.images.http_client import WatchedAdapter
from imagebuilder.plan.card_layout import STATUS
from imagebuilder.shack.folder import shack_of
from imagebuilder.shack.keystore import client_bundle
from imagebuilder.shack.node_progress import PREFIX, NodeProgress, parse_progress
from imagebuilder.shack.services import swarm_path, uses_tls
from imagebuilder.shack.status import NAMELESS, ClusterState, Engine, Member, PiReport, host_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from imagebuilder.model import Classroom, Shack
    from imagebuilder.plan.boot_files import BootFiles

T = TypeVar("T")
Entry = TypeVar("Entry", Member, Engine)
TIMEOUT_SECONDS = 5.0
# All queries of the shack together take at most this many times the time limit of one.
DEADLINE_TIMES = 3
# All answers of the shack together, and the lists, objects and values in each: some hundred MB in
# memory. 10,000 nodes in swarm mode have 30 MB with 1.5 million values.
MOST_BYTES = 32 << 20
MOST_VALUES = 2_000_000

# Results for a 404: a key that does not exist yet, or a path that a replacement of consul lacks.
_NOBODY: tuple[str, ...] = ()
_NO_CHECKS: list[dict[str, Any]] = []
_NO_PROGRESS: dict[str, NodeProgress] = {}
_UNTOLD = "untold"

# What parsing an unexpected answer can raise.
_MALFORMED = (LookupError, TypeError, ValueError, AttributeError, RecursionError)
_REPORT_KEYS = PiReport.__dataclass_fields__.keys() - {"place"}


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """The instructor's certificate for a manager with TLS (a DOCKER_CERT_PATH folder)."""

    folder: Path


def ask_shack(
    shack: Shack,
    *,
    swarm_path: str = "swarm",
    client: ClientCertificate | None = None,
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> ClusterState:
    """Return the state from consul and the manager.

    Raise SourceError if consul does not answer or has no leader. A replacement of consul may have
    no path for leader or checks: then the leader is empty, and no node counts as lost. If the
    manager does not answer, `manager_error` is set: consul alone shows which nodes have booted.
    `timeout_seconds` is for each wait; all queries together have some times as long.
    """
    with (
        requests.Session() as session,
        Deadline(DEADLINE_TIMES * timeout_seconds) as deadline,
    ):
        session.trust_env = False  # ignore HTTP_PROXY: the shack is on the local network
        for scheme in ("http://", "https://"):
            session.mount(scheme, WatchedAdapter())
        http = _JsonClient(session, timeout_seconds, deadline)
        cluster_state = _ask_consul(
            http, f"http://{shack.url_host}:{shack.consul_port}", swarm_path
        )
        try:
            engines = _ask_manager(http, shack, client)
        except SourceError as error:
            return replace(cluster_state, manager_error=error.message)
    return replace(cluster_state, engines=engines)


def _ask_consul(http: _JsonClient, url: str, swarm_path: str) -> ClusterState:
    leader = http.get(url, "/v1/status/leader", parse_leader, absent=_UNTOLD)
    if not leader:
        raise SourceError(
            f"consul at {url} has no leader yet",
            "wait half a minute, then check its log and consul_bootstrap_expect",
        )
    members = http.get(
        url,
        "/v1/catalog/nodes",
        lambda nodes: parse_members(
            nodes, http.get(url, "/v1/health/state/any", list, absent=_NO_CHECKS)
        ),
    )
    registered = http.get(url, f"/v1/kv/{swarm_path}/?recurse", parse_registered, absent=_NOBODY)
    told = partial(parse_progress, now=datetime.now(UTC))
    progress = http.get(url, f"/v1/kv/{PREFIX}?recurse", told, absent=_NO_PROGRESS)
    leader = "" if leader == _UNTOLD else leader
    return ClusterState(leader, members, registered=registered, progress=progress)


def _ask_manager(
    http: _JsonClient, shack: Shack, client: ClientCertificate | None
) -> tuple[Engine, ...]:
    if client is not None:
        http.authenticate(client)
    url = f"{'https' if client else 'http'}://{shack.url_host}:{shack.swarm_port}"
    if shack.kind == "swarm-mode":
        return http.get(url, "/nodes", parse_swarm_nodes)
    return http.get(url, "/info", parse_manager_info)


@dataclass
class _JsonClient:
    """One HTTP session; an answer that is not the expected JSON raises SourceError."""

    session: requests.Session
    timeout_seconds: float
    deadline: Deadline
    left_bytes: int = MOST_BYTES

    def authenticate(self, client: ClientCertificate) -> None:
        folder = client.folder
        self.session.verify = str(folder / "ca.pem")
        self.session.cert = (str(folder / "cert.pem"), str(folder / "key.pem"))

    def get(self, url: str, path: str, parse: Callable[[Any], T], absent: T | None = None) -> T:
        """Return a parsed answer, or `absent` for a 404. Raise SourceError on failure."""
        try:
            with self.session.get(
                url + path, timeout=self.timeout_seconds, allow_redirects=False, stream=True
            ) as answer:
                if answer.status_code == requests.codes.not_found and absent is not None:
                    return absent
                return parse(self._json(url + path, answer))
        except (requests.RequestException, OSError, *_MALFORMED) as error:
            if self.deadline.expired or isinstance(error, (requests.RequestException, OSError)):
                raise _unreachable(url, error, late=self.deadline.expired) from error
            raise SourceError(
                f"unexpected answer from {url}{path}",
                "check the address and ports of the shack: another program may listen there",
            ) from error

    def _json(self, url: str, answer: requests.Response) -> Any:
        data = b"".join(self._bounded(answer.iter_content(65536)))
        if answer.status_code != requests.codes.ok:
            words = " ".join(data.decode("utf-8", "replace").split())[:200]
            raise SourceError(
                f"{url} answered {answer.status_code}: {words}",
                "check the log of the service on the shack",
            )
        if sum(map(data.count, (b",", b"[", b"{"))) > MOST_VALUES:
            raise ValueError("too many values")
        return json.loads(data)

    def _bounded(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            self.left_bytes -= len(chunk)
            if self.left_bytes < 0:
                raise ValueError("too many bytes")
            yield chunk


def _unreachable(url: str, error: Exception, *, late: bool) -> SourceError:
    if late or isinstance(error, requests.Timeout):
        reason = "no answer in time"
    elif isinstance(error, requests.exceptions.SSLError):
        return SourceError(
            f"TLS verification failed between {url} and this machine",
            "write the shack again, so that it has the certificates of this class, and restart it",
        )
    else:
        reason = "refused" if "refused" in str(error) else "not reachable"
    return SourceError(
        f"the shack does not answer at {url}: {reason}",
        "check that it runs (make status in its folder) and that this machine is on its network",
    )


# ---- answers


def parse_leader(answer: Any) -> str:
    """Return the answer of /v1/status/leader: `host:8300`, or empty during an election."""
    if not isinstance(answer, str):
        raise TypeError(type(answer).__name__)
    return answer


def parse_members(nodes: list[dict[str, Any]], checks: list[dict[str, Any]]) -> tuple[Member, ...]:
    """Return the members in /v1/catalog/nodes and /v1/health/state/any (consul 0.5 to 1.x)."""
    lost = {
        check["Node"]
        for check in checks
        if check["CheckID"] == "serfHealth" and check["Status"] != "passing"
    }
    return tuple(
        _of_texts(Member(node["Node"], node["Address"], node["Node"] not in lost)) for node in nodes
    )


def _of_texts(found: Entry) -> Entry:
    """Return the entry. Raise TypeError if one of its values is not of the field's type."""
    for field in fields(found):
        if not isinstance(getattr(found, field.name), bool if field.type == "bool" else str):
            raise TypeError(f"{type(found).__name__}.{field.name}")
    return found


def parse_registered(entries: list[dict[str, Any]]) -> tuple[str, ...]:
    """Return the addresses that `swarm join` wrote to the KV store (base64 values)."""
    values = (base64.b64decode(entry["Value"] or "").decode() for entry in entries)
    return tuple(sorted({value for value in values if ":" in value}))


def parse_manager_info(info: dict[str, Any]) -> tuple[Engine, ...]:
    """Return the engines in /info of a classic manager.

    They are rows of DriverStatus (until API 1.21) or SystemStatus (since 1.22): a name with its
    `host:port`, then indented rows that begin with `└`. Swarm 0.2.0 puts a backspace before its
    own rows and has no health (cluster/swarm/cluster.go).
    """
    rows: list[list[str]] = info.get("SystemStatus") or info["DriverStatus"]
    start = [row[0].strip("\b ") for row in rows].index("Nodes")
    groups: list[list[tuple[str, str]]] = []
    for key, value in rows[start + 1 :]:
        if "└" in key:
            groups[-1].append((key.replace("└", "").strip(), value))
        else:
            groups.append([("Name", key.strip()), ("Address", value)])
    return tuple(_of_texts(_engine(dict(group))) for group in groups)


def _engine(row: dict[str, str]) -> Engine:
    labels = dict(part.partition("=")[::2] for part in row.get("Labels", "").split(", "))
    status, error = row.get("Status", "Healthy"), row.get("Error", "")
    return Engine(
        name="" if row["Name"] == NAMELESS else row["Name"],
        address=host_of(row["Address"]),
        healthy=status == "Healthy",
        status=status,
        error="" if error == "(none)" else error,
        arch=labels.get("arch", ""),
        version=row.get("ServerVersion", ""),
    )


def parse_swarm_nodes(nodes: list[dict[str, Any]]) -> tuple[Engine, ...]:
    """Return the engines in /nodes of a manager in swarm mode (Docker API)."""
    return tuple(_of_texts(_swarm_engine(node)) for node in nodes)


def _swarm_engine(node: dict[str, Any]) -> Engine:
    description, status = node["Description"], node["Status"]
    labels = description["Engine"].get("Labels") or {}
    return Engine(
        name=description["Hostname"],
        address=status.get("Addr", ""),
        healthy=status["State"] == "ready",
        status=status["State"],
        error=status.get("Message", "") if status["State"] != "ready" else "",
        arch=labels.get("arch", ""),
        machine=description["Platform"]["Architecture"],
        version=description["Engine"]["EngineVersion"],
        manager=node["Spec"]["Role"] == "manager",
    )


def parse_card_report(data: bytes, place: str) -> PiReport:
    """Return the content of a card's `rpi-image/status.json`; missing keys are empty.

    Raise SourceError if it is not complete JSON.
    """
    values = None
    with suppress(ValueError, RecursionError):
        values = json.loads(data)
    if not isinstance(values, dict):
        raise SourceError(
            f"the status file of {place} is incomplete",
            "boot the Pi again: it may have lost power while writing",
        )
    return PiReport(**{key: _word(values.get(key)) for key in _REPORT_KEYS}, place=place)


def _word(value: object) -> str:
    return "" if value is None else str(value)


# ---- status


def gather(classroom: Classroom, *, timeout_seconds: float = 5.0) -> ClusterState:
    """Return the state of the class's shack; use the instructor's certificate if it needs TLS."""
    shack = shack_of(classroom)
    secure = uses_tls(classroom) and shack.kind == "classic"
    client = ClientCertificate(client_bundle(classroom)) if secure else None
    return ask_shack(
        shack, swarm_path=swarm_path(classroom), client=client, timeout_seconds=timeout_seconds
    )


def read_card(path: Path) -> PiReport:
    """Return the status on a card: a mounted boot partition, a device or an image.

    Raise SourceError if the card has none.
    """
    place = str(path)
    if path.is_dir():
        return _card_report(BootFolder(path), place)
    with open_raw(path) as disk:
        return _card_report(BootVolume(disk, boot_partition(disk, read_partitions(disk))), place)


def _card_report(volume: BootFiles, place: str) -> PiReport:
    if not volume.exists(STATUS):
        raise SourceError(
            f"no {STATUS} on {place}",
            "boot the Pi from this card first, or check that this is its boot partition",
        )
    return parse_card_report(volume.read(STATUS), place)
