"""Set up the process: streams, signals, home under sudo, and reports of usage errors and bugs."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
from typing import Any

import click

from imagebuilder import __version__
from imagebuilder.cli.help import answer_usage
from imagebuilder.cli.pages import FIRST_STEPS
from imagebuilder.errors import RefusedError, WriteError
from imagebuilder.files import act_for


def interrupt_on_termination() -> None:
    """Handle SIGTERM and SIGHUP like Ctrl-C.

    A closed session may send both: ignore the second, which would interrupt the clean-up. A signal
    that is ignored already (nohup) stays ignored.
    """
    received: list[int] = []

    def end(number: int, frame: object) -> None:
        del frame
        received.append(number)
        if len(received) == 1:
            raise KeyboardInterrupt

    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, signal.SIGTERM)  # Windows has no SIGHUP
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, end)


class LostOutputError(WriteError):
    """Standard output cannot be written: the disk is full, or the stream is closed."""


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
    """Standard error: what cannot be written is dropped, and no work fails for it."""

    lost = False

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.lost = self.lost or not isinstance(error, BrokenPipeError)
            return len(data)


def wrap_streams() -> _Stderr:
    """Wrap stdout and stderr, so that any character can be printed and write errors are known.

    Return the raw file under stderr. A closed descriptor is opened on /dev/null first: otherwise
    the next file that is opened, for example an image, would get that number and our messages.
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


def act_as_caller() -> None:
    """Under sudo, become the user who called it, for good; only a companion stays root.

    Root has nothing to do but to open devices. On macOS there is no companion: only use the home
    (cache, `~/`) of the user. Raise RefusedError if that user cannot run the program.
    """
    caller, group = (os.environ.get(name, "") for name in ("SUDO_UID", "SUDO_GID"))
    if not hasattr(os, "geteuid") or os.geteuid() != 0 or not caller.isdecimal() or not int(caller):
        return
    import pwd

    user, groups = int(caller), [int(group)] if group.isdecimal() else []
    act_for(user)
    with contextlib.suppress(KeyError):
        entry = pwd.getpwuid(user)
        groups = os.getgrouplist(entry.pw_name, *(groups or [entry.pw_gid]))
        os.environ["HOME"] = entry.pw_dir
    if sys.platform.startswith("linux"):
        _become(user, groups or [user])


def _become(user: int, groups: list[int]) -> None:
    from imagebuilder.cli import companion
    from imagebuilder.devices import access

    access.use(companion.start())
    os.setgroups(groups)
    os.setresgid(groups[0], groups[0], groups[0])
    os.setresuid(user, user, user)
    for path in (os.__file__, click.__file__, __file__):
        if not os.access(path, os.R_OK):
            raise RefusedError(
                f"user {user}, who called sudo, cannot read {path}",
                "install rpi-image where that user can read it",
            )


def allow_helpers() -> None:
    """Allow a command to open devices by udisks2 or sudo, both of which ask the user."""
    if sys.platform.startswith("linux"):
        from imagebuilder.cli import companion
        from imagebuilder.devices import access, udisks

        access.allow(udisks.start, companion.start_by_sudo)


def drop_output() -> None:
    """Discard buffered output, which Python would try to write again at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def fail_usage(error: click.ClickException) -> int:
    """Report an error in the command line; return its exit code."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        is_first = error.ctx and not error.ctx.parent
        sys.stderr.write(FIRST_STEPS if is_first else error.format_message() + "\n")
    else:
        fact, hint = answer_usage(error)
        sys.stderr.write(f"error: {fact}\nhint: {hint}\n")
    return error.exit_code


def report_bug(error: Exception) -> int:
    """Write a bug report to a file, print its path, and return exit code 70."""
    import platform
    import tempfile
    import traceback

    with tempfile.NamedTemporaryFile(
        "w", prefix="rpi-image-bug-", suffix=".txt", delete=False
    ) as report:
        report.write(f"rpi-image {__version__}, Python {platform.python_version()}, ")
        report.write(f"{platform.platform()}\n")
        # Without the message and local variables, which may contain secrets.
        report.write("".join(traceback.format_tb(error.__traceback__)))
        report.write(type(error).__name__ + "\n")
    sys.stderr.write(f"error: this is a bug in rpi-image ({type(error).__name__})\n")
    sys.stderr.write(f"hint: please report it with {report.name}\n")
    return 70
