"""What every test may rely on."""

from __future__ import annotations

import contextlib
import signal
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

from imagebuilder.devices import access
from tests.lib.leftovers import Process, left_behind, mark_this_run
from tests.lib.program import stop_program

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

# Whoever starts the tests in the background or under nohup has signals ignored, and children
# inherit that.
_USUAL: dict[signal.Signals, Any] = {
    signal.SIGINT: signal.default_int_handler,
    signal.SIGHUP: signal.SIG_DFL,
}
for _number, _handler in _USUAL.items():
    if signal.getsignal(_number) is signal.SIG_IGN:
        with contextlib.suppress(ValueError):  # not in the main thread
            signal.signal(_number, _handler)

# How long an example takes is the machine's affair.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")

mark_this_run()


@pytest.fixture(autouse=True)
def _no_helper() -> Iterator[None]:
    """Forget after a test that ran a command in this process that it allowed sudo to be started."""
    yield
    access.allow()


_LEFT_BEHIND = pytest.StashKey[list[Process]]()


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> Generator[None]:
    """Fail the run where a process outlives it; the workers have ended by now."""
    stop_program()
    yield
    if not hasattr(session.config, "workerinput"):
        session.config.stash[_LEFT_BEHIND] = left_behind()
        if session.config.stash[_LEFT_BEHIND]:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Name the processes that outlive the run."""
    for process in config.stash.get(_LEFT_BEHIND, []):
        terminalreporter.section("a process is left behind", red=True)
        terminalreporter.line(f"{process.pid}: {process.command}\nstarted by {process.test}")
