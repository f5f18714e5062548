"""What the node service does at a boot beside joining: vendors, reboots, clock, scripts, LED."""

from __future__ import annotations

import json
import shutil
import stat
import subprocess
import uuid
from typing import TYPE_CHECKING

import pytest

from tests.lib.node_tree import (
    CURL,
    DOCKER,
    NODE,
    SLEEP,
    docker_calls,
    once,
    run_docker,
    set_env,
    without_docker,
)
from tests.lib.pi_tree import HASH, SHELLS, STATE, Pi, board, give, make_pi

if TYPE_CHECKING:
    from pathlib import Path

MASK = "etc/systemd/system/dhcpcd.service"


def test_what_the_vendor_put_back_is_put_right(pi: Pi) -> None:
    (pi.folder / "name").write_text("black-pearl\n")
    pi.write(f"{STATE}/card/ssh/ssh_host_rsa_key", "given", 0o600)
    pi.write("etc/ssh/ssh_host_rsa_key", "made by the vendor", 0o600)
    pi.write("etc/init.d/ssh", f"#!/bin/sh\necho ssh $1 >>{pi.folder}/calls\n", 0o755)
    once(pi)
    assert "hostname pi-03" in pi.calls()
    assert pi.read("etc/ssh/ssh_host_rsa_key") == "given"
    assert stat.S_IMODE(pi.path("etc/ssh/ssh_host_rsa_key").stat().st_mode) == 0o600
    assert "ssh restart" in pi.calls()


@pytest.mark.parametrize("shell", SHELLS)
def test_what_the_installer_left_to_do(shell: str, pi: Pi) -> None:
    pi.write(f"{STATE}/todo", " keyboard locale docker time ssh wifi\n")
    pi.path("run/systemd/system").mkdir(parents=True)
    pi.path("sys/class/net/wlan0").mkdir(parents=True)
    once(pi, shell)
    done = [
        call
        for call in pi.calls()
        if call.split()[0] in {"systemctl", "locale-gen", "setupcon", "nmcli", "rfkill"}
    ]
    assert done == [
        "rfkill unblock wifi",
        "nmcli connection reload",
        "nmcli radio wifi on",
        "setupcon --save",
        "systemctl daemon-reload",
        "systemctl reset-failed ssh",
        "systemctl restart ssh",
        "systemctl try-restart systemd-timesyncd",
        "systemctl try-restart chrony",
        "systemctl try-restart ntp",
        "systemctl daemon-reload",
        "systemctl reset-failed docker",
        "systemctl restart docker",
        "locale-gen ",
    ]
    assert not pi.path(f"{STATE}/todo").exists()


@pytest.mark.parametrize("route", [True, False])
def test_one_reboot_and_no_second(route: bool, pi: Pi) -> None:
    """It may be what brings the network up: a static address where there is no DHCP."""
    pi.write(f"{STATE}/todo", " docker reboot locale\n")
    pi.path("run/systemd/system").mkdir(parents=True)
    pi.fake("sleep", f'[ "$1" = 60 ] || exec {SLEEP} "$1"')
    if not route:
        pi.fake("ip", "exit 2")
    once(pi)
    once(pi)
    work = [call for call in pi.calls() if call.startswith(("reboot", "systemctl", "locale"))]
    assert work == (["reboot ", "locale-gen "] if route else ["reboot "])


def test_a_reboot_leaves_cloud_init_its_time(pi: Pi) -> None:
    pi.write(f"{STATE}/todo", " reboot\n")
    pi.write("run/cloud-init/enabled", "")
    done = pi.path("run/cloud-init/result.json")
    pi.fake(
        "sleep",
        f'case $1 in\n5) [ "$(grep -c "^sleep 5" "$CALLS")" -lt 3 ] || : >{done} ;;\n'
        f'60) ;;\n*) exec {SLEEP} "$1" ;;\nesac',
    )
    once(pi)
    asked = [call for call in pi.calls() if call.startswith(("sleep 5", "reboot"))]
    assert asked[:4] == ["sleep 5", "sleep 5", "sleep 5", "reboot "]


def test_the_wifi_is_joined_before_there_is_a_route(pi: Pi) -> None:
    pi.write(f"{STATE}/todo", " locale wifi\n")
    pi.path("sys/class/net/wlan0").mkdir(parents=True)
    (pi.folder / "fakes" / "nmcli").unlink()
    pi.fake("ip", "exit 2")
    pi.fake("ifup", f"echo '#!/bin/sh\necho $3 src 10.0.0.7' >{pi.folder}/fakes/ip")
    once(pi)
    assert [call for call in pi.calls() if call.startswith("if")] == [
        "ifdown --force wlan0",
        "ifup wlan0",
    ]
    assert pi.status()["address"] == "10.0.0.7"
    assert pi.calls().index("ifup wlan0") < pi.calls().index("locale-gen ")
    assert not pi.path(f"{STATE}/todo").exists()


@pytest.mark.parametrize(
    ("there", "joins"),
    [
        (("etc/dhcpcd.conf", "sbin/dhcpcd"), "wpa_cli -i wlan0 reconfigure"),
        (("etc/dhcpcd.conf", "usr/sbin/dhcpcd5"), "wpa_cli -i wlan0 reconfigure"),
        (("etc/dhcpcd.conf", "sbin/dhcpcd", MASK), "ifdown --force wlan0, ifup wlan0"),
        (("etc/dhcpcd.conf",), "ifdown --force wlan0, ifup wlan0"),
        (("sbin/dhcpcd",), "ifdown --force wlan0, ifup wlan0"),
    ],
)
def test_the_wifi_is_joined_by_what_runs_it(there: tuple[str, ...], joins: str, pi: Pi) -> None:
    """HypriotOS masks dhcpcd from 1.12.1 on and keeps its file; ifupdown has the wifi there."""
    pi.write(f"{STATE}/todo", " wifi\n")
    pi.path("sys/class/net/wlan0").mkdir(parents=True)
    (pi.folder / "fakes" / "nmcli").unlink()
    for name in there:
        pi.path(name).parent.mkdir(parents=True, exist_ok=True)
        if name == MASK:
            pi.path(name).symlink_to("/dev/null")
        else:
            pi.write(name, "", 0o755)
    once(pi)
    asked = [call for call in pi.calls() if call.startswith(("if", "wpa_cli", "systemctl"))]
    assert ", ".join(asked) == joins


def test_the_clock_is_never_before_the_build(pi: Pi) -> None:
    set_env(pi, RPI_IMAGE_BUILT="4000000000")
    once(pi)
    assert "date -u -s @4000000000" in pi.calls()


def test_own_scripts_run_once_the_network_is_there(pi: Pi) -> None:
    (pi.card / "scripts").mkdir()
    out = pi.folder / "out"
    (pi.card / "scripts" / "1").write_text(f'echo "$NODE_HOSTNAME $NODE_ADDRESS" >>{out}\n')
    (pi.card / "scripts" / "2").write_text(f"#!/bin/sh\necho two >>{out}\nexit 4\n")
    for _ in range(2):
        once(pi)
        wait_for(pi, f"{STATE}/done/{HASH}/scripts/2")
    assert out.read_text().splitlines() == ["pi-03 192.168.2.103", "two"]
    assert pi.read(f"{STATE}/done/{HASH}/scripts/2") == "4\n"
    assert "scripts/2 ended with 4" in pi.read("var/log/rpi-image.log")


def test_the_upgrade_runs_once(pi: Pi) -> None:
    set_env(pi, UPGRADE="1")
    pi.fake("timedatectl", "echo 'System clock synchronized: yes'")
    for _ in range(2):
        once(pi)
        wait_for(pi, f"{STATE}/done/{HASH}/upgrade")
    upgrades = [call for call in pi.calls() if call.startswith(("apt-get", "dpkg"))]
    assert upgrades == [
        "dpkg --configure -a",
        "apt-get -o Acquire::AllowReleaseInfoChange::Suite=true update",
        (
            "apt-get -y -o Dpkg::Options::=--force-confdef "
            "-o Dpkg::Options::=--force-confold dist-upgrade"
        ),
    ]


def wait_for(pi: Pi, name: str) -> None:
    """Wait until the Pi has a file of that name."""
    script = (
        f'n=0; while [ ! -e "{pi.path(name)}" ] && [ $n -lt 100 ]; do sleep 0.1; n=$((n+1)); done'
    )
    subprocess.run(["sh", "-c", script], check=True)
    assert pi.path(name).exists()


def test_a_changed_card_is_installed_first(pi: Pi) -> None:
    pi.configure(RPI_IMAGE_HASH="facade", NODE_HOSTNAME="pi-77")
    (pi.card / "wifi" / "wpa_supplicant.conf").unlink()
    assert once(pi).returncode == 0
    assert pi.read(f"{STATE}/installed") == "facade\n"
    assert "-node pi-77" in docker_calls(pi, "run")[0]
    assert pi.status()["hash"] == "facade"
    assert pi.status()["hostname"] == "pi-77"


def test_a_board_that_is_known_once_its_network_card_is_there(tmp_path: Path) -> None:
    """In early boot it had no MAC, so the node script finds its node, and is that from then on."""
    pi = make_pi(tmp_path, "wheezy")
    pi.configure(NODE_HOSTNAME="unclaimed", CLUSTER="0", DOCKER_OPTS="-D")
    give(pi, "mac-b827eb000002", "pi-02", "b" * 64)
    board(pi, "12345678", mac=None)
    assert pi.run().returncode == 0
    run_docker(pi)
    pi.write("etc/init.d/docker", f"#!/bin/sh\necho docker $1 >>{pi.folder}/calls\n", 0o755)
    board(pi, "12345678", "b8:27:eb:00:00:02")
    assert once(pi).returncode == 0
    assert pi.read("etc/hostname") == (pi.folder / "name").read_text() == "pi-02\n"
    assert pi.status()["hostname"] == "pi-02"
    assert pi.status()["swarm"] == "joined as 192.168.2.103:2375"
    assert "-node pi-02" in docker_calls(pi, "run")[0]
    assert "docker restart" in pi.calls(), "it was started without its options"


def test_an_installation_that_failed_is_tried_again_and_told(pi: Pi) -> None:
    pi.configure(RPI_IMAGE_HASH="facade", TIMEZONE="Mars/Olympus")
    (pi.card / "wifi" / "wpa_supplicant.conf").unlink()
    assert once(pi).returncode == 0, "the cluster does not wait for a time zone"
    assert pi.status()["install"] == (
        "failed: time zone: the time zone Mars/Olympus is not on this image"
    )
    assert pi.status()["error"] == pi.status()["install"]
    assert pi.status()["swarm"] == "joined as 192.168.2.103:2375"


def test_the_led_blinks_on_an_error(pi: Pi) -> None:
    for name in ("trigger", "delay_on", "delay_off"):
        pi.write(f"sys/class/leds/led0/{name}", "")
    (pi.folder / "docker" / "down").touch()
    once(pi)
    assert pi.read("sys/class/leds/led0/trigger") == "timer"
    (pi.folder / "docker" / "down").unlink()
    once(pi)
    assert pi.read("sys/class/leds/led0/trigger") == "mmc0"


def test_swarm_mode(pi: Pi) -> None:
    set_env(pi, SHACK_KIND="swarm-mode")
    assert once(pi, SWARM="inactive").returncode == 0
    assert docker_calls(pi, "swarm") == [
        "docker swarm join --token SWMTKN-1-secret --advertise-addr 192.168.2.103 192.168.2.1:2377"
    ]
    assert once(pi, SWARM="active").returncode == 0
    assert len(docker_calls(pi, "swarm")) == 1
    pi.fake("ip", 'echo "$3 dev eth0 src 192.168.2.200"')
    assert once(pi, SWARM="active").returncode == 0
    assert docker_calls(pi, "swarm")[1] == "docker swarm leave --force"
    assert "--advertise-addr 192.168.2.200" in docker_calls(pi, "swarm")[2]
    assert "SWMTKN" not in pi.read("var/log/rpi-image.log")


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(("tcp", "port"), [("0", 7946), ("1", 2375)])
def test_consul_runs_beside_swarm_mode_with_checked_services(
    tcp: str, port: int, shell: str, pi: Pi
) -> None:
    set_env(pi, SHACK_KIND="swarm-mode", SWARM_IMAGE="", DOCKER_TCP=tcp)
    pi.write("etc/machine-id", "0123456789abcdef0123456789abcdef\n")
    assert once(pi, shell, SWARM="inactive").returncode == 0
    (started,) = docker_calls(pi, "run")
    assert "-config-file /rpi-image/node.json" in started
    config = json.loads(pi.read(f"{STATE}/consul/node.json"))
    assert [
        (service["name"], service["port"], service["check"]["tcp"])
        for service in config["services"]
    ] == [("docker", port, f"127.0.0.1:{port}"), ("ssh", 22, "127.0.0.1:22")]
    assert str(uuid.UUID(config["node_id"])) == config["node_id"]
    assert "0123456789abcdef" not in config["node_id"].replace("-", "")
    assert pi.status()["consul"] == "joined, leader 192.168.2.1:8300"
    assert pi.status()["swarm"] == "joined as 192.168.2.103"


def test_each_of_swarm_mode_and_consul_works_without_the_other(pi: Pi) -> None:
    set_env(pi, SHACK_KIND="swarm-mode")
    shack = CURL.format(folder=pi.folder)
    pi.fake("curl", shack.replace("echo SWMTKN-1-secret", ":"))
    assert once(pi, SWARM="inactive").returncode == 1
    assert pi.status()["error"] == "no swarm token at the shack 192.168.2.1: is it up?"
    assert pi.status()["consul"] == "joined, leader 192.168.2.1:8300"
    pi.fake("curl", shack)
    (pi.folder / "docker" / "refuse").touch()
    pi.fake("ip", 'echo "$3 dev eth0 src 192.168.2.104"')
    assert once(pi, SWARM="inactive").returncode == 1
    assert pi.status()["error"] == "consul could not be started: docker: no space left"
    assert pi.status()["swarm"] == "joined as 192.168.2.104"


@pytest.mark.parametrize("cluster", ["0", "1"])
def test_docker_that_comes_later(cluster: str, tmp_path: Path) -> None:
    """Raspberry Pi OS has none; a script of the user's installs it."""
    pi = make_pi(tmp_path, "bookworm")
    pi.configure(NODE_GENERATION="firstrun", CLUSTER=cluster)
    assert pi.run().returncode == 0
    run_docker(pi)
    path = without_docker(pi)
    once(pi, PATH=path)
    missing = ["there is no docker.service on this image", "docker is not on this image"]
    assert pi.status()["error"] == missing[int(cluster)]
    pi.write("proc/cmdline", "root=/dev/mmcblk0p2\n")
    (pi.folder / "docker" / "down").touch()
    pi.fake("docker", DOCKER.format(folder=pi.folder, sleep=SLEEP))
    once(pi, PATH=path)
    assert not pi.path("etc/default/docker").exists(), "the package has not put its own there yet"
    drop_in = "etc/systemd/system/docker.service.d/zz-rpi-image.conf"
    (pi.folder / "docker" / "down").unlink()
    once(pi, PATH=path)
    assert not pi.path(drop_in).exists(), "this daemon has no unit"
    start = "ExecStart=/usr/bin/dockerd -H fd://"
    pi.write("lib/systemd/system/docker.service", f"[Service]\n{start}\n")
    (pi.folder / "calls").unlink()
    assert once(pi, PATH=path).returncode == 0
    assert f"{start} $DOCKER_OPTS" in pi.read(drop_in)
    assert "systemctl restart docker" in pi.calls()
    assert pi.status()["error"] == ""
    assert not pi.path(f"{STATE}/no_docker").exists()


@pytest.mark.parametrize("systemd", [False, True])
def test_a_pass_by_hand_beside_the_service_says_why_there_is_none(systemd: bool, pi: Pi) -> None:
    if systemd:
        pi.path("run/systemd/system").mkdir(parents=True)
    waiting = ["sh", "-c", "read line", str(pi.path(NODE))]  # without a child that would outlive it
    with subprocess.Popen(waiting, stdin=subprocess.PIPE) as service:
        pi.write("run/rpi-image-node.pid", f"{service.pid}\n")
        by_hand, by_init = once(pi), pi.run(NODE)
        service.kill()
    again = "systemctl restart rpi-image-node" if systemd else "/etc/init.d/rpi-image-node restart"
    assert by_hand.returncode == 1
    assert f"to have it try again: sudo {again}" in by_hand.stderr
    assert (by_init.returncode, by_init.stderr) == (0, "")
    assert pi.calls() == []


def test_a_broken_node_env_is_told(pi: Pi) -> None:
    pi.write(f"{STATE}/node.env", "A='\n")
    done = once(pi)
    assert done.returncode == 1
    assert "node.env is missing or broken" in done.stderr


def test_a_card_that_cannot_be_written_stops_nothing(pi: Pi) -> None:
    """Its folder is a file here, so nothing can be written whoever runs the test."""
    shutil.rmtree(pi.card)
    pi.card.write_text("not a folder")
    assert once(pi).returncode == 0
    status = json.loads(pi.read(f"{STATE}/status.json"))
    assert status["swarm"] == "joined as 192.168.2.103:2375"


def test_the_log_stays_short(pi: Pi) -> None:
    pi.write("var/log/rpi-image.log", "old line\n" * 40000)
    once(pi)
    assert pi.path("var/log/rpi-image.log").stat().st_size < 140000
    assert (pi.card / "node.log").stat().st_size <= 12001
