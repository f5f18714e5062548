"""Which devices of a machine show the same bytes: loops over disks, and over one file."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from imagebuilder.devices.device import Device


def with_relatives(listed: Sequence[Device]) -> tuple[Device, ...]:
    """Tell every device what it shares its bytes with, and what that carries and is held by."""
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
    """Return the device and all that is joined to it, over however many loops."""
    found = [device]
    for member in found:
        paths = {one.path for one in found}
        found += [d for d in listed if d.path not in paths and _share(member, d)]
    return found


def _share(one: Device, other: Device) -> bool:
    """Return whether a loop is one of both and shows the other, or what the other shows."""
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
    """Return the names and numbers of a disk and of all that stands on it."""
    names = {device.path, device.major_minor}
    names |= {name for part in device.parts for name in (part.path, part.major_minor)}
    return names - {""}


def _shown(device: Device) -> set[str]:
    """Return what a loop stands on; a path can be out of date, the kernel's numbers cannot."""
    return ({device.backing_inode or device.backing, device.backing_device}) - {""}
