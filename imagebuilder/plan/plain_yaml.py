"""Load plain data from YAML of others; any error is raised as `yaml.YAMLError`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import yaml

LOADER: type[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
TOO_DEEP = "nested too deeply"
ENDLESS = "an alias is inside its own anchor"
TOO_MANY = "too many values"
TOO_LONG = "the value is too long"
NOT_A_NUMBER = "a number has too many digits"
# Deeper than any settings; the composers and writers of PyYAML are recursive.
MAX_DEPTH = 50
# Budget, in keys and values, those that aliases and merges repeat counted each time: some seconds.
MAX_VALUES = 20_000
# Those of a sexagesimal number (`1:1:1`) take a time that grows with their square.
MOST_DIGITS = 1_000
_NUMBERS = frozenset({"tag:yaml.org,2002:int", "tag:yaml.org,2002:float"})


def load_plain(
    text: str | bytes, *, loader: type[Any] = yaml.SafeLoader, most_values: int = MAX_VALUES
) -> Any:
    """Return what `yaml.safe_load` returns; raise YAMLError for any text without such data.

    `LOADER` is faster and differs in a few odd texts, so it is for texts of our own.
    """
    refuse_excess(text, most_values)
    try:
        reader = loader(text)
        try:
            root = reader.get_single_node()
            if root is None:
                return None
            weigh(root, most_values)
            return reader.construct_document(root)
        finally:
            reader.dispose()
    except RecursionError as error:
        raise yaml.MarkedYAMLError(problem=TOO_DEEP) from error
    # The constructors of PyYAML do not check numbers, dates and values with explicit tags.
    except ValueError as error:
        raise yaml.MarkedYAMLError(problem=str(error).partition("\n")[0]) from error
    except (ArithmeticError, AttributeError, LookupError, TypeError) as error:
        raise yaml.MarkedYAMLError(problem="a value does not match its tag") from error


def weigh(root: yaml.Node, most_values: int) -> None:
    """Raise MarkedYAMLError if a document is too deep or too large with its aliases written out."""
    _Weight(most_values).add(root)


@dataclass(slots=True)
class _Weight:
    """What a document holds once its aliases are written out: "billion laughs" are small texts."""

    most: int
    done: dict[int, tuple[int, int]] = field(default_factory=dict)
    open: set[int] = field(default_factory=set)

    def add(self, node: yaml.Node) -> tuple[int, int]:
        """Return how many values are in a node, and how deep; raise YAMLError beyond the budget."""
        if id(node) in self.open:
            raise yaml.MarkedYAMLError(problem=ENDLESS, problem_mark=node.start_mark)
        if id(node) not in self.done:
            self.open.add(id(node))
            self.done[id(node)] = self._inside(node)
            self.open.discard(id(node))
        return self.done[id(node)]

    def _inside(self, node: yaml.Node) -> tuple[int, int]:
        children: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            children = [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            children = node.value
        elif node.tag in _NUMBERS and len(node.value) > MOST_DIGITS:
            raise yaml.MarkedYAMLError(problem=NOT_A_NUMBER, problem_mark=node.start_mark)
        total, deepest = 1, 0
        for child in children:
            size, depth = self.add(child)
            total, deepest = total + size, max(deepest, depth + 1)
            if total > self.most or deepest > MAX_DEPTH:
                problem = TOO_MANY if total > self.most else TOO_DEEP
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
        return total, deepest


def refuse_excess(text: str | bytes, most_values: int, most_letters: int | None = None) -> None:
    """Raise MarkedYAMLError where a text is too deep, has too many values, or too long a one.

    The composer of libyaml's binding recurses on the C stack and crashes the process at some ten
    thousand levels. Its parser does not recurse, and rejects a thousand levels since PyYAML 6.0.4.
    """
    problem, mark = "", None
    try:
        problem, mark = _excess(text, most_values, most_letters)
    except yaml.MarkedYAMLError as error:
        if "nesting" in (error.problem or ""):
            problem, mark = TOO_DEEP, error.problem_mark
    except yaml.YAMLError:
        return  # what else is wrong is told where the text is read
    if problem:
        raise yaml.MarkedYAMLError(problem=problem, problem_mark=mark)


def _excess(text: str | bytes, most_values: int, most_letters: int | None) -> tuple[str, Any]:
    depth = count = 0
    for event in yaml.parse(text, Loader=LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        count += isinstance(event, yaml.NodeEvent)
        if depth > MAX_DEPTH:
            return TOO_DEEP, event.start_mark
        if count > most_values:
            return TOO_MANY, event.start_mark
        if most_letters and len(getattr(event, "value", None) or "") > most_letters:
            return TOO_LONG, event.start_mark
    return "", None


def yaml_reason(error: yaml.YAMLError) -> str:
    """Return the error as one line, with its line in the text if known."""
    mark: Any = getattr(error, "problem_mark", None)
    reason = getattr(error, "problem", None) or str(error).partition("\n")[0] or "not YAML"
    return f"line {mark.line + 1}: {reason}" if mark else reason
