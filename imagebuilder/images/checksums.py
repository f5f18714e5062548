"""Parse the checksum files of publishers, and remove secrets from URLs."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from imagebuilder.errors import SourceError

SUFFIX = ".sha256"
_GNU_LINE = re.compile(r"^([0-9a-fA-F]{64}) [ *](.+)$", re.MULTILINE)
_BSD_LINE = re.compile(r"^SHA256 ?\((.+)\) ?= ?([0-9a-fA-F]{64})\s*$", re.MULTILINE)
_LONE_DIGEST = re.compile(r"\s*([0-9a-fA-F]{64})\s*")


def parse_checksums(text: str, names: set[str], where: str) -> str:
    """Return the digest of one of `names` from the text of a checksum file.

    Formats: the output of sha256sum, of BSD's sha256 or of openssl, or a single digest, which is
    that of the file next to it. Raise SourceError if there is none.
    """
    text = text.removeprefix("\ufeff")
    if alone := _LONE_DIGEST.fullmatch(text):
        return alone[1].lower()
    pairs = [(m[2], m[1]) for m in _GNU_LINE.finditer(text)]
    pairs += [(m[1], m[2]) for m in _BSD_LINE.finditer(text)]
    lines = {PurePosixPath(name.strip()).name: digest.lower() for name, digest in pairs}
    for name in sorted(names):
        if name in lines:
            return lines[name]
    wanted = " or ".join(sorted(names))
    what = f"lists {', '.join(sorted(lines)[:3])}" if lines else "is not a SHA-256 file"
    raise SourceError(
        f"{where} {what}: no checksum for {wanted}",
        "use --sha256 with that of the publisher (`sha256:` of `image:` in a file), or "
        "--no-checksum (`unchecked: true`) to skip the check",
    )


def redacted(url: str) -> str:
    """Return a URL without the parts that may be secret: user, password, query."""
    parts = _split(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "", ""))


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
