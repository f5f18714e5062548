"""A card that was pulled out while `apply` wrote to it becomes the whole node."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import yaml

from imagebuilder.build.boot_folder import BootFolder
from imagebuilder.cli.main import run as rpi_image
from imagebuilder.errors import WriteError
from tests.boot import images, nodes
from tests.boot.images import GENERATIONS, SECTOR_BYTES
from tests.boot.test_generations import ALONE, NAMED, expect_alone, up
from tests.boot.vendorfacts import expect_settings
from tests.lib.tools import need, run

if TYPE_CHECKING:
    from pathlib import Path

    from tests.boot.conftest import StartPi

pytestmark = [pytest.mark.boot, pytest.mark.root, pytest.mark.full]

# The file that starts the installer; those of the image that follow it are not written any more.
STARTS = {"occidentalis-jessie": "cmdline.txt", "cloud-init-trixie": "user-data"}


@pytest.mark.parametrize("generation", STARTS)
def test_a_card_that_was_pulled_out_becomes_the_node(
    generation: str, start: StartPi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need("mcopy")
    vendor = GENERATIONS[generation]
    card = tmp_path / "card.img"
    images.make_image(vendor.kind, generation, card)
    drive = f"{card}@@{vendor.fat.start_sectors * SECTOR_BYTES}"
    folder = tmp_path / "bootfs"
    folder.mkdir()
    run("mcopy", "-s", "-n", "-Q", "-i", drive, "::", folder)

    pulled_out_after(STARTS[generation], monkeypatch)
    node = nodes.Node(generation, settings=ALONE | NAMED.get(generation, {}))
    document = {"ssh_keys": {"file": str(nodes.key(tmp_path))}, **node.document(card)}
    (tmp_path / "room.yml").write_text(yaml.safe_dump(document))
    words = ["apply", str(folder), "-c", str(tmp_path / "room.yml"), "--node", "pi-03", "--yes"]
    assert rpi_image(words) == WriteError.exit_code
    assert (folder / "rpi-image" / "next.list").exists()
    card.chmod(0o600)
    run("mcopy", "-s", "-o", "-Q", "-i", drive, *sorted(folder.iterdir()), "::")

    pi = start(card)
    status = up(pi)
    assert (status["hostname"], status["install"]) == ("pi-03", "ok"), status
    expect_settings(pi)
    expect_alone(pi, tmp_path)
    pi.halt()
    pi.expect_sound()
    for path in ("rpi-image/next.list", f"rpi-image/next/{STARTS[generation]}"):
        assert pi.read_boot(path) is None
    assert nodes.PASSPHRASE.encode() not in pi.partitions()[0].read_bytes()


def pulled_out_after(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the card be gone once a file is written."""
    real = BootFolder.write

    def write(self: BootFolder, name: str, *words: Any, **more: Any) -> None:
        real(self, name, *words, **more)
        if name == path:
            raise WriteError(f"{path} was the last file", "the card was pulled out")

    monkeypatch.setattr(BootFolder, "write", write)
