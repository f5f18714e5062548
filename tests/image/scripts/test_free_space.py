"""Free clusters of a card that an earlier version has set up are overwritten once.

The medium is ext2, whose count of free blocks is near, not exact (a counter for each processor), so
a few blocks stay; tests/boot/test_bootfs_linux.py looks at the raw bytes of FAT.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.image.scripts.test_install_planned import ROOTS
from tests.image.scripts.test_secrets_on_medium import lay, medium, planned
from tests.lib.node_tree import once, run_docker
from tests.lib.pi_tree import SHELLS, STATE, Pi, make_pi
from tests.lib.tools import run

if TYPE_CHECKING:
    from pathlib import Path

DUE = f"{STATE}/free_due"
SAMPLE = "occidentalis"
SAID = "the free space of the boot partition has been overwritten"


@pytest.fixture
def old(tmp_path: Path) -> Pi:
    """Return a Pi with the marker of an earlier version, which kept no list of what it owns."""
    pi = make_pi(tmp_path, ROOTS[SAMPLE])
    pi.write("usr/share/zoneinfo/Europe/Paris", "TZif2")
    pi.write(f"{STATE}/installed", f"{'0' * 64}\n")
    return pi


def install(pi: Pi) -> None:
    """Install a new configuration on the mounted partition."""
    lay(pi, planned(SAMPLE))
    done = pi.run()
    assert '"install": "ok"' in (pi.card / "status.json").read_text(), done.stderr
    run_docker(pi)


def cleared(pi: Pi) -> None:
    """Wait until the node script has done it and has said so."""
    end = time.monotonic() + 60
    while pi.path(DUE).exists() or SAID not in pi.read("var/log/rpi-image.log"):
        assert time.monotonic() < end, "not cleared"
        time.sleep(0.1)


@pytest.mark.parametrize("shell", SHELLS)
def test_what_an_earlier_version_left_is_overwritten_once(shell: str, old: Pi) -> None:
    with medium(old):
        install(old)
        # The image's first boot is over: under busybox no script may start the installer again.
        old.write(f"{STATE}/vendor_done", old.read(f"{STATE}/installed"))
        once(old, shell)
        cleared(old)
        assert not (old.card / "zeros").exists()
        old.fake("dd", "exit 1")
        once(old, shell)
        assert [call for call in old.calls() if call.startswith("dd ")] == []


@pytest.mark.parametrize("at", [1, 3])
def test_a_power_cut_leaves_no_full_partition(at: int, old: Pi) -> None:
    """The next start removes the zeros first, and begins again."""
    with medium(old):
        install(old)
        old.fake("dd", f'[ "$(grep -c ^dd "$CALLS")" -lt {at} ] || kill -9 0\nexec /bin/dd "$@"')
        # the job runs in the background: the cut ends what waits for it, too
        old.fake("ip", "while :; do sleep 1; done")
        assert once(old).returncode == -9
        assert (old.card / "zeros").exists() == (at > 1)
        old.fake("dd", "exit 1")
        old.fake("ip", "exit 2")
        once(old)
        assert not (old.card / "zeros").exists()
        assert old.path(DUE).exists(), "an error of the card is no full card"
        (old.folder / "fakes" / "dd").unlink()
        once(old)
        cleared(old)


def test_the_installer_has_room_after_a_power_cut(old: Pi) -> None:
    with medium(old):
        lay(old, planned(SAMPLE))
        run("dd", "if=/dev/zero", f"of={old.card / 'zeros'}", "bs=1M", check=False)
        old.run()
        assert '"install": "ok"' in (old.card / "status.json").read_text()
        assert not (old.card / "zeros").exists()


def test_a_card_of_this_version_has_nothing_to_clear(tmp_path: Path) -> None:
    pi = make_pi(tmp_path, ROOTS[SAMPLE])
    pi.run()
    pi.configure(RPI_IMAGE_HASH="1" * 64)
    pi.run()
    assert pi.read(f"{STATE}/installed") == f"{'1' * 64}\n"
    assert not pi.path(DUE).exists()


def test_the_root_file_system_is_not_filled(old: Pi) -> None:
    """Where the boot partition is not mounted, its folder is one of the root."""
    old.run()
    run_docker(old)
    old.fake("dd", "exit 1")
    once(old)
    assert old.path(DUE).exists()
    assert [call for call in old.calls() if call.startswith("dd ")] == []
