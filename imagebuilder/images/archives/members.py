"""Find the image among the files of an archive; others may be notes, folders and junk."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from imagebuilder.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Sequence

_PACKED = (".gz", ".xz", ".zst", ".bz2", ".zip")
_IMAGES = (".img", ".raw", ".wic", ".sdcard", ".sdimg", ".rpi-sdimg", ".hddimg")
_BLOBS = (".bin", ".dd", ".iso")
_NOTES = frozenset(
    {
        *(".txt", ".md", ".rst", ".pdf", ".html", ".htm", ".url", ".nfo", ".png", ".jpg"),
        *(".sha1", ".sha256", ".sha512", ".md5", ".asc", ".sig", ".gpg"),
        *(".bmap", ".info", ".json", ".xml", ".yml", ".yaml", ".ini", ".log"),
        *(".manifest", ".packages"),
    }
)
_UNNAMED_NOTES = frozenset(
    {
        *("readme", "license", "licence", "copying", "changelog", "notice", "authors"),
        *("md5sums", "sha1sums", "sha256sums", "sha512sums", "sha256sum", "checksums"),
    }
)
_JUNK = frozenset({".ds_store", "thumbs.db", "desktop.ini"})
_NAMED_IN_ERRORS = 4


def choose_member(names: Sequence[str], archive: str) -> str:
    """Return the name of the one image among the files of an archive.

    Raise ImageError if there is none or several, or if a name is outside of the archive.
    """
    for name in names:
        _refuse_unsafe(name, archive)
    files = [name for name in names if not _is_junk(name)]
    if len(files) == 1:
        return files[0]
    for fits in (_is_image, _is_packed_image, _is_blob):
        if images := [name for name in files if fits(name)]:
            break
    others = [name for name in files if not _is_note(name)]
    if len(images) == 1 or (not images and len(others) == 1):
        return (images or others)[0]
    named = ", ".join((images or files or names)[:_NAMED_IN_ERRORS]) or "nothing"
    raise ImageError(
        f"{archive} contains {len(images)} images instead of one: {named}",
        "unpack it, and use the image itself",
    )


def may_be_image(name: str) -> bool:
    """Return whether a file may be the image by its name: not junk and not a note."""
    return not (_is_junk(name) or _is_note(name))


def _refuse_unsafe(name: str, archive: str) -> None:
    """Raise ImageError for a path outside of its archive."""
    path = _path(name)
    if path.is_absolute() or ".." in path.parts or name[1:2] == ":":
        raise ImageError(
            f"{archive} contains the unsafe name {name!r}",
            "do not use it: it may be malicious",
        )


def _path(name: str) -> PurePosixPath:
    return PurePosixPath(name.replace("\\", "/"))


def _is_junk(name: str) -> bool:
    """Return whether macOS or Windows added the file; `._x` is an AppleDouble file of x."""
    path = _path(name)
    return (
        name.endswith(("/", "\\"))
        or "__MACOSX" in path.parts
        or path.name.startswith("._")
        or path.name.lower() in _JUNK
    )


def _is_image(name: str) -> bool:
    return name.lower().endswith(_IMAGES)


def _is_packed_image(name: str) -> bool:
    lower = name.lower()
    return lower.endswith(_PACKED) and _path(lower).stem.endswith((*_IMAGES, ".tar"))


def _is_blob(name: str) -> bool:
    return name.lower().endswith(_BLOBS)


def _is_note(name: str) -> bool:
    path = _path(name.lower())
    return path.suffix in _NOTES or path.name in _UNNAMED_NOTES
