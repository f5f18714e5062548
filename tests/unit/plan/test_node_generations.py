"""What a plan does with the files of each generation of image."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from imagebuilder.errors import ImageError, SettingsError
from imagebuilder.model import (
    Cluster,
    Docker,
    Network,
    NodePlan,
    NodeSettings,
    Secret,
    Wifi,
    WifiNetwork,
)
from imagebuilder.plan.boot_files import MemoryBootFiles
from imagebuilder.plan.generations import detect
from imagebuilder.plan.node import plan_node
from tests.lib.plan_samples import (
    BUILD_TIME,
    HOSTILE,
    SECRETS,
    STOCK,
    after,
    boot_of,
    full_node,
    generations,
    node_files,
    plain_node,
    plan,
)
from tests.lib.plans import files_of, node_env, node_with, overlay, text_of
from tests.lib.tools import run

if TYPE_CHECKING:
    from pathlib import Path


def yaml_of(planned: NodePlan, path: str) -> dict[str, Any]:
    found = yaml.safe_load(text_of(planned, path))
    assert isinstance(found, dict)
    return found


# ---- every generation


@pytest.mark.parametrize("name", STOCK)
@pytest.mark.parametrize("node", [plain_node(), full_node()], ids=["plain", "full"])
def test_planning_over_its_own_result_changes_nothing(name: str, node: NodeSettings) -> None:
    boot = boot_of(name)
    first = plan(node, boot)
    again = plan(node, after(boot, first))
    assert files_of(again) == files_of(first)
    assert again.config_hash == first.config_hash
    assert not [edit.path for edit in again.edits if edit.data is None]


@pytest.mark.parametrize("name", STOCK)
def test_another_node_over_an_earlier_one_leaves_nothing_of_it(name: str) -> None:
    boot = boot_of(name)
    used = after(boot, plan(full_node(), boot, overlay("notes.txt", "mine")))
    pi_files = {"rpi-image/status": b"pi-03: ok", "rpi-image/install.log": b"done"}
    used = MemoryBootFiles({**used.files, **pi_files})
    fresh = after(boot, plan(plain_node(), boot))
    assert dict(after(used, plan(plain_node(), used)).files) == dict(fresh.files)


@pytest.mark.parametrize("name", STOCK)
def test_every_word_of_the_vendors_cmdline_stays(name: str) -> None:
    stock = STOCK[name]["cmdline.txt"].decode().split()
    line = after(boot_of(name), plan(full_node(), boot_of(name))).read("cmdline.txt").decode()
    assert line.split()[: len(stock)] == stock
    ours = " ".join(line.split()[len(stock) :])
    assert len(ours.encode()) < 400
    assert "\n" not in line.rstrip("\n")


@pytest.mark.parametrize("name", STOCK)
def test_something_starts_the_installer(name: str) -> None:
    card = after(boot_of(name), plan(plain_node(), boot_of(name)))
    starters = [path for path in card.names() if "/" not in path]
    text = b"".join(card.read(path) for path in starters).decode()
    assert len(re.findall(r"rpi-image/install\b", text.replace("[ -f $boot/", ""))) >= 1
    assert card.exists("rpi-image/install")


@pytest.mark.parametrize("name", STOCK)
def test_the_hostname_is_set_natively(name: str) -> None:
    planned = plan(plain_node(), boot_of(name))
    assert node_env(planned)["NODE_HOSTNAME"] == "pi-03"
    if name == "occidentalis":
        assert "hostname=pi-03\n" in text_of(planned, "occidentalis.txt")
    elif name.startswith("device-init"):
        assert yaml_of(planned, "device-init.yaml")["hostname"] == "pi-03"
    elif name.startswith("cloud-init"):
        assert yaml_of(planned, "user-data")["hostname"] == "pi-03"


@pytest.mark.parametrize("hostname", ["no", "0123", "1e3", "on", "null"])
@pytest.mark.parametrize("name", STOCK)
def test_a_hostname_stays_a_text(name: str, hostname: str) -> None:
    planned = plan(node_with(hostname=hostname), boot_of(name))
    for path in {"device-init.yaml", "user-data"} & files_of(planned).keys():
        assert yaml_of(planned, path)["hostname"] == hostname
    assert node_env(planned)["NODE_HOSTNAME"] == hostname


def test_the_same_node_gives_the_same_bytes() -> None:
    assert plan(full_node(), boot_of("occidentalis")) == plan(full_node(), boot_of("occidentalis"))


@pytest.mark.parametrize("name", STOCK)
def test_the_hash_is_of_the_configuration_and_not_of_the_time(name: str) -> None:
    one = plan(full_node(), boot_of(name), build_time=1)
    other = plan(full_node(), boot_of(name), build_time=2_000_000_000)
    assert one.config_hash == other.config_hash
    assert re.fullmatch(r"[0-9a-f]{64}", one.config_hash)
    differing = {path for path, data in files_of(one).items() if files_of(other)[path] != data}
    assert differing <= {"rpi-image/node.env", "fake-hwclock.data"}


@pytest.mark.parametrize(
    "change",
    [
        {"hostname": "pi-04"},
        {"wifi": Wifi("FR", (WifiNetwork("Shack", Secret("another passphrase")),))},
        {"wifi": Wifi("DE", plain_node().wifi.networks)},
        {"ssh_keys": ("ssh-ed25519 AAAA x",)},
        {"docker": Docker(labels=(("seat", "4"),))},
        {"upgrade": True},
        {"network": Network(address="192.168.2.9/24")},
    ],
)
def test_the_hash_changes_with_the_configuration(change: dict[str, object]) -> None:
    one = plan(plain_node(), boot_of("occidentalis"))
    assert plan(node_with(**change), boot_of("occidentalis")).config_hash != one.config_hash


def test_the_hash_does_not_depend_on_the_base() -> None:
    bare = MemoryBootFiles({"occidentalis.txt": b"hostname=x\n", "cmdline.txt": b"other words"})
    one = plan(full_node(), boot_of("occidentalis"))
    assert plan(full_node(), bare).config_hash == one.config_hash


def test_no_secret_shows_in_a_plan() -> None:
    for name in STOCK:
        shown = repr(plan(full_node(), boot_of(name))) + repr(full_node())
        assert not [secret for secret in SECRETS if secret in shown]


@pytest.mark.parametrize("name", [name for name in STOCK if not name.startswith("device-init")])
def test_a_passphrase_is_hashed_wherever_a_hash_will_do(name: str) -> None:
    planned = plan(full_node(), boot_of(name))
    plain = [path for path, data in files_of(planned).items() if "パスワード123".encode() in data]
    assert plain == (["occidentalis.txt"] if name == "occidentalis" else [])


# ---- occidentalis


def test_occidentalis_of_the_workshop() -> None:
    planned = plan(plain_node(), boot_of("occidentalis"))
    text = text_of(planned, "occidentalis.txt")
    assert "wifi_ssid=Shack\nwifi_password=correct horse battery\n" in text
    assert "# basic wireless networking options:\n" in text
    assert text_of(planned, "cmdline.txt").endswith('exec /sbin/init"')


@pytest.mark.parametrize(
    "network",
    [
        WifiNetwork("Shack", Secret("correct horse"), hidden=True),
        WifiNetwork("Shack", psk=Secret("a" * 64)),
        WifiNetwork("Shack"),
    ],
)
def test_what_occidentalis_does_not_know_is_left_to_the_installer(network: WifiNetwork) -> None:
    planned = plan(node_with(wifi=Wifi("FR", (network,))), boot_of("occidentalis"))
    assert "\nwifi_" not in text_of(planned, "occidentalis.txt")
    assert 'ssid="Shack"' in text_of(planned, "rpi-image/wifi/wpa_supplicant.conf")


@pytest.mark.parametrize(
    ("ssid", "passphrase", "said"),
    [
        ("trailing ", "correct horse", "space"),
        (" leading", "correct horse", "space"),
        ("net", "correct horse ", "space"),
        ("two\nlines", "correct horse", "control character"),
        ("net", "correct\nhorse", "control character"),
        ("x" * 33, "correct horse", "33 bytes"),
        ("é" * 17, "correct horse", "34 bytes"),
        ("net", "short", "8 to 63"),
    ],
)
def test_what_the_format_cannot_carry_is_refused(ssid: str, passphrase: str, said: str) -> None:
    node = node_with(wifi=Wifi("FR", (WifiNetwork(ssid, Secret(passphrase)),)))
    with pytest.raises(SettingsError, match=said) as caught:
        plan(node, boot_of("occidentalis"))
    assert passphrase not in caught.value.message


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"hostname": "Pi_3"}, "is not a hostname"),
        ({"hostname": "a\nb"}, "is not a hostname"),
        ({"hostname": "x" * 64}, "is not a hostname"),
        ({"wifi": Wifi("F R", ())}, "is not an ISO 3166"),
        ({"wifi": Wifi("FR", (WifiNetwork("n", psk=Secret("a" * 63)),))}, "not 64 hex digits"),
        ({"timezone": "Europe/\nParis"}, "control character"),
    ],
)
def test_wrong_values_never_reach_a_file(change: dict[str, object], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        plan(node_with(**change), boot_of("occidentalis"))


def test_a_partition_without_its_text_files_gets_them() -> None:
    generation = next(g for g in generations() if g.name == "occidentalis")
    planned = plan_node(plain_node(), generation, node_files(), MemoryBootFiles({}), BUILD_TIME)
    assert text_of(planned, "occidentalis.txt").startswith("hostname=pi-03\n")
    assert text_of(planned, "cmdline.txt").startswith("init=/bin/sh -c ")


def test_names_of_another_case_are_the_same_files() -> None:
    boot = MemoryBootFiles({name.upper(): data for name, data in STOCK["occidentalis"].items()})
    assert detect(generations(), boot).name == "occidentalis"
    assert text_of(plan(plain_node(), boot), "cmdline.txt").startswith("+dwc_otg")


# ---- device-init


def test_device_init_without_commands_uses_the_kernel() -> None:
    planned = plan(plain_node(), boot_of("device-init-1.0"))
    document = yaml_of(planned, "device-init.yaml")
    assert document == {
        "hostname": "pi-03",
        "wifi": {"interfaces": {"wlan0": {"ssid": "Shack", "password": "correct horse battery"}}},
        "docker": {"images": ["/var/local/first.tar.gz"]},
    }
    assert "init=/bin/sh" in text_of(planned, "cmdline.txt")


def test_device_init_with_commands_leaves_the_kernel_alone() -> None:
    planned = plan(plain_node(), boot_of("device-init-1.6"))
    commands = yaml_of(planned, "device-init.yaml")["runcmd"]
    assert commands == ["sh /boot/rpi-image/install", "touch /tmp/vendor"]
    assert "cmdline.txt" not in files_of(planned)


@pytest.mark.parametrize("value", [value for value in HOSTILE if len(value.encode()) >= 8])
def test_hostile_values_arrive_in_device_init(value: str) -> None:
    network = WifiNetwork(value[:8], Secret(value))
    planned = plan(node_with(wifi=Wifi("", (network,))), boot_of("device-init-1.0"))
    document = yaml_of(planned, "device-init.yaml")
    assert document["wifi"] == {"interfaces": {"wlan0": {"ssid": value[:8], "password": value}}}


# ---- cloud-init


def test_the_login_of_hypriotos_stays() -> None:
    document = yaml_of(plan(plain_node(), boot_of("cloud-init-hypriot")), "user-data")
    assert document["users"] == yaml.safe_load(STOCK["cloud-init-hypriot"]["user-data"])["users"]
    assert document["runcmd"][-1] == "systemctl restart avahi-daemon"


@pytest.mark.parametrize("sample", ["cloud-init-hypriot", "cloud-init-trixie"])
@pytest.mark.parametrize(
    ("there", "runs"),
    [
        ((), False),  # a first boot: runcmd will do it
        (("cloud/instance/sem/config_runcmd",), True),  # its turn is over, and nothing was done
        (("cloud/instance/sem/config_runcmd", "rpi-image/installed"), False),
    ],
)
def test_a_runcmd_lost_in_a_power_cut_is_made_up_for(
    tmp_path: Path, sample: str, there: tuple[str, ...], *, runs: bool
) -> None:
    """Run what cloud-init runs at every boot, with a folder in the place of `/`."""
    (command,) = yaml_of(plan(plain_node(), boot_of(sample)), "user-data")["bootcmd"]
    installer = tmp_path / "boot/rpi-image/install"
    for path in (installer, *(tmp_path / "var/lib" / name for name in there)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"touch {tmp_path}/ran\n")
    moved = [word.replace("/var/", f"{tmp_path}/var/") for word in command]
    moved[-1] = moved[-1].replace(" /boot", f" {tmp_path}/boot")
    run(*moved)
    assert (tmp_path / "ran").exists() is runs


def test_own_boot_commands_stay() -> None:
    stock = {"user-data": b"#cloud-config\nbootcmd:\n  - [touch, /tmp/a]\n  - echo b\n"}
    document = yaml_of(plan(plain_node(), boot_of("cloud-init-trixie", **stock)), "user-data")
    assert document["bootcmd"][1:] == [["touch", "/tmp/a"], "echo b"]


def test_the_login_of_hypriotos_is_there_without_its_user_data() -> None:
    boot = boot_of("cloud-init-hypriot", **{"user-data": b""})
    document = yaml_of(plan(plain_node(), boot), "user-data")
    (pirate,) = document["users"]
    assert (pirate["name"], pirate["plain_text_passwd"]) == ("pirate", "hypriot")


def test_a_user_of_ones_own_replaces_the_login() -> None:
    document = yaml_of(plan(full_node(), boot_of("cloud-init-hypriot")), "user-data")
    (teacher,) = document["users"]
    assert teacher["name"] == "teacher"
    assert teacher["passwd"] == "$6$salt$abc.DEF/ghi"
    assert teacher["lock_passwd"] is False
    assert document["ssh_pwauth"] is True


def test_trixie_takes_a_single_user_so_that_its_groups_stay() -> None:
    document = yaml_of(plan(full_node(), boot_of("cloud-init-trixie")), "user-data")
    assert "users" not in document
    assert document["user"]["name"] == "teacher"
    assert document["user"]["sudo"] is None


@pytest.mark.parametrize("name", ["cloud-init-hypriot", "cloud-init-trixie"])
def test_user_data_begins_as_cloud_init_demands(name: str) -> None:
    assert text_of(plan(full_node(), boot_of(name)), "user-data").startswith("#cloud-config\n")


@pytest.mark.parametrize("name", ["cloud-init-hypriot", "cloud-init-trixie"])
def test_the_instance_is_the_configuration(name: str) -> None:
    planned = plan(full_node(), boot_of(name))
    assert yaml_of(planned, "meta-data")["instance-id"] == planned.config_hash
    assert files_of(planned)["fake-hwclock.data"] == b"2015-04-16 19:35:37\n"


def test_hypriotos_takes_network_version_1() -> None:
    document = yaml_of(plan(full_node(), boot_of("cloud-init-hypriot")), "network-config")
    assert document["version"] == 1
    (wired,) = document["config"]
    assert wired["subnets"] == [
        {
            "type": "static",
            "address": "192.168.2.103/24",
            "gateway": "192.168.2.1",
            "dns_nameservers": ["192.168.2.1", "9.9.9.9"],
        }
    ]


def test_trixie_takes_netplan() -> None:
    document = yaml_of(plan(full_node(), boot_of("cloud-init-trixie")), "network-config")
    network = document["network"]
    assert network["version"] == 2
    assert network["wifis"]["wlan0"]["regulatory-domain"] == "FR"
    assert network["wifis"]["wlan0"]["access-points"] == {
        "Café-📶": {"password": "db8aa120c2b1a9580d2ff80b80fb971841944c8f035a3e2379c2279a314ecef6"},
        "back room": {"password": "a" * 64, "hidden": True},
        "guests": {"auth": {"key-management": "none"}},
    }


def test_the_kernel_words_of_trixie() -> None:
    planned = plan(full_node(), boot_of("cloud-init-trixie"))
    words = text_of(planned, "cmdline.txt").split()
    assert "resize" in words
    assert "cfg80211.ieee80211_regdom=FR" in words
    assert words[-1] == f"ds=nocloud;i={planned.config_hash}"


def test_a_changed_configuration_is_a_new_instance_on_the_same_card() -> None:
    boot = boot_of("cloud-init-trixie")
    card = after(boot, plan(full_node(), boot))
    changed = plan(replace(full_node(), hostname="pi-09"), card)
    words = text_of(changed, "cmdline.txt").split()
    assert [word for word in words if word.startswith("ds=")] == [
        f"ds=nocloud;i={changed.config_hash}"
    ]


def test_keys_taken_out_of_the_settings_leave_the_card() -> None:
    boot = boot_of("cloud-init-trixie")
    node = node_with(ssh_keys=("ssh-ed25519 AAAA gone",))
    card = after(boot, plan(node, boot))
    again = after(card, plan(plain_node(), card))
    assert not [path for path in again.names() if b"AAAA gone" in again.read(path)]


# ---- vendors' YAML

YAML_OF = {"device-init-1.6": "device-init.yaml", "cloud-init-trixie": "user-data"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"a: 1\n\tb: 2\n", "line 2: "),
        (b"a: 1\n---\nb: 2\n", "line 2: "),
        (b"#include\nhttp://example.com/more\n", "but a str"),
        (b"#!/bin/sh\necho hi\n", "but a str"),
        (b"- a\n- b\n", "but a list"),
        (b"Content-Type: multipart/mixed; boundary=xx\n\n--xx\na: 1\n", "line 4"),
        (b"## template: jinja\n#cloud-config\na: '{{ v1.x }}'\n", "a template"),
        (b"# caf\xe9\na: 1\n", "not a single YAML mapping"),
        (b"a: 2015-13-45\n", "not a single YAML mapping: "),
    ],
)
@pytest.mark.parametrize("name", YAML_OF)
def test_what_is_no_mapping_is_not_thrown_away(name: str, text: bytes, said: str) -> None:
    path = YAML_OF[name]
    boot = MemoryBootFiles(STOCK[name] | {path: text})
    with pytest.raises(ImageError, match=f"^{path} is .*{re.escape(said)}") as caught:
        plan(plain_node(), boot)
    assert "overlay" in caught.value.hint
    own = overlay(path, "#cloud-config\nmine: 1\n")
    assert yaml_of(plan(plain_node(), boot, own), path) == {"mine": 1}


@pytest.mark.parametrize("text", [b"", b"\n", b"#cloud-config\n# a: 1\n", b"---\n", b"{}\n"])
@pytest.mark.parametrize("name", YAML_OF)
def test_a_file_that_says_nothing_is_no_mistake(name: str, text: bytes) -> None:
    boot = MemoryBootFiles(STOCK[name] | {YAML_OF[name]: text})
    assert yaml_of(plan(plain_node(), boot), YAML_OF[name])["hostname"] == "pi-03"


@pytest.mark.parametrize("name", YAML_OF)
def test_what_the_vendors_file_holds_arrives_whole(name: str) -> None:
    text = b"runcmd: echo hi\nfiles: [{content: !!binary /9j/4A==, 7: yes}]\nwhen: 1.5\n"
    document = yaml_of(
        plan(plain_node(), MemoryBootFiles(STOCK[name] | {YAML_OF[name]: text})), YAML_OF[name]
    )
    assert document["runcmd"][-1] == "echo hi"
    assert "sh" in document["runcmd"][0]
    assert document["files"] == [{"content": b"\xff\xd8\xff\xe0", 7: True}]
    assert document["when"] == 1.5


def test_a_boot_command_that_is_a_text_is_one_command() -> None:
    stock = {"user-data": b"#cloud-config\nbootcmd: echo b\n"}
    document = yaml_of(plan(plain_node(), boot_of("cloud-init-trixie", **stock)), "user-data")
    assert document["bootcmd"][1:] == ["echo b"]


def test_device_inits_own_wifi_stays_where_none_is_set() -> None:
    theirs = {"interfaces": {"wlan0": {"ssid": "theirs", "password": "theirs too"}}}
    boot = boot_of("device-init-1.6", **{"device-init.yaml": json.dumps({"wifi": theirs}).encode()})
    kept = yaml_of(plan(node_with(wifi=Wifi("FR")), boot), "device-init.yaml")
    assert kept["wifi"] == theirs
    ours = yaml_of(plan(plain_node(), boot), "device-init.yaml")
    assert ours["wifi"]["interfaces"]["wlan0"]["ssid"] == "Shack"
    hidden = Wifi("FR", (WifiNetwork("Shack", Secret("correct horse"), hidden=True),))
    assert "wifi" not in yaml_of(plan(node_with(wifi=hidden), boot), "device-init.yaml")


# ---- firstrun


def test_the_words_of_systemd_run_come_last() -> None:
    words = text_of(plan(full_node(), boot_of("firstrun-bookworm")), "cmdline.txt").split()
    assert words[-3:] == [
        "systemd.run=/boot/firstrun.sh",
        "systemd.run_success_action=reboot",
        "systemd.unit=kernel-command-line.target",
    ]
    assert "init=/usr/lib/raspberrypi-sys-mods/firstboot" in words


def test_bookworm_can_cut_the_script_at_its_clean_up() -> None:
    lines = text_of(plan(full_node(), boot_of("firstrun-bookworm")), "firstrun.sh").splitlines()
    cut = [number for number, line in enumerate(lines) if re.search(r"rm.*firstrun\.sh$", line)]
    assert len(cut) == 1
    assert lines[-1] == "exit 0"
    assert len(lines) - cut[0] == 3
    assert not [line for line in lines[: cut[0]] if re.search(r"/boot/", line)]


@pytest.mark.parametrize("install", ["auto", "never", "always"])
@pytest.mark.parametrize("name", STOCK)
def test_the_memory_cgroup_is_on_where_the_kernel_leaves_it_off(name: str, install: str) -> None:
    docker = Docker(install=install)  # type: ignore[arg-type]
    settings = replace(plain_node(), docker=docker, cluster=Cluster(enabled=False))
    line = files_of(plan(settings, boot_of(name))).get("cmdline.txt", b"").decode()
    wanted = name in {"cloud-init-trixie", "firstrun-bookworm"} and install != "never"
    assert (" cgroup_enable=memory cgroup_memory=1 " in f"{line.strip()} ") is wanted
    if name == "firstrun-bookworm" and wanted:  # its clean-up cuts the line there
        assert line.index("cgroup_memory") < line.index(" systemd.run")
