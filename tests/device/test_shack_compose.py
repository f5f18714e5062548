"""The rendered shack, up for real: docker-compose, a real dockerd, Debian's services."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from imagebuilder.shack.cluster import parse_swarm_nodes
from tests.device.shacklab import (
    CONSUL_IMAGE,
    CONSUL_TODAY,
    SWARM_IMAGE,
    ShackLab,
    import_card_images,
    import_todays_images,
    node_of,
    open_shack_lab,
)
from tests.device.swarmlab import SHACK, wait_for
from tests.lib.real_consul import consul_program
from tests.lib.tools import need, need_root

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.root, pytest.mark.long]

SERVICES = 7
TODAY = {
    "SHACK_KIND": "swarm-mode",
    "CONSUL_IMAGE": CONSUL_TODAY,
    "CONSUL_VERSION": "1.15.4",
    "SWARM_IMAGE": "",
    "DOCKER_TCP": "0",
}
ROSTER = "hostname,address\npi-01,10.77.0.11/24\npi-02,10.77.0.12/24\npi-03,10.77.0.13/24\n"
CLASS = f"""\
profile: armv7
image: {{file: base.img, unchecked: true}}
shack: {{address: {SHACK}}}
nodes_from: nodes.csv
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[ShackLab]:
    need_root()
    need("dockerd", "docker", "docker-compose", "docker-registry", "apt-cacher-ng", "chronyd",
         "nginx", "busybox", "nsenter", "ip", "curl", "make")  # fmt: skip
    consul_program()
    with open_shack_lab(["pi-01", "pi-02", "pi-03"]) as made:
        yield made


def rpi_image(lab: ShackLab, *words: str | Path) -> str:
    """Run the program on the shack, as the instructor does."""
    return lab.shack.run(sys.executable, "-m", "imagebuilder", *words, HOME=str(lab.shack.folder))


def class_file(folder: Path, shack: str = SHACK) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "base.img").write_bytes(b"")
    (folder / "nodes.csv").write_text(ROSTER)
    (folder / "classroom.yml").write_text(CLASS.replace(SHACK, shack))
    return folder / "classroom.yml"


@pytest.fixture(scope="module")
def shack(lab: ShackLab) -> Iterator[Path]:
    """Render the classic shack by the command, start it by make, and give its folder."""
    folder = lab.shack.folder / "shack"
    rpi_image(lab, "shack", class_file(lab.shack.folder / "class"), "-o", folder)
    without_uplink(folder)
    lab.make(folder, "up")
    wait_for(lambda: lab.make(folder, "status", check=False).count(" up\n") == SERVICES, 60)
    yield folder
    lab.make(folder, "down")


def without_uplink(folder: Path) -> None:
    """Let the mirror mirror the class's registry: there is no Docker Hub here."""
    config = folder / "mirror" / "config.yml"
    text = config.read_text().replace("https://registry-1.docker.io", f"http://{SHACK}:5000")
    config.write_text(text)


def test_every_service_says_up(lab: ShackLab, shack: Path) -> None:
    lines = [line for line in lab.make(shack, "status").splitlines() if "make" not in line]
    assert [line for line in lines if line] == [
        "consul up", "manager up", "registry up", "mirror up", "apt up", "time up", "web up",
    ]  # fmt: skip


def test_up_again_changes_nothing(lab: ShackLab, shack: Path) -> None:
    before = lab.shack.docker("ps", "-q")
    lab.make(shack, "up")
    assert lab.shack.docker("ps", "-q") == before


def test_the_card_s_script_joins_with_images_from_the_class_registry(
    lab: ShackLab, shack: Path
) -> None:
    import_card_images(lab.shack)
    said = lab.make(shack, "preload")
    assert f"preloaded to {SHACK}:5000, where the nodes find them" in said
    file = lab.shack.folder / "class" / "classroom.yml"
    with node_of(lab.pupils[2]) as node:
        assert node.docker("images", "-q") == ""
        said = node.once()
        assert node.status()["consul"] == f"joined, leader {SHACK}:8300", said
        kept = node.docker("images", "--format", "{{.Repository}}:{{.Tag}}").split()
        assert {CONSUL_IMAGE, SWARM_IMAGE} <= set(kept)
        report = json.loads(json_of(rpi_image(lab, "status", file, "--json")))
        third = report["nodes"][2]
        assert (third["hostname"], third["state"], third["arch"]) == ("pi-03", "joined", "armv7")
        card = rpi_image(lab, "status", file, "--card", node.card.parent, "--json")
        assert json.loads(json_of(card))["nodes"][2]["report"]["swarm"].startswith("joined as")


def test_status_shows_three_joined_nodes(lab: ShackLab, shack: Path) -> None:
    file = lab.shack.folder / "class" / "classroom.yml"
    before = json.loads(json_of(rpi_image(lab, "status", file, "--json")))
    assert before["summary"]["joined"] == 0
    for pupil in lab.pupils:
        pupil.join()
    start = time.monotonic()
    shown = rpi_image(lab, "status", file, "--watch", "--interval", "0.5")
    assert time.monotonic() - start < 60
    last = json.loads(json_of(rpi_image(lab, "status", file, "--json")))
    assert last["summary"]["joined"] == 3
    assert [(n["hostname"], n["address"], n["arch"]) for n in last["nodes"]] == [
        (pupil.name, pupil.address, "armv7") for pupil in lab.pupils
    ]
    assert "3 joined" in shown
    members = json.loads(lab.get(f"http://{SHACK}:8500/v1/agent/members"))
    alive, left = 1, 3  # serf's MemberStatus; a node that left is not missed
    assert {m["Name"] for m in members if m["Status"] not in (alive, left)} == set()
    assert {pupil.name for pupil in lab.pupils} < {
        m["Name"] for m in members if m["Status"] == alive
    }


def json_of(text: str) -> str:
    """Return the JSON text of an output that warnings may follow."""
    return text[: text.rindex("\n}") + 2]


def test_a_mirror_without_an_uplink_waits_and_the_rest_works(lab: ShackLab, shack: Path) -> None:
    config = shack / "mirror" / "config.yml"
    text = config.read_text()
    try:
        config.write_text(text.replace(f"http://{SHACK}:5000", f"http://{SHACK}:9"))
        lab.shack.docker("restart", "-t", "1", "shack-mirror")
        shown = lab.make(shack, "status")
    finally:
        config.write_text(text)
        lab.shack.docker("restart", "-t", "1", "shack-mirror")
    assert "mirror waits for an uplink" in shown
    assert shown.count(" up\n") == SERVICES - 1
    wait_for(lambda: "mirror up" in lab.make(shack, "status"), 30)


def test_a_node_asks_the_shack_for_the_time(lab: ShackLab, shack: Path) -> None:
    asked = subprocess.run(
        lab.pupils[0].command("chronyd", "-Q", "-t", "20", f"server {SHACK} iburst"),
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert "System clock wrong by" in asked.stderr


def test_a_node_reads_the_class_page(lab: ShackLab, shack: Path) -> None:
    page = lab.get(f"http://{SHACK}:8080/")
    for pupil in lab.pupils:
        assert f'id="{pupil.name}"' in page
        assert pupil.address in page
    assert f"{SHACK}\tshack" in lab.get(f"http://{SHACK}:8080/hosts")


def test_what_is_pushed_can_be_pulled_and_comes_through_the_mirror(
    lab: ShackLab, shack: Path
) -> None:
    lab.shack.docker("tag", "registry:2", "localhost:5000/library/ours:1")
    lab.shack.docker("push", "localhost:5000/library/ours:1")
    assert "library/ours" in lab.get(f"http://{SHACK}:5000/v2/_catalog")
    assert '"1"' in lab.get(f"http://{SHACK}:5001/v2/library/ours/tags/list")
    lab.shack.docker("rmi", "localhost:5000/library/ours:1")
    lab.shack.docker("pull", "localhost:5001/library/ours:1")


def test_the_class_registry_keeps_its_images_over_a_restart(lab: ShackLab, shack: Path) -> None:
    lab.shack.docker("tag", "nginx:1.26-alpine", "localhost:5000/kept:1")
    lab.shack.docker("push", "localhost:5000/kept:1")
    lab.make(shack, "down")
    lab.make(shack, "up")
    wait_for(lambda: "kept" in lab.get(f"http://{SHACK}:5000/v2/_catalog"), 30)


def test_the_apt_cache_answers(lab: ShackLab, shack: Path) -> None:
    assert "apt-cacher" in lab.get(f"http://{SHACK}:3142/acng-report.html").lower()


def test_the_manager_was_called_as_written(lab: ShackLab, shack: Path) -> None:
    assert lab.shack.docker("logs", "swarmmanager").startswith(
        f"argv manage --discovery-opt kv.path=swarm consul://{SHACK}:8500"
    )


def test_a_machine_without_the_address_starts_nothing(lab: ShackLab, tmp_path: Path) -> None:
    (tmp_path / "away").mkdir()
    file = class_file(tmp_path / "away")
    file.write_text(file.read_text().replace(SHACK, "10.77.0.99"))
    rpi_image(lab, "shack", file, "-o", tmp_path / "shack")
    said = subprocess.run(
        lab.shack.command("make", "-C", str(tmp_path / "shack"), "up"),
        capture_output=True, text=True, check=False,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DOCKER_HOST": lab.shack.socket},
    )  # fmt: skip
    assert said.returncode != 0
    assert "does not have the address 10.77.0.99" in said.stderr


def test_the_plain_script_starts_the_same_services(lab: ShackLab, shack: Path) -> None:
    lab.make(shack, "down")
    script = ("sh", shack / "shack.sh")
    for _ in range(2):
        plain(lab, *script, "up")
    wait_for(lambda: plain(lab, *script, "status", check=False).count(" up\n") == SERVICES, 60)
    plain(lab, *script, "down")
    assert lab.shack.docker("ps", "-q") == ""


def plain(lab: ShackLab, *words: str | Path, check: bool = True) -> str:
    """Run a script on the shack with its docker."""
    home = str(lab.shack.folder)
    return lab.shack.run(*words, check=check, DOCKER_HOST=lab.shack.socket, HOME=home)


@pytest.fixture(scope="module")
def swarm(lab: ShackLab, shack: Path) -> Iterator[Path]:
    """Start the shack of swarm mode in place of the classic one, and give its folder."""
    lab.make(shack, "down")  # both kinds use the same names
    for pupil in lab.pupils:
        pupil.stop_all()  # agents of the classic cluster hold the ports of those in containers
    folder = lab.shack.folder / "swarm"
    file = class_file(lab.shack.folder / "today", f"{SHACK}, kind: swarm-mode")
    rpi_image(lab, "shack", file, "-o", folder)
    without_uplink(folder)
    compose = folder / "docker-compose.yml"
    socket = lab.shack.socket.removeprefix("unix://")
    compose.write_text(compose.read_text().replace('"/var/run/docker.sock:', f'"{socket}:'))
    lab.make(folder, "up")
    import_todays_images(lab.shack)
    assert f"== {CONSUL_TODAY}" in lab.make(folder, "preload")
    yield folder
    lab.make(folder, "down", check=False)


def test_swarm_mode_publishes_a_token_that_a_real_dockerd_joins_with(
    lab: ShackLab, swarm: Path
) -> None:
    url = f"http://{SHACK}:8500/v1/kv/rpi-image/swarm/worker?raw"
    wait_for(lambda: lab.get(url).startswith("SWMTKN-"), 30)
    file = lab.shack.folder / "today" / "classroom.yml"
    with node_of(lab.pupils[0], **TODAY) as node:
        said = node.once()
        assert node.status()["swarm"] == f"joined as {node.address}", said
        assert node.status()["consul"] == f"joined, leader {SHACK}:8300"
        answer = f"http://{SHACK}:10000/nodes"
        wait_for(lambda: lab.get(answer).count('"ready"') == 2, 60)
        check_swarm_nodes(json.loads(lab.get(answer)), node.address)
        check_swarm_status(rpi_image(lab, "status", file, "--json"))
        for options in (("/containers/json",), ("/info", "-X", "POST")):
            said = lab.pupils[1].run(
                "curl", "-s", "-o", "/dev/null", "-w", "%{http_code}",
                f"http://{SHACK}:10000{options[0]}", *options[1:],
            )  # fmt: skip
            assert said == "403"


def checks(lab: ShackLab, service: str) -> dict[str, str]:
    """Return what the consul of the shack says of a service, by node."""
    text = lab.get(f"http://{SHACK}:8500/v1/health/checks/{service}") or "[]"
    return {check["Node"]: check["Status"] for check in json.loads(text)}


def replicas(lab: ShackLab) -> str:
    return lab.shack.docker("service", "ls", "--format", "{{.Replicas}}", check=False)


def test_three_replicas_survive_a_manager_and_a_power_cut(lab: ShackLab, swarm: Path) -> None:
    """Real dockerds and a real consul; each node registers Docker and SSH with their checks."""
    with node_of(lab.pupils[0], **TODAY) as first, node_of(lab.pupils[1], **TODAY) as second:
        for node in (first, second):
            said = node.once()
            assert node.status()["swarm"] == f"joined as {node.address}", said
        names = {first.name, second.name}
        wait_for(lambda: checks(lab, "docker") == dict.fromkeys(names, "passing"), 60)
        wait_for(lambda: checks(lab, "ssh") == dict.fromkeys(names, "critical"), 60)
        lab.shack.docker(
            "service", "create", "--detach", "--no-resolve-image", "--replicas", "3",
            "--name", "three", f"{SHACK}:5000/sleep:1",
        )  # fmt: skip
        wait_for(lambda: replicas(lab) == "3/3", 90)
        lab.shack.stop_docker()
        lab.shack.start_docker()
        wait_for(lambda: replicas(lab) == "3/3", 90)
        second.run("ip", "link", "set", "eth0", "down")
        states = ("node", "ls", "--format", "{{.Hostname}} {{.Status}}")
        wait_for(lambda: f"{second.name} Down" in lab.shack.docker(*states, check=False), 90)
        wait_for(lambda: running_on(lab, {first.name, "shack"}) == 3, 90)
        second.run("ip", "link", "set", "eth0", "up")
        second.new_boot()
        second.once()
        wait_for(lambda: f"{second.name} Ready" in lab.shack.docker(*states, check=False), 90)
        wait_for(lambda: checks(lab, "docker") == dict.fromkeys(names, "passing"), 60)
        lab.shack.docker("service", "rm", "three")


def running_on(lab: ShackLab, names: set[str]) -> int:
    """Count the running tasks of the service on these machines."""
    words = ("--filter", "desired-state=running", "--format", "{{.Node}} {{.CurrentState}}")
    lines = lab.shack.docker("service", "ps", "three", *words, check=False).splitlines()
    return sum(line.split()[0] in names and " Running" in line for line in lines)


def check_swarm_nodes(nodes: list[dict[str, Any]], address: str) -> None:
    engines = parse_swarm_nodes(nodes)
    assert sorted(engine.manager for engine in engines) == [False, True]
    worker = next(engine for engine in engines if not engine.manager)
    assert (worker.address, worker.healthy) == (address, True)
    assert worker.machine
    assert worker.version


def check_swarm_status(shown: str) -> None:
    rows = json.loads(json_of(shown))["nodes"]
    found = {row["hostname"]: [finding["detail"] for finding in row["findings"]] for row in rows}
    machine = os.uname().machine
    assert found == {
        "pi-01": [f"is {machine}, not of profile armv7"],
        "pi-02": ["not in the swarm"],
        "pi-03": ["not in the swarm"],
    }
