"""The commands for every system, in a Python without what only POSIX systems have.

No Windows here: the modules and functions that Windows does not have are removed, and the platform
is named win32. Paths remain those of Linux.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from imagebuilder.cli.main import COMMANDS, POSIX_ONLY, run
from tests.lib.boot_folders import put_tree, tree_of
from tests.lib.plan_samples import STOCK
from tests.lib.program import rpi_image, succeed

ROOM = """\
name: class-3b
profile: armv7
allow: [no-login]
image: {file: base.img, unchecked: true}
shack: {address: 127.0.0.1, ports: {consul: 9, swarm: 19}}
wifi: {country: FR, networks: [{ssid: shack, passphrase: correct horse battery}]}
nodes:
  - hostname: pi-[01-03]
"""

# Reads command lines as JSON and answers each with its exit code and what it printed.
DRIVER = """
import contextlib, importlib.abc, io, json, os, sys, types
# Libraries have their own code for Windows, chosen by what is missing when they are imported.
import click, cryptography.hazmat.primitives.asymmetric.ed25519, filelock, jinja2, jsonschema
import passlib.hash, platformdirs, pyfatfs.PyFat, pydantic, requests, segno, shutil, subprocess
import multiprocessing, socket, sysconfig, tempfile, tqdm, yaml
sysconfig.get_config_vars()
missing = {"fcntl", "termios", "tty", "pty", "pwd", "grp", "resource", "syslog"}
class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name in missing:
            raise ModuleNotFoundError(name)
for name in missing:
    sys.modules.pop(name, None)
sys.meta_path.insert(0, Missing())
statvfs = os.statvfs
names = ("chown chroot ctermid fchdir fchmod fchown fork fpathconf fstatvfs getegid geteuid getgid "
    "getgrouplist getgroups getloadavg getpgid getresuid getsid getuid initgroups killpg lchown "
    "lockf mkfifo mknod nice openpty pathconf pipe2 posix_fadvise posix_fallocate pread preadv "
    "pwrite pwritev readv sched_getaffinity sched_yield sendfile setegid seteuid setgid setgroups "
    "setresuid setsid setuid statvfs sync sysconf ttyname uname wait waitid writev "
    "O_CLOEXEC O_DIRECT O_DIRECTORY O_DSYNC O_NOATIME O_NOCTTY O_NOFOLLOW O_NONBLOCK O_PATH O_SYNC")
for name in names.split():
    if hasattr(os, name):
        delattr(os, name)
os.supports_dir_fd = set()
class Lock(contextlib.nullcontext):
    def __init__(self, path, timeout):
        super().__init__()
        self.lock_file = path
filelock.FileLock = Lock
shutil.disk_usage = lambda path, ask=statvfs: types.SimpleNamespace(
    free=ask(path).f_bavail * 4096, total=ask(path).f_blocks * 4096)
# What may be renamed or removed on Windows is closed.
def closed_only(real):
    def checked(source, *more, **options):
        wanted = {os.path.abspath(path) for path in (source, *more)}
        held = {os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")
                if os.path.islink(f"/proc/self/fd/{fd}")}
        if wanted & held:
            raise PermissionError(13, "The process cannot access the file: it is open", str(source))
        return real(source, *more, **options)
    return checked
for name in ("rename", "replace", "remove", "unlink"):
    setattr(os, name, closed_only(getattr(os, name)))
sys.platform = "win32"
from imagebuilder.cli.main import run
answers = []
for words in json.load(sys.stdin):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run(words)
    answers.append([code, out.getvalue(), err.getvalue()])
json.dump(answers, sys.stdout)
"""


def on_windows(folder: Path, *lines: list[str]) -> list[Any]:
    """Run the command lines in one program; return code, output and messages of each."""
    done = subprocess.run(
        [sys.executable, "-c", DRIVER],
        input=json.dumps(lines),
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        timeout=120,
        env={
            "PYTHONPATH": str(Path(__file__).parents[3]),
            "SOURCE_DATE_EPOCH": "1700000000",
            "RPI_IMAGE_CACHE": str(folder / "cache"),
            "PATH": "",
            "HOME": str(folder),
            "TMPDIR": str(folder),
        },
    )
    assert done.returncode == 0, done.stderr
    answers: list[Any] = json.loads(done.stdout)
    return answers


RUNS: dict[str, list[str]] = {
    "init": ["init", "new.yml", "--hostnames", "pi-[01-30]", "--wifi-ssid", "", "--shack", "",
             "--timezone", "", "--ssh-key", "", "--user", "", "--profile", "armv7", "--no-input"],
    "check": ["check", "room.yml", "--json"],
    "schema": ["schema"],
    "profiles": ["profiles"],
    "images": ["images", "--catalog", "list.json"],
    "apply": ["apply", "bootfs", "-c", "room.yml", "--node", "pi-02", "--json"],
    "inspect": ["inspect", "bootfs", "--json"],
    "inspect of an image": ["inspect", "base.img"],
    "verify": ["verify", "bootfs", "-c", "room.yml", "--node", "pi-02"],
    "verify of its owner": ["verify", "bootfs"],
    "labels": ["labels", "room.yml", "-o", "labels.html"],
    "export": ["export", "room.yml", "-o", "export"],
    "export for Imager": ["export", "room.yml", "--format", "imager", "-o", "imager"],
    "diff": ["diff", "room.yml"],
    "status": ["status", "room.yml", "--card", "done", "--timeout", "1"],
}  # fmt: skip


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    from tests.lib.fat_images import make_image  # noqa: PLC0415 - needs programs

    (tmp_path / "room.yml").write_text(ROOM)
    make_image(tmp_path / "base.img", files=STOCK["firstrun-bookworm"])
    put_tree(tmp_path / "bootfs", STOCK["firstrun-bookworm"])
    status = b'{"hostname": "pi-01", "install": "ok"}'
    put_tree(tmp_path / "done", {"cmdline.txt": b"x", "rpi-image/status.json": status})
    (tmp_path / "list.json").write_text('{"os_list": []}')
    return tmp_path


def test_the_commands_for_every_system_run(desk: Path) -> None:
    """And the card is the same as on Linux."""
    answers = dict(zip(RUNS, on_windows(desk, *RUNS.values()), strict=True))
    faults = {name: answer for name, answer in answers.items() if answer[0] != 0}
    assert faults == {}, json.dumps(faults, indent=1)
    assert json.loads(answers["apply"][1])["written"]
    assert json.loads(answers["inspect"][1])["hostname"] == "pi-02"
    assert "no differences" in answers["verify"][1]
    assert (desk / "new.yml").exists()
    assert (desk / "labels.html").stat().st_size > 1000
    assert json.loads((desk / "imager/os_list.json").read_text())["os_list"]
    assert "rpi-image apply FOLDER -c room.yml --node pi-01" in answers["status"][1]
    plain = put_tree(desk / "plain", STOCK["firstrun-bookworm"])
    words = ("apply", plain, "-c", desk / "room.yml", "--node", "pi-02", "--yes")
    succeed(rpi_image(*words, cache=desk / "cache"))
    assert tree_of(desk / "bootfs") == tree_of(plain)


def test_a_system_is_known_by_what_it_lacks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "fcntl", None)
    for name in POSIX_ONLY:
        assert run([name, "--help"]) == 2
        assert f"`{name}` does not run on Windows" in capsys.readouterr().err
    assert run(["apply", "--help"]) == 0


def test_the_others_say_in_one_sentence_what_to_use_instead(desk: Path) -> None:
    lines = [[name, "--help"] for name in sorted(COMMANDS)]
    for words, (code, out, err) in zip(lines, on_windows(desk, *lines), strict=True):
        if words[0] not in POSIX_ONLY:
            assert (code, err, "Usage: " in out) == (0, "", True), words
            continue
        fact, hint = err.splitlines()
        assert (code, fact) == (2, f"error: `{words[0]}` does not run on Windows")
        assert hint.startswith("hint: write the card with Raspberry Pi Imager and make it a node")
    assert {"build", "batch", "flash"} <= POSIX_ONLY
    assert os.name == "posix"
