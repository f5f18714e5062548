"""Serve the class page with the card of each node; it answers GET for a few paths, nothing else."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from imagebuilder.errors import InputError
from imagebuilder.flash.records.class_status import status_as_json
from imagebuilder.plan.overlays import load_overlay
from imagebuilder.resources import shipped_folder
from imagebuilder.shack.folder import board_page

if TYPE_CHECKING:
    from collections.abc import Callable

    from imagebuilder.errors import Problem
    from imagebuilder.flash.records.class_status import ClassStatus
    from imagebuilder.model import Classroom
    from imagebuilder.web.local_server import LocalServer

CARDS, FINDINGS, STATIONS = "/api/cards", "/api/findings", "/api/stations"
MOST_FINDINGS = 50  # of `check` on the board
LOOK_SECONDS = 4.0  # the page asks every five; more pages cost nothing more


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

    def open(self) -> LocalServer:
        """Return a server that listens. Raise InputError if there can be none."""
        try:
            from imagebuilder.web.local_server import LocalServer  # noqa: PLC0415 - an extra
        except ImportError as error:
            hint = "pip install 'rpi-image[board]'"
            raise InputError("what serves the board is not installed", hint) from error
        answers = {
            CARDS: self.cards,
            FINDINGS: self._findings,
            STATIONS: lambda: json.dumps(self.stations()).encode(),
        }
        try:
            return LocalServer(self.port, self._pages(), answers)
        except OSError as error:
            raise InputError(
                f"cannot listen on port {self.port}: {error.strerror}", "choose another --port"
            ) from error

    def _pages(self) -> dict[str, bytes]:
        pages = {file.path.removeprefix("web"): file.data for file in board_page(self.classroom)}
        pages["/"] = pages["/index.html"]
        for file in load_overlay(shipped_folder("overlays") / "board"):
            pages[f"/{file.path}"] = file.data
        pages["/station"] = pages["/station.html"]
        return pages

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
