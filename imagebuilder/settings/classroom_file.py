"""Read a classroom file with its rosters, and map diagnostics to file and line."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imagebuilder.errors import Problem, SettingsError, problems_of
from imagebuilder.files import read_file
from imagebuilder.settings.resolve import FLAGS
from imagebuilder.settings.roster import (
    MAX_NODES,
    MOST_TABLE_BYTES,
    RangeError,
    decode_table,
    expand_in_part,
    expand_node,
    parse_table,
)
from imagebuilder.settings.schema.diagnostics import Diagnostic, Loc, with_path
from imagebuilder.settings.schema.documents import ASIDE, ClassroomDocument, parse_document
from imagebuilder.settings.schema.fields import host_path
from imagebuilder.settings.yaml_reader import (
    EMPTY,
    CsvReference,
    YamlFile,
    YamlProblem,
    load_yaml,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


# Removing an invalid part may make the part above it invalid, but rarely more than once.
MOST_ROUNDS = 5

# Budget: entries of lists, labels and variables, counted for each node that has them.
MOST_COPIES = 500_000


@dataclass(frozen=True, slots=True)
class _RosterOrigin:
    """The origin of one node of the expanded roster: `index` in the YAML, or a line of a table."""

    index: int = 0
    file: Path | None = None
    line: int = 0


class FaultyParts:
    """The parts with an error: errors that only follow from these are not reported."""

    def __init__(self) -> None:
        self._faulty: set[tuple[object, ...]] = set()
        self._above: set[tuple[object, ...]] = set()

    def add(self, loc: tuple[object, ...]) -> None:
        """Record an error at `loc`."""
        self._faulty.add(loc)
        self._above |= {loc[:depth] for depth in range(1, len(loc) + 1)}

    def covers(self, loc: tuple[object, ...]) -> bool:
        """Return whether `loc` is a part with an error, is inside one, or contains one."""
        within = any(loc[:depth] in self._faulty for depth in range(1, len(loc) + 1))
        return within or loc in self._above


@dataclass
class ClassroomFile:
    """A classroom file with its rosters, and the mapping of diagnostics to file and line."""

    path: Path | None
    home: str
    parsed: YamlFile | None = None
    origins: list[_RosterOrigin] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    removed: list[dict[Loc, list[int]]] = field(default_factory=list)
    reported: set[tuple[_RosterOrigin, Loc, str]] = field(default_factory=set)
    crowded: bool = False
    copies: int = 0
    faulty: FaultyParts = field(default_factory=FaultyParts)

    @property
    def folder(self) -> Path:
        """The folder that relative paths start from."""
        return self.path.parent if self.path else Path()

    @property
    def fatal(self) -> bool:
        """Whether there is an error, not only warnings."""
        return any(problem.severe for problem in self.problems)

    def classroom(self) -> ClassroomDocument | None:
        """Return the file with its rosters; None if it is not valid. Problems are in `problems`."""
        if self.path is None:
            return ClassroomDocument()
        try:
            self.parsed = load_yaml(self.path, "classroom file")
        except SettingsError as error:
            self.problems += problems_of(error)
            return None
        self.problems += [
            Problem(p.message, _hint(p), self.path, p.line) for p in self.parsed.problems
        ]
        if self.parsed.data is None and self.parsed.problems:
            return None
        return self._document(self.parsed.data)

    def _document(self, data: Any) -> ClassroomDocument | None:
        if isinstance(data, dict):
            kept = {key: value for key, value in data.items() if not key.startswith(ASIDE)}
            nodes = self._nodes(data)
            self.copies += len(nodes) * _entries(kept)
            data = {**kept, "nodes": nodes}
            if self.copies > MOST_COPIES:
                hint = "shorten the lists, or use a file for each part of the class"
                self._add(Diagnostic((), "the nodes have too many list entries in all", hint), None)
                return None
        for _ in range(MOST_ROUNDS):
            document, diagnostics = parse_document(
                ClassroomDocument, data, folder=self.folder, home=self.home
            )
            self.note(diagnostics)
            if document is not None or not isinstance(data, dict):
                return document
            data = self._without_faults(data, diagnostics)
            if data is None:
                return None
        return None

    def _without_faults(self, data: dict[str, Any], diagnostics: Sequence[Diagnostic]) -> Any:
        """Return `data` without the parts that have an error, so that the rest can be checked."""
        for diagnostic in diagnostics:
            self.faulty.add(self._identity(self._original_loc(diagnostic.loc)))
        parts = parts_to_remove(data, [diagnostic.loc for diagnostic in diagnostics])
        self.removed.append(removed_indices(parts))
        return without_parts(data, parts)

    def _original_loc(self, loc: Loc) -> Loc:
        """Return the path in the roster as it was read, before parts were removed."""
        for indices in reversed(self.removed):
            loc = original_loc(loc, indices)
        return loc

    def _identity(self, loc: Loc) -> tuple[object, ...]:
        """Return a path that stays the same when nodes before it are removed."""
        if len(loc) > 1 and loc[0] == "nodes" and isinstance(loc[1], int):
            return ("nodes", self.origins[loc[1]], *loc[2:])
        return loc

    def _follows(self, diagnostic: Diagnostic) -> bool:
        """Return whether a diagnostic only follows from errors reported already."""
        if diagnostic.loc == ("nodes",) and self.fatal:
            return True
        if diagnostic.loc[:2] == ("cluster", "enabled") and self.faulty.covers(("shack",)):
            return True
        return self.faulty.covers(self._identity(diagnostic.loc))

    def flags(self, overrides: dict[str, object]) -> ClassroomDocument | None:
        """Return the document of the command line; None if it is not valid."""
        document, diagnostics = parse_document(
            ClassroomDocument, overrides, folder=Path(), home=self.home
        )
        self.note([Diagnostic((FLAGS, *f.loc), f.message, f.hint) for f in diagnostics])
        return document

    def _nodes(self, data: dict[str, Any]) -> list[Any]:
        listed, expanded = data.get("nodes"), []
        if isinstance(listed, CsvReference):
            expanded += self._table(listed.path, ("nodes",))
        elif isinstance(listed, list):
            for index, node in enumerate(listed):
                expanded += self._expand(node, _RosterOrigin(index), ("nodes", index))
        elif listed is not None:
            hint = "for example `- hostname: pi-[01-30]`, or `nodes: !csv FILE`"
            self._add_problem(Diagnostic(("nodes",), "expected a list", hint), None)
        if isinstance(data.get("nodes_from"), str):
            expanded += self._table(data["nodes_from"], ("nodes_from",))
        return expanded

    def _expand(self, node: Any, origin: _RosterOrigin, loc: Loc) -> list[Any]:
        left = MAX_NODES - len(self.origins)
        if left <= 0 and self.crowded:
            return []
        try:
            nodes = expand_node(node) if isinstance(node, dict) else [node]
        except RangeError as error:
            self._add(Diagnostic(loc, str(error), error.hint), origin)
            nodes = expand_in_part(node)
        if len(nodes) > left:
            self.crowded = True
            hint = "use a file for each class"
            self._add(Diagnostic(loc, f"the class has more than {MAX_NODES} nodes", hint), origin)
        self.origins += [origin] * len(nodes[:left])
        self.copies += len(nodes[:left]) * _entries(node)
        return nodes[:left]

    def _table(self, name: str, loc: Loc) -> list[Any]:
        path = host_path(name, self.folder, self.home)
        try:
            table = parse_table(decode_table(read_file(path, "table", MOST_TABLE_BYTES)))
        except SettingsError as error:
            self._add_problem(Diagnostic(loc, error.message, error.hint), None)
            return []
        for diagnostic in table.diagnostics:
            line = diagnostic.loc[0]
            self.problems.append(Problem(diagnostic.message, diagnostic.hint, path, int(line)))
        return [
            node
            for row in table.rows
            for node in self._expand(row.values, _RosterOrigin(-1, path, row.line), ())
        ]

    def note(self, diagnostics: Sequence[Diagnostic]) -> None:
        """Add diagnostics as problems with file and line."""
        for found in diagnostics:
            loc = self._original_loc(found.loc)
            diagnostic = replace(found, loc=loc)
            if self._follows(diagnostic):
                continue
            if len(loc) > 1 and loc[0] == "nodes" and isinstance(loc[1], int):
                self._add(diagnostic, self.origins[loc[1]])
            elif loc and loc[0] == FLAGS:
                self._add_flag(diagnostic)
            else:
                self._add(diagnostic, None)

    def _add(self, diagnostic: Diagnostic, origin: _RosterOrigin | None) -> None:
        if origin is None or not self._is_reported(diagnostic, origin):
            self._add_problem(diagnostic, origin)

    def _is_reported(self, diagnostic: Diagnostic, origin: _RosterOrigin) -> bool:
        """Return whether another node of the same range had this message, apart from numbers."""
        key = (origin, diagnostic.loc[2:], re.sub(r"\d+", "", diagnostic.message))
        known = key in self.reported
        self.reported.add(key)
        return known

    def _add_problem(self, diagnostic: Diagnostic, origin: _RosterOrigin | None) -> None:
        loc = diagnostic.loc
        where: tuple[Path | None, int | None]
        if origin and origin.file:
            message = with_path(loc[2:], diagnostic.message)
            where = (origin.file, origin.line)
        else:
            if origin and len(loc) > 1:
                loc = ("nodes", origin.index, *loc[2:])
            message = with_path(loc, diagnostic.message)
            where = (self.path, self.parsed.line(loc) if self.parsed else None)
        file, line = where
        self.problems.append(_problem(diagnostic, message, file, line))

    def _add_flag(self, diagnostic: Diagnostic) -> None:
        loc = diagnostic.loc[1:]
        loc = loc[2:] if loc[:1] == ("nodes",) else loc
        self.problems.append(_problem(diagnostic, with_path(loc, diagnostic.message)))

    def sorted_problems(self) -> tuple[Problem, ...]:
        """Return each problem once, in file order."""
        unique = dict.fromkeys(self.problems)
        return tuple(sorted(unique, key=lambda p: (str(p.file or ""), p.line or 0)))


def _problem(
    found: Diagnostic, message: str, file: Path | None = None, line: int | None = None
) -> Problem:
    return Problem(message, found.hint, file, line, found.severe, found.word)


def _entries(value: Any) -> int:
    """Return how many entries the lists in a section have, and its labels and variables."""
    if isinstance(value, list):
        return len(value) + sum(map(_entries, value))
    if not isinstance(value, dict):
        return 0
    named = sum(len(value[key]) for key in ("labels", "set") if isinstance(value.get(key), dict))
    return named + sum(_entries(each) for key, each in value.items() if key != "nodes")


def _hint(problem: YamlProblem) -> str:
    return ClassroomDocument.begins if problem.message == EMPTY else problem.hint


# Required names: an invalid one is replaced, so that the other keys beside it are checked.
NAMES = {"hostname": "unnamed-{}", "ssid": "unnamed-{}"}


def parts_to_remove(data: Any, locs: Iterable[Loc]) -> frozenset[Loc]:
    """Return the paths to remove: each of `locs`, or its parent if it does not exist."""
    return frozenset(_part_to_remove(data, loc) for loc in locs)


def without_parts(data: Any, parts: frozenset[Loc]) -> Any:
    """Return a copy of `data` without `parts`, invalid names replaced; None if nothing is left."""
    return None if () in parts else _copy(data, (), parts)


def removed_indices(parts: Iterable[Loc]) -> dict[Loc, list[int]]:
    """Return for each list the sorted indices of the items that are removed with `parts`."""
    indices: dict[Loc, list[int]] = defaultdict(list)
    for part in parts:
        if part and isinstance(part[-1], int):
            indices[part[:-1]].append(part[-1])
    return {loc: sorted(places) for loc, places in indices.items()}


def original_loc(loc: Loc, indices: Mapping[Loc, list[int]]) -> Loc:
    """Return the path that `loc` had before `holes` were removed from the lists in it."""
    found: Loc = ()
    for step in loc:
        place = step
        if isinstance(place, int):
            for removed_index in indices.get(found, ()):
                place += removed_index <= place
        found = (*found, place)
    return found


def _part_to_remove(data: Any, loc: Loc) -> Loc:
    found = _longest_existing(data, loc)
    named = len(found) >= len(loc) - 1 and isinstance(_value_at(data, loc[:-1]), dict)
    return loc if named and loc[-1:] and loc[-1] in NAMES else found


def _value_at(data: Any, loc: Loc) -> Any:
    for part in loc:
        data = data[part]
    return data


def _longest_existing(data: Any, loc: Loc) -> Loc:
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
