"""The shack's folder: read by docker-compose, shellcheck and make; its scripts run for real."""

from __future__ import annotations

import base64
import json
import os
import shlex
import signal
import socket
import stat
import subprocess
import tempfile
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from imagebuilder.cli.main import run as rpi_image
from imagebuilder.errors import SettingsError
from imagebuilder.model import (
    Classroom,
    Cluster,
    Docker,
    ImageSource,
    NodeSettings,
    OverlayFile,
    Secret,
    Shack,
)
from imagebuilder.plan.overlays import load_overlay
from imagebuilder.resources import shipped_folder
from imagebuilder.shack.folder import Kind, ShackFile, plan_shack, write_shack
from imagebuilder.shack.services import project_name
from tests.lib.classroom_samples import SHACK, node, room
from tests.lib.real_consul import consul_program, free_ports, running, wait_for
from tests.lib.shack_server import answering
from tests.lib.tools import need, need_root, run

if TYPE_CHECKING:
    from collections.abc import Sequence

# A proxy that nobody answers at, by the names that curl looks for.
PROXY = {"http_proxy": "http://127.0.0.1:9", "ALL_PROXY": "http://127.0.0.1:9", "no_proxy": ""}
KINDS: tuple[Kind, ...] = ("classic", "swarm-mode")


@pytest.fixture(scope="module")
def templates() -> tuple[OverlayFile, ...]:
    return load_overlay(shipped_folder("overlays") / "shack")


def written(
    classroom: Classroom, templates: Sequence[OverlayFile], folder: Path, kind: Kind | None = None
) -> Path:
    write_shack(plan_shack(classroom, templates, kind), templates, folder)
    return folder


def text_of(files: Sequence[ShackFile], path: str) -> str:
    return next(file for file in files if file.path == path).data.decode()


def command_of(classroom: Classroom, templates: Sequence[OverlayFile], service: str) -> list[str]:
    """Return a service's command as YAML reads it out of the compose file."""
    text = text_of(plan_shack(classroom, templates), "docker-compose.yml")
    command: list[str] = yaml.safe_load(text)["services"][service]["command"]
    return command


def seed_room(folder: Path, **shack: str) -> Classroom:
    return room(folder, shack=replace(SHACK, **shack))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
def test_docker_compose_reads_it(
    kind: Kind, templates: tuple[OverlayFile, ...], tmp_path: Path
) -> None:
    need("docker-compose")
    folder = written(room(tmp_path), templates, tmp_path / "shack", kind)
    read = yaml.safe_load(run("docker-compose", "config", cwd=folder))
    services = read["services"]
    assert list(services) == sorted(
        ["consul", "manager", "registry", "mirror", "apt", "time", "web"]
    )
    assert services["consul"]["network_mode"] == "host"
    assert services["manager"]["container_name"] == "swarmmanager"
    assert {service["restart"] for service in services.values()} == {"unless-stopped"}


def test_the_manager_s_command_is_the_seed_s(
    templates: tuple[OverlayFile, ...], tmp_path: Path
) -> None:
    classroom = seed_room(tmp_path, swarm_image="swarm:0.2.0")
    script = text_of(plan_shack(classroom, templates), "shack.sh")
    line = next(
        part for part in script.replace("\\\n", "").splitlines() if "--name 'swarmmanager'" in part
    )
    words = [word for word in shlex.split(line) if word != "--restart=always"]
    assert words == shlex.split(
        "docker run --name swarmmanager -d -p 10000:2375 "
        "swarm:0.2.0 manage consul://192.168.2.1:8500/swarm"
    )


def test_consul_s_command_is_the_seed_s(templates: tuple[OverlayFile, ...], tmp_path: Path) -> None:
    words = command_of(seed_room(tmp_path, consul_image="consul:1.15.4"), templates, "consul")
    assert words == shlex.split(
        "agent -server -bootstrap-expect 1 -node shack -advertise 192.168.2.1 -client 0.0.0.0 "
        "-data-dir /consul/data -ui"
    )


def test_consul_of_2015_has_no_ui_flag_and_an_entrypoint_of_its_own(
    templates: tuple[OverlayFile, ...], tmp_path: Path
) -> None:
    old = seed_room(tmp_path, consul_image="dduportal/arm-consul:0.5.0")
    words = command_of(old, templates, "consul")
    assert words[0] == "-server"
    assert "-ui" not in words


def test_a_new_manager_looks_where_old_nodes_register(
    templates: tuple[OverlayFile, ...], tmp_path: Path
) -> None:
    assert command_of(room(tmp_path), templates, "manager") == [
        "manage", "--discovery-opt", "kv.path=swarm", "consul://192.168.2.1:8500",
    ]  # fmt: skip
    new = room(tmp_path, node(1, cluster=Cluster(swarm_version="1.2.6")))
    assert command_of(new, templates, "manager") == ["manage", "consul://192.168.2.1:8500/swarm"]


OLD, NEW = ImageSource(name="o", generation="occidentalis"), ImageSource(name="n")


@pytest.mark.parametrize(
    ("nodes", "image"),
    [
        ([node(1, image=NEW)], "swarm:1.2.9"),
        ([node(1, image=OLD)], "swarm:1.1.3"),
        ([node(1, generation="occidentalis"), node(2)], "swarm:1.1.3"),
        ([node(1, image=OLD, generation="device-init")], "swarm:1.2.9"),
        ([node(1, image=OLD, cluster=Cluster(enabled=False)), node(2)], "swarm:1.2.9"),
    ],
)
def test_the_manager_is_one_that_manages_the_class_s_docker(
    nodes: list[NodeSettings], image: str, templates: tuple[OverlayFile, ...], tmp_path: Path
) -> None:
    classroom = room(tmp_path, *nodes)
    folder = written(classroom, templates, tmp_path / "shack")
    manager = yaml.safe_load((folder / "docker-compose.yml").read_text())["services"]["manager"]
    assert manager["image"] == image
    assert manager["command"][:3] == ["manage", "--discovery-opt", "kv.path=swarm"]
    for file in ("shack.sh", "README.md"):
        assert image in (folder / file).read_text()
    assert f"too old for the manager, here `{image}`" in (folder / "README.md").read_text()
    said = replace(classroom, shack=replace(SHACK, swarm_image="swarm:1.2.5"))
    assert "swarm:1.2.5" in text_of(plan_shack(said, templates), "docker-compose.yml")


@pytest.mark.parametrize(("manager", "sees"), [("0.4.0", False), ("1.0.0", False), ("1.0.1", True)])
def test_a_manager_that_cannot_be_told_where_old_nodes_register(
    manager: str, templates: tuple[OverlayFile, ...], tmp_path: Path, *, sees: bool
) -> None:
    classroom = seed_room(tmp_path, swarm_image=f"swarm:{manager}")
    if sees:
        assert "kv.path=swarm" in command_of(classroom, templates, "manager")
        return
    with pytest.raises(SettingsError, match=f"no swarm manager swarm:{manager} finds"):
        plan_shack(classroom, templates)


@pytest.mark.parametrize("versions", [("1.2.6",), ("0.2.0", "1.2.6")])
def test_an_old_manager_does_not_find_new_nodes(
    versions: tuple[str, ...], templates: tuple[OverlayFile, ...], tmp_path: Path
) -> None:
    nodes = [node(n, cluster=Cluster(swarm_version=v)) for n, v in enumerate(versions, start=1)]
    mixed = room(tmp_path, *nodes, shack=replace(SHACK, swarm_image="swarm:0.2.0"))
    with pytest.raises(SettingsError, match="no swarm manager"):
        plan_shack(mixed, templates)


def test_the_bootstrap_count_is_the_class_s(
    templates: tuple[OverlayFile, ...], tmp_path: Path
) -> None:
    servers = [
        node(n, cluster=Cluster(consul_server=n < 3, consul_bootstrap_expect=3 if n < 3 else 0))
        for n in range(1, 5)
    ]
    words = command_of(room(tmp_path, *servers), templates, "consul")
    assert words[words.index("-bootstrap-expect") + 1] == "3"
    with pytest.raises(SettingsError, match="is 3, but shack and nodes are 2 servers"):
        plan_shack(room(tmp_path, servers[0], servers[3]), templates)


@pytest.mark.parametrize(
    "change",
    [
        {"consul_encrypt": Secret("b" * 24)},
        {"swarm_path": "elsewhere"},
    ],
)
def test_what_a_class_must_share(
    change: dict[str, str], templates: tuple[OverlayFile, ...], tmp_path: Path
) -> None:
    torn = room(tmp_path, node(1), node(2, cluster=Cluster(**change)))  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="different"):
        plan_shack(torn, templates)


def test_no_shack_no_folder(templates: tuple[OverlayFile, ...], tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="names no shack"):
        plan_shack(room(tmp_path, shack=None), templates)


def test_only_the_services_asked_for(templates: tuple[OverlayFile, ...], tmp_path: Path) -> None:
    few = room(tmp_path, shack=Shack("192.168.2.1", services=("registry",), ntp=False))
    folder = written(few, templates, tmp_path / "shack")
    compose = yaml.safe_load((folder / "docker-compose.yml").read_text())
    assert list(compose["services"]) == ["consul", "manager", "registry"]
    assert list(compose["volumes"]) == ["consul-data", "registry-data"]
    assert {path.name for path in folder.iterdir() if path.is_dir()} == {"registry"}
    assert "NTP" not in (folder / "README.md").read_text()


def test_a_service_that_is_left_out_later_loses_its_files(
    templates: tuple[OverlayFile, ...], tmp_path: Path
) -> None:
    folder = written(room(tmp_path), templates, tmp_path / "shack", "swarm-mode")
    (folder / "notes.txt").write_text("mine")
    assert (folder / "publish-token").exists()
    written(room(tmp_path), templates, folder, "classic")
    assert not (folder / "publish-token").exists()
    assert not (folder / "manager" / "nginx.conf").exists()
    assert (folder / "notes.txt").read_text() == "mine"


# ---- secrets


def secret_room(folder: Path) -> Classroom:
    cluster, docker = Cluster(consul_encrypt=Secret("c2VjcmV0")), Docker(tls=True, port=2376)
    return room(folder, *(node(n, cluster=cluster, docker=docker) for n in (1, 2)))


def test_secrets_lie_in_files_of_the_owner_only(
    templates: tuple[OverlayFile, ...], tmp_path: Path
) -> None:
    folder = written(secret_room(tmp_path), templates, tmp_path / "shack")
    private = {"consul.env", "tls/ca.pem", "tls/cert.pem", "tls/key.pem"}
    for path in folder.rglob("*"):
        if path.is_file():
            name = str(path.relative_to(folder))
            mode = stat.S_IMODE(path.stat().st_mode)
            assert mode == (0o600 if name in private else mode & 0o755), name
            if name not in private:
                assert "c2VjcmV0" not in path.read_text(), name
                assert "PRIVATE KEY" not in path.read_text(), name
    authority = (tmp_path / "secrets" / "ca" / "key.pem").read_text()
    assert (folder / "tls" / "key.pem").read_text() != authority


def test_compose_hands_the_gossip_key_to_consul_alone(
    templates: tuple[OverlayFile, ...], tmp_path: Path
) -> None:
    need("docker-compose")
    folder = written(secret_room(tmp_path), templates, tmp_path / "shack")
    read = yaml.safe_load(run("docker-compose", "config", cwd=folder))["services"]
    local = read["consul"]["environment"]["CONSUL_LOCAL_CONFIG"]
    assert json.loads(local) == {"encrypt": "c2VjcmV0"}
    assert "environment" not in read["manager"]
    assert "--tlsverify" in read["manager"]["command"]


def test_a_plan_shows_no_secret(templates: tuple[OverlayFile, ...], tmp_path: Path) -> None:
    assert "c2VjcmV0" not in repr(plan_shack(secret_room(tmp_path), templates))


def test_a_dry_run_makes_no_keys(templates: tuple[OverlayFile, ...], tmp_path: Path) -> None:
    assert plan_shack(secret_room(tmp_path), templates, write=False)
    assert not (tmp_path / "secrets").exists()


def test_the_same_class_gives_the_same_folder(
    templates: tuple[OverlayFile, ...], tmp_path: Path
) -> None:
    first = plan_shack(secret_room(tmp_path), templates)
    assert plan_shack(secret_room(tmp_path), templates) == first


# ---- scripts


@pytest.mark.parametrize("kind", KINDS)
def test_shellcheck_has_nothing_to_say(
    kind: Kind, templates: tuple[OverlayFile, ...], tmp_path: Path
) -> None:
    need("shellcheck")
    nasty = room(tmp_path, node(1, owner="it's `id` $(id)"), name="3b's $(touch x)")
    folder = written(nasty, templates, tmp_path / "shack", kind)
    scripts = [path for path in folder.iterdir() if path.is_file() and os.access(path, os.X_OK)]
    assert len(scripts) >= 4
    run("shellcheck", "-s", "sh", "-S", "warning", *scripts)


def recorder(folder: Path, *, fails: str = "nothing") -> dict[str, str]:
    """Put a `docker` and an `ip` first on the PATH that write down how they were called."""
    programs = folder / "bin"
    programs.mkdir()
    (programs / "docker").write_text(
        f'#!/bin/sh\necho "docker $*" >> {folder}/log\n'
        f'case "$*" in *{fails}*) exit 1 ;; "info "*) echo inactive ;;'
        ' *join-token*) echo SWMTKN-1-secret ;; "compose version") exit 1 ;; esac\n'
    )
    (programs / "docker-compose").write_text(f'#!/bin/sh\necho "compose $*" >> {folder}/log\n')
    (programs / "ip").write_text("#!/bin/sh\necho '2: eth0    inet 192.168.2.1/24 brd x'\n")
    for program in programs.iterdir():
        program.chmod(0o755)
    return {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}


def called(folder: Path) -> list[str]:
    return (folder / "log").read_text().splitlines()


def test_make_up_checks_then_starts(templates: tuple[OverlayFile, ...], tmp_path: Path) -> None:
    need("make")
    folder = written(room(tmp_path), templates, tmp_path / "shack")
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


def make(
    folder: Path, target: str, environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    need("make")
    return subprocess.run(
        ["make", target], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_a_compose_that_does_not_run_is_none(
    templates: tuple[OverlayFile, ...], tmp_path: Path
) -> None:
    folder = written(room(tmp_path), templates, tmp_path / "shack")
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
    folder = written(room(tmp_path), templates, tmp_path / "shack")
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
    folder = written(room(tmp_path), templates, tmp_path / "shack")
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
    folder = written(room(tmp_path), templates, tmp_path / "shack")
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
        return project_name(room(tmp_path, name=name, path=tmp_path.joinpath(*path)))

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

    folder = written(room(tmp_path), templates, tmp_path / "shack")
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
    script = text_of(plan_shack(room(tmp_path), templates), "shack.sh")
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
        keyed = room(tmp_path, node(1, cluster=Cluster(consul_encrypt=Secret(key))))
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
    folder = written(room(tmp_path), templates, tmp_path / "shack")
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
    folder = written(room(tmp_path), templates, tmp_path / "shack")
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
    classroom = room(tmp_path, shack=Shack(address))
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
        folder = written(room(tmp_path_factory.mktemp("room")), templates, Path(place, "shack"))
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
    assert "error: docker does not let this user in" in done.stderr
    assert 'usermod -aG docker "$USER" and log in anew' in done.stderr


def test_preload_pulls_for_the_lowest_board_and_pushes(
    templates: tuple[OverlayFile, ...], tmp_path: Path
) -> None:
    mixed = room(tmp_path, node(1), node(2, arch="armv6", cluster=Cluster(images=("redis:3",))))
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
    own = room(tmp_path, node(1, cluster=Cluster(images=images)))
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
    plain = room(tmp_path, node(1, cluster=Cluster(images=images)))
    folder = written(plain, templates, tmp_path / "shack", "swarm-mode")
    done = subprocess.run(
        ["sh", folder / "preload"], env=recorder(tmp_path), capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    pushed = [line for line in called(tmp_path) if " push " in line] if images else []
    assert pushed == [f"docker push localhost:5000/{image}" for image in images]
    assert ("need no images" in done.stdout) is (not images)
    run("shellcheck", "-s", "sh", "-S", "warning", folder / "preload")


def test_preload_names_what_failed_and_goes_on(
    templates: tuple[OverlayFile, ...], tmp_path: Path
) -> None:
    folder = written(room(tmp_path), templates, tmp_path / "shack")
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
    folder = written(room(tmp_path), templates, tmp_path / "shack")
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
        folder = written(room(tmp_path, shack=shack), templates, tmp_path / "shack", "swarm-mode")
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
    folder = written(room(tmp_path, shack=shack), templates, tmp_path / "shack", "swarm-mode")
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
        folder = written(room(tmp_path, shack=shack), templates, tmp_path / "shack")
        done = subprocess.run(
            ["make", "-s", "status"], cwd=folder, env={**os.environ, **PROXY}, capture_output=True,
            text=True, check=True,
        )  # fmt: skip
    assert done.stdout.splitlines() == ["consul up", "manager up", "registry up"]


@pytest.mark.parametrize(("state", "said"), [("running", "time up"), ("restarting", "time DOWN")])
def test_a_service_that_only_restarts_is_down(
    state: str, said: str, templates: tuple[OverlayFile, ...], tmp_path: Path
) -> None:
    need("curl")
    shack = Shack("127.0.0.1", services=("ntp",), consul_port=1, swarm_port=1)
    folder = written(room(tmp_path, shack=shack), templates, tmp_path / "shack")
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
    folder = written(room(tmp_path), templates, tmp_path / "shack")
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
            ["unshare", "-m", "-n", "-p", "-f", "--mount-proc", "--kill-child", "sh", "-c", script],
            stdout=out, stderr=out, env={**os.environ, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        )  # fmt: skip
    end = time.monotonic() + 30
    while job.poll() is None and time.monotonic() < end:
        if log.read_text().count("system clock") > before:
            break
        time.sleep(0.1)
    job.kill()
    job.wait()


# ---- pages


def test_nginx_takes_both_configurations(
    templates: tuple[OverlayFile, ...], tmp_path: Path
) -> None:
    need("nginx")
    folder = written(room(tmp_path), templates, tmp_path / "shack", "swarm-mode")
    for path in (folder / "nginx.conf", folder / "manager" / "nginx.conf"):
        run("nginx", "-t", "-q", "-c", path)


def test_the_class_page_shows_words_not_markup(
    templates: tuple[OverlayFile, ...], tmp_path: Path
) -> None:
    nasty = room(tmp_path, node(1, owner="<script>x</script>", seat="<b>"), name="3 & <i>")
    page = text_of(plan_shack(nasty, templates), "web/index.html")
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "<title>3 &amp; &lt;i&gt;</title>" in page
    assert "ask for no password" in page


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("docker", "is_open"),
    [(Docker(), True), (Docker(tls=True, port=2376), False), (Docker(tcp=False), False)],
)
def test_an_open_socket_is_said_loudly_and_only_then(
    kind: Kind,
    docker: Docker,
    is_open: bool,
    templates: tuple[OverlayFile, ...],
    tmp_path: Path,
) -> None:
    files = plan_shack(room(tmp_path, node(1, docker=docker)), templates, kind)
    for path in ("README.md", "web/index.html"):
        assert ("ask for no password" in text_of(files, path)) is is_open


def test_every_node_has_its_line_and_anchor(
    templates: tuple[OverlayFile, ...], tmp_path: Path
) -> None:
    thirty = room(tmp_path, *(node(n) for n in range(1, 31)))
    files = plan_shack(thirty, templates)
    page, readme = text_of(files, "web/index.html"), text_of(files, "README.md")
    for settings in thirty.nodes:
        assert f'id="{settings.hostname}"' in page
        assert f"| {settings.hostname} | {settings.network.address[:-3]} |" in readme


# ---- the command


def class_file(folder: Path) -> Path:
    (folder / "base.img").write_bytes(b"")
    file = folder / "classroom.yml"
    file.write_text(
        "profile: armv7\nimage: {file: base.img, unchecked: true}\n"
        "shack: {address: 192.168.2.1}\nnodes:\n  - hostname: pi-[01-30]\n"
    )
    return file


def test_the_command_writes_the_folder_and_says_what_is_open(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = class_file(tmp_path), tmp_path / "out"
    assert rpi_image(["shack", str(file), "-o", str(out)]) == 0
    said = capsys.readouterr()
    assert str(out / "docker-compose.yml") in said.out.splitlines()
    assert "ask for no password" in said.err
    assert f"make -C {out} up" in said.err
    assert (out / "docker-compose.yml").exists()


def test_the_project_is_the_same_however_the_file_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another project would have other volumes: the registry would be empty."""
    folder = tmp_path / "3b"
    folder.mkdir()
    class_file(folder)
    monkeypatch.chdir(folder)
    assert rpi_image(["shack", "classroom.yml"]) == 0
    before = (folder / "shack" / ".env").read_text()
    assert before == "COMPOSE_PROJECT_NAME=shack-3b-classroom\n"
    monkeypatch.chdir(folder / "shack")
    assert rpi_image(["shack", "../classroom.yml", "-o", "."]) == 0
    assert (folder / "shack" / ".env").read_text() == before


def test_the_shell_s_own_project_name_does_not_count(
    templates: tuple[OverlayFile, ...], tmp_path: Path
) -> None:
    folder = written(room(tmp_path), templates, tmp_path / "shack")
    environment = recorder(tmp_path) | {"COMPOSE_PROJECT_NAME": "another"}
    (tmp_path / "bin" / "docker-compose").write_text(
        f'#!/bin/sh\necho "$1 $COMPOSE_PROJECT_NAME" >> {tmp_path}/projects\n'
    )
    (tmp_path / "bin" / "docker-compose").chmod(0o755)
    words = ["make", "-s", "-C", str(folder), "down", "logs", "COMPOSE=docker-compose"]
    subprocess.run(words, env=environment, check=True, capture_output=True)
    command = ["sh", "compose-up", "docker-compose"]
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
    assert (tmp_path / "projects").read_text().splitlines() == [
        "down shack-class-3b", "logs shack-class-3b", "up shack-class-3b",
    ]  # fmt: skip


def test_a_dry_run_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out = class_file(tmp_path), tmp_path / "out"
    assert rpi_image(["shack", str(file), "-o", str(out), "--dry-run", "--json"]) == 0
    assert str(out / "Makefile") in json.loads(capsys.readouterr().out)
    assert not out.exists()


@pytest.mark.parametrize("kind", KINDS)
def test_the_instructor_s_certificate_is_where_the_readme_says(
    kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need("openssl")
    monkeypatch.chdir(tmp_path)
    file = class_file(tmp_path)
    file.write_text(file.read_text() + "docker: {tls: true}\n")
    assert rpi_image(["shack", "classroom.yml", "--kind", kind]) == 0
    bundle = tmp_path / "classroom.secrets" / "client"
    if kind == "classic":
        readme = (tmp_path / "shack" / "README.md").read_text()
        assert f"export DOCKER_CERT_PATH='{bundle}' DOCKER_TLS_VERIFY=1" in readme
        assert f"yours lies in `{bundle}`" in readme
    run("openssl", "verify", "-purpose", "sslclient", "-CAfile", bundle / "ca.pem",
        bundle / "cert.pem")  # fmt: skip


def test_contexts_hold_paths_that_are_right_anywhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = class_file(tmp_path)
    file.write_text(file.read_text() + "docker: {tls: true}\n")
    assert rpi_image(["export", "classroom.yml", "--format", "docker-contexts"]) == 0
    key = f"key={tmp_path}/classroom.secrets/client/key.pem"
    assert capsys.readouterr().out.count(key) == 31


def test_another_kind_than_the_cards_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = class_file(tmp_path), tmp_path / "out"
    assert rpi_image(["shack", str(file), "-o", str(out), "--kind", "swarm-mode"]) == 0
    assert "the cards join a classic cluster" in capsys.readouterr().err
    assert (out / "publish-token").exists()


def test_a_folder_that_cannot_be_is_a_write_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = class_file(tmp_path), tmp_path / "out"
    out.write_text("")
    assert rpi_image(["shack", str(file), "-o", str(out)]) == 7
    assert "cannot write" in capsys.readouterr().err


def test_export_and_labels_from_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(class_file(tmp_path))
    assert rpi_image(["export", file, "--format", "hosts"]) == 0
    assert "192.168.2.1\tshack" in capsys.readouterr().out
    assert rpi_image(["export", file, "-o", str(tmp_path / "exports")]) == 0
    assert len(list((tmp_path / "exports").iterdir())) == 6
    assert rpi_image(["labels", file, "-o", str(tmp_path / "l.html")]) == 0
    assert (tmp_path / "l.html").read_text().count('class="host"') == 30
    assert rpi_image(["labels", file, "-o", str(tmp_path / "l.doc")]) == 2


def test_labels_as_pdf_or_a_hint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    need("chromium")
    file, out = str(class_file(tmp_path)), tmp_path / "l.pdf"
    assert rpi_image(["labels", file, "-o", str(out)]) == 0
    assert out.read_bytes().startswith(b"%PDF")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert rpi_image(["labels", file, "-o", str(out)]) == 2
    assert "install chromium or weasyprint" in capsys.readouterr().err


def printers(folder: Path, monkeypatch: pytest.MonkeyPatch, **scripts: str) -> None:
    """Leave these programs alone on the PATH; each writes down how it was called."""
    programs = folder / "printers"
    programs.mkdir()
    for name, script in scripts.items():
        (programs / name).write_text(f'#!/bin/sh\necho "{name} $*" >> {folder}/log\n{script}\n')
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(programs))


PRINTS = 'for last; do :; done; echo "%PDF-1.7" > "$last"'


def test_where_one_program_fails_the_next_prints_the_labels(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    printers(tmp_path, monkeypatch, chromium="exit 1", chrome="exit 0", weasyprint=PRINTS)
    out = tmp_path / "out" / "l.pdf"
    assert rpi_image(["labels", str(class_file(tmp_path)), "-o", str(out)]) == 0
    assert out.read_bytes() == b"%PDF-1.7\n"
    assert [line.split()[0] for line in called(tmp_path)] == ["chromium", "chrome", "weasyprint"]
    assert list(out.parent.iterdir()) == [out]
    assert "weasyprint" in capsys.readouterr().err


def test_a_browser_that_sees_no_hidden_folder_finds_the_sheet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    printers(tmp_path, monkeypatch, weasyprint=PRINTS)
    monkeypatch.chdir(tmp_path)
    assert rpi_image(["labels", str(class_file(tmp_path)), "-o", "l.pdf"]) == 0
    source = Path(called(tmp_path)[0].split()[1]).relative_to(tmp_path)
    assert len(source.parts) == 2
    assert not source.parts[0].startswith(".")


def test_when_no_program_prints_it_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    printers(tmp_path, monkeypatch, chromium="exit 1", weasyprint="exit 1")
    out = tmp_path / "l.pdf"
    assert rpi_image(["labels", str(class_file(tmp_path)), "-o", str(out)]) == 7
    assert "chromium, weasyprint made no PDF" in capsys.readouterr().err
    assert not list(tmp_path.glob("rpi-image-labels-*"))


@pytest.mark.parametrize("place", ["file/l.pdf", "folder.pdf"])
def test_labels_that_cannot_be_written_are_a_write_error(
    place: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    printers(tmp_path, monkeypatch, weasyprint=PRINTS)
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.pdf").mkdir()
    out = tmp_path / place
    assert rpi_image(["labels", str(class_file(tmp_path)), "-o", str(out)]) == 7
    assert f"cannot write {out}" in capsys.readouterr().err
