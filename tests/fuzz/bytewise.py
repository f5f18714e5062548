"""Changes of bytes and texts without regard to their format."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

EDGES = (0, 1, 2, 3, 7, 8, 255, 256, 65_535, 65_536, 100_000)
BITS = (15, 16, 31, 32, 40, 62, 63, 64)
NEAR: set[int] = {edge for bit in BITS for edge in (2**bit - 1, 2**bit, 2**bit + 1)}
NUMBERS: tuple[int, ...] = tuple(sorted(number for number in {*NEAR, *EDGES} if number < 2**64))


def number(rng: Random, bits: int = 64) -> int:
    """Return a number that programs get wrong, or any."""
    if rng.random() < 0.7:
        return rng.choice(NUMBERS) & ((1 << bits) - 1)
    return rng.getrandbits(rng.randint(1, bits))


def put(data: bytearray, at: int, size: int, value: int) -> None:
    """Write a little-endian number where there is room for it."""
    if at >= 0 and at + size <= len(data):
        data[at : at + size] = (value % (1 << 8 * size)).to_bytes(size, "little")


def shaken(data: bytes, rng: Random) -> bytes:
    """Return the bytes with one change anywhere: set, cut, insert, repeat or swap."""
    at = rng.randrange(len(data) + 1)
    end = min(len(data), at + rng.choice((1, 1, 2, 4, 8, 64)))
    piece = data[at:end]
    kind = rng.randrange(6)
    if kind == 0:
        piece = rng.randbytes(len(piece))
    elif kind == 1:
        piece = b""
    elif kind == 2:
        piece = rng.randbytes(rng.choice((1, 2, 4))) + piece
    elif kind == 3:
        piece *= rng.choice((2, 3, 100))
    elif kind == 4:
        piece = bytes(byte ^ 1 << rng.randrange(8) for byte in piece)
    else:
        piece = rng.choice((b"\0", b"\xff", b"\x80", b"\x7f")) * len(piece)
    return data[:at] + piece + data[end:]


def reworded(data: bytes, rng: Random, words: Sequence[bytes], marks: bytes) -> bytes:
    """Return a text with a line or a word exchanged, repeated, dropped or moved.

    `words` are texts that mean something in the format, `marks` the bytes between words.
    """
    kind = rng.randrange(8)
    if kind < 3:
        lines = data.splitlines(keepends=True) or [b""]
        at, other = rng.randrange(len(lines)), rng.randrange(len(lines))
        if kind == 0:
            lines[at:at] = [lines[other]] * rng.choice((1, 1, 2, 30))
        elif kind == 1:
            del lines[at]
        else:
            lines[at], lines[other] = lines[other], lines[at]
        return b"".join(lines)
    begin = end = rng.randrange(len(data) + 1)
    while begin > 0 and data[begin - 1] not in marks:
        begin -= 1
    while end < len(data) and data[end] not in marks:
        end += 1
    word = rng.choice(words)
    if kind == 3:
        word = b"%d" % number(rng)
    elif kind == 4:
        word = data[begin:end] + word
    elif kind == 5:
        word = data[begin:end] * rng.choice((2, 50))
    return data[:begin] + word + data[end:]
