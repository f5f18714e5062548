"""The catalogue of base images, in `images.yml`."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from imagebuilder.settings.schema import fields as f
from imagebuilder.settings.schema.base import Document
from imagebuilder.settings.schema.diagnostics import invalid


class CatalogueEntry(Document):
    """A base image with a name; `file` is relative to the catalogue."""

    name: str = ""
    description: f.Text = ""
    url: f.Url | None = None
    file: f.HostPath | None = None
    sha256: f.Sha256 | None = None
    raw_sha256: f.Sha256 | None = None
    raw_size_bytes: int | None = None
    checksum_url: f.Url | None = None
    generation: f.Slug | None = None
    machines: tuple[f.Word, ...] = ()
    released: f.Text = ""
    hint: f.Text = ""

    @model_validator(mode="after")
    def _one_source(self) -> CatalogueEntry:
        if (self.url is None) == (self.file is None):
            raise invalid("an image needs exactly one of file and url", "keep one of them")
        return self

    @property
    def basename(self) -> str:
        """The name of the file to download."""
        return Path(urlsplit(self.url).path).name if self.url else Path(self.file or "").name


class CatalogueDocument(Document):
    """A catalogue of base images, by name; `catalog` is a published list with more of them."""

    images: dict[f.Slug, CatalogueEntry] = Field(default_factory=dict)
    catalog: f.ListPlace | None = None
