"""`rpi-image status` beside a ledger of an earlier version, which has hashes and no settings."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.lib.program import emitted, rpi_image, small_base
from tests.lib.tools import need

if TYPE_CHECKING:
    from pathlib import Path

ROOM = """\
profile: armv7
image: {{file: {image}, unchecked: true}}
shack: {{address: 127.0.0.1, ports: {{consul: 1, swarm: 2}}}}
wifi: {{country: FR, networks: [{{ssid: shack, passphrase: correct horse}}]}}
nodes: [{{hostname: "pi-[01-02]"}}]
"""


def test_hashes_are_compared_where_the_base_image_is_available(tmp_path: Path) -> None:
    need("sfdisk", "zstd")
    file, cache = tmp_path / "room.yml", tmp_path / "cache"
    file.write_text(ROOM.format(image=small_base(tmp_path)))
    planned = emitted(rpi_image("batch", file, "--dry-run", "--json", cache=cache))["nodes"]
    entry = "- {{node: {}, state: written, config_hash: {}}}\n"
    file.with_suffix(".cards.yml").write_text(
        "cards:\n"
        + entry.format("pi-01", planned[0]["config_hash"])
        + entry.format("pi-02", "ab" * 32)
    )
    done = rpi_image("status", file, "--json", "--check", cache=cache)
    assert done.returncode == 8
    assert [n["card"] for n in json.loads(done.stdout)["nodes"]] == ["current", "outdated"]
