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
    SWARM_IMAGE,
    ShackLab,
    import_card_images,
    node_of,
    open_shack_lab,
)
from tests.device.swarmlab import SHACK, Docker, wait_for
from tests.lib.real_consul import consul_program
from tests.lib.tools import need, need_root

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.root, pytest.mark.long]

SERVICES = 7
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


def class_file(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "base.img").write_bytes(b"")
    (folder / "nodes.csv").write_text(ROSTER)
    (folder / "classroom.yml").write_text(CLASS)
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


def test_swarm_mode_publishes_a_token_that_a_real_dockerd_joins_with(
    lab: ShackLab, shack: Path
) -> None:
    lab.make(shack, "down")  # both kinds use the same names
    folder = lab.shack.folder / "swarm"
    file = lab.shack.folder / "class" / "classroom.yml"
    rpi_image(lab, "shack", file, "-o", folder, "--kind", "swarm-mode")
    without_uplink(folder)
    compose = folder / "docker-compose.yml"
    socket = lab.shack.socket.removeprefix("unix://")
    compose.write_text(compose.read_text().replace('"/var/run/docker.sock:', f'"{socket}:'))
    lab.make(folder, "up")
    url = f"http://{SHACK}:8500/v1/kv/rpi-image/swarm/worker?raw"
    wait_for(lambda: lab.get(url).startswith("SWMTKN-"), 30)
    pupil = lab.pupils[0]
    node = Docker(pupil.lab, pupil.name, pupil.folder / "docker")
    node.folder.mkdir()
    try:
        node.start_docker()
        node.docker("swarm", "join", "--token", lab.get(url).strip(), f"{SHACK}:2377")
        answer = f"http://{SHACK}:10000/nodes"
        wait_for(lambda: lab.get(answer).count('"ready"') == 2, 60)
        check_swarm_nodes(json.loads(lab.get(answer)), pupil.address)
        check_swarm_status(rpi_image(lab, "status", file, "--kind", "swarm-mode", "--json"))
        refused = lab.pupils[1].run(
            "curl", "-s", "-o", "/dev/null", "-w", "%{http_code}",
            f"http://{SHACK}:10000/containers/json",
        )  # fmt: skip
        assert refused == "403"
        posted = lab.pupils[1].run(
            "curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-X", "POST",
            f"http://{SHACK}:10000/info",
        )  # fmt: skip
        assert posted == "403"
    finally:
        node.docker("swarm", "leave", "--force", check=False)
        for job in tuple(node.jobs):
            node.stop(job)
        lab.make(folder, "down", check=False)


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
