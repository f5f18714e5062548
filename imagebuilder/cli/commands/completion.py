"""The command `completion`."""

from __future__ import annotations

import click

from imagebuilder.cli.completion import script_of
from imagebuilder.cli.console import Console
from imagebuilder.cli.help import Command


@click.command(cls=Command)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the completion script of SHELL: bash, zsh or fish.

    It completes commands, options, files, profiles, boards, images, nodes of the classroom file
    that is given, generations, and devices that may be written.
    """
    Console().result(script_of(shell, context.find_root().command))
