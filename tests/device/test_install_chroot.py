"""The installer where the root is `/`, as on a Pi: no RPI_IMAGE_ROOT hides an empty prefix.

Runs in namespaces of its own (mounts, host name, processes) with busybox as the only programs; the
clock and the network stay out of its reach.
"""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.lib.pi_tree import HASH, Pi, make_pi
from tests.lib.tools import need, need_root, run

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.root

# What would reach out of the namespaces.
KEPT_OUT = ("adjtimex", "date", "hwclock", "mount", "reboot", "umount")


def enter(pi: Pi) -> subprocess.CompletedProcess[str]:
    """Run the card's installer with the Pi's root as `/`."""
    command = ["unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child"]
    return subprocess.run(
        [*command, "chroot", pi.root, "/bin/sh", "/boot/rpi-image/install"],
        capture_output=True, text=True, check=False, timeout=120, stdin=subprocess.DEVNULL,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
    )  # fmt: skip


@pytest.fixture(params=["wheezy", "jessie", "cloud-init"])
def pi(request: pytest.FixtureRequest, tmp_path: Path) -> Pi:
    """Return a Pi with busybox for its programs."""
    need_root()
    busybox, *_ = need("busybox", "unshare", "chroot", "mknod")
    made = make_pi(tmp_path, request.param)
    shutil.copy(busybox, made.root / "bin" / "busybox")
    for name in run("busybox", "--list").split():
        link = made.root / "bin" / name
        if name not in KEPT_OUT and not link.exists():
            link.symlink_to("busybox")
    made.write("bin/date", "#!/bin/sh\necho 1999999999\n", 0o755)
    made.write("bin/mount", "#!/bin/sh\n", 0o755)
    made.write("bin/umount", "#!/bin/sh\n", 0o755)
    made.path("dev").mkdir(exist_ok=True)
    run("mknod", made.root / "dev" / "null", "c", "1", "3")
    made.path("tmp").mkdir(exist_ok=True)
    return made


def test_a_pi_with_another_identity_becomes_the_node(pi: Pi) -> None:
    pi.write("etc/docker/key.json", "{}")
    pi.write("etc/ssh/ssh_host_rsa_key", "old")
    machine_id = pi.path("etc/machine-id")
    before = machine_id.read_text() if machine_id.exists() else ""
    done = enter(pi)
    assert done.returncode == 0
    assert "parameter not set" not in done.stderr
    assert pi.read("etc/hostname") == "pi-03\n"
    assert not pi.path("etc/docker/key.json").exists(), done.stderr
    assert before == "" or machine_id.read_text() != before
    assert pi.read("var/lib/rpi-image/identity").strip() == "pi-03"


def test_it_finishes_and_a_second_run_changes_nothing(pi: Pi) -> None:
    done = enter(pi)
    assert pi.read("var/lib/rpi-image/installed").strip() == HASH, done.stderr
    before = pi.snapshot()
    assert enter(pi).returncode == 0
    assert pi.snapshot() == before
