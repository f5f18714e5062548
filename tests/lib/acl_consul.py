"""A real consul with the ACLs of a class, set up by the files of its shack."""

from __future__ import annotations

import json
import subprocess
import threading
import urllib.error
import urllib.request
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from select import select
from socket import create_connection, socket
from socketserver import BaseRequestHandler, ThreadingTCPServer
from typing import TYPE_CHECKING

from tests.lib.classroom_samples import SHACK, make_classroom
from tests.lib.real_consul import free_ports, running, wait_for
from tests.lib.shack_folder import written
from tests.lib.tools import need

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from imagebuilder.model import Classroom, NodeSettings, OverlayFile


@dataclass
class AclConsul:
    """A consul that a class uses for its ledger; `folder` is that of the shack."""

    classroom: Classroom
    folder: Path
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def token(self, name: str) -> str:
        return (self.classroom.secrets / "consul" / name).read_text()

    def ask(self, method: str, path: str, body: object = None, *, token: str = "") -> int:
        """Return the status of a request, with one of the tokens or as anyone."""
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        headers = {"X-Consul-Token": self.token(token)} if token else {}
        request = urllib.request.Request(f"{self.url}/v1/{path}", data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code


@contextmanager
def acl_consul(
    folder: Path, templates: tuple[OverlayFile, ...], nodes: Sequence[NodeSettings] = ()
) -> Iterator[AclConsul]:
    """Start Debian's consul with the settings of `consul.env`, and run `consul-acl`."""
    need("curl")
    http, server, serf = free_ports(3)
    place = replace(SHACK, address="127.0.0.1", consul_port=http, consul_image="consul:1.8.7")
    room = make_classroom(folder, *nodes, shack=place, ledger_consul=f"http://127.0.0.1:{http}")
    made = AclConsul(room, written(room, templates, folder / "shack"), http)
    settings = json.loads((made.folder / "consul.env").read_text().partition("=")[2])
    ports = {"http": http, "server": server, "serf_lan": serf, "serf_wan": -1, "dns": -1}
    config = folder / "consul.json"
    config.write_text(json.dumps(settings | {"ports": {**ports, "grpc": -1}}))
    words = ["-server", "-bootstrap-expect", "1", "-bind", "127.0.0.1", "-client", "127.0.0.1"]
    words += ["-node", place.hostname, "-config-file", str(config)]
    with running(*words, "-data-dir", folder / "consul-data", log=folder / "consul.log"):
        wait_for(f"{made.url}/v1/status/leader", ":")
        subprocess.run(["sh", made.folder / "consul-acl"], check=True, capture_output=True)
        yield made


@dataclass
class Cable:
    """A connection to a server that can be pulled: what is under way is lost."""

    target: int
    pulled: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def plugged(self) -> Iterator[int]:
        """Pass connections on; yield the port to use instead of that of the server."""
        cable = self

        class Handler(BaseRequestHandler):
            def handle(self) -> None:
                if not cable.pulled.is_set():
                    with create_connection(("127.0.0.1", cable.target)) as far:
                        cable.carry(self.request, far)

        with Server(("127.0.0.1", 0), Handler) as server:
            worker = threading.Thread(target=server.serve_forever, args=(0.05,))
            worker.start()
            try:
                yield server.server_address[1]
            finally:
                self.pull()
                server.shutdown()
                worker.join()

    def pull(self) -> None:
        self.pulled.set()

    def plug(self) -> None:
        self.pulled.clear()

    def carry(self, near: socket, far: socket) -> None:
        """Pass on what either side says, until one ends or the cable is pulled."""
        other = {near: far, far: near}
        with suppress(OSError):
            while not self.pulled.is_set():
                for one in select([near, far], [], [], 0.05)[0]:
                    data = one.recv(65536)
                    other[one].sendall(data)
                    if not data:
                        return


class Server(ThreadingTCPServer):
    daemon_threads = False
    allow_reuse_address = True
