"""Pools that end: nothing of them runs any more, however often Ctrl-C was pressed."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from imagebuilder.workers import CancelToken, Stopped, as_they_end, worker_pool


def press_ctrl_c(times: int) -> threading.Thread:
    """Press it every tenth of a second, the first time when a tenth has gone by."""

    def press() -> None:
        for _ in range(times):
            time.sleep(0.1)
            os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=press)
    thread.start()
    return thread


def test_running_work_has_ended_and_waiting_work_is_dropped() -> None:
    ended: list[int] = []
    begun, pressed = threading.Event(), threading.Event()

    def work(number: int) -> None:
        begun.set()
        pressed.wait(60)
        ended.append(number)

    def press() -> None:
        begun.wait(60)
        press_ctrl_c(4).join()
        pressed.set()

    pressing = threading.Thread(target=press)
    pressing.start()
    with pytest.raises(KeyboardInterrupt), worker_pool(1, "test") as pool:
        list(pool.map(work, range(3)))
    assert ended == [0]
    pressing.join()


def test_ctrl_c_while_the_work_ends_by_itself_is_not_lost() -> None:
    pressing = press_ctrl_c(1)
    with pytest.raises(KeyboardInterrupt), worker_pool(1, "test") as pool:
        done = pool.submit(time.sleep, 0.4)
    assert done.done()
    pressing.join()


def test_work_that_listens_ends_at_its_next_piece() -> None:
    stop, pieces = CancelToken(), []

    def work() -> None:
        with stop.meter("x", None) as meter:
            for piece in range(1000):
                time.sleep(0.02)
                pieces.append(piece)
                meter.advance(1)

    with worker_pool(1, "test", stop) as pool:
        done = pool.submit(work)
        time.sleep(0.1)
    assert isinstance(done.exception(), Stopped)
    assert 0 < len(pieces) < 100


def test_slow_work_is_looked_at_before_it_ends() -> None:
    with worker_pool(2, "test") as pool:
        slow = pool.submit(time.sleep, 0.5)
        seen = list(as_they_end([slow, pool.submit(time.sleep, 0)]))
    assert seen.count([]) >= 2
    assert [result for ended in seen for result in ended] == [None, None]
