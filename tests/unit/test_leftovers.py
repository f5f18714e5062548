"""A test run sees the processes that it would leave behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.lib.leftovers import Process, left_behind

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
# A process that outlives its parent; its name would not give away that it is ours.
ORPHAN = "sleep 900 >/dev/null & echo $!"
WAYS = {
    "plain": ["sh", "-c", ORPHAN],
    "own session": ["setsid", "sh", "-c", ORPHAN],
    "own environment": ["env", "-i", "/bin/sh", "-c", ORPHAN],
}


@pytest.fixture(params=WAYS)
def orphan(request: pytest.FixtureRequest) -> Iterator[int]:
    started = subprocess.run(WAYS[request.param], stdout=subprocess.PIPE, check=True)
    pid = int(started.stdout)
    yield pid
    if found(pid):
        os.kill(pid, signal.SIGKILL)


def found(pid: int) -> Process | None:
    return next((process for process in left_behind(0) if process.pid == pid), None)


def test_an_orphan_is_found_until_it_ends(orphan: int) -> None:
    process = found(orphan)
    assert process is not None
    assert process.command == "sleep 900"
    assert process.test in {"", os.environ["PYTEST_CURRENT_TEST"].replace("call", "setup")}
    os.kill(orphan, signal.SIGKILL)
    end = time.monotonic() + 10
    while found(orphan) and time.monotonic() < end:
        time.sleep(0.1)
    assert not found(orphan)


def test_neither_this_process_nor_its_ancestors_are_found() -> None:
    assert not found(os.getpid())
    assert not found(os.getppid()) or "PYTEST_XDIST_WORKER" in os.environ
    assert not found(1)


@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_run_that_leaves_a_process_behind_fails(workers: str, tmp_path: Path) -> None:
    text = (ROOT / "tests/conftest.py").read_text().replace("left_behind()", "left_behind(0.5)")
    (tmp_path / "conftest.py").write_text(text)
    (tmp_path / "test_it.py").write_text(
        "import subprocess\n\n\ndef test_it() -> None:\n"
        f"    subprocess.run(['sh', '-c', '{ORPHAN} >{tmp_path}/pid'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", workers, "-p", "no:cacheprovider",
         f"--basetemp={tmp_path / 'base'}", tmp_path],
        capture_output=True, text=True, check=False, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    pid = int((tmp_path / "pid").read_text())
    os.kill(pid, signal.SIGKILL)
    assert done.returncode == pytest.ExitCode.TESTS_FAILED
    assert f"{pid}: sleep 900\nstarted by test_it.py::test_it (call)" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("1 passed")
