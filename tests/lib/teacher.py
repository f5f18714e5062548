"""A user of this machine for one program only: with a password, sudo and a Python to read."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.lib.tools import need, need_root, run

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Self

TEACHER, CLASS = 4321, 4322  # the user, and a further group of that user
PASSWORD = "correct horse"
RPI_IMAGE = (sys.executable, "-m", "imagebuilder")
_CHECKOUT = Path(__file__).parents[2]
_EVERYONE = 0o005
# Everything is mounted for this one program (unshare --mount) and gone with it.
_ENTER = """
set -e
for name in passwd shadow group hosts; do mount --bind "$1/$name" "/etc/$name"; done
mount -t tmpfs -o mode=755 tmpfs /etc/sudoers.d
install -m 440 "$1/sudoers" /etc/sudoers.d/teacher
"""


@dataclass(frozen=True)
class Teacher:
    """The user; `home` can be reached by everyone, `system` holds the files of /etc."""

    home: Path
    system: Path

    def may(self, rule: str) -> None:
        """Set what sudo lets the user do: `ALL`, `NOPASSWD: ALL` or nothing."""
        line = f"teacher ALL = (ALL) {rule}\n" if rule else ""
        (self.system / "sudoers").write_text(line)

    def command(
        self, *words: str | Path, groups: Sequence[int] = (CLASS,), before: str = ""
    ) -> list[str]:
        """Return the command that runs `words` as this user, after lines of shell as root."""
        belong = ",".join(map(str, (TEACHER, *groups)))
        become = ["setpriv", f"--reuid={TEACHER}", f"--regid={TEACHER}", f"--groups={belong}"]
        variables = ["env", "-i", f"HOME={self.home}", f"PATH={os.environ['PATH']}"]
        script = f'{_ENTER}{_reachable(self.system)}shift\n{before}\n"$@"'
        unshared = ["unshare", "--mount", "sh", "-c", script, "sh", str(self.system)]
        return [*unshared, *variables, *become, *map(str, words)]

    def run(
        self, *words: str | Path, groups: Sequence[int] = (CLASS,), before: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as this user, without a terminal."""
        return subprocess.run(
            ["setsid", "--wait", *self.command(*words, groups=groups, before=before)],
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )


@contextlib.contextmanager
def teacher() -> Iterator[Teacher]:
    """Yield a new user, who may do nothing by sudo."""
    need_root()
    need("unshare", "mount", "setpriv", "setsid", "sudo", "openssl", "install")
    with tempfile.TemporaryDirectory(dir="/tmp") as place:
        home, system = Path(place, "home"), Path(place, "system")
        Path(place).chmod(0o755)
        home.mkdir()
        os.chown(home, TEACHER, TEACHER)
        system.mkdir()
        digest = run("openssl", "passwd", "-6", PASSWORD).strip()
        lines = {
            "passwd": f"teacher:x:{TEACHER}:{TEACHER}::{home}:/bin/sh\n",
            "shadow": f"teacher:{digest}:19000:0:99999:7:::\n",
            "group": f"teacher:x:{TEACHER}:\nclass:x:{CLASS}:teacher\n",
            "hosts": f"127.0.0.1 {socket.gethostname()}\n",  # which sudo looks up
        }
        for name, line in lines.items():
            (system / name).write_text(Path("/etc", name).read_text() + line)
            (system / name).chmod(0o600 if name == "shadow" else 0o644)
        made = Teacher(home, system)
        made.may("")
        yield made


def _reachable(system: Path) -> str:
    """Return lines of shell that make this Python and the checkout readable for everyone."""
    held, lines = {}, []
    for number, place in enumerate(
        dict.fromkeys((Path(sys.base_prefix), Path(sys.prefix), _CHECKOUT))
    ):
        above = [p for p in place.parents if p.stat().st_mode & _EVERYONE != _EVERYONE]
        if above:
            held[place] = (system / f"held-{number}", above[-1])
    lines += [f"mkdir -p {at} && mount --bind {place} {at}" for place, (at, _) in held.items()]
    tops = dict.fromkeys(top for _, top in held.values())
    lines += [f"mount -t tmpfs -o mode=755 tmpfs {top}" for top in tops]
    lines += [f"mkdir -p {place} && mount --move {at} {place}" for place, (at, _) in held.items()]
    return "".join(f"{line}\n" for line in lines)


class Terminal:
    """A program on a terminal of its own."""

    def __init__(self, command: Sequence[str], folder: Path) -> None:
        self.fd, slave = pty.openpty()
        words = ["setsid", "--ctty", "--wait", *command]
        self.process = subprocess.Popen(words, stdin=slave, stdout=slave, stderr=slave, cwd=folder)
        self.slave = slave
        self.shown, self.seen = "", 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Close the terminal, which hangs up what is still there."""
        os.close(self.slave)
        os.close(self.fd)
        self.process.wait(10)

    def until(self, text: str, seconds: float = 60) -> None:
        """Wait until the terminal shows a text after what it has shown before."""
        end = time.monotonic() + seconds
        while text not in self.shown[self.seen :]:
            ready, _, _ = select.select([self.fd], [], [], 0.2)
            if ready:
                self.shown += os.read(self.fd, 4096).decode()
            ended = self.process.poll() is not None and not ready
            assert not ended, f"ended without {text!r}: {self.shown}"
            assert time.monotonic() < end, f"no {text!r} in {self.shown}"
        self.seen = self.shown.index(text, self.seen) + len(text)

    def type(self, text: str) -> None:
        """Type a text."""
        os.write(self.fd, text.encode())

    def end(self) -> int:
        """Wait for the end; return the exit code."""
        while self.process.poll() is None or select.select([self.fd], [], [], 0.2)[0]:
            if select.select([self.fd], [], [], 0.2)[0]:
                self.shown += os.read(self.fd, 4096).decode()
        return self.process.returncode


def processes(word: str, *, of: str) -> list[dict[str, str]]:
    """Return the /proc/PID/status of processes of Python with both words in their command line."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
            if "python" in words[0] and word in " ".join(words) and of in " ".join(words):
                lines = (folder / "status").read_text().splitlines()
                fields = (line.partition(":") for line in lines)
                found.append({name: value.strip() for name, _, value in fields})
    return found
