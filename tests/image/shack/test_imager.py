"""The repository for Raspberry Pi Imager: its form, its digests, and who can read it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import jsonschema
import pytest

from imagebuilder.cli.main import run as rpi_image
from imagebuilder.images.os_list import parse_list
from imagebuilder.model import ImageSource
from imagebuilder.progress import SILENT
from imagebuilder.settings.schema.published import published_entries
from imagebuilder.shack.imager import ImagerRepository
from tests.lib.archives import sha256sum
from tests.lib.classroom_samples import make_classroom, node
from tests.lib.program import small_base
from tests.lib.tools import need

TEXT, SIZE, WORDS = {"type": "string"}, {"type": "integer"}, {"type": "array", "items": {}}

# What doc/json-schema/os-list-schema.json of raspberrypi/rpi-imager (August 2026) asks of an entry
# and of a board. The file itself is not shipped here: it has the licence of Imager.
FORM = {
    "type": "object",
    "required": ["os_list"],
    "properties": {
        "imager": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "devices": {
                    "type": "array",
                    "items": {
                        "required": ["name", "description", "tags"],
                        "properties": {"name": TEXT, "description": TEXT, "tags": WORDS},
                    },
                }
            },
        },
        "os_list": {
            "type": "array",
            "items": {
                "required": ["name", "description", "icon", "url", "extract_size",
                             "extract_sha256", "image_download_size", "release_date", "devices"],
                "properties": {
                    **dict.fromkeys(["name", "description", "icon", "url", "extract_sha256",
                                     "release_date", "architecture"], TEXT),
                    **dict.fromkeys(["extract_size", "image_download_size"], SIZE),
                    "devices": WORDS,
                    "init_format": {"enum": ["", "systemd", "cloudinit", "cloudinit-rpi",
                                             "rpi-preseed", "none"]},
                },
            },
        },
    },
}  # fmt: skip

ROOM = """\
name: class-3b
profile: armv7
allow: [no-login]
image: {{file: "{image}", unchecked: true}}
wifi: {{country: FR, networks: [{{ssid: shack, passphrase: correct horse battery}}]}}
nodes:
  - {{hostname: pi-01, board: pi4, owner: Zoë}}
  - {{hostname: pi-02, board: pi3}}
  - {{hostname: pi-03, board: pi4}}
"""


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RPI_IMAGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need("sfdisk", "zstd")
    return small_base(tmp_path_factory.mktemp("base"))


@pytest.fixture
def room(tmp_path: Path, base: Path) -> Path:
    path = tmp_path / "room.yml"
    path.write_text(ROOM.format(image=base), encoding="utf-8")
    return path


def exported(room: Path, *more: object) -> dict[str, Any]:
    out = room.parent / "out"
    words = ["export", room, "--format", "imager", "-o", out, *more]
    assert rpi_image([*map(str, words)]) == 0
    content: dict[str, Any] = json.loads((out / "os_list.json").read_text("utf-8"))
    jsonschema.Draft7Validator(FORM).validate(content)
    page = parse_list((out / "os_list.json").read_bytes(), "os_list.json")
    assert (len(page.entries), page.links, page.notes) == (len(content["os_list"]), (), ())
    return content


def file_of(entry: dict[str, Any]) -> Path:
    return Path(url2pathname(urlsplit(entry["url"]).path))


def test_there_is_one_base_image_for_each_kind_of_board(room: Path) -> None:
    content = exported(room)
    assert [entry["name"].partition(":")[0] for entry in content["os_list"]] == ["pi4", "pi3"]
    assert [entry["devices"] for entry in content["os_list"]] == [["pi4-32bit"], ["pi3-32bit"]]
    assert "2 cards of class-3b" in content["os_list"][0]["description"]
    boards = {d["name"]: d["tags"] for d in content["imager"]["devices"]}
    assert list(boards) == ["Raspberry Pi 3B", "Raspberry Pi 4B", "No filtering"]
    # Imager's own settings would compete with ours.
    assert {entry["init_format"] for entry in content["os_list"]} == {"none"}


def test_a_base_image_of_the_cache_has_its_digest_and_size(
    room: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (entry,) = {json.dumps(e) for e in map(facts, exported(room)["os_list"])}
    assert json.loads(entry)["extract_sha256"] == ""
    assert "run `rpi-image fetch` first" in capsys.readouterr().err
    assert rpi_image(["batch", str(room), "-o", str(room.parent / "build")]) == 0
    capsys.readouterr()
    for known in exported(room)["os_list"]:
        base = file_of(known)
        assert known["image_download_size"] == base.stat().st_size
        assert len(known["extract_sha256"]) == 64
    assert "warning" not in capsys.readouterr().err


def facts(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: entry[key] for key in ("url", "extract_size", "extract_sha256")}


def test_the_images_of_nodes_are_listed_with_the_digest_of_sha256sum(
    room: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build = room.parent / "my build"
    assert rpi_image(["batch", str(room), "-o", str(build)]) == 0
    content = exported(room, "--with-images", build)
    said = capsys.readouterr().err
    assert "hold secrets" in said
    nodes = content["os_list"][2:]
    assert [entry["name"] for entry in nodes] == [f"pi-0{n} (class-3b)" for n in (1, 2, 3)]
    assert "label 1 of 3, Zoë" in nodes[0]["description"]
    for entry in nodes:
        assert entry["extract_sha256"] == sha256sum(file_of(entry))
        assert entry["extract_size"] == file_of(entry).stat().st_size
        assert file_of(entry).stat().st_mode & 0o077 == 0
    text = (room.parent / "out/os_list.json").read_text()
    assert "correct horse" not in text + said
    (build / "pi-02.img").unlink()
    assert len(exported(room, "--with-images", build)["os_list"]) == 4
    assert "no finished image of pi-02" in capsys.readouterr().err


def test_only_the_owner_can_read_what_is_written(room: Path) -> None:
    before = os.umask(0)
    try:
        exported(room)
    finally:
        os.umask(before)
    out = room.parent / "out"
    assert (out.stat().st_mode & 0o777, (out / "os_list.json").stat().st_mode & 0o777) == (
        0o700,
        0o600,
    )


def test_without_a_board_those_of_the_profile_are_meant(room: Path) -> None:
    """A Pi 5 has the kernel, but is not one of armv7."""
    room.write_text(room.read_text("utf-8").replace(", board: pi4", ""), encoding="utf-8")
    first, *_ = exported(room)["os_list"]
    assert first["name"].startswith("armv7: ")
    assert first["devices"] == ["pi2-32bit", "pi3-32bit", "pi4-32bit"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--format", "imager", "--with-images", "empty"], "no image of a node of room.yml"),
        (["--format", "hosts", "--with-images", "empty"], "--with-images is for Raspberry Pi"),
    ],
)
def test_images_that_are_not_there_are_refused(
    room: Path,
    words: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(room.parent)
    assert rpi_image(["export", "room.yml", "-o", "out", *words]) == 2
    assert said in capsys.readouterr().err
    assert not (room.parent / "out").exists()


def test_the_digests_of_the_catalogue_are_taken_as_they_are(tmp_path: Path) -> None:
    source = ImageSource(
        name="raspios-lite-arm64@2026-06-18",
        url="https://example.org/lite.img.xz",
        raw_sha256="ab" * 32,
        raw_size_bytes=2977955840,
    )
    nodes = [node(n, image=source, arch="arm64", machines=("aarch64",)) for n in (1, 2)]
    repository = ImagerRepository(
        classroom=make_classroom(tmp_path, *nodes),
        images=None,
        boards={},
        cached=lambda _: None,
        reporter=SILENT,
        today="2026-11-28",
    )
    (entry,) = repository.content()["os_list"]
    assert entry["url"] == source.url
    assert (entry["extract_sha256"], entry["extract_size"]) == ("ab" * 32, 2977955840)
    assert entry["release_date"] == "2026-06-18"
    assert {tag.partition("-")[0] for tag in entry["devices"]} == {"pi3", "pi4", "pi5"}
    # Our own listing takes it as it takes the published one.
    entry["image_download_size"] = 1
    (known,), notes = published_entries([entry])
    assert (known.raw_sha256, known.released, notes) == ("ab" * 32, "2026-06-18", ())
