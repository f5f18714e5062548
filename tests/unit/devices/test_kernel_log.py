"""A partition that was left dirty is known by the kernel's log, read by the real journalctl."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from imagebuilder.devices import kernel_log
from imagebuilder.devices.kernel_log import left_dirty
from imagebuilder.devices.volumes import Volume, refuse_volume
from imagebuilder.errors import RefusedError
from tests.lib.tools import need, run

if TYPE_CHECKING:
    from pathlib import Path

BOOT_ID = "0123456789abcdef0123456789abcdef"
NOW = int(time.time())

# As the kernel of Debian 12 says it.
DIRTY = "FAT-fs ({}): Volume was not properly unmounted. Some data may be corrupt. Please run fsck."


def entry(text: str, seconds_ago: int, transport: str = "kernel") -> str:
    """Return an entry in the journal's export format (systemd.io/JOURNAL_EXPORT_FORMATS)."""
    at = NOW - seconds_ago
    return (
        f"__REALTIME_TIMESTAMP={at}000000\n__MONOTONIC_TIMESTAMP={900 - seconds_ago}000000\n"
        f"_BOOT_ID={BOOT_ID}\n_TRANSPORT={transport}\nPRIORITY=4\nMESSAGE={text}\n\n"
    )


@pytest.fixture
def card(tmp_path: Path) -> Path:
    """Return the folder of a card that udisks mounted five seconds ago."""
    folder = tmp_path / "media/ann/bootfs"
    folder.mkdir(parents=True)
    os.utime(folder.parent, (NOW - 5, NOW - 5))
    return folder


def write_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *entries: str) -> None:
    """Make `journalctl` read a journal of these entries, whose last boot is this one."""
    need("journalctl", "/lib/systemd/systemd-journal-remote")
    log = tmp_path / "log.journal"
    run("/lib/systemd/systemd-journal-remote", "-o", log, "-", input="".join(entries))
    command = tmp_path / "bin/journalctl"
    command.parent.mkdir()
    real = "/usr/bin/journalctl"
    command.write_text(f'#!/bin/sh\nexec {real} --file={log} "$@"\n')
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}:{os.environ['PATH']}")


def test_a_partition_that_the_kernel_found_dirty_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, card: Path
) -> None:
    write_log(
        tmp_path, monkeypatch, entry("usb 1-1: new device", 6), entry(DIRTY.format("sdb1"), 4)
    )
    monkeypatch.setattr(
        "imagebuilder.devices.volumes.left_dirty",
        lambda folder, device: left_dirty(folder, device, (tmp_path / "media",)),
    )
    with pytest.raises(RefusedError, match="was not unmounted") as refused:
        refuse_volume(Volume(card, "/dev/sdb1", "vfat"))
    assert all(word in str(refused.value.hint) for word in ("fsck.vfat", "First Aid", "chkdsk"))
    refuse_volume(Volume(card, "/dev/sdc1", "vfat"))


@pytest.mark.parametrize(
    "said",
    [
        entry(DIRTY.format("sdb2"), 4),
        entry(DIRTY.format("sdb1"), 60),  # repaired and mounted again since
        entry("exFAT-fs (sdb1): Volume was not properly unmounted", 4),
        entry(DIRTY.format("sdb1"), 4, transport="syslog"),  # anyone may write there
        entry("FAT-fs (sdb1): utf8 is not a recommended IO charset", 4),
    ],
    ids=["another partition", "an earlier mount", "another file system", "not the kernel", "words"],
)
def test_other_messages_do_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, card: Path, said: str
) -> None:
    write_log(tmp_path, monkeypatch, said)
    assert not left_dirty(card, "/dev/sdb1", (tmp_path / "media",))


@pytest.mark.parametrize("program", [None, "#!/bin/sh\nexit 1\n", "#!/bin/sh\nexec /bin/sleep 9\n"])
def test_a_log_that_cannot_be_read_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, card: Path, program: str | None
) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    if program is not None:
        (folder / "journalctl").write_text(program)
        (folder / "journalctl").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(kernel_log, "_LOG_SECONDS", 0.3)
    assert not left_dirty(card, "/dev/sdb1", (tmp_path / "media",))


def test_only_mounts_of_the_desktop_have_a_known_time(tmp_path: Path, card: Path) -> None:
    assert not left_dirty(card, "/dev/sdb1")
    assert not left_dirty(tmp_path / "media/gone/bootfs", "", (tmp_path / "media",))
