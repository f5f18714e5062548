"""Read overlay folders and the folders of generations."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from imagebuilder.disk.fat.names import fault_of, fold
from imagebuilder.errors import SettingsError
from imagebuilder.files import has_file, has_folder, read_file
from imagebuilder.model import OverlayFile
from imagebuilder.plan.generations import FILE, Generation, parse_generation
from imagebuilder.plan.scripts import load_scripts
from imagebuilder.plan.templates import Template, compile_template
from imagebuilder.resources import shipped_folder

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

# Budgets of an overlay folder: files and folders, folders in folders, and the bytes of all files;
# no boot partition holds more.
MOST_FILES = 10_000
MOST_LEVELS = 32
MOST_BYTES = 512 << 20
# Bytes of one template, and of a generation.yml.
MOST_TEMPLATE_BYTES = 1 << 18
MOST_GENERATION_BYTES = 1 << 18
_HINT = "choose a folder that has the files for the card only"

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
    raw = read_file(folder / FILE, "generation", MOST_GENERATION_BYTES)
    text = raw.decode("utf-8", "replace")
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
    files = sorted(_walk(folder, frozenset(), [MOST_FILES]))
    if sum(map(_size_of, files)) > MOST_BYTES:
        raise SettingsError(f"the overlay folder {folder} has over {MOST_BYTES >> 20} MiB", _HINT)
    _refuse_twins(folder, files)
    return files


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0  # what is wrong is told when it is read


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


def _walk(folder: Path, above: frozenset[tuple[int, int]], left: list[int]) -> Iterator[Path]:
    """Yield all files under a folder; follow symbolic links to folders.

    `above` are the device and inode numbers of the parent folders, `left` how many files and
    folders there may be. Raise SettingsError on a loop, and beyond a budget.
    """
    if len(above) > MOST_LEVELS:
        raise SettingsError(f"{folder} is nested too deeply", _HINT)
    inside, found = _inside(folder), folder.stat()
    here = (found.st_dev, found.st_ino)
    if here in above:
        raise SettingsError(f"{folder} is a link to one of its own parents", "remove the link")
    for path in inside:
        if path.name.startswith("."):
            continue
        left[0] -= 1
        if left[0] < 0:
            raise SettingsError(f"{folder} is one of over {MOST_FILES} files and folders", _HINT)
        if has_folder(path):
            yield from _walk(path, above | {here}, left)
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
    name = check_path(path.relative_to(folder).as_posix(), str(path))
    most_bytes = MOST_TEMPLATE_BYTES if name.endswith(".j2") else MOST_BYTES
    return OverlayFile(name, read_file(path, "overlay file", most_bytes), str(path), secrets)
