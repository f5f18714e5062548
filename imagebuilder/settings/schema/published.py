"""Turn the entries of a published list into entries of the catalogue.

A name is the slug of the entry's name and its date, because names are not unique.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from imagebuilder.errors import SettingsError
from imagebuilder.model import LARGEST_IMAGE_BYTES
from imagebuilder.settings.schema import fields as f
from imagebuilder.settings.schema.catalogue import CatalogueEntry
from imagebuilder.settings.schema.diagnostics import explain, with_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# What Raspberry Pi Imager writes for a word of `init_format`, and who reads it on the Pi.
GENERATIONS: dict[str, str | None] = {
    "": None,
    "none": None,
    "systemd": "firstrun",
    "cloudinit": "cloud-init",
    "cloudinit-rpi": "cloud-init",
}
LONGEST_NAME = 200  # letters of a name in a published list

# The field's own words: Debian's names of the two architectures, the vendor's name of its system.
_WORDS = (
    (re.compile(r"\braspberry pi os\b"), "raspios"),
    (re.compile(r"\b64[- ]?bit\b"), "arm64"),
    (re.compile(r"\b32[- ]?bit\b"), "armhf"),
)
_ARCHITECTURES = ("arm64", "armhf")

# `uname -m` of each family of boards, by the first part of a tag such as `pi3-32bit`. From the Pi 3
# on, a 32-bit system may run a 64-bit kernel.
_MACHINES_32 = {"pi1": ("armv6l",), "pi2": ("armv7l",)}
_MACHINES_NEWER = ("armv7l", "aarch64")

_Size = Annotated[int, Field(strict=True, gt=0, le=LARGEST_IMAGE_BYTES)]
_Digest = Annotated[str, StringConstraints(to_lower=True, pattern=r"^(?:[0-9A-Fa-f]{64})?$")]
_Date = Annotated[str, StringConstraints(pattern=r"^(?:[0-9]{4}-[0-9]{2}-[0-9]{2})?$")]


class _Listed(BaseModel):
    """The keys of an entry that are used; an empty digest counts as none."""

    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)

    name: Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_NAME)]
    description: str = ""
    url: f.Url
    extract_size: _Size | None = None
    extract_sha256: _Digest = ""
    image_download_size: _Size | None = None
    image_download_sha256: _Digest = ""
    release_date: _Date = ""
    devices: tuple[str, ...] = ()
    init_format: str | None = None
    architecture: str = ""


class PublishedEntry(CatalogueEntry):
    """An entry of a published list; `title` is its name there, `devices` are tags of boards."""

    title: str = ""
    size_bytes: int | None = None
    devices: tuple[str, ...] = ()
    init_format: str = ""
    architecture: str = ""

    @property
    def supported(self) -> bool:
        """Whether this version can write its settings."""
        return self.init_format in GENERATIONS

    @property
    def slug(self) -> str:
        """The name without its date."""
        return self.name.partition("@")[0]


def slug_of(name: str) -> str:
    """Return a name in letters, digits, `.` and `-`; the architecture is its last word."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    for pattern, word in _WORDS:
        plain = pattern.sub(word, plain)
    words = re.findall(r"[0-9]+(?:\.[0-9]+)+|[a-z0-9]+", plain)
    return "-".join(sorted(words, key=_ARCHITECTURES.__contains__))


def published_entries(
    listed: Iterable[Mapping[str, Any]],
) -> tuple[tuple[PublishedEntry, ...], tuple[str, ...]]:
    """Return the entries in order, and a note for each one that is skipped."""
    found: dict[str, PublishedEntry] = {}
    notes: list[str] = []
    for raw in listed:
        try:
            entry = _entry(_Listed.model_validate(_without_null(raw)))
        except ValidationError as error:
            fault = explain(error, _Listed)[0]
            notes.append(f"{_called(raw)} is skipped: {with_path(fault.loc, fault.message)}")
            continue
        if not entry.slug:
            notes.append(f"{_called(raw)} is skipped: its name has no letters or digits")
        elif found.setdefault(entry.name, entry).url != entry.url:
            notes.append(f"{_called(raw)} is skipped: `{entry.name}` occurs twice")
    return tuple(found.values()), tuple(notes)


def _without_null(raw: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in raw.items() if value is not None}


def _called(raw: Mapping[str, Any]) -> str:
    name = raw.get("name")
    if not isinstance(name, str) or not name:
        return "an entry"
    # JSON can hold half of a surrogate pair, which cannot be printed.
    return f"`{name[:LONGEST_NAME].encode('utf-8', 'replace').decode()}`"


def _entry(listed: _Listed) -> PublishedEntry:
    date = f"@{listed.release_date}" if listed.release_date else ""
    slug, word = slug_of(listed.name), (listed.init_format or "").strip()
    return PublishedEntry.model_construct(
        name=f"{slug}{date}" if slug else "",
        title=" ".join(listed.name.split()),
        description=" ".join(listed.description.split())[:LONGEST_NAME],
        url=listed.url,
        sha256=listed.image_download_sha256 or None,
        raw_sha256=listed.extract_sha256 or None,
        raw_size_bytes=listed.extract_size,
        size_bytes=listed.image_download_size,
        generation=GENERATIONS.get(word),
        released=listed.release_date,
        devices=tuple(tag.lower() for tag in listed.devices),
        init_format=word,
        architecture=listed.architecture,
        machines=_machines(listed.devices),
    )


@lru_cache(maxsize=64)  # most entries of a list have the tags of another
def _machines(devices: tuple[str, ...]) -> tuple[str, ...]:
    """Return the `uname -m` values of the boards in the tags."""
    found: list[str] = []
    for tag in devices:
        family, _, width = tag.lower().partition("-")
        if width == "64bit":
            found.append("aarch64")
        elif width == "32bit":
            found += _MACHINES_32.get(family, _MACHINES_NEWER)
    return tuple(dict.fromkeys(found))


def find_published(entries: Iterable[PublishedEntry], name: str) -> PublishedEntry | None:
    """Return the entry called `name`; of a name without a date, the newest."""
    same = [entry for entry in entries if name in (entry.name, entry.slug)]
    return max(same, key=lambda entry: entry.released, default=None)


def generation_by(word: str, name: str) -> str | None:
    """Return the generation of an `init_format`; None if the image has to show it.

    Raise SettingsError for a word that this version does not know.
    """
    if word not in GENERATIONS:
        raise SettingsError(
            f"image `{name}` takes its settings by `{word}`, which is not supported",
            f"use an image whose init_format is one of: {', '.join(filter(None, GENERATIONS))}",
        )
    return GENERATIONS[word]
