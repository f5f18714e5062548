"""The commands as click knows them, and their pages made from them (`make golden`)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from imagebuilder.cli.help import grouped
from imagebuilder.cli.main import cli
from imagebuilder.cli.pages import PAGES, Page

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCS = Path(__file__).parents[2] / "docs"
_HELP = "Help"


@dataclass(frozen=True, slots=True)
class Reference:
    """A command with its context; `path` is how it is called after `rpi-image`."""

    path: str
    command: click.Command
    context: click.Context

    @property
    def page(self) -> Page:
        return PAGES[self.path]

    @property
    def name(self) -> str:
        return f"rpi-image {self.path}".strip()

    @property
    def usage(self) -> str:
        return " ".join([self.name, *self.command.collect_usage_pieces(self.context)])

    @property
    def paragraphs(self) -> list[str]:
        """The help text, each paragraph in one line."""
        return [" ".join(part.split()) for part in (self.command.help or "").split("\n\n")]

    def groups(self, *, every: bool) -> Iterator[tuple[str, list[tuple[str, str]]]]:
        """Yield the groups of options that `--help` or `--help-all` shows, as names and help."""
        params = self.command.get_params(self.context)
        for title, options in grouped(params, self.page, every=every):
            rows = [option.get_help_record(self.context) for option in options]
            yield title, [row for row in rows if row]

    def count(self, *, every: bool) -> int:
        """Return the number of options that are shown."""
        return sum(len(rows) for _, rows in self.groups(every=every))


def references(
    command: click.Command = cli, above: click.Context | None = None, path: str = ""
) -> Iterator[Reference]:
    """Yield a command and the commands below it, in their order."""
    context = command.context_class(
        command, parent=above, info_name=path.rsplit(maxsplit=1)[-1] if path else "rpi-image"
    )
    context.help_option_names = ["-h", "--help"]
    yield Reference(path, command, context)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            if found := command.get_command(context, name):
                yield from references(found, context, f"{path} {name}".strip())


def command_pages() -> dict[str, str]:
    """Return the pages below docs/: the table of all commands, and a page for each."""
    found = list(references())
    counts = "".join(
        f"| [`{each.name}`]({_page_of(each)}) | {_cell(each.paragraphs[0])} "
        f"| {each.count(every=False)} | {each.count(every=True)} |\n"
        for each in found
    )
    pages = {_page_of(each): _section(each) for each in found}
    return {"commands.md": f"{_OPENING}{counts}", **pages}


_OPENING = """\
# Commands

Look up a command here: each has a page with examples and every option. The pages are made from
the commands by `make golden`. `rpi-image COMMAND --help` shows the options that most people need,
`--help-all` shows every option. `--json`, `-q`, `-v`, `--color` and `--no-input` are accepted
before and after the command.

| command | what it is good for | options in `--help` | in `--help-all` |
|---|---|---|---|
"""


def _page_of(each: Reference) -> str:
    return f"commands/{each.name.replace(' ', '-')}.md"


def _section(each: Reference) -> str:
    text = "\n\n".join(each.paragraphs)
    examples = "".join(f"# {what}\n{command}\n" for command, what in each.page.examples)
    shown = {names for _, rows in each.groups(every=False) for names, _ in rows}
    rows = "".join(
        f"| `{_cell(names)}` | {_cell(what)} | {'' if names in shown else 'yes'} |\n"
        for title, found in each.groups(every=True)
        if title != _HELP
        for names, what in found
    )
    table = f"\n| option | what it does | rare |\n|---|---|---|\n{rows}" if rows else ""
    return (
        f"# {each.name}\n\n{text}\n\n```sh\n{examples}```\n\n"
        f"Usage: `{each.usage.replace('|', '/')}`\n{table}"
    )


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    for old in (DOCS / "commands").glob("*.md"):
        old.unlink()
    (DOCS / "commands").mkdir(exist_ok=True)
    for name, page in command_pages().items():
        (DOCS / name).write_text(page, encoding="utf-8")
