"""Every reason against a device, asked of real ones: exit 6, a hint, and not one byte changed."""

from __future__ import annotations

import json
import os
import pty
import stat
import subprocess
import tempfile
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from imagebuilder.devices import blockdev
from imagebuilder.devices.inventory import list_devices, load_device
from imagebuilder.devices.safety import WritePolicy, refusals
from imagebuilder.errors import RefusedError
from tests.device.cards import (
    CARD_BYTES,
    IMAGE_BYTES,
    SmallImage,
    card,
    flash,
    garbage_file,
    head_of,
    loop,
)
from tests.lib.program import RPI_IMAGE
from tests.lib.tools import need, need_root, run

if TYPE_CHECKING:
    from collections.abc import Iterator

SAFE = ("--yes", "--allow-loop")
EVERY_FLAG = (*SAFE, "--allow-large", "--unmount", "--again", "--full")


def refused(done: subprocess.CompletedProcess[str], *words: str) -> bool:
    """Return whether it ended as a refusal that says these words, with a hint."""
    said = done.stderr.replace("\n", " ")
    return done.returncode == 6 and "hint:" in said and all(word in said for word in words)


@contextmanager
def mounted(device: str, folder: Path) -> Iterator[Path]:
    run("mkfs.ext4", "-q", "-F", device)
    point = folder / "mounted"
    point.mkdir()
    run("mount", device, point)
    try:
        yield point
    finally:
        run("umount", point, check=False)


@pytest.mark.root
def test_a_loop_device_without_the_flag(tmp_path: Path, small: SmallImage) -> None:
    with card(tmp_path, CARD_BYTES) as device:
        before = head_of(device)
        assert refused(flash(device, "--image", small.path, "--yes"), device, "--allow-loop")
        assert head_of(device) == before


def test_a_file_and_nothing(tmp_path: Path, small: SmallImage) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"mine")
    assert refused(flash(file, "--image", small.path, *SAFE), "is not a block device")
    assert refused(flash("/dev/nothing", "--image", small.path, *SAFE), "does not exist")
    assert refused(flash("", "--image", small.path, *SAFE), "'' is not a block device")
    steering = flash("/dev/\x1b[2J", "--image", small.path, *SAFE)
    assert refused(steering, "/dev/ [2J does not exist")
    assert file.read_bytes() == b"mine"


def test_a_refusal_is_told_as_json_too(small: SmallImage) -> None:
    done = flash("/dev/nothing", "/dev/none", "--image", small.path, *SAFE, "--json")
    assert refused(done, "/dev/nothing does not exist")
    cards = json.loads(done.stdout)["cards"]
    assert [card["device"] for card in cards] == ["/dev/nothing", "/dev/none"]
    assert {card["state"] for card in cards} == {"refused"}
    assert {card["error"] for card in cards} == {"/dev/nothing does not exist"}
    assert {card["hint"] for card in cards} == {"see `rpi-image devices`"}
    assert {card["exit_code"] for card in cards} == {6}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--node", "pi-01", "--nodes", "pi-02", "-c", "class.yml"), "exclude each other"),
        (("--stall-seconds", "0"), "--stall-seconds is 0"),
        (("--stall-seconds", "-1"), "--stall-seconds is -1"),
        (("--stall-seconds", "nan"), "--stall-seconds is nan"),
    ],
)
def test_flags_that_cannot_be(words: tuple[str, ...], said: str) -> None:
    done = flash("/dev/nothing", *words, *SAFE)
    assert done.returncode == 2
    assert said in done.stderr


@pytest.mark.root
def test_nobody_to_confirm(tmp_path: Path, small: SmallImage) -> None:
    with card(tmp_path, CARD_BYTES) as device:
        before = head_of(device)
        done = flash(device, "--image", small.path, "--allow-loop")
        assert refused(done, "--yes", device)
        assert head_of(device) == before


@pytest.mark.root
@pytest.mark.parametrize(("typed", "code"), [("right", 0), ("y", 6), ("", 6)])
def test_the_name_is_typed_at_a_terminal(
    tmp_path: Path, small: SmallImage, typed: str, code: int
) -> None:
    ours, theirs = pty.openpty()
    with card(tmp_path, CARD_BYTES) as device:
        before = head_of(device)
        command = [*RPI_IMAGE, "flash", device, "--image", str(small.path), "--allow-loop"]
        with subprocess.Popen(command, stdin=theirs, stderr=subprocess.PIPE, text=True) as program:
            os.write(ours, (device if typed == "right" else typed).encode() + b"\n")
            _, said = program.communicate(timeout=60)
        assert f"Type {device} to continue" in said
        assert program.returncode == code, said
        assert (head_of(device) == before) is (code == 6)
    os.close(ours)
    os.close(theirs)


def test_names_without_a_roster() -> None:
    for words in (("--node", "pi-01"), ("--nodes", "pi-01")):
        done = flash("/dev/nothing", *words, *SAFE)
        assert done.returncode == 2
        assert "-c FILE" in done.stderr


@pytest.mark.root
def test_a_mounted_card_unless_told_to_unmount(tmp_path: Path, small: SmallImage) -> None:
    with card(tmp_path, CARD_BYTES) as device, mounted(device, tmp_path) as point:
        (point / "thesis").write_text("years of work")
        done = flash(device, "--image", small.path, *SAFE)
        assert refused(done, "is mounted", "mounted)", "--unmount")
        assert (point / "thesis").read_text() == "years of work"
        assert flash(device, "--image", small.path, *SAFE, "--unmount").returncode == 0


@pytest.mark.root
def test_a_card_that_is_refused_anyway_stays_mounted(tmp_path: Path, small: SmallImage) -> None:
    with card(tmp_path, 2 * CARD_BYTES) as device, mounted(device, tmp_path) as point:
        image = point / "small.img"
        image.write_bytes(small.path.read_bytes())
        done = flash(device, "--image", image, *SAFE, "--unmount")
        assert refused(done, "is mounted", f"holds {image}", "or use --unmount; copy it")
        assert point.is_mount()


@pytest.mark.root
def test_a_mount_that_the_facts_missed_stops_the_claim(tmp_path: Path) -> None:
    """The kernel's own answer to O_EXCL, behind every check of ours."""
    with card(tmp_path, CARD_BYTES) as device:
        facts = load_device(device)
        with (
            mounted(device, tmp_path),
            pytest.raises(RefusedError, match="is in use"),
            blockdev.claim(facts),
        ):
            pytest.fail("claimed a mounted card")


@pytest.mark.root
def test_a_loop_that_stands_on_the_card(tmp_path: Path, small: SmallImage) -> None:
    with card(tmp_path, CARD_BYTES) as device, loop(Path(device)) as above:
        assert refused(flash(device, "--image", small.path, *EVERY_FLAG), f"loop {above}")


@pytest.mark.root
def test_a_loop_over_what_is_mounted(tmp_path: Path, small: SmallImage) -> None:
    """Over the loop itself, over its file, over a hard link to that: the kernel sees no use."""
    raw, link = garbage_file(tmp_path / "raw", CARD_BYTES), tmp_path / "link"
    link.hardlink_to(raw)
    with loop(raw) as device, mounted(device, tmp_path) as point:
        (point / "thesis").write_text("years of work")
        for file in (Path(device), raw, link):
            with loop(file) as other:
                done = flash(other, "--image", small.path, *SAFE, "--allow-large", "--full")
                assert refused(done, "is mounted", str(point))
        with loop(Path(device)) as other, loop(Path(other)) as third:
            for above in (other, third):
                done = flash(above, "--image", small.path, *EVERY_FLAG)
                assert refused(done, "is a loop device on /dev/loop", "use that disk itself")
        run("umount", point)
        run("mount", device, point)
        assert (point / "thesis").read_text() == "years of work"


@pytest.mark.root
def test_one_file_behind_two_loops_is_one_card(tmp_path: Path, classroom: Path) -> None:
    raw = garbage_file(tmp_path / "raw", CARD_BYTES)
    with loop(raw) as device, loop(raw) as other:
        assert refused(flash(device, other, "-c", classroom, *SAFE), other, "is given twice")


@pytest.mark.root
def test_the_image_lies_on_the_card(tmp_path: Path, small: SmallImage) -> None:
    with card(tmp_path, 2 * CARD_BYTES) as device, mounted(device, tmp_path) as point:
        image = point / "small.img"
        image.write_bytes(small.path.read_bytes())
        done = flash(device, "--image", image, *SAFE)
        assert refused(done, "is mounted", f"holds {image}")
        done = flash(device, "--image", small.path, *SAFE, RPI_IMAGE_CACHE=str(point / "cache"))
        assert refused(done, "holds the cache")


@pytest.mark.root
def test_the_image_is_what_the_loop_shows(tmp_path: Path, small: SmallImage) -> None:
    own = tmp_path / "own.img"
    own.write_bytes(small.path.read_bytes())
    with loop(own) as device:
        done = flash(device, "--image", own, *SAFE)
    assert refused(done, f"holds {own}")
    assert own.read_bytes() == small.path.read_bytes()


@pytest.mark.root
@pytest.mark.parametrize("place", ["link", "memory"])
def test_the_image_has_other_names_or_no_device(
    tmp_path: Path, small: SmallImage, place: str
) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm" if place == "memory" else tmp_path) as folder:
        own = image = Path(folder) / "own.img"
        own.write_bytes(small.path.read_bytes())
        if place == "link":
            image = Path(folder) / "link.img"
            image.hardlink_to(own)
        with loop(own) as device:
            done = flash(device, "--image", image, *SAFE)
        assert refused(done, f"holds {image}")
        assert own.read_bytes() == small.path.read_bytes()


@pytest.mark.root
def test_a_read_only_card(tmp_path: Path, small: SmallImage) -> None:
    raw = garbage_file(tmp_path / "raw", CARD_BYTES)
    with loop(raw, read_only=True) as device:
        assert refused(flash(device, "--image", small.path, *EVERY_FLAG), "is read-only", "lock")


@pytest.mark.root
def test_one_sector_too_small_and_one_that_just_fits(tmp_path: Path, small: SmallImage) -> None:
    needed = -(-IMAGE_BYTES // 512) * 512
    with loop(garbage_file(tmp_path / "less", needed - 512)) as device:
        before = head_of(device)
        assert refused(flash(device, "--image", small.path, *EVERY_FLAG), "is too small")
        assert head_of(device) == before
    with loop(garbage_file(tmp_path / "fits", needed)) as device:
        assert flash(device, "--image", small.path, *SAFE).returncode == 0
        assert head_of(device) == small.path.read_bytes()[: len(before)]


@pytest.mark.root
def test_large_sectors(tmp_path: Path, small: SmallImage) -> None:
    with loop(garbage_file(tmp_path / "raw", CARD_BYTES), sector_bytes=4096) as device:
        assert refused(flash(device, "--image", small.path, *EVERY_FLAG), "4096")


@pytest.mark.root
def test_more_than_a_card_usually_is(tmp_path: Path, small: SmallImage) -> None:
    huge = tmp_path / "huge"
    run("truncate", "-s", "300G", huge)
    with loop(huge) as device:
        assert refused(flash(device, "--image", small.path, *SAFE), "--allow-large")
        assert flash(device, "--image", small.path, *SAFE, "--allow-large").returncode == 0


@pytest.mark.root
def test_the_same_card_twice_even_by_another_name(tmp_path: Path, classroom: Path) -> None:
    with card(tmp_path, CARD_BYTES) as device:
        alias = tmp_path / "by-id"
        alias.symlink_to(device)
        before = head_of(device)
        assert refused(flash(device, alias, "-c", classroom, *SAFE), "is given twice")
        assert head_of(device) == before


@pytest.mark.root
def test_two_flashers_on_one_card(tmp_path: Path, small: SmallImage) -> None:
    with card(tmp_path, CARD_BYTES) as device:
        facts = load_device(device)
        with blockdev.claim(facts):
            done = flash(device, "--image", small.path, *EVERY_FLAG, "--json")
            assert refused(done, "is in use")
            (told,) = json.loads(done.stdout)["cards"]
            assert told["state"] == "claim"
            assert told["exit_code"] == 6
            assert f"hint: {told['hint']}\n" in done.stderr


@pytest.mark.root
def test_a_lock_of_another_program(tmp_path: Path, small: SmallImage) -> None:
    need("flock")
    with card(tmp_path, CARD_BYTES) as device:
        with subprocess.Popen(["flock", "--no-fork", device, "sleep", "60"]) as holder:
            done = flash(device, "--image", small.path, *SAFE)
            holder.terminate()
        assert refused(done, "is in use")


@pytest.mark.root
def test_another_medium_since_it_was_confirmed(tmp_path: Path) -> None:
    with card(tmp_path, CARD_BYTES) as device:
        facts = load_device(device)
        for changed in (
            replace(facts, sequence=(facts.sequence or 0) - 1),
            replace(facts, size_bytes=facts.size_bytes - 512),
            replace(facts, serial="another"),
        ):
            with pytest.raises(RefusedError, match="changed since"), blockdev.claim(changed):
                pytest.fail("claimed another medium")


@pytest.mark.root
def test_a_device_without_a_medium(tmp_path: Path, small: SmallImage) -> None:
    """Ask by a node of a loop device that nobody will ever attach: others attach free ones."""
    slot = tmp_path / "slot"
    os.mknod(slot, 0o600 | stat.S_IFBLK, os.makedev(7, 4000))
    assert refused(flash(slot, "--image", small.path, *SAFE), "has no medium")


def test_nothing_lifts_the_refusal_of_this_machine_s_own_disk() -> None:
    """Asked of the pure function only: a mistake here must not cost the machine."""
    need_root()
    policy = WritePolicy(allow_loop=True, allow_large=True)
    number = Path("/").stat().st_dev
    own = [
        device
        for device in list_devices()
        if device.major_minor == f"{os.major(number)}:{os.minor(number)}"
        or any(
            part.major_minor == f"{os.major(number)}:{os.minor(number)}" for part in device.parts
        )
    ]
    if not own:
        pytest.skip("the root of this machine lies on no disk of its own")
    assert refusals(own[0], policy)[0].code == "system"
