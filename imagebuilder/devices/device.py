"""A block device and its partitions, as frozen values."""

from __future__ import annotations

from dataclasses import dataclass

from imagebuilder.model import SECTOR_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class DevicePart:
    """A partition of a block device that the system knows."""

    path: str
    mountpoints: tuple[str, ...] = ()
    fstype: str = ""
    label: str = ""
    size_bytes: int = 0
    major_minor: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A block device as this machine sees it; strings of the vendor are sanitised.

    `kind` is lsblk's type, or `absent`, `file` or `part` for what is no whole disk. `parts` holds
    all that stands on it, the whole disk itself first where that is mounted or formatted.
    `slot` names the port it hangs on, `sequence` the kernel's number of this medium in this place
    (it changes with every insertion). `backing` names what is behind a loop device, `backing_inode`
    its `device/inode`, `backing_device` its major:minor where that is a block device. `relatives`
    show the same bytes; what those carry and are held by counts as this device's.
    """

    path: str
    major_minor: str
    size_bytes: int
    logical_sector_bytes: int = SECTOR_BYTES
    kind: str = "disk"
    transport: str = ""
    removable: bool = False
    hotplug: bool = False
    read_only: bool = False
    vendor: str = ""
    model: str = ""
    serial: str = ""
    sequence: int | None = None
    parts: tuple[DevicePart, ...] = ()
    holders: tuple[str, ...] = ()
    system_mounts: tuple[str, ...] = ()
    slot: str = ""
    backing: str = ""
    backing_inode: str = ""
    backing_device: str = ""
    relatives: tuple[Device, ...] = ()


def describe(device: Device) -> str:
    """Name a device for people: path, what it is, how large, where it hangs."""
    size = f"{device.size_bytes / 10**9:.1f} GB"
    words = [device.vendor, device.model, size, device.serial, device.slot]
    return f"{device.path} ({', '.join(word for word in words if word)})"


def describe_content(device: Device) -> str:
    """Name what a device holds, for people: file systems and their labels."""
    parts = [" ".join(w for w in (p.fstype, p.label) if w) or "data" for p in device.parts]
    return ", ".join(parts) or "nothing known"
