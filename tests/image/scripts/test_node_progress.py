"""A Pi tells the shack's consul how far it is: with a real consul, and without one."""

from __future__ import annotations

import json
import re
import subprocess
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest

from imagebuilder.resources import shipped_folder
from tests.lib.acl_consul import AclConsul, acl_consul
from tests.lib.node_tree import CURL, once, set_env
from tests.lib.pi_tree import HASH, SHELLS, Pi
from tests.lib.real_consul import consul_program, free_ports, running, wait_for
from tests.lib.tools import need

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from imagebuilder.model import OverlayFile

PARTS = ("lib/run.sh", "node/files.sh", "node/http.sh")
CLIENTS = {
    "curl": ("curl",),
    "wget": ("wget",),
    "busybox wget and nc": ("busybox:wget", "busybox:nc"),
}


@pytest.fixture(scope="module")
def consul(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Return the port of a real consul."""
    consul_program()
    folder = tmp_path_factory.mktemp("consul")
    http, server, serf = free_ports(3)
    config = folder / "config.json"
    ports = {"http": http, "server": server, "serf_lan": serf, "serf_wan": -1, "dns": -1}
    config.write_text(json.dumps({"ports": {**ports, "grpc": -1}}))
    words = ["-server", "-bootstrap-expect", "1", "-bind", "127.0.0.1", "-client", "127.0.0.1"]
    words += ["-data-dir", str(folder / "data"), "-config-file", str(config)]
    with running(*words, log=folder / "log"):
        wait_for(f"http://127.0.0.1:{http}/v1/status/leader", ":")
        yield http


@pytest.fixture(scope="module")
def acl(
    tmp_path_factory: pytest.TempPathFactory, templates: tuple[OverlayFile, ...]
) -> Iterator[AclConsul]:
    with acl_consul(tmp_path_factory.mktemp("acl"), templates) as made:
        yield made


def told(port: int, node: str = "pi-03") -> Any:
    url = f"http://127.0.0.1:{port}/v1/kv/rpi-image/nodes/{node}?raw"
    with urllib.request.urlopen(url, timeout=5) as answer:
        return json.loads(answer.read())


def real_curl(pi: Pi) -> None:
    """Let what is put go to the consul, and answer the rest as the fake does."""
    (curl,) = need("curl")
    fake = CURL.format(folder=pi.folder)
    pi.fake("curl", f'case $* in *PUT*) exec {curl} "$@" ;; esac\n{fake}')


@pytest.mark.parametrize("shell", SHELLS)
def test_a_pass_ends_with_ready(shell: str, consul: int, pi: Pi) -> None:
    real_curl(pi)
    set_env(pi, SHACK_ADDRESS="127.0.0.1", CONSUL_PORT=str(consul))
    assert once(pi, shell).returncode == 0
    found = told(consul)
    assert (found["stage"], found["error"], found["percent"]) == ("ready", "", None)
    assert (found["address"], found["hash"]) == ("192.168.2.103", HASH)
    assert found["versions"]["docker"] == "19.03.13"
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT[0-9:]{8}Z", found["updated"])


@pytest.mark.parametrize("shell", SHELLS)
def test_a_pull_that_fails_is_told_with_its_error(shell: str, consul: int, pi: Pi) -> None:
    real_curl(pi)
    set_env(pi, SHACK_ADDRESS="127.0.0.1", CONSUL_PORT=str(consul))
    (pi.folder / "docker" / "images").write_text("dduportal/arm-consul:0.5.0\n")
    (pi.folder / "docker" / "failures").write_text("9\n")
    assert once(pi, shell).returncode == 1
    found = told(consul)
    assert (found["stage"], found["percent"]) == ("pulling arm-swarm", None)
    assert "net/http: timeout" in found["error"]
    stages = [call for call in pi.calls() if "-X PUT" in call]
    assert any('"stage": "pulling arm-swarm", "percent": 50' in call for call in pi.calls())
    assert len(stages) == 2


@pytest.mark.parametrize("shell", SHELLS)
def test_hostile_words_are_one_json_string(shell: str, consul: int, pi: Pi) -> None:
    real_curl(pi)
    set_env(pi, SHACK_ADDRESS="127.0.0.1", CONSUL_PORT=str(consul))
    (pi.folder / "docker" / "images").write_text("")
    docker = pi.folder / "fakes" / "docker"
    bad = '\\\\ \\"}, {$(touch /tmp/never) \\033[2J' + "x" * 500
    docker.write_text(docker.read_text().replace("net/http: timeout", bad))
    (pi.folder / "docker" / "failures").write_text("9\n")
    assert once(pi, shell).returncode == 1
    error = told(consul)["error"]
    assert 150 < len(error) <= 200
    assert error.isprintable()


def test_a_shack_that_does_not_answer_costs_few_seconds(pi: Pi) -> None:
    """192.0.2.1 is for documentation (RFC 5737); the fake waits as long as curl would."""
    pi.fake("curl", "case $* in *PUT*) sleep 1; exit 28 ;; esac\n" + CURL.format(folder=pi.folder))
    (pi.folder / "docker" / "images").write_text("")
    assert once(pi).returncode == 0
    assert len([call for call in pi.calls() if "-X PUT" in call]) == 1
    assert all("-m 3" in call for call in pi.calls() if "-X PUT" in call)


@pytest.mark.parametrize("change", [{"CLUSTER": "0"}, {"SHACK_ADDRESS": ""}])
def test_nothing_is_told_without_a_shack(change: dict[str, str], pi: Pi) -> None:
    set_env(pi, **change)
    once(pi)
    assert not [call for call in pi.calls() if "-X PUT" in call]


@pytest.mark.parametrize("shell", [("dash",), ("busybox", "sh")])
@pytest.mark.parametrize("client", CLIENTS)
def test_every_client_can_put(
    client: str, shell: tuple[str, ...], consul: int, tmp_path: Path
) -> None:
    text = json.dumps({"stage": f"{client} 100 % & @'"})
    assert put(tmp_path, client, shell, consul, text) == 0
    assert told(consul, "pi-09") == json.loads(text)


@pytest.mark.parametrize("shell", [("dash",), ("busybox", "sh")])
@pytest.mark.parametrize("client", CLIENTS)
def test_every_client_can_put_with_the_token_of_the_class(
    client: str, shell: tuple[str, ...], tmp_path: Path, acl: AclConsul
) -> None:
    """Without it consul refuses; it may write there only."""
    for number, token in enumerate(("", "wrong", acl.token("nodes"))):
        (tmp_path / str(number)).mkdir()
        text = json.dumps({"stage": f"{client} {number}"})
        code = put(tmp_path / str(number), client, shell, acl.port, text, token)
        assert (code == 0) == (token == acl.token("nodes")), token
    assert told(acl.port, "pi-09")["stage"] == f"{client} 2"


@pytest.mark.parametrize("client", CLIENTS)
def test_no_client_shows_the_token_in_its_arguments(client: str, tmp_path: Path) -> None:
    """Record how the client is called; everyone on the Pi can read that."""
    token = "0b6f1d4e-1111-4111-8111-111111111111"
    put(tmp_path, client, ("dash",), free_ports(1)[0], "{}", token, record=True)
    calls = (tmp_path / "calls").read_text()
    assert "127.0.0.1" in calls
    assert token not in calls


@pytest.mark.parametrize("client", CLIENTS)
def test_every_client_says_when_nobody_answers(client: str, tmp_path: Path) -> None:
    start = time.monotonic()
    assert put(tmp_path, client, ("dash",), free_ports(1)[0], "{}") != 0
    assert time.monotonic() - start < 10


def put(
    folder: Path,
    client: str,
    shell: tuple[str, ...],
    port: int,
    text: str,
    token: str = "",
    *,
    record: bool = False,
) -> int:
    """Call `http_put` with a PATH that has this client only; `record` how it is called."""
    links = folder / "bin"
    links.mkdir()
    found = need("curl", "wget", "busybox", "grep", "sleep", "env", "dash")
    programs = dict(
        zip(("curl", "wget", "busybox", "grep", "sleep", "env", "dash"), found, strict=True)
    )
    for name in (*CLIENTS[client], "grep", "sleep", "env"):
        program, _, applet = name.rpartition(":")
        if record and name in CLIENTS[client]:
            words = f'exec {programs[program or applet]} {applet if program else ""} "$@"'
            log = f'echo "$@" >>{folder}/calls'
            (links / applet).write_text(f"#!{programs['dash']}\n{log}\n{words}\n")
            (links / applet).chmod(0o755)
            continue
        (links / applet).symlink_to(programs[program or applet])
    parts = [(shipped_folder("overlays") / "scripts" / part).read_text() for part in PARTS]
    call = f'http_put "127.0.0.1:{port}" /v1/kv/rpi-image/nodes/pi-09 "$TEXT"\n'
    (folder / "script").write_text("\n".join([*parts, call]))
    given = {"TEXT": text, "CONSUL_TOKEN": token, "state": str(folder)}
    done = subprocess.run(
        [programs[shell[0]], *shell[1:], str(folder / "script")],
        env={"PATH": str(links), **given}, timeout=30, check=False,
    )  # fmt: skip
    return done.returncode
