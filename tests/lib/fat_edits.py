"""The stock files of a boot partition, edits for it, and a base that was edited."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imagebuilder.disk.fat.edit import BootBase
from imagebuilder.disk.reader import open_raw
from imagebuilder.model import BootEdit
from tests.lib.fat_images import (
    EPOCH,
    FatImage,
    fsck,
    write_patched,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from imagebuilder.disk.extent import Patch


STOCK = {
    "cmdline.txt": b"console=tty1 root=/dev/mmcblk0p2 rootwait\n",
    "occidentalis.txt": b"hostname=black-pearl\n",
    "kernel.img": bytes(range(256)) * 300,
    "Some Mixed Name.txt": b"mixed\n",
    "overlays/hifiberry-dac-overlay.dtb": b"\xd0\x0d\xfe\xed" * 500,
    "overlays/README": b"read me\n",
    "empty.txt": b"",
}


EDITS = (
    BootEdit("cmdline.txt", b'init=/bin/sh -c "exec /sbin/init" ' * 100),
    BootEdit("OCCIDENTALIS.TXT", b"hostname=pi-03\n"),
    BootEdit("config.txt", b"gpu_mem=16\n"),
    BootEdit("rpi-image/install", b"#!/bin/sh\nexit 0\n" * 700),
    BootEdit("rpi-image/node.env", b"NODE_HOSTNAME='pi-03'\n"),
    BootEdit("rpi-image/wifi/wpa_supplicant.conf", b"network={}\n"),
    BootEdit("overlays/README", None),
    BootEdit("absent.txt", None),
    BootEdit("absent/folder.txt", None),
    BootEdit("Überraschung ☃.txt", "Grüße\n".encode()),
    BootEdit("nothing", b""),
)


def geometry_name(geometry: tuple[int, int, int]) -> str:
    return f"FAT{geometry[0]}-{geometry[1]}MiB-{geometry[2]}"


def patch_of(image: FatImage, edits: Sequence[BootEdit], epoch: int = EPOCH) -> Patch:
    with open_raw(image.path) as raw:
        return BootBase(raw, image.partition()).apply(edits, epoch)


def edited(image: FatImage, edits: Sequence[BootEdit], epoch: int = EPOCH) -> FatImage:
    out = write_patched(
        image, patch_of(image, edits, epoch), image.path.with_name(image.path.name + "+")
    )
    fsck(out)
    return out


def broken(image: FatImage, offset: int, data: bytes) -> FatImage:
    with image.path.open("r+b") as disk:
        disk.seek(image.start_bytes + offset)
        disk.write(data)
    return image
