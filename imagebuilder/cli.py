"""The door: `rpi-image` and its commands, each loaded only when it is called."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import signal
import sys
from typing import Any

import click

from imagebuilder import __version__
from imagebuilder.console import Console
from imagebuilder.errors import RpiImageError, WriteError

# Help lines stand here so that `rpi-image --help` imports no command.
COMMANDS: dict[str, tuple[str, str]] = {
    "build": ("imagebuilder.cli_build", "Write one node's image."),
    "batch": ("imagebuilder.cli_batch", "Write the images of a classroom."),
    "diff": ("imagebuilder.cli_batch", "Show what differs from the last build."),
    "flash": ("imagebuilder.cli_flash", "Write cards, safely, one or thirty."),
    "verify": ("imagebuilder.cli_verify", "Compare a card with what it should be."),
    "devices": ("imagebuilder.cli_flash", "List block devices and what speaks against each."),
    "fetch": ("imagebuilder.cli_fetch", "Download, check and unpack a base image."),
    "cache": ("imagebuilder.cli_fetch", "List, verify or clean the cache of base images."),
    "inspect": ("imagebuilder.cli_build", "Show what an image or a card is."),
    "boot": ("imagebuilder.cli_boot", "Boot an image in QEMU."),
    "check": ("imagebuilder.cli_class", "Check a classroom file."),
    "init": ("imagebuilder.cli_class", "Write a starter classroom file."),
    "schema": ("imagebuilder.cli_class", "Print the JSON Schema of the classroom file."),
    "profiles": ("imagebuilder.cli_class", "List profiles and base images."),
    "shack": ("imagebuilder.cli_shack", "Write what the instructor's machine runs."),
    "export": ("imagebuilder.cli_shack", "Write inventories, ssh_config, hosts and the like."),
    "labels": ("imagebuilder.cli_shack", "Write a printable sheet of card labels."),
    "status": ("imagebuilder.cli_shack", "Ask the shack which nodes are there."),
}


class LazyGroup(click.Group):
    """A group whose commands live in modules that are imported on first use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Give the commands in the order of the table."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module of `cmd_name` and give its command of that name."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(COMMANDS[cmd_name][0])
        command: click.Command = getattr(module, cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="rpi-image")
def cli() -> None:
    """Make Raspberry Pi images that boot, name themselves and join the cluster."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with a code of the README's table."""
    words = _mend_streams()
    _end_as_by_ctrl_c()
    code = 130
    with contextlib.suppress(KeyboardInterrupt):
        code = run(arguments)
        # Nothing is left to be interrupted but Python's own end, and that with a traceback.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(code or (LostOutputError.exit_code if words.lost else code))


def _end_as_by_ctrl_c() -> None:
    """Let SIGTERM and a closed terminal clean up and end as Ctrl-C does.

    A session that is closed sends both: the second would break off the cleaning. One that is
    ignored (nohup) stays so.
    """
    told: list[int] = []

    def end(number: int, frame: object) -> None:
        del frame
        told.append(number)
        if len(told) == 1:
            raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, end)


class LostOutputError(WriteError):
    """What is printed cannot be written: the disk is full, or nobody opened the stream."""


class _Output(io.FileIO):
    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            hint = "check where the output goes"
            raise LostOutputError(f"cannot print: {error.strerror}", hint) from error


class _Words(io.FileIO):
    """Where we talk to: what cannot be said there is dropped, and no work ends for it."""

    lost = False

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.lost = self.lost or not isinstance(error, BrokenPipeError)
            return len(data)


def _mend_streams() -> _Words:
    """Let any letter be printed, and tell a failing output from every other failure.

    Gives what stderr goes through. A closed descriptor would be given to the next file that is
    opened: an image with our words.
    """
    for descriptor, stream in ((1, sys.stdout), (2, sys.stderr)):
        if stream is None:
            os.dup2(os.open(os.devnull, os.O_WRONLY if descriptor > 1 else os.O_RDONLY), descriptor)
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(_Output(1, "w", closefd=False)),
        encoding=getattr(sys.stdout, "encoding", None),
        errors="backslashreplace",
        line_buffering=os.isatty(1),
    )
    words = _Words(2, "w", closefd=False)
    sys.stderr = io.TextIOWrapper(
        io.BufferedWriter(words),
        encoding=getattr(sys.stderr, "encoding", None),
        errors="backslashreplace",
        line_buffering=True,
    )
    return words


def run(arguments: list[str] | None = None) -> int:
    """Run the command line and give its exit code; only bugs and Ctrl-C are caught broadly."""
    _come_home()
    try:
        outcome: Any = cli.main(args=arguments, prog_name="rpi-image", standalone_mode=False)
        sys.stdout.flush()
    except RpiImageError as error:
        if isinstance(error, LostOutputError):
            _drop_output()
        Console().fail(error)
        return error.exit_code
    except click.ClickException as error:
        return _fail_usage(error)
    except (KeyboardInterrupt, click.Abort):
        # Of a closed terminal nobody reads.
        with contextlib.suppress(OSError):
            sys.stderr.write("interrupted\n")
        return 130
    except BrokenPipeError:
        _drop_output()
        return 0
    except Exception as error:  # noqa: BLE001 - the last line of defence against tracebacks
        return _report_bug(error)
    return outcome if isinstance(outcome, int) else 0


def _come_home() -> None:
    """Under sudo, use the home (cache, `~/`) of whoever called it, not root's."""
    caller = os.environ.get("SUDO_UID", "")
    if sys.platform == "win32" or os.geteuid() != 0 or not caller.isdecimal():
        return
    import pwd

    with contextlib.suppress(KeyError):
        os.environ["HOME"] = pwd.getpwuid(int(caller)).pw_dir


def _drop_output() -> None:
    """Send what Python still holds nowhere: it would try again while it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail_usage(error: click.ClickException) -> int:
    text = error.format_message().strip().rstrip(".")
    message = text[:1].lower() + text[1:]
    context = getattr(error, "ctx", None)
    name = context.command_path if context else "rpi-image"
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        sys.stderr.write(error.format_message() + "\n")
    else:
        sys.stderr.write(f"error: {message}\nhint: see {name} --help\n")
    return error.exit_code


def _report_bug(error: Exception) -> int:
    import platform
    import tempfile
    import traceback

    with tempfile.NamedTemporaryFile(
        "w", prefix="rpi-image-bug-", suffix=".txt", delete=False
    ) as report:
        report.write(f"rpi-image {__version__}, Python {platform.python_version()}, ")
        report.write(f"{platform.platform()}\n")
        # Locals and arguments stay out: they may hold secrets.
        report.write("".join(traceback.format_tb(error.__traceback__)))
        report.write(type(error).__name__ + "\n")
    sys.stderr.write(f"error: this is a bug in rpi-image ({type(error).__name__})\n")
    sys.stderr.write(f"hint: please report it with {report.name}\n")
    return 70


if __name__ == "__main__":
    main()
