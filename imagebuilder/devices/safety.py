"""Decide whether a device may be written: a pure function from its properties to reasons."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from imagebuilder.errors import RefusedError
from imagebuilder.model import SECTOR_BYTES
from imagebuilder.progress import two_sizes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from imagebuilder.devices.device import Device, DevicePart

LARGE_BYTES = 256 * 10**9
_NAME_LENGTH = 40
_SYSTEM_MOUNTS = frozenset(
    ["/", "/boot", "/efi", "/etc", "/gnu", "/home", "/nix", "/opt", "/ostree", "/private/var/vm"]
) | frozenset(["/root", "/srv", "/sysroot", "/usr", "/var", "[SWAP]"])
_SYSTEM_BELOW = ("/boot/", "/usr/", "/var/", "/snap/", "/System/Volumes/")
_REMOVABLE_TRANSPORTS = ("usb", "mmc", "loop")


@dataclass(frozen=True, slots=True)
class Refusal:
    """One reason to refuse a device; `code` is the name of the rule."""

    code: str
    message: str
    hint: str


@dataclass(frozen=True, slots=True)
class ProtectedFile:
    """A file or folder that must not be overwritten, and the block device that holds it.

    `major_minor` is "" if the device is not known; `inode` is `device/inode`.
    """

    what: str
    major_minor: str
    path: str = ""
    inode: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WritePolicy:
    """The size of the image, what the user allowed with flags, and what is protected."""

    image_bytes: int = 0
    allow_loop: bool = False
    allow_large: bool = False
    protected: tuple[ProtectedFile, ...] = ()
    taken: tuple[str, ...] = ()


def refusals(device: Device, policy: WritePolicy) -> tuple[Refusal, ...]:
    """Return every reason not to write `device`, most important first; none if it is safe.

    No option of `policy` removes the refusal of a disk of the running system.
    """
    unusable = _unusable(device)
    if unusable:
        return (unusable,)
    found = (refusal for rule in _RULES for refusal in rule(device, policy))
    return tuple(found)


def sanitise(text: str) -> str:
    """Return a vendor's string for a terminal: printable, single spaces, at most 40 characters."""
    return " ".join(printable(text).split())[:_NAME_LENGTH].rstrip()


def printable(text: str) -> str:
    """Return `text` with a space for each character that is not printable (terminal control)."""
    return "".join(c if c.isprintable() else " " for c in text)


def is_system_mount(point: str) -> bool:
    """Return whether a mount point belongs to the running system."""
    return point in _SYSTEM_MOUNTS or point.startswith(_SYSTEM_BELOW)


def may_unmount(device: Device) -> bool:
    """Return whether a device may be unmounted: removable, and not part of the system."""
    return device.transport in _REMOVABLE_TRANSPORTS and not (
        device.system_mounts or device.holders or device.backing_device
    )


def mounted_parts(device: Device) -> tuple[tuple[str, str], ...]:
    """Return (partition, mount point) of all mounts, including those of relatives."""
    return tuple((part.path, point) for part in _all_parts(device) for point in part.mountpoints)


def _all_parts(device: Device) -> tuple[DevicePart, ...]:
    return tuple(part for one in (device, *device.relatives) for part in one.parts)


def only_mounted(device: Device, policy: WritePolicy) -> bool:
    """Return whether mounts are the only reasons to refuse a device."""
    return all(refusal.code == "mounted" for refusal in refusals(device, policy))


def same_device(confirmed: Device, now: Device) -> bool:
    """Return whether this is still the confirmed medium in the same slot."""
    return _identity(confirmed) == _identity(now)


def _identity(device: Device) -> tuple[str | int | None, ...]:
    return (
        device.major_minor,
        device.size_bytes,
        device.vendor,
        device.model,
        device.serial,
        device.sequence,
        device.backing,
    )


def _unusable(device: Device) -> Refusal | None:
    """Return why this is not a disk; the other rules do not apply then."""
    kinds = {
        "absent": ("does not exist", "see `rpi-image devices`"),
        "file": ("is not a block device", "use the disk of the card, see `rpi-image devices`"),
        "part": ("is a partition", "use the whole disk, without the partition number"),
    }
    if device.kind in kinds:
        return Refusal(device.kind, *kinds[device.kind])
    if device.size_bytes == 0:
        return Refusal("empty", "has no medium", "insert a card, and wait a moment")
    return None


def _system(device: Device, policy: WritePolicy) -> Iterator[Refusal]:
    del policy
    if device.system_mounts:
        where = ", ".join(device.system_mounts)
        yield Refusal(
            "system",
            f"holds the running system ({where})",
            "use a card; no option overrides this",
        )


def _holders(device: Device, policy: WritePolicy) -> Iterator[Refusal]:
    del policy
    if device.holders:
        yield Refusal(
            "held",
            f"is part of {', '.join(device.holders)}",
            "remove it from that volume first",
        )


def _above(device: Device, policy: WritePolicy) -> Iterator[Refusal]:
    del policy
    if device.backing_device:
        yield Refusal("above", f"is a loop device on {device.backing}", "use that disk itself")


def _kind(device: Device, policy: WritePolicy) -> Iterator[Refusal]:
    if device.kind == "loop" or device.transport == "loop":
        if not policy.allow_loop:
            yield Refusal("loop", "is a loop device", "use --allow-loop to write it")
    elif device.kind != "disk":
        yield Refusal("kind", f"is not a disk but {device.kind}", "use the disk of the card")
    elif device.transport not in _REMOVABLE_TRANSPORTS or not _pluggable(device):
        how = device.transport or "an unknown bus"
        yield Refusal(
            "fixed", f"is not removable (connected by {how})", "use a USB or SD card reader"
        )


def _pluggable(device: Device) -> bool:
    return device.removable or device.hotplug or device.transport == "mmc"


def _mounted(device: Device, policy: WritePolicy) -> Iterator[Refusal]:
    del policy
    mounted = mounted_parts(device)
    if mounted and not device.system_mounts:
        where = ", ".join(f"{part} on {printable(point)}" for part, point in mounted)
        hint = "unmount it" + (", or use --unmount" if may_unmount(device) else "")
        yield Refusal("mounted", f"is mounted ({where})", hint)


def _keeps(device: Device, policy: WritePolicy) -> Iterator[Refusal]:
    family = (device, *device.relatives)
    here = {one.major_minor for one in family} | {p.major_minor for p in _all_parts(device)}
    for protected in policy.protected:
        if protected.major_minor in here - {""} or any(
            _is_backing(protected, one) for one in family
        ):
            yield Refusal("kept", f"holds {protected.what}", "copy it to another disk first")


def _is_backing(protected: ProtectedFile, device: Device) -> bool:
    """Return whether a loop device is on the file (under any name), or on a file in the folder."""
    same = bool(protected.inode) and protected.inode == device.backing_inode
    return same or (bool(protected.path) and f"{device.backing}/".startswith(f"{protected.path}/"))


def _read_only(device: Device, policy: WritePolicy) -> Iterator[Refusal]:
    del policy
    if device.read_only:
        yield Refusal(
            "read-only", "is read-only", "unlock the card's write protection, or use another card"
        )


def _small(device: Device, policy: WritePolicy) -> Iterator[Refusal]:
    if device.size_bytes < policy.image_bytes:
        size, needed = two_sizes(device.size_bytes, policy.image_bytes)
        yield Refusal(
            "small",
            f"is too small: {size}, the image needs {needed}",
            "use a larger card",
        )


def _large(device: Device, policy: WritePolicy) -> Iterator[Refusal]:
    if device.size_bytes > LARGE_BYTES and not policy.allow_large:
        yield Refusal(
            "large",
            f"is larger than usual cards ({device.size_bytes // 10**9} GB)",
            "use --allow-large if it is a card",
        )


def _sector(device: Device, policy: WritePolicy) -> Iterator[Refusal]:
    del policy
    if device.logical_sector_bytes != SECTOR_BYTES:
        yield Refusal(
            "sector",
            f"has sectors of {device.logical_sector_bytes} bytes, images need {SECTOR_BYTES}",
            "use another card or reader",
        )


def _twice(device: Device, policy: WritePolicy) -> Iterator[Refusal]:
    if any(one.major_minor in policy.taken for one in (device, *device.relatives)):
        yield Refusal("twice", "is given twice", "use each device once")


_RULES: tuple[Callable[[Device, WritePolicy], Iterator[Refusal]], ...] = (
    _system,
    _holders,
    _above,
    _kind,
    _mounted,
    _keeps,
    _read_only,
    _small,
    _large,
    _sector,
    _twice,
)


def refuse(device: Device, policy: WritePolicy) -> None:
    """Raise RefusedError with every reason to refuse a device."""
    reasons = refusals(device, policy)
    if not reasons:
        return
    facts = "; it ".join(reason.message for reason in reasons)
    final = reasons[0].code == "system"  # other hints do not apply then
    hints = dict.fromkeys(reason.hint for reason in reasons[: 1 if final else None])
    name = printable(device.path) or "''"
    raise RefusedError(f"{name} {facts}", "; ".join(hints))
