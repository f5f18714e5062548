"""Events of block devices: a real socket that overflows, and systems without one."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING

from imagebuilder.devices.hotplug import open_uevents
from tests.lib.tools import need_root

if TYPE_CHECKING:
    import pytest


def test_lost_events_count_as_a_change() -> None:
    """The kernel says ENOBUFS once the buffer is full (netlink(7))."""
    need_root()
    asked = Path("/sys/class/net/lo/uevent")
    with open_uevents() as events:
        while events.changed():
            pass
        asked.write_text("change")
        assert not events.changed(), "an event of another kind"
        for _ in range(5000):
            asked.write_text("change")
        assert events.changed()


def test_without_a_listener_callers_look_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_words: object) -> socket.socket:
        raise PermissionError

    monkeypatch.setattr(socket, "socket", refuse)
    with open_uevents() as events:
        assert events.changed()
        assert events.changed()
