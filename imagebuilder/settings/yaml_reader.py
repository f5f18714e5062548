"""Read YAML with the line of every value; scalars stay as they were written.

`hostname: no` and `0123` are strings here: the documents decide what is a number.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import yaml

from imagebuilder.errors import Problem, SettingsError
from imagebuilder.files import read_file
from imagebuilder.plan.plain_yaml import (
    ENDLESS,
    LOADER,
    TOO_DEEP,
    TOO_LONG,
    TOO_MANY,
    refuse_excess,
    weigh,
)

if TYPE_CHECKING:
    from pathlib import Path

    from imagebuilder.settings.schema.diagnostics import Loc

# Texts that are refused, and the hint for each.
_EXCESS = {
    ENDLESS: "write the values out",
    TOO_DEEP: "",
    TOO_LONG: "check if a quote is missing",
    TOO_MANY: "use `nodes: !csv FILE` for a long roster",
}
_NULL = "tag:yaml.org,2002:null"
_MERGE = "tag:yaml.org,2002:merge"
_OWN = "tag:yaml.org,2002:"
EMPTY = "the file is empty"

# Budget, in keys and values, those of aliases counted each time ("billion laughs").
MAX_VALUES = 300_000
# Letters of one value: a public key, or a passphrase, has some hundred.
MOST_LETTERS = 16 << 10


@dataclass(frozen=True, slots=True)
class CsvReference:
    """The value of `!csv PATH`."""

    path: str


@dataclass(frozen=True, slots=True)
class YamlProblem:
    """An error in the YAML itself; `line` counts from 1; the message never quotes a secret."""

    line: int
    message: str
    hint: str = ""


@dataclass(slots=True)
class YamlFile:
    """Plain data (dict, list, str, None, CsvReference), its problems, and the line of any path."""

    data: Any
    problems: tuple[YamlProblem, ...] = ()
    root: yaml.Node | None = None

    def line(self, loc: Loc) -> int:
        """Return the line of the deepest part of `loc` that exists; 1 for an empty document."""
        node, line = self.root, 1
        if node is not None:
            line = _line(node)
        for part in loc:
            found = _step(node, part)
            if found is None:
                break
            line, node = found
        return line


def parse_yaml(text: str) -> YamlFile:
    """Parse one document and collect its problems; after a syntax error there is only that one."""
    try:
        refuse_excess(text, MAX_VALUES, MOST_LETTERS)
        root = yaml.compose(text, Loader=LOADER)
        if root is not None:
            weigh(root, MAX_VALUES)
    except yaml.YAMLError as error:
        return YamlFile(None, (_syntax_problem(error),))
    if root is None:
        return YamlFile(None, (YamlProblem(1, EMPTY, "write `key: value` lines"),))
    builder = _Builder()
    data = builder.value(root)
    return YamlFile(data, tuple(builder.problems), root)


def _syntax_problem(error: yaml.YAMLError) -> YamlProblem:
    if isinstance(error, yaml.reader.ReaderError):
        return YamlProblem(1, "the file is not UTF-8", "save the file as UTF-8")
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    problem = getattr(error, "problem", None) or "not YAML"
    if problem in _EXCESS:
        return YamlProblem(mark.line + 1 if mark else 1, problem, _EXCESS[problem])
    # libyaml and PyYAML quote aliases and tags; an unquoted secret may look like one.
    shown = re.sub(r"\s*(['\"]).*\1", "", problem) if "alias" in problem else problem
    return YamlProblem(mark.line + 1 if mark else 1, f"not YAML: {shown}", _syntax_hint(problem))


def _syntax_hint(problem: str) -> str:
    if "start any token" in problem:
        return "indent with spaces, not tabs, and quote values with special characters"
    if "alias" in problem or "anchor" in problem:
        return "quote a value that begins with `*` or `&`"
    if "expected ','" in problem:
        return "close every `[` and `{`, and quote values like 'pi-[01-30]' inside them"
    return "check the indentation, and quote values that contain `: ` or ` #`"


@dataclass(slots=True)
class _Builder:
    problems: list[YamlProblem] = field(default_factory=list)
    done: dict[int, Any] = field(default_factory=dict)

    def value(self, node: yaml.Node) -> Any:
        if id(node) not in self.done:
            self.done[id(node)] = self._make(node)
        return self.done[id(node)]

    def _make(self, node: yaml.Node) -> Any:
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(child) for child in node.value]
        return self._scalar(cast("yaml.ScalarNode", node))

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        if node.tag == "!csv":
            return CsvReference(node.value)
        if not node.tag.startswith(_OWN):
            return self._complain(
                node, "unknown tag", "use `!csv FILE`, or quote a value that begins with !"
            )
        return None if node.tag == _NULL and not node.style else node.value

    def _mapping(self, node: yaml.MappingNode) -> dict[str, Any]:
        made: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key, child in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self._complain(
                    key, "a key must be a string", "quote a value that begins with { or ["
                )
            elif key.tag == _MERGE:
                merged |= self._merged(child)
            elif key.value in made:
                self._complain(key, f"key `{key.value}` occurs twice", "keep one of them")
            else:
                made[key.value] = self.value(child)
        return {**merged, **made} if merged else made

    def _merged(self, node: yaml.Node) -> dict[str, Any]:
        made = self.value(node)
        parts = made if isinstance(made, list) else [made]
        if not all(isinstance(part, dict) for part in parts):
            self._complain(node, "`<<` needs a mapping")
            return {}
        return {key: value for part in reversed(parts) for key, value in part.items()}

    def _complain(self, node: yaml.Node, message: str, hint: str = "") -> None:
        self.problems.append(YamlProblem(_line(node), message, hint))


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _step(node: yaml.Node | None, part: str | int) -> tuple[int, yaml.Node] | None:
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return _line(node.value[part]), node.value[part]
    if isinstance(node, yaml.MappingNode):
        return _entry(node, str(part))
    return None


def _entry(node: yaml.MappingNode, name: str) -> tuple[int, yaml.Node] | None:
    merges: list[yaml.Node] = []
    for key, child in node.value:
        if getattr(key, "value", None) == name:
            return _line(key), child
        if key.tag == _MERGE:
            merges += child.value if isinstance(child, yaml.SequenceNode) else [child]
    found = (_entry(merge, name) for merge in merges if isinstance(merge, yaml.MappingNode))
    return next((entry for entry in found if entry), None)


MAX_FILE_BYTES = 16 << 20  # any settings file, and any secret


# ---- files


def read_text(path: Path, what: str) -> str:
    """Return the text of a user's file; UTF-8, with or without BOM.

    Raise SettingsError if it cannot be read, is not UTF-8 or over 16 MiB.
    """
    raw = read_bytes(path, what)
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        hint = "save the file as UTF-8"
        problem = Problem("the file is not UTF-8", hint, path, line)
        raise SettingsError(f"{path} cannot be read", problems=(problem,)) from None


def read_bytes(path: Path, what: str) -> bytes:
    """Return the content of a small file. Raise SettingsError on failure or over 16 MiB."""
    return read_file(path, what, MAX_FILE_BYTES)


def load_yaml(path: Path, what: str) -> YamlFile:
    """Read a YAML file; its problems are in the result. Raise SettingsError as `read_text`."""
    return parse_yaml(read_text(path, what))
