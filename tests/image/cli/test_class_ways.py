"""What a class without a fitting cluster, or a laptop without apt, is told beforehand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from imagebuilder.cli.main import run as rpi_image
from tests.lib.classrooms import CHECKSUM
from tests.lib.root_images import make_root_image, root_files

if TYPE_CHECKING:
    from pathlib import Path

LOGIN = "user: {name: ann, password_hash: $6$abcdefgh$abcdefgh}\n"
OLD = f"image: {{file: old.img, sha256: {CHECKSUM}}}, generation: occidentalis"
TRIXIE = f"image: {{file: raspios-trixie.img, sha256: {CHECKSUM}}}, generation: cloud-init"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


@pytest.mark.parametrize(
    "words",
    [
        ("check", "room.yml"),
        ("batch", "-n", "room.yml"),
        ("batch", "room.yml", "-o", "images"),
        ("shack", "room.yml", "-o", "shack"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize(
    ("other", "fact"), [(TRIXIE, "Docker 26.1"), ("profile: arm64", "arm64")], ids=["docker", "arm"]
)
def test_nodes_for_which_there_is_no_cluster_are_refused_by_name(
    folder: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], other: str, fact: str
) -> None:
    (folder / "room.yml").write_text(
        f"{LOGIN}allow: [open-docker, no-image]\nprofile: armv7\nshack: {{address: 10.0.0.1}}\n"
        f"nodes: [{{hostname: old, {OLD}}}, {{hostname: new, {other}}}]\n"
    )
    assert rpi_image(list(words)) == 3
    said = " ".join(capsys.readouterr())
    assert f"no swarm mode on `old` (Docker 1.6); no classic Swarm on `new` ({fact})" in said
    assert "make two classroom files, each with a shack of its own" in said
    assert [path.name for path in folder.iterdir() if path.name != "cache"] == ["room.yml"]


@pytest.mark.parametrize(
    ("shack", "way"),
    [
        ("shack: {address: 10.0.0.1}\n", "at first boot through the shack"),
        ("", "at first boot from the network"),
    ],
    ids=["shack", "network"],
)
@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("check", "room.yml"), 0),
        (("build", "-n", "-c", "room.yml", "--hostname", "pi-1"), 0),
        (("batch", "-n", "room.yml"), 0),
        (("fetch", "--packages", "-c", "room.yml"), 4),
    ],
    ids=["check", "build", "batch", "fetch"],
)
def test_without_apt_the_plan_says_on_which_way_the_pi_gets_its_packages(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    shack: str,
    way: str,
    words: tuple[str, ...],
    code: int,
) -> None:
    """As on Fedora, macOS and Windows, where there is no apt-get."""
    make_root_image(folder / "raspios-bookworm.img", root_files("armhf"))
    (folder / "room.yml").write_text(
        f"{LOGIN}allow: [open-docker, no-checksum]\nprofile: armv7\n{shack}packages: git\n"
        "image: {file: raspios-bookworm.img, unchecked: true}\n"
        "nodes: [{hostname: 'pi-[1-2]'}]\n"
    )
    monkeypatch.setenv("PATH", str(folder))
    assert rpi_image(list(words)) == code
    said = " ".join(capsys.readouterr())
    assert f" {way}" in said
    if code:
        assert "no apt: the Pi installs its packages itself at first boot" in said
    else:
        assert f"git installed {way}" in said
