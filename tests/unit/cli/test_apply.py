"""The command `apply`: its output, refusals, exit codes and what it imports."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest
import yaml

from imagebuilder.cli.console import Console
from imagebuilder.cli.session import Session
from imagebuilder.devices.volumes import Volume
from imagebuilder.errors import InputError
from imagebuilder.flash.apply_run import ApplyOptions, ApplyRun
from imagebuilder.settings.flags import NodeFlags
from tests.lib.boot_folders import put_tree, tree_of
from tests.lib.plan_samples import STOCK
from tests.lib.program import emitted, rpi_image, succeed

if TYPE_CHECKING:
    import subprocess as sub
    from pathlib import Path

ROOM = """\
profile: armv7
allow: [no-login]
image: sample
wifi: {country: FR, networks: [{ssid: shack, passphrase: correct horse battery}]}
nodes:
  - hostname: pi-[01-03]
"""


@pytest.fixture
def card(tmp_path: Path) -> Path:
    return put_tree(tmp_path / "bootfs", STOCK["firstrun-bookworm"])


@pytest.fixture
def room(tmp_path: Path) -> Path:
    path = tmp_path / "room.yml"
    path.write_text(ROOM)
    return path


def apply(card: Path, *more: object) -> sub.CompletedProcess[str]:
    return rpi_image("apply", card, *more, cache=card.parent / "cache")


def test_a_card_becomes_a_node_and_the_ledger_knows(card: Path, room: Path) -> None:
    done = succeed(apply(card, "-c", room, "--node", "pi-02"))
    assert "is pi-02 (firstrun)" in done.stdout
    assert "NODE_HOSTNAME='pi-02'" in (card / "rpi-image/node.env").read_text()
    assert b"systemd.run=/boot/firstrun.sh" in (card / "cmdline.txt").read_bytes()
    (entry,) = yaml.safe_load(room.with_suffix(".cards.yml").read_text())["cards"]
    assert (entry["node"], entry["state"], entry["device"]) == ("pi-02", "written", str(card))
    assert not (card.parent / "cache").exists()  # no base image is needed


def test_a_dry_run_shows_every_file_and_writes_nothing(card: Path, room: Path) -> None:
    before = tree_of(card.parent)
    done = succeed(apply(card, "-c", room, "--node", "pi-02", "--dry-run"))
    rows = {line.split()[0]: line.split()[1] for line in done.stdout.splitlines() if "  " in line}
    assert rows["cmdline.txt"] == "changed"
    assert rows["rpi-image/install"] == rows["firstrun.sh"] == "new"
    assert "would be pi-02" in done.stdout
    assert tree_of(card.parent) == before


def test_json_lists_the_files_and_no_secret(card: Path, room: Path) -> None:
    words = ("-c", room, "--json", "--yes")
    first = apply(card, *words, "--node", "pi-01")
    assert "correct horse" not in first.stdout + first.stderr
    found = emitted(first)
    assert (found["hostname"], found["before"], found["written"]) == ("pi-01", "", True)
    assert found["generation"] == "firstrun"
    again = emitted(apply(card, *words, "--node", "pi-01"))
    assert {file["what"] for file in again["files"]} == {"same"}
    other = emitted(apply(card, *words, "--node", "pi-03", "--dry-run"))
    assert (other["before"], other["written"]) == ("pi-01", False)
    assert {file["path"]: file["what"] for file in other["files"]}[
        "rpi-image/node.env"
    ] == "changed"


def test_flags_describe_a_node_as_for_build(card: Path) -> None:
    done = succeed(apply(card, "--profile", "armv7", "--hostname", "pi-09", "--allow", "no-login"))
    assert "is pi-09" in done.stdout


def test_a_card_of_another_node_needs_a_confirmation(card: Path, room: Path) -> None:
    succeed(apply(card, "-c", room, "--node", "pi-01"))
    before = tree_of(card)
    refused = apply(card, "-c", room, "--node", "pi-02")
    assert refused.returncode == 6
    assert "--yes" in refused.stderr
    assert tree_of(card) == before
    succeed(apply(card, "-c", room, "--node", "pi-02", "--yes"))
    assert "NODE_HOSTNAME='pi-02'" in (card / "rpi-image/node.env").read_text()


def test_the_ledger_knows_which_node_has_lost_its_card(card: Path, room: Path) -> None:
    words = ("-c", room, "--yes", "--node")
    second = put_tree(card.parent / "second", STOCK["firstrun-bookworm"])
    succeed(apply(card, *words, "pi-01"))
    assert "another card" not in succeed(apply(card, *words, "pi-01")).stderr
    assert "pi-01 has another card" in succeed(apply(second, *words, "pi-01")).stderr
    succeed(apply(second, *words, "pi-02"))
    entries = yaml.safe_load(room.with_suffix(".cards.yml").read_text())["cards"]
    assert {e["node"]: e["state"] for e in entries} == {"pi-01": "failed", "pi-02": "written"}
    assert "overwritten with pi-02" in entries[0]["error"]


def test_a_pi_that_has_installed_the_configuration_gets_no_secrets_again(
    card: Path, room: Path
) -> None:
    succeed(apply(card, "-c", room, "--node", "pi-01"))
    env = card / "rpi-image/node.env"
    env.write_text(f"RPI_IMAGE_SCRUBBED='1'\n{env.read_text()}")
    before = tree_of(card)
    done = succeed(apply(card, "-c", room, "--node", "pi-01"))
    assert "has this configuration already" in done.stdout
    assert tree_of(card) == before


@pytest.mark.parametrize(
    ("files", "code", "said"),
    [
        ({"notes.txt": b"x"}, 6, "is not the boot partition of a Raspberry Pi"),
        ({"cmdline.txt": b"root=/dev/sda1"}, 5, "matches no known generation"),
        ({**STOCK["occidentalis"], "user-data": b""}, 5, "matches several generations"),
    ],
)
def test_a_folder_that_is_not_for_us_is_refused_by_name(
    tmp_path: Path, room: Path, files: dict[str, bytes], code: int, said: str
) -> None:
    folder = put_tree(tmp_path / "other", files)
    refused = apply(folder, "-c", room, "--node", "pi-01", "--yes")
    assert (refused.returncode, tree_of(folder)) == (code, files)
    assert said in refused.stderr
    assert "hint: " in refused.stderr
    if code == 5:
        succeed(apply(folder, "-c", room, "--node", "pi-01", "--generation", "occidentalis"))


def test_the_boot_folder_of_this_computer_is_refused(room: Path) -> None:
    refused = rpi_image("apply", "/boot", "-c", room, "--node", "pi-01", cache=room.parent / "c")
    assert refused.returncode == 6
    assert "boot partition of this computer" in refused.stderr


def test_one_node_has_to_be_named(card: Path, room: Path) -> None:
    refused = apply(card, "-c", room)
    assert refused.returncode == 2
    assert "--node" in refused.stderr
    assert apply(card, "-c", room, "--node", "pi-99").returncode == 2


def run_with(volumes: tuple[Volume, ...], room: Path) -> ApplyRun:
    console = Console(out=io.StringIO(), err=io.StringIO())
    return ApplyRun(
        workspace=Session(console=console, environment={}),
        prompter=console,
        flags=NodeFlags(config=room),
        options=ApplyOptions(node="pi-01", dry_run=True),
        volumes=volumes,
    )


def test_without_a_folder_the_only_card_is_taken(card: Path, room: Path, tmp_path: Path) -> None:
    stick = put_tree(tmp_path / "stick", {"notes.txt": b"x"})
    found = run_with((Volume(stick), Volume(card)), room).prepare(None)
    assert found.volume.folder == card
    second = put_tree(tmp_path / "second", STOCK["occidentalis"])
    with pytest.raises(InputError, match="2 boot partitions") as caught:
        run_with((Volume(card), Volume(second)), room).prepare(None)
    assert str(second) in caught.value.message
    with pytest.raises(InputError, match="no mounted boot partition"):
        run_with((Volume(stick),), room).prepare(None)
