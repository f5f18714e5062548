"""Parse the output of checksum programs to digests and file names.

The forms are those of coreutils, shasum, BSD, openssl 1 and 3, gpg, CertUtil and Get-FileHash.
"""

from __future__ import annotations

import base64
import codecs
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


# The longest path (PATH_MAX of Linux, 4096) and a digest.
LONGEST_LINE = 5000
MOST_WRAPPED_LINES = 8

# More than a megabyte of lines with a digest and a name has.
MOST_LINES = 1 << 15

# UTF-32 before UTF-16: its byte order mark starts with that of UTF-16.
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

# The tag of other algorithms; that of SHA-256 is matched first.
_TAG = re.compile(r"(?:HMAC|MD|SHA|RMD|RIPEMD|BLAKE|SM3|KECCAK)[^ (]* ?\(.*\) ?=", re.IGNORECASE)
_HASH_OF = re.compile(r"SHA256 hash of (?:file )?(.+)", re.IGNORECASE)
_ESCAPE = re.compile(r"\\([\\nr])")
_MEANT = {"n": "\n", "r": "\r"}


@dataclass(frozen=True, slots=True)
class Listed:
    """A SHA-256 in lower case and its file name; empty if there is none, or it is "stdin"."""

    digest: str
    name: str = ""


def decode_text(data: bytes) -> str:
    """Return the text of a small file: UTF-8, -16 or -32, with a byte order mark or without.

    Other bytes are decoded as Windows-1252.
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
    """Yield every SHA-256 in the text of a checksum file; other digests are skipped."""
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
    """Yield the lines without empty ones and comments; join wrapped lines.

    gpg wraps a digest, CertUtil writes it below the name, PowerShell wraps a path.
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
    """Yield the entry in the fields that Format-List of PowerShell writes for a file."""
    if digest := _digest(fields.get("hash", "")):
        yield _listed(digest, fields.get("path", ""))


def _of_line(line: str) -> Listed | None:
    forms = (_leading, _tagged, _table, _labelled, _trailing)
    for form in forms[: 2 if _TAG.match(line) else None]:
        if listed := form(line):
            return listed
    return None


def _leading(line: str) -> Listed | None:
    """Parse coreutils, shasum, `openssl dgst -r`: the digest, spaces or a tab, `*`, the name."""
    found = _LEADING.fullmatch(line)
    return _listed(found[2], _unescaped(found[3], found[1])) if found else None


def _tagged(line: str) -> Listed | None:
    """Parse the format of BSD, `--tag` and openssl 1 and 3 (`SHA256(x)= `, `SHA2-256(x)= `)."""
    found = _TAGGED.fullmatch(line)
    digest = _digest(found[3]) if found else ""
    return _listed(digest, _unescaped(found[2], found[1])) if found and digest else None


def _table(line: str) -> Listed | None:
    """Parse a line of Get-FileHash, as a table or CSV."""
    found = _TABLE.fullmatch(line)
    return _listed(found[1], found[2]) if found else None


def _labelled(line: str) -> Listed | None:
    """Parse `name: digest` of gpg (in groups), of CertUtil (joined lines) or written by hand."""
    start = max(line.rfind(":"), line.rfind("="))
    digest = _digest(line[start + 1 :])
    return _listed(digest, _named(line[: max(start, 0)])) if digest else None


def _trailing(line: str) -> Listed | None:
    found = _TRAILING.fullmatch(line)
    return _listed(found[2], _named(found[1] or "")) if found else None


def _named(head: str) -> str:
    """Return the file name in the text before a digest; empty if it is only a label."""
    head = head.strip().rstrip(" \t:=")
    if found := _HASH_OF.fullmatch(head):
        return found[1]
    before, _, last = head.rpartition(" ")
    if last and _LABEL.fullmatch(last):
        head = before.rstrip(" \t:=")
    return "" if _LABEL.fullmatch(head) else head


def _listed(digest: str, name: str) -> Listed:
    """Return an entry, without a path that PowerShell truncated to the width of its window."""
    name = name.strip()
    unknown = _LABEL.fullmatch(name) or name.endswith(("...", "\u2026"))
    return Listed(digest.lower(), "" if unknown else name)


def _digest(text: str) -> str:
    """Return a digest (in groups, with colons or in base64) as 64 digits; empty if not valid."""
    text = text.strip()
    if _BASE64_DIGEST.fullmatch(text):
        return base64.b64decode(text).hex()
    digits = re.sub(r"[ \t:]", "", text)
    whole = len(digits) == _DIGEST_DIGITS and _MORE.fullmatch(digits)
    return digits if whole else ""


def _unescaped(name: str, mark: str) -> str:
    r"""Return a name without the escapes of coreutils, which start such lines with `\`."""
    return _ESCAPE.sub(lambda found: _MEANT.get(found[1], found[1]), name) if mark else name
