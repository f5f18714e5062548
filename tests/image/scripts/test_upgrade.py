"""The upgrade of packages, by apt-get itself, from archives that are there, dead or unreachable.

apt-get has a system of its own: lists, cache and status of packages below the test's folder.
"""

from __future__ import annotations

import functools
import http.server
import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest

from tests.image.scripts.test_node_boot import wait_for
from tests.lib.node_tree import NODE, once, set_env
from tests.lib.pi_tree import HASH, STATE, Pi
from tests.lib.tools import need

if TYPE_CHECKING:
    from collections.abc import Iterator

RELEASE = "Suite: {suite}\nCodename: {name}\nDate: Sat, 28 Nov 2026 00:00:00 UTC\nMD5Sum:\n"
DONE = f"{STATE}/done/{HASH}/upgrade"


@pytest.fixture
def archive(pi: Pi) -> Iterator[str]:
    """Serve an archive with the suite `alive` and no other; yield its address."""
    folder = pi.folder / "archive"
    suite = folder / "dists" / "alive"
    (suite / "main" / "binary-armhf").mkdir(parents=True)
    (suite / "main" / "binary-armhf" / "Packages").write_text("")
    (suite / "Release").write_text(RELEASE.format(suite="stable", name="alive"))
    handler = functools.partial(_Quiet, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture
def upgrading(pi: Pi) -> Pi:
    """Return a node that upgrades its packages, with the real apt-get."""
    (real,) = need("apt-get")
    system = pi.folder / "apt"
    for name in ("lists/partial", "cache/archives/partial", "etc/apt.conf.d", "log"):
        (system / name).mkdir(parents=True)
    (system / "status").write_text("")
    (system / "conf").write_text(
        f'Dir::State "{system}"; Dir::State::status "{system}/status"; Dir::Cache "{system}/cache";'
        f'Dir::Etc "{system}/etc"; Dir::Log "{system}/log"; APT::Architecture "armhf";'
        'APT::Architectures "armhf"; Acquire::Retries "0"; Dir::Bin::dpkg "/bin/true";'
        'Acquire::AllowInsecureRepositories "true"; APT::Sandbox::User "root";\n'
    )
    set_env(pi, UPGRADE="1")
    pi.fake("timedatectl", "echo 'System clock synchronized: yes'")
    pi.fake("apt-get", f'APT_CONFIG={system}/conf exec {real} "$@"')
    return pi


def sources(pi: Pi, *archives: str) -> None:
    """Set the archives that apt-get knows: `ADDRESS SUITE`."""
    lines = "".join(f"deb [trusted=yes] {archive} main\n" for archive in archives)
    (pi.folder / "apt" / "etc" / "sources.list").write_text(lines)


def state_after(pi: Pi) -> str:
    """Make one pass, and return what the status says of the upgrade once its job has ended."""
    pi.path(f"{STATE}/upgrade").unlink(missing_ok=True)
    once(pi)
    wait_for(pi, f"{STATE}/upgrade")
    once(pi)
    return str(pi.status()["upgrade"])


def told_by_the_service(pi: Pi) -> dict[str, object]:
    """Run the service until its job has ended, and return the status that it wrote then.

    A second pass by another process would start the job again and forget the first one's error.
    """
    with pi.running(NODE, RPI_IMAGE_CHECK="1", RPI_IMAGE_SETTLE="0"):
        wait_for(pi, f"{STATE}/upgrade")
        for _ in range(600):
            if pi.status().get("upgrade"):
                break
            time.sleep(0.1)
        return pi.status()


def test_what_the_archive_has_is_taken_once(upgrading: Pi, archive: str) -> None:
    sources(upgrading, f"{archive} alive")
    assert state_after(upgrading) == "done"
    assert upgrading.path(DONE).exists()
    assert upgrading.status()["error"] == ""
    calls = [call for call in upgrading.calls() if call.startswith("apt-get")]
    assert [call.split()[-1] for call in calls] == ["update", "dist-upgrade"]


def test_an_archive_that_is_gone_is_no_error_and_not_asked_again(
    upgrading: Pi, archive: str
) -> None:
    """As raspbian.raspberrypi.org has no buster any more, and the LED blinked for ever."""
    sources(upgrading, f"{archive} dead")
    said = state_after(upgrading)
    assert said.startswith("not possible, no archive of this image is left: E: ")
    assert f"{archive}/dists/dead" in said
    assert upgrading.status()["error"] == ""
    assert not any(call.endswith("dist-upgrade") for call in upgrading.calls())
    asked = len(upgrading.calls())
    once(upgrading)
    assert not any(call.startswith("apt-get") for call in upgrading.calls()[asked:])


def test_a_dead_archive_beside_a_living_one_is_named_and_the_rest_is_upgraded(
    upgrading: Pi, archive: str
) -> None:
    """As the archives of Adafruit and packagecloud in the images of 2015."""
    sources(upgrading, f"{archive} dead", f"{archive} alive")
    said = state_after(upgrading)
    assert said.startswith("done, but an archive is gone: ")
    assert "/dists/dead" in said
    assert upgrading.path(DONE).exists()


def test_without_a_network_it_is_tried_again(upgrading: Pi, archive: str) -> None:
    """Then apt-get update itself succeeds, with a warning."""
    with socket.socket() as taken:  # bound and not listening: connections are refused
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        sources(upgrading, f"http://127.0.0.1:{port} alive")
        told = told_by_the_service(upgrading)
    assert str(told["upgrade"]).startswith("failed: W: Failed to fetch")
    assert "tried again at the next boot" in str(told["error"])
    assert not upgrading.path(DONE).exists()
    sources(upgrading, f"{archive} alive")
    assert state_after(upgrading) == "done"
    assert upgrading.status()["error"] == ""


def test_a_suite_that_was_renamed_is_upgraded(upgrading: Pi, archive: str) -> None:
    """With each release of Debian `stable` becomes `oldstable`, which apt-get refuses unasked."""
    sources(upgrading, f"{archive} alive")
    assert state_after(upgrading) == "done"
    release = upgrading.folder / "archive" / "dists" / "alive" / "Release"
    release.write_text(RELEASE.format(suite="oldstable", name="alive"))
    upgrading.path(DONE).unlink()
    assert state_after(upgrading) == "done"


def test_a_class_without_the_upgrade_says_nothing_of_it(upgrading: Pi, archive: str) -> None:
    sources(upgrading, f"{archive} alive")
    assert state_after(upgrading) == "done"
    set_env(upgrading, UPGRADE="0")
    once(upgrading)
    assert upgrading.status()["upgrade"] == ""
