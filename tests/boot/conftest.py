"""Fixtures of the boot tests: each boots a real kernel, init and dockerd under QEMU."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.boot import outside, processor, results
from tests.boot.outside import WiredPi
from tests.boot.pi import Pi
from tests.lib.tools import need, need_root

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.device.swarmlab import Machine

    StartPi = Callable[..., Pi]

PROCESSOR = "processor seconds"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("boot")
    group.addoption("--every-case", action="store_true", help="run the cases marked `full`, too")
    group.addoption("--go-on", action="store_true", help="leave out what has passed already")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "full: too long for CI; `make test-boot-all` runs it")
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Reports())


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is not asked for; a case that is named is always run."""
    if any("::" in argument for argument in config.args):
        return
    done = results.passed() if config.getoption("--go-on") else set()
    every = config.getoption("--every-case")
    left_out = [
        item
        for item in items
        if item.nodeid in done or (not every and item.get_closest_marker("full"))
    ]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


class _Reports:
    """Keeps how each case ended, where the run is controlled from."""

    def __init__(self) -> None:
        results.tested()  # of what is run, whoever edits meanwhile
        self._phases: dict[str, list[pytest.TestReport]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        phases = self._phases.setdefault(report.nodeid, [])
        phases.append(report)
        if report.when == "teardown":
            seconds = sum(phase.duration for phase in phases)
            spent = float(str(dict(report.user_properties).get(PROCESSOR, 0)))
            results.add(report.nodeid, _outcome(phases), seconds, spent)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if session.config.getoption("--every-case"):
            results.write_page()


def _outcome(phases: list[pytest.TestReport]) -> str:
    found = {phase.outcome for phase in phases}
    return next(word for word in ("failed", "skipped", "passed") if word in found)


@pytest.fixture(scope="session", autouse=True)
def _tools() -> None:
    need_root()
    need("qemu-system-arm", "qemu-img", "mtools", "sfdisk", "mkfs.vfat", "e2fsck", "debugfs")


@pytest.fixture(autouse=True)
def _processor(record_property: Callable[[str, object], None]) -> Iterator[None]:
    """Note the processor time that the emulated Pis of the case took."""
    before = processor.spent()
    yield
    record_property(PROCESSOR, processor.spent() - before)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[StartPi]:
    """Put an image's throw-away copy into a Pi and power it on; it is gone after the test.

    With `wire` the Pi's cable ends at that machine, too.
    """
    started: list[Pi] = []

    def _start(image: Path, network: str = "", wire: Machine | None = None) -> Pi:
        folder = tmp_path / f"pi-{len(started)}"
        pi = (
            WiredPi(image, folder, network=network, wire=wire)
            if wire
            else Pi(image, folder, network=network)
        )
        started.append(pi)
        pi.power_on()
        return pi

    yield _start
    for pi in started:
        pi.throw_away()


@pytest.fixture
def wire(tmp_path: Path) -> Iterator[Machine]:
    """Give a machine on the wire of the Pi that is started with it."""
    with outside.open_wire(tmp_path) as machine:
        yield machine
