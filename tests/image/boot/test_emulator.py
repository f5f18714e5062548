"""`rpi-image boot` with real QEMU and a kernel of ten instructions, and the overlay card."""

from __future__ import annotations

import json
import shlex
import struct
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from imagebuilder.boot import emulator
from imagebuilder.disk import partitions
from imagebuilder.disk.fat.volume import BootVolume
from imagebuilder.errors import InputError
from tests.lib.program import run_program
from tests.lib.tools import need, run

if TYPE_CHECKING:
    import subprocess

ROOT = Path(__file__).parents[3]
START_SECTORS = 2048
SIZE_MIB = 16
POWER_OFF, RESTART, STAY = 0x8400_0008, 0x8400_0009, 0x8400_0000  # PSCI 0.2, 5.1
GREETING = "greetings from the kernel"


def tiny_kernel(text: str, call: int) -> bytes:
    """Assemble a kernel for QEMU's `virt`: writes `text` to the UART, then makes one PSCI call."""
    code = [
        0xE3A01409,  # mov   r1, #0x09000000, the PL011
        0xE28F201C,  # add   r2, pc, #28, the text
        0xE4D23001,  # ldrb  r3, [r2], #1
        0xE3530000,  # cmp   r3, #0
        0x15813000,  # strne r3, [r1]
        0x1AFFFFFB,  # bne   to the ldrb
        0xE59F0004,  # ldr   r0, the call
        0xE1400070,  # hvc   #0
        0xEAFFFFFE,  # b     to itself
        call,
    ]
    return struct.pack(f"<{len(code)}I", *code) + text.encode() + b"\0"


@pytest.fixture(autouse=True)
def _tools() -> None:
    need("qemu-system-arm", "qemu-img", "qemu-io", "mkfs.vfat", "mcopy", "sfdisk")


def make_image(folder: Path, *, call: int = POWER_OFF, text: str = GREETING + "\r\n") -> Path:
    """Lay a tiny kernel into an image by sfdisk, mkfs.vfat and mtools."""
    image = folder / "tiny.img"
    with image.open("wb") as file:
        file.truncate(40 << 20)
    table = f"label: dos\nunit: sectors\nstart={START_SECTORS}, size={SIZE_MIB * 2048}, type=c\n"
    run("sfdisk", "-q", image, input=table)
    volume, kernel, line = folder / "fat", folder / "kernel7.img", folder / "cmdline.txt"
    run("mkfs.vfat", "-C", volume, str(SIZE_MIB * 1024))
    kernel.write_bytes(tiny_kernel(text, call))
    line.write_text("root=/dev/mmcblk0p2 rootwait\n")
    run("mcopy", "-i", volume, kernel, line, "::/")
    run("dd", f"if={volume}", f"of={image}", "bs=1M", "seek=1", "conv=notrunc")
    return image


def boot(image: Path, *options: str, path: str = "") -> subprocess.CompletedProcess[str]:
    return run_program(["boot", str(image), *options], environment={"PATH": path} if path else {})


def test_console_comes_to_stdout_and_the_image_stays_as_it_was(tmp_path: Path) -> None:
    image = make_image(tmp_path)
    before = image.read_bytes()
    image.chmod(0o444)
    done = boot(image)
    assert done.returncode == 0, done.stderr
    assert GREETING in done.stdout
    assert "powered off on virt" in done.stderr
    assert "no wifi" in done.stderr
    assert image.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "cmdline.txt",
        "fat",
        "kernel7.img",
        "tiny.img",
    ]


def test_json_result_alone_on_stdout(tmp_path: Path) -> None:
    done = boot(make_image(tmp_path, call=STAY), "--json", "--until", "from the (kern)el")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["ok"] is True
    assert (result["outcome"], result["shown"]) == ("matched", "from the kernel")
    assert (result["machine"], result["kernel"], result["boots"]) == ("virt", "kernel7.img", 1)
    assert result["cmdline"] == "root=/dev/mmcblk0p2 rootwait"
    assert GREETING in done.stderr


@pytest.mark.parametrize(
    "command",
    [
        "rpi-image boot build/pi-03.img",
        "rpi-image boot build/pi-03.img --until 'pi-03 login:' --timeout 600 --json -q",
    ],
)
def test_the_commands_of_the_page(command: str, tmp_path: Path) -> None:
    """Those of docs/boot.md, which tests/image/cli/test_console_blocks.py compares."""
    (tmp_path / "build").mkdir()
    image = make_image(tmp_path, text="pi-03 login:")
    image.rename(tmp_path / "build" / "pi-03.img")
    done = run_program(shlex.split(command)[1:], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    if "--json" in command:
        assert json.loads(done.stdout)["outcome"] == "matched"
    else:
        assert done.stdout.startswith("pi-03 login:")


@pytest.mark.parametrize(
    ("call", "options", "code", "word"),
    [
        (POWER_OFF, ("--until", "never shown"), 5, "the console did not show 'never shown'"),
        (STAY, ("--timeout", "2", "--until", "x{9}"), 5, "the console did not show 'x{9}'"),
        (STAY, ("--timeout", "2"), 0, "timed out on virt"),
        (RESTART, (), 5, "the Pi restarted 8 times and did not stop"),
    ],
)
def test_how_it_ends_is_said(
    call: int, options: tuple[str, ...], code: int, word: str, tmp_path: Path
) -> None:
    done = boot(make_image(tmp_path, call=call), *options)
    assert done.returncode == code, done.stderr
    assert word in done.stderr


def test_restarts_are_followed_as_firmware_does(tmp_path: Path) -> None:
    done = boot(make_image(tmp_path, call=RESTART))
    assert done.stdout.count(GREETING) == emulator.MOST_BOOTS


def test_a_panic_ends_the_boot_at_once(tmp_path: Path) -> None:
    panic = "Kernel panic - not syncing: No working init found.\r\n"
    done = boot(make_image(tmp_path, call=STAY, text=panic), "--json", "--timeout", "50")
    assert done.returncode == 5
    result = json.loads(done.stdout)
    assert (result["outcome"], result["ok"]) == ("panicked", False)
    assert result["shown"] == panic.strip()
    assert result["seconds"] < 40


def test_missing_qemu_is_named_with_its_package(tmp_path: Path) -> None:
    done = boot(make_image(tmp_path), path=str(tmp_path))
    assert done.returncode == InputError.exit_code
    assert "qemu-img is not installed" in done.stderr
    assert "qemu-system-arm" in done.stderr.split("hint:")[1]


def test_no_image_no_boot_partition_and_a_compressed_one(tmp_path: Path) -> None:
    assert boot(tmp_path / "none.img").returncode == 5
    (tmp_path / "empty.img").write_bytes(bytes(1 << 20))
    assert boot(tmp_path / "empty.img").returncode == 5
    packed = tmp_path / "tiny.img.gz"
    packed.write_bytes(b"\x1f\x8b" + bytes(40))
    done = boot(packed)
    assert done.returncode == 5
    assert "compressed" in done.stderr
    assert boot(tmp_path / "empty.img", "--until", "(").returncode == InputError.exit_code


def test_card_reads_what_qemu_wrote_over_the_image(tmp_path: Path) -> None:
    image = make_image(tmp_path)
    card = emulator.make_card(image, tmp_path / "card.qcow2")
    run("qemu-io", "-f", "qcow2", "-c", "write -P 0xab 17M 100k", "-c", "write -z 1M 512", card)
    content = emulator.Card(card)
    raw = tmp_path / "raw.img"
    run("qemu-img", "convert", "-f", "qcow2", "-O", "raw", card, raw)
    assert content.size_bytes == raw.stat().st_size == 1 << 28
    with raw.open("rb") as file:
        for offset, size in ((0, 512), (1 << 20, 70_000), (17 << 20, 200_000), (39 << 20, 3 << 20)):
            file.seek(offset)
            assert content.read_at(offset, size) == file.read(size)
    assert content.read_at((1 << 28) - 100, 1000) == bytes(100)


def test_firmware_of_a_card_that_changed(tmp_path: Path) -> None:
    """What the guest wrote into cmdline.txt is what the next power-on gets."""
    image = make_image(tmp_path)
    card = emulator.make_card(image, tmp_path / "card.qcow2")
    assert emulator.load_firmware(card).cmdline == "root=/dev/mmcblk0p2 rootwait"
    volume = tmp_path / "fat"
    changed = tmp_path / "cmdline.txt"
    changed.write_text("root=/dev/mmcblk0p2 changed")
    run("mcopy", "-o", "-i", volume, changed, "::/cmdline.txt")
    run("qemu-io", "-f", "qcow2", "-c", f"write -s {volume} 1M {SIZE_MIB}M", card)
    found = emulator.load_firmware(card)
    assert found.cmdline == "root=/dev/mmcblk0p2 changed"
    content = emulator.Card(card)
    partition = partitions.boot_partition(content, partitions.read_partitions(content))
    assert found.image == BootVolume(content, partition).read("kernel7.img")
