"""Which device gets which node of those that are outdated."""

from __future__ import annotations

import pytest

from imagebuilder.devices.device import Device
from imagebuilder.flash.choice import choose_by_card

CASES = [
    (["", ""], ["pi-01", "pi-02", "pi-03"]),
    (["pi-03", ""], ["pi-03", "pi-01", "pi-02"]),
    (["", "pi-01"], ["pi-02", "pi-01", "pi-03"]),
    (["pi-02", "pi-02"], ["pi-02", "pi-01", "pi-03"]),  # a copy of a card
    (["pi-09", "pi-02", "pi-01"], ["pi-03", "pi-02", "pi-01"]),
]


@pytest.mark.parametrize(("owners", "order"), CASES)
def test_a_card_keeps_its_node(owners: list[str], order: list[str]) -> None:
    devices = [Device(path=str(n), major_minor="", size_bytes=1) for n in range(len(owners))]
    names = ["pi-01", "pi-02", "pi-03"]
    assert choose_by_card(devices, names, lambda device: owners[int(device.path)]) == order
