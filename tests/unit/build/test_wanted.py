"""What a node should be: each setting that reaches the card, and no secret."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from imagebuilder.build.wanted import WantedSettings, as_recorded, changes_between, wanted_hash
from imagebuilder.model import (
    Cluster,
    Docker,
    ImageSource,
    Network,
    Secret,
    Shack,
    User,
    Wifi,
    WifiNetwork,
)
from tests.lib.classroom_samples import node

if TYPE_CHECKING:
    from pathlib import Path

WIFI = WifiNetwork("shack", Secret("correct horse battery"))
NODE = node(1, wifi=Wifi("FR", (WIFI,)), user=User("pi", Secret("$6$salt$hash")))
CHANGES: dict[str, tuple[dict[str, Any], set[str]]] = {
    "owner": ({"owner": "Ada"}, {"owner"}),
    "seat": ({"seat": "A4"}, {"seat"}),
    "timezone": ({"timezone": "Europe/Paris"}, {"timezone"}),
    "address": (
        {"network": Network(address="192.168.2.9/24")}, {"network.address", "network.gateway"},
    ),
    "passphrase": (
        {"wifi": Wifi("FR", (replace(WIFI, passphrase=Secret("another passphrase")),))},
        {"wifi.key.1"},
    ),
    "network name": (
        {"wifi": Wifi("FR", (replace(WIFI, ssid="attic"),))}, {"wifi.networks", "wifi.key.1"},
    ),
    "password": ({"user": User("pi", Secret("$6$salt$other"))}, {"user.password"}),
    "encryption": ({"cluster": Cluster(consul_encrypt=Secret("key"))}, {"cluster.consul.encrypt"}),
    "label": (
        {"docker": Docker(labels=(("arch", "armv7"), ("room", "2")))},
        {"docker.labels.room", "docker.options"},
    ),
    "shack": ({"shack": Shack("192.168.2.2")}, {"shack.address"}),
    "image": ({"image": ImageSource("other", sha256="ab" * 32)}, {"image", "image.sha256"}),
    "variable": ({"variables": (("token", "hidden"),)}, {"set.token"}),
    "host keys": ({"keep_host_keys": True}, {"keep_host_keys"}),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_setting_is_named(name: str) -> None:
    changed, settings = CHANGES[name]
    wanted = WantedSettings()
    before, after = wanted.of(NODE), wanted.of(replace(NODE, **changed))
    assert {change.setting for change in changes_between(before, after)} == settings
    assert wanted_hash(before) != wanted_hash(after)


def test_equal_settings_are_equal() -> None:
    assert WantedSettings().of(NODE) == WantedSettings().of(replace(NODE))


@pytest.mark.parametrize("what", ["allow", "login", "board"])
def test_what_does_not_reach_the_card_does_not_matter(what: str) -> None:
    value: Any = ("no-login",) if what == "allow" else "other"
    other = replace(NODE, **{what: value})
    assert changes_between(WantedSettings().of(NODE), WantedSettings().of(other)) == ()


def test_no_secret_is_recorded_or_shown() -> None:
    wanted = WantedSettings()
    settings = replace(
        NODE,
        variables=(("token", "swordfish"),),
        cluster=Cluster(consul_encrypt=Secret("c2VjcmV0")),
    )
    before = wanted.of(settings)
    wifi = Wifi("FR", (replace(WIFI, passphrase=Secret("another passphrase")),))
    changes = changes_between(before, wanted.of(replace(settings, wifi=wifi)))
    assert [(c.setting, c.before, c.after) for c in changes] == [
        ("wifi.key.1", "(secret)", "(secret)")
    ]
    text = as_recorded(before)
    for secret in ("correct horse", "swordfish", "c2VjcmV0", "$6$salt"):
        assert secret not in text
    assert json.loads(text) == before


def test_a_secret_that_cannot_be_read_now_is_not_a_change() -> None:
    wanted = WantedSettings()
    blind = replace(NODE, wifi=Wifi("FR", (WifiNetwork("shack"),)), user=User("pi"))
    before, after = wanted.of(NODE), wanted.of(blind)
    assert changes_between(before, after, secrets_read=False) == ()
    assert {c.setting for c in changes_between(before, after)} == {"wifi.key.1", "user.password"}


def test_a_file_of_an_overlay_is_a_change(tmp_path: Path) -> None:
    (tmp_path / "hello.sh").write_text("echo hello\n")
    settings = replace(NODE, overlays=(tmp_path,))
    before = WantedSettings().of(settings)
    assert WantedSettings().of(settings) == before
    (tmp_path / "hello.sh").write_text("echo bye\n")
    after = WantedSettings().of(settings)
    assert [change.setting for change in changes_between(before, after)] == ["overlays.1"]


def test_a_container_image_is_compared_by_its_content(tmp_path: Path) -> None:
    tarball = tmp_path / "app.tar"
    settings = replace(NODE, cluster=Cluster(tarballs=(str(tarball),)))
    assert WantedSettings().of(settings)["cluster.tarballs.1"] == "app.tar unreadable"
    tarball.write_bytes(b"one")
    before = WantedSettings().of(settings)
    tarball.write_bytes(b"two")
    (change,) = changes_between(before, WantedSettings().of(settings))
    assert change.setting == "cluster.tarballs.1"
