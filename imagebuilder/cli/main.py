"""The command `rpi-image`; each subcommand is imported only when it is called."""

from __future__ import annotations

import contextlib
import importlib
import signal
import sys
from typing import TYPE_CHECKING, Any

import click

from imagebuilder import __version__
from imagebuilder.cli.console import Console
from imagebuilder.cli.help import Group
from imagebuilder.cli.options import output_options
from imagebuilder.cli.process import (
    LostOutputError,
    act_as_caller,
    drop_output,
    fail_usage,
    interrupt_on_termination,
    report_bug,
    wrap_streams,
)
from imagebuilder.errors import InputError, RpiImageError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

# The help texts are here so that `rpi-image --help` imports no command.
COMMANDS: dict[str, tuple[str, str]] = {
    "build": ("image", "Write the image of one node."),
    "batch": ("batch", "Write the images of a classroom."),
    "diff": ("batch", "Show what differs from the last build."),
    "flash": ("flash", "Write one or many cards."),
    "apply": ("apply", "Make a card that is written already a node."),
    "verify": ("flash", "Compare a card with a node or an image."),
    "devices": (
        "flash",
        "List block devices and why each would be refused.",
    ),
    "fetch": ("fetch", "Download, check and unpack a base image."),
    "cache": ("fetch", "List, verify or clean the cache of base images."),
    "inspect": ("image", "Show the content of an image or a card."),
    "boot": ("image", "Boot an image in QEMU."),
    "check": ("classroom", "Check a classroom file."),
    "init": ("classroom", "Write a starter classroom file."),
    "schema": (
        "classroom",
        "Print the JSON Schema of the classroom file.",
    ),
    "profiles": ("classroom", "List profiles: families of boards."),
    "images": ("fetch", "List base images, ours and published ones."),
    "shack": ("shack", "Write the services of the instructor's machine."),
    "export": (
        "shack",
        "Write Ansible inventory, ssh_config, hosts and others.",
    ),
    "labels": ("shack", "Write printable labels for the cards."),
    "board": ("board", "Show the class in a browser, on this machine."),
    "status": ("status", "Show what each node is, and what to do next."),
    "completion": ("completion", "Print the completion script of a shell."),
}


# What reads or writes raw images and devices, with calls that only POSIX systems have.
POSIX_ONLY = frozenset({"batch", "boot", "build", "devices", "fetch", "flash"})


def is_posix() -> bool:
    """Return whether this system has what POSIX_ONLY needs; Windows has not."""
    try:
        importlib.import_module("fcntl")
    except ImportError:
        return False
    return sys.platform != "win32"


class LazyGroup(Group):
    """A group whose commands are in modules that are imported on first use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order of the table."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module of `cmd_name` and return the command."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        if cmd_name in POSIX_ONLY and not is_posix():
            raise InputError(
                f"`{cmd_name}` does not run on Windows",
                "write the card with Raspberry Pi Imager and make it a node with `rpi-image apply`"
                " (docs/any-computer.md), or use WSL2",
            )
        module = importlib.import_module(f"imagebuilder.cli.commands.{COMMANDS[cmd_name][0]}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Return the commands and options that begin with `incomplete`; import no command."""
        from click.shell_completion import CompletionItem

        options = click.Command.shell_complete(self, ctx, incomplete)
        commands = [(name, text) for name, (_, text) in COMMANDS.items()]
        found = [CompletionItem(n, help=text) for n, text in commands if n.startswith(incomplete)]
        return [*found, *options]


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="rpi-image")
@output_options
def cli(**_: object) -> None:
    """Build and write Raspberry Pi images that set their hostname and join a cluster."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its exit code (see README.md)."""
    stderr = wrap_streams()
    interrupt_on_termination()
    code = 130
    with contextlib.suppress(KeyboardInterrupt):
        code = run(arguments)
        # A Ctrl-C while Python shuts down would print a traceback.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(code or (LostOutputError.exit_code if stderr.lost else code))


def run(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code; report bugs without a traceback."""
    try:
        act_as_caller()
        outcome: Any = cli.main(args=arguments, prog_name="rpi-image", standalone_mode=False)
        sys.stdout.flush()
    except RpiImageError as error:
        if isinstance(error, LostOutputError):
            drop_output()
        Console().fail(error)
        return error.exit_code
    except click.ClickException as error:
        return fail_usage(error)
    except (KeyboardInterrupt, click.Abort):
        # The terminal may be closed.
        with contextlib.suppress(OSError):
            sys.stderr.write("interrupted\n")
        return 130
    except BrokenPipeError:
        drop_output()
        return 0
    except Exception as error:  # noqa: BLE001 - users never see a traceback
        return report_bug(error)
    return outcome if isinstance(outcome, int) else 0


if __name__ == "__main__":
    main()
