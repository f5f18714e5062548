"""The class page as the shack serves it: nginx with the shack's configuration, a real consul."""

from __future__ import annotations

import json
import subprocess
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from tests.lib.classroom_samples import SHACK, make_classroom
from tests.lib.real_consul import free_ports, running, wait_for
from tests.lib.shack_folder import written
from tests.lib.tools import need

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from imagebuilder.model import NodeSettings, OverlayFile


@dataclass
class Room:
    """A shack with a page; consul can be started and ended."""

    url: str
    consul: int
    folder: Path
    serf: int = 0

    @contextmanager
    def member(self, name: str) -> Iterator[None]:
        """Run a real consul client, as the one of a card, for the length of the block."""
        http, serf = free_ports(2)
        place = self.folder / name
        place.mkdir(exist_ok=True)
        ports = {"http": http, "serf_lan": serf, "serf_wan": -1, "dns": -1, "grpc": -1}
        config = place / "consul.json"
        config.write_text(json.dumps({"ports": ports}))
        words = ["-bind", "127.0.0.1", "-client", "127.0.0.1", "-node", name]
        words += ["-retry-join", f"127.0.0.1:{self.serf}", "-retry-interval", "1s"]
        words += ["-config-file", str(config), "-data-dir", str(place / "data")]
        with running(*words, log=place / "log"):
            yield

    @contextmanager
    def running_consul(self) -> Iterator[None]:
        ports = dict.fromkeys(("serf_wan", "dns", "grpc"), -1)
        (server, serf) = free_ports(2)
        self.serf = serf
        config = self.folder / "consul.json"
        config.write_text(
            json.dumps(
                {"ports": {"http": self.consul, "server": server, "serf_lan": serf, **ports}}
            )
        )
        words = ["-server", "-bootstrap-expect", "1", "-bind", "127.0.0.1"]
        words += ["-client", "127.0.0.1", "-node", "shack", "-config-file", str(config)]
        data = self.folder / "consul-data"
        with running(*words, "-data-dir", str(data), log=self.folder / "consul.log"):
            wait_for(f"http://127.0.0.1:{self.consul}/v1/status/leader", ":")
            yield

    def put(self, path: str, body: object) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        url = f"http://127.0.0.1:{self.consul}/v1/{path}"
        with urllib.request.urlopen(
            urllib.request.Request(url, data, method="PUT"), timeout=5
        ) as answer:
            assert answer.status == 200

    def join(self, name: str, address: str, *, lost: bool = False) -> None:
        # Consul removes a node with this check that it does not know from gossip.
        check = {"Node": name, "CheckID": "serfHealth", "Name": "serf", "Status": "critical"}
        more = {"Check": check} if lost else {}
        self.put("catalog/register", {"Node": name, "Address": address, **more})

    def tell(self, name: str, **document: object) -> None:
        told = {"updated": datetime.now(UTC).isoformat(), "error": "", **document}
        self.put(f"kv/rpi-image/nodes/{name}", told)


@contextmanager
def shack(
    folder: Path,
    templates: tuple[OverlayFile, ...],
    nodes: Sequence[NodeSettings],
    manager: int | None = None,
) -> Iterator[Room]:
    """Serve the page of a class by nginx, as its container does."""
    (nginx,) = need("nginx")
    consul, silent, web = free_ports(3)
    place = replace(SHACK, address="127.0.0.1", consul_port=consul, swarm_port=manager or silent)
    made = written(make_classroom(folder, *nodes, shack=place), templates, folder / "shack")
    text = (made / "nginx.conf").read_text()
    text = text.replace("listen 80 default_server", f"listen 127.0.0.1:{web}")
    text = text.replace("/usr/share/nginx/html", str(made / "web"))
    text = text.replace("/tmp/nginx.pid", str(folder / "pid"))
    (folder / "nginx.conf").write_text(f"user root;\n{text}")
    server = subprocess.Popen(
        [nginx, "-g", "daemon off;", "-e", "stderr", "-p", folder, "-c", folder / "nginx.conf"],
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(f"http://127.0.0.1:{web}/", "<main")
        yield Room(f"http://127.0.0.1:{web}/", consul, folder)
    finally:
        server.terminate()
        server.wait(10)
