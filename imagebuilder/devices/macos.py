"""List the disks of a Mac from diskutil. Tested with recorded output, not on hardware."""

from __future__ import annotations

import subprocess
from typing import Any

from imagebuilder.devices.device import Device, DevicePart
from imagebuilder.devices.safety import is_system_mount, sanitise
from imagebuilder.errors import RefusedError
from imagebuilder.model import SECTOR_BYTES

_TRANSPORTS = {"USB": "usb", "Secure Digital": "mmc", "Disk Image": "loop"}


def list_devices() -> tuple[Device, ...]:
    """Return every whole disk."""
    listed = _ask("list", "-plist")
    return tuple(_load(entry, listed) for entry in listed.get("AllDisksAndPartitions", []))


def load_device(path: str) -> Device:
    """Return one disk by its path, /dev/diskN or /dev/rdiskN."""
    name = path.removeprefix("/dev/").removeprefix("r")
    listed = _ask("list", "-plist")
    for entry in listed.get("AllDisksAndPartitions", []):
        if entry["DeviceIdentifier"] == name:
            return _load(entry, listed)
    return Device(path=path, major_minor=name, size_bytes=0, kind="part")


def raw_path(path: str) -> str:
    """Return the path of the unbuffered device of /dev/diskN."""
    return path.replace("/dev/disk", "/dev/rdisk")


def unmount(path: str) -> None:
    """Unmount all volumes of a disk. Raise RefusedError if one is in use."""
    _run("unmountDisk", path)


def parse_device(entry: dict[str, Any], info: dict[str, Any], listed: dict[str, Any]) -> Device:
    """Return the device described by `diskutil list` and `diskutil info`.

    Volumes of an APFS container on one of its partitions count as its own.
    """
    volumes = list(_volumes(entry, listed))
    mounted = tuple(v["MountPoint"] for v in volumes if v.get("MountPoint"))
    return Device(
        path=info["DeviceNode"],
        major_minor=info["DeviceIdentifier"],
        size_bytes=int(info.get("TotalSize") or info.get("Size") or 0),
        logical_sector_bytes=int(info.get("DeviceBlockSize") or SECTOR_BYTES),
        kind="disk" if info.get("VirtualOrPhysical") != "Virtual" else "virtual",
        transport=_TRANSPORTS.get(info.get("BusProtocol", ""), info.get("BusProtocol", "").lower()),
        removable=bool(info.get("RemovableMedia")),
        hotplug=not info.get("Internal", True),
        read_only=not info.get("WritableMedia", info.get("Writable", True)),
        model=sanitise(info.get("MediaName", "")),
        parts=tuple(_parse_volume(volume) for volume in volumes),
        system_mounts=tuple(point for point in mounted if is_system_mount(point)),
    )


def _volumes(entry: dict[str, Any], listed: dict[str, Any]) -> list[dict[str, Any]]:
    own = [*entry.get("Partitions", []), *entry.get("APFSVolumes", [])]
    names = {volume["DeviceIdentifier"] for volume in own}
    for other in listed.get("AllDisksAndPartitions", []):
        stores = {store["DeviceIdentifier"] for store in other.get("APFSPhysicalStores", [])}
        if stores & names:
            own += other.get("APFSVolumes", [])
    return own


def _parse_volume(volume: dict[str, Any]) -> DevicePart:
    point = volume.get("MountPoint", "")
    return DevicePart(
        path=f"/dev/{volume['DeviceIdentifier']}",
        mountpoints=(point,) if point else (),
        fstype=volume.get("Content", ""),
        label=sanitise(volume.get("VolumeName", "")),
        size_bytes=int(volume.get("Size") or 0),
        major_minor=volume["DeviceIdentifier"],
    )


def _load(entry: dict[str, Any], listed: dict[str, Any]) -> Device:
    info = _ask("info", "-plist", entry["DeviceIdentifier"])
    return parse_device(entry, info, listed)


def _ask(*words: str) -> dict[str, Any]:
    """Return the property list that a diskutil command with -plist prints."""
    import plistlib  # noqa: PLC0415 - slow, and needed on macOS only

    listed: dict[str, Any] = plistlib.loads(_run(*words))
    return listed


def _run(*words: str) -> bytes:
    try:
        return subprocess.run(["diskutil", *words], capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise RefusedError(
            f"diskutil {words[0]} failed", "close what uses the disk, and try again"
        ) from error
