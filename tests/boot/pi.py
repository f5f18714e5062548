"""A Pi without a Pi: powers a card on as the firmware would, follows restarts, cuts the power."""

from __future__ import annotations

import base64
import contextlib
import os
import re
import shlex
import shutil
import socket
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from imagebuilder.boot import emulator
from imagebuilder.disk import partitions
from imagebuilder.disk.fat.volume import BootVolume
from tests.boot import images, processor
from tests.lib.tools import run

if TYPE_CHECKING:
    from pathlib import Path

    from imagebuilder.boot.emulator import Emulator
    from imagebuilder.boot.firmware import Firmware

FIRMWARE_WORDS = (
    # AppArmor is in the Debian kernel and its programs are not in the root: Docker would stumble.
    "apparmor=0",
    # QEMU translates a program anew at each address it is loaded to: half of all its work.
    "norandmaps",
    # Zeros that a Pi's kernel does not write either.
    "init_on_alloc=0",
)
# Limits are for an idle machine of two cores; a busy one takes its time.
PATIENCE = float(os.environ.get("RPI_IMAGE_TEST_PATIENCE", "1")) * processor.SLOW
PANIC = emulator.PANIC
# Tests run side by side: more processors than the host's would only wait for each other.
PROCESSORS = "1"
# Time passes for a busy guest by what it has executed: 4 ns an instruction, as on the Pis of 2015.
# However slow this machine is, no program inside runs into its own time limit.
CLOCK = ("-icount", "shift=2")
# An emulated guest now and then loses a timer and sleeps on; a line from outside wakes it.
NUDGE_SECONDS = 2.0


class UnexpectedError(AssertionError):
    """The machine did not do what the test waits for; carries the end of its console."""


def _once_changed(command: str, answer: str) -> str:
    """Return a command with the output of `command` once that is another, or after some seconds.

    Asked for every second of the Pi's own, so that waiting does not keep it from its work.
    """
    return (
        f"n=0; while said=$(exec 2>&1; {command}\n); [ $n -lt 15 ] &&"
        f' [ "$said" = {shlex.quote(answer.rstrip(chr(10)))} ];'
        " do n=$((n+1)); sleep 1; done; printf '%s\\n' \"$said\""
    )


@dataclass
class Pi:
    """A card in an emulated machine; `boots` counts power-ons, `consoles` keeps each one's text."""

    image: Path
    folder: Path
    words: tuple[str, ...] = FIRMWARE_WORDS
    clock_lag: timedelta = timedelta(hours=1)
    clock: tuple[str, ...] = CLOCK
    network: str = ""
    boots: int = 0
    consoles: list[bytes] = field(default_factory=list)
    card: Path = field(init=False)
    _machine: Emulator | None = None
    _quota: processor.Quota | None = None
    _witness: socket.socket | None = None
    _answers: bytearray = field(default_factory=bytearray)
    _asked: int = 0
    _nudged: float = 0.0

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.card = emulator.make_card(self.image, self.folder / "card.qcow2")

    # ---- power

    def power_on(self) -> None:
        """Load from the card's boot partition what it says now, and start."""
        assert self._machine is None
        firmware = emulator.load_firmware(self.card, words=self.words)
        ours, theirs = socket.socketpair()
        command = self.command(firmware, theirs.fileno())
        if processor.SLOW != 1:
            self._quota = processor.Quota.make(processor.SLOW)
            command = self._quota.within(command)
        self._machine = emulator.Emulator(
            command,
            sink=self._keep,
            descriptors=(theirs.fileno(),),
        )
        theirs.close()
        ours.setblocking(False)
        self._witness = ours
        self._answers.clear()
        self._machine.watch(ours.fileno(), self._take_answer)
        self.boots += 1

    def command(self, firmware: Firmware, witness: int) -> list[str]:
        """Return QEMU's command line; `witness` is the descriptor that answers `tell`."""
        clock = datetime.now(UTC) - self.clock_lag
        words = emulator.qemu_command(
            firmware,
            self.card,
            self.folder,
            network=self.network,
            more=[
                *self.clock,
                *("-rtc", f"base={clock:%Y-%m-%dT%H:%M:%S}"),
                *("-device", "virtio-serial-pci"),
                *("-chardev", f"socket,id=witness,fd={witness}"),
                *("-device", "virtserialport,chardev=witness,name=witness"),
            ],
        )
        words[words.index("-smp") + 1] = PROCESSORS
        return words

    def _keep(self, text: bytes) -> None:
        """Keep the consoles beside the card's folder, for whoever looks into a failure."""
        with self.folder.with_suffix(".console").open("ab") as file:
            file.write(text)

    def halt(self) -> None:
        """Let everything be written, then cut: quick, and one more cut that the card must bear."""
        self.tell("sync")
        self.cut()

    def cut(self) -> None:
        """Cut the power, at whatever the machine is doing."""
        if self._machine is not None:
            self._note_time()
            self._machine.kill()
            self.consoles.append(bytes(self._machine.console))
            self._machine = None
        if self._quota is not None:
            self._quota.remove()
            self._quota = None
        if self._witness is not None:
            self._witness.close()
            self._witness = None

    def power_off(self, seconds: float = 90) -> None:
        """Shut down as a person would, and wait until the machine is off."""
        self.tell("(sleep 1; poweroff) >/dev/null 2>&1 &")
        until = time.monotonic() + seconds * PATIENCE
        while self._pump(until, "the power-off") != "power off":
            self._follow()
        self._finish()

    def reboot(self, seconds: float = 120) -> None:
        """Restart as a person would, and wait until it is up again as far as the witness."""
        boots = self.boots
        self.tell("(sleep 1; reboot) >/dev/null 2>&1 &")
        until = time.monotonic() + seconds * PATIENCE
        while self.boots == boots:
            self._pump(until, "the restart")
            self._follow()

    @property
    def console(self) -> bytes:
        """What the serial console showed since the last power-on."""
        return bytes(self._machine.console) if self._machine else self.consoles[-1]

    # ---- waiting

    def wait_for(self, pattern: bytes, seconds: float) -> None:
        """Wait until the console of this or a following power-on shows `pattern`."""
        until, sought = time.monotonic() + seconds * PATIENCE, re.compile(pattern)
        while not sought.search(self.console):
            self._pump(until, repr(pattern))
            self._follow()

    def let_run(self, seconds: float) -> None:
        """Let the machine run for so long, following restarts."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self._pump(until + 60, "nothing")
            self._follow()

    def tell(self, command: str, seconds: float = 240) -> str:
        """Run a shell command on the Pi and give what it printed; follows restarts meanwhile."""
        until = time.monotonic() + seconds * PATIENCE
        number, boots = self._ask(command)
        while (answer := self._answer_to(number)) is None:
            self._pump(until, f"the answer to {command!r}")
            self._follow()
            if self.boots != boots:
                number, boots = self._ask(command)
        return answer

    def tell_until(self, command: str, pattern: str, seconds: float) -> str:
        """Repeat a command on the Pi until its output matches."""
        until = time.monotonic() + seconds * PATIENCE
        answer = self.tell(command, seconds)
        while not re.search(pattern, answer):
            if time.monotonic() >= until:
                raise UnexpectedError(f"{command!r} never matched {pattern!r}: {answer[-2000:]}")
            answer = self.tell(_once_changed(command, answer), seconds)
        return answer

    def _ask(self, command: str) -> tuple[int, int]:
        self._asked += 1
        self._send(self._asked, command)
        return self._asked, self.boots

    def _send(self, number: int, command: str) -> None:
        assert self._witness is not None
        line = f"{number} {base64.b64encode(command.encode()).decode()}\n"
        self._witness.setblocking(True)
        with contextlib.suppress(ConnectionError):
            self._witness.sendall(line.encode())
        self._witness.setblocking(False)
        self._nudged = time.monotonic()

    def _answer_to(self, number: int) -> str | None:
        for line in bytes(self._answers).splitlines(keepends=True):
            words = line.split()
            if line.endswith(b"\n") and words and words[0] == str(number).encode():
                return base64.b64decode(b"".join(words[1:])).decode("utf-8", "replace")
        return None

    def _take_answer(self) -> None:
        assert self._witness is not None
        assert self._machine is not None
        text = b""
        with contextlib.suppress(ConnectionError):  # the machine went away with our question
            text = self._witness.recv(1 << 16)
        if text:
            self._answers += text
        else:
            self._machine.forget(self._witness.fileno())

    def _pump(self, until: float, waiting_for: str) -> emulator.Ending | None:
        assert self._machine is not None
        left = until - time.monotonic()
        if left <= 0 or self._machine.ending == "crash":
            raise self._unexpected(f"waited in vain for {waiting_for}")
        if PANIC.search(self._machine.console):
            raise self._unexpected("the kernel panicked")
        if time.monotonic() - self._nudged > NUDGE_SECONDS:
            self._send(0, ":")
        self._machine.pump(min(0.5, left))
        return self._machine.ending

    def _follow(self) -> None:
        """Start again after a restart, as the firmware does."""
        assert self._machine is not None
        if self._machine.ending == "restart":
            self._finish()
            self.power_on()
        elif self._machine.ending == "crash":
            raise self._unexpected(f"the machine went away: {self._machine.ending}")

    def _finish(self) -> None:
        """Take the card out of a machine that is off; it is whole only once QEMU is gone."""
        assert self._machine is not None
        self._note_time()
        self._machine.wait_exit()
        self.cut()

    def _note_time(self) -> None:
        """Note what QEMU has taken, as long as its process is there to be asked."""
        assert self._machine is not None
        processor.note(processor.seconds_of(self._machine._process.pid))

    def _unexpected(self, what: str) -> UnexpectedError:
        tail = self.console[-3000:].decode("utf-8", "replace")
        return UnexpectedError(f"{what}; power-on {self.boots}; console ends:\n{tail}")

    # ---- the card in a reader

    def read_boot(self, path: str) -> bytes | None:
        """Read a file of the boot partition while the machine is off; None: no such file."""
        assert self._machine is None
        content = emulator.Card(self.card)
        partition = partitions.boot_partition(content, partitions.read_partitions(content))
        volume = BootVolume(content, partition)
        return volume.read(path) if volume.exists(path) else None

    def raw(self) -> Path:
        """Write the card as a raw file, for programs that check it."""
        assert self._machine is None
        raw = self.folder / "card.img"
        run("qemu-img", "convert", "-f", "qcow2", "-O", "raw", self.card, raw)
        return raw

    def partitions(self) -> tuple[Path, Path]:
        """Return copies of the boot and the root partition, for fsck.vfat and e2fsck."""
        raw = self.raw()
        with raw.open("rb") as file:
            table = file.read(512)
        copies = []
        for number, name in enumerate(("boot.part", "root.part")):
            entry = table[446 + 16 * number :]
            start, size = (int.from_bytes(entry[at : at + 4], "little") * 512 for at in (8, 12))
            copies.append(images.extract(raw, start, size, self.folder / name))
        raw.unlink()
        return copies[0], copies[1]

    def expect_sound(self) -> None:
        """Recover both file systems as a Pi's boot does (fsck -a), then have them judged."""
        boot, root = self.partitions()
        run("fsck.vfat", "-a", boot, check=False)
        run("fsck.vfat", "-n", boot)
        run("e2fsck", "-p", root, check=False)
        run("e2fsck", "-fn", root)

    def throw_away(self) -> None:
        """Cut the power and forget the card."""
        self.cut()
        shutil.rmtree(self.folder, ignore_errors=True)
