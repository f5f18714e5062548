"""Render the Jinja2 templates of overlays: sandboxed, with strict names and exact quoting."""

from __future__ import annotations

import json
import math
import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import lru_cache
from traceback import extract_tb
from typing import TYPE_CHECKING

from jinja2 import TemplateError, TemplateSyntaxError, meta

from imagebuilder.errors import ImageError, SettingsError
from imagebuilder.plan.boot_texts import check_line, check_verbatim
from imagebuilder.plan.sandbox import METER, MOST_OUTPUT_BYTES, Meter, Sandbox
from imagebuilder.plan.vendor.cloud_init import other_passwords, other_users
from imagebuilder.plan.vendor.wifi import (
    nm_ssid,
    nm_text,
    wpa_country,
    wpa_networks,
    wpa_ssid,
    wpa_text,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from jinja2 import Template as JinjaTemplate


# Not printable in YAML 1.1 (5.1, c-printable), or read as a line break; not escaped by JSON.
_NOT_IN_YAML = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]")
_PAIR = 2


@dataclass(frozen=True, slots=True)
class Template:
    """A compiled template; `names` are the variables it uses, `origin` is its file."""

    origin: str
    names: frozenset[str]
    _compiled: JinjaTemplate

    def render(self, context: Mapping[str, object]) -> str:
        """Render with `context`. Raise SettingsError with file and line of the template."""
        try:
            return _rendered(self._compiled, context)
        except ImageError:  # raised by `boot_yaml` and its like, not an error of the template
            raise
        except Exception as error:  # an expression in a template can raise anything
            raise SettingsError(
                f"{self.origin}:{_line_of(error, self.origin)}: {_reason(error)}", _hint(error)
            ) from error


@lru_cache(maxsize=1024)
def compile_template(source: str, origin: str) -> Template:
    """Compile a template; `origin` is its name in errors. Raise SettingsError if it is wrong."""
    try:
        names = meta.find_undeclared_variables(_ENVIRONMENT.parse(source, filename=origin))
        tree = _ENVIRONMENT.bounded(source, origin)
        code = _ENVIRONMENT.compile(tree, name=origin, filename=origin)
    except TemplateSyntaxError as error:
        raise SettingsError(
            f"{origin}:{error.lineno}: {_reason(error)}", "fix the Jinja2 syntax"
        ) from error
    # Python compiles what Jinja2 makes of it: too deep, too many digits, a duplicate argument.
    except (ArithmeticError, MemoryError, RecursionError, SyntaxError, ValueError) as error:
        raise SettingsError(
            f"{origin}:1: {_reason(error)}", "nest the template less deeply"
        ) from error
    compiled = _ENVIRONMENT.template_class.from_code(_ENVIRONMENT, code, _ENVIRONMENT.globals)
    return Template(origin, frozenset(names), compiled)


def _rendered(compiled: JinjaTemplate, context: Mapping[str, object]) -> str:
    meter = Meter()
    token = METER.set(meter)
    try:
        parts: list[str] = []
        size = 0
        for part in compiled.generate(context):
            size += len(part.encode("utf-8", "surrogatepass"))
            if size > MOST_OUTPUT_BYTES:
                raise SettingsError(f"the file has more than {MOST_OUTPUT_BYTES >> 20} MiB", "")
            parts.append(part)
            meter.add()
        return "".join(parts)
    finally:
        METER.reset(token)


def sh(value: object) -> str:
    """Return `value` in single quotes for the shell. Raise SettingsError on control characters."""
    text = check_line(_shell_text(value))
    return "'" + text.replace("'", "'\"'\"'") + "'"


def yaml(value: object) -> str:
    """Return a YAML flow value that every loader reads as the same type and text.

    A JSON string is valid YAML 1.1 if the characters that YAML calls non-printable are escaped.
    The quotes keep `no`, `0123` and dates strings.
    """
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{yaml(key)}: {yaml(each)}" for key, each in value.items()) + "}"
    if isinstance(value, set | frozenset):
        return "!!set {" + ", ".join(f"{member}: null" for member in sorted(map(yaml, value))) + "}"
    if isinstance(value, list | tuple):
        return _yaml_list(value)
    return _yaml_scalar(value)


def _yaml_list(value: Sequence[object]) -> str:
    """Return a YAML list; PyYAML gives an ordered mapping as a list of pairs in tuples."""
    pairs = [each for each in value if isinstance(each, tuple) and len(each) == _PAIR]
    if pairs and len(pairs) == len(value):
        return "!!pairs [" + ", ".join(f"{{{yaml(k)}: {yaml(v)}}}" for k, v in pairs) + "]"
    return "[" + ", ".join(yaml(each) for each in value) + "]"


def _yaml_scalar(value: object) -> str:
    if isinstance(value, bytes):
        return f'!!binary "{b64encode(value).decode()}"'
    if isinstance(value, datetime):  # before its base class
        return f'!!timestamp "{value.isoformat(" ")}"'
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, float):
        return _yaml_float(value)
    text = json.dumps(value, ensure_ascii=False, default=str)
    return _NOT_IN_YAML.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _yaml_float(value: float) -> str:
    """Return a float with a point: without one, YAML 1.1 reads 1e+30 as a text."""
    if not math.isfinite(value):
        return ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"
    number, exponent, power = repr(value).partition("e")
    return (number if "." in number else f"{number}.0") + exponent + power


def compose(value: object) -> str:
    """Return a YAML value for a compose file, in which `$` is escaped (`$$`)."""
    return yaml(value).replace("$", "$$")


def utc(epoch: int) -> str:
    """Return `epoch` (seconds since 1970) in the format of fake-hwclock."""
    return datetime.fromtimestamp(epoch, tz=UTC).strftime("%Y-%m-%d %H:%M:%S")


def _shell_text(value: object) -> str:
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, (list, tuple)):
        return " ".join(str(word) for word in value)
    return str(value)


def _line_of(error: BaseException, origin: str) -> int:
    lines = [frame.lineno for frame in extract_tb(error.__traceback__) if frame.filename == origin]
    return next((line for line in reversed(lines) if line), 1)


def _reason(error: BaseException) -> str:
    if isinstance(error, (SettingsError, TemplateError)):
        return (error.message or str(error)).rstrip(".").replace("\n", " ")
    return f"{type(error).__name__}: {error}".replace("\n", " ")


def _hint(error: BaseException) -> str:
    if isinstance(error, SettingsError):
        return error.hint
    return "set a missing variable with --set NAME=VALUE; docs/overlays.md lists all others"


_FILTERS: Mapping[str, Callable[..., object]] = {
    "sh": sh,
    "yaml": yaml,
    "compose": compose,
    "line": check_line,
    "verbatim": check_verbatim,
    "utc": utc,
    "wpa_ssid": wpa_ssid,
    "nm_ssid": nm_ssid,
    "nm_text": nm_text,
    "wpa_text": wpa_text,
    "wpa_country": wpa_country,
    "wpa_networks": wpa_networks,
    "other_users": other_users,
    "other_passwords": other_passwords,
}
_ENVIRONMENT = Sandbox(_FILTERS)
