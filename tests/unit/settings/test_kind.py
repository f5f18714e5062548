"""Without `shack.kind`, the cluster follows the Docker of the nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.lib.classrooms import CHECKSUM, WrittenClassroom

if TYPE_CHECKING:
    from pathlib import Path

LOGIN = "user: {name: ann, password_hash: $6$abcdefgh$abcdefgh}\nallow: [open-docker, no-image]\n"
TRIXIE = f"{{file: raspios-trixie.img, sha256: {CHECKSUM}}}"


@pytest.fixture
def classroom(tmp_path: Path) -> WrittenClassroom:
    return WrittenClassroom(tmp_path)


def room(rest: str, shack: str = "", nodes: str = "[{hostname: a}, {hostname: b}]") -> str:
    return f"{LOGIN}shack: {{address: 10.0.0.1{shack}}}\n{rest}\nnodes: {nodes}\n"


def kinds(classroom: WrittenClassroom, text: str) -> set[str]:
    found = classroom.write(text).load()
    assert found.shack
    return {found.shack.kind, *(node.shack.kind for node in found.nodes if node.shack)}


@pytest.mark.parametrize(
    ("rest", "kind"),
    [
        ("profile: armv7", "classic"),
        ("profile: armv6", "classic"),
        ("profile: arm64", "swarm-mode"),
        ("profile: arm64\ncluster: {swarm: {enabled: false}}", "classic"),
        ("profile: arm64\ncluster: {swarm: {image: own/swarm-arm64}}", "classic"),
        (f"profile: armv7\ngeneration: cloud-init\nimage: {TRIXIE}", "swarm-mode"),
        (f"profile: arm64\ngeneration: cloud-init\nimage: {TRIXIE}", "swarm-mode"),
        ("profile: armv7\nimage: raspios-lite-bookworm", "classic"),
        ("profile: armv7\nimage: raspios-lite-bookworm\ndocker: {version: 27.0}", "swarm-mode"),
    ],
)
def test_one_fits_and_no_word_is_said(classroom: WrittenClassroom, rest: str, kind: str) -> None:
    assert kinds(classroom, room(rest)) == {kind}
    assert classroom.said() == []


def test_the_agents_of_swarm_mode_are_todays(classroom: WrittenClassroom) -> None:
    """One consul of 2015 in the profile would not run; Swarm is Docker itself."""
    nodes = "[{hostname: a}, {hostname: b, profile: armv7}, {hostname: c, profile: armv6}]"
    classroom.write(room("profile: arm64", nodes=nodes))
    found = [(n.cluster.consul_image, n.cluster.consul_version) for n in classroom.load().nodes]
    today = ("hashicorp/consul:1.15.4", "1.15.4")
    assert found == [today, today, ("consul:1.15.4", "1.15.4")]
    assert {node.cluster.swarm_image for node in classroom.load().nodes} == {""}
    assert classroom.said() == []


def test_a_consul_that_the_class_names_stays(classroom: WrittenClassroom) -> None:
    own = "cluster: {consul: {image: '10.0.0.1:5000/consul:1.14.2'}}"
    node = classroom.write(room(f"profile: arm64\n{own}")).load().nodes[0]
    assert node.cluster.consul_image == "10.0.0.1:5000/consul:1.14.2"
    newer = own.replace("1.14", "1.16")
    (line,) = classroom.write(room(f"profile: arm64\n{newer}")).errors()
    assert "consul 1.16.2 on the nodes is newer than that of the shack: consul:1.15.4" in line


def test_a_kind_that_is_set_stays(classroom: WrittenClassroom) -> None:
    text = room("profile: armv7\nimage: raspios-lite-bookworm", ", kind: swarm-mode")
    assert kinds(classroom, text) == {"swarm-mode"}


def test_a_cluster_that_cannot_work_is_refused_by_name(classroom: WrittenClassroom) -> None:
    rest = f"profile: armv7\ngeneration: cloud-init\nimage: {TRIXIE}"
    found = classroom.write(room(rest, ", kind: classic")).errors()
    assert [line.split(" error: ")[1] for line in found] == [
        f"shack: {fault}"
        for fault in (
            "Docker 26.1 pulls no schema-1 images: dduportal/arm-consul:0.5.0",
            "Docker 26.1 pulls no schema-1 images: dduportal/arm-swarm:0.2.0",
            "Docker 26.1 refuses API versions before 1.24, which classic Swarm speaks",
        )
    ]
    allowed = room(rest, ", kind: classic").replace("allow: [", "allow: [no-cluster, ")
    assert classroom.write(allowed).errors() == []


def test_nodes_that_no_cluster_fits_are_named(classroom: WrittenClassroom) -> None:
    old = f"{{hostname: old, image: {{file: a.img, sha256: {CHECKSUM}}}, generation: occidentalis}}"
    new = f"{{hostname: new, image: {TRIXIE}, generation: cloud-init}}"
    found = classroom.write(room("profile: armv7", nodes=f"[{old}, {new}]")).errors()
    assert len(found) == 1
    sides = "no cluster fits all nodes: no swarm mode on `old` (Docker 1.6); no classic Swarm on "
    assert f"{sides}`new` (Docker 26.1)" in found[0]
    arm64 = "{hostname: 'new-[1-5]', profile: arm64}"
    found = classroom.write(room("profile: armv7", nodes=f"[{old}, {arm64}]")).errors()
    assert len(found) == 1
    names = ", ".join(f"`new-{number}` (arm64)" for number in (1, 2, 3))
    assert f"{sides}{names} and 2 more" in found[0]
    hint = classroom.check()[0].hint
    assert "two classroom files, each with a shack of its own" in hint
    assert "`kind: classic`" in hint
    alone = classroom.write(room("profile: armv7", nodes=f"[{new}]"))
    assert alone.errors() == []


def test_without_docker_there_is_no_cluster(classroom: WrittenClassroom) -> None:
    rest = "profile: armv7\nimage: raspios-lite-bookworm\ndocker: {install: never}"
    found = classroom.write(room(rest)).errors()
    assert [line.split(": ", 1)[1] for line in found] == [
        "docker: the image has no Docker: the cluster cannot run on it"
    ]


def test_an_upgrade_from_an_archive_that_has_moved_is_a_warning(
    classroom: WrittenClassroom,
) -> None:
    found = classroom.write(room("profile: armv7\nupgrade: true")).said()
    assert [line.partition(": upgrade: ")[2] for line in found] == [
        "the archive of buster has moved: the Pi changes its sources to the new place"
    ]
    assert classroom.write(room("profile: arm64\nupgrade: true")).said() == []
