"""The vendors' text files on a boot partition: edits that keep what others wrote."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import yaml

from imagebuilder.errors import ImageError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# The kernel's limit on ARM is 1024 with up to 400 that the firmware puts in front.
OUR_WORDS_MAX_BYTES = 400
LINE_MAX_BYTES = 1024 - 400

_WORD = re.compile(r'(?:[^\s"]|"[^"]*"?)+', re.ASCII)
_INIT_HOOK = re.compile(r"/rpi-image/install\b")
_SYSTEMD_RUN = re.compile(r"systemd\.run=\S*/firstrun\.sh$")
_PLAIN_INITS = {"init=/sbin/init", "init=/lib/systemd/systemd", "init=/bin/systemd"}
_JINJA = re.compile(rb"##\s*template:\s*jinja", re.IGNORECASE)
_FILTER = re.compile(r"\s*\[([^\]]*)\]")
_BOARD = re.compile(r"pi|cm|none")
_ALL_BOARDS: Mapping[str, str] = {}
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

# Where two of a name would confuse whoever reads them; all others may repeat, as `console` does.
_ONCE = re.compile(
    r"(root|rootfstype|rootflags|ds|cfg80211\.\w+|systemd\.(unit|run(_\w+_action)?))="
)


# ---- texts


def read_appended(data: bytes, origin: str) -> str:
    """Read lines to append: of any 8-bit encoding, with or without Windows' mark in front."""
    if b"\0" in data:
        raise SettingsError(
            f"{origin} is no text of 8-bit letters", "save it as UTF-8; it may be UTF-16 now"
        )
    return data.decode("utf-8-sig", "surrogateescape")


@lru_cache(maxsize=16)
def parse_mapping(text: bytes, path: str) -> Mapping[str, object]:
    """Read a vendor's YAML file; one without values gives an empty mapping.

    Raises ImageError for all else that our own file would silently take the place of.
    """
    hint = f"mend it in the image, or replace it by an overlay with a {path} of your own"
    if _JINJA.match(text):
        raise ImageError(f"{path} is a template for the Pi, which ours cannot keep", hint)
    try:
        found = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        raise ImageError(
            f"{path} is no single YAML mapping: {_yaml_reason(error)}", hint
        ) from error
    if not isinstance(found, dict | None):
        raise ImageError(f"{path} is no single YAML mapping but a {type(found).__name__}", hint)
    return found or {}


def _yaml_reason(error: yaml.YAMLError | ValueError) -> str:
    mark = getattr(error, "problem_mark", None)
    reason = getattr(error, "problem", None) or str(error).partition("\n")[0]
    return f"line {mark.line + 1}: {reason}" if mark else reason


# ---- cmdline.txt


def split_words(line: str) -> list[str]:
    """Split as the kernel does: at blanks that no double quote protects; there are no escapes."""
    return _WORD.findall(line)


@dataclass(frozen=True, slots=True)
class CmdlineEdit:
    """What a run did to cmdline.txt: words it added, and the vendor's that gave way, by place."""

    added: tuple[str, ...] = ()
    replaced: tuple[tuple[int, str], ...] = ()


NO_EDIT = CmdlineEdit()


def groups_of(text: str) -> list[str]:
    """Give the words on a user's or a generation's lines; `init=` keeps its arguments."""
    lines = [line.strip() for line in _lines(text)]
    groups: list[str] = []
    for line in lines:
        if line.startswith("init="):
            groups.append(line)
        elif not line.startswith("#"):
            groups += split_words(line)
    return groups


def merge_cmdline(
    text: str, ours: tuple[str, ...], earlier: CmdlineEdit = NO_EDIT
) -> tuple[str, CmdlineEdit]:
    """Put our groups of words into the one line of cmdline.txt and keep every other word.

    What an earlier run did is undone first. All of ours stand last, where the kernel prefers them,
    but before a ` -- `: words in front of `init=` do not reach init, and the vendor's clean-up
    cuts the line at ` systemd.run`. Raises ImageError where a foreign `init=` and ours exclude
    each other.
    """
    words = _undone(split_words(text), earlier)
    _check_words(words, ours)
    end = _end_of(words)
    kept = [(place, word) for place, word in enumerate(words[:end])]
    gone = [(place, word) for place, word in kept if _gives_way(word, ours)]
    stays = [word for place, word in kept if (place, word) not in gone]
    added = [group for group in dict.fromkeys(ours) if group not in stays]
    line = " ".join(stays + added + words[end:])
    _check_length(" ".join(ours), line)
    return line, CmdlineEdit(tuple(added), tuple(gone))


def _undone(words: list[str], edit: CmdlineEdit) -> list[str]:
    for group in reversed(edit.added):
        words = _without(words, split_words(group))
    words = without_hooks(words)
    for place, word in edit.replaced:
        words.insert(place, word)
    return words


def _without(words: list[str], group: list[str]) -> list[str]:
    """Take out the last occurrence; one word behind ` -- ` is init's and none of ours."""
    size = len(group)
    end = _end_of(words) if size == 1 else len(words)
    for start in range(end - size, -1, -1):
        if words[start : start + size] == group:
            return words[:start] + words[start + size :]
    return words


def _end_of(words: list[str]) -> int:
    return words.index("--") if "--" in words else len(words)


def _gives_way(word: str, ours: tuple[str, ...]) -> bool:
    """Tell whether a word of ours replaces this one: it has the same name and may stand once."""
    rivals = [group for group in ours if _name(group) == _name(word)]
    return bool(rivals and _ONCE.match(word)) and word != rivals[-1]


def without_hooks(words: list[str]) -> list[str]:
    """Take out what starts our installer, in whichever form an earlier run wrote it."""
    kept: list[str] = []
    rest = list(words)
    while rest:
        if rest[0].startswith("init=") and _is_init_hook(rest):
            rest = rest[3:]
        elif _SYSTEMD_RUN.match(rest[0]):
            rest = [word for word in rest[1:] if not _belongs_to_systemd_run(word)]
        else:
            kept.append(rest.pop(0))
    return kept


def _is_init_hook(words: list[str]) -> bool:
    return len(words) > 2 and words[1] == "-c" and bool(_INIT_HOOK.search(words[2]))  # noqa: PLR2004 - init, -c, script


def _belongs_to_systemd_run(word: str) -> bool:
    return word == "systemd.unit=kernel-command-line.target" or word.startswith(
        "systemd.run_success_action="
    )


def _name(word: str) -> str:
    return word.partition("=")[0]


def _check_words(words: list[str], ours: tuple[str, ...]) -> None:
    if "--" in ours:
        raise SettingsError(
            "cmdline.txt.append holds `--`, behind which the kernel reads no words", "take it out"
        )
    theirs = [word for word in words if word.startswith("init=") and word not in _PLAIN_INITS]
    if theirs and any(group.startswith("init=") for group in ours):
        raise ImageError(
            f"cmdline.txt already holds {theirs[-1]}, which our own init= would shut out",
            "this image is of another generation than assumed; name it with --generation "
            "(`generation:` in a file)",
        )


def _check_length(mine: str, line: str) -> None:
    size = _size(mine)
    if size > OUR_WORDS_MAX_BYTES:
        raise SettingsError(
            f"the words for cmdline.txt take {size} bytes, more than {OUR_WORDS_MAX_BYTES}",
            "shorten `cmdline` in generation.yml, or cmdline.txt.append",
        )
    if _size(line) > LINE_MAX_BYTES:
        raise ImageError(
            f"cmdline.txt would hold {_size(line)} bytes, more than {LINE_MAX_BYTES}",
            "the kernel cuts a longer line off; take words out of the image's cmdline.txt",
        )


def _size(text: str) -> int:
    return len(text.encode("utf-8", "surrogateescape"))


# ---- occidentalis.txt and its like: name=value lines


def set_lines(text: str, values: dict[str, str]) -> str:
    """Set `name=value` lines in place and take out those with an empty value.

    Names are compared without case, the first line of a name is set and later ones go, because
    the last would win on the Pi. Line ends stay as they are; comments are left alone.
    """
    ending = "\r\n" if "\r\n" in text else "\n"
    left = dict(values)
    lines: list[str] = []
    for line in _lines(text):
        name = line.partition("=")[0].lower() if "=" in line else ""
        if name not in values:
            lines.append(line)
        elif left.get(name):
            lines.append(f"{name}={left.pop(name)}")
    lines += [f"{name}={value}" for name, value in left.items() if value]
    return "".join(line + ending for line in lines)


def _lines(text: str) -> list[str]:
    """Split as the Pi does: at newlines only, and not at Unicode's further line separators."""
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    return lines[:-1] if lines[-1] == "" else lines


def check_line(value: str) -> str:
    """Give the text back if it can stand on one line; raises SettingsError otherwise."""
    found = _CONTROL.search(value)
    if found:
        raise SettingsError(
            f"a value holds the control character {found[0]!r}, which one line cannot carry",
            "take it out of the settings",
        )
    return value


def check_verbatim(value: str, what: str) -> str:
    """Refuse what a `name=value` line without quotes cannot carry unharmed."""
    if value != value.strip():
        raise SettingsError(
            f"{what} begins or ends with a blank, which occidentalis.txt cannot carry",
            "rename the network, or use a newer base image",
        )
    return check_line(value)


# ---- config.txt


def add_config_lines(text: str, lines: tuple[str, ...]) -> str:
    """Append lines that config.txt does not hold yet for the same boards.

    The lines begin under `[all]` and may have filters of their own; what is appended leaves none
    open, because tools on the Pi append without a look at the end of the file.
    """
    present, open_filters = set(), _ALL_BOARDS
    for open_filters, line in _filtered(_lines(text)):
        present.add((frozenset(open_filters.values()), line.strip()))
    added: list[str] = []
    for filters, line in _filtered(list(lines)):
        if line.strip() and (frozenset(filters.values()), line.strip()) not in present:
            added += [*_switch(open_filters, filters), line]
            open_filters = filters
    if not added:
        return text
    start = text if not text or text.endswith("\n") else text + "\n"
    return start + "".join(f"{line}\n" for line in added + _switch(open_filters, _ALL_BOARDS))


def _filtered(lines: list[str]) -> Iterator[tuple[Mapping[str, str], str]]:
    """Give each line with the filters it stands under, by kind; a filter's own line is blank.

    Filters of different kinds narrow each other, one of the same kind takes the other's place.
    https://www.raspberrypi.com/documentation/computers/config_txt.html#conditional-filters
    """
    filters = _ALL_BOARDS
    for line in lines:
        found = _FILTER.match(line)
        if found is None:
            yield filters, line
            continue
        name = found[1].lower()
        if _BOARD.match(name):
            filters = {**filters, "board": f"[{name}]"}
        else:
            kind = re.split("[=:]|0x", name)[0]
            filters = {} if name == "all" else {**filters, kind: f"[{found[1]}]"}
        yield filters, ""


def _switch(now: Mapping[str, str], then: Mapping[str, str]) -> list[str]:
    """Give the lines that lead from some filters to others."""
    if now == then:
        return []
    head = ["[all]"] if now.keys() - then.keys() else []
    return head + list(then.values())


# ---- wifi

SSID_MAX_BYTES = 32


def check_ssid(ssid: str) -> str:
    """Give the SSID back if it is 1 to 32 bytes (IEEE 802.11) on one line."""
    size = len(ssid.encode())
    if not 1 <= size <= SSID_MAX_BYTES:
        raise SettingsError(
            f"the SSID {ssid!r} takes {size} bytes; 1 to {SSID_MAX_BYTES} are possible",
            "letters beyond ASCII take 2 to 4 bytes each",
        )
    return check_line(ssid)


@lru_cache(maxsize=256)
def hash_psk(passphrase: str, ssid: str) -> str:
    """Derive the 64 lower-case hex digits of a WPA pre-shared key (IEEE 802.11i, H.4.1)."""
    secret = check_line(passphrase).encode()
    if not 8 <= len(secret) <= 63:  # noqa: PLR2004 - the standard's own bounds
        raise SettingsError(
            f"the passphrase of {ssid!r} has {len(secret)} bytes; WPA takes 8 to 63",
            "64 hex digits are a key already: give them as `psk`",
        )
    return hashlib.pbkdf2_hmac("sha1", secret, ssid.encode(), 4096, 32).hex()


def wpa_ssid(ssid: str) -> str:
    """Write an SSID for wpa_supplicant.conf: quoted where plain, else as hex."""
    plain = re.fullmatch(r"[A-Za-z0-9_.-](?:[A-Za-z0-9_. -]*[A-Za-z0-9_.-])?", check_ssid(ssid))
    return f'"{ssid}"' if plain else ssid.encode().hex()


def nm_ssid(ssid: str) -> str:
    """Write an SSID for a NetworkManager keyfile: as text where plain, else as byte numbers."""
    if re.fullmatch(r"[A-Za-z_.-](?:[A-Za-z0-9_. -]*[A-Za-z0-9_.-])?", check_ssid(ssid)):
        return ssid
    return "".join(f"{byte};" for byte in ssid.encode())
