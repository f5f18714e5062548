"""Inspect the boot partition of an image or a card, read-only."""

from __future__ import annotations

import json
import os
import re
import shlex
import stat
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from imagebuilder.build.boot_folder import BootFolder
from imagebuilder.disk.fat.volume import BootVolume
from imagebuilder.disk.partitions import boot_partition, read_partitions
from imagebuilder.disk.reader import open_raw
from imagebuilder.errors import ImageError, RpiImageError, reading, unreadable
from imagebuilder.files import has_file, has_folder
from imagebuilder.images.archives.formats import is_compressed
from imagebuilder.images.archives.unpack import open_stream
from imagebuilder.images.root_system import read_root_system
from imagebuilder.images.sparse import open_lazily_unpacked
from imagebuilder.plan.boot_files import read_boot_text
from imagebuilder.plan.card_layout import NODE_ENV, STATUS, WIFI
from imagebuilder.progress import SILENT, Reporter
from imagebuilder.resources import shipped_folder

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from imagebuilder.disk.extent import Partition
    from imagebuilder.disk.reader import Opener, ReadAt
    from imagebuilder.images.cache import Cache
    from imagebuilder.model import RootSystem
    from imagebuilder.plan.boot_files import BootFiles

# The file with the hostname in each generation, for cards without our files.
_STOCK_HOSTNAMES = (
    ("occidentalis.txt", r"^hostname=(.*?)\r?$"),
    ("device-init.yaml", r"^hostname:\s*[\"']?([^\"'#\s]+)"),
    ("user-data", r"^hostname:\s*[\"']?([^\"'#\s]+)"),
)


@dataclass(frozen=True, slots=True)
class WifiReport:
    """A wireless network of a card, without its secret."""

    ssid: str
    country: str
    hidden: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageReport:
    """The result of an inspection; unknown values are empty.

    A mounted boot partition does not show its partitions, its type and whether it is clean. `node`
    holds the values of node.env except secrets, `status` the last status of the Pi, `reach` how the
    card is reached until it has booted.
    """

    partitions: tuple[Partition, ...]
    fat_type: str
    fat_free_bytes: int
    fat_clean: bool | None
    generation: str
    hostname: str
    wifi: tuple[WifiReport, ...]
    node: Mapping[str, str]
    status: Mapping[str, Any] | None
    reach: str = ""

    @property
    def vendor_logins(self) -> str:
        """The image's own logins after the first boot: `locked`, `kept`, or empty if unknown."""
        if not self.node:
            return ""
        kept = not self.node.get("USER_NAME") or self.node.get("KEEP_VENDOR_LOGIN") == "1"
        return "kept" if kept else "locked"

    def as_json(self) -> dict[str, Any]:
        """Return the report as JSON; the keys are stable."""
        node = self.node
        return {
            "generation": self.generation,
            "hostname": self.hostname,
            "arch": node.get("NODE_ARCH", ""),
            "docker_opts": node.get("DOCKER_OPTS", ""),
            "shack": node.get("SHACK_ADDRESS", ""),
            "cluster": _cluster(node),
            "user": node.get("USER_NAME", ""),
            "vendor_logins": self.vendor_logins,
            "reach": self.reach,
            "wifi": [
                {"ssid": net.ssid, "country": net.country, "hidden": net.hidden}
                for net in self.wifi
            ],
            "address": node.get("NETWORK_ADDRESS", ""),
            "config_hash": node.get("RPI_IMAGE_HASH", ""),
            "partitions": [
                {
                    "number": part.number,
                    "start_bytes": part.start_bytes,
                    "size_bytes": part.size_bytes,
                    "type": part.kind,
                }
                for part in self.partitions
            ],
            "fat": {
                "type": self.fat_type,
                "free_bytes": self.fat_free_bytes,
                "clean": self.fat_clean,
            },
            "status": self.status,
        }


def inspect_file(
    path: Path, cache: Cache, reporter: Reporter = SILENT, opener: Opener = os.open
) -> ImageReport:
    """Return the report of an image, compressed image, device or mounted boot partition.

    Raise ImageError on failure.
    """
    if has_folder(path):
        return inspect_folder(path)
    with _open_any(path, cache, reporter, opener) as disk, reading(str(path), ImageError):
        # The root of a compressed image would have to be unpacked.
        return inspect_disk(disk, root=not (has_file(path) and is_compressed(path)))


@contextmanager
def _open_any(path: Path, cache: Cache, reporter: Reporter, opener: Opener) -> Iterator[ReadAt]:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise unreadable(path, error) from error
    if stat.S_ISBLK(mode) or not is_compressed(path):
        with open_raw(path, opener) as raw:
            yield raw
        return
    with (
        cache.scratch(f"inspect {path.resolve()}", reporter) as part,
        open_stream(path) as stream,
        # The boot partition lies at the front: the rest is not unpacked.
        open_lazily_unpacked(stream, part, "unpacking", reporter) as disk,
    ):
        yield disk


def inspect_folder(path: Path) -> ImageReport:
    """Return the report of a mounted boot partition. Raise ImageError if the folder is none."""
    folder = BootFolder(path)
    if not folder.is_boot_partition:
        raise ImageError(
            f"{path} is a folder, but not a boot partition", "use the path of an image in it"
        )
    space = folder.space()
    with reading(str(path), ImageError):
        return _report(folder, (), ("", space.free * space.cluster_bytes, None))


def inspect_disk(image: ReadAt, *, root: bool = True) -> ImageReport:
    """Return the report of a disk. Raise ImageError if it has no readable boot partition.

    With `root` the root file system is asked for what it says of Docker.
    """
    partitions = read_partitions(image)
    volume = BootVolume(image, boot_partition(image, partitions))
    fat = (volume.kind, volume.free_bytes, volume.clean)
    return _report(volume, partitions, fat, image if root else None)


def _root_system(disk: ReadAt | None) -> RootSystem | None:
    """Return the system of the root; a damaged one is left to the Pi, which may repair it."""
    try:
        return read_root_system(disk) if disk else None
    except ImageError:
        return None


def _report(
    volume: BootFiles,
    partitions: tuple[Partition, ...],
    fat: tuple[str, int, bool | None],
    disk: ReadAt | None = None,
) -> ImageReport:
    kind, free_bytes, clean = fat
    node = parse_node_env(read_boot_text(volume, NODE_ENV, errors="replace"))
    wifi = parse_wpa_supplicant(read_boot_text(volume, WIFI, errors="replace"))
    return ImageReport(
        partitions=partitions,
        fat_type=kind,
        fat_free_bytes=free_bytes,
        fat_clean=clean,
        generation=node.get("NODE_GENERATION", "") or _generation(volume),
        hostname=node.get("NODE_HOSTNAME", "") or _stock_hostname(volume),
        wifi=wifi,
        node={name: value for name, value in node.items() if name not in SECRET_NAMES},
        status=_status(volume),
        reach=_reach(volume, node, wifi, disk),
    )


SECRET_NAMES = frozenset({"USER_PASSWORD_HASH", "CONSUL_ENCRYPT", "CONSUL_TOKEN"})


def parse_node_env(text: str) -> dict[str, str]:
    """Return the NAME='value' assignments, parsed as in a shell; ignore other lines."""
    values: dict[str, str] = {}
    for word in _shell_words(text):
        name, equals, value = word.partition("=")
        if equals and re.fullmatch(r"[A-Z_]+", name):
            values[name] = value
    return values


def parse_wpa_supplicant(text: str) -> tuple[WifiReport, ...]:
    """Return the networks of a wpa_supplicant.conf, with quoted or hex SSIDs."""
    country = _field(text, "country")
    blocks = re.findall(r"network=\{(.*?)\n\s*\}", text, re.DOTALL)
    return tuple(
        WifiReport(_ssid(_field(block, "ssid")), country, _field(block, "scan_ssid") == "1")
        for block in blocks
    )


def _shell_words(text: str) -> list[str]:
    try:
        return shlex.split(text, comments=True)
    except ValueError:
        return []


def _field(text: str, name: str) -> str:
    found = re.search(rf"^\s*{name}=(.*?)\s*$", text, re.MULTILINE)
    return found[1] if found else ""


def _ssid(text: str) -> str:
    if text.startswith('"'):
        return text[1:-1]
    try:
        return bytes.fromhex(text).decode("utf-8", "replace")
    except ValueError:
        return text


def _status(volume: BootFiles) -> dict[str, Any] | None:
    try:
        status = json.loads(read_boot_text(volume, STATUS, errors="replace") or "null")
    except ValueError:
        return None
    return status if isinstance(status, dict) else None


def _stock_hostname(volume: BootFiles) -> str:
    for path, pattern in _STOCK_HOSTNAMES:
        found = re.search(pattern, read_boot_text(volume, path, errors="replace"), re.MULTILINE)
        if found:
            return found[1]
    return ""


def _generation(volume: BootFiles) -> str:
    # Imported here because Jinja2 and pydantic are slow to import.
    from imagebuilder.plan.generations import detect  # noqa: PLC0415
    from imagebuilder.plan.overlays import load_generations  # noqa: PLC0415

    try:
        return detect(load_generations((shipped_folder("overlays"),)), volume).name
    except RpiImageError:
        return ""


def _reach(
    volume: BootFiles, node: Mapping[str, str], wifi: Sequence[WifiReport], disk: ReadAt | None
) -> str:
    """Return how the card is reached; empty once the Pi has taken the secrets off the card."""
    if not node or volume.exists(STATUS):
        return ""
    from imagebuilder.build.card_reach import reach_of_card  # noqa: PLC0415 - as above

    ssids = [network.ssid for network in wifi]
    return reach_of_card(volume, node, ssids, _root_system(disk))


def _cluster(node: Mapping[str, str]) -> dict[str, str] | None:
    if node.get("CLUSTER") != "1":
        return None
    names = ("CONSUL_IMAGE", "CONSUL_SERVER", "SWARM_IMAGE", "SHACK_KIND")
    return {name.lower(): node.get(name, "") for name in names}
