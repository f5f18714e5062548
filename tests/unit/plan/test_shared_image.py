"""One image, many identities: which files are whose."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagebuilder.errors import SettingsError
from imagebuilder.model import (
    BootEdit,
    Docker,
    ImageSource,
    NodePlan,
    NodeSettings,
    OverlayFile,
    Secret,
    User,
    Wifi,
    WifiNetwork,
)
from imagebuilder.plan.boot_files import MemoryBootFiles
from imagebuilder.plan.card_layout import CMDLINE, IDENTITIES, RECORD
from imagebuilder.plan.shared_image import (
    check_identities,
    identity_of,
    merge_plans,
    unclaimed_node,
)
from tests.lib import plan_samples
from tests.lib.plan_samples import STOCK, after, boot_of

PATHS = (
    "rpi-image/node.env", "rpi-image/a", "rpi-image/B", "rpi-image/images/a.tar", "vendor.txt",
    "made.txt",
)  # fmt: skip
FILES = st.dictionaries(st.sampled_from(PATHS), st.sampled_from((b"", b"1", b"2")))


def node(hostname: str, serial: str = "", mac: str = "") -> NodeSettings:
    return NodeSettings(
        hostname=hostname,
        profile="armv7",
        arch="armv7",
        machines=("armv7l",),
        image=ImageSource("base"),
        allow=("no-login",),
        serial=serial,
        mac=mac,
    )


def plan(hostname: str, **files: bytes) -> NodePlan:
    edits = tuple(BootEdit(path.replace("__", "/"), data) for path, data in files.items())
    return NodePlan(
        hostname=hostname,
        generation="occidentalis",
        config_hash=hostname * 8,
        edits=edits,
        cmdline=CMDLINE,
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
        "d and a have the same serial or mac",
    ]


def test_one_image_has_one_base() -> None:
    other = replace(node("b", "abcdef02"), image=ImageSource("other"))
    with pytest.raises(SettingsError, match="one image cannot"):
        check_identities((node("a", "abcdef01"), other))


def test_what_no_roster_knows_gets_no_identity_and_opens_nothing() -> None:
    known = replace(
        node("a", "abcdef01"), user=User("me", Secret("$6$x")), ssh_keys=("ssh-ed25519 AAAA",)
    )
    fallback = unclaimed_node([known, replace(known, hostname="b", serial="abcdef02")])
    assert fallback.hostname == "unclaimed"
    assert fallback.serial == ""
    assert not fallback.docker.tcp
    assert not fallback.cluster.enabled
    assert fallback.ssh_keys == known.ssh_keys
    assert fallback.user == known.user


def test_what_no_roster_knows_gets_only_what_all_nodes_have() -> None:
    ours, hers, his = (WifiNetwork(name, Secret("secret 88")) for name in ("class", "hers", "his"))
    alice = replace(
        node("a", "abcdef01"),
        user=User("alice", Secret("$6$x")),
        ssh_keys=("hers", "ours"),
        wifi=Wifi("FR", (hers, ours)),
        docker=Docker(labels=(("seat", "1"),), registry_mirrors=("m",), extra=("--a", "1")),
        overlays=(Path("hers"), Path("ours")),
        variables=(("table", "1"), ("room", "3b"), ("token", "x")),
        timezone="Europe/Paris",
    )
    bob = replace(
        node("b", "abcdef02"),
        user=User("bob", Secret("$6$x")),
        ssh_keys=("ours", "his"),
        wifi=Wifi("FR", (ours, his)),
        docker=Docker(labels=(("seat", "2"),), registry_mirrors=("m",), extra=("--b", "1")),
        overlays=(Path("ours"),),
        variables=(("room", "3b"), ("table", "2")),
    )
    fallback = unclaimed_node([alice, bob])
    assert fallback.user is None
    assert fallback.ssh_keys == ("ours",)
    assert fallback.wifi == Wifi("FR", (ours,))
    assert fallback.docker == Docker(registry_mirrors=("m",), tcp=False)
    assert fallback.overlays == (Path("ours"),)
    assert dict(fallback.variables) == {"table": "", "room": "3b"}
    assert fallback.timezone == ""


def test_only_what_differs_lies_under_an_identity() -> None:
    fallback = plan("unclaimed", rpi__install=b"i", rpi__node=b"u")
    plans = {
        "serial-1": plan("a", rpi__install=b"i", rpi__node=b"a"),
        "serial-2": plan("b", rpi__install=b"i", rpi__node=b"b", rpi__tls=b"t"),
    }
    merged = merge_plans(fallback, plans)
    assert merged.hostname == "unclaimed"
    assert [(edit.path, edit.data) for edit in merged.edits[2:]] == [
        ("rpi-image/identities/serial-1/rpi/node", b"a"),
        ("rpi-image/identities/serial-2/rpi/node", b"b"),
        ("rpi-image/identities/serial-2/rpi/tls", b"t"),
    ]


def claimed(boot: MemoryBootFiles, merged: NodePlan, name: str) -> dict[str, bytes]:
    """Return the card once a board has claimed an identity: its files over the image's."""
    card = dict(after(boot, merged).files)
    others = {path: card.pop(path) for path in list(card) if path.startswith(IDENTITIES)}
    folder = f"{IDENTITIES}{name}/"
    own = {path.removeprefix(folder): others[path] for path in others if path.startswith(folder)}
    return {
        path: data for path, data in {**card, **own}.items() if path not in ("cmdline.txt", RECORD)
    }


def alone(boot: MemoryBootFiles, own: NodePlan) -> dict[str, bytes]:
    """Return the card of a node that has an image of its own."""
    files = after(boot, own).files
    return {path: data for path, data in files.items() if path not in ("cmdline.txt", RECORD)}


@pytest.mark.parametrize("stock", STOCK)
def test_a_claimed_card_is_that_of_the_node_alone(stock: str) -> None:
    boot = boot_of(stock)
    script = OverlayFile("rpi-image/first-boot/10-alice", b"#!/bin/sh\n", "hers")
    nodes = {"serial-1": plan_samples.full_node(), "serial-2": node("pi-02")}
    plans = {
        "serial-1": plan_samples.plan(nodes["serial-1"], boot, script),
        "serial-2": plan_samples.plan(nodes["serial-2"], boot),
    }
    fallback = plan_samples.plan(unclaimed_node([*nodes.values()]), boot)
    merged = merge_plans(fallback, plans)
    for name, own in plans.items():
        assert claimed(boot, merged, name) == alone(boot, own)
    nobodys = after(boot, merged).files
    assert not [
        path
        for path, data in nobodys.items()
        if not path.startswith(IDENTITIES) and (b"teacher" in data or path.endswith("10-alice"))
    ]


@given(FILES, st.lists(FILES, min_size=2, max_size=4))
def test_the_fallback_has_no_file_that_a_node_has_not(
    base: dict[str, bytes], files: list[dict[str, bytes]]
) -> None:
    """A plan removes from our folder what it does not make, and leaves the vendor's files."""
    boot = MemoryBootFiles(base)
    first, *others = [
        NodePlan(
            hostname="pi",
            generation="x",
            config_hash=str(number),
            cmdline=CMDLINE,
            edits=(
                *(BootEdit(path, data) for path, data in made.items()),
                *(BootEdit(p, None) for p in base if p not in made and p.startswith("rpi-image/")),
            ),
        )
        for number, made in enumerate(files)
    ]
    plans = {f"serial-{number}": plan for number, plan in enumerate(others)}
    merged = merge_plans(first, plans)
    for name, own in plans.items():
        assert claimed(boot, merged, name) == alone(boot, own)


def test_a_container_image_of_all_nodes_is_there_once() -> None:
    """Thirty copies of 40 MB have no room on a boot partition."""
    tar, other = {"rpi-image__images__a.tar": b"tar"}, {"rpi-image__images__b.tar": b"b"}
    own = {"serial-1": plan("pi-01", **tar), "serial-2": plan("pi-02", **tar, **other)}
    merged = merge_plans(plan("unclaimed"), own)
    assert {edit.path: edit.data for edit in merged.edits} == {
        "rpi-image/images/a.tar": b"tar",
        f"{IDENTITIES}serial-2/rpi-image/images/b.tar": b"b",
    }


def test_names_are_one_where_fat_says_so() -> None:
    plans = {"serial-1": plan("a", README=b"x"), "serial-2": plan("b", readme=b"x")}
    merged = merge_plans(plan("unclaimed", ReadMe=b"x"), plans)
    assert [edit.path for edit in merged.edits] == ["ReadMe"]


def test_the_kernel_command_line_is_no_identitys() -> None:
    fallback = plan("unclaimed")
    own = NodePlan(
        hostname="a",
        generation="x",
        config_hash="a",
        cmdline=CMDLINE,
        edits=(BootEdit("cmdline.txt", b"i=1"), BootEdit("gone", None)),
    )
    assert merge_plans(fallback, {"serial-1": own}).edits == ()


@pytest.mark.parametrize("stock", [b"a ds=nocloud;i=old b", b"a b"])
def test_cloud_inits_instance_is_not_on_the_command_line_of_all(stock: bytes) -> None:
    boot = boot_of("cloud-init-trixie", **{"cmdline.txt": stock})
    nodes = [plan_samples.full_node(), node("pi-02")]
    plans = {f"serial-{n.hostname}": plan_samples.plan(n, boot) for n in nodes}
    merged = merge_plans(plan_samples.plan(unclaimed_node(nodes), boot), plans)
    assert after(boot, merged).files["cmdline.txt"] == (
        b"a b cgroup_enable=memory cgroup_memory=1 ds=nocloud"
    )


@pytest.mark.parametrize("stock", ["cloud-init-trixie", "firstrun-bookworm", "occidentalis"])
def test_words_of_one_node_for_the_command_line_of_all_are_named(stock: str) -> None:
    boot = boot_of(stock)
    words = OverlayFile("cmdline.txt.append", b"isolcpus=3\n", "hers")
    nodes = [plan_samples.plain_node(), replace(plan_samples.plain_node(), hostname="pi-04")]
    fallback = plan_samples.plan(unclaimed_node(nodes), boot)
    plans = {n.hostname: plan_samples.plan(n, boot) for n in nodes}
    assert merge_plans(fallback, plans).warnings == fallback.warnings
    plans["pi-04"] = plan_samples.plan(nodes[1], boot, words)
    (warning,) = merge_plans(fallback, plans).warnings
    assert warning.startswith("pi-04: its words for cmdline.txt are ignored")


def test_the_hash_tells_one_class_from_another() -> None:
    fallback = plan("unclaimed")
    one = merge_plans(fallback, {"serial-1": plan("a")})
    two = merge_plans(fallback, {"serial-1": plan("b")})
    again = merge_plans(fallback, {"serial-1": plan("a")})
    assert one.config_hash == again.config_hash != two.config_hash
