"""The node script against fake commands: order, arguments, what it says, what it leaves alone."""

from __future__ import annotations

import json
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from tests.lib.pi_tree import HASH, SETTINGS, SHELLS, Pi, board, give, make_pi
from tests.lib.tools import need

STATE = "var/lib/rpi-image"
NODE = f"/{STATE}/node"
MASK = "etc/systemd/system/dhcpcd.service"
# The time limits of the scripts sleep, too: a sleep that does not would end everything at once.
(SLEEP,) = need("sleep")

# A docker whose images and containers are files.
DOCKER = """
D={folder}/docker
case $1 in
    version) [ ! -e "$D/down" ] || exit 1; echo 19.03.13 ;;
    inspect)
        case $3 in
            *Entrypoint*) cat "$D/entrypoint" ;;
            *RestartCount*) cat "$D/restarts-$4" 2>/dev/null || echo 0 ;;
            *Status*) [ -e "$D/running-$4" ] && cat "$D/status-$4" 2>/dev/null ;;
            *Running*) [ -e "$D/running-$4" ] && echo true false ;;
            *) [ -e "$D/images" ] && grep -q -x -F "$2" "$D/images" ;;
        esac ;;
    run)
        [ ! -e "$D/refuse" ] || {{ echo "docker: no space left"; exit 125; }}
        : >"$D/running-$4" ;;
    rm) rm -f "$D/running-$3" ;;
    pull)
        read -r left <"$D/failures"
        if [ "$left" -gt 0 ]; then
            echo $((left - 1)) >"$D/failures"; echo "net/http: timeout" >&2; exit 1
        fi
        echo "$2" >>"$D/images" ;;
    tag) echo "$3" >>"$D/images" ;;
    load) echo "loaded/image:1" >>"$D/images" ;;
    info) cat "$D/swarm" 2>/dev/null || echo "$SWARM" ;;
    swarm) [ "$2" != join ] || echo active >"$D/swarm" ;;
    kill) [ -e "$D/deaf" ] || rm -f "$D/running-$3" ;;
    logs) echo "first line"; echo "its last words" ;;
    wait) [ ! -e "$D/dies" ] || {{ rm "$D/dies" "$D/running-$2"; exit 0; }}; exec {sleep} 30 ;;
esac
"""
CURL = """
case $* in
    *v1/kv/swarm/*) [ -e {folder}/unregistered ] || echo registered ;;
    *status/leader*) cat {folder}/leader ;;
    *swarm/worker*) echo SWMTKN-1-secret ;;
esac
"""


@pytest.fixture
def pi(tmp_path: Path) -> Pi:
    """Return a node whose installer has run, with docker, images and a leader."""
    pi = make_pi(tmp_path, "wheezy")
    assert pi.run().returncode == 0
    run_docker(pi)
    return pi


def run_docker(pi: Pi) -> None:
    """Let docker, the leader and the name of an installed Pi answer."""
    (pi.folder / "calls").unlink()
    docker = pi.folder / "docker"
    docker.mkdir()
    (docker / "images").write_text(f"{SETTINGS['CONSUL_IMAGE']}\n{SETTINGS['SWARM_IMAGE']}\n")
    (docker / "entrypoint").write_text("[consul agent -config-dir=/config]\n")
    (docker / "failures").write_text("0\n")
    (pi.folder / "leader").write_text('"192.168.2.1:8300"')
    pi.fake("docker", DOCKER.format(folder=pi.folder, sleep=SLEEP))
    pi.fake("curl", CURL.format(folder=pi.folder))
    pi.fake("hostname", f'[ -n "$1" ] && echo "$1" >{pi.folder}/name; cat {pi.folder}/name')
    (pi.folder / "name").write_text(pi.read("etc/hostname"))
    pi.path(f"{STATE}/todo").unlink(missing_ok=True)
    pi.write(f"{STATE}/vendor_done", f"{HASH}\n")


def set_env(pi: Pi, **settings: str) -> None:
    """Change settings of the installed node."""
    path = pi.path(f"{STATE}/node.env")
    path.write_text(path.read_text() + "".join(f"{n}='{v}'\n" for n, v in settings.items()))


def once(pi: Pi, shell: str = "dash", **environment: str) -> subprocess.CompletedProcess[str]:
    """Make one pass."""
    quick = {"RPI_IMAGE_PAUSE": "0", "RPI_IMAGE_WAIT": "0", "RPI_IMAGE_SETTLE": "0"}
    done = pi.run(NODE, "once", shell=shell, **quick | environment)
    assert pi.leftovers() == []
    return done


def docker_calls(pi: Pi, verb: str) -> list[str]:
    """List the calls of one docker command."""
    return [call for call in pi.calls() if call.startswith(f"docker {verb}")]


@pytest.mark.parametrize("shell", SHELLS)
def test_a_pass(shell: str, pi: Pi) -> None:
    done = once(pi, shell)
    assert done.returncode == 0, done.stderr
    runs = docker_calls(pi, "run")
    consul = "docker run -d --name consul --net=host --restart=on-failure:10"
    assert runs[0].startswith(f"{consul} -v {pi.root}/{STATE}/consul:/rpi-image:ro ")
    assert runs[0].endswith(
        "dduportal/arm-consul:0.5.0 -node pi-03 -advertise 192.168.2.103 -client 0.0.0.0 "
        "-retry-join 192.168.2.1 -retry-interval 15s -config-file /rpi-image/node.json"
    )
    assert runs[1:] == [
        (
            "docker run -d --name swarm --restart=on-failure:10 dduportal/arm-swarm:0.2.0 join "
            "--addr 192.168.2.103:2375 consul://192.168.2.103:8500/swarm"
        )
    ]
    order = [call.split()[0:2] for call in pi.calls() if call.startswith(("ip", "docker", "curl"))]
    firsts = [word for n, word in enumerate(order) if word not in order[:n]]
    assert firsts[:4] == [
        ["ip", "route"],
        ["docker", "version"],
        ["docker", "inspect"],
        ["docker", "rm"],
    ]
    key = SETTINGS["CONSUL_ENCRYPT"]
    config = pi.path(f"{STATE}/consul/node.json")
    assert json.loads(config.read_text()) == {"encrypt": key, "ports": {"dns": -1}}
    assert not [call for call in pi.calls() if key in call]
    assert stat.S_IMODE(pi.path(STATE).stat().st_mode) == 0o700
    assert pi.status() == {
        "hostname": "pi-03",
        "hash": HASH,
        "installed": pi.status()["installed"],
        "install": "ok",
        "booted": pi.status()["booted"],
        "address": "192.168.2.103",
        "arch": SETTINGS["NODE_MACHINES"],
        "docker": "19.03.13",
        "consul": "joined, leader 192.168.2.1:8300",
        "swarm": "joined as 192.168.2.103:2375",
        "error": "",
        "updated": pi.status()["updated"],
    }
    assert str(pi.status()["installed"]).endswith("Z")


def test_a_second_pass_writes_nothing_onto_the_card(pi: Pi) -> None:
    pi.fake("date", 'case $* in *%Y*) echo 2026-11-22T09:00:00Z ;; *) exec /bin/date "$@" ;; esac')
    once(pi)
    before = pi.snapshot()
    (pi.folder / "calls").unlink()
    once(pi)
    after = {name for name, entry in pi.snapshot().items() if before.get(name) != entry}
    assert not docker_calls(pi, "run")
    assert after <= {"var/log/rpi-image.log", f"{STATE}/status.json"} | {
        f"boot/rpi-image/{name}" for name in ("status", "status.json", "node.log")
    } | {f"run/rpi-image-{name}.pid" for name in ("node", "jobs")}
    # within one run of the script the card is written on a change only
    script = pi.path(NODE).read_text().replace('main "$@"', "")
    head = 'booted=x; boot=$root/boot; . "$state/node.env"; write_status; '
    card = '"$boot/rpi-image/status.json"'
    text = f"{script}\n{head}touch -d @5 {card}; write_status; date -r {card} +%s\n"
    text += f'error=other; write_status; [ "$(date -r {card} +%s)" -gt 5 ] && echo changed\n'
    pi.write(f"{STATE}/try", text)
    assert pi.run(f"/{STATE}/try").stdout.split() == ["5", "changed"]


@pytest.mark.parametrize(
    ("entrypoint", "words"),
    [
        ("[consul agent -config-dir=/config]", "IMAGE -node"),
        ("[docker-entrypoint.sh]", "IMAGE agent -node"),
        ("[/bin/consul]", "IMAGE agent -node"),
        ("[]", "IMAGE consul agent -data-dir /tmp/consul -node"),
        ("<no value>", "IMAGE consul agent -data-dir /tmp/consul -node"),
        ("[/recorder]", "IMAGE -node"),
    ],
)
def test_images_with_other_entrypoints(entrypoint: str, words: str, pi: Pi) -> None:
    (pi.folder / "docker" / "entrypoint").write_text(f"{entrypoint}\n")
    once(pi)
    assert words.replace("IMAGE", SETTINGS["CONSUL_IMAGE"]) in docker_calls(pi, "run")[0]


@pytest.mark.parametrize("shell", SHELLS)
def test_a_pull_is_tried_three_times_and_the_shack_asked_first(shell: str, pi: Pi) -> None:
    (pi.folder / "docker" / "images").write_text(f"{SETTINGS['SWARM_IMAGE']}\n")
    (pi.folder / "docker" / "failures").write_text("2\n")
    assert once(pi, shell).returncode == 0
    name = SETTINGS["CONSUL_IMAGE"]
    assert docker_calls(pi, "pull") == [
        f"docker pull 192.168.2.1:5000/{name}",
        f"docker pull {name}",
        f"docker pull 192.168.2.1:5000/{name}",
    ]
    assert docker_calls(pi, "tag") == [f"docker tag 192.168.2.1:5000/{name} {name}"]


def test_a_pull_that_goes_on_failing_is_told(pi: Pi) -> None:
    (pi.folder / "docker" / "images").write_text("")
    (pi.folder / "docker" / "failures").write_text("99\n")
    assert once(pi).returncode == 1
    reason = "the image dduportal/arm-consul:0.5.0 could not be pulled: net/http: timeout"
    assert pi.status()["error"] == reason
    assert f"ERROR: {reason}" in (pi.card / "status").read_text()
    assert len(docker_calls(pi, "pull")) == 6


@pytest.mark.parametrize("shell", SHELLS)
def test_an_image_with_a_registry_of_its_own_is_asked_of_the_shack_too(shell: str, pi: Pi) -> None:
    """`make preload` put it there under its whole name."""
    set_env(pi, CLUSTER_IMAGES="ghcr.io/acme/app:1 app:2")
    once(pi, shell)
    assert docker_calls(pi, "pull") == [
        "docker pull 192.168.2.1:5000/ghcr.io/acme/app:1",
        "docker pull 192.168.2.1:5000/app:2",
    ]
    assert docker_calls(pi, "tag") == [
        "docker tag 192.168.2.1:5000/ghcr.io/acme/app:1 ghcr.io/acme/app:1",
        "docker tag 192.168.2.1:5000/app:2 app:2",
    ]


@pytest.mark.parametrize("host", ["registry.example:5000", SETTINGS["REGISTRY_ADDRESS"]])
def test_an_image_of_a_host_with_a_port_is_not_asked_of_the_shack(host: str, pi: Pi) -> None:
    set_env(pi, CLUSTER_IMAGES=f"{host}/a/b:1")
    once(pi)
    assert docker_calls(pi, "pull") == [f"docker pull {host}/a/b:1"]


def test_tarballs_of_the_card_are_loaded_once(pi: Pi) -> None:
    (pi.card / "images").mkdir()
    tar = pi.card / "images" / "a b.tar.gz"
    tar.write_bytes(b"x" * 100)
    once(pi)
    once(pi)
    assert docker_calls(pi, "load") == [f"docker load -i {tar}"]
    tar.write_bytes(b"y" * 101)
    once(pi)
    assert len(docker_calls(pi, "load")) == 2


def test_no_leader(pi: Pi) -> None:
    (pi.folder / "leader").write_text('""')
    assert once(pi).returncode == 1
    assert pi.status()["consul"] == "started, no leader yet"
    assert pi.status()["error"] == "consul sees no leader: is the shack 192.168.2.1 up?"
    assert [call for call in docker_calls(pi, "run") if "swarm" in call] == []


def test_no_route(pi: Pi) -> None:
    pi.fake("ip", "echo 'RTNETLINK answers: Network is unreachable' >&2; exit 2")
    assert once(pi).returncode == 1
    assert pi.status()["error"] == "no network: no route to the shack 192.168.2.1"
    assert not docker_calls(pi, "")


def test_docker_that_is_down(pi: Pi) -> None:
    (pi.folder / "docker" / "down").touch()
    pi.write("var/log/docker.log", "Error starting daemon: graphdriver\n")
    assert once(pi).returncode == 1
    assert pi.status()["error"] == "docker does not answer: Error starting daemon: graphdriver"


@pytest.mark.parametrize("systemd", [False, True])
def test_docker_that_failed_to_start_is_started_again(pi: Pi, systemd: bool) -> None:
    down = pi.folder / "docker" / "down"
    down.touch()
    start = f"echo $0 $* >>{pi.folder}/calls; rm -f {down}"
    if systemd:
        pi.path("run/systemd/system").mkdir(parents=True)
        pi.fake("systemctl", f'[ "$1" != start ] || rm -f {down}')
    else:
        pi.write("etc/init.d/docker", f"#!/bin/sh\n{start}\n", 0o755)
    assert once(pi).returncode == 1
    assert str(pi.status()["error"]).startswith("docker does not answer")
    assert [call for call in pi.calls() if call.endswith("start --no-block docker")] == (
        ["systemctl start --no-block docker"] if systemd else []
    )
    assert once(pi).returncode == 0
    assert pi.status()["docker"] == "19.03.13"


def test_a_container_that_does_not_start(pi: Pi) -> None:
    (pi.folder / "docker" / "refuse").touch()
    assert once(pi).returncode == 1
    assert pi.status()["error"] == "consul could not be started: docker: no space left"


@pytest.mark.parametrize("shell", SHELLS)
def test_an_old_address_is_forgotten(shell: str, pi: Pi) -> None:
    pi.write(f"{STATE}/last_address", "192.168.2.50:2375\n192.168.2.103:2375\n")
    once(pi, shell)
    deletes = [call for call in pi.calls() if "DELETE" in call]
    assert [call.split("8500")[1] for call in deletes] == ["/v1/kv/swarm/192.168.2.50:2375"]
    assert pi.read(f"{STATE}/last_address") == "192.168.2.103:2375\n"


def test_an_old_address_that_cannot_be_deleted_is_kept_in_mind(pi: Pi) -> None:
    pi.write(f"{STATE}/last_address", "192.168.2.50:2375\n")
    pi.fake("curl", f"case $* in *DELETE*) exit 7 ;; *) cat {pi.folder}/leader ;; esac")
    once(pi)
    assert pi.read(f"{STATE}/last_address") == "192.168.2.50:2375\n192.168.2.103:2375\n"


@pytest.mark.parametrize(
    ("version", "flag"),
    [("0.1.0", "--addr"), ("0.2.0", "--addr"), ("0.3.0", "--advertise"), ("1.2.9", "--advertise")],
)
def test_the_flag_of_the_version(version: str, flag: str, pi: Pi) -> None:
    set_env(pi, SWARM_VERSION=version)
    once(pi)
    assert f"join {flag} 192.168.2.103:2375" in docker_calls(pi, "run")[1]


def test_ipv6(pi: Pi) -> None:
    set_env(pi, SHACK_ADDRESS="fd00::1")
    pi.fake("ip", 'echo "$3 from :: dev eth0 src fd00::103 metric 1"')
    once(pi)
    runs = docker_calls(pi, "run")
    assert "-advertise fd00::103" in runs[0]
    assert runs[1].endswith("join --addr [fd00::103]:2375 consul://[fd00::103]:8500/swarm")


def test_a_daemon_without_tcp_is_not_announced(pi: Pi) -> None:
    set_env(pi, DOCKER_TCP="0")
    assert once(pi).returncode == 0
    assert len(docker_calls(pi, "run")) == 1
    assert pi.status()["swarm"] == "not joined: docker listens on no TCP port"


def test_no_cluster(pi: Pi) -> None:
    set_env(pi, CLUSTER="0")
    assert once(pi).returncode == 0
    assert not docker_calls(pi, "run")
    assert pi.status()["docker"] == "19.03.13"


def test_a_card_for_another_machine_says_so(pi: Pi) -> None:
    set_env(pi, NODE_MACHINES="armv6l", NODE_ARCH="armv6")
    assert once(pi).returncode == 0, "it still joins"
    assert str(pi.status()["error"]).startswith("this card is for armv6 (armv6l), but this Pi is ")


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
        "systemctl restart ssh",
        "systemctl try-restart systemd-timesyncd",
        "systemctl try-restart chrony",
        "systemctl try-restart ntp",
        "systemctl daemon-reload",
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
        _wait(pi, f"{STATE}/done/{HASH}/scripts/2")
    assert out.read_text().splitlines() == ["pi-03 192.168.2.103", "two"]
    assert pi.read(f"{STATE}/done/{HASH}/scripts/2") == "4\n"
    assert "scripts/2 ended with 4" in pi.read("var/log/rpi-image.log")


def test_the_upgrade_runs_once(pi: Pi) -> None:
    set_env(pi, UPGRADE="1")
    pi.fake("timedatectl", "echo 'System clock synchronized: yes'")
    for _ in range(2):
        once(pi)
        _wait(pi, f"{STATE}/done/{HASH}/upgrade")
    upgrades = [call for call in pi.calls() if call.startswith(("apt-get", "dpkg"))]
    assert upgrades == [
        "dpkg --configure -a",
        "apt-get update",
        (
            "apt-get -y -o Dpkg::Options::=--force-confdef "
            "-o Dpkg::Options::=--force-confold dist-upgrade"
        ),
    ]


def _wait(pi: Pi, name: str) -> None:
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


@pytest.mark.parametrize("cluster", ["0", "1"])
def test_docker_that_comes_later(cluster: str, tmp_path: Path) -> None:
    """Raspberry Pi OS has none; a script of the user's installs it."""
    pi = make_pi(tmp_path, "bookworm")
    pi.configure(NODE_GENERATION="firstrun", CLUSTER=cluster)
    assert pi.run().returncode == 0
    run_docker(pi)
    (pi.folder / "fakes" / "docker").unlink()
    tools = pi.folder / "tools"
    tools.mkdir()
    for folder in ("/usr/bin", "/bin", "/usr/sbin"):
        for tool in Path(folder).iterdir():
            if tool.name not in {"docker", "dockerd"} and not (tools / tool.name).exists():
                (tools / tool.name).symlink_to(tool)
    path = f"{pi.folder}/fakes:{tools}"
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
    with subprocess.Popen(["sh", "-c", "sleep 50; exit", str(pi.path(NODE))]) as service:
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
