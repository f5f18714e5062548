"""Check the devices to write: refuse, unmount and confirm them before anything else."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from imagebuilder.devices import access
from imagebuilder.devices.blockdev import unmounted
from imagebuilder.devices.device import describe, describe_content
from imagebuilder.devices.inventory import device_holding, list_devices, load_device
from imagebuilder.devices.safety import (
    ProtectedFile,
    may_unmount,
    mounted_parts,
    only_mounted,
    refusals,
    refuse,
)
from imagebuilder.errors import PERMISSION_HINT, RefusedError
from imagebuilder.progress import agree

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from imagebuilder.devices.device import Device
    from imagebuilder.devices.safety import WritePolicy
    from imagebuilder.progress import Prompter


def choose_targets(
    paths: Sequence[str], policy: WritePolicy, prompter: Prompter, *, unmount: bool | None = None
) -> tuple[Device, ...]:
    """Return the devices, all of which may be written. Raise RefusedError for one that may not.

    `unmount` is whether to unmount a card that is refused only because it is mounted; None: ask.
    """
    found: list[Device] = []
    for path in paths:
        device = load_device(path)
        own = replace(policy, taken=tuple(other.major_minor for other in found))
        if only_mounted(device, own) and _wants_unmount(device, prompter, unmount=unmount):
            _gain_access(device)
            device = unmounted(device)
        refuse(device, own)
        if _gain_access(device):  # a helper sees more of loop devices
            device = load_device(path)
            refuse(device, own)
        found.append(device)
    return tuple(found)


def _gain_access(device: Device) -> bool:
    """Return whether a helper was started to write a device, before a download instead of after it.

    Raise RefusedError without write permission.
    """
    before = access.has_helper()
    if not access.may_write(device.path):
        raise RefusedError(f"no permission to write {device.path}", PERMISSION_HINT)
    return access.has_helper() and not before


def prepare_access() -> None:
    """Ask now for what cards to come need. Raise RefusedError if they could not be written."""
    if not access.prepare():
        raise RefusedError("no permission to write cards", PERMISSION_HINT)


def _wants_unmount(device: Device, prompter: Prompter, *, unmount: bool | None) -> bool:
    if not (mounted_parts(device) and may_unmount(device)):
        return False
    if unmount is not None:
        return unmount
    where = ", ".join(point for _, point in mounted_parts(device))
    return (
        prompter.ask(f"{device.path} is mounted on {where}; unmount it? (y/n)", "n").lower() == "y"
    )


def confirm(targets: Sequence[tuple[Device, str]], prompter: Prompter, *, yes: bool) -> None:
    """Report what will be overwritten; without `yes` ask the user to type the devices.

    Raise RefusedError if the answer differs.
    """
    for device, what in targets:
        held = describe_content(device)
        prompter.note(f"{what} will be written to {describe(device)}, which holds {held}")
    if not yes:
        names = " ".join(device.path for device, _ in targets)
        agree(f"All data on it will be lost. Type {names} to continue:", names, prompter)


def judge_devices(policy: WritePolicy) -> list[tuple[Device, tuple[str, ...]]]:
    """Return every device of this machine with the reasons to refuse it."""
    return [
        (device, tuple(refusal.message for refusal in refusals(device, policy)))
        for device in list_devices()
    ]


def protected_folder(folder: Path, what: str) -> ProtectedFile:
    """Return the protection of a folder: no target may hold it."""
    return ProtectedFile(what, device_holding(folder), str(folder.resolve()))


def protected_file(file: Path) -> ProtectedFile:
    """Return the protection of a file: no target may hold it, under any name."""
    status = file.stat()
    inode = f"{status.st_dev}/{status.st_ino}"
    return ProtectedFile(str(file), device_holding(file.absolute()), str(file.resolve()), inode)
