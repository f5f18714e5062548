"""The kinds of sections in the YAML documents of the user, and the form of a secret."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from imagebuilder.settings.schema import fields as f
from imagebuilder.settings.schema.diagnostics import invalid
from imagebuilder.settings.schema.json_schema import SCALAR

if TYPE_CHECKING:
    from pydantic import GetJsonSchemaHandler
    from pydantic.json_schema import JsonSchemaValue
    from pydantic_core import CoreSchema


class Document(BaseModel):
    """A mapping of the file; frozen, without unknown keys; errors do not show its values."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)
    # Whether a node's section replaces that of the class, instead of being merged key by key.
    whole: ClassVar[bool] = False
    # Groups of keys: a layer that sets one of them removes the others.
    exclusive: ClassVar[tuple[frozenset[str], ...]] = ()
    # Pairs of keys: setting the first removes the second: another image has another version.
    renews: ClassVar[tuple[tuple[str, str], ...]] = ()
    # The hint if a file does not hold a mapping.
    begins: ClassVar[str] = "write `key: value` lines"
    # Keys that are an error if they are empty.
    never_empty: ClassVar[frozenset[str]] = frozenset()

    @model_validator(mode="before")
    @classmethod
    def _empty_is_unset(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        known = cls.model_fields.keys() - cls.never_empty
        return {k: v for k, v in f.uncrowded(data) if v is not None or k not in known}


class TextOrDocument(Document):
    """A section that may be written as a string; `short` is the JSON Schema of that."""

    short: ClassVar[dict[str, Any]] = {"type": "string"}

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Return the JSON Schema, which also allows a string."""
        section = handler.resolve_ref_schema(handler(core_schema))
        section["properties"].pop("inline", None)
        return {"anyOf": [dict(cls.short), section]}


class SecretDocument(TextOrDocument):
    """A secret: a string, or its source ({file}, {env} or {prompt})."""

    whole: ClassVar[bool] = True
    short: ClassVar[dict[str, Any]] = SCALAR.keywords
    model_config = ConfigDict(json_schema_extra={"minProperties": 1, "maxProperties": 1})

    file: f.HostPath | None = None
    env: f.VariableName | None = None
    prompt: f.Question | None = Field(None, description="true, or the question to ask")
    inline: SecretStr | None = Field(None, exclude=True)

    @model_validator(mode="before")
    @classmethod
    def _text_or_source(cls, data: Any) -> Any:
        if isinstance(data, str):
            return {"inline": data}
        # Do not show keys or values: a secret in the wrong place looks like a key.
        sources = data.keys() & {"file", "env", "prompt"} if isinstance(data, dict) else ()
        if len(sources) != 1 or len(data) != 1 or data[next(iter(sources))] in (None, ""):
            raise invalid(
                "expected a string or one of {file: PATH}, {env: NAME}, {prompt: true}",
                "quote a secret that begins with { or [",
            )
        return {"prompt": "true"} if data.get("prompt") is True else data

    @field_validator("prompt")
    @classmethod
    def _asks(cls, value: str) -> str:
        if value.lower() in ("no", "false", "off"):
            raise invalid("prompt must be true or a question", "write {prompt: true}")
        return "" if value.lower() in ("yes", "true", "on") else value
