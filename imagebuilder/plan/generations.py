"""A generation of base images, read from its folder: how to know it, how to hook into it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Annotated, Protocol

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from imagebuilder.errors import ImageError, SettingsError
from imagebuilder.plan.card_layout import NODE_ENV
from imagebuilder.plan.plain_yaml import load_plain, yaml_reason
from imagebuilder.plan.templates import Template, compile_template

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from imagebuilder.model import OverlayFile

FILE = "generation.yml"


class BootFiles(Protocol):
    """The files of a boot partition; paths are '/'-separated and compared without case."""

    def names(self) -> tuple[str, ...]:
        """Return all file paths."""

    def exists(self, path: str) -> bool:
        """Return whether there is such a file."""

    def read(self, path: str) -> bytes:
        """Return a file's content; raises ImageError where it is absent."""


class Condition(BaseModel):
    """One look at the boot partition: a file is there, or absent, or its text matches."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    exists: str = ""
    missing: str = ""
    file: str = ""
    matches: str = ""

    @model_validator(mode="after")
    def _one_form(self) -> Condition:
        forms = [bool(self.exists), bool(self.missing), bool(self.file and self.matches)]
        if sum(forms) != 1 or bool(self.file) != bool(self.matches):
            raise ValueError("needs one of `exists`, `missing`, or `file` with `matches`")
        re.compile(self.matches)
        return self

    def holds(self, boot: BootFiles) -> bool:
        """Return whether this is so on a boot partition."""
        if self.exists:
            return boot.exists(self.exists)
        if self.missing:
            return not boot.exists(self.missing)
        if not boot.exists(self.file):
            return False
        text = boot.read(self.file).decode("utf-8", "replace")
        return re.search(self.matches, text, re.MULTILINE) is not None


Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$")]


class _Document(BaseModel):
    """The form of generation.yml."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str
    storage_driver: str = ""
    when: list[Condition] = Field(min_length=1)
    facts: dict[Name, list[Condition]] = {}
    cmdline: list[str] = []
    lines: dict[str, dict[Name, str]] = {}
    without: list[str] = []


@dataclass(frozen=True, slots=True)
class LineEdit:
    """A `name=value` line of a vendor's file; the value is a template, empty taking it out."""

    path: str
    name: str
    value: Template


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """What a folder under overlays/ says about one generation of base images.

    All of `when` must hold for an image to be of this generation; a fact is true where any of
    its conditions holds; `cmdline` are templates of words for the kernel, empty ones dropping
    out; `without` are patterns of node files that this generation has no use for;
    `storage_driver` is what its Docker takes where the settings leave that open.
    """

    name: str
    title: str
    when: tuple[Condition, ...]
    facts: tuple[tuple[str, tuple[Condition, ...]], ...] = ()
    cmdline: tuple[Template, ...] = ()
    lines: tuple[LineEdit, ...] = ()
    without: tuple[str, ...] = ()
    storage_driver: str = ""
    files: tuple[OverlayFile, ...] = ()

    def fits(self, boot: BootFiles) -> bool:
        """Return whether the boot partition looks like this generation."""
        return all(condition.holds(boot) for condition in self.when)

    def facts_of(self, boot: BootFiles) -> dict[str, bool]:
        """Look up what the templates ask about the boot partition."""
        return {name: any(c.holds(boot) for c in conditions) for name, conditions in self.facts}

    def wants(self, path: str) -> bool:
        """Return whether a node file is of use to this generation."""
        return not any(fnmatchcase(path.lower(), pattern.lower()) for pattern in self.without)


def parse_generation(
    text: str, name: str, origin: str, files: Sequence[OverlayFile] = ()
) -> Generation:
    """Read a generation.yml; raises SettingsError that names every wrong key."""
    try:
        document = _Document.model_validate(load_plain(text))
    except yaml.YAMLError as error:
        raise SettingsError(f"{origin}: {yaml_reason(error)}", "mend the YAML") from error
    except (ValidationError, re.error) as error:
        raise SettingsError(
            f"{origin}: {_validation_reason(error)}", "docs/generations.md shows the form"
        ) from error
    return Generation(
        name=name,
        title=document.title,
        when=tuple(document.when),
        facts=tuple((fact, tuple(any_of)) for fact, any_of in document.facts.items()),
        cmdline=tuple(compile_template(words, origin) for words in document.cmdline),
        lines=tuple(
            LineEdit(path, key, compile_template(value, origin))
            for path, pairs in document.lines.items()
            for key, value in pairs.items()
        ),
        without=tuple(document.without),
        storage_driver=document.storage_driver,
        files=tuple(files),
    )


def _validation_reason(error: ValidationError | re.error) -> str:
    if isinstance(error, re.error):
        return f"not a regular expression: {error}"
    return "; ".join(
        f"{'.'.join(str(part) for part in each['loc'])}: {each['msg']}" for each in error.errors()
    )


def named_generation(generations: tuple[Generation, ...], name: str) -> Generation:
    """Find a generation by its folder's name; raises SettingsError where there is none."""
    for generation in generations:
        if generation.name == name:
            return generation
    names = ", ".join(generation.name for generation in generations)
    raise SettingsError(f"there is no generation {name!r}", f"one of: {names}")


_GENERATION = re.compile(r"^NODE_GENERATION='([^']*)'", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class DictBoot:
    """A boot partition made of a mapping, for dry runs without an image."""

    files: Mapping[str, bytes]

    def names(self) -> tuple[str, ...]:
        """Return all file paths."""
        return tuple(self.files)

    def exists(self, path: str) -> bool:
        """Return whether there is such a file."""
        return path.lower() in {name.lower() for name in self.files}

    def read(self, path: str) -> bytes:
        """Return a file's content; raises ImageError where it is absent."""
        for name, data in self.files.items():
            if name.lower() == path.lower():
                return data
        raise ImageError(f"there is no {path} on the boot partition", "check the base image")


def detect(generations: Sequence[Generation], boot: BootFiles) -> Generation:
    """Find the one generation a boot partition belongs to; raises ImageError when unsure.

    A wrong guess would fail silently on the Pi. A card of ours says itself what it is.
    """
    said = _GENERATION.search(read_boot_text(boot, NODE_ENV))
    for generation in generations:
        if said and said[1] == generation.name:
            return generation
    fitting = [generation for generation in generations if generation.fits(boot)]
    if len(fitting) == 1:
        return fitting[0]
    names = ", ".join(generation.name for generation in fitting or generations)
    raise ImageError(
        f"the boot partition fits several generations of base images: {names}"
        if fitting
        else "the boot partition is of no generation of base images that is known here",
        f"name it with --generation (`generation:` in a file): {names}",
    )


def read_boot_text(boot: BootFiles, path: str) -> str:
    """Return the text of a file of the boot partition; empty where it is absent."""
    return decode_boot_text(boot.read(path)) if boot.exists(path) else ""


def decode_boot_text(data: bytes) -> str:
    """Decode a vendor's text; bytes that are no UTF-8 survive the way back."""
    return data.decode("utf-8", "surrogateescape")
