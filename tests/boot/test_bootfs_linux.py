"""Linux's own vfat driver reads edited boot partitions, writes on, and fsck is content.

The node script overwrites what is free on them; no byte of what was removed is left.

In QEMU, because a machine that builds images need not have the driver.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from imagebuilder.resources import shipped_folder
from tests.boot.roots import base_folder, kernel
from tests.image.disk.fat.test_readers import MORE
from tests.lib.fat_edits import EDITS, STOCK, edited
from tests.lib.fat_images import MIB, FatImage, make_image
from tests.lib.tools import need, run

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.boot

SCRIPTS = shipped_folder("overlays") / "scripts/node"
SECRET = b"psk=SecretOfLastYear\n"
VOLUMES = ((16, 64, 2048), (32, 34, 512), (12, 16, 8192))
MODULES = ("virtio_mmio", "virtio_blk", "fat", "nls_cp437", "nls_ascii", "nls_utf8", "vfat")
INIT = """#!/bin/busybox sh
export PATH=/bin
/bin/busybox mkdir -p /proc /sys /dev
/bin/busybox --install -s /bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
for module in MODULES; do insmod /$module.ko; done
has() { command -v "$1" >/dev/null; }
nice() { shift 2; "$@"; }  # the busybox of Debian has none
. /free_space
for tag in 12 16 32; do
  for disk in /sys/block/vd*; do
    if [ "$(cat $disk/serial)" = "fat$tag" ]; then
      mkdir /fat$tag
      mount -t vfat -o utf8=1,tz=UTC /dev/${disk##*/} /fat$tag || echo "no mount of $tag"
    fi
  done
  echo "files of $tag: $(find /fat$tag -type f | wc -l)"
  echo "time of $tag: $(stat -c %Y /fat$tag/rpi-image/install)"
done
sha256sum -c /wanted > /checked 2>&1
echo "right: $(grep -c ': OK' /checked)"; grep -v ': OK' /checked
for tag in 12 16 32; do
  cd /fat$tag
  echo ok > rpi-image/status; rm -r many a.tar.gz; mkdir new
  dd if=/dev/zero of=new/zeros bs=1k count=200 2>/dev/null
  while cat /secrets >>removed 2>/dev/null; do :; done
  sync; rm removed; sync
  boot=/fat$tag
  fill_free_space && echo "filled $tag: $steps steps"
  cd /; umount /fat$tag || echo "no umount of $tag"
done
dmesg | grep -i 'fat-fs'
echo "all done"
poweroff -f
"""


def wanted_files() -> dict[str, bytes]:
    wanted = {name: data for name, data in STOCK.items() if name != "overlays/README"}
    for edit in (*EDITS, *MORE):
        if edit.data is not None:
            wanted[edit.path.replace("OCCIDENTALIS.TXT", "occidentalis.txt")] = edit.data
    return wanted


def volume_of(image: FatImage) -> Path:
    """Cut the boot partition out into a file of its own."""
    volume = image.path.with_suffix(".vol")
    run("dd", f"if={image.path}", f"of={volume}", "bs=1M", "conv=sparse", "status=none",
        f"skip={image.start_bytes // MIB}", f"count={image.size_bytes // MIB}")  # fmt: skip
    return volume


def make_initramfs(folder: Path) -> Path:
    tree = folder / "tree"
    (tree / "bin").mkdir(parents=True)
    shutil.copy(base_folder() / "bin/busybox", tree / "bin/busybox")
    package = kernel().image.parents[1]
    for name in MODULES:
        (module,) = (package / "lib/modules").rglob(f"{name}.ko")
        shutil.copy(module, tree)
    (tree / "init").write_text(INIT.replace("MODULES", " ".join(MODULES)))
    (tree / "init").chmod(0o755)
    (tree / "wanted").write_text(
        "".join(
            f"{hashlib.sha256(data).hexdigest()}  /fat{kind}/{name}\n"
            for kind, _, _ in VOLUMES
            for name, data in wanted_files().items()
        )
    )
    shutil.copy(SCRIPTS / "free_space.sh", tree / "free_space")
    (tree / "secrets").write_bytes(SECRET * (MIB // len(SECRET)))
    out = folder / "initramfs"
    run("sh", "-c", f"find . | cpio -o -H newc --quiet > {out}", cwd=tree)
    return out


def test_linux_reads_edited_volumes_and_writes_on(tmp_path: Path) -> None:
    need("qemu-system-arm", "cpio", "fsck.vfat", "mdir")
    volumes = {}
    for kind, size_mib, cluster_bytes in VOLUMES:
        image = make_image(
            tmp_path / f"{kind}.img",
            kind=kind,
            size_mib=size_mib,
            cluster_bytes=cluster_bytes,
            files=STOCK,
        )
        volumes[kind] = volume_of(edited(image, (*EDITS, *MORE)))
    command = [
        "qemu-system-arm", "-M", "virt,highmem=off", "-cpu", "cortex-a7", "-m", "512",
        # without it QEMU may lose a timer, and a flush then waits for ever
        "-icount", "shift=2,sleep=off",
        "-nographic", "-nic", "none", "-no-reboot", "-append", "console=ttyAMA0 quiet",
        "-kernel", str(kernel().image), "-initrd", str(make_initramfs(tmp_path)),
    ]  # fmt: skip
    for kind, volume in volumes.items():
        command += ["-drive", f"if=none,id=d{kind},file={volume},format=raw,cache=unsafe"]
        command += ["-device", f"virtio-blk-device,drive=d{kind},serial=fat{kind}"]
    said = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, check=False
    ).stdout
    count = len(wanted_files())
    assert "all done" in said, said
    assert f"right: {count * len(VOLUMES)}" in said, said
    assert "fat-fs" not in said.lower(), said
    for kind, volume in volumes.items():
        assert f"files of {kind}: {count}" in said
        assert f"time of {kind}: 1447322400" in said
        run("fsck.vfat", "-n", volume)
        assert f"filled {kind}: " in said
        assert SECRET not in volume.read_bytes()
        assert "status" in run("mdir", "-b", "-i", volume, "::rpi-image")
