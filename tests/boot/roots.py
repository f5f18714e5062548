"""Root file systems of Debian packages for an emulated Pi, cached by what they are made from.

`make_image` lays one of them and a vendor-like boot partition into an image; nothing here uses the
code under test. Needs root, network and the packages of `packages.txt` the first time.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from tests.lib import initramfs
from tests.lib.debian import mirror
from tests.lib.tools import need, need_root, run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

HERE = Path(__file__).parent
RECIPE = HERE / "recipe"
GROW = RECIPE / "root/usr/sbin/grow-partition"
SUITE = "bookworm"
# Debian's other kernel for armhf writes the domain register at each entry into the kernel, and QEMU
# then forgets all addresses it has looked up (dacr_write in its target/arm): a quarter of its time.
KERNEL = "linux-image-armmp-lpae"
KINDS = ("sysvinit", "systemd", "cloud-init", "networkmanager")
KERNEL_PARTS = ("crypto", "fs", "lib", "net", "block", "mm", "kernel", "arch")
KERNEL_DRIVERS = ("block", "char", "mmc", "net", "usb", "virtio", "clk", "dma", "gpio", "phy")
NET_DRIVERS = ("virtio_net.ko", "veth.ko", "usb", "net_failover.ko", "mii.ko", "tun.ko", "vxlan")
FAST = (
    "force-unsafe-io",
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/doc/*",
    "path-exclude=/usr/share/locale/*",
)


@dataclass(frozen=True)
class Kernel:
    """A Debian kernel as a Pi's firmware would load it, with its device trees."""

    image: Path
    initramfs: Path
    device_trees: Path


def cache_folder() -> Path:
    """Where the roots are kept between runs: outside the checkout."""
    given = os.environ.get("RPI_IMAGE_TEST_CACHE")
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(given) if given else Path(cache) / "rpi-image-tests"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def digest_of(paths: Iterable[Path], *words: str) -> str:
    """Return a key that changes with any of the files (folders are walked) and words."""
    digest = hashlib.sha256("\0".join(words).encode())
    for path in paths:
        inside = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in inside:
            digest.update(f"{file.relative_to(path.parent)}\0{file.stat().st_mode}\0".encode())
            digest.update(file.read_bytes() if file.is_file() else b"")
    return digest.hexdigest()[:20]


def once(name: str, key: str, make: Callable[[Path], None]) -> Path:
    """Return the cached file or folder `name`, made by `make` if this key is new."""
    final = cache_folder() / f"{name}-{key}"
    with FileLock(f"{final}.lock"):
        if not final.exists():
            part = Path(f"{final}.part")
            _remove(part)
            make(part)
            part.rename(final)
            _forget_older(name, final)
    return final


def _remove(path: Path) -> None:
    for line in reversed(Path("/proc/self/mounts").read_text().splitlines()):
        place = Path(line.split()[1])
        if place.is_relative_to(path):  # of a run that was killed
            run("umount", str(place))
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _forget_older(name: str, final: Path) -> None:
    """Remove what older recipes of the same name left."""
    for path in final.parent.glob(f"{name}-" + "[0-9a-f]" * 20):
        if path != final:
            _remove(path)


def _packages(kind: str) -> list[str]:
    return (RECIPE / f"{kind}.packages").read_text().split()


def _base_key() -> str:
    return digest_of([RECIPE / "base.packages"], SUITE, *FAST)


def _kind_key(kind: str) -> str:
    return digest_of(
        [RECIPE / f"{kind}.packages"],
        _base_key(),
        KERNEL,
        *KERNEL_PARTS,
        *KERNEL_DRIVERS,
        *NET_DRIVERS,
    )


def enable_armhf() -> None:
    """Let this machine's kernel run armhf programs through qemu-user."""
    need("update-binfmts")
    binfmt = Path("/proc/sys/fs/binfmt_misc")
    if not (binfmt / "register").exists():
        run("mount", "-t", "binfmt_misc", "binfmt_misc", str(binfmt))
    if not (binfmt / "qemu-arm").exists():
        # Debian's qemu-user-static (bookworm) leaves this to the administrator inside a container.
        run("update-binfmts", "--import", "qemu-arm")
        run("update-binfmts", "--enable", "qemu-arm")


def base_folder() -> Path:
    """Return the root that all kinds grow from; it has no init yet."""
    return once("base", _base_key(), _make_base)


def _make_base(part: Path) -> None:
    need_root()
    need("mmdebstrap", "qemu-arm-static", "arch-test")
    enable_armhf()
    run(
        "mmdebstrap", "--mode=root", "--architectures=armhf", "--variant=minbase",
        f"--include={','.join(_packages('base'))}", *(f"--dpkgopt={option}" for option in FAST),
        '--aptopt=Acquire::Languages "none"', SUITE, str(part), f"deb {mirror()} {SUITE} main",
    )  # fmt: skip


def root_folder(kind: str) -> Path:
    """Return the folder of a root of packages: one of KINDS."""
    return once(f"root-{kind}", _kind_key(kind), lambda part: _make_root(kind, part))


def _make_root(kind: str, part: Path) -> None:
    base, package = base_folder(), _kernel_package()
    enable_armhf()
    run("cp", "-a", "--reflink=auto", str(base), str(part))
    in_root(part, "apt-get", "update", "-qq")
    in_root(part, "apt-get", "install", "-y", "--no-install-recommends", *_packages(kind))
    _lay_modules(package, part)
    run("sh", "-c", f"rm -rf {part}/tmp/* {part}/var/lib/apt/lists/* {part}/var/cache/apt/*")


def in_root(root: Path, *command: str) -> None:
    """Run a program of the root in it, with the machine's name service, starting no service."""
    resolver, policy = root / "etc/resolv.conf", root / "usr/sbin/policy-rc.d"
    shutil.copy("/etc/resolv.conf", resolver)
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
    try:
        run("env", "DEBIAN_FRONTEND=noninteractive", "chroot", str(root), *command)
    finally:
        policy.unlink()
        resolver.unlink(missing_ok=True)


def _kernel_package() -> Path:
    """Return the unpacked Debian kernel package."""
    return once("kernel", digest_of([], _base_key(), KERNEL), _make_kernel_package)


def _make_kernel_package(part: Path) -> None:
    base = base_folder()
    in_root(base, "apt-get", "update", "-qq")
    in_root(
        base,
        "sh",
        "-c",
        f"cd /tmp && apt-get -qq download $(apt-cache depends {KERNEL}"
        " | sed -n 's/.*Depends: \\(linux-image-[^ ]*\\).*/\\1/p')",
    )
    (package,) = (base / "tmp").glob("linux-image-*.deb")
    part.mkdir()
    run("dpkg-deb", "-x", str(package), str(part))
    package.unlink()


def _lay_modules(package: Path, root: Path) -> None:
    """Copy the modules an emulated Pi and its Docker can use, a tenth of all."""
    (modules,) = (package / "lib/modules").iterdir()
    target = root / "lib/modules" / modules.name
    drivers = [f"drivers/{name}" for name in KERNEL_DRIVERS if name != "net"]
    network = [f"drivers/net/{name}" for name in NET_DRIVERS]
    for part in [*KERNEL_PARTS, *drivers, *network]:
        source = modules / "kernel" / part
        if source.exists():
            (target / "kernel" / part).parent.mkdir(parents=True, exist_ok=True)
            run("cp", "-a", str(source), str(target / "kernel" / part))
    for table in modules.glob("modules.*"):
        shutil.copy(table, target)
    run("depmod", "-b", str(root), modules.name)


def kernel() -> Kernel:
    """Return the kernel, an initramfs that makes it like a Pi's, and the device trees."""
    package = _kernel_package()
    (image,) = (package / "boot").glob("vmlinuz-*")
    (trees,) = (package / "usr/lib").glob("linux-image-*")
    key = digest_of([initramfs.INIT, GROW], image.name, *initramfs.MODULES)
    return Kernel(image, once("initramfs", key, _make_initramfs), trees)


def _make_initramfs(part: Path) -> None:
    need("cpio", "modprobe", "depmod")
    base, package = base_folder(), _kernel_package()
    tree = part.with_suffix(".tree")
    _remove(tree)
    applets = run("chroot", str(base), "/bin/busybox", "--list").split()
    initramfs.lay_tree(tree, base / "bin/busybox", applets, package)
    shutil.copy(GROW, tree / "bin/grow-partition")
    initramfs.pack(tree, part)
    shutil.rmtree(tree)


def make_all(kinds: Sequence[str] = KINDS) -> None:
    """Make every root that is not cached yet."""
    for kind in kinds:
        root_folder(kind)


def make_image(kind: str, generation: str, path: Path, size: int) -> Path:
    """Write an image of `size` bytes to `path`: the root `kind` under `generation`'s boot files.

    `generation` is a name of `images.GENERATIONS`; "" as `kind` takes the root it is made for.
    """
    from tests.boot import images  # noqa: PLC0415 - images stands on this module

    return images.make_image(kind, generation, path, size)
