"""A card is opened by root, or for its user; everything else is done by the user."""

from __future__ import annotations

import os
import shutil
import signal
import termios
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from imagebuilder.errors import PERMISSION_HINT
from tests.device.cards import CARD_BYTES, SmallImage, card, flash, is_same
from tests.lib.teacher import (
    CLASS,
    PASSWORD,
    RPI_IMAGE,
    TEACHER,
    Teacher,
    Terminal,
    processes,
    teacher,
)
from tests.lib.tools import need, run

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.root

ALL_FOUR = "\t".join([str(TEACHER)] * 4)
FLASH = ("--image", "small.img", "--full", "--allow-loop")
ANYTHING = "NOPASSWD: ALL"


@pytest.fixture
def user(small: SmallImage) -> Iterator[Teacher]:
    with teacher() as made:
        shutil.copy(small.path, made.home / "small.img")
        yield made


@pytest.fixture
def device(tmp_path: Path) -> Iterator[str]:
    with card(tmp_path, CARD_BYTES) as made:
        yield made


def openers() -> list[dict[str, str]]:
    return processes("opener.py", of="-I -S")


@pytest.mark.parametrize("before", [(), ("sudo",)], ids=["opener by sudo", "sudo"])
def test_what_reads_images_is_never_root(
    before: tuple[str, ...], user: Teacher, device: str, small: SmallImage
) -> None:
    """The question comes after the image was read: from then on all four IDs are the user's."""
    user.may(ANYTHING)
    words = user.command(*before, *RPI_IMAGE, "flash", device, *FLASH)
    with Terminal(words, user.home) as terminal:
        terminal.until("to continue:")
        (program,) = processes("imagebuilder flash", of=device)
        assert (program["Uid"], program["Gid"]) == (ALL_FOUR, ALL_FOUR)
        assert set(program["Groups"].split()) == {str(TEACHER), str(CLASS)}
        assert {program[name] for name in ("CapPrm", "CapEff", "CapAmb")} == {"0" * 16}
        assert [opener["Uid"] for opener in openers()] == ["0\t0\t0\t0"]
        terminal.type(f"{device}\n")
        assert terminal.end() == 0, terminal.shown
    assert "written and verified" in terminal.shown
    assert is_same(device, small.path)
    assert openers() == []


def test_sudo_asks_on_the_terminal_and_leaves_it_as_it_was(
    user: Teacher, device: str, small: SmallImage
) -> None:
    user.may("ALL")
    with Terminal(user.command(*RPI_IMAGE, "flash", device, *FLASH), user.home) as terminal:
        terminal.until("password for teacher:")
        terminal.type("wrong\n")
        terminal.until("try again")
        terminal.until("password for teacher:")
        terminal.type(f"{PASSWORD}\n")
        terminal.until("to continue:")
        modes = termios.tcgetattr(terminal.slave)
        assert modes[3] & termios.ICANON
        assert modes[3] & termios.ISIG
        assert modes[1] & termios.OPOST
        terminal.type("\x03")  # Ctrl-C ends the program, and with it the opener
        terminal.until("interrupted")
        terminal.end()
    assert openers() == []
    assert not is_same(device, small.path)


def test_a_refused_password_writes_nothing(user: Teacher, device: str) -> None:
    user.may("ALL")
    with Terminal(user.command(*RPI_IMAGE, "flash", device, *FLASH), user.home) as terminal:
        for _ in range(3):
            terminal.until("password for teacher:")
            terminal.type("wrong\n")
        assert terminal.end() == 6
    assert f"no permission to write {device}" in terminal.shown
    assert "root (sudo)" in terminal.shown


def test_without_a_terminal_and_without_permission_it_is_said_at_once(
    user: Teacher, device: str
) -> None:
    done = user.run(*RPI_IMAGE, "flash", device, *FLASH, "--yes")
    assert done.returncode == 6
    assert f"no permission to write {device}" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_group_of_disks_needs_no_root(user: Teacher, device: str, small: SmallImage) -> None:
    disk = 6543
    os.chown(device, 0, disk)
    Path(device).chmod(0o660)
    try:
        words = (*RPI_IMAGE, "flash", device, *FLASH, "--yes")
        done = user.run(*words, groups=(disk,))
    finally:
        os.chown(device, 0, 0)
        Path(device).chmod(0o600)
    assert done.returncode == 0, done.stderr
    assert is_same(device, small.path)
    assert "sudo" not in done.stderr


@pytest.mark.parametrize("before", [(), ("sudo",)], ids=["opener by sudo", "sudo"])
def test_the_opener_unmounts_and_reads_the_new_table(
    before: tuple[str, ...], user: Teacher, device: str, small: SmallImage, tmp_path: Path
) -> None:
    """The kernel reads a table for root only; partition 5 is not in that of the image."""
    need("mkfs.ext4", "losetup", "addpart")
    user.may(ANYTHING)
    backing = run("losetup", "--noheadings", "--output=BACK-FILE", device).strip()
    run("mkfs.ext4", "-q", "-F", backing)
    part = run("losetup", "--find", "--show", "--partscan", backing).strip()
    run("addpart", part, "5", "2048", "2048")
    mount = f'mkdir -p "$1/it" && mount {part} "$1/it"'
    try:
        words = (*before, *RPI_IMAGE, "flash", part, *FLASH, "--yes", "--unmount")
        done = user.run(*words, before=mount.replace("$1", str(user.system)))
        assert done.returncode == 0, done.stderr
        assert not Path(f"{part}p5").exists()
        assert "insert the card again" not in done.stderr
    finally:
        run("losetup", "--detach", part)


def test_verify_and_inspect_read_by_the_opener(
    user: Teacher, device: str, small: SmallImage
) -> None:
    user.may(ANYTHING)
    assert flash(device, "--image", small.path, "--allow-loop", "--yes").returncode == 0
    verified = user.run(*RPI_IMAGE, "verify", device, "--image", "small.img")
    assert verified.returncode == 0, verified.stderr
    inspected = user.run(*RPI_IMAGE, "inspect", device)
    assert inspected.returncode == 0, inspected.stderr
    assert "black-pearl" in inspected.stdout
    user.may("")
    for words in (("verify", device, "--image", "small.img"), ("inspect", device)):
        refused = user.run(*RPI_IMAGE, *words)
        assert refused.returncode == 5
        assert "ermission denied" in refused.stderr
        assert f"hint: {PERMISSION_HINT}" in refused.stderr


@pytest.mark.parametrize(
    "words", [("--image", "small.img", "--allow-loop"), ("-c", "classroom.yml", "--queue")]
)
def test_flash_hints_the_same_and_a_queue_at_its_start(
    words: tuple[str, ...], user: Teacher, device: str
) -> None:
    """The base image is missing, and is not looked for before the permission."""
    image = "{url: 'http://127.0.0.1:9/none.img', unchecked: true}"
    room = f"profile: armv7\nimage: {image}\nnodes: [{{hostname: pi-01}}]\n"
    (user.home / "classroom.yml").write_text(room)
    place = () if "--queue" in words else (device,)
    refused = user.run(*RPI_IMAGE, "flash", *place, *words, "--yes")
    assert refused.returncode == 6, refused.stderr
    assert "no permission to write " in refused.stderr
    assert f"hint: {PERMISSION_HINT}" in refused.stderr


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_opener_ends_with_its_program(
    number: signal.Signals, user: Teacher, device: str
) -> None:
    user.may(ANYTHING)
    words = user.command("sudo", *RPI_IMAGE, "flash", device, *FLASH)
    with Terminal(words, user.home) as terminal:
        terminal.until("to continue:")
        (program,) = processes("imagebuilder flash", of=device)
        assert len(openers()) == 1
        os.kill(int(program["Pid"]), number)
        assert terminal.end() != 0
    assert openers() == []
