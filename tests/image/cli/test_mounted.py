"""`inspect`, `verify` and `status` on a mounted boot partition: a folder instead of an image."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from imagebuilder.cli.main import run as rpi_image
from tests.lib.boot_folders import Tree, put_tree, tree_of
from tests.lib.fat_images import make_image
from tests.lib.plan_samples import STOCK
from tests.lib.tools import need, run

if TYPE_CHECKING:
    from pathlib import Path

ROOM = """\
profile: armv7
image: hypriotos-1.12.3
shack: {address: 127.0.0.1, ports: {consul: 9}}
user: {name: ann, password_hash: $6$abcdefgh$qwertyuiop}
wifi: {country: FR, networks: [{ssid: shack, passphrase: correct horse battery}]}
nodes:
  - hostname: pi-[01-02]
"""
STATUS = {"hostname": "pi-01", "hash": "ab", "install": "done", "address": "10.0.0.7"}


@pytest.fixture(autouse=True)
def _same_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RPI_IMAGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def room(tmp_path: Path) -> str:
    (tmp_path / "room.yml").write_text(ROOM)
    return "room.yml"


def card_of(folder: Path, room: str, node: str, stock: Tree) -> str:
    put_tree(folder, stock)
    assert rpi_image(["apply", str(folder), "-c", room, "--node", node, "--yes"]) == 0
    return str(folder)


def shown(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> Any:
    capsys.readouterr()
    assert rpi_image([*words, "--json"]) == code
    said = capsys.readouterr()
    assert "correct horse" not in said.out + said.err
    return json.loads(said.out)


@pytest.mark.parametrize("name", STOCK)
def test_a_folder_shows_what_its_image_shows(
    tmp_path: Path, room: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Mtools puts the same files into an image."""
    need("mcopy")
    card = tmp_path / "bootfs"
    card_of(card, room, "pi-01", STOCK[name])
    put_tree(card, {"rpi-image/status.json": json.dumps(STATUS).encode()})
    image = make_image(tmp_path / "card.img", files=tree_of(card))
    folder, disk = (shown(capsys, "inspect", str(path)) for path in (card, image.path))
    assert folder["hostname"] == "pi-01"
    assert folder["status"] == STATUS
    assert folder.pop("fat")["free_bytes"] > 0
    assert folder.pop("partitions") == []
    assert {key: disk[key] for key in folder} == folder
    assert rpi_image(["inspect", str(card)]) == 0
    assert "mounted, " in capsys.readouterr().out


def test_verify_finds_every_file_that_differs(
    tmp_path: Path, room: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    card = tmp_path / "bootfs"
    words = ("verify", card_of(card, room, "pi-01", STOCK["firstrun-bookworm"]), "-c", room)
    monkeypatch.delenv("SOURCE_DATE_EPOCH")  # a card is compared with its own build time
    assert shown(capsys, *words, "--node", "pi-01")["same"] is True
    other = shown(capsys, *words, "--node", "pi-02", code=7)
    assert "rpi-image/node.env" in other["files"]
    assert other["ranges"] == []
    (card / "firstrun.sh").write_bytes(b"#!/bin/sh\n")
    (card / "rpi-image/install").unlink()
    found = shown(capsys, *words, "--node", "pi-01", code=7)
    assert set(found["files"]) == {"firstrun.sh", "rpi-image/install"}
    before = tree_of(card)
    assert rpi_image([*words, "--node", "pi-01"]) == 7
    assert "differs: firstrun.sh" in capsys.readouterr().out
    assert tree_of(card) == before


def test_verify_without_a_node_says_whose_card_it_is(
    tmp_path: Path, room: str, capsys: pytest.CaptureFixture[str]
) -> None:
    card = card_of(tmp_path / "bootfs", room, "pi-02", STOCK["cloud-init-trixie"])
    assert shown(capsys, "verify", card)["hostname"] == "pi-02"
    assert rpi_image(["verify", card, "-c", room]) == 2
    assert "choose one with --node" in capsys.readouterr().err
    assert rpi_image(["verify", card, "--image", "x.img"]) == 2
    assert "is a folder" in capsys.readouterr().err


def test_status_reads_the_card_as_the_operating_system_shows_it(
    tmp_path: Path, room: str, capsys: pytest.CaptureFixture[str]
) -> None:
    card = card_of(tmp_path / "bootfs", room, "pi-01", STOCK["firstrun-bookworm"])
    assert rpi_image(["status", room, "--card", card]) == 4
    assert "boot the Pi from this card first" in capsys.readouterr().err
    (card_folder := tmp_path / "bootfs" / "rpi-image").rename(
        upper := tmp_path / "bootfs/RPI-IMAGE"
    )
    assert not card_folder.exists()
    (upper / "STATUS.JSON").write_text(json.dumps(STATUS))
    words = ("status", room, "--card", card, "--timeout", "1")
    rows = {row["hostname"]: row for row in shown(capsys, *words)["nodes"]}
    assert rows["pi-01"]["address"] == "10.0.0.7"
    (upper / "STATUS.JSON").write_bytes(b"{" * (1 << 21))
    assert rpi_image(list(words)) == 5
    assert "has 2.1 MB, more than 1.0 MB" in capsys.readouterr().err


@pytest.mark.parametrize(("command", "code"), [("inspect", 5), ("verify", 5)])
def test_another_folder_is_refused_by_name(
    tmp_path: Path, command: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = put_tree(tmp_path / "photos", {"notes.txt": b"x"})
    assert rpi_image([command, str(folder)]) == code
    assert f"{folder} is a folder, but not a boot partition" in capsys.readouterr().err


def test_verify_of_a_built_image_and_of_its_files_agree(
    tmp_path: Path, room: str, capsys: pytest.CaptureFixture[str]
) -> None:
    need("mcopy")
    stock = make_image(tmp_path / "stock.img", files=STOCK["firstrun-bookworm"])
    words = ["-c", room, "--hostname", "pi-02", "--image", str(stock.path), "--no-checksum"]
    assert rpi_image(["build", *words, "-o", "pi-02.img"]) == 0
    (tmp_path / "files").mkdir()
    run("mcopy", "-s", "-n", "-Q", "-i", "pi-02.img@@1M", "::", "files", cwd=tmp_path)
    found = shown(capsys, "verify", "files", *words)
    assert (found["same"], found["files"]) == (True, [])
