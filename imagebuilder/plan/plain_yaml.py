"""Plain data from YAML that others wrote: whatever is wrong with it is a `yaml.YAMLError`."""

from __future__ import annotations

from typing import Any

import yaml

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
TOO_DEEP = "nested too deeply"
# Deeper than any settings; PyYAML's composers recurse, and so do the writers of what they read.
MAX_DEPTH = 50


def load_plain(text: str | bytes) -> Any:
    """Return what `yaml.safe_load` returns; raise YAMLError for any text without such data."""
    if mark := mark_too_deep(text):
        raise yaml.MarkedYAMLError(problem=TOO_DEEP, problem_mark=mark)
    try:
        return yaml.safe_load(text)
    except RecursionError as error:
        raise yaml.MarkedYAMLError(problem=TOO_DEEP) from error
    # PyYAML's constructors check neither numbers and dates nor what an explicit tag stands before.
    except ValueError as error:
        raise yaml.MarkedYAMLError(problem=str(error).partition("\n")[0]) from error
    except (ArithmeticError, AttributeError, LookupError, TypeError) as error:
        raise yaml.MarkedYAMLError(problem="a value does not fit its tag") from error


def mark_too_deep(text: str | bytes) -> Any:
    """Return the place where the nesting passes MAX_DEPTH, or None.

    The C composer recurses on the stack and kills the process at some ten thousand levels; its
    parser does not, and from PyYAML 6.0.4 on it refuses a thousand levels by itself.
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
    """Return what is wrong in one line, with the line in the text where that is known."""
    mark: Any = getattr(error, "problem_mark", None)
    reason = getattr(error, "problem", None) or str(error).partition("\n")[0] or "not YAML"
    return f"line {mark.line + 1}: {reason}" if mark else reason
