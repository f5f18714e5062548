"""Sources of old releases are moved to where their archive is now."""

from __future__ import annotations

import time

import pytest

from tests.lib.node_tree import once, set_env
from tests.lib.pi_tree import SHELLS, Pi

LISTS = "etc/apt/sources.list.d"
OURS = "deb http://raspbian.raspberrypi.org/raspbian/ jessie main contrib\n"
MOVED = (
    "# rpi-image: this archive has moved: deb http://raspbian.raspberrypi.org/raspbian/ jessie"
    " main contrib\ndeb http://legacy.raspbian.org/raspbian/ jessie main contrib\n"
)


def upgraded(pi: Pi, release: str, shell: str = "dash") -> None:
    """Let the node make its upgrade with an apt-get that only notes how it was called."""
    pi.write("etc/os-release", release)
    pi.fake("apt-get", "exit 1")
    pi.fake("timedatectl", "echo 'System clock synchronized: yes'")
    set_env(pi, UPGRADE="1")
    once(pi, shell)
    until = time.monotonic() + 60
    while not [call for call in pi.calls() if call.startswith("apt-get")]:
        assert time.monotonic() < until
        time.sleep(0.1)


@pytest.mark.parametrize("shell", SHELLS)
def test_the_sources_of_an_old_release_are_moved_once(shell: str, pi: Pi) -> None:
    third = "deb http://apt.adafruit.com/raspbian/ jessie main\n"
    pi.write("etc/apt/sources.list", f"# comment\n{OURS}#{OURS}")
    pi.write(f"{LISTS}/adafruit.list", third)
    pi.write(f"{LISTS}/raspi.list", "deb http://archive.raspberrypi.org/debian/ jessie main\n")
    for _ in range(2):
        upgraded(pi, 'VERSION="8 (jessie)"\n', shell)
        assert pi.read("etc/apt/sources.list") == f"# comment\n{MOVED}#{OURS}"
        assert pi.read(f"{LISTS}/adafruit.list") == f"# rpi-image: this archive is gone: {third}"
        assert pi.read(f"{LISTS}/raspi.list").startswith("deb http://archive.raspberrypi.org/")
    (call, *_) = [call for call in pi.calls() if call.startswith("apt-get")]
    assert "Acquire::Check-Valid-Until=false" in call


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "deb http://mirrordirector.raspbian.org/raspbian/ buster main rpi",
            "deb http://legacy.raspbian.org/raspbian/ buster main rpi",
        ),
        (
            "deb [arch=armhf] https://deb.debian.org/debian buster main",
            "deb [arch=armhf] http://archive.debian.org/debian buster main",
        ),
        (
            "deb-src http://ftp.de.debian.org/debian/ buster main",
            "deb-src http://archive.debian.org/debian/ buster main",
        ),
        (
            "deb http://security.debian.org/ buster/updates main",
            "deb http://archive.debian.org/debian-security/ buster/updates main",
        ),
        (
            "deb http://security.debian.org/debian-security buster/updates main",
            "deb http://archive.debian.org/debian-security/ buster/updates main",
        ),
    ],
)
def test_the_places_of_today(line: str, expected: str, pi: Pi) -> None:
    pi.write("etc/apt/sources.list", line)
    upgraded(pi, "VERSION_CODENAME=buster\n")
    found = pi.read("etc/apt/sources.list")
    assert found == f"# rpi-image: this archive has moved: {line}\n{expected}\n"


def test_a_release_whose_archive_is_there_keeps_its_sources(pi: Pi) -> None:
    pi.write("etc/apt/sources.list", OURS.replace("jessie", "bookworm"))
    upgraded(pi, "VERSION_CODENAME=bookworm\n")
    assert pi.read("etc/apt/sources.list") == OURS.replace("jessie", "bookworm")
    (call, *_) = [call for call in pi.calls() if call.startswith("apt-get")]
    assert "Check-Valid-Until" not in call
