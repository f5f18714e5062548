"""Read profiles and the catalogue of base images: ours, those of the user, and published ones."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypeVar
from urllib.parse import urlsplit

from imagebuilder.errors import InputError, Problem, SettingsError, SourceError
from imagebuilder.files import has_file, has_folder
from imagebuilder.images.checksums import SUFFIX, redacted
from imagebuilder.images.list_snapshot import ListSnapshot, fetch_snapshot, load_snapshot
from imagebuilder.model import ImageSource
from imagebuilder.plan.vendor.boards import BOARDS
from imagebuilder.resources import shipped_folder
from imagebuilder.settings.schema.base import Document
from imagebuilder.settings.schema.catalogue import CatalogueDocument, CatalogueEntry
from imagebuilder.settings.schema.diagnostics import did_you_mean, with_path
from imagebuilder.settings.schema.documents import (
    ImageDocument,
    ProfileDocument,
    classify_image,
    parse_document,
)
from imagebuilder.settings.schema.published import (
    PublishedEntry,
    find_published,
    generation_by,
    published_entries,
)
from imagebuilder.settings.yaml_reader import load_yaml

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from imagebuilder.images.cache import Cache
    from imagebuilder.images.os_list import ListedDevice
    from imagebuilder.progress import Reporter

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
    for document in _catalogues(folders):
        images = document.images
        found |= {k: entry.model_copy(update={"name": k}) for k, entry in images.items()}
    return tuple(found.values())


def list_place(folders: Sequence[Path] = ()) -> str:
    """Return the URL or path of the published list; that of a later folder replaces ours."""
    places = [document.catalog for document in _catalogues(folders) if document.catalog]
    return places[-1] if places else ""


def _catalogues(folders: Sequence[Path]) -> Iterator[CatalogueDocument]:
    for path in _yaml_files(folders):
        if path.name in CATALOGUES:
            yield load_document(CatalogueDocument, path)


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
    lists: PublishedLists | None = None,
) -> ImageSource:
    """Return a base image by catalogue name, local path (relative to `folder`) or URL.

    A name that is not in our catalogue is looked up in the published list of `lists`.

    Raise SettingsError if the text is not valid or not in the catalogue.
    """
    data = {classify_image(text): text, "unchecked": unchecked, "sha256": sha256 or None}
    document, diagnostics = parse_document(ImageDocument, data, folder=folder)
    if document is None:
        # Do not show a URL that cannot be parsed: it may contain a password.
        with_path = "image" if "://" in text else f"image {text}"
        raise SettingsError(f"{with_path}: {diagnostics[0].message}", diagnostics[0].hint)
    find = lists.finder(folders) if lists else None
    return source_of(document, load_catalogue(folders), find)


def source_of(
    image: ImageDocument, catalogue: Sequence[CatalogueEntry], find: Finder | None = None
) -> ImageSource:
    """Return the source of an image document; its keys override those of the catalogue.

    A name that is not in `catalogue` is looked up with `find`.
    """
    if image.url and image.name:
        return _with_overrides(image, ImageSource(name=image.name, url=image.url))
    if image.url:
        name = Path(urlsplit(image.url).path).name or redacted(image.url)
        known = _generation_of(name, catalogue)
        return _with_overrides(image, ImageSource(name=name, url=image.url, generation=known))
    if image.file:
        name, known = image.file.name, _generation_of(image.file.name, catalogue)
        hint = "" if has_file(image.file) else _hint_for_missing(image.file, catalogue)
        source = ImageSource(name=name, file=image.file, generation=known, hint=hint)
        return _with_overrides(image, source)
    entry: CatalogueEntry | None = next((e for e in catalogue if e.name == image.name), None)
    if entry is None and find:
        entry = find(str(image.name))
    if entry is None:
        hint = did_you_mean(str(image.name), [e.name for e in catalogue])
        raise SettingsError(
            f"no base image `{image.name}` in the catalogue",
            f"{hint} (`rpi-image images` lists all; a local file needs `./` or a suffix like .img)",
        )
    return _with_overrides(image, _from_catalogue(entry))


@dataclass(frozen=True, slots=True)
class PublishedList:
    """A published list: its entries, its boards, and notes about what was skipped."""

    snapshot: ListSnapshot
    entries: tuple[PublishedEntry, ...]
    devices: tuple[ListedDevice, ...]
    notes: tuple[str, ...]


Finder: TypeAlias = "Callable[[str], PublishedEntry | None]"


@dataclass
class PublishedLists:
    """Access to published lists; each is fetched at most once.

    `place` is used instead of that in the settings. With `offline`, only snapshots are used.
    """

    cache: Cache
    reporter: Reporter
    place: str = ""
    offline: bool = False
    allow_http: bool = False
    _fetched: dict[str, PublishedList] = field(init=False, default_factory=dict)

    def fetch(self, place: str) -> PublishedList:
        """Return a list as it is now, or its last state. Raise SourceError if there is none."""
        if place not in self._fetched:
            found = fetch_snapshot(place, self.cache, self.reporter, allow_http=self.allow_http)
            self._fetched[place] = published_list(found)
        return self._fetched[place]

    def finder(self, folders: Sequence[Path], place: str = "") -> Finder:
        """Return a function that finds an entry by name; `place` overrides that of `folders`."""

        def find(name: str) -> PublishedEntry | None:
            wanted = self.place or place
            try:
                return self._find(name, wanted or list_place(folders))
            except SourceError as error:
                # A name without a date is more likely a typing error in a name of ours.
                if wanted or "@" in name:
                    raise
                self.reporter.warn(error.message)
                return None

        return find

    def _find(self, name: str, place: str) -> PublishedEntry | None:
        """Return an entry; one with a date is not fetched if the last state has it."""
        if self.offline or "@" in name:
            known = load_snapshot(place, self.cache)
            found = find_published(published_list(known).entries, name) if known else None
            if found or self.offline or not place:
                return found
        return find_published(self.fetch(place).entries, name) if place else None


def published_list(snapshot: ListSnapshot) -> PublishedList:
    """Return the content of a snapshot."""
    pages = snapshot.parsed()
    entries, skipped = published_entries(entry for page in pages for entry in page.entries)
    devices = tuple(device for page in pages for device in page.devices)
    notes = (*snapshot.notes, *(note for page in pages for note in page.notes), *skipped)
    return PublishedList(snapshot, entries, devices, notes)


# ---- the listing


@dataclass(frozen=True, slots=True)
class ImageListing:
    """Base images, ours first, and the published list that they are from; None without it."""

    images: tuple[CatalogueEntry, ...]
    published: PublishedList | None


def list_images(
    lists: PublishedLists, folders: Sequence[Path] = (), *, board: str = "", search: str = ""
) -> ImageListing:
    """Return the base images for a board and with all words of `search`; by default all of them.

    Raise SourceError if a list that was asked for cannot be used; of another one only warn.
    """
    published = _published(lists, folders)
    images = [*load_catalogue(folders), *(published.entries if published else ())]
    if board:
        devices = published.devices if published else ()
        able = fits_board(board, load_profiles(folders), devices, images)
        images = [image for image in images if able(image)]
    words = search.lower().split()
    return ImageListing(tuple(i for i in images if _has_words(i, words)), published)


def _published(lists: PublishedLists, folders: Sequence[Path]) -> PublishedList | None:
    if not (place := lists.place or list_place(folders)):
        return None
    if lists.offline:
        known = load_snapshot(place, lists.cache)
        return published_list(known) if known else None
    try:
        return lists.fetch(place)
    except SourceError as error:
        if lists.place:
            raise
        lists.reporter.warn(f"{error.message}; only our own images are listed")
        return None


def _has_words(image: CatalogueEntry, words: Sequence[str]) -> bool:
    title = image.title if isinstance(image, PublishedEntry) else ""
    text = f"{image.name} {title} {image.description}".lower()
    return all(word in text for word in words)


def fits_board(
    board: str,
    profiles: Sequence[ProfileDocument],
    devices: Sequence[ListedDevice],
    images: Sequence[CatalogueEntry],
) -> Callable[[CatalogueEntry], bool]:
    """Return a function that says whether an image is for `board` (`pi4`, `Zero 2 W`, a tag).

    A published image is by its tags, another one by its `machines`. Raise InputError if neither
    our table of boards nor the profiles nor the list know the board.
    """
    word, published = board_key(board), [i for i in images if isinstance(i, PublishedEntry)]
    ours = [model for model in BOARDS if word in map(board_key, (model.word, model.name))]
    same = [device for device in devices if board_key(device.name) == word]
    every = {tag for device in devices for tag in device.tags}
    every |= {tag for image in published for tag in image.devices}
    tags = {tag for device in same for tag in device.tags}
    tags |= {tag for tag in every if tag == board.lower() or board_key(tag.split("-")[0]) == word}
    tags |= {tag for model in ours for tag in model.tags}
    known = [p for p in profiles if any(board_key(name) == word for name in p.boards)]
    machines = {machine for profile in known for machine in profile.machines}
    machines |= {machine for model in ours for machine in model.machines}
    if not tags and not machines:
        names = {name for p in profiles for name in p.boards} | {d.name for d in devices}
        names |= {model.word for model in BOARDS}
        raise InputError(f"no board `{board}`", did_you_mean(board, names))

    def fits(image: CatalogueEntry) -> bool:
        if isinstance(image, PublishedEntry) and tags:
            untagged = not image.devices and any(device.inclusive for device in same)
            return untagged or not tags.isdisjoint(image.devices)
        return not image.machines or not machines.isdisjoint(image.machines)

    return fits


def board_key(name: str) -> str:
    """Return the family of a board: `4` for `Raspberry Pi 4`, `4B` and `pi4`; `zero2w`."""
    plain = re.sub(r"[^a-z0-9]", "", name.lower().replace("raspberry pi", ""))
    return re.sub(r"(?<=[0-9])[ab]$", "", plain.removeprefix("pi"))


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
    word = entry.init_format if isinstance(entry, PublishedEntry) else ""
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
        init_format=word,
    )


def _with_overrides(image: ImageDocument, source: ImageSource) -> ImageSource:
    word = image.init_format or source.init_format
    return replace(
        source,
        init_format=word,
        generation=generation_by(word, source.name) if word else source.generation,
        raw_size_bytes=image.raw_size_bytes or source.raw_size_bytes,
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
            f"profiles folder {error.filename}: {reason}", "check the path of --profiles-dir"
        ) from None
    return [path for path in listed if path.suffix in (".yml", ".yaml") and has_file(path)]
