"""The boards: the word of each for the command line, what it runs, and how it gets onto a network.

Source: Raspberry Pi documentation, "Raspberry Pi hardware". The tags are those of the devices in
Raspberry Pi Imager's list (os_list_imagingutility_v4.json).
"""

from __future__ import annotations

from dataclasses import dataclass

_V6 = ("armv6l",)
_V7 = ("armv7l",)
_BOTH = ("armv7l", "aarch64")
_V8 = ("aarch64",)


@dataclass(frozen=True, slots=True)
class Board:
    """One model; `machines` are the `uname -m` values that its kernels have.

    `ethernet` and `wifi` are what is soldered on: a USB adapter or a carrier board may add more.
    """

    word: str
    name: str
    machines: tuple[str, ...]
    tags: tuple[str, ...]
    ethernet: bool = True
    wifi: bool = True


def _board(
    word: str,
    name: str,
    machines: tuple[str, ...],
    family: str,
    *,
    ethernet: bool = True,
    wifi: bool = True,
) -> Board:
    bits = ("64bit", "32bit") if "aarch64" in machines else ("32bit",)
    return Board(word, name, machines, tuple(f"{family}-{bit}" for bit in bits), ethernet, wifi)


# The compute modules have Ethernet on the usual carrier boards; CM4 and CM5 exist without wifi.
BOARDS = (
    _board("pi1a", "1A", _V6, "pi1", ethernet=False, wifi=False),
    _board("pi1a+", "1A+", _V6, "pi1", ethernet=False, wifi=False),
    _board("pi1b", "1B", _V6, "pi1", wifi=False),
    _board("pi1b+", "1B+", _V6, "pi1", wifi=False),
    _board("cm1", "CM1", _V6, "pi1", wifi=False),
    _board("zero", "Zero", _V6, "pi1", ethernet=False, wifi=False),
    _board("zerow", "Zero W", _V6, "pi1", ethernet=False),
    _board("pi2", "2B", _V7, "pi2", wifi=False),
    _board("pi3a+", "3A+", _BOTH, "pi3", ethernet=False),
    _board("pi3", "3B", _BOTH, "pi3"),
    _board("pi3+", "3B+", _BOTH, "pi3"),
    _board("cm3", "CM3", _BOTH, "pi3", wifi=False),
    _board("cm3+", "CM3+", _BOTH, "pi3", wifi=False),
    _board("zero2w", "Zero 2 W", _BOTH, "pi3", ethernet=False),
    _board("pi4", "4B", _BOTH, "pi4"),
    _board("pi400", "400", _BOTH, "pi4"),
    _board("cm4", "CM4", _BOTH, "pi4"),
    _board("pi5", "5", _V8, "pi5"),
    _board("pi500", "500", _V8, "pi5"),
    _board("cm5", "CM5", _V8, "pi5"),
)
WORDS = tuple(board.word for board in BOARDS)


def find_board(word: str) -> Board | None:
    """Return the board with this word; None if there is none."""
    return next((board for board in BOARDS if board.word == word), None)
