"""What checksum programs write: the digests in a text, and the names beside them.

The forms are those of coreutils, shasum, BSD, openssl 1 and 3, gpg, CertUtil and Get-FileHash.
"""

from __future__ import annotations

import base64
import codecs
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from imagebuilder.images.budgets import Budget

if TYPE_CHECKING:
    from collections.abc import Iterator


# The longest path (PATH_MAX of Linux) with a digest: no line of a checksum file is longer.
LONGEST_LINE = 5000
MOST_WRAPPED_LINES = 8

# A megabyte of digests and names has fewer.
MOST_LINES = 1 << 15
BUDGETS = (
    Budget("a line of a checksum file", LONGEST_LINE, "letters"),
    Budget("lines of a checksum file", MOST_LINES, "count"),
)

# The mark of UTF-32 begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_SAMPLE_BYTES = 400
_DIGEST_DIGITS = 64
_BASE64_DIGEST = re.compile(r"[A-Za-z0-9+/]{43}=")  # `cksum -a sha256 --base64`
_LEADING = re.compile(r"(\\?)(?:sha256:)?([0-9a-fA-F]{64})[ \t]+\*?(\S.*)", re.IGNORECASE)
_TAGGED = re.compile(r"(\\?)SHA(?:2-)?256 ?\((.*)\) ?= ?(.+)", re.IGNORECASE)
_TABLE = re.compile(
    r'"?SHA256"?(?:[ \t]+|[,;])"?([0-9a-fA-F]{64})"?(?:[ \t]+|[,;])"?([^"]+)"?', re.IGNORECASE
)
_TRAILING = re.compile(r"(.*[ \t])?([0-9a-fA-F]{64})")
_FIELD = re.compile(r'"?(Algorithm|Hash|Path)"?[ \t]*:[ \t]*"?([^"]*)"?,?', re.IGNORECASE)
_OPEN = re.compile(r"[:=][0-9a-fA-F \t]*$")
_MORE = re.compile(r"[0-9a-fA-F \t]+")
_WRAPPED = re.compile(r"[ \t]{8,}\S")
_LABEL = re.compile(
    r"(?:SHA-?(?:2-)?256)?[ -]?(?:hash|digest|checksum|sum|-|\(?stdin\)?)?", re.IGNORECASE
)

# Any algorithm's tag; that of SHA-256 is read before.
_TAG = re.compile(r"(?:HMAC|MD|SHA|RMD|RIPEMD|BLAKE|SM3|KECCAK)[^ (]* ?\(.*\) ?=", re.IGNORECASE)
_HASH_OF = re.compile(r"SHA256 hash of (?:file )?(.+)", re.IGNORECASE)
_ESCAPE = re.compile(r"\\([\\nr])")
_MEANT = {"n": "\n", "r": "\r"}


@dataclass(frozen=True, slots=True)
class Listed:
    """A SHA-256 in lower case and the name beside it; empty where there is none, or "stdin"."""

    digest: str
    name: str = ""


def decode_text(data: bytes) -> str:
    """Return the text of a small file: UTF-8, -16 or -32, with a byte order mark or without.

    What is none of these is taken as Windows-1252.
    """
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return data[len(mark) :].decode(encoding, "replace")
    sample = data[:_SAMPLE_BYTES]
    for zeros, encoding in ((sample[1::2], "utf-16-le"), (sample[::2], "utf-16-be")):
        if zeros.count(0) > len(zeros) // 2:
            return data.decode(encoding, "replace")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace")


def read_lines(text: str) -> Iterator[Listed]:
    """Yield every SHA-256 in the text of a checksum file; digests of other lengths are none."""
    fields: dict[str, str] = {}
    for line in _joined(text):
        if field := _FIELD.fullmatch(line):
            fields[field[1].lower()] = field[2].strip()
        elif listed := _of_line(line):
            yield listed
        if not field or fields.keys() >= {"hash", "path"}:
            yield from _of_fields(fields)
            fields = {}
    yield from _of_fields(fields)


def _joined(text: str) -> Iterator[str]:
    """Yield the lines that mean something, what a program wrapped put together again.

    gpg wraps a digest, CertUtil has it in the line below the name, PowerShell wraps a path.
    """
    last, wrapped = "", 0
    lines = re.split(r"[\r\n\0]+", text.removeprefix("\ufeff"))
    for line in lines[:MOST_LINES]:
        if not line.strip() or line.startswith("#") or len(line) > LONGEST_LINE:
            continue
        if wrapped < MOST_WRAPPED_LINES and _goes_on(last, line):
            last += " " * bool(_MORE.fullmatch(line)) + line.strip()
            wrapped += 1
            continue
        yield last
        last, wrapped = line.strip(), 0
    yield last


def _goes_on(last: str, line: str) -> bool:
    if _MORE.fullmatch(line):
        return bool(_OPEN.search(last))
    field = _FIELD.fullmatch(last)
    return bool(field and field[1].lower() == "path" and _WRAPPED.match(line))


def _of_fields(fields: dict[str, str]) -> Iterator[Listed]:
    """Yield what Format-List printed of one file."""
    if digest := _digest(fields.get("hash", "")):
        yield _listed(digest, fields.get("path", ""))


def _of_line(line: str) -> Listed | None:
    forms = (_leading, _tagged, _table, _labelled, _trailing)
    for form in forms[: 2 if _TAG.match(line) else None]:
        if listed := form(line):
            return listed
    return None


def _leading(line: str) -> Listed | None:
    """Read coreutils, shasum, `openssl dgst -r`: the digest, blanks or a tab, `*`, the name."""
    found = _LEADING.fullmatch(line)
    return _listed(found[2], _unescaped(found[3], found[1])) if found else None


def _tagged(line: str) -> Listed | None:
    """Read BSD's form (also `--tag`), that of openssl 1 and 3 (`SHA256(x)= `, `SHA2-256(x)= `)."""
    found = _TAGGED.fullmatch(line)
    digest = _digest(found[3]) if found else ""
    return _listed(digest, _unescaped(found[2], found[1])) if found and digest else None


def _table(line: str) -> Listed | None:
    """Read a line of Get-FileHash, as a table or as CSV."""
    found = _TABLE.fullmatch(line)
    return _listed(found[1], found[2]) if found else None


def _labelled(line: str) -> Listed | None:
    """Read `name: digest`, as gpg (in groups), CertUtil (once joined) and people write it."""
    start = max(line.rfind(":"), line.rfind("="))
    digest = _digest(line[start + 1 :])
    return _listed(digest, _named(line[: max(start, 0)])) if digest else None


def _trailing(line: str) -> Listed | None:
    found = _TRAILING.fullmatch(line)
    return _listed(found[2], _named(found[1] or "")) if found else None


def _named(head: str) -> str:
    """Return the file that the words before a digest name; empty where they only say what it is."""
    head = head.strip().rstrip(" \t:=")
    if found := _HASH_OF.fullmatch(head):
        return found[1]
    before, _, last = head.rpartition(" ")
    if last and _LABEL.fullmatch(last):
        head = before.rstrip(" \t:=")
    return "" if _LABEL.fullmatch(head) else head


def _listed(digest: str, name: str) -> Listed:
    """Return an entry; a path that a narrow window cut off says nothing."""
    name = name.strip()
    unknown = _LABEL.fullmatch(name) or name.endswith(("...", "\u2026"))
    return Listed(digest.lower(), "" if unknown else name)


def _digest(text: str) -> str:
    """Return a digest as 64 digits: from groups, colons or base64; empty for what is none."""
    text = text.strip()
    if _BASE64_DIGEST.fullmatch(text):
        return base64.b64decode(text).hex()
    digits = re.sub(r"[ \t:]", "", text)
    whole = len(digits) == _DIGEST_DIGITS and _MORE.fullmatch(digits)
    return digits if whole else ""


def _unescaped(name: str, mark: str) -> str:
    """Return a name without the escapes that coreutils announces by a backslash at the front."""
    return _ESCAPE.sub(lambda found: _MEANT.get(found[1], found[1]), name) if mark else name
