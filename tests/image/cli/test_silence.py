"""The usual class is silent, and what is acknowledged in its file says nothing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import yaml

from imagebuilder.cli.main import run as rpi_image
from tests.lib.program import SAMPLE
from tests.lib.root_images import RASPBIAN, make_root_image, package, root_files
from tests.lib.tools import run

if TYPE_CHECKING:
    from pathlib import Path

USUAL = {
    "profile": "armv7",
    "image": "sample",
    "shack": {"address": "192.168.2.1"},
    "user": {"name": "pupil", "password": {"file": "password"}},
    "wifi": {"country": "FR", "networks": [{"ssid": "shack", "passphrase": {"file": "wifi"}}]},
    "allow": ["open-docker"],
    "nodes": [{"hostname": "pi-[01-03]"}],
}
COMMANDS = (
    ("check", "class.yml"),
    ("build", "-n", "-c", "class.yml", "--hostname", "pi-01"),
    ("build", "-c", "class.yml", "--hostname", "pi-01", "-o", "one.img"),
    ("batch", "-n", "class.yml"),
    ("batch", "class.yml", "-o", "images"),
    ("shack", "class.yml", "-o", "shack"),
    ("labels", "class.yml", "-o", "labels.pdf"),
    ("export", "class.yml", "--format", "ssh-config"),
    ("inspect", "one.img"),
)
# The partition's start and its reserved sectors; sectors of one FAT (minfo).
FIRST_FAT_BYTE, FAT_BYTES = (2048 + 4) * 512, 128 * 512


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "password").write_text("correct horse\n")
    (tmp_path / "wifi").write_text("battery staple\n")
    return tmp_path


def said(
    folder: Path, words: tuple[str, ...], capsys: pytest.CaptureFixture[str], **more: object
) -> str:
    """Run a command on the class with `more` settings; return what it says beside its result."""
    (folder / "class.yml").write_text(yaml.safe_dump(USUAL | more))
    assert rpi_image(list(words)) == 0
    return capsys.readouterr().err


def test_the_usual_class_prints_no_warning(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in COMMANDS:
        assert "warning:" not in said(folder, words, capsys), words


@pytest.mark.parametrize(
    ("words", "more", "word", "text"),
    [
        (("shack", "class.yml", "-o", "shack"), {}, "open-docker", "have no password"),
        (
            ("shack", "class.yml", "-o", "shack", "--kind", "swarm-mode"),
            {},
            "shack-kind",
            "join a classic cluster",
        ),
        (("batch", "-n", "class.yml"), {"image": "dirty"}, "image-state", "not cleanly unmounted"),
        (
            ("build", "-n", "-c", "class.yml", "--hostname", "pi-01"),
            {"image": "cut"},
            "image-state",
            "is truncated",
        ),
    ],
)
def test_what_is_acknowledged_is_silent(
    words: tuple[str, ...],
    more: dict[str, str],
    word: str,
    text: str,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings = {"image": image_of(folder, more["image"])} if more else {}
    for allow, warns in (([], True), (["open-docker", word], False)):
        heard = said(folder, words, capsys, allow=allow, **settings)
        assert any(text in line for line in heard.splitlines() if "warning:" in line) is warns, (
            heard
        )


def image_of(folder: Path, kind: str) -> dict[str, object]:
    """Unpack the sample: without FAT's bit for a clean end, or without its own end."""
    raw = folder / f"{kind}.img"
    run("zstd", "-q", "-d", SAMPLE, "-o", raw)
    with raw.open("r+b") as file:
        if kind == "cut":
            file.truncate(1_000_000_000)  # the second partition ends at 1_024_000_000
        else:
            for copy in range(2):
                file.seek(FIRST_FAT_BYTE + copy * FAT_BYTES + 3)
                file.write(b"\x7f")
    return {"file": str(raw), "unchecked": True}


@pytest.mark.parametrize("installed", [("docker.io",), ()])
def test_inspect_says_of_a_card_what_the_build_said(
    installed: tuple[str, ...], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only the root file system tells whether Docker is there already."""
    packages = [package(name, "26.1.5+dfsg1-9", "armhf") for name in installed]
    base = make_root_image(folder / "base.img", root_files("armhf", RASPBIAN, *packages))
    image = {"file": str(base), "unchecked": True}
    settings = USUAL | {"image": image, "allow": ["open-docker", "no-cluster", "no-checksum"]}
    (folder / "class.yml").write_text(yaml.safe_dump(settings))
    words = ("-c", "class.yml", "--hostname", "pi-01", "-o", "one.img")
    assert rpi_image(["build", "-n", *words, "--json"]) == 0
    planned = json.loads(capsys.readouterr().out)["reach"]
    assert rpi_image(["build", *words]) == 0
    capsys.readouterr()
    assert rpi_image(["inspect", "one.img", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["reach"] == planned
    assert ("Docker in the image" in planned) is bool(installed), planned
