"""Read overlay folders and the folders of generations."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from imagebuilder.disk.fat.names import fault_of, fold
from imagebuilder.errors import SettingsError
from imagebuilder.files import has_file, has_folder
from imagebuilder.model import OverlayFile
from imagebuilder.plan.generations import FILE, Generation, parse_generation
from imagebuilder.plan.scripts import load_scripts
from imagebuilder.plan.templates import Template, compile_template
from imagebuilder.resources import shipped_folder

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

_ILLEGAL = re.compile(r'[\x00-\x1f\x7f"*:<>?\\|]')


def load_overlay(folder: Path) -> tuple[OverlayFile, ...]:
    """Return all files of a folder, sorted by path, without hidden files and editors' backups.

    Only templates that came with the program get secrets. The folder of a generation is not an
    overlay and has no files. Raise SettingsError if the folder does not exist, or if FAT cannot
    store a name.
    """
    if has_file(folder / FILE):
        return ()
    ours = folder.resolve().is_relative_to(shipped_folder("overlays").resolve())
    return tuple(_read(folder, path, secrets=ours) for path in _files(folder))


def node_overlay() -> tuple[OverlayFile, ...]:
    """Return the files of every node: those of overlays/node and the joined scripts, by path."""
    shipped = shipped_folder("overlays")
    files = (*load_overlay(shipped / "node"), *load_scripts(shipped / "scripts"))
    return tuple(sorted(files, key=lambda file: file.path))


def load_generations(folders: Iterable[Path]) -> tuple[Generation, ...]:
    """Return the generations in folders; a later one replaces an earlier one of its name."""
    found = {place.name: load_generation(place) for place in generation_folders(folders)}
    return tuple(found.values())


def generation_folders(folders: Iterable[Path]) -> Iterator[Path]:
    """Yield the folders of generations: each of `folders` itself, or its subfolders."""
    for folder in folders:
        for place in [folder, *_inside(folder)] if has_folder(folder) else []:
            if has_file(place / FILE):
                yield place


def load_generation(folder: Path) -> Generation:
    """Return the generation in a folder; all its templates get secrets."""
    files = [_read(folder, path, secrets=True) for path in _files(folder) if path.name != FILE]
    text = (folder / FILE).read_text(encoding="utf-8")
    return parse_generation(text, folder.name, str(folder / FILE), files)


def check_templates(folder: Path) -> None:
    """Compile the templates of an overlay folder. Raise SettingsError if one is not valid.

    Their variables can only be checked when a node is planned.
    """
    if not has_file(folder / FILE):
        for path in _files(folder):
            if path.suffix == ".j2":
                template_of(_read(folder, path, secrets=False))


def template_of(file: OverlayFile) -> Template:
    """Return the compiled template. Raise SettingsError with file and line if it is not valid."""
    try:
        return compile_template(file.data.decode(), file.origin)
    except UnicodeDecodeError as error:
        raise SettingsError(
            f"{file.origin} is a template but not UTF-8", "remove .j2 from its name"
        ) from error


def check_path(path: str, origin: str) -> str:
    """Return `path` unchanged. Raise SettingsError if FAT cannot store one of its names."""
    for name in path.split("/"):
        reason = _fault_of(name)
        if reason:
            raise SettingsError(
                f"{origin}: the name {name!r} {reason}",
                "rename the file: the boot partition is FAT",
            )
    return path


def _fault_of(name: str) -> str:
    if name in {"", ".", ".."}:
        return "is not a file name"
    if found := _ILLEGAL.search(name):
        return f"contains {found[0]!r}, which FAT cannot store"
    if name != name.rstrip(". ") or name != name.lstrip(" "):
        return "begins with a space or ends with a space or dot, which FAT cannot store"
    fault = fault_of(name)
    return f"is not valid on FAT: {fault}" if fault else ""


def _files(folder: Path) -> list[Path]:
    if not has_folder(folder):
        raise SettingsError(f"no overlay folder {folder}", "use --overlay with a folder")
    files = sorted(_walk(folder, frozenset()))
    _refuse_twins(folder, files)
    return files


def _refuse_twins(folder: Path, files: Iterable[Path]) -> None:
    """Raise SettingsError if two files of one folder have the same name on FAT."""
    found: dict[str, Path] = {}
    for path in files:
        name = fold(path.relative_to(folder).as_posix().removesuffix(".j2"))
        if other := found.get(name):
            raise SettingsError(
                f"{other} and {path} are the same file on the boot partition",
                "rename or remove one of them: FAT ignores case",
            )
        found[name] = path


def _walk(folder: Path, above: frozenset[tuple[int, int]]) -> Iterator[Path]:
    """Yield all files under a folder; follow symbolic links to folders.

    `above` are the device and inode numbers of the parent folders. Raise SettingsError on a loop.
    """
    inside, found = _inside(folder), folder.stat()
    here = (found.st_dev, found.st_ino)
    if here in above:
        raise SettingsError(f"{folder} is a link to one of its own parents", "remove the link")
    for path in inside:
        if path.name.startswith("."):
            continue
        if has_folder(path):
            yield from _walk(path, above | {here})
        elif not path.name.endswith("~"):
            yield path


def _inside(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise SettingsError(
            f"cannot read {folder}: {error.strerror}", "check its permissions"
        ) from error


def _read(folder: Path, path: Path, *, secrets: bool) -> OverlayFile:
    name = path.relative_to(folder).as_posix()
    try:
        return OverlayFile(check_path(name, str(path)), path.read_bytes(), str(path), secrets)
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror}", "check the file") from error
