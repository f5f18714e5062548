"""What a value looks like to an editor: the JSON Schema beside each check."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Union

from pydantic import BeforeValidator
from pydantic_core import core_schema

from imagebuilder.settings.schema.diagnostics import invalid

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
    from pydantic.json_schema import JsonSchemaValue


# Pydantic hashes what stands in an annotation: by identity, for the keywords have no hash.
@dataclass(frozen=True, slots=True, eq=False)
class Shape:
    """Keywords laid over a value's JSON Schema; the check stays the same."""

    keywords: dict[str, Any]

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Lay the keywords over."""
        return {**handler(schema), **self.keywords}


# Our YAML leaves `3`, `1.15` and `true` the texts they are; an editor's makes values of them.
SCALAR = Shape({"type": ["string", "number", "boolean"]})


def shaped(pattern: str) -> Shape:
    """Return the shape of a scalar whose texts match `pattern`, which may allow more."""
    return Shape({**SCALAR.keywords, "pattern": f"^(?:{pattern})$"})


@dataclass(frozen=True, slots=True)
class Matched:
    """A validator that wants the whole value to match `pattern`, and says so in the schema."""

    pattern: str
    fact: str
    hint: str

    def check(self, value: str) -> str:
        """Refuse what does not match."""
        if not re.fullmatch(self.pattern, value):
            raise invalid(self.fact, self.hint)
        return value

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        """Check behind what the type itself checks."""
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Add the pattern."""
        return {**handler(schema), "pattern": f"^(?:{self.pattern})$"}


def one_or_many(value: Any) -> Any:
    """Let a single text stand for a list of one."""
    return [value] if isinstance(value, str | Mapping) else value


def one_or_many_of(item: Any) -> BeforeValidator:
    """Make the validator that takes one `item` or a list of them, and says so in the schema."""
    accepted = Union[item, tuple[item, ...]]  # noqa: UP007 - a value, not an annotation
    return BeforeValidator(one_or_many, json_schema_input_type=accepted)
