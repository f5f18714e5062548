"""The process around a command: streams, signals, home under sudo, and last words."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
from typing import Any

import click

from imagebuilder import __version__
from imagebuilder.errors import WriteError
from imagebuilder.files import act_for


def interrupt_on_termination() -> None:
    """Let SIGTERM and a closed terminal clean up and end as Ctrl-C does.

    A session that is closed sends both: the second would break off the cleaning. One that is
    ignored (nohup) stays so.
    """
    received: list[int] = []

    def end(number: int, frame: object) -> None:
        del frame
        received.append(number)
        if len(received) == 1:
            raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, end)


class LostOutputError(WriteError):
    """What is printed cannot be written: the disk is full, or nobody opened the stream."""


class _Stdout(io.FileIO):
    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            hint = "check where the output goes"
            raise LostOutputError(f"cannot print: {error.strerror}", hint) from error


class _Stderr(io.FileIO):
    """Messages that cannot be written are dropped: no work ends for them."""

    lost = False

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.lost = self.lost or not isinstance(error, BrokenPipeError)
            return len(data)


def wrap_streams() -> _Stderr:
    """Let any letter be printed, and tell a failing output from every other failure.

    Return the raw file under stderr. A closed descriptor would be given to the next file that is
    opened: an image with our messages in it.
    """
    for descriptor, stream in ((1, sys.stdout), (2, sys.stderr)):
        if stream is None:
            os.dup2(os.open(os.devnull, os.O_WRONLY if descriptor > 1 else os.O_RDONLY), descriptor)
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(_Stdout(1, "w", closefd=False)),
        encoding=getattr(sys.stdout, "encoding", None),
        errors="backslashreplace",
        line_buffering=os.isatty(1),
    )
    stderr = _Stderr(2, "w", closefd=False)
    sys.stderr = io.TextIOWrapper(
        io.BufferedWriter(stderr),
        encoding=getattr(sys.stderr, "encoding", None),
        errors="backslashreplace",
        line_buffering=True,
    )
    return stderr


def use_caller_home() -> None:
    """Under sudo, use the home (cache, `~/`) of whoever called it, not root's."""
    caller = os.environ.get("SUDO_UID", "")
    if sys.platform == "win32" or os.geteuid() != 0 or not caller.isdecimal():
        return
    import pwd

    act_for(int(caller))
    with contextlib.suppress(KeyError):
        os.environ["HOME"] = pwd.getpwuid(int(caller)).pw_dir


def drop_output() -> None:
    """Send what Python still holds nowhere: it would try again while it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def fail_usage(error: click.ClickException) -> int:
    """Say what is wrong with the command line and give its exit code."""
    text = error.format_message().strip().rstrip(".")
    message = text[:1].lower() + text[1:]
    context = getattr(error, "ctx", None)
    name = context.command_path if context else "rpi-image"
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        sys.stderr.write(error.format_message() + "\n")
    else:
        sys.stderr.write(f"error: {message}\nhint: see {name} --help\n")
    return error.exit_code


def report_bug(error: Exception) -> int:
    """Write a report of a bug, say where it is, and give the exit code 70."""
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
