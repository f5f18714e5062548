"""One image, many identities: which files are whose."""

from __future__ import annotations

from dataclasses import replace

import pytest

from imagebuilder.errors import SettingsError
from imagebuilder.model import BootEdit, ImageSource, NodePlan, NodeSettings, Secret, User
from imagebuilder.oneimage import (
    check_identities,
    identity_of,
    merge_plans,
    unclaimed_node,
)


def node(hostname: str, serial: str = "", mac: str = "") -> NodeSettings:
    return NodeSettings(
        hostname=hostname,
        profile="armv7",
        arch="armv7",
        machines=("armv7l",),
        image=ImageSource("base"),
        serial=serial,
        mac=mac,
    )


def plan(hostname: str, **files: bytes) -> NodePlan:
    edits = tuple(BootEdit(path.replace("__", "/"), data) for path, data in files.items())
    return NodePlan(
        hostname=hostname, generation="occidentalis", config_hash=hostname * 8, edits=edits
    )


@pytest.mark.parametrize(
    ("serial", "mac", "name"),
    [
        ("00000000ABCDEF01", "", "serial-abcdef01"),
        ("abcdef01", "b8:27:eb:cd:ef:01", "serial-abcdef01"),
        ("", "B8:27:EB:CD:EF:01", "mac-b827ebcdef01"),
        ("", "b8-27-eb-cd-ef-01", "mac-b827ebcdef01"),
        ("", "", ""),
    ],
)
def test_a_board_is_named_by_what_it_shows(serial: str, mac: str, name: str) -> None:
    assert identity_of(node("pi", serial, mac)) == name


def test_every_node_that_no_board_can_claim_is_named() -> None:
    nodes = (node("a", "abcdef01"), node("b"), node("c"), node("d", "00000000abcdef01"))
    with pytest.raises(SettingsError) as caught:
        check_identities(nodes)
    assert [str(problem) for problem in caught.value.problems] == [
        "b has neither serial nor mac",
        "c has neither serial nor mac",
        "d and a are the same board",
    ]


def test_one_image_has_one_base() -> None:
    other = replace(node("b", "abcdef02"), image=ImageSource("other"))
    with pytest.raises(SettingsError, match="one image cannot"):
        check_identities((node("a", "abcdef01"), other))


def test_what_no_roster_knows_gets_no_identity_and_opens_nothing() -> None:
    known = replace(
        node("a", "abcdef01"), user=User("me", Secret("$6$x")), ssh_keys=("ssh-ed25519 AAAA",)
    )
    fallback = unclaimed_node(known)
    assert fallback.hostname == "unclaimed"
    assert fallback.serial == ""
    assert not fallback.docker.tcp
    assert not fallback.cluster.enabled
    assert fallback.ssh_keys == known.ssh_keys


def test_only_what_differs_lies_under_an_identity() -> None:
    fallback = plan("unclaimed", cmdline=b"x", rpi__install=b"i", rpi__node=b"u")
    plans = {
        "serial-1": plan("a", rpi__install=b"i", rpi__node=b"a"),
        "serial-2": plan("b", rpi__install=b"i", rpi__node=b"b", rpi__tls=b"t"),
    }
    merged = merge_plans(fallback, plans)
    assert merged.hostname == "unclaimed"
    assert [(edit.path, edit.data) for edit in merged.edits[3:]] == [
        ("rpi-image/identities/serial-1/rpi/node", b"a"),
        ("rpi-image/identities/serial-2/rpi/node", b"b"),
        ("rpi-image/identities/serial-2/rpi/tls", b"t"),
    ]


def test_the_kernel_command_line_is_no_identitys() -> None:
    fallback = plan("unclaimed")
    own = NodePlan(
        hostname="a",
        generation="x",
        config_hash="a",
        edits=(BootEdit("cmdline.txt", b"i=1"), BootEdit("gone", None)),
    )
    assert merge_plans(fallback, {"serial-1": own}).edits == ()


def test_the_hash_tells_one_class_from_another() -> None:
    fallback = plan("unclaimed")
    one = merge_plans(fallback, {"serial-1": plan("a")})
    two = merge_plans(fallback, {"serial-1": plan("b")})
    again = merge_plans(fallback, {"serial-1": plan("a")})
    assert one.config_hash == again.config_hash != two.config_hash
