"""Why a device must not be written: one pure function from its facts to reasons."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from imagebuilder.errors import RefusedError
from imagebuilder.model import SECTOR_BYTES

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
    """One reason against a device; `code` names the rule."""

    code: str
    message: str
    hint: str


@dataclass(frozen=True, slots=True)
class ProtectedFile:
    """Something that must survive: what it is, the block device it lies on, and the file itself.

    `major_minor` is "" where no device can be named; `inode` is `device/inode`.
    """

    what: str
    major_minor: str
    path: str = ""
    inode: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WritePolicy:
    """What shall be written, and what the user allowed by flags."""

    image_bytes: int = 0
    allow_loop: bool = False
    allow_large: bool = False
    protected: tuple[ProtectedFile, ...] = ()
    taken: tuple[str, ...] = ()


def refusals(device: Device, policy: WritePolicy) -> tuple[Refusal, ...]:
    """Return every reason against writing `device`, the weightiest first; none means safe.

    No wish lifts the refusal of a disk that carries the system.
    """
    unusable = _unusable(device)
    if unusable:
        return (unusable,)
    found = (refusal for rule in _RULES for refusal in rule(device, policy))
    return tuple(found)


def sanitise(text: str) -> str:
    """Make a vendor's string fit for a terminal: printable, single blanks, short."""
    return " ".join(printable(text).split())[:_NAME_LENGTH].rstrip()


def printable(text: str) -> str:
    """Replace by blanks what could steer a terminal."""
    return "".join(c if c.isprintable() else " " for c in text)


def is_system_mount(point: str) -> bool:
    """Return whether the running system needs what is mounted there."""
    return point in _SYSTEM_MOUNTS or point.startswith(_SYSTEM_BELOW)


def may_unmount(device: Device) -> bool:
    """Return whether what is mounted may be unmounted: removable media, nothing of the system."""
    return device.transport in _REMOVABLE_TRANSPORTS and not (
        device.system_mounts or device.holders or device.backing_device
    )


def mounted_parts(device: Device) -> tuple[tuple[str, str], ...]:
    """Return (partition, mount point) of everything mounted, also by a relative."""
    return tuple((part.path, point) for part in _all_parts(device) for point in part.mountpoints)


def _all_parts(device: Device) -> tuple[DevicePart, ...]:
    return tuple(part for one in (device, *device.relatives) for part in one.parts)


def only_mounted(device: Device, policy: WritePolicy) -> bool:
    """Return whether a device is refused for nothing but its mounts."""
    return all(refusal.code == "mounted" for refusal in refusals(device, policy))


def same_device(confirmed: Device, now: Device) -> bool:
    """Return whether this is still the medium that was confirmed, in the same place."""
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
    """Say why this is no disk at all; nothing more can be asked of it then."""
    kinds = {
        "absent": ("does not exist", "`rpi-image devices` lists them"),
        "file": ("is not a block device", "give the card's disk; `rpi-image devices` lists them"),
        "part": ("is a partition", "give the whole disk, without the partition's number"),
    }
    if device.kind in kinds:
        return Refusal(device.kind, *kinds[device.kind])
    if device.size_bytes == 0:
        return Refusal("empty", "holds no medium", "insert a card, and wait a moment")
    return None


def _system(device: Device, policy: WritePolicy) -> Iterator[Refusal]:
    del policy
    if device.system_mounts:
        where = ", ".join(device.system_mounts)
        yield Refusal(
            "system", f"carries the running system ({where})", "no flag overrides this; take a card"
        )


def _holders(device: Device, policy: WritePolicy) -> Iterator[Refusal]:
    del policy
    if device.holders:
        yield Refusal(
            "held",
            f"is part of {', '.join(device.holders)}",
            "take it out of that volume first, if it is really to be overwritten",
        )


def _above(device: Device, policy: WritePolicy) -> Iterator[Refusal]:
    del policy
    if device.backing_device:
        yield Refusal("above", f"shows {device.backing}", "give that disk itself")


def _kind(device: Device, policy: WritePolicy) -> Iterator[Refusal]:
    if device.kind == "loop" or device.transport == "loop":
        if not policy.allow_loop:
            yield Refusal("loop", "is a loop device", "give --allow-loop to write it")
    elif device.kind != "disk":
        yield Refusal("kind", f"is no disk but {device.kind}", "give the card's disk")
    elif device.transport not in _REMOVABLE_TRANSPORTS or not _pluggable(device):
        how = device.transport or "an unknown way"
        yield Refusal(
            "fixed", f"is not removable (connected by {how})", "take a USB or SD card reader"
        )


def _pluggable(device: Device) -> bool:
    return device.removable or device.hotplug or device.transport == "mmc"


def _mounted(device: Device, policy: WritePolicy) -> Iterator[Refusal]:
    del policy
    mounted = mounted_parts(device)
    if mounted and not device.system_mounts:
        where = ", ".join(f"{part} on {printable(point)}" for part, point in mounted)
        hint = "unmount it" + (", or give --unmount" if may_unmount(device) else "")
        yield Refusal("mounted", f"is mounted ({where})", hint)


def _keeps(device: Device, policy: WritePolicy) -> Iterator[Refusal]:
    family = (device, *device.relatives)
    here = {one.major_minor for one in family} | {p.major_minor for p in _all_parts(device)}
    for protected in policy.protected:
        if protected.major_minor in here - {""} or any(
            _is_backing(protected, one) for one in family
        ):
            yield Refusal("kept", f"holds {protected.what}", "copy that to another disk first")


def _is_backing(protected: ProtectedFile, device: Device) -> bool:
    """Return whether a loop shows the file (by whatever name), or a file of the folder."""
    same = bool(protected.inode) and protected.inode == device.backing_inode
    return same or (bool(protected.path) and f"{device.backing}/".startswith(f"{protected.path}/"))


def _read_only(device: Device, policy: WritePolicy) -> Iterator[Refusal]:
    del policy
    if device.read_only:
        yield Refusal("read-only", "is read-only", "slide the card's lock open, or take another")


def _small(device: Device, policy: WritePolicy) -> Iterator[Refusal]:
    if device.size_bytes < policy.image_bytes:
        yield Refusal(
            "small",
            f"is too small: {device.size_bytes} bytes, the image needs {policy.image_bytes}",
            "take a larger card",
        )


def _large(device: Device, policy: WritePolicy) -> Iterator[Refusal]:
    if device.size_bytes > LARGE_BYTES and not policy.allow_large:
        yield Refusal(
            "large",
            f"is larger than a card usually is ({device.size_bytes // 10**9} GB)",
            "give --allow-large if it is really a card",
        )


def _sector(device: Device, policy: WritePolicy) -> Iterator[Refusal]:
    del policy
    if device.logical_sector_bytes != SECTOR_BYTES:
        yield Refusal(
            "sector",
            f"has sectors of {device.logical_sector_bytes} bytes, "
            f"images are made for {SECTOR_BYTES}",
            "take another card or reader",
        )


def _twice(device: Device, policy: WritePolicy) -> Iterator[Refusal]:
    if any(one.major_minor in policy.taken for one in (device, *device.relatives)):
        yield Refusal("twice", "is given twice", "name each device once")


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
    """Raise RefusedError with every reason against a device."""
    reasons = refusals(device, policy)
    if not reasons:
        return
    facts = "; it ".join(reason.message for reason in reasons)
    final = reasons[0].code == "system"  # no other hint helps then
    hints = dict.fromkeys(reason.hint for reason in reasons[: 1 if final else None])
    name = printable(device.path) or "''"
    raise RefusedError(f"{name} {facts}", "; ".join(hints))
