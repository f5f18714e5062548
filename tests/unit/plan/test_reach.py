"""How a planned card is reached, for each generation as its vendor ships it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from imagebuilder.errors import SettingsError
from imagebuilder.model import (
    Cluster,
    Docker,
    ImageSource,
    Network,
    RootSystem,
    Secret,
    Shack,
    User,
    Wifi,
)
from imagebuilder.plan.reach import (
    VendorState,
    docker_version_of,
    facts_by_name,
    reach_lines,
    reach_of,
    seen_in_root,
    vendor_state,
)
from tests.lib.plan_samples import STOCK, boot_of, generations, plain_node, plan

if TYPE_CHECKING:
    from imagebuilder.model import NodeSettings

KEY = "ssh-ed25519 AAAAC3Nz ann"
HASHED = Secret("$6$salt$abc.DEF/ghi")
PIRATE = VendorState("pirate", password=True, docker=True)
RASPIOS = VendorState("pi", docker=False)


def node(**changes: object) -> NodeSettings:
    bare = replace(plain_node(), wifi=Wifi(), shack=None, allow=())
    return replace(bare, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "login", "docker"),
    [
        ("occidentalis", "ssh pi@pi-03.local by the image's password", True),
        ("device-init-1.0", "ssh pirate@pi-03.local by the image's password", True),
        ("device-init-1.6", "ssh pirate@pi-03.local by the image's password", True),
        ("cloud-init-hypriot", "ssh pirate@pi-03.local by the image's password", True),
        ("cloud-init-trixie", "nobody can log in", False),
        ("firstrun-bookworm", "nobody can log in", False),
    ],
)
def test_the_images_as_they_are_shipped(name: str, login: str, *, docker: bool) -> None:
    said = plan(node(allow=("no-login",)), boot_of(name)).reach
    assert said.split("; ")[0] == login
    assert ("Docker in the image" in said.split("; ")) is docker


@pytest.mark.parametrize("name", STOCK)
def test_a_user_with_a_key_and_a_password_is_the_login_everywhere(name: str) -> None:
    with_user = node(user=User("pupil", HASHED), ssh_keys=(KEY,))
    assert plan(with_user, boot_of(name)).reach.startswith(
        "ssh pupil@pi-03.local by key and password"
    )


@pytest.mark.parametrize("name", ["cloud-init-trixie", "firstrun-bookworm"])
def test_nobody_could_log_in(name: str) -> None:
    with pytest.raises(SettingsError, match="nobody can log in") as caught:
        plan(node(), boot_of(name))
    assert "`allow: [no-login]`" in caught.value.hint


@pytest.mark.parametrize("name", ["cloud-init-trixie", "firstrun-bookworm"])
def test_an_image_of_ones_own_may_have_a_login_on_its_root(name: str) -> None:
    mine = ImageSource(name="lab.img", file=Path("lab.img"))
    assert plan(node(image=mine), boot_of(name)).warnings[0].endswith("[no-login]")
    assert plan(node(image=mine, allow=("no-login",)), boot_of(name)).warnings == ()
    stock = ImageSource(name="2025-12-04-raspios-trixie-armhf.img", file=Path("x.img"))
    for refused in (node(image=stock), node(image=mine, user=User("pupil"))):
        with pytest.raises(SettingsError, match="nobody can log in"):
            plan(refused, boot_of(name))


@pytest.mark.parametrize("name", STOCK)
def test_a_user_without_a_way_in_locks_everybody_out(name: str) -> None:
    with pytest.raises(SettingsError, match="`pupil` has neither a password nor an SSH key"):
        plan(node(user=User("pupil")), boot_of(name))


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("firstrun-bookworm", {"userconf_txt": b"ann:$6$salt$x\n"}),
        ("firstrun-bookworm", {"custom_toml": b"config_version = 1\n"}),
        ("cloud-init-trixie", {"user-data": b"#cloud-config\nusers:\n  - name: ann\n"}),
        ("cloud-init-trixie", {"user-data": b"#cloud-config\nchpasswd: {expire: true}\n"}),
        ("cloud-init-hypriot", {"user-data": b"#cloud-config\nusers:\n  - name: ann\n"}),
    ],
)
def test_a_login_that_the_owner_has_set_is_left_to_them(name: str, files: dict[str, bytes]) -> None:
    assert plan(node(), boot_of(name, **files)).reach.startswith("login as the image has it")


def test_before_april_2022_pi_had_a_known_password() -> None:
    old = b"Raspberry Pi reference 2021-05-07\nGenerated using pi-gen\n"
    boot = boot_of("firstrun-bookworm", issue_txt=old, ssh=b"")
    assert plan(node(), boot).reach.startswith("ssh pi@pi-03.local by the image's password")
    with pytest.raises(SettingsError, match="nobody can log in"):
        plan(node(), boot_of("firstrun-bookworm", issue_txt=old))


@pytest.mark.parametrize(
    ("image", "generation", "user"),
    [
        ("hypriotos-1.12.3", "cloud-init", "pirate"),
        ("hypriotos-rpi-v1.12.3.img.zip", "cloud-init", "pirate"),
        ("raspios-lite-arm64", "cloud-init", "pi"),
        ("2025-05-13-raspios-bookworm-armhf-lite.img.xz", "firstrun", "pi"),
        ("2020-05-27-raspios-buster-lite-armhf.zip", "firstrun", None),
        ("mine.img", "cloud-init", None),
        ("mine.img", "occidentalis", "pi"),
        ("mine.img", "device-init", "pirate"),
    ],
)
def test_what_is_known_without_the_image(image: str, generation: str, user: str | None) -> None:
    (found,) = [each for each in generations() if each.name == generation]
    facts = facts_by_name(found, ImageSource(image))
    assert vendor_state(found, facts).user == user


def test_the_sentence_names_all_of_it() -> None:
    whole = node(
        user=User("pupil", HASHED),
        ssh_keys=(KEY,),
        shack=Shack("192.168.2.1"),
        network=Network(address="192.168.2.103/24"),
        wifi=plain_node().wifi,
    )
    assert reach_of(whole, PIRATE).sentence == (
        "ssh pupil@192.168.2.103 by key and password; wifi `Shack`; Docker in the image; "
        "joins the swarm at 192.168.2.1"
    )
    consul = replace(whole, cluster=Cluster(swarm_image=""))
    assert reach_of(consul, PIRATE).sentence.endswith("joins consul at 192.168.2.1")


def test_keys_alone_are_for_the_first_user_of_the_image() -> None:
    assert reach_of(node(ssh_keys=(KEY,)), RASPIOS).sentence == (
        "ssh pi@pi-03.local by key; the console asks for a user; "
        "Docker installed at first boot from the network"
    )


def test_a_cluster_needs_docker() -> None:
    joining = node(shack=Shack("192.168.2.1"), ssh_keys=(KEY,))
    never = replace(joining, docker=Docker(install="never"))
    missing = reach_of(never, RASPIOS)
    assert [(each.word, each.severe) for each in missing.findings] == [("no-docker", True)]
    assert "no Docker in the image" in missing.parts
    assert reach_of(joining, RASPIOS).findings == ()
    assert reach_of(joining, PIRATE).findings == ()
    assert reach_of(replace(never, cluster=Cluster(enabled=False)), RASPIOS).findings == ()


TODAY = ImageSource("raspios-lite-arm64@2026-06-18")
BOOKWORM = ImageSource("2025-05-13-raspios-bookworm-armhf-lite.img.xz")


@pytest.mark.parametrize(
    ("image", "vendor", "docker", "said", "version"),
    [
        (TODAY, RASPIOS, Docker(), "Docker 26.1 installed at first boot", "26.1.5"),
        (BOOKWORM, RASPIOS, Docker(), "Docker 20.10 installed at first boot", "20.10.24"),
        (BOOKWORM, RASPIOS, Docker(version="20.10"), "Docker 20.10 installed", "20.10"),
        (ImageSource("mine.img"), RASPIOS, Docker(), "Docker installed at first boot", ""),
        (TODAY, RASPIOS, Docker(install="never"), "no Docker in the image", ""),
        (TODAY, PIRATE, Docker(), "Docker in the image", ""),
        (TODAY, PIRATE, Docker(install="always"), "Docker 26.1 installed", "26.1.5"),
    ],
)
def test_where_docker_comes_from(
    image: ImageSource, vendor: VendorState, docker: Docker, said: str, version: str
) -> None:
    settings = node(image=image, docker=docker, ssh_keys=(KEY,))
    assert any(part.startswith(said) for part in reach_of(settings, vendor).parts)
    assert docker_version_of(settings, vendor) == version


def test_packages_come_from_the_network_or_through_the_shack() -> None:
    settings = node(packages=("git", "vim"), ssh_keys=(KEY,))
    assert "git, vim installed at first boot from the network" in reach_of(settings, PIRATE).parts
    proxied = replace(settings, shack=Shack("192.168.2.1"), apt_proxy="http://192.168.2.1:3142")
    assert "git, vim installed at first boot through the shack" in reach_of(proxied, PIRATE).parts


def test_the_root_of_an_image_knows_better_than_its_name() -> None:
    settings = node(image=TODAY, ssh_keys=(KEY,))
    mine = seen_in_root(RASPIOS, RootSystem(arch="armhf", codename="bookworm"))
    assert docker_version_of(settings, mine) == "20.10.24"
    ours = seen_in_root(VendorState("pi"), RootSystem(arch="armhf", docker="28.0.1"))
    assert docker_version_of(settings, ours) == "28.0.1"
    assert seen_in_root(RASPIOS, RootSystem()) == seen_in_root(RASPIOS, None) == RASPIOS


@pytest.mark.parametrize(
    ("change", "archived"),
    [({"upgrade": True}, True), ({"packages": ("git",)}, True), ({}, False)],
)
@pytest.mark.parametrize("name", ["occidentalis", "device-init-1.6", "cloud-init-hypriot"])
def test_packages_of_an_archive_that_has_moved(
    name: str, change: dict[str, object], *, archived: bool
) -> None:
    generation = next(each for each in generations() if name.startswith(each.name))
    vendor = vendor_state(generation, generation.facts_of(boot_of(name)))
    found = [each.word for each in reach_of(node(**change), vendor).findings]
    assert found == ["old-archive"] * archived
    assert not reach_of(node(image=TODAY, ssh_keys=(KEY,), **change), RASPIOS).findings


def test_one_line_for_the_nodes_that_are_alike() -> None:
    nodes = [reach_of(node(hostname=f"pi-{n:02}"), PIRATE) for n in range(1, 31)]
    alike = (
        "pi-01 to pi-30 (30 nodes): ssh pirate@NAME.local by the image's password; "
        "Docker in the image"
    )
    assert reach_lines(nodes) == (alike,)
    other = reach_of(node(hostname="teacher", ssh_keys=(KEY,)), RASPIOS)
    assert reach_lines([*nodes, other]) == (alike, f"teacher: {other.sentence}")
    assert reach_lines(nodes[:1])[0].startswith("pi-01: ssh pirate@pi-01.local")


def test_fixed_addresses_are_alike_as_well() -> None:
    nodes = [
        reach_of(node(hostname=f"a{n}", network=Network(address=f"10.0.0.{n}/24")), PIRATE)
        for n in (1, 2)
    ]
    (line,) = reach_lines(nodes)
    assert line.startswith("a1 to a2 (2 nodes): ssh pirate@ADDRESS by")
