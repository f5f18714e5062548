"""A generation of base images: how to detect it and how to start our installer from it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Annotated, Literal

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
from imagebuilder.plan.boot_files import read_boot_text
from imagebuilder.plan.card_layout import NODE_ENV
from imagebuilder.plan.plain_yaml import load_plain, yaml_reason
from imagebuilder.plan.templates import Template, compile_template
from imagebuilder.plan.vendor.ability import CRYPT, WIFI

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from imagebuilder.model import OverlayFile
    from imagebuilder.plan.boot_files import BootFiles

FILE = "generation.yml"


class Condition(BaseModel):
    """One test of the boot partition: a file exists, is missing, or its text matches."""

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
        """Return whether the test succeeds on a boot partition."""
        if self.exists:
            return boot.exists(self.exists)
        if self.missing:
            return not boot.exists(self.missing)
        if not boot.exists(self.file):
            return False
        text = boot.read(self.file).decode("utf-8", "replace")
        return re.search(self.matches, text, re.MULTILINE) is not None


Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$")]


class _GenerationDocument(BaseModel):
    """The content of generation.yml."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str
    storage_driver: str = ""
    when: list[Condition] = Field(min_length=1)
    facts: dict[Name, list[Condition]] = {}
    cmdline: list[str] = []
    lines: dict[str, dict[Name, str]] = {}
    without: list[str] = []
    crypt: str = ""
    wifi: str = ""
    login: str | None = None
    docker: str | None = None
    suite: str | None = None
    notes: list[str] = []
    refused: list[str] = []


@dataclass(frozen=True, slots=True)
class LineEdit:
    """A `name=value` line to set in a vendor's file; an empty value removes the line."""

    path: str
    name: str
    value: Template


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """One generation of base images, as described by its folder under overlays/.

    An image is of this generation if all conditions of `when` hold; a fact is true if any of its
    conditions holds. `cmdline` are templates of words for the kernel. `without` are patterns of
    node files that this generation does not need. `storage_driver` is a template of its Docker's
    default. `crypt` and `wifi` are templates of the crypt(5) methods that the image can verify and
    of the kinds of wifi that it can join; None for all. `login` is a template of the image's first
    user, with the word `password` if everyone knows it and SSH is on, `ready` if the console asks
    for no user, or `?` if the image has other logins; `docker` is one of the version of its Docker,
    empty without one; None if not known. `suite` is a template of Debian's word for its release,
    empty if its name says it.
    `notes` and `refused` are templates of warnings and errors about the content of an image.
    """

    name: str
    title: str
    when: tuple[Condition, ...]
    facts: tuple[tuple[str, tuple[Condition, ...]], ...] = ()
    cmdline: tuple[Template, ...] = ()
    lines: tuple[LineEdit, ...] = ()
    without: tuple[str, ...] = ()
    storage_driver: str = ""
    crypt: Template | None = None
    wifi: Template | None = None
    login: Template | None = None
    docker: Template | None = None
    suite: Template | None = None
    notes: tuple[Template, ...] = ()
    refused: tuple[Template, ...] = ()
    files: tuple[OverlayFile, ...] = ()

    def storage_driver_of(self, boot: BootFiles) -> str:
        """Return the driver that Docker uses on this image."""
        template = compile_template(self.storage_driver, self.name)
        return template.render({"fact": self.facts_of(boot)}).strip()

    def fits(self, boot: BootFiles) -> bool:
        """Return whether the boot partition is of this generation."""
        return all(condition.holds(boot) for condition in self.when)

    def facts_of(self, boot: BootFiles) -> dict[str, bool]:
        """Return the facts about a boot partition, for templates."""
        return {name: any(c.holds(boot) for c in conditions) for name, conditions in self.facts}

    def able(self, kind: Literal["crypt", "wifi"], context: Mapping[str, object]) -> frozenset[str]:
        """Return the methods or wifi kinds that an image supports; all without a template."""
        template, everything = {
            "crypt": (self.crypt, CRYPT.values()),
            "wifi": (self.wifi, WIFI),
        }[kind]
        return frozenset(template.render(context).split() if template else everything)

    def wants(self, path: str) -> bool:
        """Return whether this generation needs a node file."""
        return not any(fnmatchcase(path.lower(), pattern.lower()) for pattern in self.without)


def parse_generation(
    text: str, name: str, origin: str, files: Sequence[OverlayFile] = ()
) -> Generation:
    """Return the generation in a generation.yml. Raise SettingsError with every wrong key."""
    try:
        document = _GenerationDocument.model_validate(load_plain(text))
    except yaml.YAMLError as error:
        raise SettingsError(f"{origin}: {yaml_reason(error)}", "fix the YAML") from error
    except (ValidationError, re.error, RecursionError, OverflowError) as error:
        raise SettingsError(
            f"{origin}: {_validation_reason(error)}", "see docs/generations.md"
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
        crypt=compile_template(document.crypt, origin) if document.crypt else None,
        wifi=compile_template(document.wifi, origin) if document.wifi else None,
        login=None if document.login is None else compile_template(document.login, origin),
        docker=None if document.docker is None else compile_template(document.docker, origin),
        suite=None if document.suite is None else compile_template(document.suite, origin),
        notes=tuple(compile_template(note, origin) for note in document.notes),
        refused=tuple(compile_template(fault, origin) for fault in document.refused),
        files=tuple(files),
    )


def _validation_reason(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return f"not a regular expression: {error}"
    return "; ".join(
        f"{'.'.join(str(part) for part in each['loc'])}: {each['msg']}" for each in error.errors()
    )


def named_generation(generations: tuple[Generation, ...], name: str) -> Generation:
    """Return the generation called `name`. Raise SettingsError if there is none."""
    for generation in generations:
        if generation.name == name:
            return generation
    names = ", ".join(generation.name for generation in generations)
    raise SettingsError(f"no generation {name!r}", f"one of: {names}")


_GENERATION = re.compile(r"^NODE_GENERATION='([^']*)'", re.MULTILINE)


def detect(generations: Sequence[Generation], boot: BootFiles) -> Generation:
    """Return the generation of a boot partition. Raise ImageError if none or several fit.

    A wrong guess would fail silently on the Pi. One of our own cards records its generation.
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
        f"the boot partition matches several generations of base images: {names}"
        if fitting
        else "the boot partition matches no known generation of base images",
        f"set --generation (`generation:` in a file) to one of: {names}",
    )
