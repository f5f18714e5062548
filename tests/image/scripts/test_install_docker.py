"""What the installer does with Docker: options, units, TLS."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.lib.pi_tree import (
    IGNORES_FILE,
    SETTINGS,
    SHELLS,
    STATE,
    STOCK_DOCKER,
    UNIT,
    Pi,
    docker_opts,
    install,
    make_pi,
)
from tests.lib.tools import need, run

if TYPE_CHECKING:
    from pathlib import Path

DROP_IN = "etc/systemd/system/docker.service.d/zz-rpi-image.conf"


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
