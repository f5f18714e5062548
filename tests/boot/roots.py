"""Root file systems of Debian packages for an emulated Pi, cached by what they are made from.

`make_image` lays one of them and a vendor-like boot partition into an image; nothing here uses the
code under test. Needs root, network and the packages of `packages.txt` the first time.
"""

from __future__ import annotations

import hashlib
import os
import re
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
FAST = (
    "force-unsafe-io",
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/doc/*",
    "path-exclude=/usr/share/locale/*",
)


@dataclass(frozen=True)
class System:
    """A Debian that roots are made of, its kernel, and the program that runs it here."""

    architecture: str
    suite: str
    kernel: str
    interpreter: str
    suffix: str = ""  # of its recipe and of what is cached
    fast: tuple[str, ...] = FAST
    radios: tuple[str, ...] = ()


# Debian's other kernel for armhf writes the domain register at each entry into the kernel, and QEMU
# then forgets all addresses it has looked up (dacr_write in its target/arm): a quarter of its time.
ARMHF = System("armhf", "bookworm", "linux-image-armmp-lpae", "qemu-arm")
# Compiling all of Python's modules and linking all certificates takes an emulated machine minutes.
ARM64 = System(
    "arm64", "trixie", "linux-image-arm64", "qemu-aarch64", "-arm64",
    (*FAST, "path-exclude=/usr/bin/py3compile", "path-exclude=/usr/share/ca-certificates/*"),
    ("wireless/virtual",),
)  # fmt: skip
KINDS = {
    "sysvinit": ARMHF,
    "systemd": ARMHF,
    "cloud-init": ARMHF,
    "networkmanager": ARMHF,
    "cloud-init-arm64": ARM64,
}
KERNEL_PARTS = ("crypto", "fs", "lib", "net", "block", "mm", "kernel", "arch")
KERNEL_DRIVERS = ("block", "char", "mmc", "net", "usb", "virtio", "clk", "dma", "gpio", "phy")
NET_DRIVERS = ("virtio_net.ko", "veth.ko", "usb", "net_failover.ko", "mii.ko", "tun.ko", "vxlan")


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


def _recipe(kind: str) -> Path:
    return RECIPE / f"{kind}.packages"


def _base_recipe(system: System) -> Path:
    return RECIPE / f"base{system.suffix}.packages"


def _base_key(system: System) -> str:
    return digest_of([_base_recipe(system)], system.suite, *system.fast)


def _kind_key(kind: str) -> str:
    return digest_of(
        [_recipe(kind)],
        _base_key(KINDS[kind]),
        KINDS[kind].kernel,
        *KERNEL_PARTS,
        *KERNEL_DRIVERS,
        *NET_DRIVERS,
        *KINDS[kind].radios,
    )


def enable(system: System) -> None:
    """Let this machine's kernel run the system's programs through qemu-user."""
    need("update-binfmts")
    binfmt = Path("/proc/sys/fs/binfmt_misc")
    if not (binfmt / "register").exists():
        run("mount", "-t", "binfmt_misc", "binfmt_misc", str(binfmt))
    if not (binfmt / system.interpreter).exists():
        # Debian's qemu-user-static (bookworm) leaves this to the administrator inside a container.
        run("update-binfmts", "--import", system.interpreter)
        run("update-binfmts", "--enable", system.interpreter)


def base_folder(system: System = ARMHF) -> Path:
    """Return the root that all kinds of a system grow from; it has no init yet."""
    name = f"base{system.suffix}"
    return once(name, _base_key(system), lambda part: _make_base(system, part))


def _make_base(system: System, part: Path) -> None:
    need_root()
    need("mmdebstrap", "qemu-arm-static", "qemu-aarch64-static", "arch-test")
    enable(system)
    packages, suite = _base_recipe(system).read_text().split(), system.suite
    run(
        "mmdebstrap", "--mode=root", f"--architectures={system.architecture}", "--variant=minbase",
        f"--include={','.join(packages)}", *(f"--dpkgopt={word}" for word in system.fast),
        '--aptopt=Acquire::Languages "none"', suite, str(part), f"deb {mirror()} {suite} main",
    )  # fmt: skip


def root_folder(kind: str) -> Path:
    """Return the folder of a root of packages: one of KINDS."""
    return once(f"root-{kind}", _kind_key(kind), lambda part: _make_root(kind, part))


def _make_root(kind: str, part: Path) -> None:
    system, packages = KINDS[kind], _recipe(kind).read_text().split()
    base, package = base_folder(system), _kernel_package(system)
    enable(system)
    run("cp", "-a", "--reflink=auto", str(base), str(part))
    if packages:
        in_root(part, "apt-get", "update", "-qq")
        in_root(part, "apt-get", "install", "-y", "--no-install-recommends", *packages)
    _lay_modules(package, part, system.radios)
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


def _kernel_package(system: System) -> Path:
    """Return the unpacked Debian kernel package."""
    key = digest_of([], _base_key(system), system.kernel)
    return once(f"kernel{system.suffix}", key, lambda part: _make_kernel_package(system, part))


def _make_kernel_package(system: System, part: Path) -> None:
    work = part.with_suffix(".work")
    archive = Archive(system.architecture, system.suite, work)
    depends = archive.ask("apt-cache", "depends", system.kernel)
    (name,) = re.findall(r"Depends: (linux-image-\S+)", depends)
    part.mkdir()
    run("dpkg-deb", "-x", archive.download(name), part)
    shutil.rmtree(work)
    if not (part / "lib").exists():
        (part / "lib").symlink_to("usr/lib")
    # Trixie's modules are packed, and the busybox of the initramfs would have to unpack them.
    run("sh", "-c", f"find {part} -name '*.ko.xz' -print0 | xargs -0 -r -n 200 -P 2 unxz")


@dataclass
class Archive:
    """Debian's packages of an architecture, by this machine's apt with lists of its own."""

    architecture: str
    suite: str
    work: Path

    def __post_init__(self) -> None:
        _remove(self.work)
        for name in ("lists/partial", "cache/archives/partial"):
            (self.work / name).mkdir(parents=True)
        (self.work / "sources.list").write_text(f"deb {mirror()} {self.suite} main\n")
        (self.work / "status").touch()
        self.ask("apt-get", "update")

    def ask(self, program: str, *words: str) -> str:
        """Run a program of apt on this archive; return what it printed."""
        places = {
            "Dir::Etc::sourcelist": self.work / "sources.list",
            "Dir::Etc::sourceparts": os.devnull,
            "Dir::State::lists": self.work / "lists",
            "Dir::State::status": self.work / "status",
            "Dir::Cache": self.work / "cache",
            "APT::Sandbox::User": "root",
            "APT::Architecture": self.architecture,
            "APT::Architectures": self.architecture,
            "Acquire::Languages": "none",
        }
        options = [word for name, value in places.items() for word in ("-o", f"{name}={value}")]
        return run(program, "-q", *options, *words, cwd=self.work)

    def download(self, package: str) -> Path:
        """Return the package's newest file."""
        self.ask("apt-get", "download", package)
        (found,) = self.work.glob(f"{package}_*.deb")
        return found


def _lay_modules(package: Path, root: Path, radios: Sequence[str]) -> None:
    """Copy the modules an emulated Pi and its Docker can use, a tenth of all."""
    (modules,) = (package / "lib/modules").iterdir()
    target = root / "lib/modules" / modules.name
    drivers = [f"drivers/{name}" for name in KERNEL_DRIVERS if name != "net"]
    network = [f"drivers/net/{name}" for name in (*NET_DRIVERS, *radios)]
    for part in [*KERNEL_PARTS, *drivers, *network]:
        source = modules / "kernel" / part
        if source.exists():
            (target / "kernel" / part).parent.mkdir(parents=True, exist_ok=True)
            run("cp", "-a", str(source), str(target / "kernel" / part))
    for table in modules.glob("modules.*"):
        shutil.copy(table, target)
    run("depmod", "-b", str(root), modules.name)


def kernel(system: System = ARMHF) -> Kernel:
    """Return the kernel, an initramfs that makes it like a Pi's, and the device trees."""
    package = _kernel_package(system)
    (image,) = (package / "boot").glob("vmlinuz-*")
    (trees,) = (package / "usr/lib").glob("linux-image-*")
    key = digest_of([initramfs.INIT, GROW], image.name, *initramfs.MODULES)
    name = f"initramfs{system.suffix}"
    return Kernel(image, once(name, key, lambda part: _make_initramfs(system, part)), trees)


def _make_initramfs(system: System, part: Path) -> None:
    need("cpio", "modprobe", "depmod")
    base, package = base_folder(system), _kernel_package(system)
    tree = part.with_suffix(".tree")
    _remove(tree)
    applets = run("chroot", str(base), "/bin/busybox", "--list").split()
    initramfs.lay_tree(tree, base / "bin/busybox", applets, package)
    shutil.copy(GROW, tree / "bin/grow-partition")
    initramfs.pack(tree, part)
    shutil.rmtree(tree)


def make_all(kinds: Sequence[str] = tuple(KINDS)) -> None:
    """Make every root that is not cached yet."""
    for kind in kinds:
        root_folder(kind)


def make_image(kind: str, generation: str, path: Path, size: int = 0) -> Path:
    """Write an image of `size` bytes to `path`: the root `kind` under `generation`'s boot files.

    `generation` is a name of `images.GENERATIONS`; "" as `kind` takes the root it is made for, 0 as
    `size` the usual one.
    """
    from tests.boot import images  # noqa: PLC0415 - images stands on this module

    return images.make_image(kind, generation, path, size)
