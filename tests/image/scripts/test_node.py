"""The node script against fake commands: order, arguments, what it says, what it leaves alone."""

from __future__ import annotations

import json
import stat

import pytest

from tests.lib.node_tree import NODE, docker_calls, once, set_env
from tests.lib.pi_tree import HASH, SETTINGS, SHELLS, STATE, Pi

MASK = "etc/systemd/system/dhcpcd.service"


@pytest.mark.parametrize("shell", SHELLS)
def test_a_pass(shell: str, pi: Pi) -> None:
    done = once(pi, shell)
    assert done.returncode == 0, done.stderr
    runs = docker_calls(pi, "run")
    consul = "docker run -d --name consul --net=host --restart=on-failure:10"
    assert runs[0].startswith(f"{consul} -v {pi.root}/{STATE}/consul:/rpi-image:ro ")
    assert runs[0].endswith(
        "dduportal/arm-consul:0.5.0 -node pi-03 -advertise 192.168.2.103 -client 0.0.0.0 "
        "-retry-join 192.168.2.1 -retry-interval 15s -config-file /rpi-image/node.json"
    )
    assert runs[1:] == [
        (
            "docker run -d --name swarm --restart=on-failure:10 dduportal/arm-swarm:0.2.0 join "
            "--addr 192.168.2.103:2375 consul://192.168.2.103:8500/swarm"
        )
    ]
    asked = [call for call in pi.calls() if "-X PUT" not in call]
    order = [call.split()[0:2] for call in asked if call.startswith(("ip", "docker", "curl"))]
    firsts = [word for n, word in enumerate(order) if word not in order[:n]]
    assert firsts[:4] == [
        ["ip", "route"],
        ["docker", "version"],
        ["docker", "inspect"],
        ["docker", "rm"],
    ]
    key = SETTINGS["CONSUL_ENCRYPT"]
    config = pi.path(f"{STATE}/consul/node.json")
    assert json.loads(config.read_text()) == {"encrypt": key, "ports": {"dns": -1}}
    assert not [call for call in pi.calls() if key in call]
    assert stat.S_IMODE(pi.path(STATE).stat().st_mode) == 0o700
    assert pi.status() == {
        "hostname": "pi-03",
        "hash": HASH,
        "installed": pi.status()["installed"],
        "install": "ok",
        "booted": pi.status()["booted"],
        "address": "192.168.2.103",
        "arch": SETTINGS["NODE_MACHINES"],
        "docker": "19.03.13",
        "consul": "joined, leader 192.168.2.1:8300",
        "swarm": "joined as 192.168.2.103:2375",
        "packages": "",
        "upgrade": "",
        "error": "",
        "updated": pi.status()["updated"],
    }
    assert str(pi.status()["installed"]).endswith("Z")


def test_a_second_pass_writes_nothing_onto_the_card(pi: Pi) -> None:
    pi.fake("date", 'case $* in *%Y*) echo 2026-11-22T09:00:00Z ;; *) exec /bin/date "$@" ;; esac')
    once(pi)
    before = pi.snapshot()
    (pi.folder / "calls").unlink()
    once(pi)
    after = {name for name, entry in pi.snapshot().items() if before.get(name) != entry}
    assert not docker_calls(pi, "run")
    assert after <= {"var/log/rpi-image.log", f"{STATE}/status.json"} | {
        f"boot/rpi-image/{name}" for name in ("status", "status.json", "node.log")
    } | {f"run/rpi-image-{name}.pid" for name in ("node", "jobs")}
    # within one run of the script the card is written on a change only
    script = pi.path(NODE).read_text().replace('main "$@"', "")
    head = 'booted=x; boot=$root/boot; . "$state/node.env"; write_status; '
    card = '"$boot/rpi-image/status.json"'
    text = f"{script}\n{head}touch -d @5 {card}; write_status; date -r {card} +%s\n"
    text += f'error=other; write_status; [ "$(date -r {card} +%s)" -gt 5 ] && echo changed\n'
    pi.write(f"{STATE}/try", text)
    assert pi.run(f"/{STATE}/try").stdout.split() == ["5", "changed"]


@pytest.mark.parametrize(
    ("entrypoint", "words"),
    [
        ("[/bin/start]", "IMAGE -node"),
        ("[consul agent -config-dir=/config]", "IMAGE -node"),
        ("[docker-entrypoint.sh]", "IMAGE agent -node"),
        ("[/bin/consul]", "IMAGE agent -node"),
        ("[]", "IMAGE consul agent -data-dir /tmp/consul -node"),
        ("<no value>", "IMAGE consul agent -data-dir /tmp/consul -node"),
        ("[/recorder]", "IMAGE -node"),
    ],
)
def test_images_with_other_entrypoints(entrypoint: str, words: str, pi: Pi) -> None:
    (pi.folder / "docker" / "entrypoint").write_text(f"{entrypoint}\n")
    once(pi)
    assert words.replace("IMAGE", SETTINGS["CONSUL_IMAGE"]) in docker_calls(pi, "run")[0]


@pytest.mark.parametrize("shell", SHELLS)
def test_a_pull_is_tried_three_times_and_the_shack_asked_first(shell: str, pi: Pi) -> None:
    (pi.folder / "docker" / "images").write_text(f"{SETTINGS['SWARM_IMAGE']}\n")
    (pi.folder / "docker" / "failures").write_text("2\n")
    assert once(pi, shell).returncode == 0
    name = SETTINGS["CONSUL_IMAGE"]
    assert docker_calls(pi, "pull") == [
        f"docker pull 192.168.2.1:5000/{name}",
        f"docker pull {name}",
        f"docker pull 192.168.2.1:5000/{name}",
    ]
    assert docker_calls(pi, "tag") == [f"docker tag 192.168.2.1:5000/{name} {name}"]


def test_a_pull_that_goes_on_failing_is_told(pi: Pi) -> None:
    (pi.folder / "docker" / "images").write_text("")
    (pi.folder / "docker" / "failures").write_text("99\n")
    assert once(pi).returncode == 1
    reason = "the image dduportal/arm-consul:0.5.0 could not be pulled: net/http: timeout"
    assert pi.status()["error"] == reason
    assert f"ERROR: {reason}" in (pi.card / "status").read_text()
    assert len(docker_calls(pi, "pull")) == 6


@pytest.mark.parametrize("shell", SHELLS)
def test_an_image_with_a_registry_of_its_own_is_asked_of_the_shack_too(shell: str, pi: Pi) -> None:
    """`make preload` put it there under its whole name."""
    set_env(pi, CLUSTER_IMAGES="ghcr.io/acme/app:1 app:2")
    once(pi, shell)
    assert docker_calls(pi, "pull") == [
        "docker pull 192.168.2.1:5000/ghcr.io/acme/app:1",
        "docker pull 192.168.2.1:5000/app:2",
    ]
    assert docker_calls(pi, "tag") == [
        "docker tag 192.168.2.1:5000/ghcr.io/acme/app:1 ghcr.io/acme/app:1",
        "docker tag 192.168.2.1:5000/app:2 app:2",
    ]


@pytest.mark.parametrize("host", ["registry.example:5000", SETTINGS["REGISTRY_ADDRESS"]])
def test_an_image_of_a_host_with_a_port_is_not_asked_of_the_shack(host: str, pi: Pi) -> None:
    set_env(pi, CLUSTER_IMAGES=f"{host}/a/b:1")
    once(pi)
    assert docker_calls(pi, "pull") == [f"docker pull {host}/a/b:1"]


def test_tarballs_of_the_card_are_loaded_once(pi: Pi) -> None:
    (pi.card / "images").mkdir()
    tar = pi.card / "images" / "a b.tar.gz"
    tar.write_bytes(b"x" * 100)
    once(pi)
    once(pi)
    assert docker_calls(pi, "load") == [f"docker load -i {tar}"]
    tar.write_bytes(b"y" * 101)
    once(pi)
    assert len(docker_calls(pi, "load")) == 2


def test_no_leader(pi: Pi) -> None:
    (pi.folder / "leader").write_text('""')
    assert once(pi).returncode == 1
    assert pi.status()["consul"] == "started, no leader yet"
    assert pi.status()["error"] == "consul sees no leader: is the shack 192.168.2.1 up?"
    assert [call for call in docker_calls(pi, "run") if "swarm" in call] == []


def test_no_route(pi: Pi) -> None:
    pi.fake("ip", "echo 'RTNETLINK answers: Network is unreachable' >&2; exit 2")
    assert once(pi).returncode == 1
    assert pi.status()["error"] == "no network: no route to the shack 192.168.2.1"
    assert not docker_calls(pi, "")


def test_docker_that_is_down(pi: Pi) -> None:
    (pi.folder / "docker" / "down").touch()
    pi.write("var/log/docker.log", "Error starting daemon: graphdriver\n")
    assert once(pi).returncode == 1
    assert pi.status()["error"] == "docker does not answer: Error starting daemon: graphdriver"


@pytest.mark.parametrize("systemd", [False, True])
def test_docker_that_failed_to_start_is_started_again(pi: Pi, systemd: bool) -> None:
    down = pi.folder / "docker" / "down"
    down.touch()
    start = f"echo $0 $* >>{pi.folder}/calls; rm -f {down}"
    if systemd:
        pi.path("run/systemd/system").mkdir(parents=True)
        pi.fake("systemctl", f'[ "$1" != start ] || rm -f {down}')
    else:
        pi.write("etc/init.d/docker", f"#!/bin/sh\n{start}\n", 0o755)
    assert once(pi).returncode == 1
    assert str(pi.status()["error"]).startswith("docker does not answer")
    assert [call for call in pi.calls() if call.endswith("start --no-block docker")] == (
        ["systemctl start --no-block docker"] if systemd else []
    )
    assert once(pi).returncode == 0
    assert pi.status()["docker"] == "19.03.13"


def test_a_container_that_does_not_start(pi: Pi) -> None:
    (pi.folder / "docker" / "refuse").touch()
    assert once(pi).returncode == 1
    assert pi.status()["error"] == "consul could not be started: docker: no space left"


@pytest.mark.parametrize("shell", SHELLS)
def test_an_old_address_is_forgotten(shell: str, pi: Pi) -> None:
    pi.write(f"{STATE}/last_address", "192.168.2.50:2375\n192.168.2.103:2375\n")
    once(pi, shell)
    deletes = [call for call in pi.calls() if "DELETE" in call]
    assert [call.split("8500")[1] for call in deletes] == ["/v1/kv/swarm/192.168.2.50:2375"]
    assert pi.read(f"{STATE}/last_address") == "192.168.2.103:2375\n"


def test_an_old_address_that_cannot_be_deleted_is_kept_in_mind(pi: Pi) -> None:
    pi.write(f"{STATE}/last_address", "192.168.2.50:2375\n")
    pi.fake("curl", f"case $* in *DELETE*) exit 7 ;; *) cat {pi.folder}/leader ;; esac")
    once(pi)
    assert pi.read(f"{STATE}/last_address") == "192.168.2.50:2375\n192.168.2.103:2375\n"


@pytest.mark.parametrize(
    ("version", "flag"),
    [("0.1.0", "--addr"), ("0.2.0", "--addr"), ("0.3.0", "--advertise"), ("1.2.9", "--advertise")],
)
def test_the_flag_of_the_version(version: str, flag: str, pi: Pi) -> None:
    set_env(pi, SWARM_VERSION=version)
    once(pi)
    assert f"join {flag} 192.168.2.103:2375" in docker_calls(pi, "run")[1]


def test_ipv6(pi: Pi) -> None:
    set_env(pi, SHACK_ADDRESS="fd00::1")
    pi.fake("ip", 'echo "$3 from :: dev eth0 src fd00::103 metric 1"')
    once(pi)
    runs = docker_calls(pi, "run")
    assert "-advertise fd00::103" in runs[0]
    assert runs[1].endswith("join --addr [fd00::103]:2375 consul://[fd00::103]:8500/swarm")


@pytest.mark.parametrize("shell", SHELLS)
def test_without_a_swarm_image_it_joins_consul_alone(shell: str, pi: Pi) -> None:
    set_env(pi, SWARM_IMAGE="")
    done = once(pi, shell)
    assert done.returncode == 0, done.stderr
    assert [call.split()[4] for call in docker_calls(pi, "run")] == ["consul"]
    assert not docker_calls(pi, "pull")
    assert pi.status()["swarm"] == "not joined: no swarm image is set"
    assert pi.status()["error"] == ""


def test_a_daemon_without_tcp_is_not_announced(pi: Pi) -> None:
    set_env(pi, DOCKER_TCP="0")
    assert once(pi).returncode == 0
    assert len(docker_calls(pi, "run")) == 1
    assert pi.status()["swarm"] == "not joined: docker listens on no TCP port"


def test_no_cluster(pi: Pi) -> None:
    set_env(pi, CLUSTER="0")
    assert once(pi).returncode == 0
    assert not docker_calls(pi, "run")
    assert pi.status()["docker"] == "19.03.13"


def test_a_card_for_another_machine_says_so(pi: Pi) -> None:
    set_env(pi, NODE_MACHINES="armv6l", NODE_ARCH="armv6")
    assert once(pi).returncode == 0, "it still joins"
    assert str(pi.status()["error"]).startswith("this card is for armv6 (armv6l), but this Pi is ")
