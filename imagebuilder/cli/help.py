"""Help with examples and grouped options, and answers to commands that do not exist."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import click

from imagebuilder.cli.pages import HOME_GROUPS, PAGES, Page
from imagebuilder.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_SHOWS_ALL = f"{__name__}.shows_all"
_OTHERS = "Other options"


class AliasedOption(click.Option):
    """An option whose first name is shown; the other long names are aliases, kept in silence."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Return the names and the help without the aliases."""
        return click.Option.get_help_record(self._shown(), ctx)

    def _shown(self) -> click.Option:
        shown = copy.copy(self)
        shown.opts = self.opts[:1]
        return shown


def _show_all(context: click.Context, option: click.Parameter, wanted: bool) -> None:
    del option
    if wanted and not context.resilient_parsing:
        context.meta[_SHOWS_ALL] = True
        click.echo(context.get_help(), color=context.color)
        context.exit()


_HELP_ALL = click.Option(
    ["--help-all"],
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_all,
    help="Show every option and exit.",
)


def path_of(context: click.Context) -> str:
    """Return the words after `rpi-image` that call a command, for example `cache list`."""
    words: list[str] = []
    while context.parent:
        words.insert(0, context.info_name or "")
        context = context.parent
    return " ".join(words)


class Command(click.Command):
    """A command whose help begins with examples and shows its common options in groups."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return the parameters, with --help-all as the last."""
        return [*super().get_params(ctx), _HELP_ALL]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples, then the options in groups; the rare ones only for --help-all."""
        page = PAGES.get(path_of(ctx), Page())
        _write_examples(page, formatter)
        if isinstance(self, click.Group):
            self.format_commands(ctx, formatter)
        for title, options in grouped(self.get_params(ctx), page, every=_SHOWS_ALL in ctx.meta):
            rows = [option.get_help_record(ctx) for option in options]
            with formatter.section(title):
                formatter.write_dl([row for row in rows if row])


class Group(Command, click.Group):
    """A group of commands, with the same help."""

    command_class = Command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command. Raise InputError with the nearest one if there is none."""
        known = self.list_commands(ctx)
        if args[0] in known or args[0].startswith("-") or ctx.resilient_parsing:
            return super().resolve_command(ctx, args)
        nearest = nearest_of(args[0], known)
        hint = f"did you mean `{ctx.command_path} {nearest}`?" if nearest else ""
        raise InputError(f"no command '{args[0]}'", hint or f"see {ctx.command_path} --help")


def nearest_of(word: str, known: Sequence[str]) -> str:
    """Return the known word that is most like `word`, else an empty string."""
    from difflib import get_close_matches

    return next(iter(get_close_matches(word, known, n=1, cutoff=0.5)), "")


def grouped(
    params: Sequence[click.Parameter], page: Page, *, every: bool
) -> Iterator[tuple[str, list[click.Option]]]:
    """Yield the groups of options that are shown: with `every`, also the rare ones."""
    options = [p for p in params if isinstance(p, click.Option) and not p.hidden]
    homes = {flag: title for title, flags in HOME_GROUPS.items() for flag in flags.split()}
    shown = {flag: title for title, flags in page.groups.items() for flag in flags.split()}
    flags = " ".join([*page.groups.values(), *HOME_GROUPS.values()]).split()
    found: dict[str, list[click.Option]] = {}
    for option in sorted(options, key=lambda option: _place(flags, long_name(option))):
        flag = long_name(option)
        title = shown.get(flag) or (homes.get(flag, _OTHERS) if every else homes["--help"])
        if every or flag in shown or flag in {"--help", "--help-all"}:
            found.setdefault(title, []).append(option)
    titles = [*page.groups, *HOME_GROUPS]
    order = sorted(found, key=titles.index)
    yield from ((title, found[title]) for title in order)


def _place(flags: list[str], flag: str) -> int:
    return flags.index(flag) if flag in flags else len(flags)


def long_name(option: click.Parameter) -> str:
    """Return the documented long name of an option."""
    return next(name for name in option.opts if name.startswith("--"))


def _write_examples(page: Page, formatter: click.HelpFormatter) -> None:
    if not page.examples:
        return
    formatter.write_paragraph()
    formatter.write_heading("Examples")
    for command, what in page.examples:
        # Not as a paragraph: a command that is wrapped cannot be copied.
        formatter.write(f"  $ {command}\n      {what}\n")


def answer_usage(error: click.ClickException) -> tuple[str, str]:
    """Return the fact and the hint for an error in the command line."""
    context = getattr(error, "ctx", None)
    name = context.command_path if context else "rpi-image"
    text: Any = error.message if isinstance(error, click.NoSuchOption) else error.format_message()
    near = error.possibilities if isinstance(error, click.NoSuchOption) else None
    hint = f"did you mean {' or '.join(near[:2])}?" if near else f"see {name} --help"
    fact = str(text).strip().rstrip(".")
    return fact[:1].lower() + fact[1:], hint
