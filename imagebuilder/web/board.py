"""Serve the class page with the card of each node; it answers GET for a few paths, nothing else."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from imagebuilder.errors import InputError, RpiImageError
from imagebuilder.flash.records.class_status import status_as_json
from imagebuilder.plan.overlays import load_overlay
from imagebuilder.resources import shipped_folder
from imagebuilder.shack.folder import board_page

if TYPE_CHECKING:
    from collections.abc import Callable

    from imagebuilder.errors import Problem
    from imagebuilder.flash.records.class_status import ClassStatus
    from imagebuilder.model import Classroom

HOST = "127.0.0.1"
CARDS, FINDINGS, STATIONS = "/api/cards", "/api/findings", "/api/stations"
MOST_FINDINGS = 50  # of `check` on the board
LOOK_SECONDS = 4.0  # the page asks every five; more pages cost nothing more
SOCKET_SECONDS = 10
_TYPES = {"html": "text/html", "js": "text/javascript", "css": "text/css"}
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


@dataclass(kw_only=True)
class BoardServer:
    """The board of one class; `look` returns what is known now, at most every few seconds."""

    classroom: Classroom
    look: Callable[[], ClassStatus]
    stations: Callable[[], list[dict[str, Any]]]
    findings: Callable[[], tuple[Problem, ...]]
    port: int
    _lock: threading.Lock = field(init=False, default_factory=threading.Lock)
    _told: bytes = field(init=False, default=b"")
    _looked: float = field(init=False, default=0.0)

    def open(self) -> ThreadingHTTPServer:
        """Return a server that listens. Raise InputError if the port is in use."""
        pages = {file.path.removeprefix("web"): file.data for file in board_page(self.classroom)}
        pages["/"] = pages["/index.html"]
        for file in load_overlay(shipped_folder("overlays") / "board"):
            pages[f"/{file.path}"] = file.data
        pages["/station"] = pages["/station.html"]
        answers = {
            CARDS: self.cards,
            FINDINGS: self._findings,
            STATIONS: lambda: json.dumps(self.stations()).encode(),
        }
        try:
            return ThreadingHTTPServer((HOST, self.port), _handler(pages, answers))
        except OSError as error:
            raise InputError(
                f"cannot listen on {HOST}:{self.port}: {error.strerror}", "choose another --port"
            ) from error

    def cards(self) -> bytes:
        """Return the answer about all nodes; looks again only after some seconds."""
        with self._lock:
            if not self._told or time.monotonic() - self._looked > LOOK_SECONDS:
                self._told = json.dumps(status_as_json(self.look())).encode()
                self._looked = time.monotonic()
            return self._told

    def _findings(self) -> bytes:
        """Return what `check` finds; the lines are those of the file."""
        found = [
            {
                "place": f"{p.file.name if p.file else ''}:{p.line or ''}".strip(":"),
                "what": "error" if p.severe else "warning",
                "message": p.message,
                "hint": p.hint,
            }
            for p in self.findings()[:MOST_FINDINGS]
        ]
        return json.dumps(found).encode()


def _handler(
    pages: dict[str, bytes], answers: dict[str, Callable[[], bytes]]
) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        """GET for the pages; the name of the host is checked, so that no foreign page can read."""

        timeout = SOCKET_SECONDS
        server_version = "rpi-image"
        sys_version = ""

        def do_GET(self) -> None:
            port = self.connection.getsockname()[1]
            if self.headers.get("Host", "") not in {f"{HOST}:{port}", f"localhost:{port}"}:
                self._answer(HTTPStatus.FORBIDDEN)
            elif self.path in answers:
                self._told(answers[self.path])
            elif self.path in pages:
                kind = _TYPES.get(self.path.rpartition(".")[2], "text/html")
                self._answer(HTTPStatus.OK, pages[self.path], f"{kind}; charset=utf-8")
            else:
                self._answer(HTTPStatus.NOT_FOUND)

        def _told(self, answer: Callable[[], bytes]) -> None:
            try:
                self._answer(HTTPStatus.OK, answer(), "application/json")
            except RpiImageError as error:  # the file is being edited, for example
                text = error.message.encode()
                self._answer(HTTPStatus.SERVICE_UNAVAILABLE, text, "text/plain; charset=utf-8")

        def _answer(self, status: HTTPStatus, body: bytes = b"", kind: str = "text/plain") -> None:
            self.send_response(status)
            for name, value in _HEADERS.items():
                self.send_header(name, value)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_words: object) -> None:
            """Log nothing: the library never prints."""

    return Handler
