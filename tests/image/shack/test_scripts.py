"""The scripts of the shack, run by their real shells beside recorders and real services."""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import subprocess
import tempfile
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from imagebuilder.model import (
    Cluster,
    OverlayFile,
    Secret,
    Shack,
)
from imagebuilder.shack.folder import Kind, plan_shack
from imagebuilder.shack.services import project_name
from tests.lib.classroom_samples import SHACK, make_classroom, node
from tests.lib.real_consul import consul_program, free_ports, running, wait_for
from tests.lib.shack_folder import (
    KINDS,
    called,
    command_of,
    make,
    recorder,
    text_of,
    written,
)
from tests.lib.shack_server import answering
from tests.lib.tools import need, need_root, run

# A proxy that nobody answers at, by the names that curl looks for.
PROXY = {"http_proxy": "http://127.0.0.1:9", "ALL_PROXY": "http://127.0.0.1:9", "no_proxy": ""}


# ---- scripts


@pytest.mark.parametrize("kind", KINDS)
def test_shellcheck_has_nothing_to_say(
    kind: Kind, templates: tuple[OverlayFile, ...], tmp_path: Path
) -> None:
    need("shellcheck")
    nasty = make_classroom(tmp_path, node(1, owner="it's `id` $(id)"), name="3b's $(touch x)")
    folder = written(nasty, templates, tmp_path / "shack", kind)
    scripts = [path for path in folder.iterdir() if path.is_file() and os.access(path, os.X_OK)]
    assert len(scripts) >= 4
    run("shellcheck", "-s", "sh", "-S", "warning", *scripts)


def test_make_up_checks_then_starts(templates: tuple[OverlayFile, ...], tmp_path: Path) -> None:
    need("make")
    folder = written(make_classroom(tmp_path), templates, tmp_path / "shack")
    environment = recorder(tmp_path)
    subprocess.run(["make", "up"], cwd=folder, env=environment, check=True, capture_output=True)
    assert called(tmp_path)[-1] == "compose up -d"
    subprocess.run(["make", "down"], cwd=folder, env=environment, check=True, capture_output=True)
    assert called(tmp_path)[-1] == "compose down"
    listed = subprocess.run(
        ["make", "--no-print-directory"], cwd=folder, capture_output=True, text=True, check=True
    )
    assert [line.split()[1] for line in listed.stdout.splitlines()] == [
        "help", "up", "down", "status", "preload", "logs",
    ]  # fmt: skip


def test_a_compose_that_does_not_run_is_none(
    templates: tuple[OverlayFile, ...], tmp_path: Path
) -> None:
    folder = written(make_classroom(tmp_path), templates, tmp_path / "shack")
    environment = recorder(tmp_path)
    broken = "#!/bin/sh\necho \"ModuleNotFoundError: No module named 'distutils'\" >&2\nexit 1\n"
    (tmp_path / "bin" / "docker-compose").write_text(broken)
    assert make(folder, "up", environment).returncode == 0
    assert sum(line.startswith("docker run ") for line in called(tmp_path)) == 7
    assert make(folder, "down", environment).returncode == 0
    assert called(tmp_path)[-1].startswith("docker rm -f shack-web ")
    assert make(folder, "logs", environment).returncode == 0
    assert "docker logs -f --tail 20 swarmmanager" in called(tmp_path)


@pytest.mark.parametrize("shell", [["dash"], ["busybox", "sh"]])
def test_the_logs_of_all_are_followed_until_ctrl_c(
    shell: list[str], templates: tuple[OverlayFile, ...], tmp_path: Path
) -> None:
    need("dash", "busybox")
    folder = written(make_classroom(tmp_path), templates, tmp_path / "shack")
    environment = recorder(tmp_path)
    follow = f'#!/bin/sh\necho $$ >> {tmp_path}/jobs\necho "hello from $5"\nexec sleep 60\n'
    (tmp_path / "bin" / "docker").write_text(follow)
    following = subprocess.Popen(
        [*shell, folder / "shack.sh", "logs"], env={**environment, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert following.stdout is not None
    said = {following.stdout.readline() for _ in range(7)}
    assert {"consul: hello from consul\n", "shack-web: hello from shack-web\n"} <= said
    following.send_signal(signal.SIGINT)
    code = following.wait(10)
    following.stdout.close()
    assert code == 130
    for job in (tmp_path / "jobs").read_text().split():
        assert ended(job)
    assert not list(tmp_path.glob("tmp.*"))


def ended(job: str) -> bool:
    """Return whether a process is gone, or about to be collected, within a second."""
    for _ in range(20):
        try:
            if Path("/proc", job, "stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.05)
    return False


def test_what_an_old_compose_left_aside_is_removed_and_made_anew(
    templates: tuple[OverlayFile, ...], tmp_path: Path
) -> None:
    folder = written(make_classroom(tmp_path), templates, tmp_path / "shack")
    environment = recorder(tmp_path)
    docker = tmp_path / "bin" / "docker"
    docker.write_text(
        docker.read_text() + 'case "$*" in *Label*) echo consul shack-class-3b ;;'
        ' "ps "*) echo consul; echo 0123456789ab_mine; echo 0123456789ab_consul ;; esac\n'
    )
    # compose 1.29 with Docker 25: the one attempt fails, and the old container keeps another name.
    (tmp_path / "bin" / "docker-compose").write_text(
        f'#!/bin/sh\necho "compose $*" >> {tmp_path}/log\n'
        f'case $1 in up) grep -q "rm -f" {tmp_path}/log ;; esac\n'
    )
    assert make(folder, "up", environment).returncode == 0
    assert [line for line in called(tmp_path) if "up -d" in line or " rm " in line] == [
        "compose up -d", "docker rm -f 0123456789ab_consul", "compose up -d",
    ]  # fmt: skip


@pytest.mark.parametrize("owner", ["consul shack-class-4c", "consul shack", "consul "])
def test_the_containers_of_another_shack_are_named_and_kept(
    owner: str, templates: tuple[OverlayFile, ...], tmp_path: Path
) -> None:
    folder = written(make_classroom(tmp_path), templates, tmp_path / "shack")
    environment = recorder(tmp_path)
    docker = tmp_path / "bin" / "docker"
    lines = f'echo "{owner}"; echo "shack-web shack-class-3b"; echo "consul2 mine"'
    docker.write_text(docker.read_text() + f'case "$*" in *Label*) {lines} ;; esac\n')
    done = make(folder, "up", environment)
    assert done.returncode != 0
    assert "error: there are containers of another shack: consul \n" in done.stderr
    assert "docker rm -f consul (" in done.stderr
    assert "compose up -d" not in called(tmp_path)


def test_each_class_has_containers_and_volumes_of_its_own(tmp_path: Path) -> None:
    def named(name: str, *path: str) -> str:
        return project_name(make_classroom(tmp_path, name=name, path=tmp_path.joinpath(*path)))

    assert named("3b & 3c", "a", "classroom.yml") == "shack-3b-3c"
    assert named("classroom", "3B", "classroom.yml") == "shack-3b-classroom"
    assert named("classroom", "4c", "classroom.yml") == "shack-4c-classroom"
    assert named("Класс 5", "classroom.yml") != named("Клас 5", "classroom.yml")


def test_docker_compose_asks_for_the_class_s_own_project(
    templates: tuple[OverlayFile, ...], tmp_path: Path
) -> None:
    need("docker-compose")
    asked: list[str] = []

    class Daemon(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            body = b"[]" if "/containers/json" in self.path else b'{"message": "no such thing"}'
            self.send_response(200 if body == b"[]" else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *words: object) -> None:
            del words

    folder = written(make_classroom(tmp_path), templates, tmp_path / "shack")
    with ThreadingHTTPServer(("127.0.0.1", 0), Daemon) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        host = f"tcp://127.0.0.1:{server.server_port}"
        subprocess.run(
            ["docker-compose", "ps", "-q"], cwd=folder, check=True, capture_output=True,
            env={**os.environ, "DOCKER_HOST": host, "COMPOSE_API_VERSION": "1.40"},
        )  # fmt: skip
        server.shutdown()
    wanted = "com.docker.compose.project%3Dshack-class-3b%22"
    assert [path for path in asked if "/containers/json" in path and wanted in path]


def test_the_plain_script_uses_the_volumes_of_compose(
    templates: tuple[OverlayFile, ...], tmp_path: Path
) -> None:
    script = text_of(plan_shack(make_classroom(tmp_path), templates), "shack.sh")
    assert "-v 'shack-class-3b_registry-data:/var/lib/registry'" in script
    assert "-v 'shack-class-3b_consul-data:/consul/data'" in script


def test_a_new_gossip_key_is_the_one_that_consul_uses(
    templates: tuple[OverlayFile, ...], tmp_path: Path
) -> None:
    consul_program()
    http, server = free_ports(2)
    ports = {"http": http, "server": server, "serf_lan": server + 1, "serf_wan": -1, "dns": -1}
    (tmp_path / "ports.json").write_text(json.dumps({"ports": ports}))
    url = f"http://127.0.0.1:{http}/v1"
    for key in (base64.b64encode(bytes([n]) * 16).decode() for n in (1, 2)):
        keyed = make_classroom(tmp_path, node(1, cluster=Cluster(consul_encrypt=Secret(key))))
        words = command_of(keyed, templates, "consul")
        data = words[words.index("-data-dir") + 1].replace("/consul/data", str(tmp_path / "data"))
        with running(
            "-server", "-bootstrap-expect", "1", "-bind", "127.0.0.1", "-data-dir", data,
            "-encrypt", key, "-config-file", tmp_path / "ports.json", log=tmp_path / "log",
        ):  # fmt: skip
            wait_for(f"{url}/status/leader", ":")
            wait_for(f"{url}/operator/keyring", f'"{key}":1', seconds=20)


def test_another_failure_of_compose_stops_nothing(
    templates: tuple[OverlayFile, ...], tmp_path: Path
) -> None:
    folder = written(make_classroom(tmp_path), templates, tmp_path / "shack")
    environment = recorder(tmp_path)
    (tmp_path / "bin" / "docker-compose").write_text(
        f'#!/bin/sh\necho "compose $*" >> {tmp_path}/log\n[ "$1" != up ]\n'
    )
    assert make(folder, "up", environment).returncode != 0
    assert called(tmp_path).count("compose up -d") == 1
    assert not any(" rm " in line or " down" in line for line in called(tmp_path))


def test_without_compose_the_plain_script_starts_all(
    templates: tuple[OverlayFile, ...], tmp_path: Path
) -> None:
    folder = written(make_classroom(tmp_path), templates, tmp_path / "shack")
    environment = recorder(tmp_path)
    for _ in range(2):
        subprocess.run(
            ["sh", folder / "shack.sh", "up"], env=environment, check=True, capture_output=True
        )
    runs = [line for line in called(tmp_path) if line.startswith("docker run")]
    assert len(runs) == 14
    assert runs[0].endswith("-data-dir /consul/data -ui")
    assert f"-v {folder}/registry/config.yml:/etc/docker/registry/config.yml:ro" in runs[2]
    names = [line.split()[3] for line in runs[:7]]
    removed = [line.split()[3] for line in called(tmp_path) if line.startswith("docker rm")]
    assert removed[:7] == names


@pytest.mark.parametrize(
    ("address", "complaint"),
    [("192.168.2.2", "does not have the address"), ("192.168.2.10", "does not have the address")],
)
def test_a_machine_without_the_address_is_no_shack(
    address: str, complaint: str, templates: tuple[OverlayFile, ...], tmp_path: Path
) -> None:
    classroom = make_classroom(tmp_path, shack=Shack(address))
    folder = written(classroom, templates, tmp_path / "shack")
    environment = recorder(tmp_path)
    done = subprocess.run(
        ["make", "up"], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert complaint in done.stderr
    assert not any(line.startswith("compose up") for line in called(tmp_path))


def test_a_user_whom_docker_does_not_let_in_is_told_so(
    templates: tuple[OverlayFile, ...], tmp_path_factory: pytest.TempPathFactory
) -> None:
    need_root()
    need("docker", "setpriv", "make")
    # Not under tmp_path, whose parents are closed to everyone else.
    with tempfile.TemporaryDirectory() as place, socket.socket(socket.AF_UNIX) as docker:
        folder = written(
            make_classroom(tmp_path_factory.mktemp("room")), templates, Path(place, "shack")
        )
        os.chmod(place, 0o755)  # noqa: PTH101, S103
        docker.bind(f"{place}/docker.sock")
        os.chmod(f"{place}/docker.sock", 0o660)  # noqa: PTH101
        docker.listen()
        done = subprocess.run(
            ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "make", "up"],
            cwd=folder, capture_output=True, text=True, check=False,
            env={**os.environ, "DOCKER_HOST": f"unix://{place}/docker.sock", "HOME": place},
        )  # fmt: skip
    assert done.returncode != 0
    assert "error: no permission to use docker" in done.stderr
    assert 'usermod -aG docker "$USER" and log in again' in done.stderr


def test_preload_pulls_for_the_lowest_board_and_pushes(
    templates: tuple[OverlayFile, ...], tmp_path: Path
) -> None:
    mixed = make_classroom(
        tmp_path, node(1), node(2, arch="armv6", cluster=Cluster(images=("redis:3",)))
    )
    folder = written(mixed, templates, tmp_path / "shack")
    subprocess.run(["sh", folder / "preload"], env=recorder(tmp_path), check=True)
    lines = called(tmp_path)
    for image in ("dduportal/arm-consul:0.5.0", "dduportal/arm-swarm:0.2.0", "redis:3"):
        at = lines.index(f"docker pull --platform linux/arm/v6 {image}")
        assert lines[at + 1 : at + 3] == [
            f"docker tag {image} localhost:5000/{image}",
            f"docker push localhost:5000/{image}",
        ]


@pytest.mark.parametrize("host", ["192.168.2.1", "shack"])
def test_preload_leaves_the_class_s_own_images_alone(
    host: str, templates: tuple[OverlayFile, ...], tmp_path: Path
) -> None:
    images = (f"{host}:5000/demo:1", "ghcr.io/owner/thing:2")
    own = make_classroom(tmp_path, node(1, cluster=Cluster(images=images)))
    folder = written(own, templates, tmp_path / "shack")
    subprocess.run(["sh", folder / "preload"], env=recorder(tmp_path), check=True)
    lines = "\n".join(called(tmp_path))
    assert "demo" not in lines
    assert "docker push localhost:5000/ghcr.io/owner/thing:2" in lines


@pytest.mark.parametrize("images", [("redis:3",), ()])
def test_preload_for_swarm_mode_takes_what_the_cards_use(
    images: tuple[str, ...], templates: tuple[OverlayFile, ...], tmp_path: Path
) -> None:
    need("shellcheck")
    agents = Cluster(consul_image="hashicorp/consul:1.15.4" if images else "", images=images)
    plain = make_classroom(tmp_path, node(1, cluster=agents))
    folder = written(plain, templates, tmp_path / "shack", "swarm-mode")
    done = subprocess.run(
        ["sh", folder / "preload"], env=recorder(tmp_path), capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    pushed = [line for line in called(tmp_path) if " push " in line] if images else []
    wanted = ("hashicorp/consul:1.15.4", *images) if images else ()
    assert pushed == [f"docker push localhost:5000/{image}" for image in wanted]
    assert ("nothing to preload" in done.stdout) is (not images)
    run("shellcheck", "-s", "sh", "-S", "warning", folder / "preload")


def test_preload_names_what_failed_and_goes_on(
    templates: tuple[OverlayFile, ...], tmp_path: Path
) -> None:
    folder = written(make_classroom(tmp_path), templates, tmp_path / "shack")
    environment = recorder(tmp_path, fails="arm-consul")
    done = subprocess.run(
        ["sh", folder / "preload"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "not preloaded: dduportal/arm-consul:0.5.0" in done.stderr
    assert "Docker 26 and later" in done.stderr
    assert "DOCKER_ENABLE_DEPRECATED_PULL_SCHEMA_1_IMAGE=1" in done.stderr
    assert "docker push localhost:5000/dduportal/arm-swarm:0.2.0" in called(tmp_path)


def test_preload_without_an_uplink_takes_what_is_here(
    templates: tuple[OverlayFile, ...], tmp_path: Path
) -> None:
    folder = written(make_classroom(tmp_path), templates, tmp_path / "shack")
    environment = recorder(tmp_path, fails="pull")
    subprocess.run(["sh", folder / "preload"], env=environment, check=True, capture_output=True)
    assert "docker push localhost:5000/dduportal/arm-consul:0.5.0" in called(tmp_path)


def test_the_join_token_reaches_the_store_and_no_argument(
    templates: tuple[OverlayFile, ...], tmp_path: Path
) -> None:
    need("curl")
    stored: dict[str, str] = {}

    class Store(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.answer(b'"192.168.2.1:8300"')

        def do_PUT(self) -> None:
            size = int(self.headers["Content-Length"])
            stored[self.path] = self.rfile.read(size).decode()
            self.answer(b"true")

        def answer(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *words: object) -> None:
            del words

    with ThreadingHTTPServer(("127.0.0.1", 0), Store) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        shack = replace(SHACK, consul_port=server.server_port)
        folder = written(
            make_classroom(tmp_path, shack=shack), templates, tmp_path / "shack", "swarm-mode"
        )
        environment = {**recorder(tmp_path), **PROXY}
        done = subprocess.run(
            ["sh", folder / "publish-token"], env=environment, check=True, capture_output=True
        )
        server.shutdown()
    assert stored == {
        "/v1/kv/rpi-image/swarm/worker": "SWMTKN-1-secret",
        "/v1/kv/rpi-image/swarm/manager": "192.168.2.1:2377",
    }
    assert "docker swarm init --advertise-addr 192.168.2.1" in "\n".join(called(tmp_path))
    assert b"SWMTKN" not in done.stdout


def test_without_a_leader_the_token_is_not_published(
    templates: tuple[OverlayFile, ...], tmp_path: Path
) -> None:
    shack = replace(SHACK, consul_port=1)
    folder = written(
        make_classroom(tmp_path, shack=shack), templates, tmp_path / "shack", "swarm-mode"
    )
    environment = {**recorder(tmp_path), "TRIES": "1"}
    done = subprocess.run(
        ["sh", folder / "publish-token"], env=environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "consul has no leader" in done.stderr


def test_make_status_asks_the_services_and_no_proxy(
    templates: tuple[OverlayFile, ...], tmp_path: Path
) -> None:
    need("make", "curl")
    with (
        answering({"/v1/status/leader": b'"127.0.0.1:8300"'}) as consul,
        answering({"/info": b"{}"}) as manager,
        answering({"/v2/": b"{}"}) as registry,
    ):
        shack = Shack(
            "127.0.0.1", services=("registry",), consul_port=consul, swarm_port=manager,
            registry_port=registry,
        )  # fmt: skip
        folder = written(make_classroom(tmp_path, shack=shack), templates, tmp_path / "shack")
        done = subprocess.run(
            ["make", "-s", "status"], cwd=folder, env={**os.environ, **PROXY}, capture_output=True,
            text=True, check=True,
        )  # fmt: skip
    assert done.stdout.splitlines() == ["consul up", "manager up", "registry up"]


@pytest.mark.parametrize(("image", "told"), [("swarm:0.2.0", True), ("swarm:1.1.3", False)])
def test_make_status_names_what_an_old_manager_has_not_followed(
    image: str, told: bool, templates: tuple[OverlayFile, ...], tmp_path: Path
) -> None:
    need("make", "curl")
    keys = b'["swarm/192.168.2.101:2375","swarm/192.168.2.150:2375"]'
    answers = {"/v1/status/leader": b'"127.0.0.1:8300"', "/v1/kv/swarm/?keys": keys}
    info = b'{"DriverStatus": [["\\bNodes", "1"], ["pi-01", "192.168.2.101:2375"]]}'
    with answering(answers) as consul, answering({"/info": info}) as manager:
        shack = Shack(
            "127.0.0.1", services=(), consul_port=consul, swarm_port=manager, swarm_image=image
        )
        folder = written(make_classroom(tmp_path, shack=shack), templates, tmp_path / "shack")
        said = run("make", "-s", "status", cwd=folder).splitlines()
    command = "if that node is up, run: docker restart swarmmanager"
    unknown = [f"manager does not know 192.168.2.150:2375; {command}"] if told else []
    assert said == ["consul up", "manager up", *unknown]


@pytest.mark.parametrize(("state", "said"), [("running", "time up"), ("restarting", "time DOWN")])
def test_a_service_that_only_restarts_is_down(
    state: str, said: str, templates: tuple[OverlayFile, ...], tmp_path: Path
) -> None:
    need("curl")
    shack = Shack("127.0.0.1", services=("ntp",), consul_port=1, swarm_port=1)
    folder = written(make_classroom(tmp_path, shack=shack), templates, tmp_path / "shack")
    environment = recorder(tmp_path)
    # As Docker answers: a container that is between two starts is Running.
    (tmp_path / "bin" / "docker").write_text(
        f"#!/bin/sh\ncase $3 in *Running*) echo true ;; *Status*) echo {state} ;; esac\n"
    )
    done = subprocess.run(
        ["sh", folder / "look"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines()[-1] == said


def test_the_time_server_starts_again_after_the_power_was_cut(
    templates: tuple[OverlayFile, ...], tmp_path: Path
) -> None:
    need_root()
    need("chronyd", "unshare", "mount")
    folder = written(make_classroom(tmp_path), templates, tmp_path / "shack")
    kept = tmp_path / "kept"
    kept.mkdir()
    # What a container has: its own process 1, a /run that stays, a /dev/shm that does not.
    inside = (
        f"mkdir -p /run/chrony && mount --bind {kept} /run/chrony && mount -t tmpfs none /dev/shm"
        f" && exec chronyd -d -x -f {folder}/time/chrony.conf"
    )
    for _ in range(2):
        start_and_cut(tmp_path / "log", inside)
    log = (tmp_path / "log").read_text()
    assert "Another chronyd" not in log
    assert log.count("Disabled control of system clock") == 2


def start_and_cut(log: Path, script: str) -> None:
    """Run a script as process 1 until it has said its last word about its start, then kill it."""
    before = log.read_text().count("system clock") if log.exists() else 0
    with log.open("a") as out:
        job = subprocess.Popen(
            ["unshare", "-m", "-n", "-p", "-f", "--mount-proc", "sh", "-c", script],
            stdout=out, stderr=out, env={**os.environ, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        )  # fmt: skip
    try:
        end = time.monotonic() + 30
        while job.poll() is None and time.monotonic() < end:
            if log.read_text().count("system clock") > before:
                break
            time.sleep(0.1)
    finally:
        cut(job)


def cut(job: subprocess.Popen[bytes]) -> None:
    """End the process 1 of a namespace, and with it all others there."""
    # `unshare --kill-child` would leave chronyd running: the kernel forgets what a process asked
    # for at its parent's end (prctl(2), PR_SET_PDEATHSIG) when it gives up root.
    if job.poll() is None:
        children = Path(f"/proc/{job.pid}/task/{job.pid}/children").read_text()
        for pid in map(int, children.split()):
            os.kill(pid, signal.SIGKILL)
    job.wait(30)
