"""The sandbox of templates: strict names, no access to Python, and a budget for what they do.

A template of an overlay comes from somebody else. It may loop, call macros in a tree, and double a
text forty times; none of that may take long or fill the memory.
"""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sized
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar, cast

from jinja2 import StrictUndefined, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from imagebuilder.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable

    from jinja2 import Environment
    from jinja2.runtime import Context

NodeType = TypeVar("NodeType", bound=nodes.Node)

# Budgets of one rendered file: bytes of the result and of any text on the way.
MOST_OUTPUT_BYTES = 4 << 20
# Bytes of all texts that are made on the way.
MOST_MADE_BYTES = 64 << 20
# Turns of loops, calls, filters and operators.
MOST_TURNS = 1_000_000
# For what no count shows; honest templates take milliseconds.
MOST_SECONDS = 20.0
# Numbers that texts are sized by (`center`, `indent`), and bits of numbers that are multiplied.
MOST_NUMBER = 1_000_000
MOST_BITS = 64 * 1024
# Turns until the clock is looked at again.
_LOOK_AGAIN = 16
_PLAIN = (str, bytes, int, float, type(None))
_SIZED = (str, bytes, list, tuple)
_HINT = "make the template smaller"
_LONG_NUMBER = re.compile(r"\d{7}")

# What makes a text whose size is that of one argument times that of another.
_PRODUCTS = "replace join indent wordwrap translate batch slice expandtabs xmlattr"
_PRODUCT_NAMES = frozenset(_PRODUCTS.split())


@dataclass(slots=True)
class Meter:
    """What the rendering of one file has used."""

    turns: int = 0
    made_bytes: int = 0
    began: float = field(default_factory=time.monotonic)

    def add(self, result: object = None) -> None:
        """Count one turn, and what it made. Raise SettingsError beyond a budget."""
        self.turns += 1
        if isinstance(result, _SIZED):
            _refuse(len(result))
            self.made_bytes += len(result)
        if self.turns > MOST_TURNS or self.made_bytes > MOST_MADE_BYTES:
            raise SettingsError("the template does more than any file needs", _HINT)
        if self.turns % _LOOK_AGAIN == 0 and time.monotonic() - self.began > MOST_SECONDS:
            raise SettingsError(f"the template takes more than {MOST_SECONDS:.0f} s", _HINT)


METER: ContextVar[Meter] = ContextVar("METER")


class Sandbox(ImmutableSandboxedEnvironment):
    """Jinja2's sandbox, where loops, calls, filters and operators count for the meter."""

    intercepted_binops = frozenset(["+", "*", "**", "%"])

    def __init__(self, filters: Mapping[str, Callable[..., Any]]) -> None:
        super().__init__(
            undefined=StrictUndefined,
            autoescape=False,  # not HTML: templates use the filters `sh` and `yaml`
            keep_trailing_newline=True,
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=["jinja2.ext.do"],
        )
        self.globals.pop("lipsum")
        self.filters |= filters
        self.filters = {name: _counted(each) for name, each in self.filters.items()}
        self.filters |= {"_turns": _turns, "_joined": _joined, "_shown": _shown, "_made": _made}

    def bounded(self, source: str, origin: str) -> nodes.Template:
        """Return the syntax tree of a template, with what Jinja2 does not let us intercept."""
        tree = self.parse(source, filename=origin)
        for loop in list(tree.find_all(nodes.For)):
            loop.iter = _filter(loop.iter, "_turns", _bytes_of(loop))
        for output in list(tree.find_all(nodes.Output)):
            output.nodes = [
                each if isinstance(each, nodes.TemplateData) else _filter(each, "_shown")
                for each in output.nodes
            ]
        _meter_values(tree)
        return tree

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Return the result of an operator, unless that would be too large."""
        _refuse_large(operator, left, right)
        result = super().call_binop(context, operator, left, right)
        METER.get().add(result)
        return result

    def call(self, context: Context, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Return the result of a call, unless its arguments ask for too much."""
        # Jinja2 puts its own function around `format` of a text.
        method = getattr(function, "__wrapped__", function)
        owner = getattr(method, "__self__", None)
        if isinstance(owner, str | bytes | list):
            _refuse_arguments(method.__name__, (owner, *args), kwargs)
        METER.get().add()
        result = super().call(context, function, *args, **kwargs)
        METER.get().add(result)
        return result


# ---- filters


def _counted(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def counted(*args: Any, **kwargs: Any) -> Any:
        meter = METER.get()
        given = args[1:] if hasattr(function, "jinja_pass_arg") else args
        _refuse_arguments(getattr(function, "__name__", ""), given, kwargs)
        result = function(*args, **kwargs)
        meter.add(result)
        return result

    return counted


def _turns(items: Iterable[Any], text_bytes: int) -> Iterator[Any]:
    meter = METER.get()
    for item in items:
        meter.made_bytes += text_bytes
        meter.add()
        yield item


def _shown(value: object) -> str:
    """Return what `{{ … }}` puts out; inside a block of `set` that is kept."""
    _weigh(value)
    text = str(value)
    METER.get().add(text)
    return text


def _made(value: object) -> object:
    """Return a list or mapping of the template: nested in itself, its text would have no end."""
    _weigh(value)
    METER.get().add()
    return value


def _joined(parts: Iterable[object]) -> str:
    texts = [str(part) for part in parts]  # each is a text by now: see `_metered`
    _refuse(sum(map(len, texts)))
    text = "".join(texts)
    METER.get().add(text)
    return text


# ---- what would be too large


def _refuse(size: int) -> None:
    if size > MOST_OUTPUT_BYTES:
        raise SettingsError(f"a text or list of more than {MOST_OUTPUT_BYTES >> 20} MiB", _HINT)


def _weigh(value: object) -> None:
    """Raise SettingsError if the text of a value is too large; what occurs twice counts twice."""
    if isinstance(value, _PLAIN):
        return
    size, stack = 0, [value]
    while stack:
        each = stack.pop()
        size += len(each) + 2 if isinstance(each, str | bytes) else 2
        if isinstance(each, Mapping):
            stack += each.keys()
            stack += each.values()
        elif isinstance(each, list | tuple | set | frozenset):
            stack += each
        if size > MOST_OUTPUT_BYTES or len(stack) > MOST_OUTPUT_BYTES:
            _refuse(MOST_OUTPUT_BYTES + 1)


def _refuse_arguments(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Raise SettingsError for a width, count or separator that makes a text too large."""
    kind = name.removeprefix("do_")
    given = (*args[1:], *kwargs.values())
    for each in (*args[:1], *given):
        _weigh(each)
    numbers = [abs(each) for each in given if isinstance(each, int)]
    if any(number > MOST_NUMBER for number in numbers):
        raise SettingsError(f"a number over {MOST_NUMBER} for `{kind}`", _HINT)
    if kind in {"format", "format_map"}:
        _refuse_format(str(args[0]))
    if kind in _PRODUCT_NAMES:
        sizes = [len(each) for each in given if isinstance(each, str | bytes)]
        length = len(args[0]) if isinstance(args[0], Sized) else 0
        _refuse((length + 1) * max([*sizes, *numbers, 1]))


def _refuse_format(text: str) -> None:
    if "*" in text or _LONG_NUMBER.search(text):
        raise SettingsError("a format whose width is not a small number", _HINT)


def _refuse_large(operator: str, left: Any, right: Any) -> None:
    if operator == "%" and isinstance(left, str | bytes):
        _refuse_format(left if isinstance(left, str) else left.decode("latin-1"))
        _weigh(right)
    if operator == "+" and isinstance(left, Sized) and isinstance(right, Sized):
        _refuse(len(left) + len(right))
    if operator == "*":
        counts = [each for each in (left, right) if isinstance(each, int)]
        things = [len(each) for each in (left, right) if isinstance(each, Sized)]
        if counts and things:
            _refuse(counts[0] * things[0])
    if operator in {"*", "**"} and isinstance(left, int) and isinstance(right, int):
        bits = left.bit_length()
        bits = bits + right.bit_length() if operator == "*" else bits * abs(right)
        if bits > MOST_BITS:
            raise SettingsError("a number of too many digits", _HINT)


# ---- the syntax tree


def _bytes_of(loop: nodes.For) -> int:
    return sum(len(each.data) for part in loop.body for each in part.find_all(nodes.TemplateData))


def _filter(node: nodes.Node, name: str, *constants: int) -> nodes.Filter:
    arguments: list[nodes.Expr] = [nodes.Const(each) for each in constants]
    made = nodes.Filter(cast("nodes.Expr", node), name, arguments, [], None, None)
    return _placed(made, node)


def _placed(made: NodeType, like: nodes.Node) -> NodeType:
    made.set_lineno(like.lineno)
    made.set_environment(cast("Environment", like.environment))
    return made


def _meter_values(tree: nodes.Node) -> None:
    """Let each `~`, list and mapping count, from the inside out."""
    for name, value in tree.iter_fields():
        if isinstance(value, list):
            setattr(tree, name, [_metered(each) for each in value])
        else:
            setattr(tree, name, _metered(value))


def _metered(value: Any) -> Any:
    if not isinstance(value, nodes.Node):
        return value
    _meter_values(value)
    if isinstance(value, nodes.Concat):
        texts = [_filter(each, "_shown") for each in value.nodes]
        return _filter(_placed(nodes.List(texts), value), "_joined")
    stored = isinstance(value, nodes.Tuple) and value.ctx != "load"
    if isinstance(value, nodes.List | nodes.Dict | nodes.Tuple) and not stored:
        return _filter(value, "_made")
    return value
