"""Entries of a published list become entries of the catalogue, or are skipped by name."""

from __future__ import annotations

from typing import Any

import pytest

from imagebuilder.errors import SettingsError
from imagebuilder.settings.schema.published import (
    GENERATIONS,
    PublishedEntry,
    find_published,
    generation_by,
    published_entries,
    slug_of,
)

DIGEST, OTHER = "ab" * 32, "cd" * 32
LISTED: dict[str, Any] = {
    "name": "Raspberry Pi OS Lite (64-bit)",
    "description": "A port of Debian\nwith no desktop",
    "icon": "https://h/icon.png",
    "url": "https://h/lite.img.xz",
    "extract_size": 2977955840,
    "extract_sha256": DIGEST,
    "image_download_size": 524875608,
    "image_download_sha256": OTHER.upper(),
    "release_date": "2026-06-18",
    "devices": ["pi5-64bit", "pi3-64bit"],
    "init_format": "cloudinit-rpi",
    "architecture": "arm64",
}


def one(**changes: object) -> PublishedEntry:
    entries, notes = published_entries([LISTED | changes])
    assert notes == ()
    (entry,) = entries
    return entry


def test_an_entry_has_all_that_the_list_says() -> None:
    entry = one()
    assert entry.name == "raspios-lite-arm64@2026-06-18"
    assert entry.slug == "raspios-lite-arm64"
    assert entry.title == "Raspberry Pi OS Lite (64-bit)"
    assert entry.description == "A port of Debian with no desktop"
    assert entry.url == "https://h/lite.img.xz"
    assert (entry.sha256, entry.raw_sha256) == (OTHER, DIGEST)
    assert (entry.size_bytes, entry.raw_size_bytes) == (524875608, 2977955840)
    assert (entry.generation, entry.init_format) == ("cloud-init", "cloudinit-rpi")
    assert entry.released == "2026-06-18"
    assert entry.machines == ("aarch64",)


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("Raspberry Pi OS (64-bit)", "raspios-arm64"),
        ("Raspberry Pi OS (32-bit)", "raspios-armhf"),
        ("Raspberry Pi OS (Legacy, 64-bit) Lite", "raspios-legacy-lite-arm64"),
        ("Raspberry Pi OS Full (64-bit)", "raspios-full-arm64"),
        ("Ubuntu Server 24.04.3 LTS (64-bit)", "ubuntu-server-24.04.3-lts-arm64"),
        ("Ubuntu Server 25.10 (64 bit)", "ubuntu-server-25.10-arm64"),
        ("OctoPi 1.1.0 stable", "octopi-1.1.0-stable"),
        ("Café — n°2", "cafe-n2"),
        ("  x  ", "x"),
        ("../../etc/passwd", "etc-passwd"),
        ("class.img", "class-img"),
        ("\x1b[31mred", "31mred"),
        ("日本", ""),
    ],
)
def test_a_name_becomes_a_slug(name: str, slug: str) -> None:
    assert slug_of(name) == slug


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", 7), ("name", ""), ("name", "x" * 201), ("name", ["a"]), ("name", "日本"),
        ("name", "\ud800"),
        ("url", 7), ("url", "file:///etc/passwd"), ("url", "ftp://h/a.img"), ("url", "/a.img"),
        ("url", "https://"), ("url", "https://h:99999/a"), ("url", "https://h/a b"), ("url", None),
        ("extract_size", "12"), ("extract_size", -1), ("extract_size", 0), ("extract_size", True),
        ("extract_size", 1.5), ("extract_size", 1 << 70), ("extract_size", [1]),
        ("extract_sha256", "x"), ("extract_sha256", "ab" * 31), ("extract_sha256", 7),
        ("extract_sha256", DIGEST + "\n"), ("image_download_sha256", {"a": 1}),
        ("image_download_size", "x"), ("release_date", "18.06.2026"), ("release_date", 20260618),
        ("release_date", "2026-06-18\n"), ("release_date", "٢٠٢٦-٠٦-١٨"),
        ("devices", "pi5"), ("devices", [7]), ("init_format", 7), ("init_format", ["systemd"]),
        ("architecture", {}), ("description", 7),
    ],
)  # fmt: skip
def test_a_wrong_entry_is_skipped_and_the_others_stay(key: str, value: object) -> None:
    good = LISTED | {"name": "good"}
    entries, notes = published_entries([LISTED | {key: value}, good])
    assert [entry.name for entry in entries] == ["good@2026-06-18"]
    assert len(notes) == 1
    assert " is skipped: " in notes[0]
    notes[0].encode()


@pytest.mark.parametrize("key", ["extract_size", "extract_sha256", "image_download_sha256",
    "release_date", "devices", "init_format", "architecture", "description"])  # fmt: skip
def test_what_is_null_or_missing_is_not_said(key: str) -> None:
    missing = {k: v for k, v in LISTED.items() if k != key}
    for raw in (missing, LISTED | {key: None}):
        entries, notes = published_entries([raw])
        assert (len(entries), notes) == (1, ())


def test_an_empty_digest_leaves_the_decision_to_the_raw_one() -> None:
    entry = one(image_download_sha256="")
    assert (entry.sha256, entry.raw_sha256) == (None, DIGEST)


def test_without_a_date_the_name_has_none() -> None:
    assert one(release_date="").name == "raspios-lite-arm64"


def test_one_image_in_two_groups_is_listed_once_and_two_of_one_name_are_noted() -> None:
    entries, notes = published_entries([LISTED, LISTED])
    assert (len(entries), notes) == (1, ())
    entries, notes = published_entries([LISTED, LISTED | {"url": "https://h/other.img.xz"}])
    assert [entry.url for entry in entries] == ["https://h/lite.img.xz"]
    assert "occurs twice" in notes[0]


@pytest.mark.parametrize(
    ("devices", "machines"),
    [
        (["pi5-64bit"], ("aarch64",)),
        (["pi1-32bit"], ("armv6l",)),
        (["pi2-32bit", "pi1-32bit"], ("armv7l", "armv6l")),
        (["pi3-32bit"], ("armv7l", "aarch64")),
        (["PI4-64BIT"], ("aarch64",)),
        (["my-board"], ()),
        ([], ()),
    ],
)
def test_the_tags_say_the_machines(devices: list[str], machines: tuple[str, ...]) -> None:
    assert one(devices=devices).machines == machines


def test_a_name_without_a_date_is_the_newest() -> None:
    dates = ("2025-12-04", "2026-10-06", "2026-06-18")
    entries, _ = published_entries([LISTED | {"release_date": date} for date in dates])
    newest, named = (
        find_published(entries, name)
        for name in ("raspios-lite-arm64", "raspios-lite-arm64@2025-12-04")
    )
    assert newest is not None
    assert named is not None
    assert (newest.released, named.released) == ("2026-10-06", "2025-12-04")
    assert find_published(entries, "raspios-lite-arm64@2024-01-01") is None
    assert find_published(entries, "raspios-lite") is None


@pytest.mark.parametrize(
    ("word", "generation"),
    [
        ("systemd", "firstrun"),
        ("cloudinit", "cloud-init"),
        ("cloudinit-rpi", "cloud-init"),
        ("none", None),
        ("", None),
    ],
)
def test_the_init_format_says_the_generation(word: str, generation: str | None) -> None:
    entry = one(init_format=word)
    assert entry.supported
    assert entry.generation == generation_by(word, entry.name) == generation


@pytest.mark.parametrize("word", ["rpi-preseed", "ignition", "Systemd", "systemd2"])
def test_another_init_format_is_listed_and_refused_by_its_word(word: str) -> None:
    entry = one(init_format=word)
    assert (entry.supported, entry.generation) == (False, None)
    with pytest.raises(SettingsError, match=f"`{word}`, which is not supported") as caught:
        generation_by(word, entry.name)
    assert entry.name in caught.value.message
    assert all(known in caught.value.hint for known in GENERATIONS if known)
