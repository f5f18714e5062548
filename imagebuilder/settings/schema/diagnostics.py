"""Describe the errors in a settings document so that a teacher can fix them."""

from __future__ import annotations

import difflib
import typing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import BaseModel
from pydantic_core import PydanticCustomError

from imagebuilder.progress import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

# Budget: nobody reads more, and each of them costs a search for similar words.
MOST_PROBLEMS = 500

Loc = tuple[str | int, ...]
_MESSAGES = {
    "string_type": "expected a string",
    "bool_parsing": "expected true or false",
    "bool_type": "expected true or false",
    "int_parsing": "expected a whole number",
    "int_type": "expected a whole number",
    "int_from_float": "expected a whole number",
    "tuple_type": "expected a list",
    "list_type": "expected a list",
    "dict_type": "expected a mapping (`key: value`)",
    "model_type": "expected a mapping (`key: value`)",
    "path_type": "expected a path",
}


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One error or warning at `loc`, a path of keys and list indices in a document.

    `word` is the one of WARNINGS that acknowledges it, empty if nothing does.
    """

    loc: Loc
    message: str
    hint: str = ""
    severe: bool = True
    word: str = ""


def warning(word: str, loc: Loc, message: str, hint: str = "") -> Diagnostic:
    """Return a warning; `word` is the one of WARNINGS that acknowledges it."""
    return Diagnostic(loc, message, hint, severe=False, word=word)


def invalid(fact: str, hint: str = "") -> PydanticCustomError:
    """Return the error for a validator to raise; `fact` must not contain a secret."""
    return PydanticCustomError("rpi_image", "{fact}", {"fact": fact, "hint": hint})


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a hint with the known word most similar to `word`, or with all of them."""
    names = sorted(known)
    near = difflib.get_close_matches(word.lower(), names, n=1, cutoff=0.5)
    if near:
        return f"did you mean `{near[0]}`?"
    return f"one of: {', '.join(names)}" if names else ""


def dotted(loc: Loc) -> str:
    """Return a path as text, for example `nodes[2].hostname`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc)
    return text.removeprefix(".")


def with_path(loc: Loc, message: str) -> str:
    """Return a message with its path in front."""
    name = dotted(loc)
    return f"{name}: {message}" if name else message


def explain(error: ValidationError, model: type[BaseModel]) -> tuple[Diagnostic, ...]:
    """Return a diagnostic for each error of pydantic; values are never shown."""
    details = error.errors(include_url=False, include_input=False)
    shown = tuple(_explain_one(detail, model) for detail in details[:MOST_PROBLEMS])
    more = len(details) - len(shown)
    return (*shown, Diagnostic((), f"{counted(more, 'more problem')}")) if more else shown


def _explain_one(detail: ErrorDetails, model: type[BaseModel]) -> Diagnostic:
    loc, kind = detail["loc"], detail["type"]
    context: Mapping[str, object] = detail.get("ctx", {})
    if kind == "extra_forbidden":
        return _unknown_key(loc, model)
    if kind == "missing":
        return Diagnostic(loc, f"`{loc[-1]}` is missing", f"add `{loc[-1]}:`")
    if kind == "literal_error":
        return Diagnostic(loc, f"expected {context['expected']}")
    hint = str(context.get("hint", "")) or _form(loc, kind, model)
    message = _MESSAGES.get(kind) or detail["msg"][:1].lower() + detail["msg"][1:]
    return Diagnostic(loc, message, hint)


def _form(loc: Loc, kind: str, model: type[BaseModel]) -> str:
    """Return a hint how to write a mapping, if something else was found."""
    if kind == "dict_type":
        return f"for example `{loc[-1]}: {{name: value}}`"
    if kind != "model_type":
        return ""
    if loc[:-1] == ("nodes",):
        return "for example `- hostname: pi-[01-30]`"
    owner = _model_at(loc, model)
    return f"use the keys {', '.join(owner.model_fields)}" if owner else ""


def _unknown_key(loc: Loc, model: type[BaseModel]) -> Diagnostic:
    owner = _model_at(loc[:-1], model)
    known = [field.alias or name for name, field in owner.model_fields.items()] if owner else []
    return Diagnostic(loc, f"unknown key `{loc[-1]}`", did_you_mean(str(loc[-1]), known))


def _model_at(loc: Loc, model: type[BaseModel]) -> type[BaseModel] | None:
    current: type[BaseModel] | None = model
    for part in loc:
        if isinstance(part, int):
            continue
        field = current.model_fields.get(part) if current else None
        current = _model_in(field.annotation) if field else None
    return current


def _model_in(annotation: object) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inner = (_model_in(part) for part in typing.get_args(annotation))
    return next((found for found in inner if found), None)
