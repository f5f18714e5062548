"""Parse a published list of images, in the form of Raspberry Pi Imager.

The form is that of `os_list_imagingutility_v4.json`: `imager.devices`, and entries in `os_list`
that are an image, a group (`subitems`) or point to a further list (`subitems_url`). See
doc/json-schema of raspberrypi/rpi-imager.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from imagebuilder.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

LARGEST_LIST_BYTES = 16 << 20  # a published list; that of Raspberry Pi has under 1 MiB
MOST_GROUP_DEPTH = 16  # groups inside groups of a published list
MOST_LISTED = 20_000  # entries and groups of one published list

# Choices of Raspberry Pi Imager itself ("Erase", "Use custom"), not images.
_INTERNAL = "internal:"
_HINT = "use a list in the form of Raspberry Pi Imager (os_list_imagingutility_v4.json)"


@dataclass(frozen=True, slots=True)
class ListedDevice:
    """A board of `imager.devices`; with `inclusive`, it also takes images without tags."""

    name: str
    tags: frozenset[str]
    inclusive: bool


@dataclass(frozen=True, slots=True)
class ListPage:
    """One list: its boards, the entries that are images, and the URLs of further lists.

    The entries are not checked yet. `notes` say what was skipped.
    """

    devices: tuple[ListedDevice, ...] = ()
    entries: tuple[Mapping[str, Any], ...] = ()
    links: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def parse_list(data: bytes, origin: str) -> ListPage:
    """Return the content of a list. Raise SourceError if it is not one; `origin` names it."""
    try:
        content = json.loads(data.decode("utf-8-sig"))
    except RecursionError:
        raise _not_a_list(origin, "it nests too deeply") from None
    except ValueError:
        raise _not_a_list(origin, "it is not JSON") from None
    listed = content.get("os_list") if isinstance(content, dict) else None
    if not isinstance(listed, list):
        raise _not_a_list(origin, "it has no `os_list`")
    walk = _Collector(origin)
    walk.visit(listed)
    imager = content.get("imager")
    devices = imager.get("devices") if isinstance(imager, dict) else None
    boards = _devices(devices if isinstance(devices, list) else [])
    return ListPage(tuple(boards), tuple(walk.entries), tuple(walk.links), tuple(walk.notes))


def _not_a_list(origin: str, reason: str) -> SourceError:
    return SourceError(f"{origin} is not a list of images: {reason}", _HINT)


@dataclass
class _Collector:
    """The entries found so far; groups wait on a stack, so that the depth costs no recursion."""

    origin: str
    entries: list[Mapping[str, Any]] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def visit(self, listed: list[Any]) -> None:
        """Collect the entries of a list and of its groups, in order."""
        waiting: list[tuple[Iterator[Any], int]] = [(iter(listed), 1)]
        seen = 0
        while waiting:
            items, depth = waiting[-1]
            item = next(items, self)
            if item is self:
                waiting.pop()
                continue
            seen += 1
            if seen > MOST_LISTED:
                raise _not_a_list(self.origin, f"it has more than {MOST_LISTED} entries")
            group = self._take(item)
            if group and depth >= MOST_GROUP_DEPTH:
                self.notes.append(f"a group is skipped: it is {MOST_GROUP_DEPTH} levels deep")
            elif group:
                waiting.append((iter(group), depth + 1))

    def _take(self, item: object) -> list[Any]:
        """Return the items of a group; keep a link or an entry."""
        if not isinstance(item, dict):
            self.notes.append("an entry is skipped: expected an object")
            return []
        group, link = item.get("subitems"), item.get("subitems_url")
        if isinstance(link, str) and link:
            self.links.append(link)
        if isinstance(group, list):
            return group
        if group is not None or (link is not None and not isinstance(link, str)):
            self.notes.append("a group is skipped: expected a list of entries or a URL")
        elif link is None and not str(item.get("url")).startswith(_INTERNAL):
            self.entries.append(item)
        return []


def _devices(listed: list[Any]) -> Iterator[ListedDevice]:
    """Yield the boards that have a name and tags; others cannot be selected."""
    for item in listed[:MOST_LISTED]:
        name, tags = (item.get("name"), item.get("tags")) if isinstance(item, dict) else ("", [])
        if isinstance(name, str) and name and isinstance(tags, list):
            words = frozenset(tag.lower() for tag in tags if isinstance(tag, str))
            yield ListedDevice(name, words, item.get("matching_type") == "inclusive")
