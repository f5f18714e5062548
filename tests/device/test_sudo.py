"""Under sudo: the program acts as the user who called it, whose home and cache it uses."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest

from imagebuilder.files import make_folder, write_file
from tests.device.cards import CARD_BYTES, SmallImage, card
from tests.lib.teacher import RPI_IMAGE, TEACHER, Teacher, teacher
from tests.lib.tools import need_root, run

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

pytestmark = pytest.mark.root


@pytest.fixture
def user() -> Iterator[Teacher]:
    with teacher() as made:
        made.may("NOPASSWD: ALL")
        yield made


def sudo(user: Teacher, *words: str | Path) -> subprocess.CompletedProcess[str]:
    return user.run("sudo", *RPI_IMAGE, *words)


def owned(user: Teacher, path: Path) -> Path:
    os.chown(path, TEACHER, TEACHER)
    assert path.is_relative_to(user.home)
    return path


def test_what_a_flash_leaves_behind_is_the_user_s(user: Teacher, small: SmallImage) -> None:
    """The base is unpacked into the user's cache; ledger, locks and keys can be used again."""
    room = user.home / "class"
    write_file(user.home / "key", b"correct horse battery")
    packed = user.home / "base.img.gz"
    run("sh", "-c", f"gzip -1 <{small.path} >{packed}")
    room.mkdir()
    owned(user, room)
    write_file(
        room / "class.yml",
        b"profile: armv7\nimage: {file: ~/base.img.gz, unchecked: true}\n"
        b"shack: {address: 192.168.2.1}\ndocker: {tls: true}\n"
        b"wifi: {country: FR, networks: [{ssid: shack, passphrase: {file: ~/key}}]}\n"
        b"nodes: [{hostname: pi-01}]\n",
    )
    before = set(user.home.rglob("*"))
    with card(user.system, CARD_BYTES) as device:
        done = sudo(user, "flash", device, "-c", room / "class.yml", "--yes", "--allow-loop")
    assert done.returncode == 0, done.stderr
    made = set(user.home.rglob("*")) - before
    names = {path.name for path in made}
    assert {"class.cards.yml", "class.cards.yml.lock", "class.secrets", "images"} <= names
    assert {(path.lstat().st_uid, path.lstat().st_gid) for path in made} == {(TEACHER, TEACHER)}
    assert oct((room / "class.secrets").stat().st_mode & 0o777) == "0o700"


def test_what_is_built_or_unpacked_is_the_user_s(user: Teacher, small: SmallImage) -> None:
    shutil.copy(small.path, user.home / "small.img")
    run("gzip", "-1", "-k", user.home / "small.img")
    before = set(user.home.rglob("*"))
    words = ("--profile", "armv7", "--hostname", "pi-03", "--image", "small.img")
    for command in (("build", *words, "-o", "out/pi-03.img"), ("inspect", "small.img.gz")):
        done = sudo(user, *command)
        assert done.returncode == 0, done.stderr
    made = set(user.home.rglob("*")) - before
    assert user.home / "out" / "pi-03.img" in made
    assert {path.lstat().st_uid for path in made} == {TEACHER}


def test_what_only_root_may_read_is_not_read(user: Teacher) -> None:
    """Neither by its name nor by a link of the user."""
    secret = user.home / "secret.yml"
    secret.write_text("profile: armv7\nnodes: [{hostname: pi-01}]\n")
    secret.chmod(0o600)
    (user.home / "link.yml").symlink_to("/etc/shadow")
    for name, code in (("secret.yml", 3), ("link.yml", 3)):
        done = sudo(user, "check", name)
        assert done.returncode == code
        assert "ermission denied" in done.stdout + done.stderr


def test_a_program_that_the_user_cannot_read_is_said(user: Teacher) -> None:
    place, copy = Path(str(click.__file__)).parent, user.system / "click"
    hide = (
        f"cp -a {place} {copy}; mount -t tmpfs tmpfs {place}; cp -a {copy}/. {place}\n"
        f"chmod 700 {place}\n"
    )
    done = user.run("sudo", *RPI_IMAGE, "profiles", before=hide)
    assert done.returncode == 6
    assert f"user {TEACHER}, who called sudo, cannot read" in done.stderr


def test_in_root_s_own_folder_nothing_is_given_away(tmp_path: Path) -> None:
    need_root()
    make_folder(tmp_path / "a" / "b", 0o700)
    write_file(tmp_path / "a" / "b" / "file", b"")
    assert {path.stat().st_uid for path in tmp_path.rglob("*")} == {0}
    assert oct((tmp_path / "a" / "b").stat().st_mode & 0o777) == "0o700"
