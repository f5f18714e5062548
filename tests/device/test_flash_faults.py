"""Cards that fail in every way: exit 7, the card named, the others well, and nothing that boots."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.device.cards import (
    CARD_BYTES,
    IMAGE_BYTES,
    MIB,
    SmallImage,
    boots,
    card,
    flash,
    garbage_file,
    head_of,
    is_void,
    loop,
    lying_card,
    rpi_image,
    served,
    state_of_nodes,
)
from tests.lib.program import RPI_IMAGE
from tests.lib.tools import need, run

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.long

SAFE = ("--yes", "--allow-loop")

HONEST = """
def pread(h, buf, offset, flags): plain_read(buf, offset)
def pwrite(h, buf, offset, flags): plain_write(buf, offset)
"""
# Each fault, and what the message must say of it.
FAULTS = {
    "write error in the middle": (
        """
def pread(h, buf, offset, flags): plain_read(buf, offset)
def pwrite(h, buf, offset, flags):
    if offset <= 18 << 20 < offset + len(buf): raise RuntimeError("worn out")
    plain_write(buf, offset)
""",
        "write at",
    ),
    "write error at the last chunk": (
        """
def pread(h, buf, offset, flags): plain_read(buf, offset)
def pwrite(h, buf, offset, flags):
    if offset <= 41 << 20 < offset + len(buf): raise RuntimeError("worn out")
    plain_write(buf, offset)
""",
        "write at",
    ),
    "write error at the commit": (
        """
def pread(h, buf, offset, flags): plain_read(buf, offset)
def pwrite(h, buf, offset, flags):
    if offset < 4 << 20 and any(buf): raise RuntimeError("worn out")
    plain_write(buf, offset)
""",
        "write at 0",
    ),
    "read error while verifying": (
        """
def pread(h, buf, offset, flags):
    if offset <= 18 << 20 < offset + len(buf): raise RuntimeError("worn out")
    plain_read(buf, offset)
def pwrite(h, buf, offset, flags): plain_write(buf, offset)
""",
        "read at",
    ),
    "a bit flips on its way in": (
        """
def pread(h, buf, offset, flags): plain_read(buf, offset)
def pwrite(h, buf, offset, flags):
    plain_write(buf, offset)
    if offset <= 18 << 20 < offset + len(buf): store[18 << 20] ^= 4
""",
        "differ when read back",
    ),
    "a bit flips in the first chunk": (
        """
def pread(h, buf, offset, flags): plain_read(buf, offset)
def pwrite(h, buf, offset, flags):
    plain_write(buf, offset)
    if offset <= 70000 < offset + len(buf) and any(buf): store[70000] ^= 4
""",
        "differ when read back",
    ),
    "writes are dropped": (
        """
def pread(h, buf, offset, flags): plain_read(buf, offset)
def pwrite(h, buf, offset, flags):
    if not 20 << 20 <= offset < 21 << 20: plain_write(buf, offset)
""",
        "differ when read back",
    ),
    "the end is not there": (
        """
def pread(h, buf, offset, flags): plain_read(buf, offset)
def pwrite(h, buf, offset, flags):
    if offset < 44 << 20: plain_write(buf, offset)
""",
        "does not store data",
    ),
    "counterfeit: a third of the size, wrapping": (
        """
def wrapped(offset): return offset % (16 << 20)
def pread(h, buf, offset, flags): plain_read(buf, wrapped(offset))
def pwrite(h, buf, offset, flags): plain_write(buf, wrapped(offset))
""",
        "differ when read back",
    ),
}


@pytest.mark.root
@pytest.mark.parametrize("direct", [True, False], ids=["direct", "plain losetup"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_card_is_named_and_does_not_boot(
    tmp_path: Path, small: SmallImage, fault: str, direct: bool
) -> None:
    body, words = FAULTS[fault]
    with lying_card(tmp_path, CARD_BYTES, body, direct=direct) as device:
        done = flash(device, "--image", small.path, "--json", *SAFE)
        assert done.returncode == 7, done.stderr
        assert device in done.stderr
        assert words in done.stderr
        assert "hint:" in done.stderr
        assert "will not boot" in done.stderr
        assert json.loads(done.stdout)["cards"][0]["error"]
        assert not boots(device)
        assert is_void(device)


@pytest.mark.root
def test_the_same_simulated_card_without_a_fault_is_fine(tmp_path: Path, small: SmallImage) -> None:
    with lying_card(tmp_path, CARD_BYTES, HONEST) as device:
        assert flash(device, "--image", small.path, *SAFE).returncode == 0
        assert boots(device)


ROTTING = """
import os
def pread(h, buf, offset, flags):
    plain_read(buf, offset)
    at = (18 << 20) - offset
    if os.path.exists(ROTTEN) and 0 <= at < len(buf): buf[at] ^= 4
def pwrite(h, buf, offset, flags): plain_write(buf, offset)
"""


@pytest.mark.root
def test_verify_reads_a_plain_loop_device_past_its_file_s_cache(
    tmp_path: Path, small: SmallImage
) -> None:
    rotten = tmp_path / "rotten"
    body = f"ROTTEN = {str(rotten)!r}\n{ROTTING}"
    with lying_card(tmp_path, CARD_BYTES, body, direct=False) as device:
        assert flash(device, "--image", small.path, *SAFE).returncode == 0
        run("dd", f"if={device}", "of=/dev/null", "bs=1M")  # all of it is in the cache now
        rotten.touch()
        done = rpi_image("verify", device, "--image", small.path)
    assert done.returncode == 7, done.stdout + done.stderr
    assert "partition 2" in done.stdout


@pytest.mark.root
def test_a_loop_device_is_afterwards_as_it_was(tmp_path: Path, small: SmallImage) -> None:
    file = garbage_file(tmp_path / "card.raw", CARD_BYTES)
    for direct in (True, False):
        with loop(file, direct=direct) as device:
            assert loop_is_direct(device) == direct
            assert flash(device, "--image", small.path, *SAFE).returncode == 0
            assert rpi_image("verify", device, "--image", small.path).returncode == 0
            assert loop_is_direct(device) == direct


@pytest.mark.root
def test_a_loop_device_that_cannot_go_direct_is_written_as_before(
    tmp_path: Path, small: SmallImage
) -> None:
    """Over a file system on sectors of 4096 bytes the kernel refuses a loop device of 512."""
    need("mkfs.ext4")
    below = tmp_path / "below.raw"
    run("truncate", "-s", str(CARD_BYTES * 2), below)
    place = tmp_path / "place"
    place.mkdir()
    with loop(below, sector_bytes=4096) as large:
        run("mkfs.ext4", "-q", "-F", "-b", "4096", large)
        run("mount", large, place)
        try:
            with loop(garbage_file(place / "card.raw", CARD_BYTES), direct=False) as device:
                done = flash(device, "--image", small.path, *SAFE)
                assert done.returncode == 0, done.stderr
                assert rpi_image("verify", device, "--image", small.path).returncode == 0
        finally:
            run("umount", place, check=False)


@pytest.mark.root
def test_one_card_fails_and_the_other_does_not_notice(tmp_path: Path, classroom: Path) -> None:
    body, _ = FAULTS["write error in the middle"]
    with lying_card(tmp_path, CARD_BYTES, body) as bad, card(tmp_path, CARD_BYTES) as good:
        done = flash(bad, good, "-c", classroom, "--json", *SAFE)
        cards = {entry["node"]: entry for entry in json.loads(done.stdout)["cards"]}
        assert boots(good)
        assert is_void(bad)
    assert done.returncode == 7
    assert cards["pi-01"]["state"] == "write"
    assert cards["pi-02"]["state"] == "done"
    ledger = classroom.with_suffix(".cards.yml").read_text()
    assert "state: failed" in ledger
    # The node whose card failed is the next one.
    with card(tmp_path, CARD_BYTES) as another:
        assert flash(another, "-c", classroom, *SAFE).returncode == 0
        assert "device: " in classroom.with_suffix(".cards.yml").read_text()
    assert "state: failed" not in classroom.with_suffix(".cards.yml").read_text()


@pytest.mark.root
def test_a_card_that_is_done_is_told_while_another_is_written(
    tmp_path: Path, classroom: Path
) -> None:
    with (
        served(tmp_path, "memory", str(CARD_BYTES), speed=12) as slow,
        card(tmp_path, CARD_BYTES) as fast,
    ):
        command = [*RPI_IMAGE, "flash", slow, fast, "-c", str(classroom), *SAFE]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
            assert program.stdout
            first = program.stdout.readline()
            assert program.poll() is None
            assert state_of_nodes(classroom) == {"pi-01": "writing", "pi-02": "written"}
            rest = program.stdout.read()
    assert first.startswith(f"{fast} is pi-02: ")
    assert rest.startswith(f"{slow} is pi-01: ")
    assert rest.count("\n") == 1


STALLING = """
def pread(h, buf, offset, flags): plain_read(buf, offset)
def pwrite(h, buf, offset, flags):
    if offset == 20 << 20:
        seen["writes"] += 1
        if seen["writes"] == 1: time.sleep(6)
    plain_write(buf, offset)
"""


@pytest.mark.root
def test_a_stalling_card_is_given_up_and_the_other_is_done(tmp_path: Path, classroom: Path) -> None:
    with lying_card(tmp_path, CARD_BYTES, STALLING) as bad, card(tmp_path, CARD_BYTES) as good:
        done = flash(bad, good, "-c", classroom, "--stall-seconds", "2", *SAFE)
        assert done.returncode == 7, done.stderr
        assert f"{bad} has not answered" in done.stderr
        assert f"{good} is pi-02" in done.stdout
        assert boots(good)
        assert is_void(bad)


@pytest.mark.root
def test_a_card_that_vanishes(tmp_path: Path, small: SmallImage) -> None:
    with served(tmp_path, "memory", str(CARD_BYTES), speed=8) as device:
        command = [*RPI_IMAGE, "flash", device, "--image", str(small.path), *SAFE]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as program:
            _wait_until_busy(device)
            run("umount", "--force", tmp_path / "served", check=False)
            for server in _servers_of(tmp_path):
                os.kill(server, signal.SIGKILL)
            _, said = program.communicate(timeout=60)
    assert program.returncode == 7, said
    assert device in said
    assert "do not use the card" in said or "will not boot" in said


@pytest.mark.root
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM], ids=lambda how: how.name)
def test_ctrl_c_leaves_at_once_and_nothing_that_boots(
    tmp_path: Path, small: SmallImage, how: signal.Signals
) -> None:
    with served(tmp_path, "memory", str(CARD_BYTES), speed=8) as device:
        command = [*RPI_IMAGE, "flash", device, "--image", str(small.path), *SAFE]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as program:
            _wait_until_busy(device)
            begin = time.monotonic()
            program.send_signal(how)
            _, said = program.communicate(timeout=60)
            assert time.monotonic() - begin < 30
        assert program.returncode == 130, said
        assert "Traceback" not in said
        assert is_void(device)


@pytest.mark.root
def test_two_programs_on_one_card(tmp_path: Path, small: SmallImage) -> None:
    with served(tmp_path, "memory", str(CARD_BYTES), speed=16) as device:
        command = [*RPI_IMAGE, "flash", device, "--image", str(small.path), *SAFE]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as first:
            _wait_until_busy(device)
            second = flash(device, "--image", small.path, *SAFE)
            assert first.wait(timeout=60) == 0
        assert second.returncode == 6
        assert "is in use" in second.stderr
        assert boots(device)


@pytest.mark.root
def test_a_full_disk_of_the_machine_stops_before_the_card(
    tmp_path: Path, classroom: Path, small: SmallImage
) -> None:
    point = classroom.parent
    text = classroom.read_text()
    run("mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", point)
    try:
        classroom.write_text(text)
        filler = point / "filler"
        with filler.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                pass
        with card(tmp_path, CARD_BYTES) as device:
            before = head_of(device)
            done = flash(device, "-c", classroom, *SAFE)
            assert done.returncode == 7, done.stderr
            assert "class.cards.yml" in done.stderr
            assert head_of(device) == before
            packed = tmp_path / "small.img.gz"
            with packed.open("wb") as file:
                subprocess.run(["gzip", "-1", "-c", small.path], stdout=file, check=True)
            done = flash(device, "--image", packed, *SAFE, RPI_IMAGE_CACHE=str(point / "cache"))
            assert done.returncode in (4, 5), done.stderr
            assert "not enough space" in done.stderr
            assert head_of(device) == before
    finally:
        run("umount", point, check=False)


KILLED_AT = """
import os, signal, sys
from pathlib import Path
from imagebuilder.devices import blockdev
from imagebuilder.flash.writer import CardOptions
from imagebuilder.devices.inventory import load_device
from imagebuilder.flash.flasher import flash_cards
from imagebuilder.flash.content import CardContents
from imagebuilder.model import BaseImage

image, device, instants = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
steps = 0

def counted(method, last):
    def run(*words):
        global steps
        for after in (False, True):
            if after:
                answer = method(*words)
            steps += 1
            if steps == last:
                os.kill(os.getpid(), signal.SIGKILL)
        return answer
    return run

def flash(last):
    for name in ("read", "write", "flush", "reread_table"):
        setattr(blockdev.BlockDevice, name, counted(getattr(blockdev.BlockDevice, name), last))
    with CardContents() as contents:
        content = contents.image(BaseImage(image, "", image.stat().st_size, image.name))
        flash_cards([content.job(load_device(device))], CardOptions())

def void_and_whole():
    with open(device, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return not any(head := file.read(4 << 20)), head

for last in range(1, instants + 1):
    with open(device, "r+b") as file:
        file.write(b"garbage" * 100_000)
    child = os.fork()
    if child == 0:
        flash(last)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    void, head = void_and_whole()
    same = head == image.read_bytes()[:4 << 20]
    old = head.startswith(b"garbage" * 100_000)
    state = "void" if void else "image" if same else "untouched" if old else "broken"
    print(last, os.WIFSIGNALED(status), state, flush=True)
"""


@pytest.mark.root
@pytest.mark.long
def test_killed_at_fifty_instants_it_never_boots_half_written(
    tmp_path: Path, small: SmallImage
) -> None:
    """Before and after every single transfer: the first chunk is old, zero, or the image's."""
    with card(tmp_path, CARD_BYTES) as device:
        command = (RPI_IMAGE[0], "-c", KILLED_AT, small.path, device, "50")
        lines = run(*command).splitlines()
    seen = [line.split() for line in lines]
    killed = [state for _, signalled, state in seen if signalled == "True"]
    assert len(killed) == 50
    order = {"untouched": 0, "void": 1, "image": 2}
    assert "broken" not in killed
    assert [order[state] for state in killed] == sorted(order[state] for state in killed)
    assert killed.count("void") > 30


@pytest.mark.root
@pytest.mark.long
def test_killed_from_outside_on_a_slow_card(tmp_path: Path, small: SmallImage) -> None:
    with served(tmp_path, "memory", str(CARD_BYTES), speed=24) as device:
        command = [*RPI_IMAGE, "flash", device, "--image", str(small.path), *SAFE]
        for _ in range(3):
            with subprocess.Popen(command, stderr=subprocess.DEVNULL) as program:
                _wait_until_busy(device)
                time.sleep(random.uniform(0, 1))
                program.kill()
            assert is_void(device)
        assert flash(device, "--image", small.path, *SAFE).returncode == 0
        assert boots(device)
    assert IMAGE_BYTES > 40 * MIB


def loop_is_direct(device: str) -> bool:
    state = Path("/sys/block") / device.removeprefix("/dev/") / "loop/dio"
    return state.read_text().strip() == "1"


def _wait_until_busy(device: str) -> None:
    """Wait until something behind the first chunk has been written."""
    name = device.removeprefix("/dev/")
    before = _written_sectors(name)
    _wait(lambda: _written_sectors(name) - before > 14 * 2048)


def _written_sectors(name: str) -> int:
    with open(f"/sys/block/{name}/stat") as file:  # noqa: PTH123 - a file of the kernel
        return int(file.read().split()[6])


def _wait(ready: Callable[[], bool]) -> None:
    until = time.monotonic() + 30
    while not ready():
        assert time.monotonic() < until, "nothing happened"
        time.sleep(0.02)


def _servers_of(folder: Path) -> list[int]:
    """Find the processes that serve this one simulated card."""
    found = []
    for entry in os.listdir("/proc"):  # noqa: PTH208
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/cmdline", "rb") as file:  # noqa: PTH123
                    words = file.read()
            except OSError:
                continue
            if f"{folder}/served/card".encode() in words.split(b"\0"):
                found.append(int(entry))
    return found
