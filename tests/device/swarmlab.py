"""Two nodes and a shack in network namespaces of their own, each node with a real dockerd.

The shack holds a key-value store with consul's HTTP interface and a real Docker registry behind
a gate that can refuse. The images are stand-ins made by `docker import` of a busybox folder:
`consul` passes its port on to the shack it was told to join, `swarm` registers there as Swarm
0.2 does (the first failure ends it), or under the path of 0.3 and later (discovery/kv/kv.go).
Run as a script this file is the shack's server.
"""

from __future__ import annotations

import http.client
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

from imagebuilder.plan.overlays import node_overlay

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SHACK = "10.77.0.1"
SCRIPTS = {file.path: file.data for file in node_overlay()}
CONSUL_IMAGE = "standin/arm-consul:0.5.0"
SWARM_IMAGE = "standin/arm-swarm:0.2.0"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# The entrypoint of dduportal/arm-consul:0.5.0, in its Dockerfile.
START = """#!/bin/sh
exec consul agent -config-dir=/config $@
"""

CONSUL = """#!/bin/sh
echo "argv $*"
while [ $# -gt 0 ]; do
    case $1 in
        -retry-join) printf '#!/bin/sh\\nexec nc %s 8500\\n' "$2" >/forward ;;
        -config-file) echo "config $(cat "$2")" ;;
    esac
    shift
done
chmod 755 /forward
exec nc -ll -p 8500 -e /forward
"""

SWARM = """#!/bin/sh
echo "argv $*"
url=${4#consul://}
host=${url%%/*}
path=${url#*/}
[ "$2" = --addr ] || path=$path/docker/swarm/nodes
register() {
    printf 'PUT /v1/kv/%s/%s HTTP/1.0\\r\\nContent-Length: %s\\r\\n\\r\\n%s' \\
        "$path" "$1" "${#1}" "$1" | nc -w 5 "${host%:*}" "${host##*:}" | grep -q ' 200 '
}
register "$3" || { echo 'level=fatal msg="cannot register"'; exit 1; }
while sleep 1; do register "$3"; done
"""


@dataclass
class Machine:
    """A network namespace; what runs in it is started through `command`."""

    lab: str
    name: str
    folder: Path
    jobs: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def namespace(self) -> str:
        """Name for ip-netns(8)."""
        return f"{self.lab}-{self.name}"

    def command(self, *words: str | Path) -> list[str]:
        """Prefix a command; `ip netns exec` would hide the cgroups from dockerd."""
        return ["nsenter", f"--net=/var/run/netns/{self.namespace}", *map(str, words)]

    def run(self, *words: str | Path, check: bool = True, **environment: str) -> str:
        """Run a command in the namespace and give its output."""
        done = subprocess.run(
            self.command(*words),
            env={"PATH": PATH, "LC_ALL": "C.UTF-8", **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=180,
        )
        if check and done.returncode != 0:
            raise AssertionError(f"{words} gave {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout + (done.stderr if check else "")

    def start(self, log: str, *words: str | Path, **environment: str) -> subprocess.Popen[bytes]:
        """Start a program in the namespace, in a session of its own."""
        with (self.folder / log).open("ab") as out:
            job = subprocess.Popen(
                self.command(*words),
                env={"PATH": PATH, "LC_ALL": "C.UTF-8", **environment},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        self.jobs.append(job)
        return job

    def stop(self, job: subprocess.Popen[bytes]) -> None:
        """End a job of `start` and its children."""
        if job in self.jobs:
            self.jobs.remove(job)
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(job.pid, number)
            except ProcessLookupError:
                break
            try:
                job.wait(20)
                if number is signal.SIGTERM:
                    continue  # whatever else is left in the group
            except subprocess.TimeoutExpired:
                continue
        job.wait(20)

    def stop_all(self) -> None:
        """End every job of `start`."""
        for job in tuple(self.jobs):
            self.stop(job)


@dataclass
class Docker(Machine):
    """A machine with a dockerd."""

    daemon: subprocess.Popen[bytes] | None = None

    @property
    def socket(self) -> str:
        """Address of the daemon."""
        return f"unix://{self.folder}/d.sock"

    def docker(self, *words: str | Path, check: bool = True) -> str:
        """Run the docker client against this daemon."""
        home = str(self.folder)
        return self.run("docker", *words, check=check, DOCKER_HOST=self.socket, HOME=home).strip()

    def start_docker(self) -> None:
        """Start dockerd with an /etc/docker (and so an identity) and a name of its own."""
        etc = self.folder / "etc-docker"
        etc.mkdir(exist_ok=True)
        options = f"""--data-root {self.folder}/data --exec-root {self.folder}/x
            --pidfile {self.folder}/d.pid -H {self.socket} --insecure-registry {SHACK}:5000
            --shutdown-timeout 1"""
        script = f"""hostname {self.name} && mount --bind {etc} /etc/docker &&
            exec dockerd {" ".join(options.split())}"""
        Path("/etc/docker").mkdir(exist_ok=True)
        self.daemon = self.start("dockerd.log", "unshare", "-m", "-u", "sh", "-c", script)
        wait_for(lambda: self.docker("info", "-f", "{{.ID}}", check=False) and self._up(), 60)

    def _up(self) -> bool:
        return "Server Version" in self.docker("info", check=False)

    def stop_docker(self) -> None:
        """End dockerd as a shutdown does."""
        if self.daemon is not None:
            self.stop(self.daemon)
            self.daemon = None

    def clear(self) -> None:
        """Remove every container."""
        names = self.docker("ps", "-aq", check=False).split()
        if names:
            self.docker("rm", "-f", *names, check=False)


@dataclass
class Node(Docker):
    """A machine with the tree of a Pi's root that the node script looks after."""

    address: str = ""
    loop: subprocess.Popen[bytes] | None = None

    @property
    def root(self) -> Path:
        """The folder that stands for /."""
        return self.folder / "root"

    @property
    def state(self) -> Path:
        """/var/lib/rpi-image of the node."""
        return self.root / "var" / "lib" / "rpi-image"

    @property
    def card(self) -> Path:
        """rpi-image/ on the boot partition of the node."""
        return self.root / "boot" / "rpi-image"

    def set_address(self, address: str) -> None:
        """Return the interface this address and no other."""
        self.run("ip", "addr", "flush", "dev", "eth0")
        self.run("ip", "addr", "add", f"{address}/24", "dev", "eth0")
        self.address = address

    def new_boot(self) -> None:
        """Change what differs after a reboot."""
        random = self.root / "proc" / "sys" / "kernel" / "random"
        random.mkdir(parents=True, exist_ok=True)
        for name in ("boot_id", "uuid"):
            (random / name).write_text(f"{uuid.uuid4()}\n")
        (self.root / "run" / "rpi-image-node.pid").unlink(missing_ok=True)

    def fresh(self, **settings: str) -> None:
        """Lay out an installed node as its first boot leaves it, with these settings."""
        self.stop_script()
        self.clear()
        shutil.rmtree(self.root, ignore_errors=True)
        for folder in (self.state, self.card, self.root / "var" / "log"):
            folder.mkdir(parents=True)
        (self.state / "node").write_bytes(SCRIPTS["rpi-image/node"])
        (self.card / "install").write_bytes(SCRIPTS["rpi-image/install"])
        values = settings_of(self.name) | settings
        text = "".join(f"{name}={shlex.quote(value)}\n" for name, value in values.items())
        (self.state / "node.env").write_text(text)
        (self.card / "node.env").write_text(text)
        for name, value in (
            ("installed", values["RPI_IMAGE_HASH"]),
            ("scrubbed", values["RPI_IMAGE_HASH"]),
            ("install_time", "2026-11-22T09:00:00Z"),
            ("install_result", "ok"),
        ):
            (self.state / name).write_text(f"{value}\n")
        machine_id = self.root / "etc" / "machine-id"
        machine_id.parent.mkdir()
        machine_id.write_text(f"{uuid.uuid5(uuid.NAMESPACE_DNS, self.name).hex}\n")
        self.new_boot()

    def _environment(self) -> dict[str, str]:
        return {
            "RPI_IMAGE_ROOT": str(self.root),
            "RPI_IMAGE_PAUSE": "1",
            "RPI_IMAGE_CHECK": "1",
            "RPI_IMAGE_WAIT": "6",
            "RPI_IMAGE_SETTLE": "1",
            "DOCKER_HOST": self.socket,
            "HOME": str(self.folder),
        }

    def start_script(self) -> None:
        """Start the node script as the init system does."""
        self.loop = self.start("script.log", "sh", self.state / "node", **self._environment())

    def stop_script(self) -> None:
        """End the node script."""
        if self.loop is not None:
            self.stop(self.loop)
            self.loop = None
        (self.root / "run" / "rpi-image-node.pid").unlink(missing_ok=True)

    def once(self, shell: str = "sh") -> str:
        """Make one pass of the node script and give what it said."""
        words: list[str | Path] = ["busybox", "sh"] if shell == "busybox" else [shell]
        return self.run(*words, self.state / "node", "once", check=False, **self._environment())

    def status(self) -> dict[str, object]:
        """status.json on the boot partition."""
        path = self.card / "status.json"
        return dict(json.loads(path.read_text())) if path.exists() else {}

    def log(self) -> str:
        """Read the script's log on the root."""
        path = self.root / "var" / "log" / "rpi-image.log"
        return path.read_text() if path.exists() else ""

    def argv(self, container: str) -> str:
        """Read what the entrypoint of a stand-in container was called with."""
        lines = self.docker("logs", container, check=False).splitlines()
        return next((line[5:] for line in lines if line.startswith("argv ")), "")

    def container_id(self, container: str) -> str:
        """ID of a container, empty where there is none."""
        found = self.docker("ps", "-aq", "--no-trunc", "-f", f"name=^/?{container}$", check=False)
        return found.strip()


@dataclass
class Shack(Docker):
    """The shack: key-value store and registry; its dockerd is started where a test needs it."""

    server: subprocess.Popen[bytes] | None = None

    def start_server(self) -> None:
        """Start the key-value store; what it holds starts empty."""
        python: list[str | Path] = [sys.executable, Path(__file__).resolve()]
        self.server = self.start("server.log", *python, str(self.folder / "failures"))
        wait_for(lambda: "8300" in self.http("/v1/status/leader"), 20)

    def stop_server(self) -> None:
        """Turn the key-value store off."""
        if self.server is not None:
            self.stop(self.server)
            self.server = None

    def http(self, path: str, *options: str) -> str:
        """Ask the key-value store."""
        return self.run(
            "curl", "-s", "-m", "5", *options, f"http://127.0.0.1:8500{path}", check=False
        )

    def keys(self) -> list[str]:
        """Every key that is stored, but what nodes tell of themselves."""
        text = self.http("/v1/kv/?keys")
        found = list(json.loads(text)) if text.startswith("[") else []
        return [key for key in found if not key.startswith("rpi-image/nodes/")]

    def refuse_pulls(self, count: int) -> None:
        """Let the registry fail that many requests for a manifest."""
        (self.folder / "failures").write_text(str(count))

    def refused(self) -> int:
        """How many refusals are still to come."""
        return int((self.folder / "failures").read_text())

    def start_registry(self) -> None:
        """Start docker-registry behind the server's gate."""
        config = self.folder / "registry.yml"
        config.write_text(
            f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {self.folder}/registry}}}}\n"
            "http: {addr: 127.0.0.1:5001}\n"
        )
        self.start("registry.log", "docker-registry", "serve", config)
        wait_for(
            lambda: (
                "{}" in self.run("curl", "-s", "-m", "5", "http://127.0.0.1:5001/v2/", check=False)
            ),
            20,
        )


@dataclass(frozen=True)
class Lab:
    """The whole network."""

    shack: Shack
    nodes: tuple[Node, Node]


def settings_of(hostname: str) -> dict[str, str]:
    """Return what the plan renders into node.env for a node of this lab."""
    return {
        "RPI_IMAGE_HASH": "c0ffee" * 10 + "beef",
        "RPI_IMAGE_BUILT": "1700000000",
        "NODE_HOSTNAME": hostname,
        "NODE_ARCH": "armv7",
        "NODE_MACHINES": os.uname().machine,
        "NODE_GENERATION": "occidentalis",
        "DOCKER_OPTS": "",
        "DOCKER_TCP": "1",
        "DOCKER_PORT": "2375",
        "DOCKER_TLS": "0",
        "SHACK_ADDRESS": SHACK,
        "SHACK_HOSTNAME": "shack",
        "SHACK_KIND": "classic",
        "REGISTRY_ADDRESS": f"{SHACK}:5000",
        "CLUSTER": "1",
        "CONSUL_IMAGE": CONSUL_IMAGE,
        "CONSUL_VERSION": "0.5.0",
        "CONSUL_SERVER": "0",
        "CONSUL_BOOTSTRAP_EXPECT": "0",
        "CONSUL_ENCRYPT": "",
        "CONSUL_PORT": "8500",
        "SWARM_IMAGE": SWARM_IMAGE,
        "SWARM_VERSION": "0.2.0",
        "SWARM_PATH": "swarm",
        "CLUSTER_IMAGES": "",
        "UPGRADE": "0",
    }


def wait_for(check: Callable[[], object], seconds: float) -> None:
    """Wait until the check holds; an AssertionError where it never does."""
    end = time.monotonic() + seconds
    while not check():
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds} s")
        time.sleep(0.2)


def import_images(node: Node) -> None:
    """Make the stand-in images on one node."""
    folder = node.folder / "busybox"
    (folder / "bin").mkdir(parents=True)
    (folder / "tmp").mkdir()
    shutil.copy("/bin/busybox", folder / "bin" / "busybox")
    for applet in ("sh", "nc", "sleep", "cat", "grep", "chmod", "echo"):
        (folder / "bin" / applet).symlink_to("busybox")
    for name, text in (("start", START), ("consul", CONSUL), ("swarm", SWARM)):
        (folder / "bin" / name).write_text(text)
        (folder / "bin" / name).chmod(0o755)
    tar = node.folder / "busybox.tar"
    subprocess.run(["tar", "-C", folder, "-cf", tar, "."], check=True)
    node.docker("import", "--change", 'ENTRYPOINT ["/bin/start"]', tar, CONSUL_IMAGE)
    node.docker("import", "--change", 'ENTRYPOINT ["/bin/swarm"]', tar, SWARM_IMAGE)


def push_images(node: Node) -> None:
    """Put the stand-in images into the shack's registry."""
    for image in (CONSUL_IMAGE, SWARM_IMAGE):
        node.docker("tag", image, f"{SHACK}:5000/{image}")
        node.docker("push", f"{SHACK}:5000/{image}")
        node.docker("rmi", f"{SHACK}:5000/{image}")


@contextmanager
def open_lab() -> Iterator[Lab]:
    """Set everything up, and take everything down again."""
    lab = f"rl{uuid.uuid4().hex[:6]}"
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix=f"{lab}-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        shack = Shack(lab, "shack", folder / "s")
        nodes = (Node(lab, "pi-01", folder / "1"), Node(lab, "pi-02", folder / "2"))
        switch = stack.enter_context(open_switch(lab))
        for machine in (shack, *nodes):
            machine.folder.mkdir()
            stack.callback(_close, machine)
            plug_in(machine, switch)
        shack.run("ip", "addr", "add", f"{SHACK}/24", "dev", "eth0")
        for number, node in enumerate(nodes, 1):
            node.set_address(f"10.77.0.{10 + number}")
        shack.refuse_pulls(0)
        shack.start_registry()
        shack.start_server()
        for node in nodes:
            node.start_docker()
        import_images(nodes[0])
        push_images(nodes[0])
        yield Lab(shack, nodes)


@contextmanager
def open_switch(lab: str) -> Iterator[Machine]:
    """Make a switch: br0 in a namespace of its own.

    In the shack's it would obey the shack's iptables, where dockerd sets the policy of FORWARD to
    DROP: nodes could not reach each other.
    """
    switch = Machine(lab, "switch", Path())
    _open_namespace(switch)
    try:
        switch.run("ip", "link", "add", "br0", "type", "bridge")
        switch.run("ip", "link", "set", "br0", "up")
        yield switch
    finally:
        subprocess.run(["ip", "netns", "del", switch.namespace], check=False)


def plug_in(machine: Machine, switch: Machine) -> None:
    """Make the namespace of a machine, with a cable from its eth0 to the switch."""
    _open_namespace(machine)
    peer = ["type", "veth", "peer", "name", "eth0", "netns", machine.namespace]
    switch.run("ip", "link", "add", machine.name, *peer)
    switch.run("ip", "link", "set", machine.name, "master", "br0", "up")
    machine.run("ip", "link", "set", "eth0", "up")


def _open_namespace(machine: Machine) -> None:
    subprocess.run(["ip", "netns", "add", machine.namespace], check=True)
    machine.run("ip", "link", "set", "lo", "up")


def _close(machine: Docker) -> None:
    if isinstance(machine, Node):
        machine.stop_script()
    if machine.daemon is not None:
        machine.clear()
    machine.stop_all()
    subprocess.run(["ip", "netns", "del", machine.namespace], check=False)


# ---- the shack's server: consul's HTTP interface and the registry's gate


class _Store(BaseHTTPRequestHandler):
    """As much of consul's key-value interface as the nodes use."""

    keys: dict[str, bytes] = {}  # noqa: RUF012 # one store for all connections

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        key = path.removeprefix("/v1/kv/")
        if path == "/v1/status/leader":
            self._answer(200, f'"{SHACK}:8300"'.encode())
        elif query == "keys":
            self._answer(200, json.dumps(sorted(self.keys)).encode())
        elif key in self.keys:
            self._answer(200, self.keys[key])
        else:
            self._answer(404, b"")

    def do_PUT(self) -> None:
        length = int(self.headers["Content-Length"])
        self.keys[self.path.removeprefix("/v1/kv/")] = self.rfile.read(length)
        self._answer(200, b"true")

    def do_DELETE(self) -> None:
        self.keys.pop(self.path.removeprefix("/v1/kv/"), None)
        self._answer(200, b"true")

    def _answer(self, code: int, body: bytes) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class _Gate(BaseHTTPRequestHandler):
    """Passes everything on to docker-registry, but refuses as many manifests as it is told."""

    failures: Path

    def _pass_on(self) -> None:
        left = int(self.failures.read_text())
        if left and self.command == "GET" and "/manifests/" in self.path:
            self.failures.write_text(str(left - 1))
            self.send_error(503)
            return
        length = int(self.headers.get("Content-Length") or 0)
        link = http.client.HTTPConnection("127.0.0.1", 5001)
        names = {name: value for name, value in self.headers.items() if name != "Connection"}
        chunked = self.headers.get("Transfer-Encoding") == "chunked"
        body = self._chunks() if chunked else self.rfile.read(length)
        names.pop("Transfer-Encoding", None)
        names["Content-Length"] = str(len(body))
        link.request(self.command, self.path, body, names)
        answer = link.getresponse()
        data = answer.read()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name not in {"Content-Length", "Transfer-Encoding", "Date"}:
                self.send_header(name, value)
        size = answer.getheader("Content-Length") if self.command == "HEAD" else None
        self.send_header("Content-Length", size or str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _chunks(self) -> bytes:
        data = b""
        while size := int(self.rfile.readline(), 16):
            data += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return data

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = _pass_on  # noqa: N815


def main() -> None:
    """Serve the store on 8500 and the gate on 5000 until killed."""
    _Gate.failures = Path(sys.argv[1])
    gate = ThreadingHTTPServer(("0.0.0.0", 5000), _Gate)
    Thread(target=gate.serve_forever, daemon=True).start()
    ThreadingHTTPServer(("0.0.0.0", 8500), _Store).serve_forever()


if __name__ == "__main__":
    main()
