"""Resolve references of the settings: secrets, SSH keys, folders, profiles and images.

The caller passes the environment and the prompt; each item is read or asked for once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from imagebuilder.disk.partitions import boot_partition, read_partitions
from imagebuilder.disk.reader import open_raw
from imagebuilder.errors import ImageError, SettingsError, reading
from imagebuilder.files import has_file, has_folder
from imagebuilder.images.obtain import find_unpacked
from imagebuilder.images.root_system import find_root_system
from imagebuilder.model import ImageSource, Secret
from imagebuilder.plan.reach import VendorState, facts_by_name, seen_in_root, vendor_state
from imagebuilder.resources import shipped_folder
from imagebuilder.settings.catalog import find_profile, load_catalogue, load_profiles, source_of
from imagebuilder.settings.schema.diagnostics import did_you_mean
from imagebuilder.settings.schema.fields import public_key
from imagebuilder.settings.yaml_reader import read_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from imagebuilder.model import NodeSettings, RootSystem
    from imagebuilder.settings.catalog import PublishedLists
    from imagebuilder.settings.schema.base import SecretDocument
    from imagebuilder.settings.schema.catalogue import CatalogueEntry
    from imagebuilder.settings.schema.documents import (
        ImageDocument,
        ProfileDocument,
    )


@dataclass
class References:
    """Access to files, environment and prompts; each item is read or asked for once.

    With `checking`, a secret that is missing is None. Methods raise SettingsError on failure.
    """

    environment: Mapping[str, str]
    ask: Callable[[str], str] | None
    folders: Sequence[Path]
    checking: bool = False
    lists: PublishedLists | None = None
    list_place: str = ""
    profiles: tuple[ProfileDocument, ...] = ()
    catalogue: tuple[CatalogueEntry, ...] = ()
    secrets: dict[tuple[SecretDocument, str], Secret | None] = field(default_factory=dict)
    keys: dict[Path, tuple[str, ...]] = field(default_factory=dict)
    checked: set[Path] = field(default_factory=set)
    images: dict[ImageDocument, ImageSource] = field(default_factory=dict)
    generations: dict[tuple[Path, ...], frozenset[str]] = field(default_factory=dict)
    roots: dict[ImageSource, RootSystem | None] = field(default_factory=dict)
    vendors: dict[tuple[str, str, tuple[Path, ...]], VendorState] = field(default_factory=dict)
    vendors_here: dict[tuple[str, ImageSource, tuple[Path, ...]], VendorState] = field(
        default_factory=dict
    )

    def __post_init__(self) -> None:
        self.profiles = load_profiles(self.folders)
        self.catalogue = load_catalogue(self.folders)

    def profile(self, name: str) -> ProfileDocument:
        """Return the profile called `name`."""
        return find_profile(self.profiles, name)

    def image(self, document: ImageDocument) -> ImageSource:
        """Return the source of a base image.

        Offline, a published image that no snapshot has is only a name, good for a roster.
        """
        if document not in self.images:
            find = self.lists.finder(self.folders, self.list_place) if self.lists else None
            try:
                self.images[document] = source_of(document, self.catalogue, find)
            except SettingsError:
                if not (self.lists and self.lists.offline and "@" in (document.name or "")):
                    raise
                self.images[document] = ImageSource(name=document.name or "")
        return self.images[document]

    @property
    def judges_images(self) -> bool:
        """Whether images on this machine are checked; a list of nodes is of use without them."""
        return self.checking and self.lists is not None and not self.lists.offline

    def root(self, image: ImageSource) -> RootSystem | None:
        """Return the system of an image that is on this machine; None if it is not known."""
        if image not in self.roots:
            path = self._unpacked(image)
            self.roots[image] = find_root_system(path) if path else None
        return self.roots[image]

    def _unpacked(self, image: ImageSource) -> Path | None:
        """Return the path of an image on this machine; a build reads its base anyway."""
        if self.lists is None or not self.checking:
            return None
        return find_unpacked(image, self.lists.cache)

    def secret(self, document: SecretDocument, what: str) -> Secret | None:
        """Return a secret; None if it is missing and `checking` is set."""
        key = (document, what if document.prompt is not None else "")
        if key not in self.secrets:
            self.secrets[key] = self._secret(document, what)
        return self.secrets[key]

    def _secret(self, document: SecretDocument, what: str) -> Secret | None:
        if document.file is not None:
            return Secret(read_text(document.file, f"file of the {what}").rstrip("\r\n"))
        if document.env is not None:
            return self._from_environment(document.env, what)
        if self.checking:
            return None
        if self.ask is None:
            raise SettingsError(
                f"the {what} needs a prompt, but there is no terminal",
                "use {file: …} or {env: …} instead",
            )
        return Secret(self.ask(document.prompt or what))

    def _from_environment(self, name: str, what: str) -> Secret | None:
        value = self.environment.get(name)
        if value is not None:
            return Secret(value)
        if self.checking:
            return None
        dropped = f"use sudo --preserve-env={name} …: sudo removes variables"
        hint = dropped if "SUDO_UID" in self.environment else f"set it: export {name}=…"
        raise SettingsError(f"${name} for the {what} is not set", hint)

    def public_keys(self, path: Path) -> tuple[str, ...]:
        """Return the checked lines of a .pub or authorized_keys file."""
        if path not in self.keys:
            self.keys[path] = _read_keys(path)
        return self.keys[path]

    def generation(self, name: str, overlays: tuple[Path, ...]) -> str:
        """Return `name` if there is such a generation, shipped or in one of `overlays`."""
        from imagebuilder.plan.overlays import generation_folders  # noqa: PLC0415 - Jinja2 takes time

        if overlays not in self.generations:
            places = generation_folders((shipped_folder("overlays"), *overlays))
            self.generations[overlays] = frozenset(place.name for place in places)
        known = self.generations[overlays]
        if name not in known:
            raise SettingsError(f"no generation `{name}`", did_you_mean(name, known))
        return name

    def ability(
        self, kind: Literal["crypt", "wifi"], name: str, overlays: tuple[Path, ...]
    ) -> frozenset[str] | None:
        """Return the methods that a generation supports; None if they depend on the image."""
        from imagebuilder.plan.generations import named_generation  # noqa: PLC0415 - as above
        from imagebuilder.plan.overlays import load_generations  # noqa: PLC0415

        generations = load_generations((shipped_folder("overlays"), *overlays))
        generation = named_generation(generations, name)
        words = generation.crypt if kind == "crypt" else generation.wifi
        return None if words and words.names else generation.able(kind, {})

    def vendor(self, settings: NodeSettings) -> VendorState:
        """Return what the image of a node brings, as far as that is known without it."""
        name = settings.generation or settings.image.generation or ""
        key = (name, settings.image.name, settings.overlays)
        if key not in self.vendors:
            self.vendors[key] = _vendor(name, settings)
        return self.vendors[key]

    def vendor_here(self, settings: NodeSettings) -> VendorState:
        """Return what the image of a node brings, with what it says itself if it is here."""
        image, name = settings.image, settings.generation or settings.image.generation or ""
        key = (name, image, settings.overlays)
        if key not in self.vendors_here:
            path = self._unpacked(image)
            said = _vendor_of_file(path, name, settings.overlays) if path else None
            self.vendors_here[key] = said or self.vendor(settings)
        return seen_in_root(self.vendors_here[key], self.root(image))

    def folder(self, path: Path) -> Path:
        """Return `path` if the folder exists; with `checking`, compile its templates as well."""
        if not has_folder(path):
            raise SettingsError(f"no folder {path}", "check the path")
        if self.checking and path not in self.checked:
            from imagebuilder.plan.overlays import check_templates  # noqa: PLC0415 - as above

            self.checked.add(path)
            check_templates(path)
        return path

    def file(self, path: Path) -> Path:
        """Return `path` if the file exists."""
        if not has_file(path):
            raise SettingsError(f"no file {path}", "check the path")
        return path


def _vendor(name: str, settings: NodeSettings) -> VendorState:
    from imagebuilder.plan.overlays import load_generations  # noqa: PLC0415 - as above

    folders = (shipped_folder("overlays"), *settings.overlays)
    try:
        known = {generation.name: generation for generation in load_generations(folders)}
    except SettingsError:
        return VendorState()  # reported with the overlay
    if name not in known:
        return VendorState()
    return vendor_state(known[name], facts_by_name(known[name], settings.image))


def _vendor_of_file(path: Path, name: str, overlays: tuple[Path, ...]) -> VendorState | None:
    """Return what an image says of itself on its boot partition; None if that cannot be read."""
    from imagebuilder.disk.fat.volume import BootVolume  # noqa: PLC0415 - pyfatfs takes time
    from imagebuilder.plan.generations import detect, named_generation  # noqa: PLC0415 - as above
    from imagebuilder.plan.overlays import load_generations  # noqa: PLC0415
    from imagebuilder.plan.vendor.stock import Record, StockBoot  # noqa: PLC0415

    try:
        generations = load_generations((shipped_folder("overlays"), *overlays))
        with reading(path.name, ImageError), open_raw(path) as disk:
            volume = BootVolume(disk, boot_partition(disk, read_partitions(disk)))
            boot = StockBoot(volume, Record.on(volume))
            found = named_generation(generations, name) if name else detect(generations, volume)
            return vendor_state(found, found.facts_of(boot))
    except (ImageError, SettingsError):
        return None  # reported by the build, which needs the image


def _read_keys(path: Path) -> tuple[str, ...]:
    text = read_text(path, "SSH key file")
    lines = [line.strip() for line in text.splitlines()]
    wanted = [line for line in lines if line and not line.startswith("#")]
    if not wanted:
        raise SettingsError(f"SSH key file {path} is empty", "use the .pub file")
    try:
        return tuple(public_key(line) for line in wanted)
    except ValueError as error:
        context = getattr(error, "context", None) or {}
        raise SettingsError(
            f"SSH key file {path}: {context.get('fact', error)}", str(context.get("hint", ""))
        ) from None
