"""Parse the checksum files of publishers, and remove secrets from URLs."""

from __future__ import annotations

import re
import unicodedata
from pathlib import PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from imagebuilder.errors import SourceError
from imagebuilder.images.checksum_lines import Listed, decode_text, read_lines

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SUFFIX = ".sha256"

# A list of all images of a publisher has some hundred kilobytes.
MOST_CHECKSUM_BYTES = 1 << 20
_LONGEST_SHOWN = 300
_HINT = (
    "use --sha256 with that of the publisher (`sha256:` of `image:` in a file), or "
    "--no-checksum (`unchecked: true`) to skip the check"
)


def read_checksum_file(path: Path) -> str:
    """Return the text of a checksum file on this machine. Raise SourceError on failure."""
    try:
        with path.open("rb") as file:
            data = file.read(MOST_CHECKSUM_BYTES + 1)
    except OSError as error:
        raise SourceError(
            f"cannot read {path}: {error.strerror}", "check its permissions, or remove it"
        ) from error
    if len(data) > MOST_CHECKSUM_BYTES:
        raise SourceError(f"{path} is over {MOST_CHECKSUM_BYTES >> 20} MiB", _HINT)
    return decode_text(data)


def parse_checksums(text: str, names: set[str], where: str) -> str:
    """Return the digest of one of `names` from the text of a checksum file.

    A single digest without a name is that of the file next to it. Raise SourceError if there is no
    digest, or more than one.
    """
    listed = tuple(read_lines(text))
    named = [entry for entry in listed if entry.name]
    alone = {entry.digest for entry in listed} if not named else set()
    if len(alone) == 1:
        return alone.pop()
    for name in sorted(names):
        if digest := _find(named, name, where):
            return digest
    wanted = " or ".join(sorted(names))
    others = sorted({_last_part(_plain(entry.name))[:_LONGEST_SHOWN] for entry in named})
    what = f"lists {', '.join(others[:3])}" if others else "is not a SHA-256 file"
    raise SourceError(f"{where} {what}: no checksum for {wanted}", _HINT)


def _find(named: list[Listed], wanted: str, where: str) -> str:
    """Return the digest of a file: by its name, then in any folder, then in any case.

    At last by the line of a localized CertUtil, for example "SHA256-Hash von NAME".
    """
    wanted = _plain(wanted)
    fits: tuple[Callable[[str], bool], ...] = (
        lambda name: name == wanted,
        lambda name: _last_part(name) == _last_part(wanted),
        lambda name: _last_part(name).casefold() == _last_part(wanted).casefold(),
        lambda name: "sha256" in name.lower() and name.endswith(f" {wanted}"),
    )
    for fit in fits:
        found = {entry.digest for entry in named if fit(_plain(entry.name))}
        if len(found) > 1:
            raise SourceError(f"{where} has {len(found)} checksums for {wanted}", _HINT)
        if found:
            return found.pop()
    return ""


def _plain(name: str) -> str:
    """Return a name for comparison, in NFC: file systems of macOS decompose names."""
    return unicodedata.normalize("NFC", name).removeprefix("./")


def _last_part(name: str) -> str:
    return re.split(r"[/\\]", name)[-1]


def redacted(url: str) -> str:
    """Return a URL without the parts that may be secret: user, password, query."""
    parts = _split(url)
    host = parts.netloc.rpartition("@")[2]
    text = urlunsplit((parts.scheme, host, parts.path, "", ""))
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"


def beside(url: str) -> str:
    """Return the URL of the checksum file that publishers put next to a download."""
    parts = _split(url)
    return urlunsplit((parts.scheme, parts.netloc, parts.path + SUFFIX, "", ""))


def basename(url: str) -> str:
    """Return the file name at the end of a URL."""
    return PurePosixPath(unquote(_split(url).path)).name


def _split(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError as error:
        raise SourceError("a URL is not valid", "check its syntax") from error
