"""The whole promise at once: one file, three cards, a shack, and nobody at a keyboard.

`rpi-image batch` makes three images of one classroom file and `rpi-image shack` the shack; its
`make up` (docker-compose, a real dockerd) and `make preload` are run as its README says. The three
images are booted at once at a bridge that has no way out: the cards carry no container image, so
each Pi pulls consul and swarm from the class's own registry, joins, and `rpi-image status` says so.

Real: kernel, init, Docker and consul on every Pi (Debian's, armhf), Docker, consul, registry, time
and apt cache on the shack. Stand-ins: `swarm join` writes its key into consul as 0.2.0 does, and
the manager looks for these keys in consul, asks the Docker of each for its name and label, and
answers /info in the form of 0.2.0; it knows no node that is not both registered and reachable.
"""

from __future__ import annotations

import json
import shutil
import sys
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.boot import classlab, images
from tests.boot.classlab import Seat
from tests.boot.pi import PATIENCE
from tests.device.shacklab import CONSUL_IMAGE, SWARM_IMAGE, ShackLab, open_shack_lab
from tests.device.swarmlab import SHACK, wait_for
from tests.lib.real_consul import consul_program
from tests.lib.tools import need

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from concurrent.futures import Future
    from pathlib import Path

pytestmark = [pytest.mark.boot, pytest.mark.root]

# The generation that boots fastest.
GENERATION = "occidentalis-jessie"
JOIN_SECONDS = 1500.0 * PATIENCE
NODES = {f"pi-0{number}": f"10.77.0.{10 + number}" for number in (1, 2, 3)}
ROOM: dict[str, Any] = {
    "name": "three Pis",
    "profile": "armv7",
    "shack": {"address": SHACK},
    "network": {"gateway": SHACK},
    "nodes": [{"hostname": "pi-[01-03]", "address": "10.77.0.[11-13]/24"}],
}
# There is no uplink, so the mirror of Docker Hub waits for one.
SERVICES = ("consul", "manager", "registry", "apt", "time", "web")


@pytest.fixture(scope="module")
def lab() -> Iterator[ShackLab]:
    need("dockerd", "docker", "docker-compose", "docker-registry", "apt-cacher-ng", "chronyd",
         "nginx", "busybox", "nsenter", "ip", "curl", "make")  # fmt: skip
    consul_program()
    classlab.consul_of_arm()
    with open_shack_lab([]) as made:
        yield made


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the one file that everything comes from."""
    file = tmp_path_factory.mktemp("class") / "classroom.yml"
    base = images.golden(GENERATION)
    file.write_text(yaml.safe_dump(ROOM | {"image": {"file": str(base), "unchecked": True}}))
    return file


@pytest.fixture(scope="module")
def shack(lab: ShackLab, room: Path) -> Iterator[Path]:
    """Bring the shack up, and the Pis' container images into its registry."""
    folder = lab.shack.folder / "shack"
    rpi_image(lab, "shack", room, "-o", folder)
    lab.make(folder, "up")
    try:
        wait_for(lambda: all_up(lab.make(folder, "status", check=False)), 90)
        classlab.import_arm_images(lab.shack)
        lab.make(folder, "preload")
        yield folder
    finally:
        lab.make(folder, "down")


def all_up(said: str) -> bool:
    return all(f"{service} up\n" in said for service in SERVICES)


@pytest.fixture
def seats(lab: ShackLab, shack: Path, room: Path, tmp_path: Path) -> Iterator[list[Seat]]:
    """Build the class's images and put each into a Pi that is plugged in and still off."""
    out = room.parent / "images"
    rpi_image(lab, "batch", room, "-o", out)
    assert sorted(path.stem for path in out.glob("*.img")) == sorted(NODES)
    made = [
        Seat(out / f"{name}.img", tmp_path / name, bridge=lab.switch, number=number)
        for number, name in enumerate(NODES, start=1)
    ]
    try:
        for seat in made:
            seat.plug_in()
        yield made
    finally:
        for seat in made:
            seat.throw_away()
        shutil.rmtree(out)


def rpi_image(lab: ShackLab, *words: str | Path) -> str:
    """Run the program on the shack, as the instructor does."""
    return lab.shack.run(sys.executable, "-m", "imagebuilder", *words, HOME=str(lab.shack.folder))


def status(lab: ShackLab, room: Path, *words: str | Path) -> dict[str, Any]:
    """Ask for the state of the class; warnings may follow the JSON."""
    text = rpi_image(lab, "status", room, "--json", "--timeout", "60", *words)
    found: dict[str, Any] = json.loads(text[: text.rindex("\n}") + 2])
    return found


def joined(lab: ShackLab, room: Path, futures: Sequence[Future[None]]) -> dict[str, Any]:
    """Wait until everyone is there; give the last report, whoever is."""
    for _ in classlab.wait_with(futures, JOIN_SECONDS, step=10):
        found = status(lab, room)
        if found["summary"]["joined"] == len(NODES):
            break
    return found


def test_three_cards_of_one_file_join_the_shack(
    lab: ShackLab, room: Path, seats: list[Seat]
) -> None:
    assert status(lab, room)["summary"]["missing"] == len(NODES)
    with classlab.switched_on(seats) as futures:
        found = joined(lab, room, futures)
        shown = rpi_image(lab, "status", room, "--timeout", "60")
    assert found["summary"]["joined"] == len(NODES), [report_of(seat) for seat in seats]
    assert [(n["hostname"], n["address"], n["arch"]) for n in found["nodes"]] == [
        (name, address, "armv7") for name, address in NODES.items()
    ]
    assert found["leader"] == f"{SHACK}:8300"
    assert "3 joined" in shown
    for seat, (name, address) in zip(seats, NODES.items(), strict=True):
        expect_real(seat, name, address)
    expect_cards(lab, room, seats)


def report_of(seat: Seat) -> str:
    """Return what a Pi has to say that has not joined."""
    return seat.tell("hostname; ip -4 addr show eth0; tail -n 30 /var/log/rpi-image.log; docker ps")


def expect_real(seat: Seat, name: str, address: str) -> None:
    """Ask the Pi itself: the real consul sees the class, and what runs was pulled."""
    assert seat.tell("hostname; uname -m").split() == [name, "armv7l"]
    members = seat.tell("docker exec consul consul members").splitlines()[1:]
    rows = [line.split() for line in members]
    assert {row[0]: row[2] for row in rows if row[2] != "alive"} == {}
    alive = {row[0]: row[1].partition(":")[0] for row in rows}
    assert NODES.items() <= alive.items()
    assert SHACK in alive.values()
    assert {row[0]: row[3] for row in rows}[name] == "client"
    names = seat.tell("docker ps --format '{{.Names}} {{.Image}}'").splitlines()
    assert sorted(names) == [f"consul {CONSUL_IMAGE}", f"swarm {SWARM_IMAGE}"]
    kept = seat.tell("docker images --format '{{.Repository}}:{{.Tag}}'").split()
    assert {f"{SHACK}:5000/{CONSUL_IMAGE}", f"{SHACK}:5000/{SWARM_IMAGE}"} <= set(kept)
    said = seat.tell_until("cat /var/lib/rpi-image/status.json", '"swarm": "joined', seconds=120)
    found = json.loads(said)
    assert found["consul"] == f"joined, leader {SHACK}:8300"
    assert (found["swarm"], found["error"]) == (f"joined as {address}:2375", "")


def expect_cards(lab: ShackLab, room: Path, seats: list[Seat]) -> None:
    """Switch the class off: the cards tell in a reader what the Pis were."""
    cards: list[str | Path] = []
    for seat in seats:
        seat.halt()
        cards += ["--card", seat.raw()]
    for node in status(lab, room, *cards)["nodes"]:
        assert node["report"]["install"] == "ok"
        assert node["report"]["swarm"] == f"joined as {NODES[node['hostname']]}:2375"
