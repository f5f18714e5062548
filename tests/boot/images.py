"""Images like the vendors': partition table, stock boot files, vendor programs, Debian inside."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

from tests.boot import roots
from tests.lib.tools import need, run

HERE = Path(__file__).parent
SECTOR_BYTES = 512
MIB = 1 << 20
HYPRIOT_SIZE_BYTES = 1_363_148_800  # of HypriotOS 1.12
SIZES_BYTES = {roots.ARMHF: HYPRIOT_SIZE_BYTES, roots.ARM64: 1_610_612_736}
DISK_ID = "0x5ca1ab1e"


@dataclass(frozen=True)
class Fat:
    """The geometry of a boot partition."""

    bits: int = 16
    start_sectors: int = 2048
    size_mib: int = 64
    cluster_sectors: int = 4
    label: str = "HypriotOS"


@dataclass(frozen=True)
class Generation:
    """A vendor's image: the root it stands on, what is laid over it, and its boot partition."""

    kind: str
    layers: tuple[str, ...]
    fat: Fat = Fat()
    mount: str = "/boot"
    fstab_pass: int = 0
    by_partuuid: bool = False
    disk_id: str = DISK_ID
    label: str = ""  # of the root file system, which names it then
    kernel: str = "kernel7.img"
    initramfs: str = "initramfs7"


RASPBERRY_FAT = Fat(bits=32, start_sectors=8192, size_mib=512, cluster_sectors=8, label="bootfs")
_HYPRIOTOS = ("vendors/docker-ce", "vendors/hypriotos")
_RASPBERRY = ("vendors/docker-ce", "vendors/raspberry")
_UBUNTU_FAT = replace(RASPBERRY_FAT, start_sectors=2048, label="system-boot")
_TRIXIE = Generation(
    "cloud-init",
    (*_RASPBERRY, "vendors/trixie"),
    RASPBERRY_FAT,
    "/boot/firmware",
    fstab_pass=2,
    by_partuuid=True,
)
_UBUNTU = Generation(
    "cloud-init-arm64",
    ("vendors/ubuntu",),
    _UBUNTU_FAT,
    "/boot/firmware",
    fstab_pass=1,
    label="writable",
    kernel="vmlinuz",
    initramfs="initrd.img",
)
GENERATIONS = {
    "occidentalis-wheezy": Generation(
        "sysvinit", ("vendors/occidentalis",), Fat(label=""), disk_id="0x00000000"
    ),
    "occidentalis-jessie": Generation(
        "systemd", ("vendors/occidentalis",), Fat(label=""), disk_id="0x00000000"
    ),
    "device-init-1.0": Generation("cloud-init", (*_HYPRIOTOS, "vendors/device-init")),
    "device-init-1.6": Generation("cloud-init", (*_HYPRIOTOS, "vendors/device-init")),
    "cloud-init-1.12": Generation("cloud-init", _HYPRIOTOS, by_partuuid=True),
    "cloud-init-trixie": _TRIXIE,
    "trixie-without-user-data": _TRIXIE,
    "firstrun-bookworm": Generation(
        "networkmanager", _RASPBERRY, RASPBERRY_FAT, "/boot/firmware", 2, by_partuuid=True
    ),
    "trixie-arm64": replace(
        _TRIXIE,
        kind="cloud-init-arm64",
        layers=(*_TRIXIE.layers, "generations/cloud-init-trixie"),
        kernel="kernel8.img",
        initramfs="initramfs8",
    ),
    "ubuntu-24.04": _UBUNTU,
    "ubuntu-25.10": replace(_UBUNTU, kernel="current/vmlinuz", initramfs="current/initrd.img"),
}


def layers_of(generation: str) -> list[Path]:
    """Return the folders laid over a root, in order; each may hold boot/, root/ and setup."""
    return [HERE / name for name in (*GENERATIONS[generation].layers, f"generations/{generation}")]


def make_image(kind: str, generation: str, path: Path, size: int = 0) -> Path:
    """Write an image of `size` bytes to `path`; see `roots.make_image`."""
    run("cp", "--sparse=always", "--reflink=auto", golden(generation, kind, size), path)
    return path


def golden(generation: str, kind: str = "", size: int = 0) -> Path:
    """Return the cached image of a generation; it is read-only by its mode."""
    kind = kind or GENERATIONS[generation].kind
    size = size or SIZES_BYTES[roots.KINDS[kind]]
    kernel = roots.kernel(roots.KINDS[kind])
    key = roots.digest_of(
        [roots.RECIPE, *layers_of(generation), Path(__file__)],
        roots.root_folder(kind).name, kernel.initramfs.name, kernel.image.name, str(size),
    )  # fmt: skip
    name = f"image-{generation}-{kind}-{size}"
    return roots.once(name, key, lambda part: _make_golden(generation, kind, size, part))


def _make_golden(generation: str, kind: str, size: int, part: Path) -> None:
    need("sfdisk", "mkfs.vfat", "mcopy", "mkfs.ext4")
    vendor = GENERATIONS[generation]
    root_start = vendor.fat.start_sectors * SECTOR_BYTES + vendor.fat.size_mib * MIB
    work = part.with_suffix(".work")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    _lay_root(generation, kind, work / "root")
    _make_fat(generation, roots.kernel(roots.KINDS[kind]), work / "fat")
    with part.open("wb") as image:
        image.truncate(size)
    _partition(part, vendor, root_start)
    offset = vendor.fat.start_sectors * SECTOR_BYTES
    run("dd", f"if={work}/fat", f"of={part}", "bs=1M", "conv=notrunc,sparse", "oflag=seek_bytes",
        f"seek={offset}")  # fmt: skip
    run("mkfs.ext4", "-q", "-F", "-L", vendor.label, "-d", work / "root", "-E",
        f"offset={root_start}", part, f"{(size - root_start) // 1024}k")  # fmt: skip
    part.chmod(0o444)
    shutil.rmtree(work)


def _partition(image: Path, vendor: Generation, root_start: int) -> None:
    table = (
        f"label: dos\nlabel-id: {vendor.disk_id}\nunit: sectors\n"
        f"start={vendor.fat.start_sectors}, size={vendor.fat.size_mib * MIB // SECTOR_BYTES},"
        f" type=c\nstart={root_start // SECTOR_BYTES}, type=83\n"
    )
    run("sfdisk", "-q", image, input=table)


def _lay_root(generation: str, kind: str, work: Path) -> None:
    vendor = GENERATIONS[generation]
    roots.enable(roots.KINDS[kind])
    run("cp", "-a", "--reflink=auto", roots.root_folder(kind), work)
    first, second = _partition_names(vendor)
    (work / vendor.mount.lstrip("/")).mkdir(parents=True, exist_ok=True)
    (work / "etc/fstab").write_text(
        f"proc /proc proc defaults 0 0\n"
        f"{first} {vendor.mount} vfat defaults 0 {vendor.fstab_pass}\n"
        f"{second} / ext4 defaults,noatime 0 1\n"
    )
    for layer in (roots.RECIPE, *layers_of(generation)):
        if (layer / "root").is_dir():
            run("cp", "-a", "--no-preserve=ownership", f"{layer}/root/.", work)
        if (layer / "setup").exists():
            shutil.copy(layer / "setup", work / "tmp/setup")
            roots.in_root(work, "/tmp/setup")
            (work / "tmp/setup").unlink()


def _partition_names(vendor: Generation) -> tuple[str, str]:
    """Return how the vendor's fstab names boot and root partition."""
    if vendor.label:
        return f"LABEL={vendor.fat.label}", f"LABEL={vendor.label}"
    if not vendor.by_partuuid:
        return "/dev/mmcblk0p1", "/dev/mmcblk0p2"
    disk = f"PARTUUID={vendor.disk_id.removeprefix('0x')}-0"
    return f"{disk}1", f"{disk}2"


def _make_fat(generation: str, kernel: roots.Kernel, volume: Path) -> None:
    """Make the boot partition with mkfs.vfat and mtools: the kernel under a Pi's name for it."""
    vendor = GENERATIONS[generation]
    fat = vendor.fat
    options = ["-F", str(fat.bits), "-s", str(fat.cluster_sectors)]
    options += ["-n", fat.label] if fat.label else []
    if fat.bits == 16:
        options += ["-R", "4", "-r", "512"]
    run("mkfs.vfat", *options, "-C", volume, str(fat.size_mib * 1024))
    copy = ("mcopy", "-o", "-s", "-i", volume)
    for layer in layers_of(generation):
        if (layer / "boot").is_dir():
            run(*copy, *sorted((layer / "boot").iterdir()), "::/")
    run(*copy, kernel.image, f"::/{vendor.kernel}")
    run(*copy, kernel.initramfs, f"::/{vendor.initramfs}")


def extract(image: Path, offset: int, size: int, out: Path) -> Path:
    """Copy a partition out of a raw image, skipping holes."""
    command = ["dd", f"if={image}", f"of={out}", "bs=4M", "conv=sparse"]
    command += ["iflag=skip_bytes,count_bytes", f"skip={offset}", f"count={size}"]
    subprocess.run(command, check=True, capture_output=True)
    return out
