"""Man pages made from the commands and from the schema (`make golden`), in mdoc(7)."""

from __future__ import annotations

import json
import re
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imagebuilder.settings.starter import classroom_schema
from tests.lib.command_reference import Reference, references

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "man"
# Of the release, not of today: the pages are the same at every build.
DATE = "November 28, 2026"
_LONGEST_LINE = 76  # mandoc -T lint tells of lines over 80 bytes
_SENTENCE = re.compile(r"(?<=[.!?]) (?=[A-Z`-])")
_VARIABLES = {
    "RPI_IMAGE_CACHE": "Folder of the cache of base images.",
    "RPI_IMAGE_COLOR": "The default of --color.",
    "SOURCE_DATE_EPOCH": "Build time in seconds since 1970, for the same bytes at each build.",
}


def man_pages() -> dict[str, str]:
    """Return the text of every page by its path in the folder of man pages."""
    found = list(references())
    pages = {f"man1/{_name(each)}.1": _command(each, found) for each in found}
    return pages | {"man5/classroom.yml.5": _classroom()}


# ---- mdoc


def _words(text: str) -> str:
    """Return plain words, with what mdoc would read as an escape or a quote escaped."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq")
    return text.replace("…", "...").replace("`", "\\(ga")


def _text(text: str) -> str:
    """Return a paragraph: each sentence begins a line, no line is long or a macro."""
    plain = re.sub(r"`([^`]*)`", r"\1", text)
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", plain).replace("\\|", "|")
    lines = [
        line
        for sentence in _SENTENCE.split(" ".join(plain.split()))
        for line in textwrap.wrap(
            sentence, _LONGEST_LINE, break_long_words=False, break_on_hyphens=False
        )
    ]
    return "".join(f"{_guarded(_words(line))}\n" for line in lines)


def _guarded(line: str) -> str:
    return f"\\&{line}" if line.startswith((".", "'")) else line


def _argument(text: str) -> str:
    """Return one argument of a macro: quoted, so that no word in it is a macro."""
    return '"\\&' + _words(text).replace('"', '""') + '"'


def _page(name: str, section: int, what: str, body: str) -> str:
    title = name.upper()
    summary = what[:1].lower() + what[1:].rstrip(".")
    return (
        f'.\\" Made by `make golden`; do not edit.\n.Dd {DATE}\n.Dt {title} {section}\n.Os\n'
        f".Sh NAME\n.Nm {name}\n.Nd {_words(summary)}\n{body}"
    )


def _list(rows: Mapping[str, str]) -> str:
    items = "".join(f".It {head}\n{text}" for head, text in rows.items())
    return f".Bl -tag -width Ds\n{items}.El\n"


# ---- commands


def _name(each: Reference) -> str:
    return each.name.replace(" ", "-")


def _command(each: Reference, every: list[Reference]) -> str:
    first, *rest = each.paragraphs
    pieces = each.usage.removeprefix(each.name).split()
    arguments = "".join(f".Ar {_argument(piece)}\n" for piece in pieces)
    paragraphs = "".join(f".Pp\n{_text(paragraph)}" for paragraph in rest)
    body = (
        f".Sh SYNOPSIS\n.Nm {_argument(each.name)}\n{arguments}"
        f".Sh DESCRIPTION\n{_text(first)}{paragraphs}{_commands(each, every)}"
        f"{''.join(_options(each))}{_variables(each)}{_exit_status(each)}"
        f".Sh EXAMPLES\n{_examples(each)}{_see_also(each, every)}"
    )
    return _page(_name(each), 1, first.split(". ")[0], body)


def _below(each: Reference, every: list[Reference]) -> list[Reference]:
    depth = len(each.path.split()) + 1
    return [
        other
        for other in every
        if len(other.path.split()) == depth and other.path.startswith(each.path)
    ]


def _commands(each: Reference, every: list[Reference]) -> str:
    below = _below(each, every)
    if not below:
        return ""
    rows = {f"Ic {_argument(one.name)}": _text(one.paragraphs[0]) for one in below}
    return f".Ss Commands\n{_list(rows)}"


def _options(each: Reference) -> Iterator[str]:
    for title, rows in each.groups(every=True):
        yield f".Ss {title}\n{_list({_option(names): _text(what) for names, what in rows})}"


def _option(names: str) -> str:
    """Return the names of an option, such as `-o, --output PATH`, as macros."""
    flags = [word.strip(",") for word in names.split() if word.startswith("-")]
    value = " ".join(word for word in names.split() if not word.startswith("-"))
    shown = " , ".join(f"Fl {_words(flag[1:])}" for flag in flags)
    return f"{shown} Ar {_argument(value)}" if value else shown


def _variables(each: Reference) -> str:
    if each.path:
        return ""
    return f".Sh ENVIRONMENT\n{_list({f'Ev {k}': _text(v) for k, v in _VARIABLES.items()})}"


def _exit_status(each: Reference) -> str:
    if each.path:
        return ".Sh EXIT STATUS\nSee rpi\\-image(1).\n"
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| (.*) \|$", readme, re.MULTILINE)
    return f".Sh EXIT STATUS\n{_list({code: _text(meaning) for code, meaning in rows})}"


def _examples(each: Reference) -> str:
    return "".join(
        f"{'' if number == 0 else '.Pp' + chr(10)}{_text(what[:1].upper() + what[1:])}"
        f".Bd -literal -offset indent\n{_guarded(_words(command))}\n.Ed\n"
        for number, (command, what) in enumerate(each.page.examples)
    )


def _see_also(each: Reference, every: list[Reference]) -> str:
    names = {_name(one) for one in [*every[:1], *_below(each, every)]} - {_name(each)}
    return f".Sh SEE ALSO\n{_links(*(f'{name}(1)' for name in sorted(names)), 'classroom.yml(5)')}"


def _links(*pages: str) -> str:
    """Return references: not .Xr, of which mandoc -T lint tells until the pages are installed."""
    return _text(", ".join(pages))


# ---- the classroom file


def _classroom() -> str:
    schema = json.loads(classroom_schema())
    meanings = dict(_meanings())
    rows: dict[str, str] = {}
    for key, value in _keys(schema, schema):
        told = [_kind(value, schema), meanings.get(key, "")]
        rows[f"Ic {_argument(key)}"] = "".join(_text(_sentence(text)) for text in told if text)
    example = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    shown = example.partition("```yaml\n")[2].partition("```")[0]
    body = (
        ".Sh DESCRIPTION\n"
        + _text(schema["description"])
        + _text("The keys and their values are listed below; rpi-image check reports mistakes.")
        + f".Ss Keys\n{_list(rows)}"
        + f".Sh EXAMPLES\n.Bd -literal -offset indent\n{_words(_narrow(shown))}.Ed\n"
        + f".Sh SEE ALSO\n{_links('rpi-image(1)', 'rpi-image-check(1)', 'rpi-image-schema(1)')}"
    )
    return _page("classroom.yml", 5, "settings of a classroom of Raspberry Pis", body)


def _sentence(text: str) -> str:
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text).rstrip(".")
    return f"{plain[:1].upper()}{plain[1:]}."


def _narrow(text: str) -> str:
    return re.sub(r"[0-9a-f]{64}", "0123...", text)


def _meanings() -> Iterator[tuple[str, str]]:
    """Yield the keys in the tables of docs/settings.md with their meaning."""
    page = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    for row in page.partition("## All keys")[2].partition("\n## ")[0].splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]]
        if len(cells) > 2:
            yield from ((key, cells[2]) for key in re.findall(r"`([^`]+)`", cells[0]))


def _keys(
    schema: dict[str, Any], value: dict[str, Any], path: str = ""
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every key of a mapping, and of the mappings in it, as `shack.address`."""
    for name, inner in value.get("properties", {}).items():
        key = f"{path}.{name}".lstrip(".")
        yield key, inner
        for choice in inner.get("anyOf", []):
            yield from _keys(schema, _resolved(choice, schema), key)
            items = _resolved(choice.get("items", {}), schema).get("properties", {})
            # A node may have most keys of the class, which are described already.
            own = {name: item for name, item in items.items() if name not in schema["properties"]}
            yield from _keys(schema, {"properties": own}, f"{key}[]")


def _resolved(value: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    name = value.get("$ref", "").rpartition("/")[2]
    found: dict[str, Any] = schema["$defs"][name] if name else value
    return found


def _kind(value: dict[str, Any], schema: dict[str, Any]) -> str:
    """Return what a value is, in words."""
    value = _resolved(value, schema)
    if choices := value.get("anyOf"):
        kinds = [_kind(choice, schema) for choice in choices if choice.get("type") != "null"]
        return " or ".join(dict.fromkeys(kinds))
    if enum := value.get("enum"):
        return f"one of {', '.join(map(str, enum))}"
    kind = value.get("type", "any value")
    if kind == "array":
        return f"list of: {_kind(value.get('items', {}), schema)}"
    return "text" if isinstance(kind, list) else _KINDS.get(kind, kind)


_KINDS = {"string": "text", "boolean": "true or false", "object": "mapping", "integer": "number"}


if __name__ == "__main__":
    for old in FOLDER.rglob("*.[15]"):
        old.unlink()
    for path, text in man_pages().items():
        (FOLDER / path).parent.mkdir(parents=True, exist_ok=True)
        (FOLDER / path).write_text(text, encoding="utf-8")
