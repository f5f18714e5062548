"""Ubuntu Server's boot partitions: 24.04, and 25.10 with its A/B layout, as they are booted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from imagebuilder.errors import SettingsError
from imagebuilder.model import Network, Secret, User, Wifi, WifiNetwork
from imagebuilder.plan.boot_files import MemoryBootFiles
from tests.lib.plan_samples import after, plain_node, plan
from tests.lib.plans import files_of, text_of

BOOT = Path(__file__).parents[2] / "boot"
READ_BY_FIRMWARE = {"24.04": "cmdline.txt", "25.10": "current/cmdline.txt"}
KEY = "ssh-ed25519 AAAAC3Nz ann"


def boot_of(release: str, **texts: str) -> MemoryBootFiles:
    """Return the boot partition of a release; `texts` replace files (`_` for a hyphen)."""
    files: dict[str, bytes] = {}
    for layer in (BOOT / "vendors/ubuntu/boot", BOOT / f"generations/ubuntu-{release}/boot"):
        paths = (path for path in layer.rglob("*") if path.is_file())
        files |= {str(path.relative_to(layer)): path.read_bytes() for path in paths}
    assert "ubuntu" in files["user-data"].decode()
    return MemoryBootFiles(
        files | {name.replace("_", "-"): text.encode() for name, text in texts.items()}
    )


@pytest.mark.parametrize("release", READ_BY_FIRMWARE)
def test_the_words_stand_in_the_file_that_the_firmware_reads(release: str) -> None:
    stock, path = boot_of(release), READ_BY_FIRMWARE[release]
    planned = plan(plain_node(), stock)
    words = text_of(planned, path).split()
    assert words[: len(stock.files[path].split())] == stock.files[path].decode().split()
    assert f"ds=nocloud;i={planned.config_hash}" in words
    assert {"cgroup_enable=memory", "cgroup_memory=1"} <= set(words)
    assert [name for name in files_of(planned) if name.endswith("cmdline.txt")] == [path]


@pytest.mark.parametrize("release", READ_BY_FIRMWARE)
def test_the_first_user_is_the_one_of_the_settings(release: str) -> None:
    node = replace(plain_node(), user=User("pupil", Secret("$6$s$h")), ssh_keys=(KEY,))
    planned = plan(node, boot_of(release))
    data = yaml.safe_load(text_of(planned, "user-data"))
    assert data["user"]["name"] == "pupil"
    assert data["ssh_pwauth"] is True
    # cloud-init's module fails for a user that is not made.
    assert [user["name"] for user in data["chpasswd"].get("users", [])] == []
    assert planned.reach.startswith("ssh pupil@pi-03.local by key and password; ")


@pytest.mark.parametrize("release", READ_BY_FIRMWARE)
def test_the_wire_and_the_wifi_are_in_one_netplan(release: str) -> None:
    wifi = Wifi("FR", (WifiNetwork("shack", Secret("correct horse")),))
    static = Network(address="192.168.2.13/24", gateway="192.168.2.1")
    planned = plan(replace(plain_node(), network=static, wifi=wifi), boot_of(release))
    network = yaml.safe_load(text_of(planned, "network-config"))["network"]
    assert network["version"] == 2
    assert network["ethernets"]["eth0"]["addresses"] == ["192.168.2.13/24"]
    assert network["ethernets"]["eth0"]["dhcp4"] is False
    assert list(network["wifis"]["wlan0"]["access-points"]) == ["shack"]


@pytest.mark.parametrize(
    ("keys", "stock", "sentence"),
    [
        ((KEY,), {}, "ssh ubuntu@pi-03.local by key"),
        ((KEY,), {"user_data": "#cloud-config\nusers: [default]\n"}, "login as the image has it"),
        (
            (),
            {"user_data": "#cloud-config\nssh_pwauth: true\nchpasswd: {list: ['ubuntu:ubuntu']}\n"},
            "ssh ubuntu@pi-03.local by the image's password",
        ),
    ],
)
def test_ubuntus_own_login(keys: tuple[str, ...], stock: dict[str, str], sentence: str) -> None:
    planned = plan(replace(plain_node(), ssh_keys=keys, user=None), boot_of("24.04", **stock))
    login, *parts = planned.reach.split("; ")
    assert login == sentence
    assert "the console asks for a user" not in parts


def test_its_password_is_no_login_where_ssh_takes_none() -> None:
    with pytest.raises(SettingsError, match="nobody can log in"):
        plan(replace(plain_node(), ssh_keys=(), user=None, allow=()), boot_of("25.10"))


@pytest.mark.parametrize("release", READ_BY_FIRMWARE)
def test_planning_again_changes_nothing(release: str) -> None:
    stock = boot_of(release)
    node = replace(plain_node(), ssh_keys=(KEY,))
    card = after(stock, plan(node, stock))
    assert dict(after(card, plan(node, card)).files) == dict(card.files)
