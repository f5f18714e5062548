"""Read profiles and the catalogue of base images: the shipped ones and those of the user."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from imagebuilder.errors import Problem, SettingsError
from imagebuilder.files import has_file, has_folder
from imagebuilder.images.checksums import SUFFIX, redacted
from imagebuilder.model import ImageSource
from imagebuilder.resources import shipped_folder
from imagebuilder.settings.schema.base import Document
from imagebuilder.settings.schema.diagnostics import did_you_mean, with_path
from imagebuilder.settings.schema.documents import (
    CatalogueDocument,
    CatalogueEntry,
    ImageDocument,
    ProfileDocument,
    classify_image,
    parse_document,
)
from imagebuilder.settings.yaml_reader import load_yaml

if TYPE_CHECKING:
    from collections.abc import Sequence

CATALOGUES = ("images.yml", "images.yaml")
AnyDocument = TypeVar("AnyDocument", bound=Document)


def load_profiles(folders: Sequence[Path] = ()) -> tuple[ProfileDocument, ...]:
    """Return all profiles, sorted by name; a later folder's profile replaces one of its name."""
    found: dict[str, ProfileDocument] = {}
    for path in _yaml_files(folders):
        if path.name not in CATALOGUES:
            document = load_document(ProfileDocument, path)
            found[path.stem] = document.model_copy(update={"name": path.stem})
    return tuple(found[name] for name in sorted(found))


def load_catalogue(folders: Sequence[Path] = ()) -> tuple[CatalogueEntry, ...]:
    """Return all catalogue entries in order; a later folder's entry replaces one of its name."""
    found: dict[str, CatalogueEntry] = {}
    for path in _yaml_files(folders):
        if path.name in CATALOGUES:
            images = load_document(CatalogueDocument, path).images
            found |= {k: entry.model_copy(update={"name": k}) for k, entry in images.items()}
    return tuple(found.values())


def find_profile(profiles: Sequence[ProfileDocument], name: str) -> ProfileDocument:
    """Return the profile called `name`. Raise SettingsError if there is none."""
    if not name:
        known = ", ".join(profile.name for profile in profiles)
        raise SettingsError("no profile is set", f"set one of: {known}")
    found = next((profile for profile in profiles if profile.name == name), None)
    if found is None:
        raise SettingsError(
            f"no profile `{name}`", did_you_mean(name, [profile.name for profile in profiles])
        )
    return found


def find_image(
    text: str,
    *,
    sha256: str = "",
    unchecked: bool = False,
    folders: Sequence[Path] = (),
    folder: Path = Path(),
) -> ImageSource:
    """Return a base image by catalogue name, local path (relative to `folder`) or URL.

    Raise SettingsError if the text is not valid or not in the catalogue.
    """
    data = {classify_image(text): text, "unchecked": unchecked, "sha256": sha256 or None}
    document, diagnostics = parse_document(ImageDocument, data, folder=folder)
    if document is None:
        # Do not show a URL that cannot be parsed: it may contain a password.
        with_path = "image" if "://" in text else f"image {text}"
        raise SettingsError(f"{with_path}: {diagnostics[0].message}", diagnostics[0].hint)
    return source_of(document, load_catalogue(folders))


def source_of(image: ImageDocument, catalogue: Sequence[CatalogueEntry]) -> ImageSource:
    """Return the source of an image document; its keys override those of the catalogue."""
    if image.url:
        name = Path(urlsplit(image.url).path).name or redacted(image.url)
        known = _generation_of(name, catalogue)
        return _with_overrides(image, ImageSource(name=name, url=image.url, generation=known))
    if image.file:
        name, known = image.file.name, _generation_of(image.file.name, catalogue)
        hint = "" if has_file(image.file) else _hint_for_missing(image.file, catalogue)
        source = ImageSource(name=name, file=image.file, generation=known, hint=hint)
        return _with_overrides(image, source)
    entry = next((e for e in catalogue if e.name == image.name), None)
    if entry is None:
        hint = did_you_mean(str(image.name), [e.name for e in catalogue])
        raise SettingsError(
            f"no base image `{image.name}` in the catalogue",
            f"{hint} (a local file needs `./` or a suffix like .img or .zip)",
        )
    return _with_overrides(image, _from_catalogue(entry))


def checksum_of(image: CatalogueEntry) -> str:
    """Return the source of the checksum: `pinned`, `publisher's`, `beside it` or `none`."""
    if image.sha256 or image.raw_sha256:
        return "pinned"
    if image.file is None:
        return "publisher's"
    return "beside it" if has_file(image.file.with_name(image.file.name + SUFFIX)) else "none"


def _generation_of(name: str, catalogue: Sequence[CatalogueEntry]) -> str | None:
    """Return the catalogue's generation for a file with the vendor's name, packed or unpacked."""
    same = (e for e in catalogue if name in (e.basename, Path(e.basename).stem))
    return next((entry.generation for entry in same), None)


def _hint_for_missing(path: Path, catalogue: Sequence[CatalogueEntry]) -> str:
    same = next((entry.name for entry in catalogue if entry.basename == path.name), "")
    return f"the catalogue has it as `{same}`" if same else "check the path"


def _from_catalogue(entry: CatalogueEntry) -> ImageSource:
    return ImageSource(
        name=entry.name,
        url=entry.url or "",
        file=entry.file,
        sha256=entry.sha256 or "",
        raw_sha256=entry.raw_sha256 or "",
        raw_size_bytes=entry.raw_size_bytes,
        checksum_url=entry.checksum_url,
        generation=entry.generation,
        machines=entry.machines,
        hint=entry.hint,
    )


def _with_overrides(image: ImageDocument, source: ImageSource) -> ImageSource:
    return replace(
        source,
        sha256=image.sha256 or source.sha256,
        raw_sha256=image.raw_sha256 or source.raw_sha256,
        checksum_url=image.checksum_url or source.checksum_url,
        unchecked=image.unchecked,
    )


def load_document(model: type[AnyDocument], path: Path) -> AnyDocument:
    """Return one document. Raise SettingsError with all problems in it."""
    parsed = load_yaml(path, "profile")
    problems = [Problem(p.message, p.hint, path, p.line) for p in parsed.problems]
    document = None
    if parsed.data is not None or not problems:
        document, diagnostics = parse_document(model, parsed.data, folder=path.parent)
        problems += [
            Problem(with_path(f.loc, f.message), f.hint, path, parsed.line(f.loc))
            for f in diagnostics
        ]
    if document is None or problems:
        raise SettingsError(f"{path} is not valid", problems=tuple(problems))
    return document


def _yaml_files(folders: Sequence[Path]) -> list[Path]:
    for folder in folders:
        if not has_folder(folder):
            raise SettingsError(f"no profiles folder {folder}", "check the path")
    every = (shipped_folder("profiles"), *folders)
    try:
        listed = [path for folder in every for path in sorted(folder.iterdir())]
    except OSError as error:
        reason = (error.strerror or "cannot be read").lower()
        raise SettingsError(
            f"profiles folder {error.filename}: {reason}", "check the path of --profiles"
        ) from None
    return [path for path in listed if path.suffix in (".yml", ".yaml") and has_file(path)]
