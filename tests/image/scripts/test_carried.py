"""Packages that a card brings along, or the shack serves, installed by the real dpkg."""

from __future__ import annotations

import functools
import hashlib
import os
import signal
import subprocess
import threading
import time
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.image.scripts.test_packages import DONE, installed, state_after
from tests.image.scripts.test_upgrade import _Quiet
from tests.lib.node_tree import NODE, once, set_env
from tests.lib.pi_tree import SHELLS, STATE, Pi
from tests.lib.tools import need, run

if TYPE_CHECKING:
    from collections.abc import Iterator

CARRIED = "boot/rpi-image/packages"


def make_deb(folder: Path, name: str, version: str, *fields: str, script: str = "") -> Path:
    """Make a package for any architecture."""
    tree = folder / "trees" / f"{name}-{version}"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "usr/share").mkdir(parents=True)
    (tree / "usr/share" / name).write_text(version)
    lines = (f"Package: {name}", f"Version: {version}", "Architecture: all")
    text = "\n".join((*lines, "Maintainer: a <a@b.c>", *fields, "Description: a package", ""))
    (tree / "DEBIAN" / "control").write_text(text)
    if script:
        (tree / "DEBIAN" / "postinst").write_text(f"#!/bin/sh\n{script}\n")
        (tree / "DEBIAN" / "postinst").chmod(0o755)
    deb = folder / f"{name}_{version.rpartition(':')[2]}_all.deb"
    run("dpkg-deb", "--build", "--root-owner-group", tree, deb)
    return deb


@pytest.fixture
def dpkg(pi: Pi) -> Pi:
    """Return a node with the real dpkg, which has a root of its own, and an apt that fails."""
    (program, _) = need("dpkg", "dpkg-deb")
    tree = pi.folder / "tree"
    for name in ("info", "updates", "triggers"):
        (tree / "var/lib/dpkg" / name).mkdir(parents=True)
    (tree / "var/lib/dpkg/status").touch()
    options = f"--root={tree} --log=/dev/null --force-not-root --force-script-chrootless"
    pi.fake("dpkg", f'exec {program} {options} "$@"')
    pi.fake("apt-get", "exit 1")
    pi.fake("timedatectl", "echo 'System clock synchronized: yes'")
    set_env(pi, PACKAGES="git", DOCKER_INSTALL="never")
    return pi


def carry(pi: Pi, *debs: Path, listed: bool = False) -> Path:
    """Put packages and their digests onto the card; with `listed` the digests alone."""
    folder = pi.path(CARRIED)
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f"{hashlib.sha256(deb.read_bytes()).hexdigest()}  {deb.name}\n" for deb in debs]
    (folder / "SHA256SUMS").write_text("".join(lines))
    for deb in () if listed else debs:
        (folder / deb.name).write_bytes(deb.read_bytes())
    return folder


def needing_each_other(folder: Path) -> tuple[Path, ...]:
    """Make packages that must be unpacked in an order that their names do not have."""
    return (
        make_deb(folder, "git", "1:2.47", "Pre-Depends: libgit (>= 2)", "Depends: zlib"),
        make_deb(folder, "libgit", "2.0+dfsg~1-1+b1", "Pre-Depends: zlib"),
        make_deb(folder, "zlib", "1.3"),
    )


EXPECTED = {"git": "1:2.47", "libgit": "2.0+dfsg~1-1+b1", "zlib": "1.3"}


def asked_apt(pi: Pi) -> list[str]:
    return [call for call in pi.calls() if call.startswith("apt-get")]


@pytest.mark.parametrize("shell", SHELLS)
def test_the_card_s_packages_are_installed_without_a_network(
    shell: str, dpkg: Pi, tmp_path: Path
) -> None:
    folder = carry(dpkg, *needing_each_other(tmp_path))
    dpkg.fake("ip", "exit 2")
    assert state_after(dpkg, shell) == "done"
    assert installed(dpkg) == EXPECTED
    assert dpkg.path(DONE).exists()
    assert not folder.exists(), "the card is free again"
    assert asked_apt(dpkg) == []


def damage(deb: Path, how: str) -> None:
    data = deb.read_bytes()
    deb.write_bytes(data[:-1] + bytes([data[-1] ^ 1]) if how == "another digest" else data[:-64])


@pytest.mark.parametrize("how", ["another digest", "cut off"])
def test_a_damaged_package_is_named_and_apt_is_asked(how: str, dpkg: Pi, tmp_path: Path) -> None:
    folder = carry(dpkg, *needing_each_other(tmp_path))
    damage(folder / "zlib_1.3_all.deb", how)
    once(dpkg)
    until = time.monotonic() + 30
    while not asked_apt(dpkg):
        assert time.monotonic() < until, dpkg.read("var/log/rpi-image.log")
        once(dpkg)
        time.sleep(0.2)
    assert "another digest: zlib_1.3_all.deb: FAILED" in dpkg.read("var/log/rpi-image.log")
    assert installed(dpkg) == {}
    assert (folder / "git_2.47_all.deb").exists(), "the next boot may use them"


def test_a_file_that_is_not_listed_is_not_installed(dpkg: Pi, tmp_path: Path) -> None:
    folder = carry(dpkg, make_deb(tmp_path, "git", "2"))
    (folder / "evil_1_all.deb").write_bytes(make_deb(tmp_path, "evil", "1").read_bytes())
    assert state_after(dpkg) == "done"
    assert installed(dpkg) == {"git": "2"}


@pytest.mark.parametrize("mark", [False, True])
def test_a_power_cut_within_dpkg_or_before_the_removal(
    mark: bool, dpkg: Pi, tmp_path: Path
) -> None:
    """The real dpkg is killed with what it has started; the next boot ends its work."""
    started = dpkg.folder / "configuring"
    slow = f"touch {started}; [ ! -e {dpkg.folder}/slow ] || sleep 60"
    folder = carry(
        dpkg, make_deb(tmp_path, "git", "2", script=slow), make_deb(tmp_path, "zlib", "1")
    )
    if mark:
        dpkg.write(DONE, "now\n")
        once(dpkg)
        assert not folder.exists()
        assert installed(dpkg) == {}
        return
    (dpkg.folder / "slow").touch()
    environment = {"PATH": f"{dpkg.folder}/fakes:/usr/bin:/bin:/usr/sbin", "RPI_IMAGE_FAKES": "1"}
    environment |= {"RPI_IMAGE_ROOT": str(dpkg.root), "RPI_IMAGE_WAIT": "0"}
    script = str(dpkg.path(NODE.lstrip("/")))
    with subprocess.Popen(["dash", script], env=environment, start_new_session=True) as service:
        until = time.monotonic() + 30
        while not started.exists():
            assert time.monotonic() < until
            time.sleep(0.05)
        os.killpg(service.pid, signal.SIGKILL)
    assert not dpkg.path(DONE).exists()
    journal = (dpkg.folder / "tree/var/lib/dpkg/updates").iterdir()  # of the interrupted dpkg
    assert any("half-configured" in update.read_text() for update in journal)
    (dpkg.folder / "slow").unlink()
    assert state_after(dpkg) == "done"
    status = (dpkg.folder / "tree/var/lib/dpkg/status").read_text()
    assert status.count("Status: install ok installed") == 2
    assert not folder.exists()


@pytest.fixture
def shack(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """Serve a folder as the class page of a shack does."""
    folder = tmp_path / "web"
    (folder / "packages").mkdir(parents=True)
    handler = functools.partial(_Quiet, directory=folder)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        yield folder / "packages", str(server.server_address[1])
        server.shutdown()


@pytest.mark.parametrize("program", ["curl", "wget"])
@pytest.mark.parametrize("how", ["", "another digest", "cut off", "missing"])
def test_the_shack_serves_what_the_card_has_no_room_for(
    how: str, program: str, dpkg: Pi, shack: tuple[Path, str], tmp_path: Path
) -> None:
    real = dict(zip(("curl", "wget"), need("curl", "wget"), strict=True))[program]
    page, port = shack
    debs = needing_each_other(page)
    carry(dpkg, *debs, listed=True)
    if how == "missing":
        debs[2].unlink()
    elif how:
        damage(debs[2], how)
    (dpkg.folder / "fakes" / "curl").unlink()
    set_env(dpkg, SHACK_ADDRESS="127.0.0.1", WEB_PORT=port)
    dpkg.fake(program, f'exec {real} "$@"')
    path = {} if program == "curl" else {"PATH": without(dpkg, "curl")}
    found = state_after(dpkg, **path)
    if not how:
        assert found == "done"
        assert installed(dpkg) == EXPECTED
        assert asked_apt(dpkg) == []
        assert not dpkg.path(f"{STATE}/debs").exists()
        return
    assert installed(dpkg) == {}
    assert found.startswith("failed"), "apt has failed, too"
    assert "zlib_1.3_all.deb" in dpkg.read("var/log/rpi-image.log")


def without(pi: Pi, program: str) -> str:
    """Return a PATH that lacks a program."""
    tools = pi.folder / "tools"
    tools.mkdir()
    for folder in ("/usr/bin", "/bin", "/usr/sbin"):
        for tool in Path(folder).iterdir():
            if tool.name != program and not (tools / tool.name).exists():
                (tools / tool.name).symlink_to(tool)
    return f"{pi.folder}/fakes:{tools}"
