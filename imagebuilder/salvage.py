"""What is left of a document without its faulty parts, so that the rest can be looked at too."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from imagebuilder.findings import Loc


# Keys that name a thing: with a stand-in the rest of the thing is still looked at.
NAMES = {"hostname": "unnamed-{}", "ssid": "unnamed-{}"}


def faulty_parts(data: Any, locs: Iterable[Loc]) -> frozenset[Loc]:
    """Give the paths to take out: each of `locs`, or what lacks it where it is not there."""
    return frozenset(_faulty_part(data, loc) for loc in locs)


def without(data: Any, parts: frozenset[Loc]) -> Any:
    """Copy `data` without `parts`, faulty names stood in for; None where that is all of it."""
    return None if () in parts else _copy(data, (), parts)


def holes_of(parts: Iterable[Loc]) -> dict[Loc, list[int]]:
    """Give the places that taking `parts` out leaves in each list, in order."""
    holes: dict[Loc, list[int]] = defaultdict(list)
    for part in parts:
        if part and isinstance(part[-1], int):
            holes[part[:-1]].append(part[-1])
    return {loc: sorted(places) for loc, places in holes.items()}


def restored(loc: Loc, holes: Mapping[Loc, list[int]]) -> Loc:
    """Give the path that `loc` had before the lists above it got their `holes`."""
    found: Loc = ()
    for step in loc:
        place = step
        if isinstance(place, int):
            for hole in holes.get(found, ()):
                place += hole <= place
        found = (*found, place)
    return found


def _faulty_part(data: Any, loc: Loc) -> Loc:
    found = _present(data, loc)
    named = len(found) >= len(loc) - 1 and isinstance(_at(data, loc[:-1]), dict)
    return loc if named and loc[-1:] and loc[-1] in NAMES else found


def _at(data: Any, loc: Loc) -> Any:
    for part in loc:
        data = data[part]
    return data


def _present(data: Any, loc: Loc) -> Loc:
    for depth, part in enumerate(loc):
        there = (
            part in data
            if isinstance(data, dict)
            else isinstance(data, list) and isinstance(part, int) and part < len(data)
        )
        if not there:
            return loc[:depth]
        data = data[part]
    return loc


def _copy(value: Any, loc: Loc, parts: frozenset[Loc]) -> Any:
    if isinstance(value, dict):
        kept = {key: inner for key, inner in value.items() if (*loc, key) not in parts}
        copied = {key: _copy(inner, (*loc, key), parts) for key, inner in kept.items()}
        return copied | {
            name: text.format(loc[-1] if loc else 0)
            for name, text in NAMES.items()
            if (*loc, name) in parts
        }
    if isinstance(value, list):
        kept_items = [(i, item) for i, item in enumerate(value) if (*loc, i) not in parts]
        return [_copy(item, (*loc, i), parts) for i, item in kept_items]
    return value


class Blame:
    """Which parts are faulty already, so that what only follows from them is not said again."""

    def __init__(self) -> None:
        self._faulty: set[tuple[object, ...]] = set()
        self._above: set[tuple[object, ...]] = set()

    def add(self, loc: tuple[object, ...]) -> None:
        """Note that what stands at `loc` is faulty."""
        self._faulty.add(loc)
        self._above |= {loc[:depth] for depth in range(1, len(loc) + 1)}

    def covers(self, loc: tuple[object, ...]) -> bool:
        """Tell whether `loc` is a faulty part, within one, or holds one."""
        within = any(loc[:depth] in self._faulty for depth in range(1, len(loc) + 1))
        return within or loc in self._above
