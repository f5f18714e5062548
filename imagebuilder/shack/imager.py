"""Write the images of a class as a repository of Raspberry Pi Imager, in a local folder.

The form is that of `os_list_imagingutility_v4.json` (doc/json-schema of raspberrypi/rpi-imager); an
image on this computer has a `file:` URL, and no relative one is accepted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from imagebuilder.build.manifest import load_class, load_manifest, manifest_path, still_describes
from imagebuilder.errors import InputError
from imagebuilder.files import create_folder, has_file, write_json
from imagebuilder.images.archives.formats import is_compressed
from imagebuilder.plan.vendor.boards import BOARDS, find_board
from imagebuilder.progress import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from imagebuilder.model import BaseImage, Classroom, ImageSource, NodeSettings
    from imagebuilder.plan.vendor.boards import Board
    from imagebuilder.progress import Reporter

FORMAT = "imager"
FILE = "os_list.json"

# An icon of Raspberry Pi Imager itself (src/icons): no other one has to be downloaded.
_ICON = "icons/cat_raspberry_pi_os.png"
# Imager then offers no settings of its own, which would compete with ours.
_NO_SETTINGS = "none"
_DATE = re.compile(r"20[0-9]{2}-[01][0-9]-[0-3][0-9]")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_OPEN_TO_OTHERS = 0o077


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagerRepository:
    """The repository of a class; with `images` also the images of its nodes in that folder.

    `boards` are the names of the boards of each profile, as far as they are known. `cached` returns
    the base image of a source if this computer has it, `today` is the date of images without one.
    """

    classroom: Classroom
    images: Path | None
    boards: Mapping[str, Sequence[str]]
    cached: Callable[[ImageSource], BaseImage | None]
    reporter: Reporter
    today: str

    def write(self, folder: Path) -> Path:
        """Write the list to a folder that only its owner can read, and return its path."""
        content = self.content()
        create_folder(folder, 0o700)
        path = folder / FILE
        write_json(path, content, 0o600)
        return path

    def content(self) -> dict[str, Any]:
        """Return the list: base images, images of nodes, and the boards to choose from.

        Raise InputError if `images` has none of the class.
        """
        nodes = self.classroom.nodes
        entries = [*self._base_entries(), *self._node_entries()]
        boards = [board for board in BOARDS if any(board in self._boards(node) for node in nodes)]
        devices = [_device(board) for board in boards]
        everything = {"name": "No filtering", "tags": [], "matching_type": "inclusive"}
        devices.append({**everything, "description": "Show every image"})
        return {"imager": {"devices": devices}, "os_list": entries}

    # ---- base images

    def _base_entries(self) -> Iterator[dict[str, Any]]:
        groups: dict[tuple[ImageSource, str], list[NodeSettings]] = {}
        for node in self.classroom.nodes:
            groups.setdefault((node.image, node.board or node.profile), []).append(node)
        bases = {source: self._base(source) for source, _ in groups}
        for (source, board), nodes in groups.items():
            yield {
                "name": f"{board}: {source.name}",
                "description": f"base image for {counted(len(nodes), 'card')} of "
                f"{self.classroom.name}; `rpi-image apply` makes them nodes",
                **bases[source],
                "release_date": _date_in(source),
                **self._kind(nodes[0]),
            }

    def _base(self, source: ImageSource) -> dict[str, Any]:
        """Return URL, sizes and digest of a base image; 0 and empty if they are not known."""
        file, cached = source.file, self.cached(source)
        size = file.stat().st_size if file and has_file(file) else 0
        is_raw = file is not None and size > 0 and not is_compressed(file)
        digest = source.raw_sha256 or (cached.sha256 if cached else source.sha256 * is_raw)
        if not digest:
            self.reporter.warn(
                f"the checksum of {source.name} unpacked is not known, so Raspberry Pi Imager"
                " cannot check it: run `rpi-image fetch` first"
            )
        # Imager counts a size of 0 and an empty digest as not known (imagewriter.cpp, setSrc).
        raw_size = source.raw_size_bytes or (cached.size_bytes if cached else size * is_raw)
        return {
            "url": source.url or (file.resolve().as_uri() if file else ""),
            "extract_size": raw_size,
            "extract_sha256": digest,
            "image_download_size": size,
        }

    # ---- images of nodes

    def _node_entries(self) -> Iterator[dict[str, Any]]:
        if self.images is None:
            return
        known = load_class(self.images)
        missing = []
        for number, node in enumerate(self.classroom.nodes, 1):
            image = self.images / f"{node.hostname}.img"
            digest = _digest_of(image, known.get(node.hostname, {}))
            if digest:
                yield self._node_entry(number, node, image, digest)
            else:
                missing.append(node.hostname)
        self._tell(missing)

    def _node_entry(
        self, number: int, node: NodeSettings, image: Path, digest: str
    ) -> dict[str, Any]:
        size = image.stat().st_size
        owner = f", {node.owner}" if node.owner else ""
        place = f"label {number} of {len(self.classroom.nodes)}"
        return {
            "name": f"{node.hostname} ({self.classroom.name})",
            "description": f"{place}{owner}: complete image with secrets",
            "url": image.resolve().as_uri(),
            "extract_size": size,
            "extract_sha256": digest,
            "image_download_size": size,
            "release_date": self.today,
            **self._kind(node),
        }

    def _tell(self, missing: list[str]) -> None:
        if len(missing) == len(self.classroom.nodes):
            raise InputError(
                f"{self.images} has no image of a node of {self.classroom.path.name}",
                f"run `rpi-image batch {self.classroom.path.name} -o {self.images}`",
            )
        if missing:
            names = f"{', '.join(missing[:4])}{' …' * (len(missing) > 4)}"  # noqa: PLR2004 - shown
            self.reporter.warn(f"{self.images} has no finished image of {names}")
        self.reporter.warn(
            f"the images in {self.images} hold secrets, such as passphrases and keys: do not serve"
            f" or share them{_opened_to_others(self.images)}"
        )

    # ---- boards

    def _boards(self, node: NodeSettings) -> list[Board]:
        """Return the board of a node, or all that its profile is for."""
        if board := find_board(node.board):
            return [board]
        known = self.boards.get(node.profile, ())
        able = [b for b in BOARDS if not set(b.machines).isdisjoint(node.machines)]
        return [board for board in able if board.name in known] or able

    def _kind(self, node: NodeSettings) -> dict[str, Any]:
        width = "64bit" if node.arch == "arm64" else "32bit"
        tags = (tag for board in self._boards(node) for tag in board.tags if tag.endswith(width))
        return {
            "devices": list(dict.fromkeys(tags)),
            "init_format": _NO_SETTINGS,
            "architecture": "armv8" if width == "64bit" else "armhf",
            "icon": _ICON,
        }


def _digest_of(image: Path, entry: dict[str, Any]) -> str:
    """Return the digest of a finished image of `batch`; empty if there is none."""
    manifest = load_manifest(manifest_path(image))
    if manifest is None or not still_describes(entry, manifest) or not has_file(image):
        return ""
    digest = str(manifest.get("image_sha256") or "")
    return digest if _DIGEST.fullmatch(digest) else ""


def _opened_to_others(folder: Path | None) -> str:
    """Return what to add for a folder that others may read; Windows has no such mode."""
    if folder is None or not hasattr(folder.stat(), "st_blocks"):
        return ""
    return f"; `chmod 700 {folder}`" if folder.stat().st_mode & _OPEN_TO_OTHERS else ""


def _date_in(source: ImageSource) -> str:
    """Return the date in the name or URL of an image, the last one; empty if it has none."""
    found = _DATE.findall(f"{source.url} {source.file or ''} {source.name}")
    return found[-1] if found else ""


def _device(board: Board) -> dict[str, Any]:
    return {
        "name": f"Raspberry Pi {board.name}",
        "description": f"`{board.word}` in a classroom file",
        "tags": list(board.tags),
        "matching_type": "exclusive",
    }
