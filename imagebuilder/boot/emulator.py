"""Boot images in QEMU like the firmware of a Pi: from the boot partition, at each restart again."""

from __future__ import annotations

import contextlib
import json
import os
import re
import selectors
import shutil
import socket
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal

from imagebuilder.boot.firmware import Firmware, read_firmware
from imagebuilder.disk.fat.volume import BootVolume
from imagebuilder.disk.partitions import boot_partition, read_partitions
from imagebuilder.disk.reader import open_raw
from imagebuilder.errors import ImageError, InputError
from imagebuilder.images.archives.formats import is_compressed
from imagebuilder.progress import SILENT, Reporter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

LIMITS = (
    "an emulated Pi has no wifi, GPIO, LEDs, camera or firmware, and another network adapter;"
    " it is slower than a Pi, and its card never fails"
)
QEMU_PACKAGES = "run `apt install qemu-system-arm qemu-utils` or `brew install qemu`"
MOST_BOOTS = 8  # starts of one emulated Pi
SMALLEST_CARD_BYTES = 1 << 28
PANIC = re.compile(rb"Kernel panic - not syncing[^\r\n]*(?=[\r\n])")
Ending = Literal["restart", "power off", "crash"]
Outcome = Literal["matched", "powered off", "timed out", "panicked", "kept restarting"]


# ---- the card: a temporary overlay on the image


@contextmanager
def open_card(image: Path, folder: Path | None = None) -> Iterator[Path]:
    """Yield a temporary qcow2 overlay on `image`, with the size of an SD card.

    The image itself is only read. QEMU requires a power of two as card size (hw/sd/sd.c).
    """
    need_qemu("qemu-img")
    with TemporaryDirectory(prefix="rpi-image-", dir=folder) as work:
        yield make_card(image, Path(work) / "card.qcow2")


def make_card(image: Path, card: Path) -> Path:
    """Write the overlay `card` on the raw `image`; return its path."""
    with open_raw(image) as raw:
        size = card_bytes(raw.size_bytes)
    _qemu_img("create", "-q", "-f", "qcow2", "-F", "raw", "-b", image.resolve(), card, str(size))
    return card


def card_bytes(image_bytes: int) -> int:
    """Return the smallest power of two, at least 256 MiB, that holds the image."""
    return max(SMALLEST_CARD_BYTES, 1 << (image_bytes - 1).bit_length())


@dataclass(frozen=True, slots=True)
class _MappedRange:
    """A range of the card and the place of its bytes; without a file they are zeros."""

    start_bytes: int
    size_bytes: int
    file: str
    offset_bytes: int


class Card:
    """A ReadAt for a qcow2 overlay that is not in use, by the output of `qemu-img map`."""

    def __init__(self, card: Path) -> None:
        listed: list[dict[str, Any]] = json.loads(
            _qemu_img("map", "-f", "qcow2", "--output=json", card)
        )
        backing: str = json.loads(_qemu_img("info", "-f", "qcow2", "--output=json", card))[
            "full-backing-filename"
        ]
        self._ranges = [_parse_range(entry, str(card), backing) for entry in listed]
        self.size_bytes = sum(mapped.size_bytes for mapped in self._ranges)

    def read_at(self, offset_bytes: int, size_bytes: int) -> bytes:
        """Return up to `size_bytes` from `offset_bytes`; fewer only at the end of the card."""
        end = min(offset_bytes + size_bytes, self.size_bytes)
        parts = []
        for mapped in self._ranges:
            first = max(offset_bytes, mapped.start_bytes)
            last = min(end, mapped.start_bytes + mapped.size_bytes)
            if first < last:
                parts.append(_read_range(mapped, first, last - first))
        return b"".join(parts)


def _parse_range(entry: dict[str, Any], card: str, backing: str) -> _MappedRange:
    file = "" if entry["zero"] or not entry["data"] else backing if entry["depth"] else card
    return _MappedRange(entry["start"], entry["length"], file, entry.get("offset", 0))


def _read_range(mapped: _MappedRange, start_bytes: int, size_bytes: int) -> bytes:
    if not mapped.file:
        return bytes(size_bytes)
    with open(mapped.file, "rb") as source:  # noqa: PTH123 - a path as qemu-img writes it
        source.seek(mapped.offset_bytes + start_bytes - mapped.start_bytes)
        return source.read(size_bytes).ljust(size_bytes, b"\0")


def load_firmware(card: Path, machine: str = "", words: Sequence[str] = ()) -> Firmware:
    """Return what the firmware would load from the card's boot partition."""
    content = Card(card)
    partition = boot_partition(content, read_partitions(content))
    return read_firmware(BootVolume(content, partition), machine, words)


# ---- one power-on


def need_qemu(program: str) -> None:
    """Raise InputError with the names of the packages if a program of QEMU is missing."""
    if shutil.which(program) is None:
        raise InputError(f"{program} is not installed", QEMU_PACKAGES)


def _qemu_img(*arguments: str | Path) -> str:
    need_qemu("qemu-img")
    done = subprocess.run(["qemu-img", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ImageError(
            f"qemu-img cannot open the image: {done.stderr.strip()}",
            "use a raw image that is not in use",
        )
    return done.stdout


def qemu_command(
    firmware: Firmware,
    card: Path,
    folder: Path,
    *,
    online: bool = False,
    network: str = "",
    more: Sequence[str] = (),
) -> list[str]:
    """Write kernel, initramfs and device tree to `folder`; return the command line of QEMU.

    The serial console is on stdin and stdout. With `online` the guest can reach the network;
    `network` is more options of QEMU's user network.
    """
    machine = firmware.machine
    board = machine.board or machine.name
    command = [machine.program, "-M", board, "-nographic", "-no-reboot"]
    command += [option.format(disk=_escaped(card)) for option in machine.options]
    command += ["-netdev", f"user,id=net,restrict={'off' if online else 'on'}{network}"]
    command += ["-serial", "stdio", "-monitor", "none", "-append", firmware.cmdline]
    loaded = (("-kernel", firmware.image), ("-initrd", firmware.initramfs), ("-dtb", firmware.tree))
    for option, content in loaded:
        if content:
            file = folder / option.removeprefix("-")
            file.write_bytes(content)
            command += [option, str(file)]
    return [*command, *more]


def _escaped(path: Path) -> str:
    return str(path).replace(",", ",,")  # a comma separates QEMU options


@dataclass
class Emulator:
    """A running QEMU with its serial console, and how it ended.

    `sink` gets each piece of console output; `console` keeps all of it.
    """

    command: Sequence[str]
    sink: Callable[[bytes], None] = lambda _: None
    descriptors: tuple[int, ...] = ()
    console: bytearray = field(default_factory=bytearray)
    ending: Ending | None = None
    _events: bytes = b""

    def __post_init__(self) -> None:
        need_qemu(self.command[0])
        self._monitor, theirs = socket.socketpair()
        with theirs:
            self._process = self._start(theirs.fileno())
        with contextlib.suppress(ConnectionError):  # it exited already; its output has the reason
            self._monitor.sendall(b'{"execute": "qmp_capabilities"}\n{"execute": "cont"}\n')
        assert self._process.stdout is not None  # noqa: S101 - opened with PIPE
        self._output = self._process.stdout.fileno()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._output, selectors.EVENT_READ, self._take_console)
        self._selector.register(self._monitor, selectors.EVENT_READ, self._monitor_speaks)

    def _start(self, monitor: int) -> subprocess.Popen[bytes]:
        # -S: wait for `cont`, so that no event is lost before the monitor is connected.
        control = ["-S", "-chardev", f"socket,id=qmp,fd={monitor}"]
        control += ["-mon", "chardev=qmp,mode=control"]
        return subprocess.Popen(
            [*self.command, *control],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=(monitor, *self.descriptors),
        )

    def watch(self, descriptor: int, take: Callable[[], None]) -> None:
        """Call `take` whenever `descriptor` is readable."""
        self._selector.register(descriptor, selectors.EVENT_READ, take)

    def forget(self, descriptor: int) -> None:
        """Stop watching `descriptor`."""
        self._selector.unregister(descriptor)

    def pump(self, seconds: float) -> None:
        """Handle the output that comes within `seconds`; return after the first piece."""
        for key, _ in self._selector.select(max(0.0, seconds)):
            key.data()

    def type(self, text: str) -> None:
        """Send `text` to the serial console."""
        assert self._process.stdin is not None  # noqa: S101 - opened with PIPE
        self._process.stdin.write(text.encode())
        self._process.stdin.flush()

    def wait_for(
        self, *patterns: re.Pattern[bytes], seconds: float, start: int = 0
    ) -> re.Match[bytes] | None:
        """Return the first match in the console after `start`; None at the end or on timeout."""
        until = time.monotonic() + seconds
        while True:
            for pattern in patterns:
                if match := pattern.search(self.console, start):
                    return match
            if self.ending or time.monotonic() >= until:
                return None
            self.pump(min(1.0, until - time.monotonic()))

    def wait_exit(self) -> None:
        """Take the rest of the console, and wait for the exit of QEMU.

        The monitor may tell the end before the last text is read. After the exit all writes are on
        the card.
        """
        while text := os.read(self._output, 1 << 16):
            self.console += text
            self.sink(text)
        self._process.wait()

    def kill(self) -> None:
        """Kill QEMU, like a power cut."""
        self._process.kill()
        self._process.wait()
        self._selector.close()
        self._monitor.close()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def _take_console(self) -> None:
        if text := os.read(self._output, 1 << 16):
            self.console += text
            self.sink(text)
            return
        self._selector.unregister(self._output)
        self._process.wait()
        while self._take_events():
            pass
        self.ending = self.ending or "crash"

    def _monitor_speaks(self) -> None:
        if not self._take_events():
            self._selector.unregister(self._monitor)

    def _take_events(self) -> bool:
        """Handle events of the monitor; return False once it is closed."""
        text = b""
        with contextlib.suppress(ConnectionError):
            text = self._monitor.recv(1 << 16)
        *lines, self._events = (self._events + text).split(b"\n")
        for event in (json.loads(line) for line in lines if line.strip()):
            if event.get("event") == "SHUTDOWN":
                reset = event["data"]["reason"] == "guest-reset"
                self.ending = "restart" if reset else "power off"
        return bool(text)


# ---- a whole boot


@dataclass(frozen=True, slots=True, kw_only=True)
class BootRequest:
    """The image to boot and when to stop; an empty `machine` means the first that fits."""

    image: Path
    machine: str = ""
    timeout_seconds: float = 300.0
    until: re.Pattern[bytes] | None = None
    online: bool = False
    words: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BootResult:
    """The result of a boot; `boots` counts starts, `shown` is the match or the kernel panic."""

    outcome: Outcome
    machine: str
    kernel: str
    cmdline: str
    boots: int
    seconds: float
    shown: str = ""


def fault_of(request: BootRequest, result: BootResult) -> str:
    """Return why the boot failed; empty if it did not."""
    if result.outcome == "panicked":
        return "the kernel panicked"
    if result.outcome == "kept restarting":
        return f"the Pi restarted {result.boots} times and did not stop"
    if result.outcome == "matched" or request.until is None:
        return ""
    return f"the console did not show {request.until.pattern.decode()!r}"


def boot_image(
    request: BootRequest, sink: Callable[[bytes], None], reporter: Reporter = SILENT
) -> BootResult:
    """Boot a temporary overlay of the image, and follow restarts like the firmware.

    Stop at a match of `until`, a power-off, a panic, too many restarts or the timeout. Raise
    ImageError if QEMU itself fails.
    """
    if request.image.is_file() and is_compressed(request.image):
        raise ImageError(
            f"{request.image} is compressed", "unpack it first, or build without --compress"
        )
    reporter.note(f"booting {request.image.name}; {LIMITS}")
    begun, boots = time.monotonic(), 0
    outcome: Outcome = "kept restarting"
    with open_card(request.image) as card:
        while outcome == "kept restarting" and boots < MOST_BOOTS:
            boots += 1
            firmware = load_firmware(card, request.machine, request.words)
            left = request.timeout_seconds - (time.monotonic() - begun)
            outcome, shown = _boot_once(request, firmware, card, sink, left)
    return BootResult(
        outcome=outcome,
        machine=firmware.machine.name,
        kernel=firmware.kernel,
        cmdline=firmware.cmdline,
        boots=boots,
        seconds=round(time.monotonic() - begun, 1),
        shown=shown,
    )


def _boot_once(
    request: BootRequest,
    firmware: Firmware,
    card: Path,
    sink: Callable[[bytes], None],
    seconds: float,
) -> tuple[Outcome, str]:
    command = qemu_command(firmware, card, card.parent, online=request.online)
    wanted = () if request.until is None else (request.until,)
    emulator = Emulator(command, sink)
    try:
        match = emulator.wait_for(*wanted, PANIC, seconds=seconds)
        if emulator.ending == "crash":
            said = emulator.console[-400:].decode("utf-8", "replace").strip()
            raise ImageError(f"{firmware.machine.program} failed: {said}", "see its message")
    finally:
        if emulator.ending in {"restart", "power off"}:
            emulator.wait_exit()
        emulator.kill()
    if match:
        outcome: Outcome = "panicked" if match.re is PANIC else "matched"
        return outcome, match[0].decode("utf-8", "replace")
    if emulator.ending == "restart":
        return "kept restarting", ""
    return ("timed out" if emulator.ending is None else "powered off"), ""
