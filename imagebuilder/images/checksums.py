"""Checksum files of publishers, and addresses as they may be shown."""

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

    That is the output of sha256sum, of BSD's sha256 and openssl, or a digest and nothing else,
    which is of the file it lies beside.
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
    what = f"names {', '.join(sorted(lines)[:3])}" if lines else "is no SHA-256 file"
    raise SourceError(
        f"{where} {what}: no checksum for {wanted}",
        "give the publisher's with --sha256 (`sha256:` of `image:` in a file), or take it as it "
        "comes with --no-checksum (`unchecked: true`)",
    )


def redacted(url: str) -> str:
    """Return an address without what may be secret in it: user, password, query."""
    parts = _split(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "", ""))


def beside(url: str) -> str:
    """Return the address of the checksum file that publishers put beside a download."""
    parts = _split(url)
    return urlunsplit((parts.scheme, parts.netloc, parts.path + SUFFIX, "", ""))


def basename(url: str) -> str:
    """Return the file name an address ends in."""
    return PurePosixPath(unquote(_split(url).path)).name


def _split(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError as error:
        raise SourceError("an address cannot be fetched", "check its form") from error
