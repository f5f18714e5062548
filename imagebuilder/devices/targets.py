"""The devices named for writing: refused, unmounted or confirmed before anything else happens."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from imagebuilder.devices.blockdev import PERMISSION_HINT, unmounted
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
from imagebuilder.errors import InputError, RefusedError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from imagebuilder.devices.device import Device
    from imagebuilder.devices.safety import WritePolicy
    from imagebuilder.progress import Prompter


def choose_targets(
    paths: Sequence[str], policy: WritePolicy, prompter: Prompter, *, unmount: bool | None = None
) -> tuple[Device, ...]:
    """Return the devices, every one of them free of reasons against it; raises RefusedError.

    `unmount` says whether a card may be unmounted that is only refused for that; None: ask.
    """
    found: list[Device] = []
    for path in paths:
        device = load_device(path)
        own = replace(policy, taken=tuple(other.major_minor for other in found))
        if only_mounted(device, own) and _wants_unmount(device, prompter, unmount=unmount):
            _check_writable(device)
            device = unmounted(device)
        refuse(device, own)
        _check_writable(device)
        found.append(device)
    return tuple(found)


def _check_writable(device: Device) -> None:
    """Find out before a download, not after it, that only root may write the device."""
    if not os.access(device.path, os.W_OK):
        raise RefusedError(f"{device.path} cannot be written by you", PERMISSION_HINT)


def _wants_unmount(device: Device, prompter: Prompter, *, unmount: bool | None) -> bool:
    if not (mounted_parts(device) and may_unmount(device)):
        return False
    if unmount is not None:
        return unmount
    where = ", ".join(point for _, point in mounted_parts(device))
    return prompter.ask(f"{device.path} is mounted on {where}; unmount? (y/n)", "n").lower() == "y"


def confirm(targets: Sequence[tuple[Device, str]], prompter: Prompter, *, yes: bool) -> None:
    """Say what will be overwritten and, without `yes`, have the devices named.

    Raises RefusedError where they are not.
    """
    for device, what in targets:
        held = describe_content(device)
        prompter.note(f"{what} goes onto {describe(device)}, which holds {held}")
    if not yes:
        names = " ".join(device.path for device, _ in targets)
        agree(f"All on it will be lost. Type {names} to go on:", names, prompter)


def agree(question: str, name: str, prompter: Prompter) -> None:
    """Have `name` typed; raises RefusedError where it is not, or where no user can answer."""
    try:
        typed = prompter.confirm_by_name(question, name)
    except InputError as error:
        raise RefusedError(error.message, error.hint) from error
    if not typed:
        raise RefusedError(f"{name} was not confirmed", "nothing was written")


def judge_devices(policy: WritePolicy) -> list[tuple[Device, tuple[str, ...]]]:
    """Return every device of this machine with the reasons against it."""
    return [
        (device, tuple(refusal.message for refusal in refusals(device, policy)))
        for device in list_devices()
    ]


def protected_folder(folder: Path, what: str) -> ProtectedFile:
    """Return a folder that no target may hold."""
    return ProtectedFile(what, device_holding(folder), str(folder.resolve()))


def protected_file(file: Path) -> ProtectedFile:
    """Return a file that no target may hold, by whatever name."""
    status = file.stat()
    inode = f"{status.st_dev}/{status.st_ino}"
    return ProtectedFile(str(file), device_holding(file.absolute()), str(file.resolve()), inode)
