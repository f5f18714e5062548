"""All the images of a classroom over few bases: side by side, incremental, one failure alone."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from imagebuilder import __version__
from imagebuilder.build import (
    make_folder,
    refuse_bases,
    write_error,
    write_image,
    write_json,
    write_text,
)
from imagebuilder.compose import (
    WITHOUT_BASE,
    Composer,
    open_composer,
    plan_one_image_without_base,
    plan_without_base,
)
from imagebuilder.errors import RpiImageError, WriteError
from imagebuilder.files import has_file
from imagebuilder.oneimage import check_identities
from imagebuilder.progress import SILENT, Voice
from imagebuilder.rawcopy import reflink

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from imagebuilder.compose import Composition
    from imagebuilder.model import BaseImage, Classroom, ImageSource, NodePlan, NodeSettings

_SUM = re.compile(r"^([0-9a-f]{64})  (\S+)$", re.MULTILINE)
NAME_BYTES = 200  # of the 255 that a file system takes: suffixes come behind


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeOutcome:
    """What became of one node; `state` is built, unchanged, planned or failed."""

    hostname: str
    state: str
    image: Path
    settings: NodeSettings
    generation: str = ""
    config_hash: str = ""
    sha256: str = ""
    changes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    error: RpiImageError | None = None


@dataclass(kw_only=True)
class Batch:
    """One run over a roster; `obtain` gives the unpacked base of an image source.

    Where it gives None, which a run that only plans may, nodes are planned without their base.
    """

    classroom: Classroom
    folder: Path
    obtain: Callable[[ImageSource], BaseImage | None]
    epoch: int
    jobs: int = 2
    voice: Voice = SILENT
    _turn: threading.Lock = field(init=False, default_factory=threading.Lock)

    def plan(self, nodes: Sequence[NodeSettings]) -> list[NodeOutcome]:
        """Plan every node and compare it with its last build; nothing is written."""
        self._refuse_bases(nodes)
        return self._each_base(nodes, self._planned)

    def build(self, nodes: Sequence[NodeSettings]) -> list[NodeOutcome]:
        """Write every node that is not up to date, then the sums and the class's manifest."""
        self._refuse_bases(nodes)
        make_folder(self.folder)
        self._earlier_sums()  # whether they can be read is better known before the first image
        outcomes = self._each_base(nodes, self._built)
        self._write_sums(outcomes)
        return outcomes

    def compose_one(self, nodes: Sequence[NodeSettings]) -> Composition | NodePlan:
        """Compose one image that serves every node; its plan alone where the base is not here.

        Raises SettingsError where one image cannot serve them.
        """
        check_identities(nodes)
        base = self.obtain(nodes[0].image)
        if base is None:
            self.voice.warn(WITHOUT_BASE)
            return plan_one_image_without_base(nodes, self.epoch)
        with open_composer(base, epoch=self.epoch, voice=self.voice) as composer:
            return composer.compose_one_image(nodes)

    def _refuse_bases(self, nodes: Sequence[NodeSettings]) -> None:
        """Look at every node first: one's image may be what another's is made from."""
        files = {node.image.file for node in self.classroom.nodes}
        refuse_bases(map(self.image_of, nodes), filter(None, files))

    def _each_base(
        self,
        nodes: Sequence[NodeSettings],
        work: Callable[[Composer, Sequence[NodeSettings]], Iterable[NodeOutcome]],
    ) -> list[NodeOutcome]:
        found: dict[str, NodeOutcome] = {}
        for source, group in group_by_image(nodes):
            try:
                base = self.obtain(source)
                if base is None:
                    self.voice.warn(WITHOUT_BASE)
                    found |= {node.hostname: self._plan_without_base(node) for node in group}
                    continue
                with open_composer(base, epoch=self.epoch, voice=self.voice) as composer:
                    found |= {outcome.hostname: outcome for outcome in work(composer, group)}
            except RpiImageError as error:
                found |= {node.hostname: self._failed(node, error) for node in group}
        return [found[node.hostname] for node in nodes]

    def _planned(self, composer: Composer, nodes: Sequence[NodeSettings]) -> Iterable[NodeOutcome]:
        return [self._plan_one(node, composer) for node in nodes]

    def _built(self, composer: Composer, nodes: Sequence[NodeSettings]) -> Iterable[NodeOutcome]:
        plans = [self._plan_one(node, composer) for node in nodes]
        todo = [outcome for outcome in plans if outcome.state == "planned"]
        check_room(self.folder, composer.base, len(todo))
        with (
            self.voice.meter("nodes", len(todo), "node") as meter,
            ThreadPoolExecutor(self.jobs) as pool,
        ):

            def write(outcome: NodeOutcome) -> NodeOutcome:
                if outcome.state != "planned":
                    return outcome
                written = self._write_one(outcome, composer)
                meter.advance(1)
                return written

            return list(pool.map(write, plans))

    def _plan_one(self, node: NodeSettings, composer: Composer) -> NodeOutcome:
        try:
            plan = composer.plan(node)
        except RpiImageError as error:
            return self._failed(node, error)
        image = self.image_of(node)
        last = load_manifest(image)
        changes = changes_since(plan, composer.base, last)
        if not changes and has_file(image) and image.stat().st_size != composer.base.size_bytes:
            changes = ("image is not complete",)
        return NodeOutcome(
            hostname=node.hostname,
            state="planned" if changes or not has_file(image) else "unchanged",
            image=image,
            settings=node,
            generation=plan.generation,
            config_hash=plan.config_hash,
            sha256=(last or {}).get("image_sha256") or "",
            changes=changes,
            warnings=plan.warnings,
        )

    def _plan_without_base(self, node: NodeSettings) -> NodeOutcome:
        try:
            plan = plan_without_base(node, self.epoch)
        except RpiImageError as error:
            return self._failed(node, error)
        image = self.image_of(node)
        # What the image itself adds is not known, so that comparing would name what is the same.
        there = has_file(image) and load_manifest(image) is not None
        return NodeOutcome(
            hostname=node.hostname,
            state="planned",
            image=image,
            settings=node,
            generation=plan.generation,
            config_hash=plan.config_hash,
            changes=("not compared: the base image is not here",) if there else ("new",),
            warnings=plan.warnings,
        )

    def _write_one(self, outcome: NodeOutcome, composer: Composer) -> NodeOutcome:
        try:
            with self._turn:  # the editor is pure Python: taking turns costs nothing
                composition = composer.compose(outcome.settings)
            written = write_image(composition, outcome.image, digest=True)
        except RpiImageError as error:
            return self._failed(outcome.settings, error)
        return replace(outcome, state="built", sha256=written.sha256)

    def image_of(self, node: NodeSettings) -> Path:
        """Give the path of a node's image."""
        return self.folder / f"{node.hostname}.img"

    @property
    def image_of_all(self) -> Path:
        """Give the path of the one image for the class, which may be called anything."""
        name = re.sub(r'[/\\:*?"<>|\x00-\x1f]+', "-", self.classroom.name).strip(". ")
        short = name.encode(errors="replace")[:NAME_BYTES].decode(errors="ignore")
        return self.folder / f"{short or 'classroom'}.img"

    def _failed(self, node: NodeSettings, error: RpiImageError) -> NodeOutcome:
        return NodeOutcome(
            hostname=node.hostname,
            state="failed",
            image=self.image_of(node),
            settings=node,
            error=error,
        )

    def _write_sums(self, outcomes: Sequence[NodeOutcome]) -> None:
        roster = {node.hostname for node in self.classroom.nodes}
        fresh = {outcome.hostname: outcome for outcome in outcomes if outcome.sha256}
        rows = {
            name: digest
            for name, digest in self._earlier_sums().items()
            if name.removesuffix(".img") in roster
        }
        rows |= {outcome.image.name: outcome.sha256 for outcome in fresh.values()}
        text = "".join(f"{digest}  {name}\n" for name, digest in sorted(rows.items()))
        write_text(self.folder / "SHA256SUMS", text)
        write_json(self.folder / "classroom.json", self._class_manifest(outcomes))

    def _earlier_sums(self) -> dict[str, str]:
        path = self.folder / "SHA256SUMS"
        try:
            text = path.read_text("utf-8", "replace")
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise write_error(path, error) from error
        return {name: digest for digest, name in _SUM.findall(text)}

    def _class_manifest(self, outcomes: Sequence[NodeOutcome]) -> dict[str, Any]:
        return {
            "tool": f"rpi-image {__version__}",
            "classroom": self.classroom.name,
            "nodes": [outcome_as_json(outcome) for outcome in outcomes],
        }


def outcome_as_json(outcome: NodeOutcome) -> dict[str, Any]:
    """Give the stable keys of one node's outcome."""
    settings = outcome.settings
    return {
        "hostname": outcome.hostname,
        "state": outcome.state,
        "image": outcome.image.name,
        "profile": settings.profile,
        "address": settings.network.address,
        "generation": outcome.generation,
        "config_hash": outcome.config_hash,
        "sha256": outcome.sha256,
        "changes": list(outcome.changes),
        "error": outcome.error.message if outcome.error else None,
    }


def group_by_image(
    nodes: Sequence[NodeSettings],
) -> list[tuple[ImageSource, list[NodeSettings]]]:
    """Group nodes by the image they start from, both in roster order."""
    groups: dict[ImageSource, list[NodeSettings]] = {}
    for node in nodes:
        groups.setdefault(node.image, []).append(node)
    return list(groups.items())


def load_manifest(image: Path) -> dict[str, Any] | None:
    """Read what an image was built from; None where there is no readable manifest."""
    try:
        found = json.loads(image.with_suffix(".json").read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and _well_formed(found) else None


def _well_formed(manifest: dict[str, Any]) -> bool:
    base, files = manifest.get("base"), manifest.get("files")
    digest = manifest.get("image_sha256")
    return (
        isinstance(base, dict)
        and isinstance(digest, str | None)
        and isinstance(files, list)
        and all(isinstance(file, dict) and {"path", "sha256"} <= file.keys() for file in files)
    )


def changes_since(plan: NodePlan, base: BaseImage, last: dict[str, Any] | None) -> tuple[str, ...]:
    """Say what a build would change since the last one; empty when that is up to date.

    The configuration hash leaves the build time out, so equal hashes mean equal nodes although
    the file that carries the build time differs.
    """
    if last is None:
        return ("new",)
    if last.get("config_hash") == plan.config_hash:
        same_base = last.get("base", {}).get("sha256") == base.sha256
        return () if same_base else ("base image",)
    before = {str(file["path"]): file["sha256"] for file in last.get("files", [])}
    now = {
        edit.path: hashlib.sha256(edit.data).hexdigest()
        for edit in plan.edits
        if edit.data is not None
    }
    changed = [f"~ {path}" for path in now if before.get(path, now[path]) != now[path]]
    added = [f"+ {path}" for path in now if path not in before]
    gone = [f"- {path}" for path in before if path not in now]
    return tuple(changed + added + gone) or ("configuration",)


def check_room(folder: Path, base: BaseImage, count: int) -> None:
    """Refuse before the first copy what would fill the disk; reflinks need next to nothing."""
    if count == 0 or _has_reflinks(folder, base):
        return
    needed = count * base.path.stat().st_blocks * 512
    room = os.statvfs(folder)
    free = room.f_bavail * room.f_frsize
    if needed > free:
        raise WriteError(
            f"{count} images need {needed / 1e9:.1f} GB and {folder} has {free / 1e9:.1f} GB free",
            "build fewer with --nodes, use a disk with reflinks (btrfs, xfs), "
            "or write the cards directly: flash -c needs no room",
        )


def _has_reflinks(folder: Path, base: BaseImage) -> bool:
    try:
        with tempfile.TemporaryFile(dir=folder) as probe, base.path.open("rb") as source:
            return reflink(source.fileno(), probe.fileno())
    except OSError as error:
        raise write_error(folder, error) from error
