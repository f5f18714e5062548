"""The installer, run by dash and by busybox sh on the root trees of seven kinds of image."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from tests.lib.pi_tree import (
    BUILT,
    HASH,
    IGNORES_FILE,
    KEYS,
    KINDS,
    SETTINGS,
    SHELLS,
    STATIC_DHCPCD,
    STATIC_NM,
    STOCK_DOCKER,
    STOCK_INTERFACES,
    UNIT,
    WIFI,
    WIFI_NM,
    WITHOUT_DOCKER,
    Pi,
    make_pi,
)
from tests.lib.tools import need, run

if TYPE_CHECKING:
    from pathlib import Path

DROP_IN = "etc/systemd/system/docker.service.d/zz-rpi-image.conf"
STATE = "var/lib/rpi-image"


@pytest.fixture
def wheezy(tmp_path: Path) -> Pi:
    return make_pi(tmp_path, "wheezy")


@pytest.fixture
def jessie(tmp_path: Path) -> Pi:
    return make_pi(tmp_path, "jessie")


def install(pi: Pi, shell: str = "dash") -> str:
    """Run the installer and give what it said; it must always end with 0."""
    done = pi.run(shell=shell)
    assert done.returncode == 0
    assert pi.leftovers() == []
    return done.stderr


def docker_opts(pi: Pi) -> str:
    """Read DOCKER_OPTS as an init script does."""
    file = pi.path("etc/default/docker")
    return run("dash", "-c", f'. "{file}"; printf %s "$DOCKER_OPTS"')


# ---- the whole of it


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_image_becomes_its_node(kind: str, shell: str, tmp_path: Path) -> None:
    pi = make_pi(tmp_path, kind)
    said = install(pi, shell)
    assert pi.status()["install"] == "ok", said
    assert pi.read(f"{STATE}/installed") == f"{HASH}\n"
    assert pi.read("etc/hostname") == "pi-03\n"
    hosts = pi.read("etc/hosts").splitlines()
    assert hosts.count("127.0.1.1\tpi-03") == 1
    assert "black-pearl" not in pi.read("etc/hosts")
    assert "192.168.2.1\tshack # rpi-image" in hosts
    if kind in WITHOUT_DOCKER:
        assert not pi.path("etc/default/docker").exists()
    else:
        assert "--label room=b12" in docker_opts(pi)
    keys = pi.path("home/ada/.ssh/authorized_keys")
    assert KEYS in keys.read_text()
    assert stat.S_IMODE(keys.stat().st_mode) == 0o600
    assert stat.S_IMODE(keys.parent.stat().st_mode) == 0o700
    assert pi.read("etc/timezone") == "Europe/Berlin\n"
    assert str(pi.path("etc/localtime").readlink()) == "/usr/share/zoneinfo/Europe/Berlin"
    assert 'XKBLAYOUT="de"' in pi.read("etc/default/keyboard").splitlines()
    assert 'XKBVARIANT=""' in pi.read("etc/default/keyboard").splitlines()
    assert pi.read("etc/default/locale") == "LANG=de_DE.UTF-8\n"
    assert "de_DE.UTF-8 UTF-8" in pi.read("etc/locale.gen").splitlines()
    proxy = 'Acquire::http::Proxy "http://192.168.2.1:3142";\n'
    assert pi.read("etc/apt/apt.conf.d/00rpi-image") == proxy
    assert pi.path(f"{STATE}/node").read_bytes() == (pi.card / "node").read_bytes()
    assert stat.S_IMODE(pi.path(f"{STATE}/node.env").stat().st_mode) == 0o600
    assert stat.S_IMODE(pi.path(STATE).stat().st_mode) == 0o700
    _assert_no_secret(pi)
    before, calls = pi.snapshot(), len(pi.calls())
    assert install(pi, shell) == "", "the second run leaves at once"
    assert pi.snapshot() == before
    assert len(pi.calls()) == calls, "not even a remount"


def _assert_no_secret(pi: Pi) -> None:
    secrets = ["hunter22", SETTINGS["USER_PASSWORD_HASH"], SETTINGS["CONSUL_ENCRYPT"], "db8aa120"]
    for path in pi.boot.rglob("*"):
        if path.is_file():
            text = path.read_text()
            assert not [secret for secret in secrets if secret in text], path
    env = pi.card / "node.env"
    run("dash", "-c", f'. "{env}"; [ "$NODE_HOSTNAME" = pi-03 ] && [ -z "$USER_PASSWORD_HASH" ]')
    assert SETTINGS["CONSUL_ENCRYPT"] in pi.read(f"{STATE}/node.env")
    assert "Caf\u00e9" in (pi.card / "wifi" / "wpa_supplicant.conf").read_text()


def test_a_run_without_its_marker_rewrites_nothing(jessie: Pi) -> None:
    """Every step may be repeated: only the marker and the reports are written again."""
    install(jessie)
    before = jessie.snapshot()
    jessie.path(f"{STATE}/installed").unlink()
    said = install(jessie)
    changed = {name for name, entry in jessie.snapshot().items() if before.get(name) != entry}
    reports = {f"{STATE}/installed", f"{STATE}/install_time"}
    reports |= {f"boot/rpi-image/{name}" for name in ("status", "status.json", "install.log")}
    # neither the keys of the wifi nor node.env: the card's have been blanked
    assert changed <= reports | {"var/log/rpi-image.log"}, said


def test_a_changed_configuration_is_applied(wheezy: Pi) -> None:
    install(wheezy)
    wheezy.configure(
        RPI_IMAGE_HASH="facade",
        NODE_HOSTNAME="pi-04",
        DOCKER_OPTS="-H unix:///var/run/docker.sock --label seat=4",
        SHACK_ADDRESS="10.0.0.9",
        APT_PROXY="",
        NETWORK_ADDRESS="",
        KEYBOARD="fr",
    )
    install(wheezy)
    assert wheezy.read(f"{STATE}/installed") == "facade\n"
    assert wheezy.read("etc/hostname") == "pi-04\n"
    assert "pi-03" not in wheezy.read("etc/hosts")
    assert "192.168.2.1\t" not in wheezy.read("etc/hosts")
    assert "10.0.0.9\tshack" in wheezy.read("etc/hosts")
    assert docker_opts(wheezy) == "-H unix:///var/run/docker.sock --label seat=4"
    assert wheezy.read("etc/default/docker").count("DOCKER_OPTS=") == 2, "with the comment's"
    assert not wheezy.path("etc/apt/apt.conf.d/00rpi-image").exists()
    assert 'XKBLAYOUT="fr"' in wheezy.read("etc/default/keyboard")


def test_the_root_is_read_only_again_afterwards(wheezy: Pi, tmp_path: Path) -> None:
    install(wheezy)
    mounts = [call for call in wheezy.calls() if call.startswith("mount")]
    assert mounts == ["mount -n -o remount,rw /", "mount -n -o remount,ro /"]
    running = make_pi(tmp_path / "running", "device-init")
    install(running)
    assert not [call for call in running.calls() if call.startswith("mount")]


# ---- name and identity


def test_hosts_of_an_image_without_hosts(wheezy: Pi) -> None:
    wheezy.path("etc/hosts").unlink()
    install(wheezy)
    assert wheezy.read("etc/hosts").splitlines()[:2] == ["127.0.0.1\tlocalhost", "127.0.1.1\tpi-03"]


def test_a_booted_card_gets_an_identity_of_its_own(jessie: Pi) -> None:
    jessie.write("etc/docker/key.json", "{}")
    jessie.write("var/lib/docker/engine-id", "x")
    jessie.write("etc/ssh/ssh_host_rsa_key", "old", 0o600)
    jessie.write("etc/ssh/ssh_host_rsa_key.pub", "old")
    jessie.write("etc/ssh/sshd_config", "Port 22\n")
    install(jessie)
    assert jessie.read("etc/machine-id") == "0f1e2d3c4b5a69788796a5b4c3d2e1f0\n"
    assert not jessie.path("etc/docker/key.json").exists()
    assert not jessie.path("var/lib/docker/engine-id").exists()
    assert [path.name for path in jessie.path("etc/ssh").iterdir()] == ["sshd_config"]
    assert f"ssh-keygen -A -f {jessie.root}" in jessie.calls()


def test_the_same_node_keeps_its_identity(jessie: Pi) -> None:
    install(jessie)
    jessie.write("etc/docker/key.json", "{}")
    jessie.write("etc/ssh/ssh_host_rsa_key", "mine", 0o600)
    jessie.write("proc/sys/kernel/random/uuid", "ffffffff-ffff-ffff-ffff-ffffffffffff\n")
    jessie.configure(RPI_IMAGE_HASH="other", KEYBOARD="fr")
    install(jessie)
    assert jessie.read(f"{STATE}/installed") == "other\n"
    assert jessie.read("etc/machine-id").startswith("0f1e2d3c")
    assert jessie.path("etc/docker/key.json").exists()
    assert jessie.read("etc/ssh/ssh_host_rsa_key") == "mine"


def test_another_name_on_the_card_is_another_identity(jessie: Pi) -> None:
    install(jessie)
    jessie.write("etc/docker/key.json", "{}")
    jessie.configure(RPI_IMAGE_HASH="other", NODE_HOSTNAME="pi-09")
    install(jessie)
    assert not jessie.path("etc/docker/key.json").exists()


def test_an_image_that_has_no_identity_yet_is_left_to_its_vendor(jessie: Pi) -> None:
    jessie.write("etc/machine-id", "")
    install(jessie)
    assert jessie.read("etc/machine-id") == ""
    assert not [call for call in jessie.calls() if call.startswith("ssh-keygen")]


def test_wheezy_has_its_machine_id_in_dbus_only(wheezy: Pi) -> None:
    install(wheezy)
    assert wheezy.read("var/lib/dbus/machine-id") == "0f1e2d3c4b5a69788796a5b4c3d2e1f0\n"
    assert not wheezy.path("etc/machine-id").exists()


def test_host_keys_that_are_given(jessie: Pi) -> None:
    need("ssh-keygen")
    (jessie.card / "ssh").mkdir()
    key = jessie.card / "ssh" / "ssh_host_ed25519_key"
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "pi-03", "-f", key)
    public = key.with_suffix(".pub").read_text()
    jessie.write("etc/ssh/ssh_host_rsa_key", "old", 0o600)
    install(jessie)
    installed = jessie.path("etc/ssh/ssh_host_ed25519_key")
    assert stat.S_IMODE(installed.stat().st_mode) == 0o600
    assert run("ssh-keygen", "-y", "-f", installed).split()[1] == public.split()[1]
    assert not jessie.path("etc/ssh/ssh_host_rsa_key").exists()
    assert not key.exists(), "the private key has left the boot partition"
    assert jessie.path(f"{STATE}/card/ssh/ssh_host_ed25519_key").exists(), "for the node script"


# ---- docker


def test_the_rest_of_the_docker_file_is_kept(wheezy: Pi) -> None:
    before = wheezy.read("etc/default/docker").splitlines()
    install(wheezy)
    after = wheezy.read("etc/default/docker").splitlines()
    different = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
    assert different == [
        ('DOCKER_OPTS="--storage-driver=overlay -D"', f'DOCKER_OPTS="{SETTINGS["DOCKER_OPTS"]}"')
    ]


@pytest.mark.parametrize(
    ("stock", "lines"),
    [
        ("", 1),
        ("# only a comment\n", 2),
        ("DOCKER_OPTS=a\nDOCKER_OPTS=b\nX=1\n", 2),
        ('DOCKER_OPTS="a \\\n  b \\\n  c"\nX=1\n', 2),
        ("X=1", 2),
        ("export DOCKER_OPTS='x'\nX=1\n", 2),
    ],
)
def test_odd_docker_files(stock: str, lines: int, wheezy: Pi) -> None:
    wheezy.write("etc/default/docker", stock)
    install(wheezy)
    assert len(wheezy.read("etc/default/docker").splitlines()) == lines
    assert docker_opts(wheezy) == SETTINGS["DOCKER_OPTS"]
    file = wheezy.path("etc/default/docker")
    assert run("dash", "-c", f'. "{file}"; printf %s "$X"') == ("1" if "X=1" in stock else "")


@pytest.mark.parametrize(
    "value",
    [
        '--label=a=$HOME --label=b=`id` --label=c=$(id) --label=d="e" --label=f=\\n',
        "--label=a='b' --label=c=\"d\"$e --label=f=\\'",
        "--label=a='b' --label=c=&/|;#!*?[x]~ --label=d=caf\u00e9\U0001f4f6",
    ],
)
@pytest.mark.parametrize("shell", SHELLS)
def test_hostile_docker_options(value: str, shell: str, wheezy: Pi) -> None:
    wheezy.configure(DOCKER_OPTS=f"-D {value}")
    install(wheezy, shell)
    assert docker_opts(wheezy) == f"-D {value}"


def test_a_unit_that_reads_the_file_needs_no_drop_in(jessie: Pi) -> None:
    jessie.write(DROP_IN, "of an earlier configuration")
    install(jessie)
    assert not jessie.path(DROP_IN).exists()


def test_sysvinit_needs_the_unix_socket_and_systemd_serves_it(wheezy: Pi, tmp_path: Path) -> None:
    install(wheezy)
    assert "-H unix:///var/run/docker.sock" in docker_opts(wheezy)
    systemd = make_pi(tmp_path / "systemd", "cloud-init")
    install(systemd)
    assert "unix:" not in docker_opts(systemd)
    assert "-H tcp://0.0.0.0:2375" in docker_opts(systemd)


@pytest.mark.parametrize(
    ("start", "command"),
    [
        (IGNORES_FILE, "/usr/bin/dockerd -H fd:// --containerd=/run/containerd/containerd.sock"),
        (
            "ExecStart=/usr/bin/dockerd --storage-driver overlay2 -H fd:// -D --data-root /data",
            "/usr/bin/dockerd -H fd:// --data-root /data",
        ),
        ("ExecStart=/usr/bin/docker daemon -H fd://", "/usr/bin/docker daemon -H fd://"),
        (
            "ExecStart=/usr/sbin/dockerd \\\n  --host=fd:// \\\n  $EXTRA --label=a=b",
            "/usr/sbin/dockerd --host=fd:// $EXTRA",
        ),
        (
            "EnvironmentFile=/etc/default/docker\nExecStart=/usr/bin/dockerd -H unix:///x/docker.sock",
            "/usr/bin/dockerd",
        ),
    ],
)
def test_the_drop_in_keeps_what_the_unit_needs(start: str, command: str, jessie: Pi) -> None:
    jessie.write("lib/systemd/system/docker.service", UNIT.format(start=start))
    install(jessie)
    lines = jessie.read(DROP_IN).splitlines()
    assert lines[1:] == [
        "[Service]",
        "EnvironmentFile=-/etc/default/docker",
        "ExecStart=",
        f"ExecStart={command} $DOCKER_OPTS",
    ]
    assert ("unix:" in docker_opts(jessie)) == ("fd:" not in command)


def test_the_drop_in_of_hypriot_is_overruled(tmp_path: Path) -> None:
    pi = make_pi(tmp_path, "device-init")
    install(pi)
    assert "ExecStart=/usr/bin/dockerd -H fd:// $DOCKER_OPTS" in pi.read(DROP_IN).splitlines()
    names = sorted(path.name for path in pi.path(DROP_IN).parent.iterdir())
    assert names[-1] == "zz-rpi-image.conf"


def test_systemd_reads_our_units(tmp_path: Path) -> None:
    """Ask systemd itself whether it understands the units and the merged command."""
    need("systemd-analyze")
    pi = make_pi(tmp_path, "cloud-init")
    install(pi)
    pi.write("usr/bin/dockerd", "#!/bin/sh\n", 0o755)
    pi.write("bin/sh", "#!/bin/sh\n", 0o755)
    for name in ("docker.service", "rpi-image-node.service"):
        done = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", f"--root={pi.root}", name],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "SYSTEMD_LOG_LEVEL": "warning"},
        )
        words = done.stdout + done.stderr
        ours = [line for line in words.splitlines() if "zz-rpi-image" in line or name in line]
        assert not [line for line in ours if "not found" not in line], words


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    "daemon",
    [
        {"hosts": ["fd://", "tcp://0.0.0.0:2375"], "log-driver": "json-file"},
        {"log-driver": "x", "storage-driver": "overlay2", "debug": True, "labels": ["a=b,c", "d"]},
        {"insecure-registries": ["h:1"], "registry-mirrors": ["http://x"], "dns": ["1.1.1.1"]},
        {"hosts": []},
        {"log-opts": {"hosts": "nested stays", "max": '}",{'}, "hosts": ['a]}\\"'], "z": 1},
        {"bip": "10.1.0.1/16"},
    ],
)
def test_daemon_json_never_fights_the_flags(
    daemon: dict[str, object], shell: str, wheezy: Pi
) -> None:
    indent = 2 if shell == "dash" else None
    wheezy.write("etc/docker/daemon.json", json.dumps(daemon, indent=indent))
    install(wheezy, shell)
    taken = {
        "hosts",
        "storage-driver",
        "debug",
        "labels",
        "insecure-registries",
        "registry-mirrors",
    }
    left = {name: value for name, value in daemon.items() if name not in taken}
    assert json.loads(wheezy.read("etc/docker/daemon.json")) == left
    if left != daemon:
        kept = json.loads(wheezy.read("etc/docker/daemon.json.before-rpi-image"))
        assert kept == daemon


DOCKER_PACKAGE = """Package: docker.io
Version: 1
Architecture: all
Maintainer: nobody <nobody@example.org>
Description: what Debian's docker.io has that matters here
"""


@pytest.mark.parametrize("shell", SHELLS)
def test_a_docker_that_is_installed_later_meets_no_file_of_ours(shell: str, tmp_path: Path) -> None:
    """Ask dpkg: it refuses a conffile that is there already where no one answers its question."""
    need("dpkg", "dpkg-deb")
    package = tmp_path / "package"
    pi, tree = make_pi(tmp_path / "pi", "bookworm"), Pi(package, package)
    tree.write("DEBIAN/control", DOCKER_PACKAGE)
    tree.write("DEBIAN/conffiles", "/etc/default/docker\n")
    tree.write("etc/default/docker", STOCK_DOCKER)
    tree.write("lib/systemd/system/docker.service", UNIT.format(start=IGNORES_FILE))
    install(pi, shell)
    run("dpkg-deb", "--root-owner-group", "--build", package / "root", tmp_path / "docker.deb")
    for folder in ("info", "updates"):
        (tmp_path / "admin" / folder).mkdir(parents=True)
    for name in ("status", "available"):
        (tmp_path / "admin" / name).touch()
    dpkg = ("dpkg", "--force-not-root", "--force-bad-path", f"--admindir={tmp_path / 'admin'}")
    run(*dpkg, f"--instdir={pi.root}", "-i", tmp_path / "docker.deb", stdin=subprocess.DEVNULL)
    assert pi.read("etc/default/docker") == STOCK_DOCKER
    assert pi.run("install", "docker", shell=shell).returncode == 0
    assert "--label room=b12" in docker_opts(pi)
    assert "DOCKER_TMPDIR" in pi.read("etc/default/docker")
    assert "$DOCKER_OPTS" in pi.read(DROP_IN)


def test_tls_files(jessie: Pi) -> None:
    (jessie.card / "tls").mkdir()
    for name in ("ca", "cert", "key"):
        (jessie.card / "tls" / f"{name}.pem").write_text(f"-----BEGIN {name}-----\n")
    jessie.configure(DOCKER_TLS="1", DOCKER_PORT="2376")
    install(jessie)
    for name in ("ca", "cert", "key"):
        path = jessie.path(f"etc/docker/tls/{name}.pem")
        assert path.read_text() == f"-----BEGIN {name}-----\n"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not (jessie.card / "tls" / "key.pem").exists()
    assert (jessie.card / "tls" / "ca.pem").exists()


def test_tls_without_a_key_is_a_failure(jessie: Pi) -> None:
    jessie.configure(DOCKER_TLS="1")
    install(jessie)
    assert "there is no key.pem" in str(jessie.status()["install"])
    assert not jessie.path(f"{STATE}/installed").exists()


# ---- network


def test_wifi_where_wpa_supplicant_reads_its_file(wheezy: Pi) -> None:
    install(wheezy)
    path = wheezy.path("etc/wpa_supplicant/wpa_supplicant.conf")
    assert path.read_bytes() == WIFI.encode()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert wheezy.read("etc/network/interfaces").count("iface wlan0") == 1


def test_wifi_gets_a_stanza_where_there_is_none(tmp_path: Path) -> None:
    need("ifquery")
    pi = make_pi(tmp_path, "device-init")
    pi.write("etc/network/interfaces.d/wlan0", "iface wlan0 inet dhcp\n    wpa-ssid old\n")
    install(pi)
    stanza = pi.path("etc/network/interfaces.d/wlan0")
    words = run("ifquery", "-i", stanza, "--state-dir", tmp_path, "wlan0")
    assert words == "wpa-conf: /etc/wpa_supplicant/wpa_supplicant.conf\n"


def test_wifi_of_network_manager(tmp_path: Path) -> None:
    pi = make_pi(tmp_path, "bookworm")
    stale = "etc/NetworkManager/system-connections/rpi-image-wifi-9.nmconnection"
    pi.write(stale, "x")
    install(pi)
    path = pi.path("etc/NetworkManager/system-connections/rpi-image-wifi-2.nmconnection")
    assert path.read_bytes() == WIFI_NM.encode()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not pi.path(stale).exists()
    assert not pi.path("etc/wpa_supplicant/wpa_supplicant.conf").exists()
    assert pi.read("var/lib/systemd/rfkill/platform-fe300000.mmcnr:wlan") == "0\n"
    assert pi.read("etc/default/crda") == "REGDOMAIN=DE\n"


def test_wifi_that_netplan_has_is_left_to_it(tmp_path: Path) -> None:
    pi = make_pi(tmp_path, "cloud-init")
    text = 'network:\n  version: 2\n  wifis:\n    wlan0: {dhcp4: true}\n  x: "192.168.2.103/24"\n'
    (pi.boot / "network-config").write_text(text)
    made, own = "etc/netplan/50-cloud-init.yaml", "etc/netplan/10-own.yaml"
    pi.write(made, text)
    pi.write(own, text)
    install(pi)
    assert [stat.S_IMODE(pi.path(p).stat().st_mode) for p in (made, own)] == [0o600, 0o644]
    assert not pi.path("etc/wpa_supplicant").exists()
    assert pi.status()["install"] == "ok"


def test_wifi_that_netplan_has_is_switched_on(tmp_path: Path) -> None:
    """Raspberry Pi OS switches it off, and neither cloud-init nor netplan switches it on."""
    pi = make_pi(tmp_path, "trixie")
    before = pi.read("var/lib/NetworkManager/NetworkManager.state")
    install(pi)
    after = pi.read("var/lib/NetworkManager/NetworkManager.state")
    assert after == before.replace("WirelessEnabled=false", "WirelessEnabled=true")
    assert pi.read("var/lib/systemd/rfkill/platform-fe300000.mmcnr:wlan") == "0\n"
    assert "wifi" in pi.read(f"{STATE}/todo").split()
    assert list(pi.path("etc/NetworkManager/system-connections").iterdir()) == []
    wired = make_pi(tmp_path / "wired", "trixie")
    (wired.card / "wifi" / "wpa_supplicant.conf").unlink()
    install(wired)
    assert wired.read("var/lib/NetworkManager/NetworkManager.state") == before
    assert "wifi" not in wired.read(f"{STATE}/todo").split()


def test_a_static_address_in_interfaces(wheezy: Pi, tmp_path: Path) -> None:
    need("ifquery")
    install(wheezy)
    file = wheezy.path("etc/network/interfaces")
    state = tmp_path / "state"
    state.mkdir()
    asked = ("ifquery", "-i", file, "--state-dir", state)
    assert run(*asked, "eth0").splitlines() == [
        "address: 192.168.2.103",
        "netmask: 255.255.255.0",
        "gateway: 192.168.2.1",
        "broadcast: 192.168.2.255",
    ]
    assert run(*asked, "--list").split() == ["lo", "eth0"]
    assert run(*asked, "--list", "--allow=hotplug").split() == ["wlan0"]
    assert file.read_text().count("iface eth0") == 1
    assert "# the wire" in file.read_text()
    assert "metric 10" not in file.read_text()
    assert wheezy.read("etc/resolv.conf") == "nameserver 192.168.2.1\nnameserver 9.9.9.9\n"


def test_a_static_address_taken_back(wheezy: Pi) -> None:
    install(wheezy)
    wheezy.configure(RPI_IMAGE_HASH="dhcp", NETWORK_ADDRESS="")
    install(wheezy)
    assert wheezy.read("etc/network/interfaces") == STOCK_INTERFACES


def test_interfaces_named_together(wheezy: Pi) -> None:
    wheezy.write(
        "etc/network/interfaces",
        "auto lo eth0 br0\niface lo inet loopback\niface eth0 inet dhcp\n\tmtu 1400\n"
        "iface eth0 inet6 auto\niface eth00 inet dhcp\n",
    )
    install(wheezy)
    lines = wheezy.read("etc/network/interfaces").splitlines()
    assert "auto lo br0" in lines
    assert "iface eth0 inet6 auto" in lines
    assert "iface eth00 inet dhcp" in lines
    assert "iface eth0 inet dhcp" not in lines
    assert "\tmtu 1400" not in lines


def test_a_static_address_in_interfaces_d(tmp_path: Path) -> None:
    pi = make_pi(tmp_path, "device-init")
    install(pi)
    text = pi.read("etc/network/interfaces.d/eth0")
    assert "iface eth0 inet static" in text
    assert "dhcp" not in text
    assert "hotplug" not in text
    assert pi.read("etc/network/interfaces") == "source-directory /etc/network/interfaces.d\n"
    assert "reboot" in pi.read(f"{STATE}/todo").split()


def test_a_static_address_in_dhcpcd(tmp_path: Path) -> None:
    pi = make_pi(tmp_path, "bullseye")
    install(pi)
    marked = f"# rpi-image begin\n{STATIC_DHCPCD}# rpi-image end\n"
    assert pi.read("etc/dhcpcd.conf") == f"hostname\nclientid\n{marked}"
    pi.configure(RPI_IMAGE_HASH="dhcp", NODE_GENERATION="firstrun", NETWORK_ADDRESS="")
    install(pi)
    assert pi.read("etc/dhcpcd.conf") == "hostname\nclientid\n"


def test_a_static_address_in_network_manager(tmp_path: Path) -> None:
    pi = make_pi(tmp_path, "bookworm")
    install(pi)
    name = "etc/NetworkManager/system-connections/rpi-image-wired.nmconnection"
    assert pi.read(name) == STATIC_NM
    assert stat.S_IMODE(pi.path(name).stat().st_mode) == 0o600
    pi.configure(RPI_IMAGE_HASH="dhcp", NODE_GENERATION="firstrun", NETWORK_ADDRESS="")
    install(pi)
    assert not pi.path(name).exists()


def test_a_static_address_that_cloud_init_sets_itself(tmp_path: Path) -> None:
    pi = make_pi(tmp_path, "cloud-init")
    before = pi.read("etc/network/interfaces.d/eth0")
    install(pi)
    assert pi.status()["install"] == "ok"
    assert pi.read("etc/network/interfaces.d/eth0") == before
    assert pi.read("etc/dhcpcd.conf") == "hostname\n", "masked: it would do nothing"
    assert "reboot" not in pi.read(f"{STATE}/todo").split()


# ---- logins


@pytest.mark.parametrize("shell", SHELLS)
def test_a_new_login(shell: str, wheezy: Pi) -> None:
    """Ask pwck and grpck whether the four files are sound."""
    need("pwck", "grpck")
    install(wheezy, shell)
    lines = wheezy.read("etc/passwd").splitlines()
    assert lines[-1] == "ada:x:1001:1001:,,,:/home/ada:/bin/bash"
    shadow = wheezy.read("etc/shadow").splitlines()[-1].split(":")
    assert shadow[:3] == ["ada", SETTINGS["USER_PASSWORD_HASH"], str(BUILT // 86400)]
    assert stat.S_IMODE(wheezy.path("etc/shadow").stat().st_mode) == 0o640
    groups = dict(line.split(":x:") for line in wheezy.read("etc/group").splitlines())
    assert groups["sudo"] == "27:pi,ada"
    assert groups["docker"] == "998:ada"
    assert groups["ada"] == "1001:"
    assert (wheezy.path("home/ada") / ".profile").read_text() == "# profile\n"
    files = {name: wheezy.path(f"etc/{name}") for name in ("passwd", "shadow", "group", "gshadow")}
    words = run("pwck", "-r", files["passwd"], files["shadow"], check=False)
    words += run("grpck", "-r", files["group"], files["gshadow"], check=False)
    host_s = re.compile("directory|program|no group|no user|delete member|no changes")
    assert [line for line in words.splitlines() if not host_s.search(line)] == []
    wheezy.write("etc/gshadow", wheezy.read("etc/gshadow").replace("ada:!::\n", ""))
    assert "no matching group" in run("grpck", "-r", *list(files.values())[2:], check=False)


def test_the_password_of_a_login_that_is_there(wheezy: Pi) -> None:
    wheezy.configure(USER_NAME="pi", USER_GROUPS="sudo video nogroup")
    before = wheezy.read("etc/passwd")
    install(wheezy)
    assert wheezy.read("etc/passwd") == before
    lines = wheezy.read("etc/shadow").splitlines()
    assert len(lines) == 3
    assert lines[-1].startswith(f"pi:{SETTINGS['USER_PASSWORD_HASH']}:")
    assert lines[-1].endswith(":0:99999:7:::")
    assert "no group nogroup" in str(wheezy.status()["error"])
    assert wheezy.status()["install"] == "ok"
    assert KEYS in wheezy.read("home/pi/.ssh/authorized_keys")


def test_a_login_without_a_password_may_use_sudo(wheezy: Pi) -> None:
    wheezy.path("etc/sudoers.d").mkdir()
    wheezy.configure(USER_PASSWORD_HASH="")
    install(wheezy)
    assert wheezy.read("etc/shadow").splitlines()[-1].startswith("ada:!:")
    sudoers = wheezy.path("etc/sudoers.d/090_rpi-image")
    assert sudoers.read_text() == "ada ALL=(ALL) NOPASSWD: ALL\n"
    assert stat.S_IMODE(sudoers.stat().st_mode) == 0o440
    wheezy.path(f"{STATE}/installed").unlink()
    install(wheezy)
    assert sudoers.exists(), "what the scrubbed card no longer says is not changed"
    wheezy.configure(RPI_IMAGE_HASH="with a password")
    install(wheezy)
    assert not sudoers.exists()


def test_a_login_with_a_password_is_asked_for_it_on_a_scrubbed_card_too(wheezy: Pi) -> None:
    wheezy.path("etc/sudoers.d").mkdir()
    install(wheezy)
    wheezy.path(f"{STATE}/installed").unlink()
    install(wheezy)
    assert list(wheezy.path("etc/sudoers.d").iterdir()) == []


def test_keys_of_the_images_own_user_and_keys_that_are_there(wheezy: Pi) -> None:
    wheezy.configure(USER_NAME="", USER_GROUPS="", USER_PASSWORD_HASH="")
    wheezy.write("home/pi/.ssh/authorized_keys", "ssh-rsa OWN pi@home\n", 0o600)
    install(wheezy)
    text = wheezy.read("home/pi/.ssh/authorized_keys")
    assert text.splitlines()[0] == "ssh-rsa OWN pi@home"
    assert KEYS in text
    (wheezy.card / "authorized_keys").write_text("ssh-rsa NEW x\n")
    wheezy.configure(RPI_IMAGE_HASH="2", USER_NAME="", USER_GROUPS="")
    install(wheezy)
    text = wheezy.read("home/pi/.ssh/authorized_keys")
    assert "OWN" in text
    assert "NEW" in text
    assert "ada@shack" not in text
    owner = f"chown 1000:1000 {wheezy.path('home/pi/.ssh')}"
    assert [call for call in wheezy.calls() if call.startswith(owner)]


def test_ssh_is_switched_on_for_its_keys(tmp_path: Path) -> None:
    pi = make_pi(tmp_path, "bookworm")
    install(pi)
    link = pi.path("etc/systemd/system/multi-user.target.wants/ssh.service")
    assert str(link.readlink()) == "/lib/systemd/system/ssh.service"


def test_raspberry_pi_os_renames_its_own_user(tmp_path: Path) -> None:
    pi = make_pi(tmp_path, "bookworm")
    script = f'#!/bin/sh\nsed -i "s/^pi:/$1:/" {pi.root}/etc/passwd {pi.root}/etc/shadow\n'
    pi.write("usr/lib/userconf-pi/userconf", script, 0o755)
    install(pi)
    assert "ada:x:1000:" in pi.read("etc/passwd")
    assert "\npi:" not in pi.read("etc/passwd")
    assert KEYS in pi.read("home/pi/.ssh/authorized_keys")


# ---- the node service


def test_the_service_of_systemd(jessie: Pi) -> None:
    install(jessie)
    unit = jessie.read("etc/systemd/system/rpi-image-node.service")
    assert "ExecStart=/bin/sh /var/lib/rpi-image/node\n" in unit
    wants = jessie.path("etc/systemd/system/multi-user.target.wants/rpi-image-node.service")
    assert wants.resolve() == jessie.path("etc/systemd/system/rpi-image-node.service")
    assert not list(jessie.path("etc/rc2.d").iterdir())


@pytest.mark.parametrize("works", [True, False])
def test_the_service_of_sysvinit(works: bool, wheezy: Pi) -> None:
    link = f"ln -s ../init.d/rpi-image-node {wheezy.root}/etc/rc$n.d/S04rpi-image-node"
    wheezy.fake("update-rc.d", f"for n in 2 3 4 5; do {link}; done" if works else "exit 1")
    install(wheezy)
    assert not wheezy.path("etc/systemd").joinpath("system/rpi-image-node.service").exists()
    for level in "2345":
        links = list(wheezy.path(f"etc/rc{level}.d").iterdir())
        assert [path.name for path in links] == [
            "S04rpi-image-node" if works else "S99rpi-image-node"
        ]
        assert links[0].resolve() == wheezy.path("etc/init.d/rpi-image-node")
    script = wheezy.path("etc/init.d/rpi-image-node")
    assert os.access(script, os.X_OK)
    run("dash", "-n", script)
    targets = wheezy.read("etc/init.d/.depend.start").splitlines()
    assert targets == ["TARGETS = rsyslog docker ssh rc.local rpi-image-node", "ssh: rsyslog"]


@pytest.mark.parametrize("shell", SHELLS)
def test_the_service_of_sysvinit_can_be_restarted(shell: str, wheezy: Pi) -> None:
    need("ps")
    install(wheezy)
    lock, script = wheezy.path("run/rpi-image-node.pid"), wheezy.folder / "init"
    text = wheezy.read("etc/init.d/rpi-image-node")
    text = text.replace("/run/", f"{lock.parent}/").replace("/var/", f"{wheezy.root}/var/")
    script.write_text(text)
    wheezy.write(f"{STATE}/node", f"echo $$ >{lock}\nsleep 50\nexit\n")
    command = ["dash", str(script)] if shell == "dash" else ["busybox", "sh", str(script)]
    pids = [""]
    for word in ("start", "restart"):
        run(*command, word)
        until = time.monotonic() + 20
        while not lock.exists() or lock.read_text().strip() in {"", pids[-1]}:
            assert time.monotonic() < until, "the node script was not started"
            time.sleep(0.05)
        pids.append(lock.read_text().strip())
    run(*command, "stop")
    alive = run("ps", "-o", "stat=", "-p", ",".join(pids[1:]), check=False).split()
    assert [state for state in alive if not state.startswith("Z")] == []


def test_in_a_running_system_the_service_starts_at_once(tmp_path: Path) -> None:
    pi = make_pi(tmp_path, "device-init")
    install(pi)
    assert pi.calls()[-2:] == [
        "systemctl daemon-reload",
        "systemctl restart --no-block rpi-image-node.service",
    ]
    assert {"docker", "wifi", "keyboard", "locale", "time"} <= set(pi.read(f"{STATE}/todo").split())


def test_before_init_and_before_a_reboot_nothing_is_started(jessie: Pi, tmp_path: Path) -> None:
    install(jessie)
    firstrun = make_pi(tmp_path / "firstrun", "bullseye")
    install(firstrun)
    for pi in (jessie, firstrun):
        assert not [call for call in pi.calls() if "rpi-image-node.service" in call]
        assert set(pi.read(f"{STATE}/todo").split()) == {"keyboard", "locale"}


# ---- clock, time server, scripts


def test_a_clock_that_is_behind_is_set_to_the_build_time(wheezy: Pi) -> None:
    wheezy.configure(RPI_IMAGE_BUILT="4000000000")
    wheezy.write("etc/fake-hwclock.data", "2015-04-16 20:15:37\n")
    install(wheezy)
    assert "date -u -s @4000000000" in wheezy.calls()
    assert wheezy.read("etc/fake-hwclock.data") == "2096-10-02 07:06:40\n"


def test_a_clock_that_is_right_is_left_alone(wheezy: Pi) -> None:
    wheezy.write("etc/fake-hwclock.data", "2026-01-01 00:00:00\n")
    install(wheezy)
    assert not [call for call in wheezy.calls() if call.startswith("date")]
    assert wheezy.read("etc/fake-hwclock.data") == "2026-01-01 00:00:00\n"


def test_the_time_server(jessie: Pi) -> None:
    jessie.write("etc/ntp.conf", "server 0.debian.pool.ntp.org\n")
    jessie.path("etc/chrony/sources.d").mkdir(parents=True)
    install(jessie)
    assert "NTP=192.168.2.1" in jessie.read("etc/systemd/timesyncd.conf.d/rpi-image.conf")
    assert "server 192.168.2.1 iburst prefer" in jessie.read("etc/ntp.conf")
    assert "server 192.168.2.1" in jessie.read("etc/chrony/sources.d/rpi-image.sources")
    jessie.configure(RPI_IMAGE_HASH="none", NTP_SERVER="")
    install(jessie)
    assert jessie.read("etc/ntp.conf") == "server 0.debian.pool.ntp.org\n"
    assert not jessie.path("etc/systemd/timesyncd.conf.d/rpi-image.conf").exists()


@pytest.mark.parametrize("shell", SHELLS)
def test_own_scripts_run_once_in_order_and_may_fail(shell: str, wheezy: Pi) -> None:
    scripts = wheezy.card / "first-boot"
    scripts.mkdir()
    log = wheezy.folder / "order"
    (scripts / "10-first").write_text(f"echo one >>{log}\n")
    (scripts / "20 second").write_text(f"#!/bin/sh\necho two >>{log}\necho loud\nexit 7\n")
    (scripts / "30-third").write_text(f"#!/bin/sh\necho three >>{log}\n")
    install(wheezy, shell)
    assert log.read_text().split() == ["one", "two", "three"]
    assert wheezy.status()["install"] == "ok"
    assert wheezy.status()["error"] == "first-boot/20 second ended with 7"
    assert "loud" in (wheezy.card / "install.log").read_text()
    wheezy.path(f"{STATE}/installed").unlink()
    install(wheezy, shell)
    assert len(log.read_text().split()) == 3
    wheezy.configure(RPI_IMAGE_HASH="next")
    install(wheezy, shell)
    assert len(log.read_text().split()) == 6


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("script", ["sleep 50 & sleep 50", "sleep 50 & echo loud"])
def test_own_scripts_are_not_waited_for(script: str, shell: str, wheezy: Pi) -> None:
    """Nor is what they leave running; it keeps what it has open."""
    need("ps")
    text = (wheezy.card / "install").read_text()
    (wheezy.card / "install").write_text(text.replace("limit 300 ", "limit 2 "))
    (wheezy.card / "first-boot").mkdir()
    (wheezy.card / "first-boot" / "own").write_text(f"echo $$ >{wheezy.folder}/pid\n{script}\n")
    begun = time.monotonic()
    said = install(wheezy, shell)
    assert time.monotonic() - begun < 40
    assert wheezy.status()["install"] == "ok", said
    assert wheezy.read(f"{STATE}/installed") == f"{HASH}\n"
    session = (wheezy.folder / "pid").read_text().strip()
    running = run("ps", "-o", "stat=", "-s", session, check=False).split()
    if "loud" in script:
        assert "loud" in (wheezy.card / "install.log").read_text()
        os.killpg(int(session), signal.SIGKILL)
    else:
        assert wheezy.status()["error"] == "first-boot/own ended with 137"
        assert [state for state in running if not state.startswith("Z")] == []


# ---- secrets


def test_what_the_vendor_reads_is_still_there(wheezy: Pi, tmp_path: Path) -> None:
    install(wheezy)
    assert (wheezy.boot / "occidentalis.txt").read_text().splitlines() == [
        "# hostname for your Pi:",
        "hostname=pi-03",
        "# installed".ljust(len("wifi_ssid=Caf\u00e9".encode())),
        "# installed".ljust(len("wifi_password=hunter22")),
    ]
    pi = make_pi(tmp_path / "device-init", "device-init")
    install(pi)
    assert (pi.boot / "device-init.yaml").read_text().splitlines() == [
        'hostname: "pi-03"',
        "#    ",
        "# installed".ljust(len("  interfaces:")),
        "#".ljust(len("    wlan0:")),
        "# installed".ljust(len('      ssid: "Caf\u00e9"'.encode())),
        "# installed".ljust(len('      password: "hunter22"')),
        "runcmd:",
        '  - "sh /boot/rpi-image/install"',
    ]


def test_secrets_stay_until_everything_is_in_place(wheezy: Pi) -> None:
    wheezy.configure(TIMEZONE="Mars/Olympus")
    install(wheezy)
    assert (
        wheezy.status()["install"]
        == "failed: time zone: the time zone Mars/Olympus is not on this image"
    )
    assert "hunter22" in (wheezy.boot / "occidentalis.txt").read_text()
    wheezy.write("usr/share/zoneinfo/Mars/Olympus", "TZif2")
    install(wheezy)
    assert wheezy.status()["install"] == "ok"
    assert "hunter22" not in (wheezy.boot / "occidentalis.txt").read_text()
