"""`apply` on a drive that ignores case and refuses what Windows refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from imagebuilder.cli.main import run as rpi_image
from imagebuilder.devices.volumes import volume_at
from tests.lib.boot_folders import Tree, put_tree, tree_of
from tests.lib.plan_samples import STOCK
from tests.lib.tools import need
from tests.lib.windows_drive import windows_drive

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.long

ROOM = """\
profile: armv7
allow: [no-login]
image: hypriotos-1.12.3
wifi: {country: FR, networks: [{ssid: "shack: <5 GHz>?", passphrase: correct horse battery}]}
nodes:
  - hostname: pi-[01-02]
"""


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    need("fusermount3")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    (tmp_path / "room.yml").write_text(ROOM)
    return str(tmp_path / "room.yml")


def apply(folder: Path, room: str, node: str) -> int:
    return rpi_image(["apply", str(folder), "-c", room, "--node", node, "--yes"])


def in_capitals(files: Tree) -> Tree:
    """Return the files with short names in capitals, as some cards have them."""
    return {name.upper() if len(name) <= 12 else name: data for name, data in files.items()}


def without_case(files: Tree) -> Tree:
    return {name.casefold(): data for name, data in files.items()}


def test_the_drive_refuses_what_windows_refuses(tmp_path: Path, room: str) -> None:
    del room
    card = put_tree(tmp_path / "card", {"CONFIG.TXT": b"x", "new.txt": b"y"})
    with windows_drive(card) as drive:
        assert (drive / "config.txt").read_bytes() == b"x"
        for name in ("a:b", "what?", "CON", "nul.txt", "end.", "end ", "a<b"):
            with pytest.raises(OSError, match="Invalid argument"):
                (drive / name).write_bytes(b"")
        with (drive / "config.txt").open("rb"):
            with pytest.raises(PermissionError):
                (drive / "new.txt").replace(drive / "config.txt")
            with pytest.raises(PermissionError):
                (drive / "config.txt").unlink()
        (drive / "config.txt").chmod(0o444)
        with pytest.raises(PermissionError):
            (drive / "new.txt").replace(drive / "config.txt")
        (drive / "config.txt").chmod(0o644)
        (drive / "new.txt").replace(drive / "config.txt")
    assert tree_of(card) == {"CONFIG.TXT": b"y"}


@pytest.mark.parametrize("name", STOCK)
def test_a_card_becomes_a_node_and_another_one(tmp_path: Path, room: str, name: str) -> None:
    plain = put_tree(tmp_path / "plain", STOCK[name])
    card = put_tree(tmp_path / "card", in_capitals(STOCK[name]))
    put_tree(card, {"System Volume Information/IndexerVolumeGuid": b"x"})
    with windows_drive(card) as drive:
        assert not volume_at(drive).keeps_unlinked
        for node in ("pi-01", "pi-02"):
            assert apply(drive, room, node) == apply(plain, room, node) == 0
            found = without_case(tree_of(card))
            assert found.pop("system volume information/indexervolumeguid") == b"x"
            assert found == without_case(tree_of(plain))
        assert rpi_image(["verify", str(drive), "-c", room, "--node", "pi-02"]) == 0
    assert len(tree_of(card)) == len(tree_of(plain)) + 1


def test_a_file_with_the_read_only_attribute_is_replaced(tmp_path: Path, room: str) -> None:
    card = put_tree(tmp_path / "card", STOCK["firstrun-bookworm"])
    for path in card.iterdir():
        path.chmod(0o444)
    with windows_drive(card) as drive:
        assert apply(drive, room, "pi-01") == 0
    assert b"systemd.run" in (card / "cmdline.txt").read_bytes()


def test_a_read_only_drive_is_refused(
    tmp_path: Path, room: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a locked card, and as Linux mounts one that was left dirty and is damaged."""
    card = put_tree(tmp_path / "card", STOCK["firstrun-bookworm"])
    with windows_drive(card, read_only=True) as drive:
        assert apply(drive, room, "pi-01") == 6
        said = capsys.readouterr().err
        assert f"{drive} is read-only" in said
        assert "chkdsk E: /f" in said
        assert rpi_image(["inspect", str(drive)]) == 0
    assert tree_of(card) == STOCK["firstrun-bookworm"]


@pytest.mark.parametrize("writes", [0, 7, 20])
def test_a_card_that_is_pulled_out_is_finished_by_the_next_run(
    tmp_path: Path, room: str, writes: int, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = put_tree(tmp_path / "plain", STOCK["firstrun-bookworm"])
    card = put_tree(tmp_path / "card", STOCK["firstrun-bookworm"])
    assert apply(plain, room, "pi-01") == 0
    with windows_drive(card, writes=writes) as drive:
        assert apply(drive, room, "pi-01") == 7
        said = capsys.readouterr().err
        assert "hint: check that the card is inserted" in said
        assert rpi_image(["inspect", str(drive)]) == 5
    assert tree_of(card) != tree_of(plain)
    with windows_drive(card) as drive:
        assert apply(drive, room, "pi-01") == 0
    assert tree_of(card) == tree_of(plain)
