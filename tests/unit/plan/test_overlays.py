"""Overlay folders: what is read from them, what is refused, and whose templates see secrets."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from imagebuilder.errors import SettingsError
from imagebuilder.plan import overlays
from imagebuilder.plan.generations import parse_generation
from imagebuilder.plan.overlays import check_path, load_generations, load_overlay
from imagebuilder.plan.templates import compile_template
from imagebuilder.resources import shipped_folder

if TYPE_CHECKING:
    from pathlib import Path

GENERATION = "title: {}\nwhen: [{{exists: my.txt}}]\n"


def write(folder: Path, path: str, data: bytes = b"x") -> Path:
    target = folder / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(data)
    return target


def test_a_folder_is_read_with_its_subfolders_in_order(tmp_path: Path) -> None:
    for path in ("b.txt", "a/c.bin", "a/b.j2"):
        write(tmp_path, path, path.encode())
    found = load_overlay(tmp_path)
    assert [(file.path, file.data) for file in found] == [
        ("a/b.j2", b"a/b.j2"),
        ("a/c.bin", b"a/c.bin"),
        ("b.txt", b"b.txt"),
    ]
    assert found[0].origin == str(tmp_path / "a/b.j2")


def test_hidden_files_and_backups_stay_out(tmp_path: Path) -> None:
    for path in (".git/config", ".DS_Store", "notes.txt~", "sub/.hidden", "kept.txt"):
        write(tmp_path, path)
    assert [file.path for file in load_overlay(tmp_path)] == ["kept.txt"]


def test_links_to_files_are_followed(tmp_path: Path) -> None:
    write(tmp_path, "outside/real.txt", b"real")
    (tmp_path / "overlay").mkdir()
    (tmp_path / "overlay/link.txt").symlink_to(tmp_path / "outside/real.txt")
    assert load_overlay(tmp_path / "overlay")[0].data == b"real"


def test_links_to_folders_are_followed(tmp_path: Path) -> None:
    write(tmp_path, "outside/b.txt", b"b")
    write(tmp_path, "outside/.hidden/c.txt")
    write(tmp_path, "overlay/a.txt", b"a")
    (tmp_path / "overlay/rpi-image").symlink_to(tmp_path / "outside")
    (tmp_path / "overlay/again").symlink_to("rpi-image")
    assert [(file.path, file.data) for file in load_overlay(tmp_path / "overlay")] == [
        ("a.txt", b"a"),
        ("again/b.txt", b"b"),
        ("rpi-image/b.txt", b"b"),
    ]


@pytest.mark.parametrize("target", [".", "..", "../.."])
def test_a_link_to_its_own_parent_is_refused(target: str, tmp_path: Path) -> None:
    write(tmp_path, "overlay/sub/a.txt")
    (tmp_path / "overlay/sub/link").symlink_to(target)
    with pytest.raises(SettingsError, match="link to one of its own parents"):
        load_overlay(tmp_path / "overlay")


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no overlay folder"):
        load_overlay(tmp_path / "absent")
    with pytest.raises(SettingsError, match="no overlay folder"):
        load_overlay(write(tmp_path, "file.txt"))


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").symlink_to(tmp_path / "absent")
    with pytest.raises(SettingsError, match=r"overlay file .*secret\.txt: no such file"):
        load_overlay(tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        'a"b',
        "a*b",
        "a:b",
        "a<b",
        "a>b",
        "a?b",
        "a\\b",
        "a|b",
        "a\nb",
        "end.",
        "end ",
        " start",
        "x" * 256,
        "📶" * 128,
        "CON",
        "aux.txt",
        "half \udcff",
        "..",
        "a//b",
        "/a",
        "",
    ],
)
def test_names_that_fat_cannot_hold_are_refused(name: str) -> None:
    with pytest.raises(SettingsError, match=r"FAT|file name|characters"):
        check_path(name, "here")


@pytest.mark.parametrize(
    "name", ["Ünïcode 📶.txt", "x" * 255, "a b/c.d.e", "[1]+(2)~3", "COM10.txt"]
)
def test_names_that_fat_can_hold(name: str) -> None:
    assert check_path(name, "here") == name


def test_a_wrong_name_in_a_folder_says_where(tmp_path: Path) -> None:
    write(tmp_path, "sub/a:b.txt")
    with pytest.raises(SettingsError, match=r"sub/a:b\.txt: the name 'a:b\.txt' contains ':'"):
        load_overlay(tmp_path)


@pytest.mark.parametrize(
    ("one", "other"), [("a.txt", "A.txt"), ("sub/x", "SUB/X"), ("motd", "motd.j2"), ("é", "É.j2")]
)
def test_two_files_that_are_one_on_fat_are_refused(one: str, other: str, tmp_path: Path) -> None:
    write(tmp_path, one)
    write(tmp_path, other)
    with pytest.raises(SettingsError, match="are the same file on the boot partition") as caught:
        load_overlay(tmp_path)
    assert str(tmp_path / one) in caught.value.message
    assert str(tmp_path / other) in caught.value.message


def test_only_what_came_with_the_program_sees_secrets(tmp_path: Path) -> None:
    write(tmp_path, "x.j2")
    assert not load_overlay(tmp_path)[0].secrets
    assert all(file.secrets for file in load_overlay(shipped_folder("overlays") / "node"))


def test_content_does_not_show_in_reprs(tmp_path: Path) -> None:
    write(tmp_path, "key.pem", b"PRIVATE")
    assert "PRIVATE" not in repr(load_overlay(tmp_path))


# ---- generations of the user's


def test_a_new_generation_is_a_folder(tmp_path: Path) -> None:
    write(tmp_path, "mine/generation.yml", GENERATION.format("Mine").encode())
    write(tmp_path, "mine/settings/my.txt.j2", b"{{ node.hostname }}")
    write(tmp_path, "not-one/readme.txt")
    (found,) = load_generations((tmp_path,))
    assert (found.name, found.title) == ("mine", "Mine")
    assert [(file.path, file.secrets) for file in found.files] == [("settings/my.txt.j2", True)]


def test_a_folder_can_be_a_generation_itself(tmp_path: Path) -> None:
    write(tmp_path, "generation.yml", GENERATION.format("Mine").encode())
    (found,) = load_generations((tmp_path,))
    assert found.name == tmp_path.name
    assert load_overlay(tmp_path) == ()


def test_a_generation_of_the_users_replaces_ours(tmp_path: Path) -> None:
    write(tmp_path, "firstrun/generation.yml", GENERATION.format("Mine").encode())
    found = load_generations((shipped_folder("overlays"), tmp_path))
    assert [one.title for one in found if one.name == "firstrun"] == ["Mine"]
    assert len(found) == 4


def test_a_folder_that_is_not_there_holds_no_generations(tmp_path: Path) -> None:
    assert load_generations((tmp_path / "absent",)) == ()


# ---- budgets


def test_links_that_multiply_are_not_followed_without_end(tmp_path: Path) -> None:
    for level in range(40):
        (tmp_path / f"d{level}").mkdir()
        for name in "ab":
            (tmp_path / f"d{level}" / name).symlink_to(f"../d{level + 1}")
    (tmp_path / "d40").mkdir()
    with pytest.raises(SettingsError, match=r"nested too deeply|of over 10000 files"):
        load_overlay(tmp_path / "d0")


def test_an_overlay_has_a_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(4):
        write(tmp_path, f"{number}.bin", bytes(1000))
    monkeypatch.setattr(overlays, "MOST_FILES", 4)
    assert len(load_overlay(tmp_path)) == 4
    monkeypatch.setattr(overlays, "MOST_FILES", 3)
    with pytest.raises(SettingsError, match=r"3\.bin|of over 3 files"):
        load_overlay(tmp_path)
    monkeypatch.setattr(overlays, "MOST_FILES", 9)
    monkeypatch.setattr(overlays, "MOST_BYTES", 3999)
    with pytest.raises(SettingsError, match="has over"):
        load_overlay(tmp_path)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SettingsError, match="pipe is not a regular file"):
        load_overlay(tmp_path)


def test_a_template_of_megabytes_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "a.j2", b"{{ 1 }}" * 100_000)
    with pytest.raises(SettingsError, match=rf"{path.name} is over 256 KiB"):
        load_overlay(tmp_path)


@pytest.mark.parametrize(
    "source",
    [
        "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}",
        "{% if 1 %}" * 200 + "{% endif %}" * 200,
        "{{ " + "-" * 9000 + "1 }}",
        "{{ " + "9" * 9000 + " }}",
        "{{ [" * 500 + "] }}" * 500,
        "{{ 1" + " + 1" * 9000 + " }}",
        "{{ a" + ".a" * 9000 + " }}",
        "{% macro f(a, a) %}{% endmacro %}",
    ],
)
def test_a_template_that_cannot_be_compiled_is_an_error_with_its_file(source: str) -> None:
    with pytest.raises(SettingsError, match=r"^demo\.j2:\d+: "):
        compile_template(source, "demo.j2").render({})


@pytest.mark.parametrize("pattern", ["(" * 5000, "(" * 5000 + ")" * 5000, "a{99999999999999}", "["])
def test_a_pattern_that_cannot_be_compiled_is_an_error_with_its_file(pattern: str) -> None:
    text = f"title: x\nwhen: [{{file: a, matches: '{pattern}'}}]\n"
    with pytest.raises(SettingsError, match=r"^mine/generation\.yml: "):
        parse_generation(text, "mine", "mine/generation.yml")
