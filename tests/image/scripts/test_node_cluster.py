"""What the node script takes for running, joined and ended, as Docker and consul answer it."""

from __future__ import annotations

import re
import subprocess
import time

import pytest

from tests.lib.node_tree import SLEEP, docker_calls, once, set_env
from tests.lib.pi_tree import SHELLS, STATE, Pi


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    ("status", "restarts", "runs"),
    [
        ("running", "0", True),
        ("<no value>", "<no value>", True),
        ("", "0", True),
        ("running", "3", False),
        ("restarting", "0", False),
        ("exited", "0", False),
        ("dead", "0", False),
    ],
)
def test_a_container_that_restarts_in_a_loop_does_not_run(
    status: str, restarts: str, *, runs: bool, shell: str, pi: Pi
) -> None:
    """`State.Running` is true between two starts; Docker before 1.9 has no `State.Status`."""
    for name, text in (("status", status), ("restarts", restarts)):
        (pi.folder / "docker" / f"{name}-consul").write_text(f"{text}\n")
    assert (once(pi, shell).returncode == 0) == runs
    wanted = "" if runs else "consul ended at once: its last words"
    assert pi.status()["error"] == wanted


def test_a_restarting_container_of_old_docker(pi: Pi) -> None:
    fake = (pi.folder / "fakes" / "docker").read_text()
    (pi.folder / "fakes" / "docker").write_text(fake.replace("echo true false", "echo true true"))
    assert once(pi).returncode == 1
    assert pi.status()["error"] == "consul ended at once: its last words"


def test_a_consul_that_ends_while_it_looks_for_a_leader(pi: Pi) -> None:
    """Its own reason is told, not that the shack may be down."""
    (pi.folder / "leader").write_text('""')
    gone = f"rm -f {pi.folder}/docker/running-consul"
    pi.fake("sleep", f'[ "$1" != 3 ] || {{ {gone}; exit; }}; exec {SLEEP} "$1"')
    assert once(pi, RPI_IMAGE_WAIT="9").returncode == 1
    assert pi.status()["error"] == "consul ended: its last words"


def test_volumes_go_with_their_container(pi: Pi) -> None:
    """The image names one (VOLUME /data), so each boot would leave another on the card."""
    once(pi)
    assert docker_calls(pi, "rm") == ["docker rm -fv consul", "docker rm -fv swarm"]


@pytest.mark.parametrize("deaf", [False, True])
def test_consul_leaves_its_cluster_before_it_is_replaced(deaf: bool, pi: Pi) -> None:
    once(pi)
    assert docker_calls(pi, "kill") == [], "there was none"
    if deaf:
        (pi.folder / "docker" / "deaf").touch()
    pi.fake("ip", 'echo "$3 dev eth0 src 192.168.2.104"')
    assert once(pi, RPI_IMAGE_SETTLE="1").returncode == 0
    assert docker_calls(pi, "kill") == ["docker kill --signal=INT consul"]
    calls = pi.calls()
    first = calls.index("docker kill --signal=INT consul")
    assert "docker rm -fv consul" in calls[first:]


@pytest.mark.parametrize(
    ("version", "key"),
    [
        ("0.2.0", "swarm/192.168.2.103:2375"),
        ("1.2.9", "swarm/docker/swarm/nodes/192.168.2.103:2375"),
    ],
)
def test_joined_is_what_is_in_consul(version: str, key: str, pi: Pi) -> None:
    set_env(pi, SWARM_VERSION=version)
    (pi.folder / "unregistered").touch()
    assert once(pi).returncode == 1
    assert pi.status()["swarm"] == "started, not registered yet"
    assert str(pi.status()["error"]).endswith("in consul: its last words")
    (pi.folder / "unregistered").unlink()
    assert once(pi).returncode == 0
    assert pi.status()["swarm"] == "joined as 192.168.2.103:2375"
    asked = [call for call in pi.calls() if "/v1/kv/" in call and "-X PUT" not in call]
    assert asked[-1].endswith(f"http://127.0.0.1:8500/v1/kv/{key}")
    assert len(docker_calls(pi, "run")) == 2


def test_a_swarm_that_does_not_take_the_node(pi: Pi) -> None:
    set_env(pi, SHACK_KIND="swarm-mode")
    fake = (pi.folder / "fakes" / "docker").read_text()
    (pi.folder / "fakes" / "docker").write_text(fake.replace("echo active", "echo pending"))
    assert once(pi, SWARM="inactive").returncode == 1
    assert pi.status()["error"] == "the swarm has not taken this node: its state is pending"
    assert pi.status()["swarm"] == ""


def test_dns_is_for_those_who_ask_for_it(pi: Pi) -> None:
    """On HypriotOS before 1.12.1 systemd-resolved holds the port, and consul would not start."""
    set_env(pi, CONSUL_DNS="1", CONSUL_ENCRYPT="")
    once(pi)
    assert "-config-file" not in docker_calls(pi, "run")[0]
    assert not pi.path(f"{STATE}/consul").exists()


def test_a_consul_that_was_killed_is_missed_at_once(pi: Pi) -> None:
    """Docker does not start it again; the node script waits for its end instead of polling."""
    (pi.folder / "docker" / "dies").touch()
    quick = {"RPI_IMAGE_PAUSE": "0", "RPI_IMAGE_WAIT": "0", "RPI_IMAGE_SETTLE": "0"}
    script = pi.path(f"{STATE}/node")
    script.write_text(script.read_text().replace("sleep 5\n", "sleep 1\n"))
    environment = {"PATH": f"{pi.folder}/fakes:/usr/bin:/bin:/usr/sbin", "RPI_IMAGE_FAKES": "1"}
    environment |= {"RPI_IMAGE_ROOT": str(pi.root)} | quick
    with subprocess.Popen(["dash", script], env=environment, start_new_session=True) as service:
        until = time.monotonic() + 40
        while len(docker_calls(pi, "run --") + docker_calls(pi, "run -d --name consul")) < 2:
            assert time.monotonic() < until, pi.calls()
            time.sleep(0.1)
        service.kill()
    assert "consul has ended" in pi.read("var/log/rpi-image.log")


def test_one_apt_at_a_time(pi: Pi) -> None:
    """The upgrade outlives a restart of the service (KillMode=process)."""
    set_env(pi, UPGRADE="1")
    pi.fake("timedatectl", "echo 'System clock synchronized: yes'")
    pi.fake("apt-get", f"while [ ! -e {pi.folder}/go ]; do /bin/sleep 0.1; done")
    for _ in range(3):
        once(pi)
    calls = [call for call in pi.calls() if call.startswith("apt-get")]
    (pi.folder / "go").touch()
    assert [call.split()[-1] for call in calls] == ["update"]
    done = pi.path(f"{STATE}/done")
    until = time.monotonic() + 20
    while not list(done.rglob("upgrade")):
        assert time.monotonic() < until
        time.sleep(0.1)
    assert len([call for call in pi.calls() if re.match("apt-get.*upgrade", call)]) == 1
