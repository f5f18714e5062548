"""List the block devices: from lsblk, /proc and /sys on Linux, from diskutil on macOS."""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
import struct
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imagebuilder.devices import access, macos
from imagebuilder.devices.device import Device, DevicePart
from imagebuilder.devices.loops import with_relatives
from imagebuilder.devices.safety import is_system_mount, sanitise
from imagebuilder.errors import RefusedError
from imagebuilder.model import SECTOR_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

with contextlib.suppress(ImportError):  # on Windows the module is imported, but no device is listed
    import fcntl
COLUMNS = "NAME,PATH,MAJ:MIN,SIZE,TYPE,TRAN,RM,HOTPLUG,RO,VENDOR,MODEL,SERIAL,LOG-SEC,MOUNTPOINT"
CONTENT_COLUMNS = ",FSTYPE,LABEL"
_HOLDING = ("crypt", "lvm", "dm", "mpath", "md", "linear")  # and every raidN
_MINORS_FIELD, _MOUNT_FIELD = 2, 4  # of /proc/self/mountinfo (proc_pid_mountinfo(5))
_LOOP_GET_STATUS64, _LOOP_INFO_BYTES = 0x4C05, 232


@dataclass(frozen=True, slots=True)
class SysfsDisk:
    """Properties of a disk in /sys that lsblk does not show."""

    sequence: int | None = None
    device_path: str = ""
    card_type: str = ""
    backing: str = ""
    backing_inode: str = ""
    backing_device: str = ""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The texts that describe the block devices of a Linux machine at one time."""

    lsblk: str
    mountinfo: str = ""
    swaps: str = ""
    sys: tuple[tuple[str, SysfsDisk], ...] = ()


def list_devices() -> tuple[Device, ...]:
    """Return every disk of this machine. Raise RefusedError if they cannot be listed."""
    if sys.platform == "darwin":
        return macos.list_devices()
    return parse_devices(take_snapshot())


def load_device(path: str) -> Device:
    """Return one device; if it is not a block device, its kind is `absent` or `file`."""
    _check_system()
    real = os.path.realpath(path)
    try:
        status = Path(real).stat()
    except OSError:
        return Device(path=path, major_minor="", size_bytes=0, kind="absent")
    if not stat.S_ISBLK(status.st_mode):
        return Device(path=path, major_minor="", size_bytes=status.st_size, kind="file")
    if sys.platform == "darwin":
        return macos.load_device(real)
    return find_device(parse_devices(take_snapshot()), real, _numbers(status.st_rdev))


def load_identity(path: str) -> Device:
    """Return the present properties of one disk, without reading its content or other disks."""
    if sys.platform == "darwin":
        return macos.load_device(path)
    try:
        number = Path(path).stat().st_rdev
    except OSError:
        return Device(path=path, major_minor="", size_bytes=0, kind="absent")
    return find_device(parse_devices(take_snapshot(path)), path, _numbers(number))


def find_device(devices: tuple[Device, ...], path: str, major_minor: str) -> Device:
    """Return the disk or partition with these numbers, else a disk without a medium."""
    for device in devices:
        if device.major_minor == major_minor:
            return device
        for part in device.parts:
            if part.major_minor == major_minor:
                return replace(device, path=path, major_minor=major_minor, kind="part")
    return Device(path=path, major_minor=major_minor, size_bytes=0)


def device_holding(path: Path) -> str:
    """Return major:minor of the block device that holds a file, or "" if it is not known."""
    while not path.exists():
        path = path.parent
    numbers = _numbers(path.stat().st_dev)
    if not numbers.startswith("0:"):
        return numbers
    # btrfs and others report an anonymous device number (0:N): use the source of the mount.
    for entry in _read("/proc/self/mountinfo").splitlines():
        before, _, after = entry.partition(" - ")
        source = after.split()[1] if len(after.split()) > 1 else ""
        if before.split()[_MINORS_FIELD] == numbers and source.startswith("/dev/"):
            return _numbers(Path(source).stat().st_rdev)
    return ""


def take_snapshot(path: str = "") -> Snapshot:
    """Return the texts of this machine, or those about one disk, then without its content.

    Raise RefusedError if lsblk fails, and on other systems.
    """
    _check_system()
    command = ["lsblk", "--json", "--bytes", "--output"]
    command += [COLUMNS, path] if path else [COLUMNS + CONTENT_COLUMNS]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=not path)
    except (OSError, subprocess.CalledProcessError) as error:
        raise RefusedError(
            "lsblk cannot list the block devices", "install the package util-linux"
        ) from error
    blocks = sorted(Path("/sys/block").iterdir())
    sysfs = tuple((block.name, _load_sys(block, ask=not path)) for block in blocks)
    listed = done.stdout or '{"blockdevices": []}'
    return Snapshot(listed, _read("/proc/self/mountinfo"), _read("/proc/swaps"), sysfs)


def _check_system() -> None:
    if sys.platform != "darwin" and not sys.platform.startswith("linux"):
        raise RefusedError(
            f"writing cards is not supported on {sys.platform}",
            "use `rpi-image build --bmap`, and write the image with another program",
        )


def parse_devices(snapshot: Snapshot) -> tuple[Device, ...]:
    """Return the devices described by the texts, in the order of lsblk."""
    mounts = _Mounts(snapshot)
    facts = dict(snapshot.sys)
    tree: list[dict[str, Any]] = json.loads(snapshot.lsblk)["blockdevices"]
    listed = [_parse_disk(entry, facts, mounts) for entry in tree]
    return with_relatives(listed)


class _Mounts:
    """Mount points and swap use of devices, by major:minor and by path."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._at: dict[str, list[str]] = {}
        for line in snapshot.mountinfo.splitlines():
            before, _, after = line.partition(" - ")
            fields, origin = before.split(), after.split()
            for key in {fields[_MINORS_FIELD], origin[1] if len(origin) > 1 else ""}:
                self._at.setdefault(key, []).append(_unescape(fields[_MOUNT_FIELD]))
        for line in snapshot.swaps.splitlines()[1:]:
            self._at.setdefault(_unescape(line.split()[0]), []).append("[SWAP]")

    def at(self, path: str) -> list[str]:
        return self._at.get(path, []) if path else []

    def of(self, entry: Mapping[str, Any]) -> tuple[str, ...]:
        own = entry.get("mountpoint")
        found = [*self._at.get(_text(entry, "maj:min"), []), *self._at.get(_path(entry), [])]
        return tuple(dict.fromkeys([*found, *([own] if own else [])]))


def _parse_disk(
    entry: Mapping[str, Any], disks: Mapping[str, SysfsDisk], mounts: _Mounts
) -> Device:
    name = _text(entry, "name")
    known = disks.get(name, SysfsDisk())
    below = list(_descend(entry))
    parts = tuple(_parse_part(child, mounts) for child in [entry, *below])
    points = [point for part in parts for point in part.mountpoints]
    mounted = tuple(dict.fromkeys([*points, *mounts.at(known.backing)]))  # a swap file
    return Device(
        path=_path(entry),
        major_minor=_text(entry, "maj:min"),
        size_bytes=int(entry.get("size") or 0),
        logical_sector_bytes=int(entry.get("log-sec") or SECTOR_BYTES),
        kind=_text(entry, "type"),
        transport=_transport(entry, known),
        removable=_flag(entry, "rm"),
        hotplug=_flag(entry, "hotplug"),
        read_only=_flag(entry, "ro"),
        vendor=sanitise(_text(entry, "vendor")),
        model=sanitise(_text(entry, "model")),
        serial=sanitise(_text(entry, "serial")),
        sequence=known.sequence,
        parts=parts if parts[0].mountpoints or parts[0].fstype else parts[1:],
        holders=tuple(dict.fromkeys(_holder(child) for child in below if _holds(child))),
        system_mounts=tuple(point for point in mounted if is_system_mount(point)),
        slot=_slot(known.device_path),
        backing=known.backing,
        backing_inode=known.backing_inode,
        backing_device=known.backing_device,
    )


def _parse_part(entry: Mapping[str, Any], mounts: _Mounts) -> DevicePart:
    return DevicePart(
        path=_path(entry),
        mountpoints=mounts.of(entry),
        fstype=_text(entry, "fstype"),
        label=sanitise(_text(entry, "label")),
        size_bytes=int(entry.get("size") or 0),
        major_minor=_text(entry, "maj:min"),
    )


def _descend(entry: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for child in entry.get("children") or ():
        yield child
        yield from _descend(child)


def _holds(entry: Mapping[str, Any]) -> bool:
    kind = _text(entry, "type")
    return kind in _HOLDING or kind.startswith("raid")


def _holder(entry: Mapping[str, Any]) -> str:
    return f"{_text(entry, 'type')} {sanitise(_text(entry, 'name'))}"


def _transport(entry: Mapping[str, Any], known: SysfsDisk) -> str:
    """Return usb, mmc (an SD card), emmc (soldered), loop, or the transport of lsblk."""
    if _text(entry, "name").startswith("mmcblk"):
        return "emmc" if known.card_type == "MMC" else "mmc"
    if _text(entry, "type") == "loop":
        return "loop"
    return _text(entry, "tran").lower()


def _slot(device_path: str) -> str:
    """Return the port in a /sys path: `usb-1-2.3`, with the slot of a reader with several."""
    found = re.search(r"/(\d+-[\d.]+):[^/]*/host\d+/target[\d:]+/\d+:\d+:\d+:(\d+)/", device_path)
    if found:
        return f"usb-{found[1]}" + (f"-slot{found[2]}" if found[2] != "0" else "")
    card = re.search(r"/mmc_host/(mmc\d+)/", device_path)
    return card[1] if card else ""


def _load_sys(path: Path, *, ask: bool) -> SysfsDisk:
    """Return properties of a disk; with `ask` those of a loop's file, whose server may hang."""
    sequence = _read(path / "diskseq").strip()
    backing = _read(path / "loop" / "backing_file").removesuffix("\n")
    device, inode, special = _ask_backing(path.name, backing) if ask and backing else (0, 0, 0)
    return SysfsDisk(
        sequence=int(sequence) if sequence.isdigit() else None,
        device_path=os.path.realpath(path),
        card_type=_read(path / "device" / "type").strip(),
        backing=backing,
        backing_inode=f"{device}/{inode}" if inode else "",
        backing_device=_numbers(special) if special else "",
    )


def _ask_backing(name: str, backing: str) -> tuple[int, int, int]:
    """Return st_dev, st_ino and st_rdev of the file behind a loop device; zeros if unknown."""
    return _ask_loop(name) or _ask_file(backing) or (0, 0, 0)


def _ask_loop(name: str) -> tuple[int, int, int] | None:
    """Return the numbers from the kernel, valid even if the file was renamed (loop_info64)."""
    answer = bytearray(_LOOP_INFO_BYTES)
    try:
        descriptor = access.open_device(f"/dev/{name}", os.O_RDONLY, start=False)
    except OSError:
        return None
    try:
        fcntl.ioctl(descriptor, _LOOP_GET_STATUS64, answer)
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return struct.unpack_from("QQQ", answer)


def _ask_file(path: str) -> tuple[int, int, int] | None:
    try:
        status = Path(path).stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_rdev


def _read(path: str | Path) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


def _numbers(device: int) -> str:
    return f"{os.major(device)}:{os.minor(device)}"


def _text(entry: Mapping[str, Any], key: str) -> str:
    return str(entry.get(key) or "").strip()


def _path(entry: Mapping[str, Any]) -> str:
    return _text(entry, "path") or f"/dev/{_text(entry, 'name')}"


def _flag(entry: Mapping[str, Any], key: str) -> bool:
    """Return a boolean; lsblk before 2.33 writes "0" and "1"."""
    return entry.get(key) in (True, "1", 1)


def _unescape(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)
