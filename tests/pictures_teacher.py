"""The pictures of docs/any-computer.md: each step of a teacher's evening, from real runs.

The runs are on Linux. The drive is one with the rules of Windows, over FUSE.
"""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.lib.boot_folders import put_tree
from tests.lib.plan_samples import STOCK
from tests.lib.program import EPOCH
from tests.lib.windows_drive import windows_drive
from tests.pictures import FOLDER, drawn, output

MOST_SECONDS = 120
STEPS = (
    "teacher-init.svg",
    "teacher-check.svg",
    "teacher-labels.png",
    "teacher-imager.svg",
    "teacher-queue.svg",
    "teacher-status.svg",
)
ANSWERS = ("pi-[01-30]", "pi4", "raspios-lite-bookworm-arm64", "", "", "", "Europe/Paris", "pupil")
PASSWORD = "learn together"
CLASS = """\
board: pi4
image: raspios-lite-bookworm-arm64
user: {name: pupil, password: {file: password.txt}}
nodes:
"""
EACH_OWNER = "  - {{hostname: pi-{number:02d}, owner: {owner}}}\n"
OWNERS = ("Ada", "Grace", "Margaret", "Zoë")
# The mounts of this process only: the queue would take other drives of this machine.
ALONE = ("unshare", "--mount", "--propagation", "private", "--kill-child", "--fork")


def main() -> int:
    """Draw each step; started again below `unshare` for the queue."""
    signal.alarm(MOST_SECONDS)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw("teacher-init", [("> rpi-image init classroom.yml", asked(folder))])
        write_class(folder)
        draw("teacher-check", [shown(folder, "rpi-image check classroom.yml")])
        output("rpi-image labels classroom.yml -o labels.pdf", folder)
        photograph_labels(folder)
        imager = "rpi-image export classroom.yml --format imager -o imager"
        draw("teacher-imager", [shown(folder, imager)])
        draw("teacher-queue", [("> rpi-image apply --queue -c classroom.yml", queued(folder))])
        draw("teacher-status", [shown(folder, "rpi-image status classroom.yml")])
    return 0


def draw(name: str, steps: list[tuple[str, str]]) -> None:
    (FOLDER / f"{name}.svg").write_text(drawn(steps), encoding="utf-8")


def shown(folder: Path, command: str) -> tuple[str, str]:
    return f"> {command}", output(command, folder)


def write_class(folder: Path) -> None:
    nodes = [EACH_OWNER.format(number=n, owner=owner) for n, owner in enumerate(OWNERS, start=1)]
    (folder / "classroom.yml").write_text(CLASS + "".join(nodes))
    (folder / "password.txt").write_text(f"{PASSWORD}\n")


def environment(folder: Path) -> dict[str, str]:
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    own = {"PATH": programs, "RPI_IMAGE_CACHE": f"{folder}/cache", "SOURCE_DATE_EPOCH": EPOCH}
    return {**os.environ, **own, "HOME": str(folder), "RPI_IMAGE_COLOR": "always"}


def asked(folder: Path) -> str:
    """Return the dialogue of `init`, answered at a terminal, question by question."""
    terminal, its_end = pty.openpty()
    command = ["rpi-image", "init", "classroom.yml"]
    said = b""
    with subprocess.Popen(
        command, stdin=its_end, stdout=its_end, stderr=its_end, cwd=folder, env=environment(folder)
    ) as running:
        os.close(its_end)
        for answer in ANSWERS:
            said = heard(terminal, said)
            os.write(terminal, f"{answer}\n".encode())
        while piece := _piece(terminal):
            said += piece
        running.wait(timeout=30)
    os.close(terminal)
    assert running.returncode == 0, said.decode()
    return said.decode().replace("\r\n", "\n").rstrip()


def heard(terminal: int, said: bytes) -> bytes:
    """Return what was said, with what comes now up to the next question."""
    before = len(said)
    while len(said) == before or not said.endswith(b": "):
        said += os.read(terminal, 4096)
    return said


def _piece(terminal: int) -> bytes:
    """Return what comes next; empty at the end of the program, which Linux tells as EIO."""
    try:
        return os.read(terminal, 4096)
    except OSError:
        return b""


def queued(folder: Path) -> str:
    """Return what the queue says while one card after the other is put in and ejected."""
    desk = (*ALONE, sys.executable, "-m", "tests.pictures_teacher", "desk", str(folder))
    subprocess.run(desk, check=True, cwd=Path(__file__).parents[1], env=environment(folder))
    said = (folder / "said.txt").read_text(encoding="utf-8")
    return said.replace("-drive", "").partition("\ninterrupted")[0].rstrip()


def put_in_cards(folder: Path) -> None:
    command = ["rpi-image", "apply", "--queue", "--yes", "-c", "classroom.yml"]
    log = folder / "said.txt"
    with (
        log.open("w") as said,
        subprocess.Popen(
            command, cwd=folder, stdout=said, stderr=said, env=environment(folder)
        ) as queue,
    ):
        while "insert cards" not in log.read_text():
            time.sleep(0.05)
        for _ in range(3):
            time.sleep(0.5)
            subprocess.run(
                ["mount", "-t", "tmpfs", "-o", "size=512m", "card", "/media"], check=True
            )
            card = put_tree(Path("/media/ann/bootfs"), STOCK["firstrun-bookworm"])
            with windows_drive(card) as drive:
                while drive.is_mount() and queue.poll() is None:
                    time.sleep(0.05)
        queue.terminate()


def photograph_labels(folder: Path) -> None:
    """Take a picture of the upper part of the sheet, as it is printed."""
    out = FOLDER / "teacher-labels"
    cut = ("-r", "80", "-x", "0", "-y", "0", "-W", "661", "-H", "260")
    command = ("pdftoppm", "-png", "-singlefile", *cut, folder / "labels.pdf", out)
    subprocess.run(command, check=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["desk"]:
        put_in_cards(Path(sys.argv[2]))
    else:
        sys.exit(main())
