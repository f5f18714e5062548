"""Under sudo: the caller's home and cache are used, and what is made belongs to the caller."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from imagebuilder.files import make_folder, write_file
from tests.device.cards import CARD_BYTES, RPI_IMAGE, SmallImage, card
from tests.lib.tools import need, need_root, run

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.root

TEACHER = 4321
# Another /etc/passwd for this one program; sudo hands on neither the environment nor the home.
AS_SUDO = 'mount --bind "$PASSWD" /etc/passwd && exec env -i PATH="$PATH" HOME=/root \
SUDO_UID=4321 SUDO_GID=4321 SUDO_USER=teacher "$@"'


@pytest.fixture
def home(tmp_path: Path) -> Path:
    need_root()
    made = tmp_path / "home"
    made.mkdir()
    os.chown(made, TEACHER, TEACHER)
    return made


def sudo(home: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    need("unshare", "mount")
    passwd = home.with_name("passwd")
    passwd.write_text(
        f"root:x:0:0:root:/root:/bin/sh\nteacher:x:{TEACHER}:{TEACHER}::{home}:/bin/sh\n"
    )
    command = ["unshare", "--mount", "sh", "-c", AS_SUDO, "sh", *RPI_IMAGE, *map(str, words)]
    return subprocess.run(
        command,
        env={**os.environ, "PASSWD": str(passwd)},
        cwd=home,
        capture_output=True,
        text=True,
        check=False,
    )


def test_what_a_flash_leaves_behind_is_the_teacher_s(home: Path, small: SmallImage) -> None:
    """The base is unpacked into the teacher's cache; ledger, locks and keys can be used again."""
    room = home / "class"
    write_file(home / "key", b"correct horse battery")
    packed = home / "base.img.gz"
    packed.write_bytes(b"")
    run("sh", "-c", f"gzip -1 <{small.path} >{packed}")
    make_folder(room)
    write_file(
        room / "class.yml",
        b"profile: armv7\nimage: {file: ~/base.img.gz, unchecked: true}\n"
        b"shack: {address: 192.168.2.1}\ndocker: {tls: true}\n"
        b"wifi: {country: FR, networks: [{ssid: shack, passphrase: {file: ~/key}}]}\n"
        b"nodes: [{hostname: pi-01}]\n",
    )
    with card(home.parent, CARD_BYTES) as device:
        done = sudo(home, "flash", device, "-c", room / "class.yml", "--yes", "--allow-loop")
    assert done.returncode == 0, done.stderr
    made = [path for path in home.rglob("*") if path != packed]
    names = {path.name for path in made}
    assert {"class.cards.yml", "class.cards.yml.lock", "class.secrets", "images"} <= names
    assert [path for path in made if path.lstat().st_uid != TEACHER] == []
    assert [path for path in made if path.lstat().st_gid != TEACHER] == []
    assert oct((room / "class.secrets").stat().st_mode & 0o777) == "0o700"


def test_what_is_built_is_the_teacher_s(home: Path, small: SmallImage) -> None:
    words = ("--profile", "armv7", "--hostname", "pi-03", "--image", small.path)
    done = sudo(home, "build", *words, "-o", "out/pi-03.img")
    assert done.returncode == 0, done.stderr
    made = list((home / "out").iterdir())
    assert {path.stat().st_uid for path in [*made, home / "out"]} == {TEACHER}


def test_a_cache_that_only_a_look_into_an_archive_made_is_the_teacher_s(
    home: Path, small: SmallImage
) -> None:
    packed = home / "base.img.gz"
    run("sh", "-c", f"gzip -1 <{small.path} >{packed}")
    done = sudo(home, "inspect", packed)
    assert done.returncode == 0, done.stderr
    made = [path for path in home.rglob("*") if path != packed]
    assert {path.stat().st_uid for path in made} == {TEACHER}


def test_in_root_s_own_folder_nothing_is_given_away(tmp_path: Path) -> None:
    need_root()
    make_folder(tmp_path / "a" / "b", 0o700)
    write_file(tmp_path / "a" / "b" / "file", b"")
    assert {path.stat().st_uid for path in tmp_path.rglob("*")} == {0}
    assert oct((tmp_path / "a" / "b").stat().st_mode & 0o777) == "0o700"
