"""What an image file says of its login, whatever its name."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest
import yaml

from imagebuilder.cli.main import run as rpi_image
from tests.lib.fat_images import make_image
from tests.lib.plan_samples import STOCK

if TYPE_CHECKING:
    from pathlib import Path

# The user of each vendor; Raspberry Pi OS of 2022 on has none before somebody sets one.
USERS = {
    "occidentalis": "pi",
    "device-init-1.0": "pirate",
    "device-init-1.6": "pirate",
    "cloud-init-hypriot": "pirate",
}


@pytest.fixture(params=STOCK)
def kind(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the name of the stock image in `ours.img`, in a class of one node."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    make_image(tmp_path / "ours.img", size_mib=24, files=STOCK[request.param])
    image = {"file": "ours.img", "unchecked": True}
    nodes = [{"hostname": "pi-01"}]
    text = yaml.safe_dump({"profile": "armv7", "image": image, "nodes": nodes})
    (tmp_path / "class.yml").write_text(text)
    return str(request.param)


def test_exports_have_the_login_of_an_image_file(
    kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert rpi_image(["export", "class.yml", "--format", "ssh-config"]) == 0
    users = [line.split()[1] for line in capsys.readouterr().out.splitlines() if "User " in line]
    assert users == ([USERS[kind]] if kind in USERS else [])
    assert rpi_image(["export", "class.yml", "--format", "ansible"]) == 0
    told = re.findall(r'ansible_user: !unsafe "(\w+)"', capsys.readouterr().out)
    assert told == ([USERS[kind]] if kind in USERS else [])


def test_check_knows_who_can_log_in_as_the_built_card_does(
    kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = rpi_image(["check", "class.yml", "--json"])
    report = json.loads(capsys.readouterr().out)
    refused = "no-login" in {problem["word"] for problem in report["problems"]}
    assert (code, refused) == ((0, False) if kind in USERS else (3, True))
    if not refused:
        words = ["build", "-c", "class.yml", "--hostname", "pi-01", "-o", "pi-01.img"]
        assert rpi_image(words) == 0
        capsys.readouterr()
        assert rpi_image(["inspect", "pi-01.img", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["reach"] == report["reach"]["pi-01"]
