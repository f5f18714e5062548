"""Start the opener that stays root, and talk to it."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

# The interpreter behind a virtual environment, without the environment of the caller, site-packages
# and bytecode to write: of what the caller could have changed, root runs only the opener.
_PYTHON = (os.path.realpath(sys.executable), "-I", "-S", "-B")
_OPENER = (*_PYTHON, str(Path(__file__).with_name("opener.py")))
_TICK_SECONDS = 0.1
_ROOT = 0
_CREDENTIALS = struct.Struct("iII")  # struct ucred: pid, uid, gid (unix(7))


class Companion:
    """The opener at the other end of a socket; a Helper."""

    def __init__(self, channel: socket.socket, process: subprocess.Popen[bytes]) -> None:
        self._channel = channel
        self._process = process

    def open(self, path: str, flags: int) -> int:
        """Return a descriptor of a whole disk."""
        return self._ask(f"open {flags} {path}")

    def request(self, descriptor: int, number: int, argument: int) -> None:
        """Make an ioctl on an open device."""
        self._ask(f"request {number} {argument}", descriptor)

    def unmount(self, path: str) -> None:
        """Unmount the file system on a device."""
        self._ask(f"unmount 0 {path}")

    def close(self) -> None:
        """Let the opener end."""
        self._channel.close()
        self._process.wait()

    def _ask(self, message: str, *descriptors: int) -> int:
        """Return the descriptor of the answer, or -1. Raise OSError as the opener did."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours:
            with theirs:
                given = [theirs.fileno(), *descriptors]
                socket.send_fds(self._channel, [os.fsencode(message)], given)
            text, found, _, _ = socket.recv_fds(ours, 16, 1)
            ours.recv(1)  # its end: the opener has closed what it sent
        if code := int(text) if text else errno.EPIPE:
            raise OSError(code, os.strerror(code))
        return found[0] if found else -1


def start() -> Companion:
    """Return a companion that stays root, before this process gives up root."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    quiet = subprocess.DEVNULL
    with theirs:
        process = subprocess.Popen(
            _OPENER, stdin=theirs.fileno(), stdout=quiet, stderr=quiet, env={}
        )
    return Companion(ours, process)


def start_by_sudo(_path: str = "") -> Companion | None:
    """Return a companion started by sudo, which may ask for a password; None if it refuses."""
    if not shutil.which("sudo"):
        return None
    with (
        tempfile.TemporaryDirectory(prefix="rpi-image-") as folder,
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener,
    ):
        listener.bind(f"{folder}/opener")
        listener.listen(1)
        listener.settimeout(_TICK_SECONDS)
        command = ("sudo", "--", *_OPENER, f"{folder}/opener")
        quiet = subprocess.DEVNULL  # sudo asks on the terminal itself
        process = subprocess.Popen(command, stdin=quiet, stdout=quiet)
        channel = _accepted(listener, process)
    return Companion(channel, process) if channel else None


def _accepted(listener: socket.socket, process: subprocess.Popen[bytes]) -> socket.socket | None:
    """Return the connection of root; None if the process has ended without one."""
    while process.poll() is None:
        with suppress(TimeoutError):
            channel, _ = listener.accept()
            peer = channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            if _CREDENTIALS.unpack(peer)[1] == _ROOT:
                return channel
            channel.close()
    return None
