"""The JSON Schema of values, for editors."""

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


# Pydantic hashes annotations. eq=False hashes by identity, because a dict has no hash.
@dataclass(frozen=True, slots=True, eq=False)
class SchemaKeywords:
    """Keywords to set in the JSON Schema of a value; the check does not change."""

    keywords: dict[str, Any]

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Return the schema with the keywords set."""
        return {**handler(schema), **self.keywords}


# Our reader keeps `3`, `1.15` and `true` as strings; to an editor they are numbers and booleans.
SCALAR = SchemaKeywords({"type": ["string", "number", "boolean"]})


def scalar_pattern(pattern: str) -> SchemaKeywords:
    """Return the keywords of a scalar that matches `pattern`; the check may be stricter."""
    return SchemaKeywords({**SCALAR.keywords, "pattern": f"^(?:{pattern})$"})


@dataclass(frozen=True, slots=True)
class Pattern:
    """A validator for values that match `pattern` completely; the schema has the pattern."""

    pattern: str
    fact: str
    hint: str

    def check(self, value: str) -> str:
        """Return `value`. Raise an error if it does not match."""
        if not re.fullmatch(self.pattern, value):
            raise invalid(self.fact, self.hint)
        return value

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        """Return a schema that runs `check` after the checks of the type."""
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Return the schema with the pattern."""
        return {**handler(schema), "pattern": f"^(?:{self.pattern})$"}


def one_or_many(value: Any) -> Any:
    """Return a list of one for a single value."""
    return [value] if isinstance(value, str | Mapping) else value


def one_or_many_of(item: Any) -> BeforeValidator:
    """Return a validator that allows one `item` or a list of them, in the schema as well."""
    accepted = Union[item, tuple[item, ...]]  # noqa: UP007 - a value, not an annotation
    return BeforeValidator(one_or_many, json_schema_input_type=accepted)
