"""Plan the files that make a boot partition that of one node; access no disk."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING

from imagebuilder.errors import SettingsError
from imagebuilder.model import RESERVED_VARIABLES, BootEdit, NodePlan, NodeSettings, OverlayFile
from imagebuilder.plan.boot_config import cmdline_path
from imagebuilder.plan.boot_files import (
    BootFiles,
    EditedBootFiles,
    decode_boot_text,
    read_boot_text,
)
from imagebuilder.plan.boot_texts import add_config_lines, parse_mapping, read_appended, set_lines
from imagebuilder.plan.card_layout import APPEND, CMDLINE, CONFIG, FOLDER, RECORD, STOCK
from imagebuilder.plan.cmdline import NO_EDIT, CmdlineEdit, groups_of, merge_cmdline
from imagebuilder.plan.context import node_variables, secret_variables
from imagebuilder.plan.overlays import check_path, template_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from imagebuilder.plan.generations import Generation


# A template with such a name is rendered once for each item of a list.
EACH = {"[network]": "networks", "[host_key]": "host_keys"}

# Values that differ between runs, or that could be guessed from the hash, are rendered last.
LATE = frozenset({"config_hash", "build_time", "networks", "network"})


@dataclass(frozen=True, slots=True)
class _VendorFiles:
    """The boot partition as it was before an earlier plan replaced some of its files."""

    boot: BootFiles

    def names(self) -> tuple[str, ...]:
        """Return all file paths."""
        return self.boot.names()

    def exists(self, path: str) -> bool:
        """Return whether there is such a file."""
        return self.boot.exists(path)

    def read(self, path: str) -> bytes:
        """Return the vendor's content of a file if it was kept, else the present one."""
        kept = STOCK + path
        return self.boot.read(kept if self.boot.exists(kept) else path)


def plan_node(
    settings: NodeSettings,
    generation: Generation,
    overlays: Sequence[OverlayFile],
    boot: BootFiles,
    build_time: int,
) -> NodePlan:
    """Return the plan of all files of a node; equal settings make equal bytes.

    A plan for an image that was planned before replaces the files of the earlier plan. Raise
    SettingsError if a file format cannot store a value, ImageError if the image does not allow it.
    """
    planner = _Planner(settings, generation, boot, tuple(overlays))
    draft = planner.render(planner.context("", 0, plaintext=False), None)
    config_hash = draft.digest(generation.name)
    final = planner.render(planner.context(config_hash, build_time, plaintext=True), draft)
    record = _PlanRecord.on(boot)
    texts, cmdline = _edited_texts(final, boot, record, settings.machines)
    files = dict(final.files) | texts | planner.kept
    made = record.after(files, cmdline, boot)
    if made.worth_keeping:
        files[RECORD] = made.as_bytes()
    edits = [BootEdit(path, data) for path, data in files.items()]
    edits += [BootEdit(path, None) for path in _stale(files, record, boot)]
    return NodePlan(
        hostname=settings.hostname,
        generation=generation.name,
        config_hash=config_hash,
        edits=tuple(sorted(edits, key=lambda edit: edit.path)),
        warnings=tuple(planner.warnings()),
        cmdline=cmdline.path,
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
        """Return the configuration hash, which does not depend on the content of the image."""
        parts = {path: _sha256(data) for path, data in self.files.items()}
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
    kept: dict[str, bytes] = field(init=False, default_factory=dict)
    _files: tuple[OverlayFile, ...] = field(init=False)

    def __post_init__(self) -> None:
        docker = self.settings.docker
        driver = docker.storage_driver or self.generation.storage_driver_of(_VendorFiles(self.boot))
        self.settings = replace(self.settings, docker=replace(docker, storage_driver=driver))
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
            "fact": self.generation.facts_of(_VendorFiles(self.boot)),
            "config_hash": config_hash,
            "build_time": build_time,
        }
        secret = public | secret_variables(self.settings, plaintext=plaintext)
        secret["boot_yaml"] = self._boot_yaml
        variables = dict(self.settings.variables)
        for name in sorted(RESERVED_VARIABLES & variables.keys()):
            raise SettingsError(f"the variable name {name!r} is reserved", "choose another name")
        given = {**variables, "vars": variables}
        return _TemplateVariables(public | given, secret | given)

    def _boot_yaml(self, path: str) -> Mapping[str, object]:
        """Return a vendor's YAML file, so that templates can keep values that they do not set.

        A copy is kept on the card, so that the next plan starts from it and not from our own file.
        """
        if not self.boot.exists(path):
            return {}
        self.kept[STOCK + path] = _VendorFiles(self.boot).read(path)
        return parse_mapping(self.kept[STOCK + path], path)

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
                    files[path] = data
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
            lines.setdefault(edit.path, {})[edit.name] = edit.value.render(context.secret)
        return lines

    def warnings(self) -> Iterator[str]:
        """Yield a text for each setting that is valid but may surprise."""
        theirs = {file.path.removesuffix(".j2").lower() for file in self.generation.files}
        for file in self.overlays:
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


# ---- the vendor's texts and the record of earlier runs


@dataclass(frozen=True, slots=True)
class _PlanRecord:
    """The files that earlier plans made outside our folder; stored in made.json."""

    files: tuple[str, ...] = ()
    cmdline: CmdlineEdit = NO_EDIT

    @classmethod
    def on(cls, boot: BootFiles) -> _PlanRecord:
        """Return the record on a partition; an empty one if it cannot be read.

        Earlier versions wrote no `replaced`, and wrote all of our words, even those that the
        vendor had as well.
        """
        try:
            found = json.loads(read_boot_text(boot, RECORD) or "{}")
            added = tuple(map(str, found["cmdline"]))
            replaced = tuple((int(at), str(word)) for at, word in found.get("replaced", []))
            edit = CmdlineEdit(added, replaced, str(found.get("cmdline_file", CMDLINE)))
            return cls(tuple(map(str, found["files"])), edit)
        except (ValueError, KeyError, TypeError):
            return cls()

    def after(
        self, files: Mapping[str, bytes], cmdline: CmdlineEdit, boot: BootFiles
    ) -> _PlanRecord:
        """Return the record to write together with `files`."""
        earlier = {path.lower() for path in self.files}
        made = [
            path
            for path in files
            if not path.lower().startswith(FOLDER)
            and (path.lower() in earlier or not boot.exists(path))
        ]
        return replace(self, files=tuple(sorted(made)), cmdline=cmdline)

    @property
    def worth_keeping(self) -> bool:
        """Whether the record holds anything."""
        return bool(self.files or self.cmdline.added or self.cmdline.replaced)

    def as_bytes(self) -> bytes:
        """Return the record as JSON."""
        parts: dict[str, object] = {"files": self.files, "cmdline": self.cmdline.added}
        if self.cmdline.replaced:
            parts["replaced"] = self.cmdline.replaced
        if self.cmdline.path != CMDLINE:
            parts["cmdline_file"] = self.cmdline.path
        text = json.dumps(parts, indent=1)
        return f"{text}\n".encode()


def _edited_texts(
    final: _RenderedNode, boot: BootFiles, record: _PlanRecord, machines: tuple[str, ...]
) -> tuple[dict[str, bytes], CmdlineEdit]:
    """Return the vendor's texts with our edits, and the change of cmdline.txt for the record."""
    texts: dict[str, str] = {}
    edit = NO_EDIT
    own = {path.lower(): data for path, data in final.files.items()}

    def text_of(path: str) -> str:
        return (
            decode_boot_text(own[path.lower()])
            if path.lower() in own
            else read_boot_text(boot, path)
        )

    for path, values in final.lines.items():
        texts[path] = set_lines(text_of(path), dict(values))
    if CONFIG in final.appended:
        lines = tuple(final.appended[CONFIG].splitlines())
        texts[CONFIG] = add_config_lines(text_of(CONFIG), lines)
    edited = {path: text.encode("utf-8", "surrogateescape") for path, text in texts.items()}
    path = cmdline_path(EditedBootFiles(boot, {**final.files, **edited}), machines)
    earlier = NO_EDIT if path.lower() in own else record.cmdline
    if earlier.path != path:
        # The firmware reads another file now: remove our words from the previous one.
        if earlier != NO_EDIT:
            text, _ = merge_cmdline(text_of(earlier.path), (), earlier)
            edited[earlier.path] = text.encode("utf-8", "surrogateescape")
        earlier = NO_EDIT
    if final.cmdline or earlier != NO_EDIT:
        text, edit = merge_cmdline(text_of(path), final.cmdline, earlier)
        edited[path] = text.encode("utf-8", "surrogateescape")
        edit = replace(edit, path=path)
    return edited, edit


def _stale(files: Mapping[str, bytes], record: _PlanRecord, boot: BootFiles) -> list[str]:
    now = {path.lower() for path in files}
    earlier = {path.lower() for path in record.files}
    return [
        path
        for path in boot.names()
        if path.lower() not in now and (path.lower().startswith(FOLDER) or path.lower() in earlier)
    ]
