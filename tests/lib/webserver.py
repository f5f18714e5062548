"""Web servers to download from: nginx as it is, and one in Python that misbehaves on order."""

from __future__ import annotations

import contextlib
import http.server
import os
import socket
import subprocess
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.lib.tools import need

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import pytest

_NGINX = """
daemon off;
master_process off;
{user}
pid {work}/nginx.pid;
error_log {work}/error.log info;
events {{ worker_connections 64; }}
http {{
  access_log {work}/access.log;
  client_body_temp_path {work}/a; proxy_temp_path {work}/b; fastcgi_temp_path {work}/c;
  uwsgi_temp_path {work}/d; scgi_temp_path {work}/e;
  server {{
    listen 127.0.0.1:{port};
    root {root};
    location / {{ limit_rate {rate}; }}
    location /moved/ {{ rewrite ^/moved/(.*)$ /$1 redirect; }}
    {more}
  }}
  {servers}
}}
"""


def without_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the environment name no proxy."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def free_port() -> int:
    """Return a port nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@dataclass
class Nginx:
    """A running nginx, and what it logged."""

    url: str
    work: Path

    def requests(self) -> list[str]:
        """Return the request lines with their status, as logged."""
        return [
            line.split('"', 1)[1] for line in (self.work / "access.log").read_text().splitlines()
        ]


@contextlib.contextmanager
def nginx(
    root: Path, work: Path, rate: str = "0", *, more: str = "", servers: str = ""
) -> Iterator[Nginx]:
    """Serve `root` by Debian's nginx, throttled to `rate` (500k, 0 for none) a connection.

    `more` goes into its server's configuration, `servers` beside it; PORT is the server's own.
    """
    (binary,) = need("nginx")
    work.mkdir(parents=True)
    port = free_port()
    user = "user root;" if os.geteuid() == 0 else ""
    conf = work / "nginx.conf"
    texts = {"more": more.replace("PORT", str(port)), "servers": servers.replace("PORT", str(port))}
    conf.write_text(_NGINX.format(work=work, root=root, port=port, rate=rate, user=user, **texts))
    server = subprocess.Popen(
        [binary, "-e", work / "error.log", "-p", work, "-c", conf], stderr=subprocess.DEVNULL
    )
    try:
        _wait_for(port)
        yield Nginx(f"http://127.0.0.1:{port}", work)
    finally:
        server.terminate()
        server.wait(10)


def _wait_for(port: int) -> None:
    for _ in range(200):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.025)
    raise TimeoutError(f"nothing listens on {port}")


@dataclass
class Page:
    """What the misbehaving server gives under a path, and in which ways it misbehaves."""

    data: bytes = b""
    status: int = 200
    etag: str = ""
    ranges: bool = True
    ignores_if_range: bool = False
    shifted_range: bool = False
    cuts: list[int] = field(default_factory=list)
    stalls: list[int] = field(default_factory=list)
    failures: list[int] = field(default_factory=list)
    length: bool = True
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Site:
    """The pages of the misbehaving server, and the requests that came."""

    url: str
    pages: dict[str, Page] = field(default_factory=dict)
    seen: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    def asked(self, path: str, header: str = "Range") -> list[str]:
        """Return that header of every request for `path`, empty where it had none."""
        return [headers.get(header, "") for name, headers in self.seen if name == path]


@contextlib.contextmanager
def misbehaving() -> Iterator[Site]:
    """Run the server whose pages the test fills in."""
    site = Site("")

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            site.seen.append((self.path, dict(self.headers.items())))
            page = site.pages.get(self.path, Page(b"no such page", status=404))
            with contextlib.suppress(ConnectionError):
                _answer(self, page)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    site.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _answer(handler: http.server.BaseHTTPRequestHandler, page: Page) -> None:
    if page.failures:
        _send(handler, page.failures.pop(0), {"Content-Length": "0"})
        return
    wanted = handler.headers.get("Range", "")
    condition = handler.headers.get("If-Range", "")
    fits = page.ignores_if_range or not condition or condition == page.etag
    start = int(wanted[6:].rstrip("-")) if wanted and page.ranges and fits else 0
    headers = dict(page.headers)
    if page.etag:
        headers["ETag"] = page.etag
    if start >= len(page.data) > 0:
        _send(handler, 416, {"Content-Length": "0", "Content-Range": f"bytes */{len(page.data)}"})
        return
    if start:
        shift = 1 if page.shifted_range else 0
        headers["Content-Range"] = f"bytes {start - shift}-{len(page.data) - 1}/{len(page.data)}"
    if page.length:
        headers["Content-Length"] = str(len(page.data) - start)
    else:
        headers["Connection"] = "close"
    _send(handler, 206 if start else page.status, headers)
    _send_body(handler, page, page.data[start:])


def _send(
    handler: http.server.BaseHTTPRequestHandler, status: int, headers: dict[str, str]
) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.end_headers()


def _send_body(handler: http.server.BaseHTTPRequestHandler, page: Page, body: bytes) -> None:
    if page.cuts or page.stalls or not page.length:
        handler.close_connection = True
    if page.cuts:
        body = body[: page.cuts.pop(0)]
    elif page.stalls:
        handler.wfile.write(body[: page.stalls.pop(0)])
        time.sleep(1)
        return
    handler.wfile.write(body)


@contextlib.contextmanager
def talking(talk: Callable[[socket.socket, bytes], object]) -> Iterator[tuple[str, list[bytes]]]:
    """Run a server that reads each request and lets `talk` answer it on the bare socket."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.05)
    ended, seen, threads = threading.Event(), list[bytes](), list[threading.Thread]()

    def answer(client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            request = b""
            while not request.endswith(b"\r\n\r\n") and (data := client.recv(65536)):
                request += data
            seen.append(request)
            talk(client, request)

    def serve() -> None:
        while not ended.is_set():
            with contextlib.suppress(TimeoutError):
                client, _ = listener.accept()
                threads.append(threading.Thread(target=answer, args=(client,), daemon=True))
                threads[-1].start()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", seen
    finally:
        ended.set()
        thread.join()
        listener.close()
        for one in threads:
            one.join(5)


@contextlib.contextmanager
def cutting_proxy(port: int, after_bytes: int) -> Iterator[str]:
    """Stand between a client and `port`; break the first connection that carries that much."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.1)
    ended = threading.Event()
    budget = [after_bytes]

    def pump(client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", port)) as upstream:
            sender = threading.Thread(target=_copy, args=(client, upstream, None), daemon=True)
            sender.start()
            _copy(upstream, client, budget)
            for side in (client, upstream):
                with contextlib.suppress(OSError):
                    side.shutdown(socket.SHUT_RDWR)
            sender.join()

    def serve() -> None:
        while not ended.is_set():
            with contextlib.suppress(TimeoutError):
                client, _ = listener.accept()
                threading.Thread(target=pump, args=(client,), daemon=True).start()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        ended.set()
        thread.join()
        listener.close()


def _copy(source: socket.socket, sink: socket.socket, budget: list[int] | None) -> None:
    """Copy until the end; with a budget, until it is spent for the first time."""
    carried = 0
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            carried += len(data)
            sink.sendall(data)
            if budget and carried >= budget[0]:
                budget.clear()
                return
