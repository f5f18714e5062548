"""Resolve documents into the settings of each node: profile ⊕ class ⊕ node ⊕ flags."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from imagebuilder.errors import SettingsError
from imagebuilder.model import ImageSource, NodeSettings, Shack
from imagebuilder.plan.reach import docker_version_of
from imagebuilder.plan.vendor.docker import NO_OLD_API, SWARM_MODE, fitting_kind, short
from imagebuilder.settings.fits import check_fit, check_reach, profile_for
from imagebuilder.settings.merge import (
    NodeSources,
    SettingsSource,
    find_setting,
    merge_documents,
    settings_part,
)
from imagebuilder.settings.schema.diagnostics import Diagnostic, Loc
from imagebuilder.settings.schema.documents import (
    ClassroomDocument,
    ImageDocument,
    NodeDocument,
    ProfileDocument,
    SettingsDocument,
)
from imagebuilder.settings.values import (
    UnresolvedNode,
    apt_proxy_of,
    check_hash,
    check_wifi,
    cluster_of,
    docker_of,
    generation_of,
    network_of,
    ntp_server_of,
    overlays_of,
    roster_fields,
    shack_of,
    ssh_keys_of,
    user_of,
    wifi_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from imagebuilder.plan.reach import Reach
    from imagebuilder.settings.references import References

DEFAULT_IMAGE = "hypriotos-1.12.3"

# The first part of the path of a setting from a flag, which is in no file.
FLAGS = "--"

# Placeholders, so that the rest of a node is checked; an error is reported with each.
_NO_PROFILE = ProfileDocument.model_construct(name="", arch="", machines=())
_MOST_NAMES = 3
_NO_IMAGE = ImageSource(name="")


@dataclass(frozen=True, slots=True)
class Resolved:
    """All nodes in roster order, the path of each, and the diagnostics.

    If there is an error, the nodes are only good for further checks.
    """

    nodes: tuple[NodeSettings, ...]
    node_sources: tuple[NodeSources, ...]
    shack: Shack | None
    diagnostics: tuple[Diagnostic, ...]
    allow: tuple[str, ...] = ()
    reaches: tuple[Reach, ...] = ()


@dataclass(frozen=True, slots=True)
class _SelectedNode:
    """A node of the roster, of the flags, or both; `loc` is its path."""

    from_roster: NodeDocument | None
    from_flags: NodeDocument | None
    loc: Loc

    @property
    def documents(self) -> tuple[NodeDocument | None, ...]:
        return (self.from_roster, self.from_flags)

    @property
    def hostname(self) -> str:
        return next(document.hostname for document in self.documents if document)


def resolve_classroom(
    classroom: ClassroomDocument, flags: ClassroomDocument, references: References
) -> Resolved:
    """Resolve every node; `flags` override `classroom`, and its nodes select nodes of the roster.

    A node of `flags` that is not in the roster is a new one with the settings of the class.
    """
    allow = tuple(dict.fromkeys((*(classroom.allow or ()), *(flags.allow or ()))))
    selected = tuple(_select_nodes(classroom.nodes, flags.nodes))
    resolver = _Resolver(_source(classroom), _source(flags, FLAGS), references, allow)
    made = [resolver.node(each) for each in selected]
    if resolver.fitting_kind() == "swarm-mode":
        resolver = replace(resolver, kind="swarm-mode", diagnostics=[], reaches=[])
        made = [resolver.node(each) for each in selected]
    if not made:
        resolver.diagnostics.append(
            Diagnostic(("nodes",), "no nodes", "add `nodes:` with a `hostname:`")
        )
        resolver.node(_PLACEHOLDER)
    shack = shack_of(
        resolver.with_kind(merge_documents(resolver.classroom.part, resolver.flags.part))
    )
    return Resolved(
        tuple(node for node, _ in made),
        tuple(sources for _, sources in made),
        shack,
        tuple(dict.fromkeys(resolver.diagnostics)),
        allow=resolver.allow,
        reaches=tuple(resolver.reaches),
    )


def _select_nodes(
    roster: Sequence[NodeDocument], wanted: Sequence[NodeDocument]
) -> Iterator[_SelectedNode]:
    if not wanted:
        yield from (_SelectedNode(node, None, ("nodes", i)) for i, node in enumerate(roster))
    known = {node.hostname: i for i, node in enumerate(roster)}
    for i, from_flags in enumerate(wanted):
        if from_flags.hostname in known:
            index = known[from_flags.hostname]
            yield _SelectedNode(roster[index], from_flags, ("nodes", index))
        else:
            yield _SelectedNode(None, from_flags, (FLAGS, "nodes", i))


_PLACEHOLDER = _SelectedNode(
    NodeDocument.model_construct(_fields_set={"hostname"}, hostname="nobody"), None, ("nodes",)
)


def _source(document: SettingsDocument, *loc: str | int) -> SettingsSource:
    return SettingsSource(document, loc, settings_part(document))


@dataclass
class _Resolver:
    """The layers that all nodes share, merged once for each profile."""

    classroom: SettingsSource
    flags: SettingsSource
    references: References
    allow: tuple[str, ...] = ()
    kind: Literal["classic", "swarm-mode"] = "classic"
    dockers: dict[str, str] = field(default_factory=dict)
    swarmless: dict[str, str] = field(default_factory=dict)
    diagnostics: list[Diagnostic] = field(default_factory=list)
    reaches: list[Reach] = field(default_factory=list)
    bases: dict[str, tuple[ProfileDocument, SettingsDocument]] = field(default_factory=dict)

    def node(self, selected: _SelectedNode) -> tuple[NodeSettings, NodeSources]:
        board, board_loc = self._named("board", selected)
        profile, loc = self._named("profile", selected)
        if board and not profile:
            profile, loc = self._profile_of(board, selected), board_loc
        try:
            document, merged = self._base(profile)
        except SettingsError as error:
            self.diagnostics.append(Diagnostic(loc, error.message, error.hint))
            document, merged = _NO_PROFILE, self.classroom.part
        sources = [self.classroom]
        if selected.from_roster:
            sources.append(_source(selected.from_roster, *selected.loc))
        sources.append(self.flags)
        if selected.from_flags:
            sources.append(_source(selected.from_flags, FLAGS, "nodes", 0))
        for source in sources[1:]:
            merged = merge_documents(merged, source.part)
        open_kind = merged.shack is not None and merged.shack.kind is None
        merged = self.with_kind(merged)
        salt = str(getattr(self.classroom.document, "name", None) or "")
        node = UnresolvedNode(
            tuple(sources), merged, self.references, self.diagnostics.append, salt
        )
        settings = _settings(node, selected, document)
        settings = replace(settings, board=board, allow=self.allow)
        check_fit(node, settings, document)
        reach = check_reach(node, settings)
        self.reaches.append(reach)
        if open_kind and settings.cluster.enabled:
            vendor = self.references.vendor(settings)
            self.dockers[settings.hostname] = docker_version_of(settings, vendor)
            if not settings.cluster.swarm_image and not _without_swarm(node):
                self.swarmless[settings.hostname] = settings.arch
        settings = replace(settings, login=reach.user or "")
        return settings, NodeSources(selected.loc, node.sources)

    def with_kind(self, merged: SettingsDocument) -> SettingsDocument:
        """Return the document with a kind of cluster, if it has a shack and none is set."""
        shack = merged.shack
        if shack is None or shack.kind is not None:
            return merged
        return merged.model_copy(update={"shack": shack.model_copy(update={"kind": self.kind})})

    def fitting_kind(self) -> str:
        """Return the kind of cluster that the Docker of every node can join.

        It follows from the settings alone, so that cards and shack agree on every machine. Report
        nodes that cannot be in one cluster.
        """
        kind = fitting_kind(tuple(self.dockers.values()), classic=not self.swarmless)
        if not kind:
            self.diagnostics[:] = [each for each in self.diagnostics if each.word != "no-cluster"]
            self.diagnostics.append(_mixed(self.dockers, self.swarmless))
        return kind

    def _base(self, profile: str) -> tuple[ProfileDocument, SettingsDocument]:
        if profile not in self.bases:
            document = self.references.profile(profile)
            merged = merge_documents(settings_part(document), self.classroom.part)
            self.bases[profile] = document, merged
        return self.bases[profile]

    def _named(self, key: Literal["profile", "board"], selected: _SelectedNode) -> tuple[str, Loc]:
        for document, loc in self._documents(selected):
            if name := getattr(document, key, None):
                return str(name), (*loc, key)
        return "", (FLAGS,) if selected.loc[0] == FLAGS else ("nodes",)

    def _documents(self, selected: _SelectedNode) -> Iterator[tuple[SettingsDocument, Loc]]:
        """Yield the documents of a node with their paths, from high to low priority."""
        said: tuple[tuple[SettingsDocument | None, Loc], ...] = (
            (selected.from_flags, (FLAGS,)),
            (self.flags.document, (FLAGS,)),
            (selected.from_roster, selected.loc),
            (self.classroom.document, ()),
        )
        yield from ((document, loc) for document, loc in said if document is not None)

    def _profile_of(self, board: str, selected: _SelectedNode) -> str:
        named = (document.image for document, _ in self._documents(selected))
        image = next(filter(None, named), None)
        try:
            source = self.references.image(image) if image else None
        except SettingsError:
            source = None  # reported with the settings of the node
        return profile_for(board, self.references.profiles, source)


def _without_swarm(node: UnresolvedNode) -> bool:
    """Return whether the class or the node, not only its profile, joins consul alone."""
    return find_setting(node.sources, ("cluster", "swarm", "enabled")) is not None


def _mixed(dockers: Mapping[str, str], swarmless: Mapping[str, str]) -> Diagnostic:
    docker = {name: f"Docker {short(version)}" for name, version in dockers.items()}
    old = [name for name, version in dockers.items() if SWARM_MODE.reached(version) is False]
    new = {name: docker[name] for name, version in dockers.items() if NO_OLD_API.reached(version)}
    sides = _listed({name: docker[name] for name in old}), _listed({**swarmless, **new})
    message = (
        f"no cluster fits all nodes: no swarm mode on {sides[0]}; no classic Swarm on {sides[1]}"
    )
    hint = (
        "make two classroom files, each with a shack of its own, one with `kind: classic` and one "
        "with `kind: swarm-mode`; or use images with similar versions of Docker"
    )
    return Diagnostic(("shack",), message, hint)


def _listed(nodes: Mapping[str, str]) -> str:
    """Return the first names with their facts, and how many there are more."""
    named = [f"`{name}` ({fact})" for name, fact in nodes.items()]
    more = f" and {len(named) - _MOST_NAMES} more" if len(named) > _MOST_NAMES else ""
    return f"{', '.join(named[:_MOST_NAMES])}{more}"


def _image(node: UnresolvedNode) -> ImageSource | None:
    default = ImageDocument.model_construct(_fields_set={"name"}, name=DEFAULT_IMAGE)
    wanted = node.merged.image or default
    return node.attempt(("image",), lambda: node.references.image(wanted))


def _settings(
    node: UnresolvedNode, selected: _SelectedNode, profile: ProfileDocument
) -> NodeSettings:
    merged = node.merged
    shack = shack_of(merged)
    image = _image(node)
    network, wifi = network_of(node), wifi_of(node)
    cluster, user = cluster_of(node, shack, profile.arch), user_of(node)
    docker = docker_of(node, shack, cluster)
    keys, overlays = ssh_keys_of(node), overlays_of(node)
    generation = generation_of(node, image, overlays)
    likely = generation or (image.generation if image else None)
    check_hash(node, user, likely, overlays)
    check_wifi(node, wifi, likely, overlays)
    return NodeSettings(
        hostname=selected.hostname,
        profile=profile.name,
        arch=profile.arch,
        machines=profile.machines,
        image=image or _NO_IMAGE,
        generation=generation,
        shack=shack,
        wifi=wifi,
        network=network,
        docker=docker,
        cluster=cluster,
        user=user,
        ssh_keys=keys,
        keep_vendor_login=bool(merged.keep_vendor_login),
        keep_host_keys=bool(merged.keep_host_keys),
        timezone=merged.timezone or "",
        keyboard=merged.keyboard or "",
        locale=merged.locale or "",
        packages=tuple(dict.fromkeys(merged.packages or ())),
        apt_proxy=apt_proxy_of(merged, shack),
        ntp_server=ntp_server_of(merged, shack),
        upgrade=bool(merged.upgrade),
        overlays=overlays,
        variables=tuple(sorted((merged.set or {}).items())),
        **roster_fields(selected.documents),
    )
