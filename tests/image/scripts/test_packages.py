"""Packages of the settings, by apt-get and dpkg themselves, from an archive of the test."""

from __future__ import annotations

import functools
import gzip
import hashlib
import socket
import threading
import time
from http.server import ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from tests.image.scripts.test_upgrade import RELEASE, _Quiet
from tests.lib.node_tree import once, set_env, without_docker
from tests.lib.pi_tree import HASH, STATE, Pi
from tests.lib.tools import need, run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DONE = f"{STATE}/done/{HASH}/packages"
VERSIONS = {"docker.io": ("26.1.5+dfsg1-9", "20.10.24+dfsg1-1"), "git": ("1:2.47",)}


def make_deb(folder: Path, name: str, version: str) -> str:
    """Make a package and return its stanza for the index."""
    need("dpkg-deb")
    tree = folder / f"{name}-{version.replace(':', '_')}"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "usr/share").mkdir(parents=True)
    (tree / "usr/share" / name).write_text(version)
    control = (
        f"Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: a <a@b.c>\n"
        "Description: a package\n"
    )
    (tree / "DEBIAN" / "control").write_text(control)
    deb = tree.with_suffix(f"{tree.suffix}.deb")
    run("dpkg-deb", "--build", "--root-owner-group", tree, deb)
    data = deb.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    return f"{control}Filename: {deb.name}\nSize: {len(data)}\nSHA256: {digest}\n\n"


@pytest.fixture
def archive(pi: Pi) -> Iterator[str]:
    folder = pi.folder / "archive"
    index = folder / "dists" / "alive" / "main" / "binary-armhf"
    index.mkdir(parents=True)
    text = "".join(
        make_deb(folder, name, each) for name, versions in VERSIONS.items() for each in versions
    )
    (index / "Packages.gz").write_bytes(gzip.compress(text.encode()))
    (folder / "dists" / "alive" / "Release").write_text(
        RELEASE.format(suite="stable", name="alive")
    )
    handler = functools.partial(_Quiet, directory=folder)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture
def installing(pi: Pi) -> Pi:
    """Return a node with the real apt-get and dpkg, which have a root of their own."""
    apt, dpkg = need("apt-get", "dpkg")
    system, tree = pi.folder / "apt", pi.folder / "tree"
    for name in ("lists/partial", "cache/archives/partial", "etc/apt.conf.d", "log"):
        (system / name).mkdir(parents=True)
    for name in ("info", "updates", "triggers"):
        (tree / "var/lib/dpkg" / name).mkdir(parents=True)
    (tree / "var/lib/dpkg/status").touch()
    wrapper = pi.folder / "real-dpkg"
    wrapper.write_text(
        f'#!/bin/sh\nexec {dpkg} --root={tree} --log=/dev/null --force-not-root "$@"\n'
    )
    wrapper.chmod(0o755)
    (system / "conf").write_text(
        f'Dir::State "{system}"; Dir::State::status "{tree}/var/lib/dpkg/status";'
        f'Dir::Cache "{system}/cache"; Dir::Etc "{system}/etc"; Dir::Log "{system}/log";'
        f'Dir::Bin::dpkg "{wrapper}"; APT::Architecture "armhf"; APT::Architectures "armhf";'
        'Acquire::Retries "0"; Acquire::AllowInsecureRepositories "true";'
        'APT::Sandbox::User "root";\n'
    )
    pi.fake("timedatectl", "echo 'System clock synchronized: yes'")
    pi.fake("apt-get", f'APT_CONFIG={system}/conf exec {apt} "$@"')
    return pi


def sources(pi: Pi, address: str) -> None:
    lines = f"deb [trusted=yes] {address} alive main\n"
    (pi.folder / "apt" / "etc" / "sources.list").write_text(lines)


def state_after(pi: Pi, shell: str = "dash", **environment: str) -> str:
    """Make one pass, and return the state that its job left.

    A second pass would start a job that has failed again.
    """
    pi.path(f"{STATE}/packages").unlink(missing_ok=True)
    once(pi, shell, **environment)
    for _ in range(300):
        if ended(pi):
            break
        time.sleep(0.1)
    assert ended(pi), pi.read("var/log/rpi-image.log")
    return pi.read(f"{STATE}/packages").rstrip("\n")


def ended(pi: Pi) -> bool:
    path = pi.path(f"{STATE}/packages")
    return path.exists() and not path.read_text().startswith("installing")


def installed(pi: Pi) -> dict[str, str]:
    folder = pi.folder / "tree/usr/share"
    return {path.name: path.read_text() for path in folder.iterdir()} if folder.exists() else {}


@pytest.mark.parametrize("shell", ["dash", "busybox"])
def test_docker_and_packages_are_installed_once(installing: Pi, archive: str, shell: str) -> None:
    sources(installing, archive)
    set_env(installing, PACKAGES="git", DOCKER_INSTALL="always")
    assert state_after(installing, shell) == "done"
    assert installed(installing) == {"docker.io": "26.1.5+dfsg1-9", "git": "1:2.47"}
    assert installing.path(DONE).exists()
    once(installing, shell)
    assert (installing.status()["packages"], installing.status()["error"]) == ("done", "")
    before = len(installing.calls())
    once(installing, shell)
    assert not [c for c in installing.calls()[before:] if c.startswith(("apt-get", "dpkg"))]


@pytest.mark.parametrize(
    ("install", "version", "there", "expected"),
    [
        ("auto", "", True, {}),
        ("auto", "", False, {"docker.io": "26.1.5+dfsg1-9"}),
        ("auto", "20.10", False, {"docker.io": "20.10.24+dfsg1-1"}),
        ("never", "", False, {}),
        ("always", "20.10.24", True, {"docker.io": "20.10.24+dfsg1-1"}),
    ],
)
def test_docker_comes_where_it_is_missing(
    installing: Pi, archive: str, install: str, version: str, *, there: bool, expected: object
) -> None:
    sources(installing, archive)
    path = {} if there else {"PATH": without_docker(installing)}
    set_env(installing, DOCKER_INSTALL=install, DOCKER_VERSION=version)
    if expected:
        assert state_after(installing, **path) == "done"
    else:
        once(installing, **path)
        assert not [call for call in installing.calls() if call.startswith("apt-get")]
    assert installed(installing) == expected


def test_a_package_that_is_not_there_is_named(installing: Pi, archive: str) -> None:
    sources(installing, archive)
    set_env(installing, PACKAGES="git nowhere")
    assert state_after(installing) == "failed: E: Unable to locate package nowhere"
    assert not installing.path(DONE).exists()
    assert installed(installing) == {}


def test_a_package_with_another_digest_is_not_installed(installing: Pi, archive: str) -> None:
    sources(installing, archive)
    (deb,) = (installing.folder / "archive").glob("git-*.deb")
    deb.write_bytes(deb.read_bytes()[:-1] + b"x")
    set_env(installing, PACKAGES="git")
    assert state_after(installing).startswith("failed: E: ")
    assert installed(installing) == {}


def test_without_a_network_it_is_tried_again_at_the_next_boot(installing: Pi, archive: str) -> None:
    with socket.socket() as taken:  # bound and not listening: connections are refused
        taken.bind(("127.0.0.1", 0))
        sources(installing, f"http://127.0.0.1:{taken.getsockname()[1]}")
        set_env(installing, PACKAGES="git")
        assert state_after(installing).startswith("failed: W: Failed to fetch")
        updates = [c for c in installing.calls() if c.startswith("apt-get") and "update" in c]
        assert len(updates) >= 5
    assert "packages are missing: W: Failed" in installing.read(f"{STATE}/job_error")
    sources(installing, archive)
    assert state_after(installing) == "done"
    once(installing)
    assert installing.status()["error"] == ""


def test_an_archive_that_is_gone_is_not_asked_five_times(installing: Pi, archive: str) -> None:
    sources(installing, f"{archive}/gone")
    set_env(installing, PACKAGES="git")
    assert state_after(installing).startswith(f"failed: E: Failed to fetch {archive}/gone/")
    updates = [call for call in installing.calls() if call.endswith(" update")]
    assert len(updates) <= 1


def test_a_class_without_packages_says_nothing_of_them(installing: Pi, archive: str) -> None:
    sources(installing, archive)
    set_env(installing, PACKAGES="git")
    assert state_after(installing) == "done"
    set_env(installing, PACKAGES="")
    once(installing)
    assert installing.status()["packages"] == ""
