"""The installer, run by dash and by busybox sh on the root trees of seven kinds of image."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import pytest

from tests.lib.pi_tree import (
    HASH,
    KEYS,
    KINDS,
    SETTINGS,
    SHELLS,
    STATE,
    WITHOUT_DOCKER,
    Pi,
    docker_opts,
    install,
    make_pi,
)
from tests.lib.tools import need, run

if TYPE_CHECKING:
    from pathlib import Path

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
