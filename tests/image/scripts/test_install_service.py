"""Logins, the node service, the clock and own scripts, as installed."""

from __future__ import annotations

import os
import re
import signal
import stat
import time
from typing import TYPE_CHECKING

import pytest

from tests.lib.pi_tree import (
    BUILT,
    HASH,
    KEYS,
    SETTINGS,
    SHELLS,
    STATE,
    Pi,
    install,
    make_pi,
)
from tests.lib.tools import need, run

if TYPE_CHECKING:
    from pathlib import Path


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
