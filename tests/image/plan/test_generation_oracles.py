"""What the plans write, judged by the programs that read it on a Pi."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from imagebuilder.model import Network, Secret, Wifi, WifiNetwork
from imagebuilder.plan.boot_files import MemoryBootFiles
from imagebuilder.plan.shared_image import unclaimed_node
from tests.lib.plan_samples import HOSTILE, boot_of, full_node, plain_node, plan
from tests.lib.tools import need, run

if TYPE_CHECKING:
    from imagebuilder.model import NodePlan, NodeSettings, WifiSecurity

CLOUD = ["cloud-init-hypriot", "cloud-init-trixie"]
SSIDS = [*{text.encode()[:32].decode(errors="ignore") for text in HOSTILE}]


def lay(planned: NodePlan, folder: Path) -> Path:
    """Write a plan's files into a folder."""
    for edit in planned.edits:
        if edit.data is not None:
            target = folder / edit.path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(edit.data)
    return folder


def hostile_wifi() -> NodeSettings:
    """Return a node with one network for each hostile SSID, each with a hostile passphrase."""
    networks = tuple(
        WifiNetwork(ssid, Secret((ssid + "-passphrase").encode()[:60].decode(errors="ignore")))
        for ssid in SSIDS
    )
    return replace(full_node(), wifi=Wifi("FR", networks))


@pytest.mark.parametrize("name", CLOUD)
@pytest.mark.parametrize("node", [plain_node(), full_node()], ids=["plain", "full"])
def test_cloud_init_takes_the_user_data(name: str, node: NodeSettings, tmp_path: Path) -> None:
    need("cloud-init")
    stock = b"#cloud-config\n"  # the vendor's own is not valid: it has ssh_pwauth inside a user
    card = lay(plan(node, boot_of(name, **{"user-data": stock})), tmp_path)
    said = run("cloud-init", "schema", "--config-file", card / "user-data")
    assert "Valid" in said


# What the settings do not set, in every type that YAML 1.1 has.
TYPED = """#cloud-config
users:
  - {name: pirate, expiredate: 2032-09-01, plain_text_passwd: x, uid: 0o17, inactive: 07}
chpasswd: {expire: no, users: [{name: bob, password: 2001-01-01, type: text}]}
dates: [2032-09-01, 2001-12-14t21:59:43.10-05:00, 2001-12-15 2:59:43.1, 2002-1-1T00:00:00Z]
floats: [1.5, 1e3, 1.0e+30, .nan, .inf, -.inf, 190:20:30.15, 1_000.5, 6.02e-7]
numbers: [0x1f, 0b11, 190:20:30, 1_000, -0, +7, "0123", 0o7]
texts: [no, "no", ~, "", '2032-09-01', 12:30:45, "\\ud83d\\ude00", "\\x85", 1e3]
set: !!set {a, 2032-09-01, 7}
pairs: !!pairs [a: 1, a: 2]
omap: !!omap [b: 1.5, a: 2032-09-01]
binary: !!binary /9j/4A==
merged: {<<: {a: 2032-09-01, b: 1}, b: .inf}
2032-09-01: a date as a key
1.5: .nan
true: yes
"""

READ = """
import sys, yaml
def shown(v):
    if isinstance(v, dict): return {repr(k): shown(w) for k, w in v.items()}
    if isinstance(v, (list, tuple)): return [type(v).__name__, *map(shown, v)]
    if isinstance(v, set): return sorted(map(repr, v))
    return f"{type(v).__name__} {v!r}"
old, new = (yaml.safe_load(open(name, "rb")) for name in sys.argv[1:])
print([name for name in old if shown(old[name]) != shown(new.get(name))])
"""


@pytest.mark.parametrize("name", CLOUD)
def test_cloud_inits_reader_finds_every_value_of_the_image_as_it_was(
    name: str, tmp_path: Path
) -> None:
    need("cloud-init")
    card = lay(plan(plain_node(), boot_of(name, **{"user-data": TYPED.encode()})), tmp_path)
    (tmp_path / "old").write_text(TYPED)
    said = run("/usr/bin/python3", "-c", READ, tmp_path / "old", card / "user-data")
    assert said.strip() == "[]"


INSTANCE = """
import sys
from cloudinit.sources import DataSourceNoCloud as nocloud
said = {}
assert nocloud.load_cmdline_data(said, sys.argv[1])
seed = nocloud._merge_new_seed({"meta-data": said}, {"meta-data": sys.argv[2]})
print(seed["meta-data"]["instance-id"])
"""


def test_a_board_that_becomes_its_node_is_a_new_instance(tmp_path: Path) -> None:
    """The command line stays that of the one image; what is on it wins over meta-data."""
    need("cloud-init")
    boot = boot_of("cloud-init-trixie")
    fallback, own = (plan(node, boot) for node in (unclaimed_node([full_node()]), full_node()))
    line = (lay(fallback, tmp_path) / "cmdline.txt").read_text()
    for planned in (fallback, own):
        meta_data = (lay(planned, tmp_path) / "meta-data").read_text()
        said = run("/usr/bin/python3", "-c", INSTANCE, line, meta_data)
        assert said.strip() == planned.config_hash


@pytest.mark.parametrize("node", [plain_node(), full_node()], ids=["plain", "full"])
def test_cloud_init_makes_interfaces_of_version_1(node: NodeSettings, tmp_path: Path) -> None:
    need("cloud-init", "ifquery")
    card = lay(plan(node, boot_of("cloud-init-hypriot")), tmp_path / "card")
    options = f"-k yaml -D debian -O eni -p {card}/network-config -d {tmp_path}/root"
    run("cloud-init", "devel", "net-convert", *options.split())
    (made,) = (tmp_path / "root/etc/network").rglob("50-*")
    found = facts_of_interface(made)
    if node.network.address:
        assert found["address"] in {"192.168.2.103", "192.168.2.103/24"}
        assert found["gateway"] == "192.168.2.1"
        assert "192.168.2.1 9.9.9.9" in found.values()
    else:
        assert "iface eth0 inet dhcp" in made.read_text()


def facts_of_interface(file: Path) -> dict[str, str]:
    """Read a stanza of eth0 as ifupdown does."""
    lines = run("ifquery", "--interfaces", file, "eth0").splitlines()
    return dict(line.split(": ", 1) for line in lines)


def test_ifupdown_reads_the_static_address(tmp_path: Path) -> None:
    need("ifquery")
    card = lay(plan(full_node(), boot_of("occidentalis")), tmp_path)
    found = facts_of_interface(card / "rpi-image/network/interfaces")
    assert found["address"] == "192.168.2.103"
    assert found["netmask"] == "255.255.255.0"
    assert found["gateway"] == "192.168.2.1"
    assert found["dns-nameservers"] == "192.168.2.1 9.9.9.9"


def netplan_of(node: NodeSettings, root: Path, **stock: bytes) -> Path:
    """Run netplan's generator over the network-config of a trixie card."""
    card = lay(plan(node, boot_of("cloud-init-trixie", **stock)), root / "card")
    place = root / "etc/netplan/50-cloud-init.yaml"
    place.parent.mkdir(parents=True)
    shutil.copy(card / "network-config", place)
    place.chmod(0o600)
    if not knows_sae():
        place.write_text(place.read_text().replace("key-management: sae", "key-management: psk"))
    run("netplan", "generate", "--root-dir", root)
    return root / "run"


@cache
def knows_sae() -> bool:
    """Return whether the netplan here is that of trixie, not that of bookworm (before 0.107)."""
    libraries = Path("/usr/lib").glob("*/libnetplan.so.*")
    return any(b"\0sae\0" in path.read_bytes() for path in libraries)


def test_netplan_makes_networks_of_version_2(tmp_path: Path) -> None:
    need("netplan")
    made = netplan_of(full_node(), tmp_path)
    wired = (made / "systemd/network/10-netplan-eth0.network").read_text()
    assert "Address=192.168.2.103/24" in wired
    assert "Gateway=192.168.2.1" in wired
    assert "RequiredForOnline=no" in wired
    wifi = (made / "netplan/wpa-wlan0.conf").read_text()
    assert "country=FR" in wifi
    assert wifi.count("network={") == 3
    assert "scan_ssid=1" in wifi
    assert "psk=db8aa120c2b1a9580d2ff80b80fb971841944c8f035a3e2379c2279a314ecef6" in wifi


def test_netplan_takes_ipv6(tmp_path: Path) -> None:
    need("netplan")
    node = replace(
        plain_node(), network=Network(address="fd00::103/64", gateway="fd00::1", dns=("fd00::1",))
    )
    wired = (netplan_of(node, tmp_path) / "systemd/network/10-netplan-eth0.network").read_text()
    assert "Address=fd00::103/64" in wired
    assert "Gateway=fd00::1" in wired


def test_keys_are_those_of_wpa_passphrase(tmp_path: Path) -> None:
    need("wpa_passphrase")
    card = lay(plan(hostile_wifi(), boot_of("occidentalis", occidentalis_txt=b"")), tmp_path)
    ours = re.findall(r"^\tpsk=(.*)$", wpa_text(card), re.MULTILINE)
    theirs = [
        re.findall(
            r"^\tpsk=([0-9a-f]{64})$", run("wpa_passphrase", net.ssid, secret), re.MULTILINE
        )[0]
        for net in hostile_wifi().wifi.networks
        if net.passphrase and (secret := net.passphrase.reveal())
    ]
    assert ours == theirs


def wpa_text(card: Path) -> str:
    return (card / "rpi-image/wifi/wpa_supplicant.conf").read_text()


def test_wpa_supplicant_reads_every_ssid_back(tmp_path: Path) -> None:
    need("wpa_supplicant")
    card = lay(plan(hostile_wifi(), boot_of("occidentalis")), tmp_path)
    said = read_by_supplicant(card)
    assert ssids_in(said) == SSIDS
    assert said.count("Line: ") == len(SSIDS)
    assert "country='FR'" in said


def read_by_supplicant(card: Path) -> str:
    """Return what wpa_supplicant says while it reads the networks of a card."""
    config = card / "wpa.conf"
    config.write_text(re.sub(r"^ctrl_interface=.*\n", "", wpa_text(card)))
    command = ("wpa_supplicant", "-Dnone", "-ilo", "-ddK", "-c", str(config))
    return said_until("Add interface", *command)


def ssids_in(said: str) -> list[str]:
    dumps = re.findall(r"^ssid - hexdump_ascii\(len=(\d+)\):\n((?:     .*\n)+)", said, re.MULTILINE)
    return [ssid_of(int(size), dump) for size, dump in dumps]


def ssid_of(size: int, dump: str) -> str:
    """Read a hex dump, 16 bytes a line with their letters behind."""
    digits = "".join(line[5:53] for line in dump.splitlines())
    return bytes.fromhex(digits)[:size].decode()


def said_until(word: str, *command: str) -> str:
    """Run a program that does not end by itself and give its words up to a certain one."""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        lines: list[str] = []
        for line in process.stdout or ():
            lines.append(line)
            if word in line:
                break
        process.kill()
    return "".join(lines)


@pytest.mark.parametrize("shell", [["dash"], ["busybox", "sh"]])
def test_firstrun_calls_the_installer_and_ends_well(shell: list[str], tmp_path: Path) -> None:
    need("dash", "busybox")
    card = lay(plan(full_node(), boot_of("firstrun-bookworm")), tmp_path / "boot/firmware")
    marker = tmp_path / "installed"
    (card / "rpi-image/install").write_text(f"touch {marker}\nexit 3\n")
    script = bookworm_cut((card / "firstrun.sh").read_text())
    (card / "firstrun.sh").write_text(script)
    subprocess.run([*shell, card / "firstrun.sh"], check=True, env={"PATH": stubs(tmp_path)})
    assert marker.exists()
    assert (tmp_path / "calls").read_text() == "systemctl enable ssh\n"


def bookworm_cut(script: str) -> str:
    """Do what bookworm's initramfs does: new paths, and an end of its own at the clean-up."""
    lines = script.replace("/boot/", "/boot/firmware/").splitlines()
    cut = next(n for n, line in enumerate(lines) if re.search(r"rm.*firstrun\.sh$", line))
    return "\n".join([*lines[:cut], "exit 0", ""])


def stubs(folder: Path) -> str:
    """Make a PATH on which systemctl only records its call."""
    place = folder / "bin"
    place.mkdir(exist_ok=True)
    (place / "systemctl").write_text(f'#!/bin/sh\necho systemctl "$@" >>{folder}/calls\n')
    (place / "systemctl").chmod(0o755)
    return f"{place}:/usr/bin:/bin"


@pytest.mark.parametrize("shell", [["dash"], ["busybox", "sh"]])
def test_firstrun_ends_well_without_its_folder(shell: list[str], tmp_path: Path) -> None:
    need("dash", "busybox")
    card = lay(plan(full_node(), boot_of("firstrun-bookworm")), tmp_path)
    shutil.rmtree(card / "rpi-image")
    script = bookworm_cut((card / "firstrun.sh").read_text())
    done = subprocess.run([*shell, "-c", script, str(card / "firstrun.sh")], check=False)
    assert done.returncode == 0


def test_firstrun_is_clean_shell(tmp_path: Path) -> None:
    need("shellcheck")
    card = lay(plan(full_node(), boot_of("firstrun-bookworm")), tmp_path)
    run("shellcheck", "-s", "sh", "-e", "SC1091", card / "firstrun.sh")


@pytest.mark.parametrize("shell", [["dash"], ["busybox", "sh"]])
def test_node_env_is_read_back_by_the_shells_of_a_pi(shell: list[str], tmp_path: Path) -> None:
    need("dash", "busybox")
    hostile = Secret("$6$a`b'c\"d\\e$(f)&/;|é📶")
    user = replace(full_node().user, password_hash=hostile)  # type: ignore[type-var]
    card = lay(plan(replace(full_node(), user=user), boot_of("occidentalis")), tmp_path)
    script = '. ./node.env && printf "%s" "$USER_PASSWORD_HASH"'
    done = subprocess.run(
        [*shell, "-c", script], cwd=card / "rpi-image", capture_output=True, check=True
    )
    assert done.stdout.decode() == hostile.reveal()


OWN_SCRIPT = """#!/bin/bash
echo own >>{folder}/order
if [[ -e {boot}/firstrun.sh ]]; then echo ours is there >>{folder}/order; fi
sed -i 's| systemd.run.*||g' {boot}/cmdline.txt
rm -f {boot}/firstrun.sh
exit 7
"""


@pytest.mark.parametrize("shell", [["dash"], ["busybox", "sh"]])
def test_the_owners_first_boot_script_runs_once_and_before_ours(
    shell: list[str], tmp_path: Path
) -> None:
    need("dash", "busybox")
    boot = tmp_path / "boot/firmware"
    script = OWN_SCRIPT.format(folder=tmp_path, boot=boot).encode()
    line = b"console=tty1 root=/dev/mmcblk0p2 systemd.run=/boot/firstrun.sh\n"
    stock = boot_of("firstrun-bookworm", **{"firstrun.sh": script, "cmdline.txt": line})
    card = lay(plan(plain_node(), stock), boot)
    (card / "rpi-image/install").write_text(f"echo installer >>{tmp_path}/order\n")
    (card / "firstrun.sh").write_text(bookworm_cut((card / "firstrun.sh").read_text()))
    for path in card.rglob("*"):
        path.chmod(0o755)  # as a mounted FAT shows them
    for _ in range(2):
        subprocess.run([*shell, card / "firstrun.sh"], check=True, env={"PATH": stubs(tmp_path)})
    said = (tmp_path / "order").read_text().splitlines()
    assert said == ["own", "ours is there", "installer", "installer"]
    assert "systemd.run=" in (card / "cmdline.txt").read_text()
    assert not list(card.glob("rpi-image/stock/firstrun.sh"))


def test_firstrun_with_the_owners_script_is_clean_shell(tmp_path: Path) -> None:
    need("shellcheck")
    line = b"console=tty1 systemd.run=/boot/firstrun.sh\n"
    boot = boot_of("firstrun-bookworm", **{"firstrun.sh": b"exit 0\n", "cmdline.txt": line})
    card = lay(plan(full_node(), boot), tmp_path)
    run("shellcheck", "-s", "sh", "-e", "SC1091", card / "firstrun.sh")


NETPLAN = b"""network:
  version: 2
  ethernets: {eth1: {dhcp4: true}}
  wifis: {wlan0: {dhcp6: true, access-points: {home: {password: our own key}}}}
"""


def test_netplan_takes_the_network_of_the_owner_with_ours(tmp_path: Path) -> None:
    need("netplan")
    made = netplan_of(full_node(), tmp_path, **{"network-config": NETPLAN})
    assert (made / "systemd/network/10-netplan-eth1.network").exists()
    wifi = (made / "netplan/wpa-wlan0.conf").read_text()
    assert wifi.count("network={") == 4
    assert 'ssid="home"' in wifi


def test_wpa_supplicant_reads_the_networks_of_the_owner(tmp_path: Path) -> None:
    need("wpa_supplicant")
    issue = b"Raspberry Pi reference 2022-04-04\nGenerated using pi-gen, stage2\n"
    theirs = b'country=DE\r\nnetwork={\r\n\tssid="home"\r\n\tpsk="our own key"\r\n}\r\n'
    files = {"issue.txt": issue, "cmdline.txt": b"quiet\n", "wpa_supplicant.conf": theirs}
    card = lay(plan(plain_node(), MemoryBootFiles(files)), tmp_path)
    assert ssids_in(read_by_supplicant(card)) == ["Shack", "home"]


# ---- WPA3

PASSPHRASES = [
    *(value for value in HOSTILE if len(value.encode()) in range(8, 64)),
    '"quoted" # "twice"',
    "  blanks at both ends  ",
    "back\\slash \\s \\n; semicolon",
    "'single' = [a]",
]


def wpa3_wifi(security: WifiSecurity) -> NodeSettings:
    networks = tuple(
        WifiNetwork(f"lab {number}", Secret(passphrase), security=security)
        for number, passphrase in enumerate(PASSPHRASES)
    )
    return replace(plain_node(), wifi=Wifi("FR", networks))


@pytest.mark.parametrize(
    ("security", "key_mgmt", "pmf"), [("wpa3", "0x400", 2), ("wpa2+wpa3", "0x402", 1)]
)
def test_wpa_supplicant_reads_wpa3_and_every_passphrase(
    security: WifiSecurity, key_mgmt: str, pmf: int, tmp_path: Path
) -> None:
    need("wpa_supplicant")
    card = lay(plan(wpa3_wifi(security), boot_of("firstrun-bookworm")), tmp_path)
    said = read_by_supplicant(card)
    assert said.count(f"key_mgmt: {key_mgmt}\n") == len(PASSPHRASES)
    assert said.count(f"ieee80211w={pmf} ") == len(PASSPHRASES)
    dumps = re.findall(
        r"^PSK \(ASCII passphrase\) - hexdump_ascii\(len=(\d+)\):\n((?:     .*\n)+)",
        said,
        re.MULTILINE,
    )
    assert [ssid_of(int(size), dump) for size, dump in dumps] == PASSPHRASES


KEYFILE = """
import gi, sys
from gi.repository import GLib
for name in sys.argv[1:]:
    file = GLib.KeyFile()
    file.load_from_file(name, GLib.KeyFileFlags.NONE)
    print(*(file.get_string("wifi-security", key).encode().hex() for key in ("key-mgmt", "psk")))
"""


@pytest.mark.parametrize(("security", "key_mgmt"), [("wpa3", "sae"), ("wpa2+wpa3", "wpa-psk")])
def test_networkmanagers_reader_finds_every_passphrase(
    security: WifiSecurity, key_mgmt: str, tmp_path: Path
) -> None:
    card = lay(plan(wpa3_wifi(security), boot_of("firstrun-bookworm")), tmp_path)
    files = [card / f"rpi-image/wifi/{n}.nmconnection" for n in range(1, len(PASSPHRASES) + 1)]
    lines = run("/usr/bin/python3", "-c", KEYFILE, *files).splitlines()
    found = [[bytes.fromhex(word).decode() for word in line.split()] for line in lines]
    assert found == [[key_mgmt, passphrase] for passphrase in PASSPHRASES]


def test_netplan_makes_networks_of_wpa3(tmp_path: Path) -> None:
    """Netplan before 0.107 knows no `sae`, so it reads `psk` there, and the same passphrases."""
    need("netplan")
    wifi = (netplan_of(wpa3_wifi("wpa3"), tmp_path) / "netplan/wpa-wlan0.conf").read_text()
    config = (tmp_path / "card/network-config").read_text()
    assert config.count("key-management: sae, password: ") == len(PASSPHRASES)
    if knows_sae():
        assert wifi.count("key_mgmt=SAE\n") == len(PASSPHRASES)
    assert [text for text in PASSPHRASES if f'="{text}"\n' not in wifi] == []


def test_netplan_takes_the_passphrase_of_a_network_of_both_kinds(tmp_path: Path) -> None:
    """Netplan before 1.0 makes WPA2 of it, later ones offer SAE as well: that needs the text."""
    need("netplan")
    wifi = (netplan_of(wpa3_wifi("wpa2+wpa3"), tmp_path) / "netplan/wpa-wlan0.conf").read_text()
    assert wifi.count("key_mgmt=WPA-PSK") == len(PASSPHRASES)
    assert [text for text in PASSPHRASES if f'="{text}"\n' not in wifi] == []
