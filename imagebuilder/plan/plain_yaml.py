"""Load plain data from YAML of others; any error is raised as `yaml.YAMLError`."""

from __future__ import annotations

from typing import Any

import yaml

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
TOO_DEEP = "nested too deeply"
# Deeper than any settings; the composers and writers of PyYAML are recursive.
MAX_DEPTH = 50


def load_plain(text: str | bytes) -> Any:
    """Return the result of `yaml.safe_load`. Raise YAMLError for any invalid text."""
    if mark := mark_too_deep(text):
        raise yaml.MarkedYAMLError(problem=TOO_DEEP, problem_mark=mark)
    try:
        return yaml.safe_load(text)
    except RecursionError as error:
        raise yaml.MarkedYAMLError(problem=TOO_DEEP) from error
    # The constructors of PyYAML do not check numbers, dates and values with explicit tags.
    except ValueError as error:
        raise yaml.MarkedYAMLError(problem=str(error).partition("\n")[0]) from error
    except (ArithmeticError, AttributeError, LookupError, TypeError) as error:
        raise yaml.MarkedYAMLError(problem="a value does not match its tag") from error


def mark_too_deep(text: str | bytes) -> Any:
    """Return the place where the nesting exceeds MAX_DEPTH, or None.

    The composer of libyaml's binding recurses on the C stack and crashes the process at some ten
    thousand levels. Its parser does not recurse, and rejects a thousand levels since PyYAML 6.0.4.
    """
    depth = 0
    try:
        for event in yaml.parse(text, Loader=LOADER):
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
            if depth > MAX_DEPTH:
                return event.start_mark
    except yaml.MarkedYAMLError as error:
        return error.problem_mark if "nesting" in (error.problem or "") else None
    except yaml.YAMLError:
        return None
    return None


def yaml_reason(error: yaml.YAMLError) -> str:
    """Return the error as one line, with its line in the text if known."""
    mark: Any = getattr(error, "problem_mark", None)
    reason = getattr(error, "problem", None) or str(error).partition("\n")[0] or "not YAML"
    return f"line {mark.line + 1}: {reason}" if mark else reason
