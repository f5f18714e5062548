"""Open disks for a program that is not root, and make the requests that need root.

Runs as root with the standard library only, until its program ends. Each message has a socket for
its answer, so that no disk waits for one that hangs. The requests are of linux/{fs,cdrom,loop}.h.
"""

import errno
import fcntl
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

REQUESTS = (0x125F, 0x1261, 0x5309, 0x4C08)  # BLKRRPART, BLKFLSBUF, CDROMEJECT, LOOP_SET_DIRECT_IO
FLAGS = (os.O_RDONLY, os.O_DIRECT, os.O_RDWR | os.O_EXCL, os.O_RDWR | os.O_EXCL | os.O_DIRECT)


def mounts() -> Iterator[tuple[str, set[str]]]:
    """Yield each mount point with the numbers of its file system and (for btrfs) its source."""
    for line in os.fsdecode(Path("/proc/self/mountinfo").read_bytes()).split("\n")[:-1]:
        words, source = line.split(" "), line.partition(" - ")[2].split(" ")[1]
        point = re.sub(r"\\(\d{3})", lambda octal: chr(int(octal[1], 8)), words[4])
        yield point, {words[2], number_of(source) if source.startswith("/") else ""}


def number_of(device: str | int) -> str:
    """Return the major:minor of a block device, else an empty string."""
    with suppress(OSError):
        status = os.stat(device)  # noqa: PTH116 - also of a descriptor
        if stat.S_ISBLK(status.st_mode):
            return f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
    return ""


def disks(number: str) -> set[Path]:
    """Return the folders in /sys of a disk (of a partition: its disk), and of those below it."""
    place = Path(f"/sys/dev/block/{number}").resolve()
    below = [disks(file.read_text().strip()) for file in place.glob("slaves/*/dev")]
    return {place.parent if (place / "partition").exists() else place}.union(*below)


def perform(deed: str, number: int, rest: str, device: int) -> list[int]:
    """Open a disk (for writing only an unused one), unmount it, or make a request on it."""
    found = number_of(device)
    system = [disks(n) for point, held in mounts() if point == "/" for n in held if n]
    if not found or disks(found) & set().union(*system):
        raise OSError(errno.EBUSY if found else errno.ENOTBLK, "")
    is_part = Path(f"/sys/dev/block/{found}/partition").exists()
    if deed == "open" and number in FLAGS and not is_part:
        return [os.open(f"/proc/self/fd/{device}", number)]
    if deed == "unmount":
        for point in [point for point, held in mounts() if found in held][::-1]:
            subprocess.run(["umount", "--", point], env={"PATH": "/usr/bin:/bin"}, check=True)
    elif deed == "request" and number in REQUESTS:
        fcntl.ioctl(device, number, int(rest))
    else:
        raise OSError(errno.EINVAL, "")
    return []


def answer(message: bytes, given: list[int]) -> None:
    """Answer a request with 0 and perhaps a descriptor, or with the number of an error."""
    code, opened = 0, list[int]()
    try:
        deed, number, rest = os.fsdecode(message).split(" ", 2)
        given += [] if given[1:] else [os.open(rest, os.O_PATH)]  # which opens no device
        opened = perform(deed, int(number), rest, given[1])
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        code = getattr(error, "errno", errno.EBUSY)
    with socket.socket(fileno=given.pop(0)) as reply:
        with suppress(OSError):
            socket.send_fds(reply, [b"%d" % code], opened)
        for descriptor in (*given, *opened):  # before the reply ends, or a disk stays in use
            os.close(descriptor)


def connected(path: str) -> socket.socket:
    """Return the channel to the program of the user who called sudo, in a folder of that user."""
    folder = Path(path).parent.lstat()
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    channel.connect(path)
    peer = channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)  # its pid, uid and gid
    users = {int(os.environ["SUDO_UID"]), folder.st_uid, int.from_bytes(peer[4:8], sys.byteorder)}
    if len(users) > 1 or folder.st_mode != stat.S_IFDIR | stat.S_IRWXU:
        sys.exit("error: the socket is not of the user who called sudo")
    return channel


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # those to its program, too
    program = connected(sys.argv[1]) if sys.argv[1:] else socket.socket(fileno=0)
    while (received := socket.recv_fds(program, 8192, 2))[1]:  # none: the program has ended
        threading.Thread(target=answer, args=received[:2], daemon=True).start()
