"""Edit the kernel command line in cmdline.txt and keep the words of others."""

from __future__ import annotations

import re
from dataclasses import dataclass

from imagebuilder.errors import ImageError, SettingsError
from imagebuilder.plan.boot_texts import split_lines
from imagebuilder.plan.card_layout import CMDLINE, INSTALLER

# The limit on ARM is 1024 (COMMAND_LINE_SIZE, arch/arm/include/uapi/asm/setup.h), of which the
# firmware of the Pi uses up to 400 for words that it puts in front.
OUR_WORDS_MAX_BYTES = 400
LINE_MAX_BYTES = 1024 - 400
_WORD = re.compile(r'(?:[^\s"]|"[^"]*"?)+', re.ASCII)
_INIT_HOOK = re.compile(rf"/{INSTALLER}\b")
_SYSTEMD_RUN = re.compile(r"systemd\.run=\S*/firstrun\.sh$")
_PLAIN_INITS = {"init=/sbin/init", "init=/lib/systemd/systemd", "init=/bin/systemd"}

# Words that may occur only once; all others may be repeated, for example `console`.
_ONCE = re.compile(
    r"(root|rootfstype|rootflags|ds|cfg80211\.\w+|systemd\.(unit|run(_\w+_action)?))="
)


def split_words(line: str) -> list[str]:
    """Return the words of a line, split at spaces outside double quotes.

    As next_arg in the kernel's lib/cmdline.c, which knows no escapes.
    """
    return _WORD.findall(line)


@dataclass(frozen=True, slots=True)
class CmdlineEdit:
    """A change of the command line in the file `path`.

    `replaced` are words of the vendor that ours replaced, with their index.
    """

    added: tuple[str, ...] = ()
    replaced: tuple[tuple[int, str], ...] = ()
    path: str = CMDLINE


NO_EDIT = CmdlineEdit()


def both_edits(earlier: CmdlineEdit, later: CmdlineEdit) -> CmdlineEdit:
    """Return the record of a line that may have either change, or both.

    A word that was replaced and is still there would be recorded twice; the kernel takes the last.
    """
    if NO_EDIT in {earlier, later}:
        return later if earlier == NO_EDIT else earlier
    if earlier.path != later.path:
        return earlier
    added = dict.fromkeys(earlier.added + later.added)
    replaced = dict.fromkeys(earlier.replaced + later.replaced)
    return CmdlineEdit(tuple(added), tuple(replaced), later.path)


def groups_of(text: str) -> list[str]:
    """Return the words on the lines of a user or a generation; `init=` stays with its arguments."""
    lines = [line.strip() for line in split_lines(text)]
    groups: list[str] = []
    for line in lines:
        if line.startswith("init="):
            groups.append(line)
        elif not line.startswith("#"):
            groups += split_words(line)
    return groups


def merge_cmdline(
    text: str, ours: tuple[str, ...], earlier: CmdlineEdit = NO_EDIT, *, planned: bool = True
) -> tuple[str, CmdlineEdit]:
    """Return the text of cmdline.txt with our groups of words, and the change made.

    The firmware reads the first line only; the others are kept, without effect.

    The earlier change is undone first, and the words that start our installer if the card was
    `planned` before; all other words stay. Ours go last, where they override others, but before
    ` -- `, after which words belong to init. Init gets no words that precede `init=`, and the
    vendor's clean-up cuts the line at ` systemd.run`. Raise ImageError if the line has another
    `init=` already.
    """
    first, _, others = text.partition("\n")
    words = _undone(split_words(first), earlier, planned=planned)
    _check_words(words, ours)
    end = _end_of(words)
    kept = [(place, word) for place, word in enumerate(words[:end])]
    gone = [(place, word) for place, word in kept if _gives_way(word, ours)]
    stays = [word for place, word in kept if (place, word) not in gone]
    added = [group for group in dict.fromkeys(ours) if group not in stays]
    line = " ".join(stays + added + words[end:])
    _check_length(" ".join(ours), line)
    return f"{line}\n{others}" if others.strip() else line, CmdlineEdit(tuple(added), tuple(gone))


def _undone(words: list[str], edit: CmdlineEdit, *, planned: bool) -> list[str]:
    for group in reversed(edit.added):
        words = _without(words, split_words(group))
    if planned:
        words = without_hooks(words)
    for place, word in edit.replaced:
        words.insert(place, word)
    return words


def _without(words: list[str], group: list[str]) -> list[str]:
    """Remove the last occurrence of `group`; a single word after ` -- ` belongs to init."""
    size = len(group)
    end = _end_of(words) if size == 1 else len(words)
    for start in range(end - size, -1, -1):
        if words[start : start + size] == group:
            return words[:start] + words[start + size :]
    return words


def _end_of(words: list[str]) -> int:
    return words.index("--") if "--" in words else len(words)


def _gives_way(word: str, ours: tuple[str, ...]) -> bool:
    """Return whether one of our words replaces this one: same name, allowed only once.

    An equal word stays where it is, except if it must come last with the others of systemd.
    """
    rivals = [group for group in ours if _name(group) == _name(word)]
    once = bool(rivals and _ONCE.match(word))
    return once and (word != rivals[-1] or word.startswith("systemd."))


def without_hooks(words: list[str]) -> list[str]:
    """Return the words without those that start our installer, in any form of earlier versions."""
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
            "cmdline.txt.append contains `--`, after which the kernel ignores words", "remove it"
        )
    theirs = [word for word in words if word.startswith("init=") and word not in _PLAIN_INITS]
    if theirs and any(group.startswith("init=") for group in ours):
        raise ImageError(
            f"cmdline.txt already has {theirs[-1]}, which excludes our own init=",
            "the image has another generation: set --generation (`generation:` in a file)",
        )


def _check_length(mine: str, line: str) -> None:
    size = _size(mine)
    if size > OUR_WORDS_MAX_BYTES:
        raise SettingsError(
            f"the words for cmdline.txt have {size} bytes, more than {OUR_WORDS_MAX_BYTES}",
            "shorten `cmdline` in generation.yml, or cmdline.txt.append",
        )
    if _size(line) > LINE_MAX_BYTES:
        raise ImageError(
            f"cmdline.txt would have {_size(line)} bytes, more than {LINE_MAX_BYTES}",
            "remove words from cmdline.txt in the image: the kernel truncates a longer line",
        )


def _size(text: str) -> int:
    return len(text.encode("utf-8", "surrogateescape"))
