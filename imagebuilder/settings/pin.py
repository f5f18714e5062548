"""Pin the published images of a classroom file: write what their names mean today into it.

Only the text of each image is replaced, so that comments and the order of keys are kept. The result
is read back before it is written.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml

from imagebuilder.errors import SettingsError
from imagebuilder.files import write_error, write_file
from imagebuilder.settings.catalog import load_catalogue
from imagebuilder.settings.schema.documents import ASIDE, classify_image
from imagebuilder.settings.schema.fields import host_path
from imagebuilder.settings.schema.published import generation_by
from imagebuilder.settings.yaml_reader import parse_yaml, read_bytes, read_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from imagebuilder.settings.catalog import Finder, PublishedLists
    from imagebuilder.settings.schema.published import PublishedEntry

_BOM = b"\xef\xbb\xbf"
_MERGE = "<<"


@dataclass(frozen=True, slots=True, order=True)
class _Edit:
    """New text for the characters from `start` to `end`."""

    start: int
    end: int
    text: str


def pin_images(
    path: Path, lists: PublishedLists, folders: Sequence[Path] = (), *, home: str = ""
) -> tuple[str, ...]:
    """Write name, URL, digests and size of each published image into a file; return the names.

    An image that has a URL stays as it is, and so does one of our catalogue. Raise SettingsError if
    an image is not found or cannot be replaced, and WriteError if the file cannot be written.
    """
    text = read_text(path, "classroom file")
    parsed = parse_yaml(text)
    if parsed.problems or not isinstance(parsed.data, dict):
        return ()  # `check` reports what is wrong
    place = parsed.data.get("catalog")
    shown = _place(place, path, home) if isinstance(place, str) else ""
    ours = {entry.name for entry in load_catalogue(folders)}
    pinning = _Pinning(lists.finder(folders, shown), ours, "\r\n" if "\r\n" in text else "\n")
    edits = sorted({edit for node in _images(parsed.root) for edit in pinning.edits(node)})
    if not edits:
        return ()
    new = _edited(text, edits)
    if parse_yaml(new).data != _with_pins(parsed.data, pinning.pins):
        name, pin = next(iter(pinning.pins.items()))
        raise SettingsError(
            f"{path}: image `{name}` cannot be pinned where it is", f"write image: {_flow(pin)}"
        )
    _write(path, new)
    return tuple(pin["name"] for pin in pinning.pins.values())


def _place(text: str, path: Path, home: str) -> str:
    return text if "://" in text else str(host_path(text, path.parent.absolute(), home))


def _write(path: Path, text: str) -> None:
    """Replace the file behind a link, with its mode and its byte order mark."""
    real = path.resolve()
    mark = _BOM if read_bytes(path, "classroom file").startswith(_BOM) else b""
    try:
        write_file(real, mark + text.encode(), real.stat().st_mode & 0o777)
    except OSError as error:
        raise write_error(path, error) from error


def _edited(text: str, edits: Sequence[_Edit]) -> str:
    for edit in reversed(edits):
        text = text[: edit.start] + edit.text + text[edit.end :]
    return text


def _flow(pin: Mapping[str, str]) -> str:
    return f"{{{', '.join(_pairs(pin))}}}"


def _pairs(pin: Mapping[str, str]) -> list[str]:
    # JSON strings are YAML strings; a URL may have a comma or a bracket.
    return [f"{key}: {json.dumps(v) if key == 'url' else v}" for key, v in pin.items()]


# ---- the places of images: the class, each node, and what `x-` keys keep for them


def _images(root: yaml.Node | None) -> Iterator[yaml.Node]:
    """Yield the value of each `image` key, also through aliases and `<<`."""
    for section in _sections(root):
        for key, value in section.value:
            if key.value == "image":
                yield value


def _sections(root: yaml.Node | None) -> Iterator[yaml.MappingNode]:
    if not isinstance(root, yaml.MappingNode):
        return
    waiting: list[yaml.Node] = [root]
    for key, value in root.value:
        if key.value == "nodes" and isinstance(value, yaml.SequenceNode):
            waiting += value.value
        elif str(key.value).startswith(ASIDE):
            waiting.append(value)
    for node in waiting:
        if isinstance(node, yaml.MappingNode):
            yield node
            yield from (
                value
                for key, value in node.value
                if key.value == _MERGE and isinstance(value, yaml.MappingNode)
            )


def _with_pins(data: dict[str, Any], pins: Mapping[str, dict[str, str]]) -> dict[str, Any]:
    """Return the content of a file with the images replaced; what the new text has to mean."""
    made = {
        key: _section(value, pins) if str(key).startswith(ASIDE) else value
        for key, value in data.items()
    }
    if isinstance(data.get("nodes"), list):
        made["nodes"] = [_section(node, pins) for node in data["nodes"]]
    pinned: dict[str, Any] = _section(made, pins)
    return pinned


def _section(section: Any, pins: Mapping[str, dict[str, str]]) -> Any:
    image = section.get("image") if isinstance(section, dict) else None
    if isinstance(image, str) and image in pins:
        return {**section, "image": pins[image]}
    if isinstance(image, dict) and image.get("name") in pins and "url" not in image:
        pin = pins[image["name"]]
        return {**section, "image": {**pin, **image, "name": pin["name"]}}
    return section


# ---- the edits


@dataclass
class _Pinning:
    """What each name means; each is looked up once."""

    find: Finder
    ours: set[str]
    newline: str
    pins: dict[str, dict[str, str]] = field(default_factory=dict)

    def edits(self, image: yaml.Node) -> Iterator[_Edit]:
        """Yield what to change at one image."""
        if isinstance(image, yaml.ScalarNode):
            if pin := self._pin(image.value):
                yield _Edit(image.start_mark.index, image.end_mark.index, _flow(pin))
        elif isinstance(image, yaml.MappingNode):
            yield from self._in_mapping(image)

    def _in_mapping(self, image: yaml.MappingNode) -> Iterator[_Edit]:
        """Yield the edits of `{name: …}`: the new keys go before `name`, the comment stays."""
        keys = {key.value: (key, value) for key, value in image.value}
        if "name" not in keys or "url" in keys:
            return
        key, value = keys["name"]
        if pin := self._pin(str(value.value)):
            more = {k: text for k, text in pin.items() if k not in keys}
            gap = ", " if image.flow_style else self.newline + " " * key.start_mark.column
            at = key.start_mark.index
            yield _Edit(at, at, "".join(pair + gap for pair in _pairs(more)))
            yield _Edit(value.start_mark.index, value.end_mark.index, pin["name"])

    def _pin(self, name: str) -> dict[str, str] | None:
        """Return the keys of a published image; None for one of ours, a file or a URL."""
        if classify_image(name) != "name" or name in self.ours or not name:
            return None
        if name not in self.pins:
            entry = self.find(name)
            if entry is None:
                return None  # `check` reports it
            self.pins[name] = _pin_of(entry)
        return self.pins[name]


def _pin_of(entry: PublishedEntry) -> dict[str, str]:
    """Return the keys to write. Raise SettingsError if nothing would tell another image."""
    generation_by(entry.init_format, entry.name)
    if not (entry.sha256 or entry.raw_sha256):
        raise SettingsError(
            f"image `{entry.name}` cannot be pinned: its list has no digest",
            "use another image, or write its sha256 into the file",
        )
    pin = {
        "name": entry.name,
        "url": entry.url,
        "sha256": entry.sha256,
        "raw_sha256": entry.raw_sha256,
        "raw_size_bytes": str(entry.raw_size_bytes or ""),
        "init_format": entry.init_format,
    }
    return {key: value for key, value in pin.items() if value}
