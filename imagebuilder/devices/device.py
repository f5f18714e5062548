"""A block device and its partitions, as frozen values."""

from __future__ import annotations

from dataclasses import dataclass

from imagebuilder.model import SECTOR_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class DevicePart:
    """A partition known to the system, or a file system on the whole disk."""

    path: str
    mountpoints: tuple[str, ...] = ()
    fstype: str = ""
    label: str = ""
    size_bytes: int = 0
    major_minor: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A block device of this machine; strings of the vendor are sanitised.

    `kind` is the type of lsblk, or `absent`, `file` or `part` if it is not a whole disk. `parts`
    are its partitions, and the whole disk first if it is mounted or formatted. `slot` is its port,
    `sequence` the kernel's diskseq, which changes with every insertion. For a loop device,
    `backing` is the path of its file, `backing_inode` its `device/inode`, `backing_device` its
    major:minor if it is a block device. `relatives` are devices with the same bytes; their mounts
    and holders count for this device, too.
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
    """Return a description of a device: path, vendor, model, size, serial number and port."""
    size = f"{device.size_bytes / 10**9:.1f} GB"
    words = [device.vendor, device.model, size, device.serial, device.slot]
    return f"{device.path} ({', '.join(word for word in words if word)})"


def describe_content(device: Device) -> str:
    """Return a description of the content of a device: file systems and their labels."""
    parts = [" ".join(w for w in (p.fstype, p.label) if w) or "data" for p in device.parts]
    return ", ".join(parts) or "unknown data"
