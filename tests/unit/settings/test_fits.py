"""Profile, board, image and containers fit each other, or the error names what would."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from imagebuilder.errors import Problem, SettingsError
from imagebuilder.plan.vendor.boards import BOARDS, WORDS, find_board
from imagebuilder.settings.catalog import load_profiles
from tests.lib.classrooms import WrittenClassroom, from_flags

if TYPE_CHECKING:
    from pathlib import Path

    from imagebuilder.model import Classroom

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA6FsOm5Mh+NaGTlNLGRmcEPIgAq9jVtJPlAJMbMyH0t ann"
LOGIN: dict[str, Any] = {"user": {"name": "pupil"}, "ssh_keys": [KEY]}


@pytest.fixture
def classroom(tmp_path: Path) -> WrittenClassroom:
    return WrittenClassroom(tmp_path)


def profile_of(board: str, **more: object) -> str:
    """Return the profile; boards without Ethernet get no wifi here."""
    said: dict[str, Any] = {
        "profile": None,
        "board": board,
        "allow": ["no-network"],
        **LOGIN,
        **more,
    }
    return from_flags(**said).nodes[0].profile


def test_every_board_of_a_profile_is_known_and_runs_it() -> None:
    names = {board.name: board for board in BOARDS}
    for profile in load_profiles():
        assert set(profile.boards) <= set(names)
        for name in profile.boards:
            assert set(names[name].machines) & set(profile.machines)


def test_every_board_is_of_a_profile() -> None:
    """The word of each board alone describes a node."""
    listed = {name for profile in load_profiles() for name in profile.boards}
    assert {board.name for board in BOARDS} == listed
    assert [word for word in WORDS if not profile_of(word)] == []


@pytest.mark.parametrize(
    ("board", "profile"),
    [("pi1b", "armv6"), ("zerow", "armv6"), ("pi2", "armv7"), ("pi4", "arm64"), ("pi5", "arm64")],
)
def test_a_board_chooses_its_profile(board: str, profile: str) -> None:
    assert profile_of(board) == profile


def test_a_32_bit_image_chooses_the_32_bit_profile() -> None:
    assert profile_of("pi4", image={"name": "hypriotos-1.12.3"}) == "armv7"
    assert profile_of("zero2w", image={"name": "raspios-lite-bookworm"}) == "armv7"


def test_a_profile_that_is_named_stays() -> None:
    assert profile_of("pi4", profile="armv7") == "armv7"


def test_the_boards_of_a_class_may_differ(classroom: WrittenClassroom) -> None:
    classroom.write(
        f"user: {{name: pupil}}\nssh_keys: [{KEY}]\nboard: pi4\n"
        "nodes: [{hostname: a}, {hostname: b, board: pi1b}, {hostname: c, profile: armv7}]\n"
    )
    nodes = classroom.load().nodes
    assert [(node.board, node.profile) for node in nodes] == [
        ("pi4", "arm64"),
        ("pi1b", "armv6"),
        ("pi4", "armv7"),
    ]
    assert [node.image.name for node in nodes] == [
        "raspios-lite-bookworm-arm64",
        "hypriotos-1.12.3",
        "hypriotos-1.12.3",
    ]


def load(**said: Any) -> Classroom:
    return from_flags(**{**LOGIN, **said})


def refusal(**said: Any) -> Problem:
    with pytest.raises(SettingsError) as caught:
        load(**said)
    (problem,) = caught.value.problems or (Problem(caught.value.message, caught.value.hint),)
    return problem


@pytest.mark.parametrize(
    ("said", "fact", "hint"),
    [
        ({"board": "pi5"}, "board `pi5` is not one of profile `armv7`", "use profile `arm64`"),
        (
            {"board": "pi1b", "profile": "arm64"},
            "board `pi1b` is not one of profile `arm64`",
            "use profile `armv6`",
        ),
        (
            {"profile": "arm64", "image": {"name": "raspios-lite-bookworm"}},
            "image `raspios-lite-bookworm` is armhf, but profile `arm64` is arm64",
            "use image `raspios-lite-bookworm-arm64`, or use profile `armv6` or `armv7`",
        ),
        (
            {"image": {"name": "raspios-lite-bookworm-arm64"}},
            "image `raspios-lite-bookworm-arm64` is arm64, but profile `armv7` is armhf",
            "or use profile `arm64`",
        ),
        (
            {"profile": "armv6", "image": {"name": "raspios-lite-bookworm-arm64"}},
            "image `raspios-lite-bookworm-arm64` does not boot on the boards of profile `armv6`",
            "use image `hypriotos-1.12.3`",
        ),
        ({"board": "pi55"}, "no board `pi55`", "did you mean `pi5`?"),
    ],
)
def test_what_does_not_fit_is_refused(said: dict[str, Any], fact: str, hint: str) -> None:
    problem = refusal(**said)
    assert fact in problem.message
    assert hint in problem.hint


SHACK = {"address": "10.0.0.1"}


@pytest.mark.parametrize(
    ("profile", "image", "fits"),
    [
        ("arm64", "dduportal/arm-consul:0.5.0", False),
        ("arm64", "docker.io/arm32v7/consul:1.7.0", False),
        ("arm64", "arm64v8/consul:1.15.4", True),
        ("arm64", "hashicorp/consul:1.15.4", True),
        ("armv7", "arm64v8/consul:1.15.4", False),
        ("armv7", "arm32v6/consul:1.7.0", True),
        ("armv7", "amd64/consul:1.15.4", False),
        ("armv6", "arm32v7/consul:1.7.0", False),
        ("armv6", "192.168.2.1:5000/arm-consul:1", True),
    ],
)
def test_containers_of_another_architecture(profile: str, image: str, *, fits: bool) -> None:
    said: dict[str, Any] = {
        "profile": profile,
        "shack": SHACK,
        "cluster": {"consul": {"image": image}},
    }
    if fits:
        assert load(**said).nodes[0].cluster.consul_image == image
        return
    problem = refusal(**said)
    assert f"container image `{image}` is for" in problem.message
    assert f"use an image for {profile}" in problem.hint


def test_a_container_image_to_pull_is_looked_at_as_well() -> None:
    swarm = {**SHACK, "kind": "swarm-mode"}
    problem = refusal(profile="arm64", shack=swarm, cluster={"images": ["hypriot/rpi-busybox"]})
    assert "`hypriot/rpi-busybox` is for armv6 and armv7, not for arm64" in problem.message


def test_arm64_joins_consul_without_swarm_and_opens_no_port() -> None:
    node = from_flags(profile="arm64", shack=SHACK, **LOGIN).nodes[0]
    assert (node.cluster.consul_image, node.cluster.consul_version) == (
        "hashicorp/consul:1.15.4",
        "1.15.4",
    )
    assert node.cluster.swarm_image == ""
    assert not node.docker.tcp


def test_a_swarm_image_of_ones_own_enables_swarm() -> None:
    swarm = {"image": "192.168.2.1:5000/swarm-arm64:1.2.9"}
    node = from_flags(profile="arm64", shack=SHACK, cluster={"swarm": swarm}, **LOGIN).nodes[0]
    assert (node.cluster.swarm_image, node.cluster.swarm_version) == (swarm["image"], "1.2.9")
    assert node.docker.tcp


@pytest.mark.parametrize(
    ("said", "opened"),
    [
        ({"profile": "armv6"}, True),
        ({"profile": "armv7"}, True),
        ({"profile": "armv7", "docker": {"tcp": False}}, False),
        ({"profile": "arm64"}, False),
        ({"profile": "arm64", "docker": {"tcp": True}}, True),
        ({"profile": "arm64", "docker": {"tls": True}}, True),
    ],
)
def test_docker_listens_only_where_that_is_said(said: dict[str, Any], *, opened: bool) -> None:
    assert load(**said).nodes[0].docker.tcp is opened


def test_a_board_is_found_by_its_word_alone() -> None:
    board = find_board("zero2w")
    assert board is not None
    assert (board.name, board.ethernet, board.wifi) == ("Zero 2 W", False, True)
    assert board.tags == ("pi3-64bit", "pi3-32bit")
    assert find_board("Zero 2 W") is None
