"""A shack in a network namespace with a real dockerd, and light nodes beside it.

The images that the shack's compose file names are made by `docker import` from Debian's own
packages (docker-registry, apt-cacher-ng, chrony, nginx) and from a real consul where one is to be
had. Only classic Swarm's manager is a stand-in: it looks into consul's store as the real one does,
asks each engine for its name and gives the answer of `docker -H … info`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
import uuid
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.device.swarmlab import (
    SHACK,
    SWARM,
    Docker,
    Machine,
    Node,
    open_switch,
    plug_in,
    wait_for,
)
from tests.lib.real_consul import consul_program

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

CONSUL_IMAGE = "dduportal/arm-consul:0.5.0"
SWARM_IMAGE = "dduportal/arm-swarm:0.2.0"

MANAGER = """#!/bin/sh
echo "argv $*"
while [ $# -gt 1 ]; do
    case $1 in kv.path=*) path=/${1#kv.path=} ;; esac
    shift
done
url=${1#consul://}
store=${url%%/*}
case $url in */*) path=/${url#*/} ;; esac
printf '#!/bin/sh\\nexec /bin/answer %s %s\\n' "$store" "$path" >/serve
chmod 755 /serve
nc -ll -p 2375 -e /serve &
trap 'kill $!; exit 0' TERM
wait
"""

# Reads a request, looks for registered engines, asks each for its name and labels.
ANSWER = r"""#!/bin/sh
while read -r line && [ "$line" != "$(printf '\r')" ]; do :; done
count=0
rows=
for address in $(wget -qO- "http://$1/v1/kv$2/?keys" | tr -d '"[]' | tr , '\n'); do
    address=${address##*/}
    info=$(printf 'GET /info HTTP/1.0\r\n\r\n' | nc -w 3 "${address%:*}" "${address##*:}")
    case $info in *Name*) ;; *) continue ;; esac
    name=$(echo "$info" | sed -n 's/.*"Name": *"\([^"]*\)".*/\1/p')
    label=$(echo "$info" | sed -n 's/.*"Labels": *\["\([^"]*\)".*/\1/p')
    rows="$rows, [\"$name\", \"$address\"], [\" └ Containers\", \"2\"], [\" └ Labels\", \"$label\"]"
    count=$((count + 1))
done
head="[\"\\bStrategy\", \"spread\"], [\"\\bNodes\", \"$count\"]"
body="{\"Containers\": 0, \"DriverStatus\": [$head$rows]}"
printf 'HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n%s\n' "$body"
"""


@dataclass
class Pupil(Machine):
    """A node as the shack sees it: a consul client and a Docker engine's /info."""

    address: str = ""

    def join(self, arch: str = "armv7") -> None:
        """Start a real consul client and an engine; register the engine as `swarm join` does."""
        self.start(
            "consul.log", consul_program(), "agent", "-node", self.name, "-advertise", self.address,
            "-bind", self.address, "-client", "0.0.0.0", "-retry-join", SHACK,
            "-retry-interval", "1s", "-data-dir", self.folder / "consul",
        )  # fmt: skip
        serve_engine(self, arch)
        key = f"http://127.0.0.1:8500/v1/kv/swarm/{self.address}:2375"
        put = ("curl", "-fsS", "-m", "5", "-X", "PUT", "-d", f"{self.address}:2375", key)
        wait_for(lambda: "true" in self.run(*put, check=False), 30)


def serve_engine(machine: Machine, arch: str = "armv7") -> None:
    """Answer as a Docker engine with this label does when a manager asks who it is."""
    web = machine.folder / "engine"
    web.mkdir(exist_ok=True)
    (web / "info").write_text(json.dumps({"Name": machine.name, "Labels": [f"arch={arch}"]}))
    machine.start("engine.log", "busybox", "httpd", "-f", "-p", "2375", "-h", web)


@dataclass(frozen=True)
class ShackLab:
    """The instructor's machine, the nodes of its class, and the switch between them."""

    shack: Docker
    switch: Machine
    pupils: tuple[Pupil, ...]

    def make(self, folder: Path, target: str, *, check: bool = True) -> str:
        """Run make in the shack's folder on the shack, as its README says."""
        # A path that only has Debian's docker and docker-compose 1.29.
        return self.shack.run(
            "make", "-C", folder, target, "COMPOSE=docker-compose",
            check=check, DOCKER_HOST=self.shack.socket, HOME=str(self.shack.folder),
        )  # fmt: skip

    def get(self, url: str) -> str:
        """Ask something from a node's place on the network."""
        return self.pupils[0].run("curl", "-fsS", "-m", "10", url, check=False)


@contextmanager
def open_shack_lab(names: Sequence[str]) -> Iterator[ShackLab]:
    """Make the namespaces and the shack's dockerd with its images; take all down again."""
    lab = f"sl{uuid.uuid4().hex[:6]}"
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix=f"{lab}-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        shack = Docker(lab, "shack", folder / "s")
        pupils = tuple(
            Pupil(lab, name, folder / name, address=f"10.77.0.{10 + n}")
            for n, name in enumerate(names, start=1)
        )
        switch = stack.enter_context(open_switch(lab))
        for machine in (shack, *pupils):
            machine.folder.mkdir()
            stack.callback(close, machine)
            plug_in(machine, switch)
        shack.run("ip", "addr", "add", f"{SHACK}/24", "dev", "eth0")
        for pupil in pupils:
            pupil.run("ip", "addr", "add", f"{pupil.address}/24", "dev", "eth0")
        shack.start_docker()
        import_images(shack)
        yield ShackLab(shack, switch, pupils)


def close(machine: Machine) -> None:
    """End what runs on a machine, and the machine."""
    if isinstance(machine, Docker) and machine.daemon is not None:
        machine.docker("swarm", "leave", "--force", check=False)
        machine.clear()
    machine.stop_all()
    subprocess.run(["ip", "netns", "del", machine.namespace], check=False)


# ---- images from packages


def import_images(docker: Docker) -> None:
    """Make every image the compose file names, by its name."""
    sbin = Path("/usr/sbin")
    import_program(docker, "consul:1.15.4", consul_program(), entrypoint=["consul"])
    import_program(docker, "registry:2", Path("/usr/bin/docker-registry"),
                   entrypoint=["docker-registry", "serve"],
                   command=["/etc/docker/registry/config.yml"])  # fmt: skip
    import_program(docker, "nginx:1.26-alpine", sbin / "nginx",
                   folders=["/var/log/nginx", "/var/lib/nginx"])  # fmt: skip
    import_program(docker, "rpi-image/apt-cacher-ng", sbin / "apt-cacher-ng",
                   copies=["/etc/apt-cacher-ng", "/usr/lib/apt-cacher-ng"],
                   folders=["/var/cache/apt-cacher-ng", "/var/log/apt-cacher-ng",
                            "/run/apt-cacher-ng"],
                   command=["/usr/sbin/apt-cacher-ng", "-c", "/etc/apt-cacher-ng",
                            "ForeGround=1", "Port=3142"])  # fmt: skip
    conf = Path(__file__).parents[2] / "overlays" / "shack" / "time" / "chrony.conf"
    import_program(docker, "rpi-image/chrony:2", sbin / "chronyd",
                   files={"/etc/chrony/chrony.conf": conf.read_text()},
                   folders=["/var/lib/chrony", "/run/chrony"],
                   command=["/usr/sbin/chronyd", "-d", "-x", "-f", "/etc/chrony/chrony.conf"],
                   )  # fmt: skip
    import_program(docker, "swarm:1.2.9", Path("/bin/busybox"),
                   files={"/bin/swarm": MANAGER, "/bin/answer": ANSWER},
                   entrypoint=["/bin/swarm"])  # fmt: skip


# Like the entrypoint of dduportal/arm-consul:0.5.0, whose configuration says the rest.
START = """#!/bin/sh
exec consul agent -data-dir /tmp -client 0.0.0.0 $@
"""


def import_card_images(docker: Docker) -> None:
    """Make what the cards run: a real consul under its name of 2015, and swarm's stand-in."""
    import_program(docker, CONSUL_IMAGE, consul_program(), files={"/bin/start": START},
                   entrypoint=["/bin/start"])  # fmt: skip
    import_program(docker, SWARM_IMAGE, Path("/bin/busybox"), files={"/bin/swarm": SWARM},
                   entrypoint=["/bin/swarm"])  # fmt: skip


# As far as the image's own docker-entrypoint.sh is concerned with an agent.
TODAY = """#!/bin/sh
shift
exec consul agent -data-dir /tmp "$@"
"""
CONSUL_TODAY = "hashicorp/consul:1.15.4"


def import_todays_images(docker: Docker) -> None:
    """Make what cards run in swarm mode: a real consul, and a program for services."""
    import_program(docker, CONSUL_TODAY, consul_program(), entrypoint=["docker-entrypoint.sh"],
                   files={"/bin/docker-entrypoint.sh": TODAY})  # fmt: skip
    import_program(docker, "localhost:5000/sleep:1", Path("/bin/busybox"),
                   command=["/bin/busybox", "sleep", "9999"])  # fmt: skip
    docker.docker("push", "localhost:5000/sleep:1")


@contextmanager
def node_of(pupil: Pupil, **settings: str) -> Iterator[Node]:
    """Return a pupil's machine a real dockerd and the node script of the card."""
    node = Node(pupil.lab, pupil.name, pupil.folder / "node", address=pupil.address)
    node.folder.mkdir(exist_ok=True)
    try:
        node.start_docker()
        node.fresh(**{"CONSUL_IMAGE": CONSUL_IMAGE, "SWARM_IMAGE": SWARM_IMAGE} | settings)
        serve_engine(node)
        yield node
    finally:
        node.docker("swarm", "leave", "--force", check=False)
        node.clear()
        node.stop_all()


def import_program(  # noqa: PLR0917 - the parts of an image
    docker: Docker,
    name: str,
    program: Path,
    entrypoint: Sequence[str] = (),
    command: Sequence[str] = (),
    copies: Sequence[str] = (),
    folders: Sequence[str] = (),
    files: dict[str, str] | None = None,
) -> None:
    """Make an image of one program of this machine with the libraries it is linked to."""
    root = docker.folder / "root"
    place = "/bin" if program.name in ("busybox", "consul") else str(program.parent)
    _copy(program, root / place.lstrip("/") / program.name)
    for library in _libraries(program):
        _copy(library, root / str(library).lstrip("/"))
    for folder in ("/tmp", "/run", *folders):
        (root / folder.lstrip("/")).mkdir(parents=True, exist_ok=True)
        (root / folder.lstrip("/")).chmod(0o1777)
    for path in ("/etc/passwd", "/etc/group", "/etc/nsswitch.conf"):
        _copy(Path(path), root / path.lstrip("/"))
    for path in copies:
        shutil.copytree(path, root / path.lstrip("/"), symlinks=False, dirs_exist_ok=True,
                        ignore_dangling_symlinks=True)  # fmt: skip
    for path, text in (files or {}).items():
        (root / path.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
        (root / path.lstrip("/")).write_text(text)
        (root / path.lstrip("/")).chmod(0o755)
    if any(text.startswith("#!/bin/sh") for text in (files or {}).values()):
        _copy(Path("/bin/busybox"), root / "bin/busybox")
        for applet in ("sh", "nc", "wget", "tr", "sed", "cat", "chmod", "grep", "sleep"):
            (root / "bin" / applet).symlink_to("busybox")
    _import(docker, root, name, entrypoint, command)
    shutil.rmtree(root)


def _import(
    docker: Docker, root: Path, name: str, entrypoint: Sequence[str], command: Sequence[str]
) -> None:
    tar = docker.folder / "root.tar"
    subprocess.run(["tar", "-C", root, "-cf", tar, "."], check=True)
    changes = ["--change", "ENV PATH=/usr/sbin:/usr/bin:/sbin:/bin"]
    if entrypoint:
        changes += ["--change", f"ENTRYPOINT {json.dumps(list(entrypoint))}"]
    if command:
        changes += ["--change", f"CMD {json.dumps(list(command))}"]
    docker.docker("import", *changes, tar, name)
    tar.unlink()


def _libraries(program: Path) -> list[Path]:
    done = subprocess.run(["ldd", program], capture_output=True, text=True, check=False)
    return [Path(path) for path in re.findall(r"(/\S+) \(0x", done.stdout)]


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(os.path.realpath(source), target)
