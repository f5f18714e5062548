"""`apply --queue` as a program, with drives that are really mounted and ejected."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.lib.boot_folders import put_tree, tree_of
from tests.lib.plan_samples import STOCK
from tests.lib.program import emitted
from tests.lib.tools import need, need_root

pytestmark = [pytest.mark.root, pytest.mark.long]

ROOM = """\
name: class-3b
profile: armv7
allow: [no-login]
image: hypriotos-1.12.3
wifi: {country: FR, networks: [{ssid: shack, passphrase: correct horse battery}]}
nodes:
  - {hostname: pi-01, owner: Zoë}
  - {hostname: pi-02}
"""
# In mounts of its own: the queue would take what other tests mount.
OWN_MOUNTS = ("unshare", "--mount", "--propagation", "private", "--kill-child", "--fork")

# Puts in one card after the other, each when the one before was ejected.
DESK = """
import subprocess, sys, time
from pathlib import Path
from tests.lib.windows_drive import windows_drive
program = [sys.executable, "-m", "imagebuilder", "apply", "--queue", "--yes", "--json",
           "-c", "room.yml"]
with Path("said.txt").open("w") as said, subprocess.Popen(program, stderr=said) as queue:
    while "insert cards" not in Path("said.txt").read_text():
        time.sleep(0.05)
    time.sleep(0.5)
    for card in sys.argv[1:]:
        with windows_drive(Path(card)) as drive:
            while drive.is_mount() and queue.poll() is None:
                time.sleep(0.05)
sys.exit(queue.returncode)
"""


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    need("unshare", "umount", "fusermount3")
    need_root()
    (tmp_path / "room.yml").write_text(ROOM, encoding="utf-8")
    return tmp_path


def test_cards_that_are_mounted_become_nodes_and_are_unmounted(desk: Path) -> None:
    cards = [put_tree(desk / name, STOCK["firstrun-bookworm"]) for name in ("one", "two")]
    begin = time.monotonic()
    done = subprocess.run(
        [*OWN_MOUNTS, sys.executable, "-c", DESK, *map(str, cards)],
        capture_output=True,
        text=True,
        check=False,
        cwd=desk,
        timeout=120,
        env={
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "RPI_IMAGE_CACHE": str(desk / "cache"),
            "SOURCE_DATE_EPOCH": "1700000000",
            "HOME": str(desk),
        },
    )
    shown = emitted(done)["cards"]
    assert [(card["hostname"], card["ejected"]) for card in shown] == [
        ("pi-01", True),
        ("pi-02", True),
    ]
    said = (desk / "said.txt").read_text()
    assert "attach label 1 of 2, pi-01 (Zoë)" in said
    for card, name in zip(cards, ("pi-01", "pi-02"), strict=True):
        assert f"NODE_HOSTNAME='{name}'" in tree_of(card)["rpi-image/node.env"].decode()
    ledger = yaml.safe_load((desk / "room.cards.yml").read_text())["cards"]
    assert [(entry["node"], entry["state"]) for entry in ledger] == [
        ("pi-01", "written"),
        ("pi-02", "written"),
    ]
    assert time.monotonic() - begin < 90
