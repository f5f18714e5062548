"""The node that is booted: its classroom file, and its image as `rpi-image build` writes it."""

from __future__ import annotations

import hashlib
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from tests.boot import images, recorder
from tests.lib.tools import run

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).parents[2]
SSID = "Ab\"$HOME`id`'é 📶"
PASSPHRASE = "p\"$(reboot)`id`'\\&/%s é"
SECOND_SSID = "back slash\\ #1"
SECOND_PASSPHRASE = "correct horse"
PASSWORD = 'un mot de passe $1 "x"'
# Of PASSWORD, as `openssl passwd -6` has it.
PASSWORD_HASH = (
    "$6$w8OaYlvW$CwWRX952HaRMeV7UqEKXn28nbkFDVVSxDShFj4e5jxOKALObf/"
    "Lfy20cwLcyVahjwqDp6isHsOioL8KAW0OVt."
)
SHACK = "10.0.2.2"
SETTINGS: dict[str, Any] = {
    "name": "boot tests",
    "profile": "armv7",
    "shack": {"address": SHACK},
    "wifi": {
        "country": "FR",
        "networks": [
            {"ssid": SSID, "passphrase": PASSPHRASE},
            {"ssid": SECOND_SSID, "passphrase": SECOND_PASSPHRASE, "hidden": True},
        ],
    },
    "timezone": "Europe/Paris",
    "locale": "fr_FR.UTF-8",
    "docker": {"labels": {"room": "B12/é"}},
}
# The build is later than the Pi's clock: whoever does not mind the clock is found out.
AHEAD_SECONDS = 6 * 3600


@dataclass(frozen=True)
class Node:
    """What a node is to be, laid over SETTINGS."""

    generation: str
    hostname: str = "pi-03"
    settings: Mapping[str, Any] = field(default_factory=dict)

    def document(self, base: Path) -> dict[str, Any]:
        """Return the classroom file."""
        return {
            **SETTINGS,
            "image": {"file": str(base), "unchecked": True},
            "nodes": [{"hostname": self.hostname}],
            **self.settings,
        }


def psk_of(ssid: str, passphrase: str) -> str:
    """Return the PSK as IEEE 802.11i has it, by the standard library."""
    return hashlib.pbkdf2_hmac("sha1", passphrase.encode(), ssid.encode(), 4096, 32).hex()


def build(node: Node, folder: Path, base: Path | None = None) -> Path:
    """Run `rpi-image build` for the node over a vendor's image or the `base` given."""
    folder.mkdir(parents=True, exist_ok=True)
    room = folder / "room.yml"
    document = node.document(base or images.golden(node.generation))
    room.write_text(yaml.safe_dump({"ssh_keys": {"file": str(key(folder))}, **document}))
    out = folder / f"{node.hostname}.img"
    epoch = str(int(time.time()) + AHEAD_SECONDS)
    (folder / "epoch").write_text(epoch)
    run(
        "env", f"SOURCE_DATE_EPOCH={epoch}", f"PYTHONPATH={ROOT}",
        f"XDG_CACHE_HOME={folder / 'cache'}", sys.executable, "-m", "imagebuilder", "build",
        "--config", room, "--hostname", node.hostname, "-o", out,
        cwd=folder,
    )  # fmt: skip
    return out


def tarball(folder: Path) -> Path:
    """Write the recorded images' tarball beside the classroom file."""
    folder.mkdir(parents=True, exist_ok=True)
    return recorder.make_tarball(folder / "images.tar")


def key(folder: Path) -> Path:
    """Return the public half of an SSH key of the teacher's in that folder."""
    private = folder / "key"
    if not private.exists():
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "teacher@shack", "-f", private)
    return private.with_suffix(".pub")
