"""Names on a FAT volume: what is refused, how the rest is stored and found again."""

from __future__ import annotations

import calendar
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagebuilder.disk.fat.names import (
    alias_of,
    checksum_of,
    dos_time,
    fault_of,
    fold,
    long_name,
    long_slots,
    short_form,
    shown_short,
    split_path,
)
from imagebuilder.errors import ImageError

GOOD = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=60).filter(
    lambda name: fault_of(name) is None
)


@pytest.mark.parametrize(
    "name",
    ["a:b", "a\\b", "a?", "a*", 'a"b', "a<b", "a>b", "a|b", "a\x01b", "a\x7fb", "a.", "a ", "...",
     "", ".", "..", "CON", "con", "Aux.txt", "lpt1", "COM9.log", "nul", "\ud800x", "x" * 256,
     "\U0001f4f6" * 128],
)  # fmt: skip
def test_names_that_another_system_could_not_read_are_refused(name: str) -> None:
    assert fault_of(name) is not None
    with pytest.raises(ImageError, match="is not a valid path on the boot partition"):
        split_path(f"rpi-image/{name}")


@pytest.mark.parametrize(
    "name",
    ["cmdline.txt", "a b", " leading", ".hidden", "console", "x" * 255, "Ünï.cödé",
     "\U0001f4f6", "a;b,c=d+e[f]", "com10", "nulls"],
)  # fmt: skip
def test_names_that_every_system_reads_are_taken(name: str) -> None:
    assert fault_of(name) is None
    assert split_path(f"rpi-image/{name}") == ("rpi-image", name)


@pytest.mark.parametrize("path", ["/a", "a/", "a//b", "", "../x", "a/./b"])
def test_paths_are_relative_and_plain(path: str) -> None:
    with pytest.raises(ImageError, match="is not a file name"):
        split_path(path)


@pytest.mark.parametrize(
    ("name", "stored", "bits"),
    [
        ("CMDLINE.TXT", b"CMDLINE TXT", 0),
        ("cmdline.txt", b"CMDLINE TXT", 0x18),
        ("KERNEL.img", b"KERNEL  IMG", 0x10),
        ("start.ELF", b"START   ELF", 0x08),
        ("install", b"INSTALL    ", 0x08),
        ("ca-1.pem", b"CA-1    PEM", 0x18),
        ("1234", b"1234       ", 0),
    ],
)
def test_a_short_name_is_stored_with_the_nt_case_bits(name: str, stored: bytes, bits: int) -> None:
    assert short_form(name) == (stored, bits)
    assert shown_short(stored, bits) == name


@pytest.mark.parametrize(
    "name",
    ["Readme.txt", "readme.Txt", "ninechars", "a.jpeg", ".bashrc", "a.b.c", "a b", "a+b", "é",
     "\u0131.txt", "\u017f", "\u212a"],
)  # fmt: skip
def test_other_names_need_a_long_name(name: str) -> None:
    assert short_form(name) is None


@pytest.mark.parametrize(
    ("name", "taken", "alias"),
    [
        ("Readme.txt", set(), b"README  TXT"),
        ("Readme.txt", {b"README  TXT"}, b"README~1TXT"),
        ("rpi-image", set(), b"RPI-IM~1   "),
        ("wpa_supplicant.conf", set(), b"WPA_SU~1CON"),
        ("wpa_supplicant.conf", {b"WPA_SU~1CON", b"WPA_SU~2CON"}, b"WPA_SU~3CON"),
        ("a.b.c.tar.gz", set(), b"ABCTAR~1GZ "),
        (".bashrc", set(), b"BASHRC~1   "),
        ("a b.txt", set(), b"AB~1    TXT"),
        ("a+b.c,d", set(), b"A_B~1   C_D"),
        ("☃.txt", set(), b"_~1     TXT"),
    ],
)
def test_the_alias_of_a_long_name(name: str, taken: set[bytes], alias: bytes) -> None:
    assert alias_of(name, taken) == alias


def test_aliases_stay_apart_past_nine() -> None:
    taken: set[bytes] = set()
    for number in range(120):
        taken.add(alias_of(f"long name {number}.txt", taken))
    assert len(taken) == 120
    assert b"LONGN~10TXT" in taken
    assert b"LONG~100TXT" in taken


@given(GOOD)
def test_an_alias_is_always_a_valid_short_name(name: str) -> None:
    alias = alias_of(name, set()).decode("ascii")
    assert re.fullmatch(r"[A-Z0-9$%'\-_@~`!(){}^#&]+ *", alias[:8])
    assert re.fullmatch(r"[A-Z0-9$%'\-_@~`!(){}^#&]* *", alias[8:])
    assert len(alias) == 11


@given(GOOD)
def test_a_long_name_comes_back_from_its_slots(name: str) -> None:
    stored = alias_of(name, set())
    slots = long_slots(name, stored)
    assert len(slots) % 32 == 0
    parts = [slots[at : at + 32] for at in range(0, len(slots), 32)]
    assert len(parts) == -(-len(name.encode("utf-16-le")) // 26)
    assert long_name(parts, stored) == name
    assert long_name(parts, b"OTHER   TXT") is None or checksum_of(stored) == checksum_of(
        b"OTHER   TXT"
    )
    assert long_name(parts[1:], stored) is None
    assert long_name([], stored) is None


def test_a_long_name_with_a_slash_is_not_believed() -> None:
    assert long_name([long_slots("../x", b"X          ")], b"X          ") is None


@given(GOOD)
def test_folding_is_for_case_only(name: str) -> None:
    assert len(fold(name)) == len(name)
    assert fold(fold(name)) == fold(name)
    if name.isascii():
        assert fold(name.swapcase()) == fold(name)


@pytest.mark.parametrize("pair", [("É", "é"), ("ж", "Ж"), ("cmdline.TXT", "CMDLINE.txt")])
def test_letters_of_either_case_are_one(pair: tuple[str, str]) -> None:
    assert fold(pair[0]) == fold(pair[1])


@pytest.mark.parametrize("pair", [("ı", "i"), ("ſ", "s"), ("ß", "ss"), ("\u212a", "k")])  # noqa: RUF001
def test_letters_that_only_look_alike_are_two(pair: tuple[str, str]) -> None:
    assert fold(pair[0]) != fold(pair[1])


def test_an_escaped_first_byte_is_shown_and_not_lost() -> None:
    stored = b"\x05BC     TXT"
    assert shown_short(stored, 0) == b"\xe5BC.TXT".decode("cp437")
    assert stored[0] == 0x05


@given(st.integers(-(2**40), 2**40))
def test_times_are_utc_and_clamped(epoch: int) -> None:
    date, time, rest = dos_time(epoch)
    assert 0 <= date <= 0xFFFF
    assert 0 <= time <= 0xFFFF
    parts = (1980 + (date >> 9), date >> 5 & 15, date & 31, time >> 11, time >> 5 & 63)
    back = calendar.timegm((*parts, (time & 31) * 2, 0, 0, 0)) + rest // 100
    earliest, latest = 315_532_800, 4_354_819_198
    assert back == min(max(epoch, earliest), latest)


def test_the_time_of_a_night_in_april() -> None:
    assert dos_time(1_429_215_337) == (
        (2015 - 1980) << 9 | 4 << 5 | 16,
        20 << 11 | 15 << 5 | 18,
        100,
    )
