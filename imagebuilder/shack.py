"""Writes what the instructor's machine runs, exports, labels; reads what the cards report."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from imagebuilder.bootfs import BootVolume
from imagebuilder.cluster import Client, ask_shack, parse_card_report
from imagebuilder.disk import boot_partition, read_partitions
from imagebuilder.errors import InputError, SettingsError, SourceError, WriteError
from imagebuilder.exports import EXPORTS, node_address
from imagebuilder.files import make_folder, write_file
from imagebuilder.keys import client_bundle, shack_certificate, with_identities
from imagebuilder.progress import SILENT
from imagebuilder.reading import open_raw
from imagebuilder.services import (
    bootstrap_expect,
    class_images,
    class_platform,
    encryption_key,
    plan_services,
    project_name,
    swarm_path,
    uses_tls,
)
from imagebuilder.template import compile_template

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from imagebuilder.model import Classroom, NodeSettings, OverlayFile, Shack
    from imagebuilder.presence import CardReport, Gathering
    from imagebuilder.progress import Voice

Kind = Literal["classic", "swarm-mode"]
PDF_SECONDS = 120
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
_BY_HAND = "give -o labels.html and print that from a browser"
STATUS_FILE = "rpi-image/status.json"
# Roster files that the class page offers; all of them hold public facts only.
PUBLISHED = ("hosts", "ssh-config", "known-hosts", "ansible")

_ONLY_WITH = {"registry": "registry", "mirror": "mirror", "apt": "apt", "time": "ntp", "web": "web"}
_ONLY_SERVICE_FILES = {"preload": "registry", "nginx.conf": "web"}
_SWARM_MODE_FILES = ("manager/", "publish-token")


@dataclass(frozen=True, slots=True)
class ShackFile:
    """One file of the shack's folder."""

    path: str
    data: bytes = dataclasses.field(repr=False)
    mode: int = 0o644


@dataclass(frozen=True, slots=True)
class NodeLine:
    """A node as the shack's pages show it."""

    hostname: str
    address: str
    profile: str
    arch: str
    seat: str
    owner: str


def plan_shack(
    classroom: Classroom,
    templates: Sequence[OverlayFile],
    kind: Kind | None = None,
    *,
    write: bool = True,
) -> tuple[ShackFile, ...]:
    """Render the shack's folder; the class's keys are made where they are missing.

    `write=False` keeps what it has to make in memory.
    """
    shack = shack_of(classroom, kind)
    classroom = with_identities(dataclasses.replace(classroom, shack=shack), write=write)
    if uses_tls(classroom):
        client_bundle(classroom, write=write)
    context = _context(classroom, shack)
    files = [_file(template, context) for template in templates if _wanted(template.path, shack)]
    if "web" in shack.services:
        files += _published(classroom)
    # Both generations of compose read the name of the project here.
    files.append(ShackFile(".env", f"COMPOSE_PROJECT_NAME={project_name(classroom)}\n".encode()))
    files += _secrets(classroom, shack, write=write)
    return tuple(sorted(files, key=lambda file: file.path))


def shack_of(classroom: Classroom, kind: Kind | None = None) -> Shack:
    """Give the class's shack; raises SettingsError where there is none."""
    if classroom.shack is None:
        raise SettingsError(
            f"{classroom.path.name} names no shack", "give shack: {address: …} in it"
        )
    return dataclasses.replace(classroom.shack, kind=kind or classroom.shack.kind)


def write_shack(files: Sequence[ShackFile], templates: Sequence[OverlayFile], folder: Path) -> None:
    """Write the folder; a file of ours that no longer belongs there goes, others stay."""
    planned = {file.path for file in files}
    known = {_target(template.path) for template in templates}
    try:
        for file in files:
            _write(folder / file.path, file.data, file.mode)
        for path in known - planned:
            (folder / path).unlink(missing_ok=True)
    except OSError as error:
        raise WriteError(
            f"cannot write {folder}: {error.strerror}", "check its rights and the room there"
        ) from error


def write_exports(classroom: Classroom, names: Iterable[str], folder: Path) -> tuple[Path, ...]:
    """Write the chosen exports into `folder` and give their paths."""
    written = []
    for name in names:
        path = folder / EXPORTS[name].file
        text = EXPORTS[name].render(classroom, folder.resolve())
        write_text(path, text, 0o755 if text.startswith("#!") else 0o644)
        written.append(path)
    return tuple(written)


def write_text(path: Path, text: str, mode: int = 0o644) -> None:
    """Write one file, whole or not at all; raises WriteError."""
    try:
        _write(path, text.encode(), mode)
    except OSError as error:
        raise WriteError(f"cannot write {path}: {error.strerror}", "check its rights") from error


# ---- labels


def write_labels_pdf(page: str, path: Path, search_path: str, voice: Voice = SILENT) -> None:
    """Print the label sheet to PDF with the first program of `search_path` that can."""
    programs = [shutil.which(name, path=search_path) for name in (*BROWSERS, "weasyprint")]
    printers = [Path(program) for program in programs if program]
    if not printers:
        raise InputError(
            "no program here makes PDF",
            f"install chromium or weasyprint, or {_BY_HAND}",
        )
    try:
        make_folder(path.parent)
        # Beside the PDF and by a visible name: a snap's Chromium sees neither /tmp nor dot folders.
        with tempfile.TemporaryDirectory(
            prefix="rpi-image-labels-", dir=path.parent.absolute(), ignore_cleanup_errors=True
        ) as folder:
            write_file(path, _print_pdf(page, Path(folder), printers, voice))
    except OSError as error:
        raise WriteError(f"cannot write {path}: {error.strerror}", "check its rights") from error


def _print_pdf(page: str, folder: Path, printers: Sequence[Path], voice: Voice) -> bytes:
    source, made = folder / "labels.html", folder / "labels.pdf"
    source.write_text(page, encoding="utf-8")
    for printer in printers:
        voice.note(f"printing to PDF with {printer.name}")
        if _succeeds(_pdf_command(printer, source, made)) and made.is_file():
            return made.read_bytes()
    names = ", ".join(printer.name for printer in printers)
    raise WriteError(f"{names} made no PDF", _BY_HAND)


def _succeeds(command: Sequence[str]) -> bool:
    try:
        done = subprocess.run(command, capture_output=True, timeout=PDF_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _pdf_command(printer: Path, source: Path, made: Path) -> list[str]:
    if printer.name not in BROWSERS:
        return [str(printer), str(source), str(made)]
    # Chromium refuses root with its sandbox; the page is our own.
    root = ["--no-sandbox"] if os.geteuid() == 0 else []
    browser = f"--user-data-dir={made.parent / 'browser'}"
    quiet = ["--headless", "--disable-gpu", "--no-pdf-header-footer"]
    return [str(printer), *root, *quiet, browser, f"--print-to-pdf={made}", source.as_uri()]


# ---- status


def gather(classroom: Classroom, *, timeout_seconds: float = 5.0) -> Gathering:
    """Ask the class's shack who is there, with the instructor's certificate where it is asked."""
    shack = shack_of(classroom)
    secure = uses_tls(classroom) and shack.kind == "classic"
    client = Client(client_bundle(classroom)) if secure else None
    return ask_shack(
        shack, swarm_path=swarm_path(classroom), client=client, timeout_seconds=timeout_seconds
    )


def read_card(path: Path) -> CardReport:
    """Read a card's status from its mounted boot partition, or from a device or image."""
    place = str(path)
    if path.is_dir():
        file = path / STATUS_FILE
        if not file.is_file():
            raise _silent_card(place)
        return parse_card_report(file.read_bytes(), place)
    with open_raw(path) as disk:
        volume = BootVolume(disk, boot_partition(disk, read_partitions(disk)))
        if not volume.exists(STATUS_FILE):
            raise _silent_card(place)
        return parse_card_report(volume.read(STATUS_FILE), place)


def _silent_card(place: str) -> SourceError:
    return SourceError(
        f"{place} holds no {STATUS_FILE}",
        "the Pi has not booted from this card yet, or this is not its boot partition",
    )


# ---- rendering


def _context(classroom: Classroom, shack: Shack) -> dict[str, object]:
    services = plan_services(classroom, shack)
    nodes = tuple(map(_line, classroom.nodes))
    return {
        "title": " ".join(classroom.name.split()),
        "source": classroom.path.name,
        "secrets": str(classroom.secrets),
        "project": project_name(classroom),
        "shack": shack,
        "kind": shack.kind,
        "services": services,
        "volumes": tuple(name for service in services for name in service.data),
        "nodes": nodes,
        "seats": any(node.seat not in ("", str(n)) for n, node in enumerate(nodes, start=1)),
        "owners": any(node.owner for node in nodes),
        "images": class_images(classroom, shack),
        "platform": class_platform(classroom),
        "expect": bootstrap_expect(classroom),
        "tls": uses_tls(classroom) and shack.kind == "classic",
        "sockets_are_open": has_open_socket(classroom),
        "files": tuple((EXPORTS[name].file, EXPORTS[name].reader) for name in PUBLISHED),
    }


def has_open_socket(classroom: Classroom) -> bool:
    """Say whether anyone on the network may use a node's Docker."""
    return any(node.docker.tcp and not node.docker.tls for node in classroom.nodes)


def _line(node: NodeSettings) -> NodeLine:
    return NodeLine(
        node.hostname, node_address(node), node.profile, node.arch, node.seat, node.owner
    )


def _file(template: OverlayFile, context: dict[str, object]) -> ShackFile:
    data = template.data
    if template.path.endswith(".j2"):
        data = compile_template(data.decode(), template.origin).render(context).encode()
    return ShackFile(_target(template.path), data, 0o755 if data.startswith(b"#!") else 0o644)


def _target(path: str) -> str:
    return path.removesuffix(".j2")


def _wanted(path: str, shack: Shack) -> bool:
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
    if key := encryption_key(classroom):
        # The official image writes this variable into a file of its own: no key in any argv.
        settings = json.dumps({"encrypt": key.reveal()})
        files.append(ShackFile("consul.env", f"CONSUL_LOCAL_CONFIG={settings}\n".encode(), 0o600))
    if uses_tls(classroom) and shack.kind == "classic":
        tls = shack_certificate(classroom, write=write)
        texts = {"ca": tls.ca, "cert": tls.certificate, "key": tls.key.reveal()}
        files += [ShackFile(f"tls/{n}.pem", text.encode(), 0o600) for n, text in texts.items()]
    return files


def _write(path: Path, data: bytes, mode: int) -> None:
    make_folder(path.parent)
    write_file(path, data, mode)
