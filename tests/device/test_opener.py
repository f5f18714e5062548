"""What stays root opens whole disks for its program, and nothing else."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from imagebuilder.cli import companion, opener
from tests.device.cards import CARD_BYTES, card
from tests.lib.tools import need, run

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.root

WRITE = os.O_RDWR | os.O_EXCL
_BLKRRPART, _BLKZEROOUT = 0x125F, 0x127F
TEACHER = 4321
# The root file system is on a disk of its own, and all else of this machine is below it.
CHANGE_ROOT = """
set -e
mount "$1" "$2"
for place in /*; do
    case $place in /lost+found) continue ;; esac
    if [ -L "$place" ]; then cp -P "$place" "$2$place"
    elif [ -d "$place" ]; then mkdir "$2$place"; mount --rbind "$place" "$2$place"; fi
done
root=$2
shift 2
exec chroot "$root" "$@"
"""


@pytest.fixture
def device(tmp_path: Path) -> Iterator[str]:
    with card(tmp_path, CARD_BYTES) as made:
        yield made


@pytest.fixture
def root() -> Iterator[companion.Companion]:
    made = companion.start()
    yield made
    made.close()


def refusal(root: companion.Companion, path: str | Path, flags: int) -> int:
    with pytest.raises(OSError, match=r"\[Errno") as caught:
        os.close(root.open(str(path), flags))
    return caught.value.errno or 0


def test_a_disk_is_opened_with_the_flags_that_it_is_asked_for(
    root: companion.Companion, device: str
) -> None:
    for flags in (os.O_RDONLY, os.O_DIRECT, WRITE, WRITE | os.O_DIRECT):
        descriptor = root.open(device, flags)
        kept = fcntl.fcntl(descriptor, fcntl.F_GETFL)
        assert kept & (os.O_ACCMODE | os.O_DIRECT) == flags & ~os.O_EXCL
        assert os.fstat(descriptor).st_rdev == Path(device).stat().st_rdev
        if flags & os.O_EXCL:  # and the opener itself holds it no longer than its program
            with pytest.raises(OSError, match="busy"):
                os.open(device, WRITE)
        os.close(descriptor)
        os.close(os.open(device, WRITE))


@pytest.mark.parametrize("flags", [os.O_RDONLY, WRITE])
def test_only_a_disk_is_opened(root: companion.Companion, flags: int, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"secret")
    (tmp_path / "link").symlink_to("/etc/shadow")
    os.mkfifo(tmp_path / "fifo")  # which would block
    places = [tmp_path / "file", tmp_path / "link", tmp_path / "fifo", tmp_path]
    for path in (*places, *map(Path, ("/etc/shadow", "/dev/null", "/dev/ptmx", "/proc/version"))):
        assert refusal(root, path, flags) == errno.ENOTBLK, path
    assert refusal(root, tmp_path / "absent", flags) == errno.ENOENT


def test_other_flags_and_requests_are_refused(root: companion.Companion, device: str) -> None:
    for flags in (os.O_WRONLY, os.O_RDWR, WRITE | os.O_TRUNC, WRITE | os.O_CREAT, os.O_PATH):
        assert refusal(root, device, flags) == errno.EINVAL
    with Path(device).open("rb") as disk, pytest.raises(OSError, match="Invalid argument"):
        root.request(disk.fileno(), _BLKZEROOUT, 0)
    with Path("/dev/null").open("rb") as null, pytest.raises(OSError, match="Block device req"):
        root.request(null.fileno(), _BLKRRPART, 0)


def test_a_partition_is_not_opened(root: companion.Companion, device: str) -> None:
    need("addpart", "delpart")
    run("addpart", device, "1", "2048", "2048")
    try:
        for flags in (os.O_RDONLY, WRITE):
            assert refusal(root, f"{device}p1", flags) == errno.EINVAL
    finally:
        run("delpart", device, "1")


def test_a_mounted_disk_is_not_opened_for_writing(
    root: companion.Companion, device: str, tmp_path: Path
) -> None:
    """Also one that is mounted in another namespace only, where the opener sees no mount."""
    need("mkfs.ext4", "unshare", "mount")
    run("mkfs.ext4", "-q", "-F", device)
    script = f"mount {device} {tmp_path} && echo && cat"
    command = ["unshare", "--mount", "sh", "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout
        assert other.stdin
        assert other.stdout.readline() == b"\n"
        assert refusal(root, device, WRITE) == errno.EBUSY
        other.stdin.close()
    os.close(root.open(device, WRITE))


def test_the_disk_of_the_system_is_neither_opened_nor_unmounted(
    device: str, tmp_path: Path
) -> None:
    need("mkfs.ext4", "unshare", "mount", "chroot")
    run("mkfs.ext4", "-q", "-F", device)
    run("addpart", device, "1", "2048", "2048")
    (tmp_path / "root").mkdir()
    ask = (
        "import os\n"
        "from imagebuilder.cli import companion\n"
        "root = companion.start()\n"
        f"for deed in (lambda: root.open('{device}', os.O_RDONLY),"
        f" lambda: root.unmount('{device}'),"
        f" lambda: root.open('{device}', {WRITE}), lambda: root.unmount('{device}p1')):\n"
        "    try: print(deed())\n"
        "    except OSError as error: print(error.strerror)\n"
    )
    command = ["unshare", "--mount", "sh", "-c", CHANGE_ROOT, "sh", device, str(tmp_path / "root")]
    try:
        shown = run(*command, sys.executable, "-c", ask)
    finally:
        run("delpart", device, "1")
    assert shown.splitlines() == [os.strerror(errno.EBUSY)] * 4


@pytest.mark.parametrize("wrong", ["peer", "folder", "mode"])
def test_a_socket_of_another_user_is_refused(wrong: str, tmp_path: Path) -> None:
    """Sudo says who called; the socket must be of that user, in a folder for that user alone."""
    folder = tmp_path / "fresh"
    folder.mkdir(mode=0o755 if wrong == "mode" else 0o700)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(folder / "opener"))
        listener.listen(1)
        listener.settimeout(10)
        caller = TEACHER if wrong == "peer" else os.geteuid()
        if wrong != "mode":
            os.chown(folder, TEACHER, TEACHER)
        done = subprocess.run(
            [sys.executable, "-I", "-S", str(opener.__file__), str(folder / "opener")],
            env={"SUDO_UID": str(caller)},
            capture_output=True,
            text=True,
            check=False,
            timeout=20,
        )
        assert done.returncode == 1
        assert done.stderr == "error: the socket is not of the user who called sudo\n"
        connection, _ = listener.accept()
        assert connection.recv(1) == b""
        connection.close()


def test_the_opener_is_short_and_has_only_the_standard_library() -> None:
    file = str(opener.__file__)
    assert len(Path(file).read_text().splitlines()) <= 100
    show = f"import runpy, sys; runpy.run_path({file!r}); print(*sys.modules)"
    modules = run(sys.executable, "-I", "-S", "-c", show).split()
    assert {name.partition(".")[0] for name in modules} <= {*sys.stdlib_module_names, "__main__"}
