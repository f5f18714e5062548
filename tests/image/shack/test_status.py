"""`rpi-image status` from end to end: recorded answers, a real consul, real cards."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from imagebuilder.cli.main import run as rpi_image
from imagebuilder.errors import ImageError, SourceError
from imagebuilder.shack.cluster import read_card
from tests.lib.real_consul import consul_program, free_ports, running, wait_for
from tests.lib.shack_server import (
    RECORDINGS,
    Answer,
    answering,
    consul_answers,
    manager_answers,
)
from tests.lib.tools import need, run

if TYPE_CHECKING:
    from pathlib import Path

REPORT = {
    "hostname": "pi-03", "hash": "ab" * 32, "installed": "2026-05-01T08:00:00Z",
    "install": "ok", "booted": "2026-05-01T08:01:00Z", "address": "192.168.2.103",
    "arch": "armv7l", "docker": "1.6.0", "consul": "no leader", "swarm": "waiting",
    "error": "no leader after 300 s", "updated": "2026-05-01T08:06:00Z",
}  # fmt: skip


def class_file(
    folder: Path, consul_port: int, swarm_port: int, *, nodes: str = "pi-[01-03]"
) -> Path:
    file = folder / "classroom.yml"
    (folder / "base.img").write_bytes(b"")
    file.write_text(
        "profile: armv7\n"
        "image: {file: base.img, unchecked: true}\n"
        f"shack: {{address: 127.0.0.1, ports: {{consul: {consul_port}, swarm: {swarm_port}}}}}\n"
        "wifi: {country: FR, networks: [{ssid: shack, passphrase: {env: NOBODY_SETS_THIS}}]}\n"
        f"nodes:\n  - hostname: {nodes}\n"
    )
    return file


def status(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    code = rpi_image(["status", *map(str, arguments)])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_the_table_names_every_node_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (
        answering(consul_answers("0.5.0")) as consul,
        answering(manager_answers("1.2.9")) as manager,
    ):
        code, out, err = status(capsys, class_file(tmp_path, consul, manager))
    rows = {line.split()[0]: line for line in out.splitlines()}
    assert code == 0
    assert rows["pi-01"].split()[1] == "joined"
    assert rows["pi-02"].split()[1] == "missing"
    assert "failed in consul" in rows["pi-02"]
    assert rows["pi-03"].split()[1] == "missing"
    assert rows["192.168.2.99"].split()[1] == "stale-address"
    assert "1 joined" in err
    assert "2 missing" in err


def test_json_is_for_programs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (
        answering(consul_answers("1.8.7")) as consul,
        answering(manager_answers("1.2.9")) as manager,
    ):
        _, out, _ = status(capsys, class_file(tmp_path, consul, manager), "--json")
    report = json.loads(out)
    assert report["summary"]["missing"] == 2
    assert report["leader"] == "127.0.0.1:8300"
    assert [node["hostname"] for node in report["nodes"]][:3] == ["pi-01", "pi-02", "pi-03"]
    assert report["nodes"][0]["docker"] == "17.03.1-ce"
    assert report["nodes"][0]["report"] is None
    assert [node["there"] for node in report["nodes"]][:2] == ["other-address", "missing"]
    assert report["nodes"][0]["card"] == "never"


def test_an_unreachable_shack_leaves_what_the_ledger_knows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = class_file(tmp_path, *free_ports(2))
    code, out, err = status(capsys, file, "--timeout", "1")
    assert code == 0
    assert out.splitlines()[1].split()[:3] == ["pi-01", "unknown", "never"]
    assert "warning: the shack does not answer at http://127.0.0.1:" in err
    assert status(capsys, file, "--timeout", "1", "--check")[0] == 8


def test_a_silent_manager_is_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with answering(consul_answers("0.5.0")) as consul:
        code, out, err = status(capsys, class_file(tmp_path, consul, *free_ports(1)))
    assert code == 0
    assert "warning: only consul was queried" in err
    assert "joined" in out


def test_the_nodes_of_swarm_mode_are_those_of_its_manager(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nodes = (RECORDINGS / "docker-20.10" / "nodes.json").read_bytes()
    with answering(consul_answers("0.5.0")) as consul, answering({"/nodes": nodes}) as manager:
        file = class_file(tmp_path, consul, manager)
        _, out, err = status(capsys, file, "--kind", "swarm-mode", "--json")
    rows = json.loads(out)["nodes"]
    assert [(row["hostname"], row["findings"][0]["detail"]) for row in rows] == [
        ("pi-01", "is x86_64, not of profile armv7"),
        ("pi-02", "engine: down heartbeat failure"),
        ("pi-03", "not in the swarm"),
    ]
    assert err == ""


def test_a_silent_manager_of_swarm_mode_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with answering(consul_answers("0.5.0")) as consul:
        file = class_file(tmp_path, consul, *free_ports(1))
        _, out, err = status(capsys, file, "--kind", "swarm-mode")
    assert "warning: the manager does not answer: " in err
    assert out.count("the manager does not answer") == 3


def test_a_class_without_a_shack(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = class_file(tmp_path, 1, 1)
    lines = [line for line in file.read_text().splitlines() if not line.startswith("shack")]
    file.write_text("\n".join(lines) + "\n")
    code, _, err = status(capsys, file)
    assert (code, err) == (0, "cards: 3 never\n")
    for flags in (["--watch"], ["--kind", "classic"]):
        code, _, err = status(capsys, file, *flags)
        assert code == 3
        assert "has no `shack:`" in err


def test_watch_ends_when_everyone_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    consul_says: dict[str, Answer] = consul_answers("0.5.0")
    # The key of 192.168.2.99 stays in the store: a stranger, whom nobody waits for.
    whole = consul_json([("pi-01", "192.168.2.101"), ("laptop", "192.168.2.9")])
    consul_says["/v1/catalog/nodes"] = [consul_json([]), whole]
    with answering(consul_says) as consul, answering(manager_answers("0.2.0")) as manager:
        file = class_file(tmp_path, consul, manager, nodes="pi-01")
        code, out, err = status(capsys, file, "--watch", "--interval", "0.2")
    assert code == 0
    assert out.count("pi-01") >= 2
    assert err.splitlines()[-1].endswith("1 joined, 1 unknown, 1 stale-address")


def test_watch_writes_one_json_document_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    consul_says: dict[str, Answer] = consul_answers("0.5.0")
    whole = consul_json([("pi-01", "192.168.2.101")])
    consul_says["/v1/catalog/nodes"] = [consul_json([]), whole]
    with answering(consul_says) as consul, answering(manager_answers("0.2.0")) as manager:
        file = class_file(tmp_path, consul, manager, nodes="pi-01")
        _, out, _ = status(capsys, file, "--watch", "--interval", "0.2", "--json")
    looks = [json.loads(line) for line in out.splitlines()]
    assert [look["nodes"][0]["state"] for look in looks] == ["missing", "joined"]


def test_a_leader_that_consul_does_not_tell_is_null(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nodes = {"/v1/catalog/nodes": consul_json([("pi-01", "192.168.2.101")])}
    with answering(nodes) as consul, answering(manager_answers("0.2.0")) as manager:
        code, out, _ = status(capsys, class_file(tmp_path, consul, manager), "--json")
    report = json.loads(out)
    assert (code, report["leader"], report["summary"]["joined"]) == (0, None, 1)


def test_watch_goes_on_over_a_shack_that_stumbles(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    consul_says: dict[str, Answer] = consul_answers("0.5.0")
    leader = consul_says["/v1/status/leader"]
    assert isinstance(leader, bytes)
    consul_says["/v1/status/leader"] = [(500, b"No cluster leader"), leader]
    with answering(consul_says) as consul, answering(manager_answers("0.2.0")) as manager:
        file = class_file(tmp_path, consul, manager, nodes="pi-01")
        code, out, err = status(capsys, file, "--watch", "--interval", "0.2")
    assert code == 0
    assert "answered 500: No cluster leader" in err
    looks = [line.split()[1] for line in out.splitlines() if line.startswith("pi-01")]
    assert looks == ["unknown", "joined"]
    assert " 1 joined" in err.splitlines()[-1]


def consul_json(members: list[tuple[str, str]]) -> bytes:
    return json.dumps([{"Node": name, "Address": address} for name, address in members]).encode()


def test_watch_is_left_by_ctrl_c_at_once(tmp_path: Path) -> None:
    with answering(consul_answers("0.5.0")) as consul:
        file = class_file(tmp_path, consul, *free_ports(1))
        watching = subprocess.Popen(
            [sys.executable, "-m", "imagebuilder", "status", file, "--watch", "--interval", "60"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert watching.stdout is not None
        assert watching.stdout.readline().startswith("node")
        time.sleep(0.3)
        watching.send_signal(2)
        start = time.monotonic()
        _, err = watching.communicate(timeout=10)
    assert watching.returncode == 130
    assert time.monotonic() - start < 10
    assert "Traceback" not in err


# ---- cards


def test_a_mounted_card(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    card = tmp_path / "card"
    (card / "rpi-image").mkdir(parents=True)
    (card / "rpi-image" / "status.json").write_text(json.dumps(REPORT))
    with answering(consul_answers("0.5.0")) as consul:
        file = class_file(tmp_path, consul, *free_ports(1))
        _, out, _ = status(capsys, file, "--card", card, "--json")
    third = json.loads(out)["nodes"][2]
    assert third["report"]["error"] == "no leader after 300 s"
    assert third["address"] == "192.168.2.103"
    assert "no leader after 300 s" in third["findings"][1]["detail"]


def test_with_a_card_at_hand_the_shack_may_be_down(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    card = tmp_path / "card"
    (card / "rpi-image").mkdir(parents=True)
    (card / "rpi-image" / "status.json").write_text(json.dumps(REPORT))
    code, out, err = status(capsys, class_file(tmp_path, *free_ports(2)), "--card", card)
    assert code == 0
    assert "shack not queried" in out
    assert "no leader after 300 s" in out
    assert "warning: the shack does not answer" in err


def card_image(folder: Path, *files: tuple[str, bytes]) -> Path:
    """Make a card with one FAT partition by sfdisk, mkfs.vfat and mtools."""
    need("sfdisk", "mkfs.vfat", "mcopy", "mmd")
    image, at = folder / "card.img", 2048 * 512
    with image.open("wb") as disk:
        disk.truncate(at + 16 * 2**20)
    run("sfdisk", "-q", image, input="2048,,c\n")
    run("mkfs.vfat", "-F", "16", f"--offset={2048}", image, str(16 * 1024))
    run("mmd", "-i", f"{image}@@{at}", "::rpi-image")
    for name, data in files:
        (folder / "file").write_bytes(data)
        run("mcopy", "-i", f"{image}@@{at}", folder / "file", f"::{name}")
    return image


def test_a_card_that_is_only_inserted(tmp_path: Path) -> None:
    text = json.dumps(REPORT).encode()
    image = card_image(tmp_path, ("rpi-image/status.json", text))
    report = read_card(image)
    assert (report.hostname, report.swarm, report.place) == ("pi-03", "waiting", str(image))


def test_a_card_that_has_not_booted(tmp_path: Path) -> None:
    image = card_image(tmp_path)
    for place in (image, tmp_path):
        with pytest.raises(SourceError, match=r"no rpi-image/status\.json"):
            read_card(place)


def test_a_card_that_is_no_card(tmp_path: Path) -> None:
    (tmp_path / "zeros").write_bytes(bytes(4096))
    with pytest.raises(ImageError):
        read_card(tmp_path / "zeros")
    with pytest.raises(ImageError, match="cannot read"):
        read_card(tmp_path / "nothing")


# ---- a real consul


def agent(folder: Path, name: str, address: str, http: int, server: int) -> list[str | Path]:
    """Return the arguments of an agent with ports of its own at one of the loopback's addresses."""
    ports = {"http": http, "server": server, "serf_lan": server + 1, "serf_wan": -1, "dns": -1}
    config = folder / f"{name}.json"
    config.write_text(json.dumps({"ports": ports}))
    return [
        "-node", name, "-bind", address, "-advertise", address, "-client", "127.0.0.1",
        "-data-dir", folder / name, "-config-file", config,
    ]  # fmt: skip


def put(url: str, value: str) -> None:
    request = urllib.request.Request(url, value.encode(), method="PUT")
    with urllib.request.urlopen(request, timeout=5) as answer:
        assert answer.read().strip() == b"true"


def test_a_real_consul_tells_who_joined_and_who_was_unplugged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    consul_program()
    http, first, second, swarm, server = free_ports(5)
    shack = agent(tmp_path, "shack", "127.0.0.1", http, server)
    one = agent(tmp_path, "pi-01", "127.0.0.2", first, server)
    two = agent(tmp_path, "pi-02", "127.0.0.3", second, server)
    join = ["-retry-join", f"127.0.0.1:{server + 1}", "-retry-interval", "1s"]
    url = f"http://127.0.0.1:{http}/v1"
    file = class_file(tmp_path, http, swarm)
    log = tmp_path / "log"
    with running("-server", "-bootstrap-expect", "1", *shack, log=log):
        wait_for(f"{url}/status/leader", ":")
        with running(*one, *join, log=tmp_path / "log1"):
            with running(*two, *join, log=tmp_path / "log2"):
                wait_for(f"{url}/catalog/nodes", "pi-01")
                wait_for(f"{url}/catalog/nodes", "pi-02")
            put(f"{url}/kv/swarm/10.9.9.9:2375", "10.9.9.9:2375")
            updated = datetime.now(UTC).isoformat()
            stage = {"stage": "pulling consul", "percent": 40, "updated": updated}
            put(f"{url}/kv/rpi-image/nodes/pi-03", json.dumps(stage))
            put(f"{url}/kv/rpi-image/nodes/pi-01", "not JSON")
            wait_for(f"{url}/health/state/critical", "pi-02", seconds=60)
            _, table, _ = status(capsys, file)
            _, out, _ = status(capsys, file, "--json")
    third = next(line for line in table.splitlines() if line.startswith("pi-03"))
    assert third.split()[1:3] == ["booting", "never"]
    assert "pulling consul, 40 %" in third
    rows: dict[str, Any] = {row["hostname"]: row for row in json.loads(out)["nodes"]}
    assert rows["pi-01"]["state"] == "joined"
    assert rows["pi-02"]["findings"][0]["detail"] == "failed in consul"
    assert rows["pi-03"]["findings"][0]["detail"] == "not in consul"
    assert (rows["pi-03"]["there"], rows["pi-03"]["progress"]["percent"]) == ("booting", 40)
    assert rows["pi-01"]["progress"] is None
    assert rows["10.9.9.9"]["state"] == "stale-address"
