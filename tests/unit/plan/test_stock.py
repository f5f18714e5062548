"""What the owner of an image put on its boot partition: kept, merged, or refused by name."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from imagebuilder.errors import ImageError
from imagebuilder.model import Network, Wifi
from imagebuilder.plan.boot_files import MemoryBootFiles
from imagebuilder.plan.vendor.stock import MOST_KEPT_BYTES
from tests.lib.plan_samples import STOCK, after, boot_of, full_node, plain_node, plan
from tests.lib.plans import files_of, node_with, overlay, text_of

if TYPE_CHECKING:
    from imagebuilder.model import NodePlan, NodeSettings

# What an owner, or Raspberry Pi Imager, may have put on the boot partition of any image.
OWNED = {
    "firstrun.sh": b"#!/bin/bash\nset +e\n/usr/local/bin/our-own-setup\nrm -f /boot/firstrun.sh\n"
    b"sed -i 's| systemd.run.*||g' /boot/cmdline.txt\nexit 0\n",
    "network-config": b"network:\n  version: 2\n  ethernets: {eth1: {dhcp4: true}}\n",
    "meta-data": b"dsmode: local\npublic-keys: [ours]\n",
    "custom.toml": b"config_version = 1\n",
    "userconf.txt": b"alice:$6$x$y\n",
    "ssh": b"",
    "wpa_supplicant.conf": b'country=DE\nnetwork={\n\tssid="home"\n\tpsk="our own key"\n}\n',
}
# Not beside the settings of a full node: another version of the network, another name of the user.
REFUSED = [("cloud-init-hypriot", "network-config"), ("cloud-init-trixie", "userconf.txt")]
RUN = b" systemd.run=/boot/firstrun.sh systemd.run_success_action=reboot"
OLD_PI = {
    "issue.txt": b"Raspberry Pi reference 2022-04-04\nGenerated using pi-gen, stage2\n",
    "cmdline.txt": b"console=tty1 root=PARTUUID=4e639091-02 rootwait\n",
}


def owned(name: str, path: str, data: bytes) -> MemoryBootFiles:
    """Return a stock boot partition with a file of its owner, which its command line names."""
    files = STOCK[name] | {path: data}
    if path == "firstrun.sh" and name.startswith("firstrun"):
        files["cmdline.txt"] = files["cmdline.txt"].strip() + RUN
    return MemoryBootFiles(files)


def yaml_of(planned: NodePlan, path: str) -> dict[str, Any]:
    found = yaml.safe_load(text_of(planned, path))
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("node", [plain_node(), full_node()], ids=["plain", "full"])
@pytest.mark.parametrize("path", OWNED)
@pytest.mark.parametrize("name", STOCK)
def test_nothing_of_the_owner_is_lost_without_a_word(
    name: str, path: str, node: NodeSettings
) -> None:
    boot = owned(name, path, OWNED[path])
    if (name, path) in REFUSED and node.user:
        with pytest.raises(ImageError, match=path):
            plan(node, boot)
        return
    planned = plan(node, boot)
    card = after(boot, planned)
    kept = [at for at in (path, f"rpi-image/stock/{path}") if card.exists(at)]
    assert OWNED[path] in [card.read(at) for at in kept]
    again = plan(node, card)
    assert dict(after(card, again).files) == dict(card.files)
    assert again.config_hash == planned.config_hash
    assert again.warnings == planned.warnings


@pytest.mark.parametrize("path", OWNED)
@pytest.mark.parametrize("name", STOCK)
def test_a_file_of_the_owner_that_an_overlay_replaced_comes_back(name: str, path: str) -> None:
    boot = owned(name, path, OWNED[path])
    node = node_with(wifi=Wifi())
    used = after(boot, plan(node, boot, overlay(path, "a: mine\n")))
    assert used.read(path) == b"a: mine\n"
    assert dict(after(used, plan(node, used)).files) == dict(after(boot, plan(node, boot)).files)


def test_a_large_file_that_an_overlay_replaced_is_not_kept() -> None:
    boot = boot_of("occidentalis", **{"kernel7.img": bytes(MOST_KEPT_BYTES + 1)})
    planned = plan(plain_node(), boot, overlay("kernel7.img", "mine"))
    assert "rpi-image/stock/kernel7.img" not in files_of(planned)


def test_the_command_line_never_comes_back() -> None:
    """Its PARTUUID changes at the first boot: an older copy would not boot."""
    boot = boot_of("firstrun-bookworm")
    planned = plan(plain_node(), boot, overlay("cmdline.txt", "console=tty1 root=/dev/mmcblk0p2"))
    assert not [path for path in files_of(planned) if path.endswith("stock/cmdline.txt")]


# ---- firstrun


def test_the_owners_script_is_named_in_a_warning_and_its_words_come_back() -> None:
    boot = owned("firstrun-bookworm", "firstrun.sh", OWNED["firstrun.sh"])
    planned = plan(plain_node(), boot)
    assert [w for w in planned.warnings if "firstrun.sh of the image is kept" in w]
    assert "run_own" in text_of(planned, "firstrun.sh")
    words = text_of(planned, "cmdline.txt").split()
    assert words.count("systemd.run=/boot/firstrun.sh") == 1
    assert words[-3] == "systemd.run=/boot/firstrun.sh"


def test_a_script_that_nothing_starts_is_kept_and_not_run() -> None:
    boot = boot_of("firstrun-bookworm", **{"firstrun.sh": OWNED["firstrun.sh"]})
    planned = plan(plain_node(), boot)
    assert [w for w in planned.warnings if "firstrun.sh of the image is not run" in w]
    assert "run_own" not in text_of(planned, "firstrun.sh")
    assert files_of(planned)["rpi-image/stock/firstrun.sh"] == OWNED["firstrun.sh"]


def test_another_program_at_the_first_boot_is_refused_by_name() -> None:
    line = STOCK["firstrun-bookworm"]["cmdline.txt"].strip() + b" systemd.run=/boot/setup.sh\n"
    boot = boot_of("firstrun-bookworm", **{"cmdline.txt": line})
    with pytest.raises(ImageError, match=r"systemd\.run="):
        plan(plain_node(), boot)


def test_networks_that_the_image_would_put_over_ours_move_into_our_file() -> None:
    theirs = OWNED["wpa_supplicant.conf"]
    boot = MemoryBootFiles(OLD_PI | {"wpa_supplicant.conf": theirs})
    node = replace(plain_node(), wifi=replace(plain_node().wifi, country=""))
    planned = plan(node, boot)
    text = text_of(planned, "rpi-image/wifi/wpa_supplicant.conf")
    assert text.count("network={") == 2
    assert 'psk="our own key"\n' in text
    assert "country=DE\n" in text
    card = after(boot, planned)
    assert not card.exists("wpa_supplicant.conf")
    without = after(card, plan(node_with(wifi=Wifi()), card))
    assert without.read("wpa_supplicant.conf") == theirs
    assert not without.exists("rpi-image/stock/wpa_supplicant.conf")


# ---- occidentalis


def test_wifi_lines_of_the_owner_stay_where_none_is_set() -> None:
    text = b"hostname=black-pearl\r\nWIFI_SSID=home \nwifi_password=our key #1\n"
    boot = boot_of("occidentalis", **{"occidentalis.txt": text})
    kept = after(boot, plan(node_with(wifi=Wifi()), boot)).read("occidentalis.txt")
    assert b"wifi_ssid=home \r\nwifi_password=our key #1\r\n" in kept
    used = after(boot, plan(plain_node(), boot))
    assert b"home" not in used.read("occidentalis.txt")
    assert after(used, plan(node_with(wifi=Wifi()), used)).read("occidentalis.txt") == kept


# ---- cloud-init


def test_other_keys_of_meta_data_stay() -> None:
    boot = boot_of("cloud-init-trixie", **{"meta-data": OWNED["meta-data"]})
    found = yaml_of(plan(plain_node(), boot), "meta-data")
    assert (found["dsmode"], found["public-keys"]) == ("local", ["ours"])
    assert found["local-hostname"] == "pi-03"


NETPLAN = b"""
version: 2
renderer: networkd
ethernets:
  eth0: {addresses: [10.0.0.9/24], wakeonlan: true}
  eth1: {dhcp4: true}
wifis:
  wlan0: {dhcp6: true, access-points: {home: {password: our own key}, guests: {hidden: true}}}
  wlan1: {access-points: {lab: {}}}
vlans: {vlan7: {id: 7, link: eth0}}
"""


@pytest.mark.parametrize("wrapped", [False, True])
def test_what_the_settings_do_not_set_stays_in_the_network_of_the_owner(*, wrapped: bool) -> None:
    text = yaml.dump({"network": yaml.safe_load(NETPLAN)}).encode() if wrapped else NETPLAN
    boot = boot_of("cloud-init-trixie", **{"network-config": text})
    bare = yaml_of(plan(node_with(wifi=Wifi()), boot), "network-config")["network"]
    assert bare == yaml.safe_load(NETPLAN)
    full = yaml_of(plan(full_node(), boot), "network-config")["network"]
    theirs = yaml.safe_load(NETPLAN)
    assert full["ethernets"]["eth0"]["addresses"] == ["192.168.2.103/24"]
    assert full["ethernets"]["eth1"] == theirs["ethernets"]["eth1"]
    assert full["wifis"]["wlan1"] == theirs["wifis"]["wlan1"]
    assert full["wifis"]["wlan0"]["dhcp6"] is True
    points = full["wifis"]["wlan0"]["access-points"]
    assert points["home"] == {"password": "our own key"}
    assert points["guests"] == {"auth": {"key-management": "none"}}
    assert (full["vlans"], full["renderer"]) == (theirs["vlans"], "networkd")


def test_hypriotos_keeps_other_entries_of_version_1() -> None:
    lan = {"type": "physical", "name": "eth1", "subnets": [{"type": "dhcp"}]}
    own = {"type": "physical", "name": "eth0", "subnets": [{"type": "dhcp6"}]}
    text = yaml.dump({"version": 1, "config": [own, lan]}).encode()
    boot = boot_of("cloud-init-hypriot", **{"network-config": text})
    assert yaml_of(plan(plain_node(), boot), "network-config")["config"] == [own, lan]
    kept, ours = yaml_of(plan(full_node(), boot), "network-config")["config"]
    assert kept == lan
    assert ours["subnets"][0]["address"] == "192.168.2.103/24"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("cloud-init-hypriot", b"version: 2\nethernets: {eth1: {dhcp4: true}}\n"),
        ("cloud-init-trixie", b"version: 1\nconfig: [{type: physical, name: eth1}]\n"),
        ("cloud-init-trixie", b"network: {config: disabled}\n"),
    ],
)
def test_a_network_of_another_version_stays_whole_or_is_refused(name: str, text: bytes) -> None:
    boot = boot_of(name, **{"network-config": text})
    bare = node_with(wifi=Wifi())
    assert yaml_of(plan(bare, boot), "network-config") == yaml.safe_load(text)
    with pytest.raises(ImageError, match="network-config of the image"):
        plan(replace(bare, network=Network(address="192.168.2.9/24")), boot)


@pytest.mark.parametrize(
    "text",
    [b"network: [a]\n", b"version: 2\nethernets: 7\n", b"version: 2\nwifis: {wlan0: [x]}\n"],
)
def test_a_network_that_is_no_mapping_is_named(text: bytes) -> None:
    with pytest.raises(ImageError, match="network-config of the image"):
        plan(full_node(), boot_of("cloud-init-trixie", **{"network-config": text}))


USERS = b"""#cloud-config
users:
  - name: alice
    passwd: x
  - {name: bob, shell: /bin/zsh}
chpasswd: {expire: true, users: [{name: alice, password: a}, {name: bob, password: b}]}
"""


def test_a_user_of_the_settings_replaces_the_login_and_no_other() -> None:
    boot = boot_of("cloud-init-trixie", **{"user-data": USERS})
    stock = yaml.safe_load(USERS)
    kept = yaml_of(plan(plain_node(), boot), "user-data")
    assert (kept["users"], kept["chpasswd"]) == (stock["users"], stock["chpasswd"])
    planned = plan(full_node(), boot)
    found = yaml_of(planned, "user-data")
    assert found["users"] == [stock["users"][1]]
    assert found["chpasswd"] == {"expire": True, "users": [{"name": "bob", "password": "b"}]}
    assert [w for w in planned.warnings if "replaced by teacher" in w]


@pytest.mark.parametrize(
    ("users", "left"),
    [
        (["default", {"name": "bob"}], [{"name": "bob"}]),
        ("pirate, bob", ["bob"]),
        ({"pirate": {"shell": "/bin/sh"}, "bob": {"uid": 7}}, [{"uid": 7, "name": "bob"}]),
        ([{"name": "teacher"}, "bob"], ["bob"]),
    ],
)
def test_users_in_every_form_of_cloud_init(users: object, left: list[object]) -> None:
    text = yaml.dump({"users": users}, sort_keys=False).encode()
    boot = boot_of("cloud-init-trixie", **{"user-data": text})
    assert yaml_of(plan(full_node(), boot), "user-data")["users"] == left


def test_the_login_of_the_image_stays_where_the_settings_say_so() -> None:
    stock = yaml.safe_load(STOCK["cloud-init-hypriot"]["user-data"])["users"]
    node = replace(full_node(), keep_vendor_login=True)
    users = yaml_of(plan(node, boot_of("cloud-init-hypriot")), "user-data")["users"]
    assert (users[0]["name"], users[1:]) == ("teacher", stock)


def test_a_password_of_a_user_that_will_not_exist_is_left_out() -> None:
    """The default user of Ubuntu has another name then, and cloud-init's module would fail."""
    text = b"chpasswd:\n  expire: true\n  users: [{name: ubuntu, password: ubuntu, type: text}]\n"
    boot = boot_of("cloud-init-trixie", **{"user-data": text})
    assert yaml_of(plan(full_node(), boot), "user-data")["chpasswd"] == {"expire": True}
    kept = yaml_of(plan(plain_node(), boot), "user-data")["chpasswd"]
    assert kept == yaml.safe_load(text)["chpasswd"]
    listed = {"chpasswd": {"list": "ubuntu:x\nroot:y\n"}}
    boot = boot_of("cloud-init-trixie", **{"user-data": yaml.dump(listed).encode()})
    assert yaml_of(plan(full_node(), boot), "user-data")["chpasswd"] == {"list": "root:y\n"}


def test_userconf_that_would_rename_our_user_is_refused() -> None:
    boot = boot_of("cloud-init-trixie", **{"userconf.txt": OWNED["userconf.txt"]})
    assert plan(plain_node(), boot)
    with pytest.raises(ImageError, match=r"userconf\.txt"):
        plan(full_node(), boot)
