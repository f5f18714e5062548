"""Laying one settings document over another: profile, class, node, flags.

A section is laid key by key, lists and images are replaced as a whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from imagebuilder.documents import (
    DockerDocument,
    Document,
    NetworkDocument,
    NodeDocument,
    SettingsDocument,
)


def lay_over(base: SettingsDocument, over: SettingsDocument) -> SettingsDocument:
    """Give `base` with everything that `over` says."""
    merged: SettingsDocument = _merge(base, over)
    return merged


def settings_part(document: SettingsDocument) -> SettingsDocument:
    """Give what a classroom, node or profile shares with the others, shorthands written out."""
    given = {
        name: getattr(document, name)
        for name in document.model_fields_set
        if name in SettingsDocument.model_fields
    }
    if isinstance(document, NodeDocument):
        given |= _written_out(document)
    return SettingsDocument.model_construct(_fields_set=set(given), **given)


def given(document: Document | None, *names: str) -> dict[str, Any]:
    """Give the values that a section sets, of the keys `names` or of all."""
    if document is None:
        return {}
    wanted = names or tuple(type(document).model_fields)
    values = {n: getattr(document, n) for n in wanted if n in document.model_fields_set}
    return {name: value for name, value in values.items() if value is not None}


def _written_out(node: NodeDocument) -> dict[str, Document]:
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
    kept = base.model_fields_set - _unsaid(over)
    values = {name: getattr(base, name) for name in kept}
    for name in over.model_fields_set:
        values[name] = _merge(values.get(name), getattr(over, name))
    return type(base).model_construct(_fields_set=set(values), **values)


def _unsaid(over: Document) -> set[str]:
    """Name the keys below that make no sense any more once `over` has spoken."""
    said = over.model_fields_set
    others = {name for group in over.exclusive if group & said for name in group}
    return (others | {old for new, old in over.renews if new in said}) - said
