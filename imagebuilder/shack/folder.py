"""Plan and write the folder with the services of the instructor's machine."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from imagebuilder.errors import SettingsError, WriteError
from imagebuilder.files import write_in_folder
from imagebuilder.plan.overlays import load_overlay
from imagebuilder.plan.templates import compile_template
from imagebuilder.progress import SILENT
from imagebuilder.resources import shipped_folder
from imagebuilder.shack.consul_access import access_files, acl_settings
from imagebuilder.shack.exports import EXPORTS
from imagebuilder.shack.keystore import (
    client_bundle,
    consul_tokens,
    shack_certificate,
    with_identities,
)
from imagebuilder.shack.node_progress import PREFIX
from imagebuilder.shack.services import (
    bootstrap_expect,
    class_images,
    class_platform,
    encryption_key,
    follows_addresses,
    manager_image,
    plan_services,
    project_name,
    swarm_path,
    uses_tls,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from imagebuilder.model import Classroom, NodeSettings, OverlayFile, Shack
    from imagebuilder.progress import Reporter

Kind = Literal["classic", "swarm-mode"]

# Exports on the class page; they contain nothing secret.
PUBLISHED = ("hosts", "ssh-config", "known-hosts", "ansible")
_ONLY_WITH = {"registry": "registry", "mirror": "mirror", "apt": "apt", "time": "ntp", "web": "web"}
_ONLY_SERVICE_FILES = {"preload": "registry", "nginx.conf": "web"}
_ACL_FILE = "consul-acl"
_SWARM_MODE_FILES = ("manager/", "publish-token")


@dataclass(frozen=True, slots=True)
class ShackFile:
    """One file in the folder of the shack."""

    path: str
    data: bytes = dataclasses.field(repr=False)
    mode: int = 0o644


@dataclass(frozen=True, slots=True)
class NodeRow:
    """A node as shown on the pages of the shack."""

    hostname: str
    address: str
    profile: str
    arch: str
    seat: str
    owner: str


def make_shack(
    classroom: Classroom,
    folder: Path,
    kind: Kind | None = None,
    reporter: Reporter = SILENT,
    *,
    write: bool = True,
) -> tuple[Path, ...]:
    """Write the folder of the instructor's machine; return the paths of its files.

    With `write=False` it is only planned.
    """
    templates = load_overlay(shipped_folder("overlays") / "shack")
    files = plan_shack(classroom, templates, kind, write=write)
    if write:
        write_shack(files, templates, folder)
        _report(classroom, shack_of(classroom, kind), folder, reporter)
    return tuple(folder / file.path for file in files)


def _report(classroom: Classroom, shack: Shack, folder: Path, reporter: Reporter) -> None:
    """Report open sockets, a different kind in the cards, and how to start the shack."""
    if has_open_socket(classroom) and not _acknowledged(classroom, "open-docker"):
        reporter.warn("the Docker sockets of the nodes have no password: keep this network closed")
    set_kind = classroom.shack.kind if classroom.shack else shack.kind
    if shack.kind != set_kind and not _acknowledged(classroom, "shack-kind"):
        reporter.warn(
            f"the nodes join a {set_kind} cluster: set shack.kind in "
            f"{classroom.path.name} to {shack.kind} and build them again"
        )
    reporter.note(f"start the shack on {shack.address} with: make -C {folder} up")


def _acknowledged(classroom: Classroom, word: str) -> bool:
    return all(word in node.allow for node in classroom.nodes)


def with_client_keys(classroom: Classroom) -> Classroom:
    """Return the classroom with the keys of its nodes; make those of the client if needed."""
    classroom = with_identities(classroom)
    if uses_tls(classroom):
        client_bundle(classroom)
    return classroom


def plan_shack(
    classroom: Classroom,
    templates: Sequence[OverlayFile],
    kind: Kind | None = None,
    *,
    write: bool = True,
) -> tuple[ShackFile, ...]:
    """Return the files of the shack's folder; make missing keys of the class.

    With `write=False` new keys stay in memory.
    """
    shack = shack_of(classroom, kind)
    classroom = with_identities(dataclasses.replace(classroom, shack=shack), write=write)
    if uses_tls(classroom):
        client_bundle(classroom, write=write)
    context = _context(classroom, shack)
    files = [_file(file, context) for file in templates if _wanted(file.path, classroom, shack)]
    if "web" in shack.services:
        files += _published(classroom)
    # docker-compose 1.x and `docker compose` both read the project name from .env.
    files.append(ShackFile(".env", f"COMPOSE_PROJECT_NAME={project_name(classroom)}\n".encode()))
    files += _secrets(classroom, shack, write=write)
    return tuple(sorted(files, key=lambda file: file.path))


def shack_of(classroom: Classroom, kind: Kind | None = None) -> Shack:
    """Return the shack of the class. Raise SettingsError if there is none."""
    if classroom.shack is None:
        raise SettingsError(
            f"{classroom.path.name} has no `shack:`", "add `shack: {address: …}` to it"
        )
    return dataclasses.replace(classroom.shack, kind=kind or classroom.shack.kind)


def write_shack(files: Sequence[ShackFile], templates: Sequence[OverlayFile], folder: Path) -> None:
    """Write the folder; remove our own files that are no longer needed, keep all others.

    Raise WriteError on failure.
    """
    planned = {file.path for file in files}
    known = {_target(template.path) for template in templates}
    try:
        for file in files:
            write_in_folder(folder / file.path, file.data, file.mode)
        for path in known - planned:
            (folder / path).unlink(missing_ok=True)
    except OSError as error:
        raise WriteError(
            f"cannot write {folder}: {error.strerror}", "check its permissions and the free space"
        ) from error


# ---- rendering


def _context(classroom: Classroom, shack: Shack) -> dict[str, object]:
    services = plan_services(classroom, shack)
    nodes = tuple(map(_row, classroom.nodes))
    return _page(classroom) | {
        "local": False,
        "source": classroom.path.name,
        "secrets": str(classroom.secrets),
        "project": project_name(classroom),
        "shack": shack,
        "kind": shack.kind,
        "follows": shack.kind != "classic" or follows_addresses(manager_image(classroom, shack)),
        "swarm_path": swarm_path(classroom),
        "services": services,
        "volumes": tuple(name for service in services for name in service.data),
        "seats": any(node.seat not in ("", str(n)) for n, node in enumerate(nodes, start=1)),
        "owners": any(node.owner for node in nodes),
        "images": class_images(classroom, shack),
        "platform": class_platform(classroom),
        "expect": bootstrap_expect(classroom),
        "tls": uses_tls(classroom) and shack.kind == "classic",
        "sockets_are_open": has_open_socket(classroom),
        "board_reads": board_reads(classroom, shack),
        "acl": bool(classroom.ledger_consul),
        "files": tuple((EXPORTS[name].file, EXPORTS[name].reader) for name in PUBLISHED),
    }


def board_page(classroom: Classroom) -> tuple[ShackFile, ...]:
    """Return the class page for the instructor's own machine, which reads the cards as well."""
    context = _page(classroom) | {
        "kind": "",
        "board_reads": (("cards",), ("findings",)),
        "local": True,
    }
    templates = load_overlay(shipped_folder("overlays") / "shack")
    return tuple(_file(file, context) for file in templates if file.path.startswith("web/"))


def board_reads(classroom: Classroom, shack: Shack) -> tuple[tuple[str, int, str, str], ...]:
    """Return what the class page may read: name, port of the shack, path and query.

    A manager with TLS needs the certificate of the instructor, which the page does not have.
    """
    consul = shack.consul_port
    reads = [("progress", consul, f"/v1/kv/{PREFIX}", "recurse")]
    if shack.kind == "classic":
        reads.append(("members", consul, "/v1/catalog/nodes", ""))
        reads.append(("checks", consul, "/v1/health/state/any", ""))
    if shack.kind == "swarm-mode" or not uses_tls(classroom):
        path = "/nodes" if shack.kind == "swarm-mode" else "/info"
        reads.append(("manager", shack.swarm_port, path, ""))
    return tuple(reads)


def _page(classroom: Classroom) -> dict[str, object]:
    title = " ".join(classroom.name.split())
    return {"title": title, "nodes": tuple(map(_row, classroom.nodes))}


def has_open_socket(classroom: Classroom) -> bool:
    """Return whether everyone on the network may use the Docker of a node."""
    return any(node.docker.tcp and not node.docker.tls for node in classroom.nodes)


def _row(node: NodeSettings) -> NodeRow:
    address = node.network.fixed_address
    return NodeRow(node.hostname, address, node.profile, node.arch, node.seat, node.owner)


def _file(template: OverlayFile, context: dict[str, object]) -> ShackFile:
    data = template.data
    if template.path.endswith(".j2"):
        data = compile_template(data.decode(), template.origin).render(context).encode()
    return ShackFile(_target(template.path), data, 0o755 if data.startswith(b"#!") else 0o644)


def _target(path: str) -> str:
    return path.removesuffix(".j2")


def _wanted(path: str, classroom: Classroom, shack: Shack) -> bool:
    if path.startswith(_ACL_FILE):
        return bool(classroom.ledger_consul)
    if path.startswith(_SWARM_MODE_FILES):
        return shack.kind == "swarm-mode"
    top = _target(path).partition("/")[0]
    needed = _ONLY_WITH.get(top) if "/" in path else _ONLY_SERVICE_FILES.get(top)
    return needed is None or needed in shack.services


def _published(classroom: Classroom) -> list[ShackFile]:
    return [
        ShackFile(
            f"web/{EXPORTS[name].file}", EXPORTS[name].render(classroom, Path("~/.ssh")).encode()
        )
        for name in PUBLISHED
    ]


def _secrets(classroom: Classroom, shack: Shack, *, write: bool) -> list[ShackFile]:
    files = []
    settings: dict[str, object] = {}
    if key := encryption_key(classroom):
        settings["encrypt"] = key.reveal()
    if classroom.ledger_consul:
        tokens = consul_tokens(classroom, write=write)
        settings["acl"] = acl_settings(shack, tokens)
        texts = access_files(classroom, shack, tokens)
        files += [ShackFile(path, text.encode(), 0o600) for path, text in texts.items()]
    if settings:
        # The entrypoint of the official image writes this variable to a file, so that the key is
        # not in the process list.
        line = f"CONSUL_LOCAL_CONFIG={json.dumps(settings)}\n"
        files.append(ShackFile("consul.env", line.encode(), 0o600))
    if uses_tls(classroom) and shack.kind == "classic":
        tls = shack_certificate(classroom, write=write)
        texts = {"ca": tls.ca, "cert": tls.certificate, "key": tls.key.reveal()}
        files += [ShackFile(f"tls/{n}.pem", text.encode(), 0o600) for n, text in texts.items()]
    return files
