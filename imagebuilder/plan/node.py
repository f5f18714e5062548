"""Plan the files that make a boot partition that of one node; access no disk."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING

from imagebuilder.errors import ImageError, SettingsError
from imagebuilder.model import RESERVED_VARIABLES, BootEdit, NodePlan, NodeSettings, OverlayFile
from imagebuilder.plan.boot_files import BootFiles, EditedBootFiles, read_boot_text
from imagebuilder.plan.boot_texts import (
    add_config_lines,
    as_script,
    line_value,
    parse_mapping,
    read_appended,
    set_lines,
)
from imagebuilder.plan.card_layout import (
    APPEND,
    CMDLINE,
    CONFIG,
    FOLDER,
    PACKAGES,
    RECORD,
)
from imagebuilder.plan.cmdline import NO_EDIT, CmdlineEdit, groups_of, merge_cmdline
from imagebuilder.plan.context import node_variables, secret_variables
from imagebuilder.plan.overlays import check_path, template_of
from imagebuilder.plan.reach import (
    facts_by_name,
    packages_way,
    reach_of,
    seen_in_root,
    vendor_state,
)
from imagebuilder.plan.vendor.ability import check_password, joinable
from imagebuilder.plan.vendor.boot_config import cmdline_path
from imagebuilder.plan.vendor.cloud_init import NETWORK, merged_network
from imagebuilder.plan.vendor.stock import Record, StockBoot

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from imagebuilder.model import RootSystem
    from imagebuilder.plan.generations import Generation
    from imagebuilder.plan.reach import Reach


# A template with such a name is rendered once for each item of a list.
EACH = {"[network]": "networks", "[host_key]": "host_keys"}

# Values that differ between runs, or that could be guessed from the hash, are rendered last.
LATE = frozenset({"config_hash", "build_time", "networks", "network"})


def plan_node(
    settings: NodeSettings,
    generation: Generation,
    overlays: Sequence[OverlayFile],
    boot: BootFiles,
    build_time: int,
    root: RootSystem | None = None,
) -> NodePlan:
    """Return the plan of all files of a node; equal settings make equal bytes.

    `root` is the system on the root of the image, if that could be read.

    A plan for an image that was planned before replaces the files of the earlier plan. Raise
    SettingsError if a file format cannot store a value, ImageError if the image does not allow it.
    """
    planner = _Planner(settings, generation, boot, tuple(overlays))
    first = planner.context("", 0, plaintext=False)
    notes = tuple(planner.notes(first))
    planner.check_ability(first)
    reach, doubts = planner.reach(root)
    draft = planner.render(first, None)
    config_hash = draft.digest(generation.name)
    final = planner.render(planner.context(config_hash, build_time, plaintext=True), draft)
    stock = planner.stock
    stock.keep_replaced(final.files)
    files = dict(stock.returning(final.files)) | dict(final.files)
    texts, cmdline = _edited_texts(replace(final, files=files), stock, settings.machines)
    files |= texts | stock.kept
    made = stock.record_of(files, cmdline)
    if made.worth_keeping:
        files[RECORD] = made.as_bytes()
    edits = [BootEdit(path, data) for path, data in files.items()]
    edits += [BootEdit(path, None) for path in _stale(files, stock)]
    return NodePlan(
        hostname=settings.hostname,
        generation=generation.name,
        config_hash=config_hash,
        edits=tuple(sorted(edits, key=lambda edit: edit.path)),
        warnings=(*doubts, *planner.warnings(), *notes),
        cmdline=cmdline.path,
        reach=reach.sentence,
        packages=reach.packages,
    )


# ---- rendering


@dataclass(frozen=True, slots=True)
class _RenderedNode:
    """The result of one rendering pass; `lines` and `appended` are edits of vendors' files."""

    files: Mapping[str, bytes]
    cmdline: tuple[str, ...]
    lines: Mapping[str, Mapping[str, str]]
    appended: Mapping[str, str]

    def digest(self, generation: str) -> str:
        """Return the configuration hash, which does not depend on the content of the image.

        Nor on the packages on the card: without them the Pi fetches the same ones.
        """
        files = self.files.items()
        parts = {p: _sha256(data) for p, data in files if not p.startswith(PACKAGES)}
        whole = [generation, self.cmdline, self.lines, self.appended, parts]
        text = json.dumps(whole, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


@dataclass(frozen=True, slots=True)
class _TemplateVariables:
    """The variables of templates: without and with secrets."""

    public: Mapping[str, object]
    secret: Mapping[str, object]

    def of(self, file: OverlayFile) -> Mapping[str, object]:
        """Return the variables for the template of `file`."""
        return self.secret if file.secrets else self.public


@dataclass(slots=True)
class _Planner:
    """The state while the plan of one node is made."""

    settings: NodeSettings
    generation: Generation
    boot: BootFiles
    overlays: tuple[OverlayFile, ...]
    stock: StockBoot = field(init=False)
    _converted: set[str] = field(init=False, default_factory=set)
    _files: tuple[OverlayFile, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.stock = StockBoot(self.boot, Record.on(self.boot))
        docker = self.settings.docker
        driver = docker.storage_driver or self.generation.storage_driver_of(self.stock)
        facts = self.generation.facts_of(self.stock)
        self.settings = replace(
            self.settings,
            docker=replace(docker, storage_driver=driver),
            wifi=joinable(self.settings.wifi, self.generation.able("wifi", {"fact": facts})),
        )
        self._files = _topmost(
            [
                *self.generation.files,
                *(file for file in self.overlays if self._wanted(file)),
            ]
        )

    def _wanted(self, file: OverlayFile) -> bool:
        return not file.secrets or self.generation.wants(file.path.removesuffix(".j2"))

    def context(self, config_hash: str, build_time: int, *, plaintext: bool) -> _TemplateVariables:
        """Return the variables. Raise SettingsError if a user's variable has the name of ours."""
        public: dict[str, object] = {
            "node": node_variables(self.settings, self.generation.name),
            "fact": self.generation.facts_of(self.stock),
            "config_hash": config_hash,
            "build_time": build_time,
        }
        secret = public | secret_variables(self.settings, plaintext=plaintext)
        secret |= {
            "boot_yaml": self._boot_yaml,
            "boot_network": self._boot_network,
            "take_text": self._take_text,
        }
        variables = dict(self.settings.variables)
        for name in sorted(RESERVED_VARIABLES & variables.keys()):
            raise SettingsError(f"the variable name {name!r} is reserved", "choose another name")
        given = {**variables, "vars": variables}
        return _TemplateVariables(public | given, secret | given)

    def _boot_yaml(self, path: str) -> Mapping[str, object]:
        """Return a vendor's YAML file, so that templates can keep values that they do not set.

        A copy is kept on the card, so that the next plan starts from it and not from our own file.
        """
        return parse_mapping(self.stock.keep(path), path)

    def _boot_network(self, version: int, wired: str, wifi: str) -> Mapping[str, object]:
        """Return the parts of the vendor's network-config to keep: see `merged_network`."""
        return merged_network(self._boot_yaml(NETWORK), version, wired=wired, wifi=wifi)

    def _take_text(self, path: str) -> str:
        """Return a vendor's text that one of our files includes; move its file to the copies."""
        try:
            return self.stock.take(path).decode("utf-8-sig")
        except UnicodeDecodeError:
            raise ImageError(
                f"{path} of the image is not UTF-8", "save it as UTF-8, or remove it from the image"
            ) from None

    def render(self, context: _TemplateVariables, draft: _RenderedNode | None) -> _RenderedNode:
        """Render all files; with a draft, render only those again that depend on late values."""
        files = dict(draft.files) if draft else {}
        appended = dict(draft.appended) if draft else {}
        for file in self._files:
            if draft and not _is_late(file):
                continue
            for path, data in _outputs(file, context.of(file)):
                if path.endswith(APPEND) and path.removesuffix(APPEND) in {CMDLINE, CONFIG}:
                    appended[path.removesuffix(APPEND)] = read_appended(data, file.origin)
                else:
                    files[path] = as_script(path, data, file.origin)
                    # Jinja2 converts all line ends to LF (`newline_sequence`).
                    by_jinja = file.path.endswith(".j2") and b"\r\n" in file.data
                    if files[path] != data or (by_jinja and data.startswith(b"#!")):
                        self._converted.add(file.origin)
        texts = [each.render(context.secret) for each in self.generation.cmdline]
        texts.insert(0, appended.get(CMDLINE, ""))
        return _RenderedNode(
            files=files,
            cmdline=tuple(group for text in texts for group in groups_of(text)),
            lines=self._lines(context),
            appended=appended,
        )

    def _lines(self, context: _TemplateVariables) -> dict[str, dict[str, str]]:
        lines: dict[str, dict[str, str]] = {}
        for edit in self.generation.lines:
            said = self.stock.keep(edit.path).decode("utf-8", "surrogateescape")
            known = {**context.secret, "stock": line_value(said, edit.name)}
            lines.setdefault(edit.path, {})[edit.name] = edit.value.render(known)
        return lines

    def notes(self, context: _TemplateVariables) -> Iterator[str]:
        """Yield the notes of the generation about this image with these settings.

        Raise ImageError if the image cannot be used with them.
        """
        for fault in self.generation.refused:
            if text := fault.render(context.public).strip():
                raise ImageError(text, "remove it from the image, or change the settings")
        acknowledged = "image-files" in self.settings.allow
        for note in () if acknowledged else self.generation.notes:
            if text := note.render(context.public).strip():
                yield text

    def check_ability(self, context: _TemplateVariables) -> None:
        """Raise SettingsError if the image does not support the password hash of the user."""
        user = self.settings.user
        if user and user.password_hash:
            methods = self.generation.able("crypt", context.public)
            check_password(user.name, user.password_hash.reveal(), methods)

    def reach(self, root: RootSystem | None) -> tuple[Reach, tuple[str, ...]]:
        """Return how the card is reached, and doubts. Raise SettingsError if it cannot be.

        An image file that its user has named may have a login on its root, which the boot
        partition does not show.
        """
        named = facts_by_name(self.generation, self.settings.image)
        facts = self.generation.facts_of(self.stock) if self.boot.names() else named
        vendor = seen_in_root(vendor_state(self.generation, facts), root)
        found = reach_of(self.settings, vendor, packages_way(file.path for file in self.overlays))
        settings = self.settings
        own = settings.image.file is not None and named is None and settings.user is None
        doubts = []
        for finding in found.findings:
            if finding.severe and finding.word not in settings.allow:
                if not own or finding.word != "no-login":
                    raise SettingsError(finding.message, finding.hint)
                doubts.append(f"{finding.message} [{finding.word}]")
        return found, tuple(doubts)

    def warnings(self) -> Iterator[str]:
        """Yield a text for each setting that is valid but may surprise."""
        allow = self.settings.allow
        for origin in sorted(self._converted) if "line-ends" not in allow else ():
            yield f"{origin} is a script with Windows line ends (CRLF), which are converted"
        theirs = {file.path.removesuffix(".j2").lower() for file in self.generation.files}
        for file in self.overlays if "replaced-file" not in allow else ():
            if not file.secrets and file.path.removesuffix(".j2").lower() in theirs:
                yield f"{file.origin} replaces a file of generation {self.generation.name}"


@lru_cache(maxsize=256)
def _sha256(data: bytes) -> str:
    """Return the digest; cached, because many nodes share scripts and container images."""
    return hashlib.sha256(data).hexdigest()


def _topmost(files: Iterable[OverlayFile]) -> tuple[OverlayFile, ...]:
    """Return the files, later ones replacing earlier ones of the same FAT name.

    Raise SettingsError if a file has the name of a folder.
    """
    found: dict[str, OverlayFile] = {}
    for file in files:
        path = check_path(file.path.removesuffix(".j2"), file.origin)
        found[path.lower()] = file
    for path, file in found.items():
        parents = path.split("/")[:-1]
        for depth in range(1, len(parents) + 1):
            if other := found.get("/".join(parents[:depth])):
                raise SettingsError(
                    f"{other.origin} is a file, but {file.origin} needs a folder",
                    "rename one of them",
                )
    return tuple(found.values())


def _is_late(file: OverlayFile) -> bool:
    return file.path.endswith(".j2") and bool(template_of(file).names & LATE)


def _outputs(file: OverlayFile, context: Mapping[str, object]) -> Iterator[tuple[str, bytes]]:
    """Yield (path, content) for one overlay file; nothing for a template that renders empty."""
    if not file.path.endswith(".j2"):
        yield file.path, file.data
        return
    path = file.path.removesuffix(".j2")
    for name, more in _each(path, context):
        text = template_of(file).render({**context, **more})
        if text.strip():
            yield name, text.encode()


def _each(path: str, context: Mapping[str, object]) -> Iterator[tuple[str, dict[str, object]]]:
    marker = next((mark for mark in EACH if mark in path), None)
    if marker is None:
        yield path, {}
        return
    things = context.get(EACH[marker], [])
    for number, thing in enumerate(things if isinstance(things, list) else [], start=1):
        label = str(thing.get("kind", number))
        yield check_path(path.replace(marker, label), path), {marker.strip("[]"): thing}


# ---- the vendor's texts


def _edited_texts(
    final: _RenderedNode, stock: StockBoot, machines: tuple[str, ...]
) -> tuple[dict[str, bytes], CmdlineEdit]:
    """Return the vendor's texts with our edits, and the change of cmdline.txt for the record."""
    texts: dict[str, str] = {}
    own = EditedBootFiles(stock.boot, final.files)
    for path, values in final.lines.items():
        texts[path] = set_lines(read_boot_text(own, path), dict(values))
    if CONFIG in final.appended:
        lines = tuple(final.appended[CONFIG].splitlines())
        texts[CONFIG] = add_config_lines(read_boot_text(own, CONFIG), lines)
    edited = _encoded(texts)
    path = cmdline_path(EditedBootFiles(own, edited), machines)
    replaced = path.lower() in {name.lower() for name in final.files}
    earlier = NO_EDIT if replaced else stock.record.cmdline
    if earlier.path != path:
        # The firmware reads another file now: remove our words from the previous one.
        if earlier != NO_EDIT:
            text, _ = merge_cmdline(read_boot_text(own, earlier.path), (), earlier)
            edited |= _encoded({earlier.path: text})
        earlier = NO_EDIT
    if not final.cmdline and earlier == NO_EDIT:
        return edited, NO_EDIT
    text, edit = merge_cmdline(
        read_boot_text(own, path), final.cmdline, earlier, planned=stock.planned_before
    )
    return edited | _encoded({path: text}), replace(edit, path=path)


def _encoded(texts: Mapping[str, str]) -> dict[str, bytes]:
    return {path: text.encode("utf-8", "surrogateescape") for path, text in texts.items()}


def _stale(files: Mapping[str, bytes], stock: StockBoot) -> list[str]:
    """Return the files to remove: those of earlier plans, and those that our files replace."""
    now = {path.lower() for path in files}
    gone = {path.lower() for path in (*stock.record.files, *stock.taken)}
    return [
        path
        for path in stock.boot.names()
        if path.lower() not in now and (path.lower().startswith(FOLDER) or path.lower() in gone)
    ]
