"""Merge settings documents: profile, class, node, flags.

Sections are merged key by key; lists and images are replaced as a whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from imagebuilder.settings.schema.base import Document
from imagebuilder.settings.schema.documents import (
    DockerDocument,
    NetworkDocument,
    NodeDocument,
    SettingsDocument,
)

if TYPE_CHECKING:
    from imagebuilder.settings.schema.diagnostics import Loc


# Short forms of a node: the long form, and the key that stands for it.
SHORT_FORMS: dict[Loc, str] = {("network", "address"): "address", ("docker", "labels"): "labels"}


@dataclass(frozen=True, slots=True)
class SettingsSource:
    """One document with settings of a node, its path, and the part that other nodes share."""

    document: SettingsDocument
    loc: Loc
    part: SettingsDocument


@dataclass(frozen=True, slots=True)
class NodeSources:
    """The path of a node and the layers of its settings, from low to high priority."""

    loc: Loc
    sources: tuple[SettingsSource, ...]

    def at(self, *locs: Loc) -> Loc:
        """Return the path where the highest layer sets one of `locs`, else that in the class."""
        return find_setting(self.sources, *locs) or locs[0]


def find_setting(sources: tuple[SettingsSource, ...], *locs: Loc) -> Loc | None:
    """Return the path of the first of `locs` in the highest layer that sets any of them."""
    for source in reversed(sources):
        for loc in locs:
            short = SHORT_FORMS.get(loc)
            if short and short in source.document.model_fields_set:
                return (*source.loc, short)
            if _sets(source.document, loc):
                return (*source.loc, *loc)
    return None


def _sets(document: Any, loc: Loc) -> bool:
    for part in loc:
        if isinstance(part, int) or not hasattr(document, "model_fields_set"):
            return True
        if part not in document.model_fields_set:
            return False
        document = getattr(document, part)
    return True


def merge_documents(base: SettingsDocument, over: SettingsDocument) -> SettingsDocument:
    """Return `base` with everything that `over` sets."""
    merged: SettingsDocument = _merge(base, over)
    return merged


def settings_part(document: SettingsDocument) -> SettingsDocument:
    """Return the settings common to classroom, node and profile, with short forms expanded."""
    given = {
        name: getattr(document, name)
        for name in document.model_fields_set
        if name in SettingsDocument.model_fields
    }
    if isinstance(document, NodeDocument):
        given |= _expanded_short_forms(document)
    return SettingsDocument.model_construct(_fields_set=set(given), **given)


def given(document: Document | None, *names: str) -> dict[str, Any]:
    """Return the values that a section sets, for the keys `names` or for all."""
    if document is None:
        return {}
    wanted = names or tuple(type(document).model_fields)
    values = {n: getattr(document, n) for n in wanted if n in document.model_fields_set}
    return {name: value for name, value in values.items() if value is not None}


def _expanded_short_forms(node: NodeDocument) -> dict[str, Document]:
    written: dict[str, Document] = {}
    if node.address is not None:
        short = NetworkDocument.model_construct(_fields_set={"address"}, address=node.address)
        written["network"] = _merge(node.network or NetworkDocument(), short)
    if node.labels is not None:
        labels = DockerDocument.model_construct(_fields_set={"labels"}, labels=node.labels)
        written["docker"] = _merge(node.docker or DockerDocument(), labels)
    return written


def _merge(base: Any, over: Any) -> Any:
    if isinstance(base, Mapping) and isinstance(over, Mapping):
        return {**base, **over}
    if not isinstance(base, Document) or not isinstance(over, Document) or over.whole:
        return over
    kept = base.model_fields_set - _invalidated_keys(over)
    values = {name: getattr(base, name) for name in kept}
    for name in over.model_fields_set:
        values[name] = _merge(values.get(name), getattr(over, name))
    return type(base).model_construct(_fields_set=set(values), **values)


def _invalidated_keys(over: Document) -> set[str]:
    """Return the keys of the lower document that `over` makes invalid."""
    said = over.model_fields_set
    others = {name for group in over.exclusive if group & said for name in group}
    return (others | {old for new, old in over.renews if new in said}) - said
