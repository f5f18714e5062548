"""What settings ask of the world: secrets, SSH keys, folders, profiles and images.

The environment and the way to ask are handed in; each thing is read or asked once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from imagebuilder.errors import SettingsError
from imagebuilder.files import has_file, has_folder
from imagebuilder.model import Secret
from imagebuilder.resources import shipped_folder
from imagebuilder.settings.catalog import find_profile, load_catalogue, load_profiles, source_of
from imagebuilder.settings.schema.diagnostics import did_you_mean
from imagebuilder.settings.schema.fields import public_key
from imagebuilder.settings.yaml_reader import read_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from imagebuilder.model import ImageSource
    from imagebuilder.settings.schema.documents import (
        CatalogueEntry,
        ImageDocument,
        ProfileDocument,
        SecretDocument,
    )


@dataclass
class References:
    """Files, environment and prompts; each thing is read or asked once."""

    environment: Mapping[str, str]
    ask: Callable[[str], str] | None
    folders: Sequence[Path]
    checking: bool = False
    profiles: tuple[ProfileDocument, ...] = ()
    catalogue: tuple[CatalogueEntry, ...] = ()
    secrets: dict[tuple[SecretDocument, str], Secret | None] = field(default_factory=dict)
    keys: dict[Path, tuple[str, ...]] = field(default_factory=dict)
    checked: set[Path] = field(default_factory=set)
    generations: dict[tuple[Path, ...], frozenset[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.profiles = load_profiles(self.folders)
        self.catalogue = load_catalogue(self.folders)

    def profile(self, name: str) -> ProfileDocument:
        """Find a profile by name."""
        return find_profile(self.profiles, name)

    def image(self, document: ImageDocument) -> ImageSource:
        """Find a base image."""
        return source_of(document, self.catalogue)

    def secret(self, document: SecretDocument, what: str) -> Secret | None:
        """Read a secret; a check gets None for what only a build needs."""
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
                f"the {what} is to be typed, and nobody is there", "give {file: …} or {env: …}"
            )
        return Secret(self.ask(document.prompt or what))

    def _from_environment(self, name: str, what: str) -> Secret | None:
        value = self.environment.get(name)
        if value is not None:
            return Secret(value)
        if self.checking:
            return None
        dropped = f"sudo hands on no variables: sudo --preserve-env={name} …"
        hint = dropped if "SUDO_UID" in self.environment else f"export {name}=…"
        raise SettingsError(f"${name}, for the {what}, is not set", hint)

    def public_keys(self, path: Path) -> tuple[str, ...]:
        """Read and check the lines of a .pub or authorized_keys file."""
        if path not in self.keys:
            self.keys[path] = _read_keys(path)
        return self.keys[path]

    def generation(self, name: str, overlays: tuple[Path, ...]) -> str:
        """Make sure that there is such a generation, shipped or in one of `overlays`."""
        from imagebuilder.plan.overlays import generation_folders  # noqa: PLC0415 - Jinja2 takes time

        if overlays not in self.generations:
            places = generation_folders((shipped_folder("overlays"), *overlays))
            self.generations[overlays] = frozenset(place.name for place in places)
        known = self.generations[overlays]
        if name not in known:
            raise SettingsError(f"there is no generation `{name}`", did_you_mean(name, known))
        return name

    def folder(self, path: Path) -> Path:
        """Make sure that a folder is there, and on a check that its templates are sound."""
        if not has_folder(path):
            raise SettingsError(f"no folder {path}", "check the path")
        if self.checking and path not in self.checked:
            from imagebuilder.plan.overlays import check_templates  # noqa: PLC0415 - as above

            self.checked.add(path)
            check_templates(path)
        return path

    def file(self, path: Path) -> Path:
        """Make sure that a file is there."""
        if not has_file(path):
            raise SettingsError(f"no file {path}", "check the path")
        return path


def _read_keys(path: Path) -> tuple[str, ...]:
    text = read_text(path, "SSH key file")
    lines = [line.strip() for line in text.splitlines()]
    wanted = [line for line in lines if line and not line.startswith("#")]
    if not wanted:
        raise SettingsError(f"SSH key file {path} is empty", "give the .pub file")
    try:
        return tuple(public_key(line) for line in wanted)
    except ValueError as error:
        context = getattr(error, "context", None) or {}
        raise SettingsError(
            f"SSH key file {path}: {context.get('fact', error)}", str(context.get("hint", ""))
        ) from None
