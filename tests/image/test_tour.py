"""`make tour`: the first boot that a newcomer sees, as a normal user."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.lib.teacher import teacher
from tests.lib.tools import need
from tests.tour import __main__ as tour

ROOT = Path(__file__).parents[2]
SAID = {
    "address": r"10\.0\.2\.15/24",
    "time zone": r"Europe/Paris, where it is .* CES?T .*",
    "keyboard": '"fr"',
    "wifi network": '"shack", country FR',
    "user": r"uid=1001\(ada\) .*\b27\(sudo\).*",
    "shack": r"10\.0\.2\.2\s+shack .*",
    "docker": ".* --label room=b12 .*",
    "/boot status": r"pi-03 at 10\.0\.2\.15: .*",
}


def test_the_page_names_what_the_tour_needs() -> None:
    page = (ROOT / "docs" / "boot.md").read_text(encoding="utf-8")
    (told,) = (part for part in page.split("\n\n") if part.startswith("`make tour`"))
    packages = {*tour.PROGRAMS.values(), "debian-archive-keyring"}
    assert set(re.findall(r"`([a-z0-9-]+)`", told)) == packages


@pytest.mark.long
@pytest.mark.root
def test_the_tour_shows_a_first_boot() -> None:
    need(
        "qemu-system-arm", "qemu-img", "cpio", "depmod", "mcopy", "mkfs.vfat", "sfdisk", "dpkg-deb"
    )
    with teacher() as user:
        done = user.run("env", f"PYTHONPATH={ROOT}", sys.executable, "-m", "tests.tour")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    shown = done.stdout + done.stderr
    assert "warning" not in done.stderr
    text = shown.replace("\r", "").partition("\nhello, I am pi-03\n")[2]
    for name, value in SAID.items():
        assert re.search(rf"^  {name} +{value}$", text, re.MULTILINE), f"{name}: {text}"


def test_the_tour_says_how_to_get_what_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "Debian or Ubuntu" in tour.missing()
    for name in ("apt-get", *tour.PROGRAMS):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setattr(tour, "KEYRING", tmp_path / "apt-get")
    assert tour.missing() == ""
    (tmp_path / "qemu-system-arm").unlink()
    assert tour.missing().endswith("sudo apt install qemu-system-arm")
    monkeypatch.setattr(tour, "KEYRING", tmp_path / "nowhere")
    assert tour.missing().endswith("sudo apt install qemu-system-arm debian-archive-keyring")
