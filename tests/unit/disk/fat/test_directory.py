"""A directory's slots: found again after any edits, and nothing else moves."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagebuilder.disk.fat.directory import (
    ARCHIVE,
    FOLDER,
    SLOT_BYTES,
    Directory,
    DirectoryEntry,
    new_folder,
    parse_listing,
)
from imagebuilder.disk.fat.names import dos_time, fold
from imagebuilder.errors import ImageError

NOW = dos_time(1_447_322_400)
NAMES = ("a", "cmdline.txt", "A Rather Long Name.txt", "a rather long neighbour", "é", "y" * 100)
ACTS = st.lists(st.tuples(st.booleans(), st.sampled_from(NAMES), st.integers(0, 4)), max_size=60)


def empty(clusters: int = 1) -> Directory:
    return Directory(new_folder(5, 0, NOW, 512 * clusters), 512)


def names_of(directory: Directory) -> list[str]:
    return sorted(entry.name for entry in parse_listing(bytes(directory.content)).entries)


@given(ACTS)
def test_a_directory_holds_what_a_dictionary_would(acts: list[tuple[bool, str, int]]) -> None:
    directory = empty()
    wanted: dict[str, str] = {}
    for is_new, name, number in acts:
        path = f"{number}{name}"
        entry = directory.find(path.swapcase())
        assert (entry is not None) == (fold(path) in wanted)
        if is_new and entry is None:
            directory.add(path, ARCHIVE, NOW)
            wanted[fold(path)] = path
        elif not is_new and entry is not None:
            directory.remove(entry)
            del wanted[fold(path)]
    assert names_of(directory) == sorted(wanted.values())
    assert len(directory.content) % 512 == 0
    again = Directory(bytes(directory.content), 512)
    for path in wanted.values():
        found = again.find(path)
        assert found is not None
        assert found.name == path


def test_the_slots_of_others_keep_their_bytes() -> None:
    directory = empty()
    for name in ("one", "Two of them.txt", "three"):
        directory.add(name, ARCHIVE, NOW)
    before = bytes(directory.content)
    two = directory.find("two of them.txt")
    assert two is not None
    first = two.at - (two.slots - 1) * SLOT_BYTES
    directory.remove(two)
    assert bytes(directory.content[:first]) == before[:first]
    assert bytes(directory.content[two.at + 32 :]) == before[two.at + 32 :]
    assert directory.find("three") == Directory(before, 512).find("three")


def test_free_slots_are_used_before_the_directory_grows() -> None:
    directory = empty()
    entries = [directory.add(f"file{n}", ARCHIVE, NOW) for n in range(14)]
    assert len(directory.content) == 512
    for entry in entries[3:6]:
        directory.remove(entry)
    added = directory.add("Two more slots", ARCHIVE, NOW)
    assert added.at == entries[5].at
    assert len(directory.content) == 512
    directory.add("a name of two slots", ARCHIVE, NOW)
    assert len(directory.content) == 1024


def test_a_directory_ends_at_65536_entries() -> None:
    content = (b"FILE       " + b"\x20" + bytes(20)) * 65535
    directory = Directory(content + bytes(32), 32)
    directory.add("last", ARCHIVE, NOW)
    with pytest.raises(ImageError, match="1 directory entries needed, 0 free"):
        directory.add("more", ARCHIVE, NOW)


def test_pointing_and_stamping_write_their_fields_only() -> None:
    directory = empty()
    entry = directory.add("file", 0x01, NOW)
    before = bytes(directory.content)
    directory.point(entry, 0x12345678, 0x9ABCDEF0)
    directory.stamp(entry, dos_time(1_600_000_000))
    (read,) = parse_listing(bytes(directory.content)).entries
    assert (read.cluster, read.size_bytes) == (0x12345678, 0x9ABCDEF0)
    assert read.attributes == 0x01 | ARCHIVE
    changed = {
        at - entry.at
        for at, pair in enumerate(zip(before, directory.content, strict=True))
        if pair[0] != pair[1]
    }
    assert changed <= {11, *range(18, 32)}


def test_dots_and_labels_are_no_entries() -> None:
    label = b"HYPRIOTOS  " + b"\x08" + bytes(20)
    other = label.replace(b"HYPRIOTOS", b"SECOND   ")
    listing = parse_listing(new_folder(7, 3, NOW, 64) + label + other + bytes(64))
    assert listing.entries == ()
    assert [(dot.stored.rstrip(), dot.cluster) for dot in listing.dots] == [(b".", 7), (b"..", 3)]
    assert listing.end == 4


def test_slots_that_belong_to_no_entry_are_passed_by() -> None:
    directory = empty()
    directory.add("A Long Name.txt", ARCHIVE, NOW)
    content = bytearray(directory.content)
    content[64] = 0x43
    (entry,) = parse_listing(bytes(content)).entries
    assert entry == DirectoryEntry(128, 1, "ALONGN~1.TXT", b"ALONGN~1TXT", ARCHIVE, 0, 0)
    content[64] = 0x42
    content[96 + 13] ^= 1
    (entry,) = parse_listing(bytes(content)).entries
    assert entry.name == "ALONGN~1.TXT"


@given(st.binary(max_size=2048))
def test_any_bytes_parse(content: bytes) -> None:
    listing = parse_listing(content)
    assert all(0 <= entry.at < len(content) for entry in listing.entries)
    assert all(entry.is_folder == bool(entry.attributes & FOLDER) for entry in listing.entries)
