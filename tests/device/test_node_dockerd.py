"""The node script against real dockerds: what a class meets between power-on and the cluster."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.device.swarmlab import (
    CONSUL_IMAGE,
    SHACK,
    SWARM_IMAGE,
    Lab,
    Node,
    open_lab,
    settings_of,
    wait_for,
)
from tests.lib.tools import need, need_root

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.root, pytest.mark.long]


@pytest.fixture(scope="module")
def running() -> Iterator[Lab]:
    need_root()
    need("dockerd", "docker", "docker-registry", "nsenter", "unshare", "ip", "busybox", "curl")
    with open_lab() as lab:
        yield lab


@pytest.fixture
def lab(running: Lab) -> Iterator[Lab]:
    """Return the lab with the shack up, nothing registered, the nodes as after their first boot."""
    running.shack.stop_server()
    running.shack.refuse_pulls(0)
    running.shack.start_server()
    for number, node in enumerate(running.nodes, 1):
        node.set_address(f"10.77.0.{10 + number}")
        node.fresh()
    yield running
    for node in running.nodes:
        node.stop_script()
        node.clear()


def _is_joined(node: Node) -> bool:
    status = node.status()
    return status.get("error") == "" and status.get("swarm") == f"joined as {node.address}:2375"


def test_two_nodes_join(lab: Lab) -> None:
    for node in lab.nodes:
        node.once()
        assert _is_joined(node), node.log()
    assert lab.shack.keys() == ["swarm/10.77.0.11:2375", "swarm/10.77.0.12:2375"]
    first = lab.nodes[0]
    consul = first.argv("consul")
    assert "-node pi-01 -advertise 10.77.0.11" in consul
    assert f"-retry-join {SHACK}" in consul
    assert "-server" not in consul
    assert "-join" not in consul.split()
    assert first.argv("swarm") == "join --addr 10.77.0.11:2375 consul://10.77.0.11:8500/swarm"
    mode = first.docker("inspect", "-f", "{{.HostConfig.NetworkMode}}", "consul")
    assert mode == "host"
    status = first.status()
    assert status["docker"] == first.docker("version", "-f", "{{.Server.Version}}")
    assert status["address"] == "10.77.0.11"
    assert status["consul"] == f"joined, leader {SHACK}:8300"
    assert "joined as 10.77.0.11:2375" in (first.card / "status").read_text()
    assert "starting swarm" in (first.card / "node.log").read_text()


def test_a_second_pass_of_the_same_boot_leaves_the_containers_alone(lab: Lab) -> None:
    node = lab.nodes[0]
    node.once()
    before = (node.container_id("consul"), node.container_id("swarm"))
    assert all(before)
    node.start_script()
    wait_for(lambda: node.log().count("pi-01 at 10.77.0.11") == 2, 20)
    node.stop_script()
    assert (node.container_id("consul"), node.container_id("swarm")) == before
    assert node.log().count("starting consul") == 1


def test_the_shack_comes_up_late(lab: Lab) -> None:
    lab.shack.stop_server()
    node = lab.nodes[0]
    node.start_script()
    wait_for(lambda: "no leader" in str(node.status().get("error")), 40)
    assert node.status()["consul"] == "started, no leader yet"
    assert f"is the shack {SHACK} up?" in (node.card / "status").read_text()
    assert not node.container_id("swarm"), "0.2.0 dies where it cannot register"
    lab.shack.start_server()
    wait_for(lambda: _is_joined(node), 60)
    wait_for(lambda: lab.shack.keys() == ["swarm/10.77.0.11:2375"], 10)


def test_the_address_changes_while_the_pi_runs(lab: Lab) -> None:
    node = lab.nodes[0]
    node.start_script()
    wait_for(lambda: _is_joined(node), 40)
    first = node.container_id("consul")
    node.set_address("10.77.0.21")
    wait_for(lambda: _is_joined(node), 60)
    assert node.status()["address"] == "10.77.0.21"
    assert node.container_id("consul") != first
    assert "-advertise 10.77.0.21" in node.argv("consul")
    assert "--addr 10.77.0.21:2375" in node.argv("swarm")
    wait_for(lambda: lab.shack.keys() == ["swarm/10.77.0.21:2375"], 10)


def test_containers_of_the_last_boot_are_replaced(lab: Lab) -> None:
    node = lab.nodes[0]
    node.once()
    old = (node.container_id("consul"), node.container_id("swarm"))
    assert all(old)
    node.docker("kill", "consul", "swarm")
    node.stop_docker()
    node.set_address("10.77.0.31")
    node.new_boot()
    node.start_docker()
    assert (node.container_id("consul"), node.container_id("swarm")) == old, "left over"
    node.once()
    assert _is_joined(node), node.log()
    assert "--addr 10.77.0.31:2375" in node.argv("swarm")
    wait_for(lambda: lab.shack.keys() == ["swarm/10.77.0.31:2375"], 10)


def test_a_container_made_by_hand_does_not_stand_in_the_way(lab: Lab) -> None:
    node = lab.nodes[0]
    hold = ["--entrypoint", "sleep", SWARM_IMAGE, "1000"]
    node.docker("run", "-d", "--name", "consul", *hold)
    node.docker("create", "--name", "swarm", *hold)
    node.once()
    assert _is_joined(node), node.log()
    assert node.argv("consul").startswith("agent")


def test_a_container_that_a_pupil_removes_comes_back(lab: Lab) -> None:
    node = lab.nodes[0]
    node.start_script()
    wait_for(lambda: _is_joined(node), 40)
    first = node.container_id("swarm")
    node.docker("rm", "-f", "swarm")
    wait_for(lambda: node.container_id("swarm") not in {"", first}, 30)


def test_a_pull_that_fails_twice(lab: Lab) -> None:
    node = lab.nodes[1]
    for image in (CONSUL_IMAGE, SWARM_IMAGE):
        node.docker("rmi", "-f", image, f"{SHACK}:5000/{image}", check=False)
    lab.shack.refuse_pulls(2)
    node.start_script()
    wait_for(lambda: _is_joined(node), 90)
    assert lab.shack.refused() == 0, "the registry did refuse"
    assert f"pulling {CONSUL_IMAGE} (try 2)" in node.log()
    tags = node.docker("images", "--format", "{{.Repository}}:{{.Tag}}").splitlines()
    assert {CONSUL_IMAGE, SWARM_IMAGE} <= set(tags)


def test_images_come_from_the_card_without_a_registry(lab: Lab) -> None:
    node = lab.nodes[1]
    (node.card / "images").mkdir()
    lab.nodes[0].docker("save", "-o", node.card / "images" / "both.tar", CONSUL_IMAGE, SWARM_IMAGE)
    for image in (CONSUL_IMAGE, SWARM_IMAGE):
        node.docker("rmi", "-f", image, f"{SHACK}:5000/{image}", check=False)
    lab.shack.refuse_pulls(99)
    node.once("busybox")
    assert _is_joined(node), node.log()
    assert lab.shack.refused() == 99, "nobody asked the registry"


def test_an_image_that_is_nowhere(lab: Lab) -> None:
    node = lab.nodes[0]
    node.fresh(CONSUL_IMAGE="standin/not-there:1")
    node.once()
    error = str(node.status()["error"])
    assert error.startswith("the image standin/not-there:1 could not be pulled: ")
    assert len(error) > 60
    assert not node.container_id("consul")


def test_no_docker_and_then_docker(lab: Lab) -> None:
    node = lab.nodes[0]
    node.stop_docker()
    node.new_boot()
    node.start_script()
    try:
        wait_for(lambda: "docker does not answer" in str(node.status().get("error")), 40)
    finally:
        node.start_docker()
    wait_for(lambda: _is_joined(node), 60)


def test_no_network_and_then_network(lab: Lab) -> None:
    node = lab.nodes[0]
    node.run("ip", "addr", "flush", "dev", "eth0")
    node.start_script()
    wait_for(lambda: "no network" in str(node.status().get("error")), 20)
    assert "no address yet" in (node.card / "status").read_text()
    node.set_address("10.77.0.11")
    wait_for(lambda: _is_joined(node), 60)


def test_a_server_with_a_gossip_key_shows_the_key_to_nobody(lab: Lab) -> None:
    node = lab.nodes[0]
    key = "cg8StVXbQJ0gPvMd9o7yrg=="
    node.fresh(CONSUL_SERVER="1", CONSUL_BOOTSTRAP_EXPECT="3", CONSUL_ENCRYPT=key)
    node.once("dash")
    assert _is_joined(node), node.log()
    argv = node.argv("consul")
    assert "-server -bootstrap-expect 3" in argv
    assert key not in argv
    assert key not in json.dumps(json.loads(node.docker("inspect", "consul")))
    logs = node.docker("logs", "consul").splitlines()
    (config,) = (line.removeprefix("config ") for line in logs if line.startswith("config "))
    assert json.loads(config)["encrypt"] == key, "the agent can read it"
    assert key not in node.log()
    assert key not in (node.card / "node.log").read_text()


def test_a_newer_swarm_takes_another_flag(lab: Lab) -> None:
    node = lab.nodes[0]
    node.fresh(SWARM_VERSION="1.2.9", SWARM_PATH="room/7")
    (node.state / "last_address").write_text("10.77.0.99:2375\n")
    for key in ("room/7/10.77.0.99:2375", "room/7/docker/swarm/nodes/10.77.0.99:2375"):
        lab.shack.http(f"/v1/kv/{key}", "-X", "PUT", "-d", "x")
    node.once()
    assert _is_joined(node), node.log()
    words = "join --advertise 10.77.0.11:2375 consul://10.77.0.11:8500/room/7"
    assert node.argv("swarm") == words
    assert lab.shack.keys() == ["room/7/docker/swarm/nodes/10.77.0.11:2375"]


def test_swarm_mode_takes_its_token_from_the_shack(lab: Lab) -> None:
    shack, node = lab.shack, lab.nodes[1]
    node.fresh(SHACK_KIND="swarm-mode")
    node.once()
    assert node.status()["error"] == f"no swarm token at the shack {SHACK}: is it up?"
    shack.start_docker()
    try:
        shack.docker("swarm", "init", "--advertise-addr", SHACK)
        token = shack.docker("swarm", "join-token", "-q", "worker")
        shack.http("/v1/kv/rpi-image/swarm/worker", "-X", "PUT", "-d", token)
        node.once()
        assert node.status()["swarm"] == "joined as 10.77.0.12", node.log()
        members = shack.docker("node", "ls", "--format", "{{.Status}}").split()
        assert members == ["Ready", "Ready"]
        node.once()
        assert node.log().count("joining the swarm") == 1
        assert token not in node.log()
        assert token not in (node.card / "node.log").read_text()
    finally:
        node.docker("swarm", "leave", "--force", check=False)
        shack.docker("swarm", "leave", "--force", check=False)
        shack.stop_docker()


def test_a_changed_configuration_on_the_card_is_installed(lab: Lab) -> None:
    """The installer is called, and the script goes on with what it has brought."""
    node = lab.nodes[0]
    node.once()
    assert _is_joined(node)
    changed = (node.card / "node.env").read_text().replace("c0ffee", "facade")
    changed = changed.replace("NODE_HOSTNAME=pi-01", "NODE_HOSTNAME=pi-41")
    (node.card / "node.env").write_text(changed)
    (node.card / "node").write_bytes((node.state / "node").read_bytes())
    (node.root / "proc" / "mounts").write_text("/dev/root / ext4 rw 0 0\n")
    node.new_boot()
    node.once()
    assert _is_joined(node), node.log()
    assert (node.root / "etc" / "hostname").read_text() == "pi-41\n"
    assert "-node pi-41" in node.argv("consul")
    assert node.status()["hash"] == settings_of("pi-01")["RPI_IMAGE_HASH"].replace(
        "c0ffee", "facade"
    )


@pytest.mark.parametrize(("limit", "killed"), [("32m", "true 137"), ("256m", "false 0")])
def test_a_limit_of_memory_is_enforced(lab: Lab, limit: str, killed: str) -> None:
    """The tail of busybox keeps a line whole, here 64 MiB; the second limit shows the cause.

    A Pi's kernel has the cgroup of memory only with the words of `plan.cmdline`.
    """
    node = lab.nodes[0]
    words = ("--memory", limit, "--memory-swap", limit, "--entrypoint", "/bin/busybox")
    line = "busybox head -c 67108864 /dev/zero | exec busybox tail -n 1 >/dev/null"
    hog = ("sh", "-c", f"{line}; exit $?")
    node.docker("run", "--name", "hog", *words, CONSUL_IMAGE, *hog, check=False)
    bytes_limit = str(int(limit[:-1]) << 20)
    assert node.docker("inspect", "-f", "{{.HostConfig.Memory}}", "hog") == bytes_limit
    state = node.docker("inspect", "-f", "{{.State.OOMKilled}} {{.State.ExitCode}}", "hog")
    assert state == killed
