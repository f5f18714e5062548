"""The texts of the project in plain international English: phrases of a dialect are refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
READ = ("imagebuilder", "overlays", "docs", "README.md")

# A phrase as a regular expression, and how git, cargo and systemd would write it.
DIALECT = {
    r"nobody is there|no one is there": "there is no terminal",
    r"(is|are) to be (typed|had|said|asked|told)": "needs a prompt; is available; set",
    r"speaks? against|nothing speaks": "why it would be refused",
    r"is no name for": "does not match",
    r"gone on with|goes? on (with|where)|going on where": "resume",
    r"know its place": "has wrong . or .. entries",
    r"behind (its|the|their) end": "past the end",
    r"\bmend(s|ed|ing)?\b": "fix",
    r"\b(its|the|your|their) rights\b|check rights|no right\b": "permissions",
    r"(?<!there )\b(is|are) no "
    r"(name|text|file|address|number|option|image|device|disk|card|port|subnet|key|hash|"
    r"mapping|regular|URL|SHA|hostname|host name|word|locale|folder)\b": "is not a …",
    r"names? no \w+": "has no …, is empty",
    r"\bgives? (--?[a-z]|-c|one of them|that|the file)": "use …",
    r"\bsay (it|so):": "set …",
    r"\b(whoever|whosoever)\b": "the user who, everyone who",
    r"come(s)? home|the door\b": "plain words for what happens",
    r"speaks? (HTTP|of|about|TLS)|is spoken": "uses HTTP; is reported",
    r"stays? unsaid|unsaid": "is not shown",
    r"what (is|was) said|is said once": "is reported",
    r"passed over|is left alone": "skipped",
    r"told apart|tells? apart": "distinguish",
    r"as they should be|as it should be|what it should be": "no differences",
    r"\bof one's own\b|\bone's own\b": "your own",
    r"for there (is|was) no": "because there is no",
    r"at hand\b": "available",
    r"\banew\b|\bafresh\b": "again",
    r"\bheeds?\b": "follows, uses",
    r"\bthrow-away\b": "temporary",
    r"\bbear with\b": "wait for",
    r"(twin|twins) of|is now its twin": "has two cards",
    r"loses? to a tie": "adds no safety",
    r"is no affair of": "ignores",
    r"good manners": "…",
    r"be had\b": "be available",
    r"\bdockerds\b|dockerd of 2015": "Docker 1.6",
    r'"as [a-z0-9]': "for example",
    r"help=\"[^\"]*, as [a-z]": "for example",
    r'"""Give ': "Return",
    r"; raises [A-Z]\w+": "Raise …Error if",
}


def files() -> list[Path]:
    found = [path for name in READ for path in [ROOT / name, *sorted((ROOT / name).rglob("*"))]]
    others = {"__pycache__", "fonts"}  # not texts, and a license of other people
    texts = [path for path in found if path.is_file() and path.suffix != ".png"]
    return [path for path in texts if not others & set(path.parts)]


@pytest.mark.parametrize("path", files(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_texts_are_in_plain_international_english(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    found = [
        f"{number}: {line.strip()} (better: {better})"
        for phrase, better in DIALECT.items()
        for number, line in enumerate(lines, 1)
        if re.search(phrase, line)
    ]
    assert found == []
