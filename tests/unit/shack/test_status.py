"""The roster held against what is there."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from imagebuilder.errors import SourceError
from imagebuilder.model import Cluster, Network
from imagebuilder.shack.cluster import parse_card_report, parse_swarm_nodes
from imagebuilder.shack.status import (
    ClusterState,
    Engine,
    Member,
    NodeStatus,
    PiReport,
    compare,
    everyone_joined,
    summarise,
)
from tests.lib.classroom_samples import SHACK as ROOM_SHACK
from tests.lib.classroom_samples import make_classroom, node

if TYPE_CHECKING:
    from imagebuilder.model import NodeSettings

RECORDINGS = Path(__file__).parents[2] / "lib" / "recordings"
SHACK = Member("shack", "192.168.2.1")


def member(number: int, *, alive: bool = True, address: str = "") -> Member:
    return Member(f"pi-{number:02d}", address or f"192.168.2.{100 + number}", alive)


def engine(number: int, **changes: str | bool) -> Engine:
    given = {"name": f"pi-{number:02d}", "address": f"192.168.2.{100 + number}", "arch": "armv7"}
    return Engine(**{**given, **changes})  # type: ignore[arg-type]


def gathered(
    *members: Member, engines: tuple[Engine, ...] | None = (), registered: tuple[str, ...] = ()
) -> ClusterState:
    return ClusterState("192.168.2.1:8300", (SHACK, *members), engines, registered)


def judged(cluster_state: ClusterState, *cards: PiReport) -> dict[str, NodeStatus]:
    return {row.hostname: row for row in compare(make_classroom(Path("/r")), cluster_state, cards)}


def everyone() -> ClusterState:
    return gathered(*map(member, (1, 2, 3)), engines=tuple(map(engine, (1, 2, 3))))


def test_all_joined_in_the_order_of_the_roster_without_the_shack() -> None:
    rows = compare(make_classroom(Path("/r")), everyone())
    assert [(row.hostname, row.state) for row in rows] == [
        ("pi-01", "joined"),
        ("pi-02", "joined"),
        ("pi-03", "joined"),
    ]
    assert summarise(rows)["joined"] == 3


def test_one_never_came_and_one_was_lost() -> None:
    rows = judged(gathered(member(1), member(2, alive=False), engines=(engine(1), engine(2))))
    assert rows["pi-01"].state == "joined"
    assert (rows["pi-02"].state, rows["pi-02"].detail) == ("missing", "failed in consul")
    assert (rows["pi-03"].state, rows["pi-03"].detail) == ("missing", "not in consul")


def test_a_node_without_a_swarm_image_joins_consul_alone() -> None:
    room = make_classroom(Path("/r"))
    alone = tuple(replace(n, cluster=replace(n.cluster, swarm_image="")) for n in room.nodes)
    rows = compare(replace(room, nodes=alone), gathered(member(1)))
    assert {row.hostname: row.state for row in rows}["pi-01"] == "joined"


def test_in_consul_but_not_in_swarm() -> None:
    row = judged(gathered(member(1)))["pi-01"]
    assert (row.state, row.detail) == ("unhealthy", "not known to the swarm manager")


def test_a_silent_manager_blames_no_node() -> None:
    rows = judged(gathered(*map(member, (1, 2, 3)), engines=None))
    assert {row.state for row in rows.values()} == {"joined"}


def test_an_unhealthy_engine_tells_why() -> None:
    sick = engine(1, healthy=False, status="Unhealthy", error="ID duplicated")
    row = judged(gathered(member(1), engines=(sick,)))["pi-01"]
    assert (row.state, row.detail) == ("unhealthy", "engine: Unhealthy ID duplicated")


def test_an_engine_without_a_name_is_found_by_its_address() -> None:
    nameless = engine(2, name="", healthy=False, status="Pending")
    rows = judged(gathered(member(2), engines=(nameless,)))
    assert rows["pi-02"].detail == "engine: Pending"
    assert "192.168.2.102" not in rows


def test_of_two_engines_of_one_name_the_healthy_one_counts() -> None:
    old = engine(1, healthy=False, status="Unhealthy", address="192.168.2.55")
    for engines in ((old, engine(1)), (engine(1), old)):
        assert judged(gathered(member(1), engines=engines))["pi-01"].state == "joined"


def test_a_wrong_board_is_seen_by_label_and_by_machine() -> None:
    by_label = judged(gathered(member(1), engines=(engine(1, arch="armv6"),)))["pi-01"]
    assert by_label.state == "wrong-arch"
    assert "arch=armv6" in by_label.detail
    by_machine = judged(gathered(member(1), engines=(engine(1, machine="armv6l"),)))["pi-01"]
    assert by_machine.detail == "is armv6l, not of profile armv7"


def test_a_node_at_another_address_than_the_roster_s() -> None:
    row = judged(gathered(member(1, address="192.168.2.77"), engines=None))["pi-01"]
    assert row.state == "stale-address"
    assert row.detail == "has 192.168.2.77, expected 192.168.2.101"


def test_swarm_and_consul_know_different_addresses() -> None:
    rows = judged(gathered(member(1), engines=(engine(1, address="192.168.2.88"),)))
    assert rows["pi-01"].detail == "192.168.2.88 in swarm, 192.168.2.101 in consul"


def test_a_dhcp_node_may_have_any_address() -> None:
    loose = make_classroom(Path("/r"), node(1, network=Network()))
    (row,) = compare(loose, gathered(member(1, address="10.9.8.7"), engines=None))
    assert row.state == "joined"
    assert row.address == "10.9.8.7"


def test_a_key_left_behind_is_named_at_its_node() -> None:
    moved = make_classroom(Path("/r"), node(1, network=Network()), node(2))
    found = gathered(
        member(1, address="192.168.2.50"),
        engines=None,
        registered=("192.168.2.50:2375", "192.168.2.49:2375", "192.168.2.102:2375"),
    )
    rows = {row.hostname: row for row in compare(moved, found)}
    assert rows["pi-01"].state == "joined"
    assert rows["pi-02"].detail == (
        "not in consul; 192.168.2.102:2375 is still registered with swarm"
    )
    assert rows["192.168.2.49"].state == "stale-address"


def test_strangers_come_last() -> None:
    stranger = Member("black-pearl", "192.168.2.60")
    rows = compare(make_classroom(Path("/r")), gathered(stranger, engines=(engine(9),)))
    assert [(row.hostname, row.state) for row in rows[3:]] == [
        ("black-pearl", "unknown"),
        ("pi-09", "unknown"),
    ]


def test_strangers_and_old_keys_keep_nobody_waiting() -> None:
    members = (Member("black-pearl", "192.168.2.60"), *map(member, (1, 2, 3)))
    found = gathered(*members, engines=None, registered=("192.168.2.99:2375",))
    here = make_classroom(Path("/r"))
    rows = compare(here, found)
    assert [row.state for row in rows[3:]] == ["unknown", "stale-address"]
    assert everyone_joined(here, rows)
    assert not everyone_joined(here, rows[1:])
    assert not everyone_joined(here, ())


def test_where_nobody_is_expected_everyone_is_there() -> None:
    assert everyone_joined(make_classroom(Path("/r"), node(1, cluster=Cluster(enabled=False))), ())


def test_a_node_without_a_cluster_is_not_awaited() -> None:
    alone = make_classroom(Path("/r"), node(1, cluster=Cluster(enabled=False)), node(2))
    assert [row.hostname for row in compare(alone, gathered(member(2), engines=None))] == ["pi-02"]


def test_names_are_compared_without_case() -> None:
    found = gathered(Member("PI-01", "192.168.2.101"), engines=(engine(1, name="Pi-01"),))
    assert judged(found)["pi-01"].state == "joined"


def test_a_card_adds_what_the_pi_wrote() -> None:
    card = PiReport("pi-03", install="failed: no room", arch="armv6l", place="/media/card")
    row = judged(gathered(engines=None), card)["pi-03"]
    assert row.state == "missing"
    assert row.card == card
    assert "card: is armv6l" in row.detail
    assert "card: install failed: no room" in row.detail


def test_a_well_card_keeps_its_node_joined() -> None:
    card = PiReport("pi-01", install="ok", arch="armv7l", docker="1.6.0")
    row = judged(everyone(), card)["pi-01"]
    assert (row.state, row.card) == ("joined", card)


def test_a_foreign_card_is_a_stranger() -> None:
    row = judged(everyone(), PiReport("hal", place="/dev/sdz"))["hal"]
    assert (row.state, row.detail) == ("unknown", "card /dev/sdz")


def test_card_reports_keep_words_only() -> None:
    text = b'{"hostname": "pi-01", "installed": null, "updated": 17, "new": "key"}'
    report = parse_card_report(text, "x")
    assert (report.hostname, report.installed, report.updated) == ("pi-01", "", "17")


@pytest.mark.parametrize("data", [b"", b"{", b"[1]", b"\xff"])
def test_half_a_card_report_is_a_clear_error(data: bytes) -> None:
    with pytest.raises(SourceError, match="is incomplete"):
        parse_card_report(data, "card")


def swarm_mode_rows(cluster_state: ClusterState, *nodes: NodeSettings) -> dict[str, NodeStatus]:
    shack = replace(ROOM_SHACK, kind="swarm-mode")
    return {
        row.hostname: row
        for row in compare(make_classroom(Path("/r"), *nodes, shack=shack), cluster_state)
    }


def recorded_engines() -> tuple[Engine, ...]:
    text = (RECORDINGS / "docker-20.10" / "nodes.json").read_text()
    return parse_swarm_nodes(json.loads(text))


def recorded_node(number: int, address: str = "") -> NodeSettings:
    network = Network(address=address or f"10.78.0.{10 + number}/24")
    return node(number, network=network, machines=("x86_64",))


def test_swarm_mode_s_own_states() -> None:
    nodes = [
        swarm_node("laptop", "manager", "ready", "x86_64"),
        swarm_node("pi-01", "worker", "ready", "armv7l"),
        swarm_node("pi-02", "worker", "down", "armv6l"),
    ]
    rows = swarm_mode_rows(gathered(engines=parse_swarm_nodes(nodes)))
    assert rows["pi-01"].state == "joined"
    assert rows["pi-02"].state == "missing"
    assert "engine: down heartbeat failure; is armv6l" in rows["pi-02"].detail
    assert (rows["pi-03"].state, rows["pi-03"].detail) == ("missing", "not in the swarm")
    assert "laptop" not in rows


def test_swarm_mode_s_nodes_need_no_consul() -> None:
    found = gathered(engines=recorded_engines(), registered=("10.78.0.99:2375",))
    rows = swarm_mode_rows(found, *map(recorded_node, (1, 2)))
    assert {name: row.state for name, row in rows.items()} == {
        "pi-01": "joined",
        "pi-02": "missing",
    }


def test_what_consul_remembers_of_a_swarm_mode_node_is_of_another_time() -> None:
    found = gathered(member(1, alive=False), engines=recorded_engines())
    assert swarm_mode_rows(found, recorded_node(1))["pi-01"].state == "joined"


def test_a_swarm_mode_node_at_another_address() -> None:
    found = gathered(engines=recorded_engines())
    row = swarm_mode_rows(found, recorded_node(1, "10.78.0.77/24"))["pi-01"]
    assert (row.state, row.detail) == ("stale-address", "has 10.78.0.11, expected 10.78.0.77")


def test_a_node_that_was_promoted_is_still_there() -> None:
    found = gathered(engines=(Engine("pi-01", "127.0.0.1", manager=True),))
    assert swarm_mode_rows(found, recorded_node(1))["pi-01"].state == "joined"


def test_a_silent_manager_of_swarm_mode_leaves_nothing_to_say() -> None:
    row = swarm_mode_rows(gathered(engines=None), recorded_node(1))["pi-01"]
    assert (row.state, row.detail) == ("missing", "the manager does not answer")


def test_what_a_real_dockerd_said_of_its_swarm() -> None:
    engines = {engine.name: engine for engine in recorded_engines()}
    assert (engines["pi-01"].address, engines["pi-01"].healthy) == ("10.78.0.11", True)
    assert engines["pi-01"].machine == "x86_64"
    assert engines["pi-02"].error == "heartbeat failure"
    assert [engine.name for engine in engines.values() if engine.manager] == ["vm"]


def swarm_node(name: str, role: str, state: str, machine: str) -> dict[str, object]:
    return {
        "Spec": {"Role": role, "Availability": "active"},
        "Description": {
            "Hostname": name,
            "Platform": {"Architecture": machine, "OS": "linux"},
            "Engine": {"EngineVersion": "20.10.24"},
        },
        "Status": {
            "State": state,
            "Addr": f"192.168.2.1{name[-2:]}" if name != "laptop" else "192.168.2.1",
            **({"Message": "heartbeat failure"} if state == "down" else {}),
        },
    }


def test_a_thousand_nodes_are_compared_at_once() -> None:
    nodes = [
        node(
            n, hostname=f"pi-{n:04d}", network=Network(address=f"10.0.{n // 250}.{n % 250 + 1}/16")
        )
        for n in range(1000)
    ]
    found = gathered(
        *(Member(n.hostname, n.network.address[:-3]) for n in nodes),
        engines=tuple(Engine(n.hostname, n.network.address[:-3], arch="armv7") for n in nodes),
        registered=tuple(f"{n.network.address[:-3]}:2375" for n in nodes),
    )
    assert summarise(compare(make_classroom(Path("/r"), *nodes), found))["joined"] == 1000
