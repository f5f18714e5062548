"""One card by `rpi-image apply`, beside copying the same files onto it and flushing them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.benchmarks.table import Row, report
from tests.lib.boot_folders import put_tree, tree_of

RUNS = 5
MOST_SECONDS = 1.5
STOCK = {
    "cmdline.txt": b"console=tty1 root=PARTUUID=8a6f1d3c-02 rootwait init=/usr/lib/firstboot\n",
    "config.txt": b"arm_64bit=1\n",
    "issue.txt": b"Raspberry Pi reference 2025-05-13\nGenerated using pi-gen\n",
    "kernel8.img": bytes(9 << 20),
    "initramfs8": bytes(12 << 20),
}
CLASS = """\
profile: armv7
image: {file: base.img}
allow: [no-checksum, no-image, open-docker, plain-secret]
user: {name: pupil, password: learn together}
wifi: {country: FR, networks: [{ssid: shack, passphrase: correct horse}]}
shack: {address: 192.168.2.1}
generation: firstrun
nodes: [{hostname: "pi-[01-30]"}]
"""


def timed(*command: str | Path) -> float:
    """Return the wall time of a program in seconds."""
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - start


def measure(folder: Path) -> tuple[float, float]:
    """Return the seconds of `apply` onto a new card, and of copying what it wrote."""
    card, plain = (put_tree(folder / name, STOCK) for name in ("card", "plain"))
    subprocess.run(["sync", "-f", folder], check=True)
    ours = timed(
        sys.executable, "-m", "imagebuilder", "apply", card, "-c", folder / "class.yml",
        "--node", "pi-07", "--yes",
    )  # fmt: skip
    files = {name: data for name, data in tree_of(card).items() if STOCK.get(name) != data}
    put_tree(folder / "files", files)
    theirs = timed("sh", "-c", f"cp -r {folder}/files/. {plain} && sync -f {plain}")
    for name in ("card", "plain", "files"):
        shutil.rmtree(folder / name)
    return ours, theirs


def main() -> None:
    """Measure and report; both write to the same disk."""
    with tempfile.TemporaryDirectory(dir=Path.cwd() / "build", prefix="bench-") as name:
        (Path(name) / "class.yml").write_text(CLASS)
        os.environ["RPI_IMAGE_CACHE"] = f"{name}/cache"
        ours, theirs = map(min, zip(*(measure(Path(name)) for _ in range(RUNS)), strict=True))
    row = Row(
        "apply to one card", f"{ours:.2f} s", f"{theirs:.2f} s (cp -r, sync)",
        f"{ours - theirs:.2f} s more", f"<= {MOST_SECONDS} s more", ours - theirs <= MOST_SECONDS,
    )  # fmt: skip
    report("apply", [row])


if __name__ == "__main__":
    main()
