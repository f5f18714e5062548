"""Find devices with the same bytes: loop devices on disks, and several on one file."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from imagebuilder.devices.device import Device


def with_relatives(listed: Sequence[Device]) -> tuple[Device, ...]:
    """Return the devices with their relatives, and the mounts and holders of those."""
    return tuple(_related(device, listed) for device in listed)


def _related(device: Device, listed: Sequence[Device]) -> Device:
    family = _family(device, listed)
    if len(family) == 1:
        return device
    above = [f"loop {loop.path}" for loop in _above(device, listed)]
    relatives = tuple(family[1:])
    return replace(
        device,
        backing_device=device.backing_device or _below(device, listed),
        relatives=relatives,
        holders=(*device.holders, *above, *(h for other in relatives for h in other.holders)),
        system_mounts=tuple(dict.fromkeys(at for one in family for at in one.system_mounts)),
    )


def _family(device: Device, listed: Sequence[Device]) -> list[Device]:
    """Return the device and all that share bytes with it, through any number of loops."""
    found = [device]
    for member in found:
        paths = {one.path for one in found}
        found += [d for d in listed if d.path not in paths and _share(member, d)]
    return found


def _share(one: Device, other: Device) -> bool:
    """Return whether one is a loop on the other, or both are loops on the same file."""
    shown, seen = _shown(one), _shown(other)
    return bool(shown & seen or shown & _nodes(other) or seen & _nodes(one))


def _above(device: Device, listed: Sequence[Device]) -> list[Device]:
    direct = [d for d in listed if d.path != device.path and _shown(d) & _nodes(device)]
    return [*direct, *(higher for loop in direct for higher in _above(loop, listed))]


def _below(device: Device, listed: Sequence[Device]) -> str:
    shown = _shown(device)
    lower = (d for d in listed if d.path != device.path and shown & _nodes(d))
    return next((d.major_minor for d in lower), "")


def _nodes(device: Device) -> set[str]:
    """Return the paths and numbers of a disk and its partitions."""
    names = {device.path, device.major_minor}
    names |= {name for part in device.parts for name in (part.path, part.major_minor)}
    return names - {""}


def _shown(device: Device) -> set[str]:
    """Return the file of a loop; its inode if known, because the path may be out of date."""
    return ({device.backing_inode or device.backing, device.backing_device}) - {""}
