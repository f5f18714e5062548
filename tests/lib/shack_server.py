"""A real HTTP server that gives recorded answers, one for each path."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator, Mapping

RECORDINGS = Path(__file__).parent / "recordings"

One = bytes | tuple[int, bytes]
Answer = One | list[One]  # a list is given one after the other; its last one stays


@contextmanager
def answering(answers: Mapping[str, Answer], tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """Serve `answers` on 127.0.0.1 and give the port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = answers.get(self.path, (404, b""))
            if isinstance(answer, list):
                answer = answer.pop(0) if len(answer) > 1 else answer[0]
            status, body = answer if isinstance(answer, tuple) else (200, answer)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *words: object) -> None:
            del words

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        if tls:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        worker = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        worker.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            worker.join()


def consul_answers(version: str, path: str = "swarm") -> dict[str, Answer]:
    """Return what a consul of this version answered."""
    folder = RECORDINGS / f"consul-{version}"
    return {
        "/v1/status/leader": (folder / "status_leader.json").read_bytes(),
        "/v1/catalog/nodes": (folder / "catalog_nodes.json").read_bytes(),
        "/v1/health/state/any": (folder / "health_state_any.json").read_bytes(),
        f"/v1/kv/{path}/?recurse": (folder / "kv_swarm.json").read_bytes(),
    }


def manager_answers(version: str) -> dict[str, Answer]:
    """Return what a classic swarm manager of this version answers."""
    return {"/info": (RECORDINGS / f"swarm-{version}" / "info.json").read_bytes()}
