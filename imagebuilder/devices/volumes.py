"""Mounted partitions: where they are, whether they may be written, and how they are ejected.

Tested on Linux only; for macOS and Windows as far as it goes without their systems.
"""

from __future__ import annotations

import os
import re
import shutil
import string
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from imagebuilder.devices.device import Device
from imagebuilder.devices.kernel_log import left_dirty
from imagebuilder.errors import RefusedError
from imagebuilder.files import whole_drive

if TYPE_CHECKING:
    from collections.abc import Callable

_MOUNTS = Path("/proc/self/mounts")
_BY_SERIAL = Path("/dev/disk/by-uuid")
_BLOCK = Path("/sys/class/block")
_MODEL = Path("/proc/device-tree/model")
_FAT = re.compile(r"vfat|msdos|fuse\.?.*fat.*")
_KERNEL_FAT = ("vfat", "msdos")
_MOUNTS_OF_MACOS = Path("/Volumes")
_EJECT_SECONDS = 120.0

# The verb of the entry in the context menu of Explorer. It returns at once, may do nothing without
# an error, and ends with its PowerShell: so wait until the drive is gone, at most 10 s.
_EJECT_ON_WINDOWS = """
(New-Object -ComObject Shell.Application).NameSpace(17).ParseName('E:').InvokeVerb('Eject')
for ($i = 0; $i -lt 40 -and (Test-Path 'E:\\'); $i++) { Start-Sleep -Milliseconds 250 }
exit [int](Test-Path 'E:\\')
"""

# Where systems on a Pi mount their own boot partition.
SYSTEM_BOOT = (Path("/boot"), Path("/boot/firmware"))

_REPAIR = (
    "repair it with `sudo fsck.vfat -a DEVICE` on Linux, First Aid in Disk Utility on macOS,"
    " `chkdsk E: /f` on Windows, and insert the card again"
)
_UNWRITABLE = (
    f"check the lock switch of the card; a damaged partition is mounted read-only, too: {_REPAIR}"
)


@dataclass(frozen=True, slots=True)
class Volume:
    """A folder with what is mounted there; unknown values are empty."""

    folder: Path
    device: str = ""
    kind: str = ""
    read_only: bool = False

    @property
    def keeps_unlinked(self) -> bool:
        """Whether an open file keeps its clusters when it is replaced (fat_evict_inode, Linux)."""
        return sys.platform == "linux" and (not self.kind or self.kind in _KERNEL_FAT)


def mounted_volumes() -> tuple[Volume, ...]:
    """Return the mounted partitions that may have a FAT file system."""
    if sys.platform == "win32":
        drives = getattr(os, "listdrives", lambda: [f"{d}:\\" for d in string.ascii_uppercase])()
        return tuple(Volume(Path(drive)) for drive in drives if Path(drive).exists())
    if sys.platform == "darwin":
        return tuple(Volume(path) for path in sorted(_MOUNTS_OF_MACOS.iterdir()))
    return parse_mounts(_MOUNTS.read_text(errors="surrogateescape"))


def parse_mounts(text: str) -> tuple[Volume, ...]:
    """Return the FAT file systems in a list of mounts (fstab(5), proc_pid_mounts(5))."""
    found = []
    for line in text.splitlines():
        fields = line.split()
        if len(fields) > 3 and _FAT.fullmatch(fields[2]):  # noqa: PLR2004 - device, folder, kind, options
            device, folder = map(_unescaped, fields[:2])
            read_only = "ro" in fields[3].split(",")
            found.append(Volume(Path(folder), device, fields[2], read_only))
    return tuple(found)


def _unescaped(field: str) -> str:
    """Return a field of the list of mounts, where a space is a number in octal."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), field)


@dataclass
class VolumeWatch:
    """Look for mounted volumes, again and again; `wanted` says which folders count.

    A card that was removed and inserted again is another medium: its `sequence` is new. Only Linux
    counts insertions; cards written from one image have the same serial number.
    """

    wanted: Callable[[Path], bool]
    volumes: Callable[[], tuple[Volume, ...]] = mounted_volumes
    _present: dict[tuple[object, ...], tuple[Device, Volume]] = field(
        init=False, default_factory=dict
    )
    _count: int = field(init=False, default=0)

    def look(self) -> tuple[Device, ...]:
        """Return the volumes that count, as media with the folder as their path."""
        before, self._present = self._present, {}
        for volume in self.volumes():
            try:
                key = (volume, volume.folder.stat().st_dev, _on_disk(volume, "diskseq"))
                if key in before or self.wanted(volume.folder):
                    self._present[key] = before.get(key) or self._numbered(volume)
            except OSError:  # removed in the meantime, or an empty reader on Windows
                continue
        return tuple(device for device, _ in self._present.values())

    def volume_of(self, device: Device) -> Volume:
        """Return the volume of a medium. Raise RefusedError if it is gone."""
        for found, volume in self._present.values():
            if found == device:
                return volume
        raise RefusedError(f"{device.path} was removed", "insert the card again")

    def _numbered(self, volume: Volume) -> tuple[Device, Volume]:
        self._count += 1
        device = Device(
            path=str(volume.folder),
            major_minor="",
            size_bytes=shutil.disk_usage(volume.folder).total,
            model=serial_of(volume),
            sequence=self._count,
        )
        return device, volume


def volume_at(folder: Path) -> Volume:
    """Return the volume whose folder this is; without device and kind if none is mounted there."""
    folder = whole_drive(folder)
    if sys.platform == "linux":
        for volume in reversed(mounted_volumes()):
            if volume.folder == folder.resolve():
                return Volume(folder, volume.device, volume.kind, volume.read_only)
    return Volume(folder)


def refuse_volume(
    volume: Volume, *, this_machine: bool = False, system_boot: tuple[Path, ...] = SYSTEM_BOOT
) -> None:
    """Raise RefusedError if a folder must not be written.

    The boot partition of the running system may be, with `this_machine` and on a Raspberry Pi.
    """
    folder = volume.folder
    if not folder.is_dir():
        raise RefusedError(f"{folder} is not a folder", "use the folder or drive of the card")
    if _is_system(folder, system_boot) and not (this_machine and _is_pi()):
        raise RefusedError(
            f"{folder} is the boot partition of this computer",
            "use --this-machine if this is the Raspberry Pi to change"
            if _is_pi()
            else "use the folder of a card",
        )
    if volume.read_only or _is_read_only(folder):
        raise RefusedError(f"{folder} is read-only", _UNWRITABLE)
    if left_dirty(folder, volume.device):
        raise RefusedError(f"{folder} was not unmounted before the card was removed", _REPAIR)
    if not os.access(folder, os.W_OK):
        raise RefusedError(f"{folder} is not writable for this user", "fix its permissions")


def _is_system(folder: Path, system_boot: tuple[Path, ...]) -> bool:
    """Return whether a folder is one of the system, or the same partition at another place."""
    for own in system_boot:
        if own.is_dir() and own.samefile(folder):
            return True
        if own.is_mount() and own.stat().st_dev == folder.stat().st_dev:
            return True
    return False


def _is_pi() -> bool:
    try:
        return _MODEL.read_bytes().startswith(b"Raspberry Pi")
    except OSError:
        return False


def _is_read_only(folder: Path) -> bool:
    return hasattr(os, "statvfs") and bool(os.statvfs(folder).f_flag & os.ST_RDONLY)


def serial_of(volume: Volume) -> str:
    """Return what identifies a card: its CID where the reader shows it, as in laptops with Linux.

    Elsewhere it is the serial number of the FAT volume, for example 1A2B-3C4D, which cards from one
    image share; empty if that is not known either.
    """
    if cid := _on_disk(volume, "device/cid"):
        return cid
    if sys.platform == "win32":
        number = volume.folder.stat().st_dev & 0xFFFFFFFF
        return f"{number >> 16:04X}-{number & 0xFFFF:04X}"
    if not volume.device or not _BY_SERIAL.is_dir():
        return ""
    device = Path(volume.device).resolve()
    links = (link for link in sorted(_BY_SERIAL.iterdir()) if link.resolve() == device)
    return next((link.name for link in links), "")


def _on_disk(volume: Volume, name: str) -> str:
    """Return an attribute of the whole disk in sysfs; empty if there is none."""
    if not volume.device.startswith("/dev/"):
        return ""
    found = (_BLOCK / Path(volume.device).name).resolve()
    disk = found.parent if (found / "partition").exists() else found
    try:
        return (disk / name).read_text(errors="replace").strip()
    except OSError:
        return ""


def eject(volume: Volume) -> bool:
    """Unmount a volume, so that its card can be removed; return whether that was done."""
    return any(_succeeds(command) for command in _eject_commands(volume))


def _eject_commands(volume: Volume) -> tuple[list[str], ...]:
    folder = str(volume.folder)
    if sys.platform == "win32":
        script = _EJECT_ON_WINDOWS.replace("E:", volume.folder.drive)
        return (["powershell", "-NoProfile", "-Command", script],)
    if sys.platform == "darwin":
        return (["diskutil", "eject", folder],)
    by_udisks = ["udisksctl", "unmount", "--no-user-interaction", "-b", volume.device]
    return (*([by_udisks] if volume.device else []), ["umount", "--", folder])


def _succeeds(command: list[str]) -> bool:
    try:
        done = subprocess.run(command, capture_output=True, timeout=_EJECT_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
