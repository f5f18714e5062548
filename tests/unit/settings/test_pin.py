"""`check --pin` writes what a published image is into the file, and nothing else."""

from __future__ import annotations

import difflib
import json
import stat
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from imagebuilder.cli.main import run
from tests.lib.published_lists import listed, write_list

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Pin = Callable[..., str]

SLUG, NAME = "raspios-lite-arm64", "raspios-lite-arm64@2026-06-18"
PINNED = {
    "name": NAME,
    "url": "https://example.org/lite.img.xz",
    "sha256": "cd" * 32,
    "raw_sha256": "ab" * 32,
    "raw_size_bytes": 2977955840,
    "init_format": "cloudinit-rpi",
}


@pytest.fixture
def pin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pin:
    """Return what writes a file, pins it, and returns its new text."""
    monkeypatch.setenv("RPI_IMAGE_CACHE", str(tmp_path / "cache"))

    def pinned(text: str, *entries: dict[str, Any], code: int = 0) -> str:
        write_list(tmp_path / "list.json", *(entries or [listed()]))
        room = tmp_path / "room.yml"
        room.write_bytes(text.encode())
        room.chmod(0o640)
        assert run(["check", "--pin", "--catalog", str(tmp_path / "list.json"), str(room)]) == code
        assert stat.S_IMODE(room.stat().st_mode) == 0o640
        return room.read_bytes().decode()

    return pinned


def load(text: str) -> Any:
    return yaml.safe_load(text)


def changed(before: str, after: str) -> list[str]:
    """Return the lines that a diff removes."""
    return [
        line[2:]
        for line in difflib.ndiff(before.splitlines(), after.splitlines())
        if line.startswith("- ")
    ]


CLASS = "allow: [no-login]\nprofile: armv7\n"
FORMS = {
    "plain": f"image: {SLUG}\n",
    "dated": f"image: {NAME}\n",
    "quoted": f'image: "{SLUG}"   # a comment\n',
    "single": f"image: '{SLUG}'\n",
    "next line": f"image:\n    {SLUG}\n",
    "flow": f"image: {{name: {SLUG}}}   # a comment\n",
    "flow with more": f"image: {{name: {SLUG}, unchecked: false}}\n",
    "block": f"image:   # why\n  # this one\n  name: {SLUG}   # the newest\n",
    "block with more": f"image:\n    unchecked: false\n    name: {SLUG}\n",
    "flow over lines": f"image: {{\n  name: {SLUG}, # a comment\n  }}\n",
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_each_form_of_an_image_is_pinned(form: str, newline: str, mark: str, pin: Pin) -> None:
    head = "# The class of 2026, with é\n\nallow: [no-login]\nprofile: armv7   # boards\n"
    tail = "\n# the nodes\nnodes:\n  - hostname: a\n"
    before = mark + (head + FORMS[form] + tail).replace("\n", newline)
    after = pin(before)
    image = load(after.removeprefix("\ufeff"))["image"]
    assert {key: image[key] for key in PINNED} == PINNED
    assert after.startswith(mark + head.replace("\n", newline))
    assert after.endswith(tail.replace("\n", newline))
    assert after.count("#") == before.count("#")
    assert ("\n" in after.replace("\r\n", "")) is (newline == "\n")
    assert pin(after) == after


def test_only_the_lines_of_images_change(pin: Pin) -> None:
    before = f"""\
allow: [no-login]
profile: armv7
x-lab: &lab {{image: {SLUG}, owner: lab}}   # kept here
image: hypriotos-1.12.3   # ours
nodes:
  - hostname: a   # the first
    image: {SLUG}
  - {{hostname: b, image: {SLUG}, seat: "3"}}
  - {{hostname: c, <<: *lab}}
  - hostname: d
    image: ./my.img
  - hostname: e
    image: {{url: "https://example.org/x.img", sha256: {"0" * 64}}}
"""
    after = pin(before)
    assert len(changed(before, after)) == 3
    data = load(after)
    assert data["image"] == "hypriotos-1.12.3"
    images = {node["hostname"]: node.get("image") for node in data["nodes"]}
    assert images["a"] == images["b"] == images["c"] == PINNED
    assert images["d"] == "./my.img"
    assert "name" not in images["e"]


def test_an_anchor_on_the_image_is_not_lost(pin: Pin, capsys: pytest.CaptureFixture[str]) -> None:
    text = f"{CLASS}image: &i {SLUG}\nnodes: [{{hostname: a, image: *i}}]\n"
    assert pin(text, code=3) == text
    said = capsys.readouterr().err
    assert f"image `{SLUG}` cannot be pinned where it is" in said
    assert f"hint: write image: {{name: {NAME}, url: " in said


def test_a_pinned_class_needs_no_list(
    pin: Pin, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pin(f"allow: [no-login]\nprofile: armv7\nimage: {SLUG}\nnodes: [{{hostname: a}}]\n")
    (tmp_path / "list.json").unlink()
    capsys.readouterr()
    room = str(tmp_path / "room.yml")
    arguments = ["build", "-n", "-c", room, "--json", "--catalog", str(tmp_path / "gone.json")]
    assert run(arguments) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["generation"] == "cloud-init"
    assert "list" not in said.err


def test_digests_of_ones_own_stay(pin: Pin) -> None:
    text = f"{CLASS}image: {{name: {SLUG}, sha256: {'ef' * 32}}}\nnodes: [{{hostname: a}}]\n"
    assert load(pin(text))["image"] == {**PINNED, "sha256": "ef" * 32}


def test_a_url_with_letters_of_yaml_is_quoted(pin: Pin) -> None:
    url = "https://example.org/a,b}[c]:#{x.img.xz?a=&*!|>%25"
    after = pin(
        f"allow: [no-login]\nprofile: armv7\nimage: {SLUG}\nnodes: [{{hostname: a}}]\n", listed(url)
    )
    assert load(after)["image"]["url"] == url


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (listed(init_format="rpi-preseed"), "`rpi-preseed`, which is not supported"),
        (listed(extract_sha256="", image_download_sha256=""), "its list has no digest"),
        (listed(name="another"), "no base image"),
    ],
)
def test_what_cannot_be_pinned_leaves_the_file(
    entry: dict[str, Any], words: str, pin: Pin, capsys: pytest.CaptureFixture[str]
) -> None:
    text = f"allow: [no-login]\nprofile: armv7\nimage: {NAME}\nnodes: [{{hostname: a}}]\n"
    assert pin(text, entry, code=3) == text
    said = capsys.readouterr()
    assert words in said.err + said.out


@pytest.mark.parametrize(
    "text", ["", "- a\n", "image: [\n", "image: {a: 1}\n", "nodes: 7\nimage:\n"]
)
def test_a_file_with_errors_is_not_changed(text: str, pin: Pin) -> None:
    assert pin(text, code=3) == text


def test_the_report_names_what_was_pinned(
    pin: Pin, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pin("allow: [no-login]\nprofile: armv7\nimage: sample\nnodes: [{hostname: a}]\n")
    room, catalog = tmp_path / "room.yml", str(tmp_path / "list.json")
    room.write_text(f"allow: [no-login]\nprofile: armv7\nimage: {SLUG}\nnodes: [{{hostname: a}}]\n")
    for pinned in ([NAME], []):
        capsys.readouterr()
        assert run(["check", "--pin", "--json", "--catalog", catalog, str(room)]) == 0
        assert json.loads(capsys.readouterr().out)["pinned"] == pinned


def test_a_link_stays_a_link(pin: Pin, tmp_path: Path) -> None:
    pin("allow: [no-login]\nprofile: armv7\nimage: sample\nnodes: [{hostname: a}]\n")
    room, real = tmp_path / "room.yml", tmp_path / "real.yml"
    room.rename(real)
    room.symlink_to(real)
    real.write_text(f"allow: [no-login]\nprofile: armv7\nimage: {SLUG}\nnodes: [{{hostname: a}}]\n")
    assert run(["check", "--pin", "--catalog", str(tmp_path / "list.json"), str(room)]) == 0
    assert room.is_symlink()
    assert load(real.read_text())["image"] == PINNED
