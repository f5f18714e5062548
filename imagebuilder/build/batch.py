"""Build the images of a classroom: in parallel, incrementally, each failure on its own."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from imagebuilder import __version__
from imagebuilder.build.compose import (
    WITHOUT_BASE,
    Composer,
    group_by_image,
    open_composer,
    plan_one_image_without_base,
    plan_without_base,
)
from imagebuilder.build.image import refuse_bases, write_image
from imagebuilder.build.manifest import (
    CLASS,
    SUMS,
    changes_of_image,
    class_image_manifest,
    load_class,
    load_manifest,
    manifest_path,
    packages_as_json,
    render_sums,
    still_describes,
    uncompared_change,
    withdraw_sums,
)
from imagebuilder.disk.copy import check_room
from imagebuilder.errors import InputError, RpiImageError, WriteError
from imagebuilder.files import create_folder, has_file, write_error, write_json, write_text
from imagebuilder.plan.reach import apt_way, packages_way
from imagebuilder.plan.shared_image import check_identities
from imagebuilder.plan.vendor.docker import apt_words
from imagebuilder.progress import SILENT, Reporter
from imagebuilder.settings.flags import choose_nodes
from imagebuilder.workers import CancelToken, as_they_end, worker_pool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from imagebuilder.build.compose import Composition
    from imagebuilder.build.packages import PackageIndex
    from imagebuilder.model import BaseImage, Classroom, ImageSource, NodePlan, NodeSettings

NAME_BYTES = 200  # of the 255 that file systems allow: suffixes are added


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeOutcome:
    """The result for one node; `state` is built, unchanged, planned or failed."""

    hostname: str
    state: str
    image: Path
    settings: NodeSettings
    generation: str = ""
    config_hash: str = ""
    sha256: str = ""
    changes: tuple[str, ...] = ()
    packages: Mapping[str, str] = field(default_factory=dict)
    packages_way: str = ""
    warnings: tuple[str, ...] = ()
    error: RpiImageError | None = None


@dataclass(frozen=True, slots=True)
class OneImage:
    """The one image of a class; `composition` is None without its base."""

    image: Path
    plan: NodePlan
    state: str
    changes: tuple[str, ...] = ()
    composition: Composition | None = None


@dataclass(kw_only=True)
class Batch:
    """One run over a roster; `obtain` returns the unpacked base of an image source.

    If a run only plans, `obtain` may return None; then nodes are planned without their base.
    """

    classroom: Classroom
    folder: Path
    obtain: Callable[[ImageSource], BaseImage | None]
    epoch: int
    jobs: int = 2
    reporter: Reporter = SILENT
    index: PackageIndex | None = None
    _turn: threading.Lock = field(init=False, default_factory=threading.Lock)
    _found: dict[str, NodeOutcome] = field(init=False, default_factory=dict)
    _earlier: dict[str, dict[str, Any]] = field(init=False, default_factory=dict)

    def run(self, names: str = "", *, dry_run: bool = False) -> list[NodeOutcome]:
        """Build the nodes in `names`, by default all; with `dry_run` only plan them."""
        nodes = self.roster(names)
        return self.plan(nodes, rehearse=True) if dry_run else self.build(nodes)

    def run_class(self, names: str = "", *, dry_run: bool = False) -> OneImage:
        """Build or plan the one image of the class. Raise InputError if `names` selects nodes."""
        nodes = self.roster(names)
        if names:
            raise InputError(
                "--one-image and --node exclude each other",
                "remove --node, or use a classroom file with these nodes only",
            )
        return self.plan_class(nodes, rehearse=True) if dry_run else self.build_class(nodes)

    def roster(self, names: str = "") -> tuple[NodeSettings, ...]:
        """Return the nodes in `names`, by default all, in roster order."""
        named = {node.hostname for node in choose_nodes(self.classroom, names)}
        return tuple(node for node in self.classroom.nodes if node.hostname in named)

    def plan(self, nodes: Sequence[NodeSettings], *, rehearse: bool = False) -> list[NodeOutcome]:
        """Return the plan of every node compared with its last build; write nothing.

        With `rehearse`, also warn if there is not enough space for a build.
        """
        self._refuse_bases(nodes)
        return self._each_base(nodes, self._rehearsed if rehearse else self._planned)

    def build(self, nodes: Sequence[NodeSettings]) -> list[NodeOutcome]:
        """Write every node that is not up to date, then SHA256SUMS and the manifest of the class.

        Both are correct even after Ctrl-C: unfinished images are removed first.
        """
        self._refuse_bases(nodes)
        create_folder(self.folder)
        self._try_sums()
        self._earlier = load_class(self.folder)
        try:
            return self._each_base(nodes, self._built)
        finally:
            if self._found or self._earlier:
                self._write_records()

    def plan_class(self, nodes: Sequence[NodeSettings], *, rehearse: bool = False) -> OneImage:
        """Return the plan of one image for all nodes, compared with its last build.

        Raise SettingsError if one image cannot be used for them.
        """
        check_identities(nodes)
        image = self.image_of_all
        manifest = class_image_manifest(image)
        base = self.obtain(nodes[0].image)
        if base is None:
            self.reporter.warn(WITHOUT_BASE)
            plan = plan_one_image_without_base(nodes, self.epoch)
            return OneImage(image, plan, "planned", uncompared_change(image, manifest))
        with self._composer(base) as composer:
            made = composer.compose_one_image(nodes)
        changes = changes_of_image(image, made.plan, base, load_manifest(manifest))
        if rehearse:
            self._rehearse_room(base, 1 if changes else 0)
        return OneImage(image, made.plan, "planned" if changes else "unchanged", changes, made)

    def build_class(self, nodes: Sequence[NodeSettings]) -> OneImage:
        """Write the one image of a class unless it is up to date, then SHA256SUMS."""
        one = self.plan_class(nodes)
        create_folder(self.folder)
        self._try_sums()
        if one.composition and one.state == "planned":
            manifest = class_image_manifest(one.image)
            write_image(
                one.composition, one.image, manifest=manifest, digest=True, reporter=self.reporter
            )
            one = replace(one, state="built")
        self._write_sums()
        return one

    def _refuse_bases(self, nodes: Sequence[NodeSettings]) -> None:
        """Raise WriteError if the image of a node is the base of any node."""
        files = {node.image.file for node in self.classroom.nodes}
        refuse_bases(map(self.image_of, nodes), filter(None, files))

    def _each_base(
        self,
        nodes: Sequence[NodeSettings],
        work: Callable[[Composer, Sequence[NodeSettings]], Iterable[NodeOutcome]],
    ) -> list[NodeOutcome]:
        found = self._found
        for source, group in group_by_image(nodes):
            try:
                base = self.obtain(source)
                if base is None:
                    self.reporter.warn(WITHOUT_BASE)
                    found |= {node.hostname: self._plan_without_base(node) for node in group}
                    continue
                with self._composer(base) as composer:
                    found |= {outcome.hostname: outcome for outcome in work(composer, group)}
            except RpiImageError as error:
                found |= {node.hostname: self._failed(node, error) for node in group}
        return [found[node.hostname] for node in nodes]

    def _composer(self, base: BaseImage) -> AbstractContextManager[Composer]:
        return open_composer(base, epoch=self.epoch, reporter=self.reporter, index=self.index)

    def _planned(self, composer: Composer, nodes: Sequence[NodeSettings]) -> list[NodeOutcome]:
        return [self._plan_one(node, composer) for node in nodes]

    def _rehearsed(self, composer: Composer, nodes: Sequence[NodeSettings]) -> list[NodeOutcome]:
        plans = self._planned(composer, nodes)
        self._rehearse_room(composer.base, len(_to_write(plans)))
        return plans

    def _rehearse_room(self, base: BaseImage, count: int) -> None:
        try:
            check_room(self.folder, base, count)
        except WriteError as error:
            self.reporter.warn(f"{error.message}: {error.hint}")

    def _built(self, composer: Composer, nodes: Sequence[NodeSettings]) -> list[NodeOutcome]:
        plans = self._planned(composer, nodes)
        todo = _to_write(plans)
        try:
            check_room(self.folder, composer.base, len(todo))
        except WriteError as error:
            written = {plan.hostname: self._failed(plan.settings, error) for plan in todo}
        else:
            self._withdraw(todo)
            written = {done.hostname: done for done in self._write_all(todo, composer)}
        return [written.get(plan.hostname, plan) for plan in plans]

    def _write_all(self, todo: Sequence[NodeOutcome], composer: Composer) -> list[NodeOutcome]:
        stop, written = CancelToken(), list[NodeOutcome]()

        def write(outcome: NodeOutcome) -> NodeOutcome:
            self._found[outcome.hostname] = self._write_one(outcome, composer, stop)
            return self._found[outcome.hostname]

        with (
            self.reporter.meter("nodes", len(todo), "node") as meter,
            worker_pool(self.jobs, "image", stop) as pool,
        ):
            for ended in as_they_end(pool.submit(write, outcome) for outcome in todo):
                meter.advance(len(ended))
                written += ended
        return written

    def _plan_one(self, node: NodeSettings, composer: Composer) -> NodeOutcome:
        try:
            plan = composer.plan(node)
        except RpiImageError as error:
            return self._failed(node, error)
        image = self.image_of(node)
        last = load_manifest(manifest_path(image))
        changes = changes_of_image(image, plan, composer.base, last)
        return NodeOutcome(
            hostname=node.hostname,
            state="planned" if changes else "unchanged",
            image=image,
            settings=node,
            generation=plan.generation,
            config_hash=plan.config_hash,
            sha256=(last or {}).get("image_sha256") or "",
            changes=changes,
            packages=self._versions(composer.base, plan.packages, node),
            packages_way=packages_way(edit.path for edit in plan.edits) or apt_way(node),
            warnings=plan.warnings,
        )

    def _versions(
        self, base: BaseImage, names: tuple[str, ...], node: NodeSettings
    ) -> Mapping[str, str]:
        if self.index is None:
            return dict.fromkeys(names, "")
        return self.index.versions(base, apt_words(names, node.docker.version))

    def _plan_without_base(self, node: NodeSettings) -> NodeOutcome:
        try:
            plan = plan_without_base(node, self.epoch)
        except RpiImageError as error:
            return self._failed(node, error)
        image = self.image_of(node)
        return NodeOutcome(
            hostname=node.hostname,
            state="planned",
            image=image,
            settings=node,
            generation=plan.generation,
            config_hash=plan.config_hash,
            changes=uncompared_change(image, manifest_path(image)),
            packages=dict.fromkeys(plan.packages, ""),
            packages_way=apt_way(node),
            warnings=plan.warnings,
        )

    def _write_one(
        self, outcome: NodeOutcome, composer: Composer, stop: CancelToken
    ) -> NodeOutcome:
        try:
            with self._turn:  # pure Python: threads would only wait for the GIL
                composition = composer.compose(outcome.settings)
            written = write_image(composition, outcome.image, digest=True, reporter=stop)
        except RpiImageError as error:
            return self._failed(outcome.settings, error)
        return replace(outcome, state="built", sha256=written.sha256)

    def image_of(self, node: NodeSettings) -> Path:
        """Return the path of a node's image."""
        return self.folder / f"{node.hostname}.img"

    @property
    def image_of_all(self) -> Path:
        """The path of the one image of the class, whose name may hold any character."""
        name = re.sub(r'[/\\:*?"<>|\x00-\x1f]+', "-", self.classroom.name).strip(". ")
        short = name.encode(errors="replace")[:NAME_BYTES].decode(errors="ignore")
        taken = short.lower() in {node.hostname.lower() for node in self.classroom.nodes}
        return self.folder / f"{short or 'classroom'}{'-all' * taken}.img"

    def _failed(self, node: NodeSettings, error: RpiImageError) -> NodeOutcome:
        return NodeOutcome(
            hostname=node.hostname,
            state="failed",
            image=self.image_of(node),
            settings=node,
            error=error,
        )

    def _try_sums(self) -> None:
        """Raise WriteError if SHA256SUMS cannot be read, before any image is written."""
        path = self.folder / SUMS
        try:
            if path.exists():
                path.read_bytes()
        except OSError as error:
            raise write_error(path, error) from error

    def _withdraw(self, todo: Sequence[NodeOutcome]) -> None:
        """Remove images that will be replaced from SHA256SUMS and the manifest of the class."""
        gone = {outcome.hostname for outcome in todo}
        try:
            withdraw_sums(self.folder, [outcome.image.name for outcome in todo])
        except OSError as error:
            raise write_error(self.folder / SUMS, error) from error
        if gone & self._earlier.keys():
            self._write_class([entry for name, entry in self._earlier.items() if name not in gone])

    def _write_records(self) -> None:
        """Write SHA256SUMS and the manifest of the class; keep valid entries of other nodes."""
        self._write_sums()
        entries = []
        for node in self.classroom.nodes:
            if outcome := self._found.get(node.hostname):
                entries.append(outcome_as_json(outcome))
            elif entry := self._earlier.get(node.hostname):
                manifest = load_manifest(manifest_path(self.image_of(node)))
                if still_describes(entry, manifest) and has_file(self.image_of(node)):
                    entries.append(entry)
        self._write_class(entries)

    def _write_sums(self) -> None:
        """Write SHA256SUMS from the manifests, which are removed before their image is replaced."""
        images = map(self.image_of, self.classroom.nodes)
        manifests = {image: manifest_path(image) for image in images}
        manifests[self.image_of_all] = class_image_manifest(self.image_of_all)
        digests = {
            image.name: (load_manifest(manifest) or {}).get("image_sha256") or ""
            for image, manifest in manifests.items()
            if has_file(image)
        }
        write_text(self.folder / SUMS, render_sums(digests))

    def _write_class(self, entries: Sequence[dict[str, Any]]) -> None:
        manifest = {
            "tool": f"rpi-image {__version__}",
            "classroom": self.classroom.name,
            "nodes": entries,
        }
        write_json(self.folder / CLASS, manifest)


def _to_write(plans: Sequence[NodeOutcome]) -> list[NodeOutcome]:
    return [plan for plan in plans if plan.state == "planned"]


def exit_code_of(outcomes: Sequence[NodeOutcome]) -> int:
    """Return the exit code of the first node that failed, or 0."""
    return next((outcome.error.exit_code for outcome in outcomes if outcome.error), 0)


def outcome_as_json(outcome: NodeOutcome) -> dict[str, Any]:
    """Return one result as JSON; the keys are stable."""
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
        "packages": packages_as_json(outcome.packages),
        "error": outcome.error.message if outcome.error else None,
    }
