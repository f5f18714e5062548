"""What `apply` has not finished is finished by the installer, before it reads anything.

Without fakes nothing acts on this machine: the installer calls that of the new node by `sh`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.lib.pi_tree import SHELLS, STATE, Pi, make_pi

if TYPE_CHECKING:
    from pathlib import Path

NEW_HASH = "5" * 64
KINDS = ("wheezy", "jessie", "device-init", "cloud-init", "bookworm", "trixie")
COPIES = "rpi-image/next/55555555/"
SECRET = "a passphrase of the new node"


def settings_of_new_node(pi: Pi) -> bytes:
    """Return node.env for another name; to be called while that of the card has its secrets."""
    text = (pi.card / "node.env").read_text().replace("NODE_HOSTNAME=pi-03", "NODE_HOSTNAME=pi-17")
    return re.sub("RPI_IMAGE_HASH=.*", f"RPI_IMAGE_HASH={NEW_HASH}", text).encode()


def cut_off(pi: Pi, settings: bytes, *, end: bool = True) -> dict[str, bytes]:
    """Leave a list and copies on the card as `apply` does; return the files of the new node."""
    files = {
        "rpi-image/node.env": settings,
        "rpi-image/own folder/own file": SECRET.encode(),
        "cmdline.txt": b"console=tty1 of=pi-17\n",
    }
    (pi.boot / "cmdline.txt").write_text("console=tty1\n")
    (pi.card / "gone").write_text("of pi-03\n")
    for path, data in files.items():
        copy = pi.boot / COPIES / path
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(data)
    lines = [f"from {COPIES}", *(f"write {path}" for path in files), "remove rpi-image/gone"]
    (pi.card / "next.list").write_text("\n".join([*lines, "end"] if end else lines) + "\n")
    return files


def finish(pi: Pi, shell: str = "dash") -> str:
    done = pi.run(shell=shell, RPI_IMAGE_FAKES="")
    assert done.returncode == 0
    return done.stderr


def expect_new_node(pi: Pi, files: dict[str, bytes]) -> None:
    assert pi.read(f"{STATE}/installed") == f"{NEW_HASH}\n"
    assert pi.read("etc/hostname") == "pi-17\n"
    for path, data in files.items():
        if path != "rpi-image/node.env":  # without its secrets now
            assert (pi.boot / path).read_bytes() == data
    assert not (pi.card / "gone").exists()
    assert [path.name for path in pi.boot.rglob("*") if "next" in path.name] == []
    assert [path.name for path in pi.boot.rglob("*.rpi-new")] == []


@pytest.mark.parametrize(
    ("kind", "shell", "booted"),
    [*((kind, "dash", True) for kind in KINDS), ("wheezy", "busybox", False),
     ("trixie", "busybox", False)],
)  # fmt: skip
def test_the_pi_becomes_the_node_of_the_list(
    kind: str, shell: str, booted: bool, tmp_path: Path
) -> None:
    pi = make_pi(tmp_path, kind)
    settings = settings_of_new_node(pi)
    if booted:
        finish(pi, shell)
        assert pi.read("etc/hostname") == "pi-03\n"
    files = cut_off(pi, settings)
    finish(pi, shell)
    expect_new_node(pi, files)
    before = pi.snapshot()
    finish(pi, shell)
    assert pi.snapshot() == before


@pytest.mark.parametrize("at", range(1, 12, 2))
def test_a_power_cut_while_it_is_finished_is_nothing(at: int, tmp_path: Path) -> None:
    """The power goes at each command that changes the boot partition, and the Pi starts again."""
    pi = make_pi(tmp_path, "wheezy")
    files = cut_off(pi, settings_of_new_node(pi))
    for command in ("cp", "mv", "rm", "mkdir", "sync"):
        count = f'echo >>"{tmp_path}/count"; [ "$(wc -l <"{tmp_path}/count")" -ne {at} ]'
        pi.fake(command, f'{count} || kill -9 0\nexec /bin/{command} "$@"')
    pi.run(RPI_IMAGE_FAKES="")
    assert len((tmp_path / "count").read_text().splitlines()) >= at
    finish(pi)
    expect_new_node(pi, files)
    assert pi.path(f"{STATE}/free_due").exists()  # clusters of replaced files are cleared later


@pytest.mark.parametrize("shell", SHELLS)
def test_a_list_without_its_end_is_not_carried_out(shell: str, tmp_path: Path) -> None:
    pi = make_pi(tmp_path, "wheezy")
    cut_off(pi, settings_of_new_node(pi), end=False)
    finish(pi, shell)
    assert pi.read("etc/hostname") == "pi-03\n"
    assert (pi.boot / "cmdline.txt").read_text() == "console=tty1\n"
    assert (pi.card / "gone").exists()


@pytest.mark.parametrize(("command", "name"), [("cp", "own"), ("mv", "cmdline"), ("rm", "gone")])
def test_a_card_that_cannot_be_written_keeps_its_list(
    command: str, name: str, tmp_path: Path
) -> None:
    pi = make_pi(tmp_path, "wheezy")
    cut_off(pi, settings_of_new_node(pi))
    pi.fake(command, f'case "$*" in *{name}*) exit 1 ;; esac; exec /bin/{command} "$@"')
    finish(pi)
    assert (pi.card / "next.list").exists()
    assert "cannot be written" in str(pi.status()["error"])


@pytest.mark.parametrize("shell", SHELLS)
def test_the_node_service_finishes_a_card_that_was_changed(shell: str, tmp_path: Path) -> None:
    """Its own node.env may be missing at that moment."""
    pi = make_pi(tmp_path, "wheezy")
    settings = settings_of_new_node(pi)
    finish(pi, shell)
    files = cut_off(pi, settings)
    (pi.card / "node.env").unlink()
    pi.run(f"/{STATE}/node", "once", shell=shell, RPI_IMAGE_FAKES="", RPI_IMAGE_WAIT="0")
    expect_new_node(pi, files)
