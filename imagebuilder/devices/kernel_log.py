"""What the kernel wrote about a mounted FAT partition: whether it was left dirty.

The mark on the partition says nothing while it is mounted, since Linux sets it on mounting
(fat_set_state in fs/fat/inode.c). If it was set before, only the log of the kernel says so. The
log needs root or a group (adm, systemd-journal); who cannot read it is not warned.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

# udisks creates the folder of a mount just before it mounts, so the time of the folder above is
# that of the last mount there. A card has a second partition, mounted a little later.
_MOUNTED_BY_UDISKS = (Path("/media"), Path("/run/media"))
_BETWEEN_TWO_MOUNTS_S = 15
_LOG_SECONDS = 10.0


def left_dirty(
    folder: Path, device: str, mounted_by: tuple[Path, ...] = _MOUNTED_BY_UDISKS
) -> bool:
    """Return whether the kernel found, at this mount, that a volume had not been unmounted.

    False where that is not known: other systems, other mounts, a log that cannot be read.
    """
    parent = folder.parent
    if not device or not any(parent.is_relative_to(base) for base in mounted_by):
        return False
    since = int(parent.stat().st_mtime) - _BETWEEN_TWO_MOUNTS_S
    # fat_fill_super in fs/fat/inode.c
    words = f"FAT-fs ({Path(device).name}): Volume was not properly unmounted"
    return any(line.startswith(words) for line in _messages(since))


def _messages(since: int) -> list[str]:
    command = ["journalctl", "--dmesg", "--quiet", "--output=cat", f"--since=@{since}"]
    try:
        log = subprocess.run(command, capture_output=True, timeout=_LOG_SECONDS, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return []
    return log.decode(errors="replace").splitlines()
