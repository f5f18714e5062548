"""Small files are there in full or as before."""

from __future__ import annotations

import ast
import contextlib
import os
import stat
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING, cast

import pytest

from imagebuilder.errors import SettingsError, WriteError
from imagebuilder.files import (
    hand_over,
    new_file,
    read_file,
    whole_drive,
    write_file,
    write_text,
)
from tests.lib.tools import need_root

if TYPE_CHECKING:
    from collections.abc import Callable


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "ledger.yml"
    path.write_text("before")
    write_file(path, b"after")
    assert path.read_bytes() == b"after"
    assert [entry.name for entry in tmp_path.iterdir()] == ["ledger.yml"]


@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_the_mode_holds_whatever_the_umask_is(mode: int, tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        write_file(tmp_path / "key", b"secret", mode)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == mode


def test_the_mode_holds_before_the_first_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    fsync = os.fsync

    def look(descriptor: int) -> None:
        seen.append(stat.S_IMODE(os.fstat(descriptor).st_mode))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", look)
    write_file(tmp_path / "key", b"secret", 0o600)
    assert seen == [0o600]


def test_a_failure_keeps_the_old_file_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "ledger.yml"
    path.write_text("before")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_file(path, b"after")
    assert path.read_text() == "before"
    assert [entry.name for entry in tmp_path.iterdir()] == ["ledger.yml"]


def test_a_missing_folder_is_the_callers_to_explain(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_file(tmp_path / "nowhere" / "ledger.yml", b"after")


# ---- what other users may have put there

OTHER = 12345  # a user ID that is neither root's nor ours


def planted(link: Path, target: Path) -> None:
    """Make a link of another user's, as one could leave it in a shared folder."""
    link.symlink_to(target)
    os.lchown(link, OTHER, OTHER)


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    path = tmp_path / "victim"
    path.write_text("precious")
    path.chmod(0o600)
    return path


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    need_root()
    path = tmp_path / "shared"
    path.mkdir()
    os.chown(path, OTHER, OTHER)
    return path


def is_untouched(victim: Path) -> bool:
    status = victim.stat()
    mine = (status.st_uid, stat.S_IMODE(status.st_mode)) == (os.geteuid(), 0o600)
    return mine and victim.read_text() == "precious"


@pytest.mark.parametrize("name", ["pi-01.img", "pi-01.img.part"])
@pytest.mark.parametrize("kind", ["link", "hard link"])
def test_what_is_planted_is_not_written(name: str, kind: str, shared: Path, victim: Path) -> None:
    if kind == "link":
        planted(shared / name, victim)
    else:
        os.link(victim, shared / name)
    with contextlib.suppress(WriteError), new_file(shared / "pi-01.img") as descriptor:
        os.write(descriptor, b"image")
    write_text(shared / "pi-01.img", "text")
    hand_over(shared / name)
    assert is_untouched(victim)


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_a_name_that_is_taken_is_said(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path / "a.img.part")
    with (
        pytest.raises(WriteError, match=r"a\.img\.part exists and is not a file"),
        new_file(tmp_path / "a.img"),
    ):
        pass


def test_a_folder_behind_a_link_of_another_user_is_refused(shared: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    planted(shared / "build", tmp_path / "elsewhere")
    for write in (write_file, lambda path, data: write_text(path, data.decode())):
        with pytest.raises(WriteError, match="the link 'build' belongs to another user"):
            write(shared / "build" / "a", b"x")
    with pytest.raises(WriteError, match="belongs to another user"), new_file(shared / "build/a"):
        pass
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize("absolute", [True, False])
def test_a_link_of_ones_own_is_followed(absolute: bool, tmp_path: Path) -> None:
    (tmp_path / "big" / "disk").mkdir(parents=True)
    target = tmp_path / "big" / "disk" if absolute else Path("big/../big/disk")
    (tmp_path / "images").symlink_to(target)
    write_file(tmp_path / "images" / "a", b"x")
    with new_file(tmp_path / "images" / "b"):
        pass
    assert sorted(path.name for path in (tmp_path / "big/disk").iterdir()) == ["a", "b"]


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match="symbolic links"):
        write_file(tmp_path / "a" / "file", b"x")


def test_an_image_is_for_its_owner_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with new_file(tmp_path / "a.img") as descriptor:
            assert stat.S_IMODE(os.fstat(descriptor).st_mode) == 0o600
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.img").stat().st_mode) == 0o600


def test_two_runs_do_not_write_one_file(tmp_path: Path) -> None:
    with (
        new_file(tmp_path / "a.img"),
        pytest.raises(WriteError, match=r"another rpi-image is writing a\.img"),
        new_file(tmp_path / "a.img"),
    ):
        pass
    assert (tmp_path / "a.img").exists()


# ---- reading


def test_what_is_no_regular_file_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("/dev/zero")
    places = [tmp_path / "fifo", tmp_path / "link", tmp_path, Path("/dev/zero"), Path("/dev/tty")]
    for path in [*places, Path("/proc/self/environ"), Path("/sys/kernel/mm"), Path("/proc/kmsg")]:
        with pytest.raises(SettingsError) as caught:
            read_file(path, "key", 100)
        assert caught.value.hint


def test_a_file_over_its_cap_is_named_with_the_cap(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(bytes(4097))
    assert len(read_file(tmp_path / "key", "key", 4097)) == 4097
    with pytest.raises(SettingsError, match=r"key .*/key is over 4 KiB"):
        read_file(tmp_path / "key", "key", 4096)


def test_nobody_else_opens_files_for_writing() -> None:
    """One module knows how to write where others may write too; these do something else."""
    allowed = {
        "files.py": "this module",
        "cli/process.py": "the null device, and a bug report in a file of its own",
        "build/boot_folder.py": "a mounted card, on any system; links are refused",
        "devices/blockdev.py": "block devices",
        "boot/emulator.py": "a private temporary folder",
        "shack/sheets/labels.py": "a private temporary folder",
        "settings/starter.py": "a private temporary folder",
        "images/archives/compress.py": "an entry of an archive in an open file",
        "images/sparse.py": "the user's cache",
        "images/download.py": "the user's cache",
    }
    package = Path(__file__).parents[2] / "imagebuilder"
    found = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if any(map(_writes, ast.walk(ast.parse(path.read_text()))))
    }
    assert found - set(allowed) == set()


def _writes(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call):
        return False
    name = ast.unparse(node.func)
    words = [arg.value for arg in node.args if isinstance(arg, ast.Constant)]
    if name.endswith((".write_text", ".write_bytes", ".touch", ".mkdir", "mkstemp", "mkdtemp")):
        return True
    if name == "os.open":
        return any(flag in ast.unparse(node) for flag in ("O_CREAT", "O_WRONLY", "O_RDWR"))
    opens = name == "open" or name.endswith((".open", "TemporaryFile"))
    return opens and any(set("wax+") & set(w) for w in words if isinstance(w, str) and len(w) < 4)


@pytest.mark.parametrize(
    ("given", "whole"),
    [("E:", "E:\\"), ("E:\\", "E:\\"), ("E:boot", "E:boot"), ("\\\\pc\\card", "\\\\pc\\card\\")],
)
def test_a_drive_letter_is_the_whole_drive(given: str, whole: str) -> None:
    assert str(whole_drive(cast("Path", PureWindowsPath(given)))) == whole
    assert whole_drive(Path("/media/E:")) == Path("/media/E:")
