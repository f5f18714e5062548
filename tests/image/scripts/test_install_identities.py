"""One image, many identities: a board finds its own files by serial or MAC, or says who it is."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from imagebuilder.model import Network
from imagebuilder.plan.shared_image import identity_of, merge_plans, unclaimed_node
from tests.lib.pi_tree import HASH, SHELLS, Pi, board, give, make_pi
from tests.lib.plan_samples import after, boot_of, full_node, plan

if TYPE_CHECKING:
    from pathlib import Path

OTHER_HASH = "b" * 64


# The power goes once the board's own node.env is removed.
STRIKE = """
case "$*" in
    *identities*)
        for folder in "$2" "$3"; do
            [ ! -d "$folder/serial-abcdef01" ] || {
                /bin/rm "$folder/serial-abcdef01/rpi-image/node.env"
                kill -9 0
            }
        done ;;
esac
exec /bin/rm "$@"
"""


@pytest.fixture
def pi(tmp_path: Path) -> Pi:
    """Return a wheezy Pi with an image for two nodes in it."""
    made = make_pi(tmp_path, "wheezy")
    made.configure(NODE_HOSTNAME="unclaimed", RPI_IMAGE_HASH=HASH)
    (made.boot / "occidentalis.txt").write_text("# name\nhostname=unclaimed\n")
    give(made, "serial-abcdef01", "pi-01", OTHER_HASH)
    give(made, "mac-b827eb000002", "pi-02", OTHER_HASH)
    return made


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    ("serial", "mac", "hostname"),
    [
        ("abcdef01", "b8:27:eb:99:99:99", "pi-01"),
        ("ABCDEF01", "b8:27:eb:99:99:99", "pi-01"),
        ("99999999", "B8:27:EB:00:00:02", "pi-02"),
    ],
)
def test_a_board_of_the_roster_becomes_its_node(
    serial: str, mac: str, hostname: str, shell: str, pi: Pi
) -> None:
    board(pi, serial, mac)
    assert pi.run(shell=shell).returncode == 0
    assert pi.read("etc/hostname") == f"{hostname}\n"
    assert pi.read("var/lib/rpi-image/installed").strip() == OTHER_HASH
    assert f"hostname={hostname}" in (pi.boot / "occidentalis.txt").read_text()
    assert (pi.card / "own file.txt").read_text() == f"of {hostname}\n"
    assert not (pi.card / "identities").exists(), "other nodes' files stay on the card"
    assert pi.status()["hostname"] == hostname


@pytest.mark.parametrize("shell", SHELLS)
def test_a_board_in_no_roster_says_which_it_is_and_is_asked_again(shell: str, pi: Pi) -> None:
    board(pi, "12345678")
    assert pi.run(shell=shell).returncode == 0
    assert pi.read("etc/hostname") == "unclaimed-5678\n"
    assert "hostname=unclaimed-5678" in (pi.boot / "occidentalis.txt").read_text()
    assert "NODE_HOSTNAME='unclaimed-5678'" in pi.read("var/lib/rpi-image/node.env")
    assert "no roster" in str(pi.status()["error"])
    give(pi, "serial-12345678", "pi-03", OTHER_HASH)
    assert pi.run(shell=shell).returncode == 0
    assert pi.read("etc/hostname") == "pi-03\n"
    assert not (pi.card / "identities").exists()


def test_a_power_cut_while_claiming_is_made_good(pi: Pi) -> None:
    """Whatever the cut left, node.env is put last: before it the board claims once more."""
    board(pi, "abcdef01")
    pi.fake("cp", 'case "$*" in *node.env*) exit 1 ;; esac; exec /bin/cp "$@"')
    assert pi.run().returncode == 0
    assert (pi.card / "identities").exists()
    (pi.folder / "fakes" / "cp").unlink()
    assert pi.run().returncode == 0
    assert pi.read("etc/hostname") == "pi-01\n"
    assert not (pi.card / "identities").exists()
    assert not list(pi.boot.rglob("*.new"))


@pytest.mark.parametrize("left", ["identities", "identities.done"])
def test_a_power_cut_while_the_others_are_forgotten_is_made_good(left: str, pi: Pi) -> None:
    """Of the folder any file may be gone; `identities` is what was removed in place before."""
    board(pi, "abcdef01")
    shutil.copytree(pi.card / "identities", pi.card / "kept")
    assert pi.run().returncode == 0
    (pi.card / "kept").rename(pi.card / left)
    (pi.card / left / "serial-abcdef01" / "rpi-image" / "node.env").unlink()
    pi.path("var/lib/rpi-image/installed").unlink()
    assert pi.run().returncode == 0
    assert pi.status()["install"] == "ok"
    assert pi.status()["hostname"] == "pi-01"
    assert not list(pi.card.glob("identities*"))


def test_a_power_cut_over_the_other_identities(pi: Pi) -> None:
    board(pi, "abcdef01")
    pi.fake("rm", STRIKE)
    assert pi.run().returncode == -9
    (pi.folder / "fakes" / "rm").unlink()
    assert pi.run().returncode == 0
    assert pi.status()["hostname"] == "pi-01"
    assert pi.status()["install"] == "ok"
    assert not list(pi.card.glob("identities*"))


@pytest.fixture
def trixie(tmp_path: Path) -> Pi:
    """Return a Pi with the planned image of a class on a base image with cloud-init."""
    pi = make_pi(tmp_path, "trixie")
    boot = boot_of("cloud-init-trixie")
    full = replace(full_node(), serial="abcdef01")
    nodes = [full, replace(full, hostname="pi-04", network=Network(), serial="abcdef02")]
    plans = {identity_of(node): plan(node, boot) for node in nodes}
    merged = merge_plans(plan(unclaimed_node(nodes), boot), plans)
    shutil.rmtree(pi.boot)
    for name, data in after(boot, merged).files.items():
        (pi.boot / name).parent.mkdir(parents=True, exist_ok=True)
        (pi.boot / name).write_bytes(data)
    pi.write("usr/share/zoneinfo/Europe/Paris", "TZif2")
    board(pi, "abcdef01")
    return pi


def test_cloud_init_reads_the_nodes_files_at_a_boot_of_its_own(trixie: Pi) -> None:
    """It had read those of `unclaimed` before the installer came, and sets the address itself."""
    unclaimed = (trixie.boot / "meta-data").read_text()
    trixie.run()
    assert trixie.status()["install"] == "ok"
    assert "192.168.2.103/24" in (trixie.boot / "network-config").read_text()
    assert (trixie.boot / "meta-data").read_text() != unclaimed
    assert "reboot" in trixie.read("var/lib/rpi-image/todo").split()
    trixie.path("var/lib/rpi-image/todo").unlink()
    trixie.path("var/lib/rpi-image/installed").unlink()
    trixie.run()
    assert "reboot" not in trixie.read("var/lib/rpi-image/todo").split(), "at every boot"


def test_a_board_in_no_roster_is_not_rebooted(trixie: Pi) -> None:
    board(trixie, "12345678")
    trixie.run()
    assert trixie.status()["hostname"] == "unclaimed-5678"
    assert "reboot" not in trixie.read("var/lib/rpi-image/todo").split()


def test_a_power_cut_gives_cloud_init_no_half_of_a_new_instance(trixie: Pi) -> None:
    """A new id before the files it is for: those would be taken up by no later boot."""
    unclaimed = (trixie.boot / "meta-data").read_text()
    trixie.fake("mv", 'case "$*" in *meta-data*) exit 1 ;; esac; exec /bin/mv "$@"')
    trixie.run()
    assert "192.168.2.103/24" in (trixie.boot / "network-config").read_text()
    assert (trixie.boot / "meta-data").read_text() == unclaimed
    (trixie.folder / "fakes" / "mv").unlink()
    trixie.run()
    assert (trixie.boot / "meta-data").read_text() != unclaimed
    assert "reboot" in trixie.read("var/lib/rpi-image/todo").split()


def test_a_board_without_a_serial_still_boots(pi: Pi) -> None:
    pi.write("proc/cpuinfo", "processor\t: 0\n")
    assert pi.run().returncode == 0
    assert pi.read("etc/hostname") == "unclaimed-0000\n"
