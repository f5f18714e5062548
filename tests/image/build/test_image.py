"""Writing base ⊕ patch: the file is right, sparse, whole from the start, and made by no magic."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from imagebuilder.build.compose import Composition
from imagebuilder.build.image import write_image
from imagebuilder.disk.copy import data_ranges
from imagebuilder.disk.extent import Patch, Run
from imagebuilder.errors import WriteError
from imagebuilder.files import new_file
from imagebuilder.model import BaseImage, BootEdit, ImageSource, NodePlan, NodeSettings
from tests.lib.tools import mounted, need, run, small_tmpfs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SIZE_BYTES = 24 << 20
PATCH = Patch((Run(512, b"\xaa" * 512), Run(9 << 20, b"\xbb" * 4096)))


@pytest.fixture
def base(tmp_path: Path) -> BaseImage:
    """Return a sparse base with data at both ends, made by truncate and dd."""
    path = tmp_path / "base.img"
    run("truncate", "-s", str(SIZE_BYTES + 100), path)
    for seek in (0, 4, 23):
        run(
            "dd", "if=/dev/urandom", f"of={path}", "bs=1M", "count=1", f"seek={seek}",
            "conv=notrunc", "status=none",
        )  # fmt: skip
    path.chmod(0o444)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return BaseImage(path, digest, path.stat().st_size, "base", "e" * 64)


@pytest.fixture
def composition(base: BaseImage) -> Composition:
    """Return a node over the base; its plan holds a secret."""
    settings = NodeSettings(
        hostname="pi-03",
        profile="armv7",
        arch="armv7",
        machines=("armv7l",),
        image=ImageSource("base", file=base.path),
    )
    edits = (BootEdit("rpi-image/node.env", b"passphrase=hunter22"), BootEdit("old.txt", None))
    plan = NodePlan(
        hostname="pi-03",
        generation="occidentalis",
        config_hash="c" * 64,
        edits=edits,
        cmdline="cmdline.txt",
    )
    return Composition(settings, base, plan, PATCH)


def expected(base: BaseImage) -> bytes:
    """Patch the base by dd's means: bytes put at their offsets."""
    data = bytearray(base.path.read_bytes())
    for patched in PATCH.runs:
        data[patched.offset_bytes : patched.offset_bytes + len(patched.data)] = patched.data
    return bytes(data)


def test_image_is_base_with_patch_and_base_is_untouched(
    composition: Composition, base: BaseImage, tmp_path: Path
) -> None:
    written = write_image(composition, tmp_path / "out" / "pi-03.img", digest=True)
    want = expected(base)
    assert written.path.read_bytes() == want
    assert written.sha256 == run("sha256sum", written.path).split()[0]
    assert hashlib.sha256(base.path.read_bytes()).hexdigest() == base.sha256


def test_holes_stay_holes(composition: Composition, tmp_path: Path) -> None:
    written = write_image(composition, tmp_path / "pi-03.img")
    on_disk = int(run("du", "--block-size=1", written.path).split()[0])
    assert on_disk < 6 << 20


def test_holes_as_the_kernel_sees_them(base: BaseImage) -> None:
    with base.path.open("rb") as source:
        ranges = list(data_ranges(source.fileno(), base.size_bytes))
    assert [start >> 20 for start, _ in ranges] == [0, 4, 23]


@pytest.mark.parametrize(
    ("form", "command"),
    [
        ("zst", ("zstd", "-dcq")),
        ("xz", ("xz", "-dcq")),
        ("gz", ("gzip", "-dcq")),
        ("zip", ("unzip", "-p")),
    ],
)
def test_compressed_images_open_with_the_usual_tools_and_are_reproducible(
    form: str, command: tuple[str, ...], composition: Composition, base: BaseImage, tmp_path: Path
) -> None:
    need("zstd", "xz", "gzip", "unzip")
    once, again = tmp_path / f"a.img.{form}", tmp_path / f"b.img.{form}"
    written = write_image(composition, once, compress=form)
    write_image(composition, again, compress=form)
    assert once.read_bytes() == again.read_bytes()
    unpacked = subprocess.run([*command, once], capture_output=True, check=True).stdout
    assert unpacked == expected(base)
    assert written.sha256 == hashlib.sha256(unpacked).hexdigest()


def test_manifest_says_what_was_set_and_holds_no_secret(
    composition: Composition, tmp_path: Path
) -> None:
    written = write_image(composition, tmp_path / "pi-03.img")
    text = written.manifest.read_text()
    manifest = json.loads(text)
    assert "hunter22" not in text
    assert manifest["files"] == [
        {
            "path": "rpi-image/node.env",
            "size_bytes": 19,
            "sha256": hashlib.sha256(b"passphrase=hunter22").hexdigest(),
        }
    ]
    assert manifest["removed"] == ["old.txt"]
    assert manifest["base"]["sha256"] == composition.base.sha256
    assert manifest["patch"][1] == {"offset_bytes": 9 << 20, "size_bytes": 4096}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a tmpfs of 2 MiB."""
    with small_tmpfs(tmp_path / "small", "2M") as folder:
        yield folder


@pytest.mark.root
def test_a_full_disk_is_said_and_leaves_nothing(composition: Composition, small_disk: Path) -> None:
    with pytest.raises(WriteError, match="not enough space for") as caught:
        write_image(composition, small_disk / "pi-03.img")
    assert "flash" in caught.value.hint
    assert list(small_disk.iterdir()) == []


@pytest.mark.root
def test_a_disk_that_fills_while_packing_leaves_nothing(
    composition: Composition, small_disk: Path
) -> None:
    with pytest.raises(WriteError, match="not enough space for"):
        write_image(composition, small_disk / "pi-03.img.gz", compress="gz")
    assert list(small_disk.iterdir()) == []


@pytest.mark.root
@pytest.mark.parametrize("make", ["mkfs.btrfs", "mkfs.xfs"])
def test_file_systems_with_reflinks_share_the_base(
    make: str, composition: Composition, base: BaseImage, tmp_path: Path
) -> None:
    with mounted(tmp_path, make, "-q") as folder:
        copy = folder / "base.img"
        run("cp", "--sparse=always", base.path, copy)
        there = BaseImage(copy, base.sha256, base.size_bytes, base.name)
        written = write_image(
            Composition(composition.settings, there, composition.plan, PATCH), folder / "pi-03.img"
        )
        assert written.how == "reflink"
        assert written.path.read_bytes() == expected(base)


@pytest.mark.parametrize("compress", ["", "gz"])
@pytest.mark.parametrize(("base_name", "out"), [("my.img", "my.img"), ("my.img.part", "my.img")])
def test_the_base_image_is_never_written_over(
    composition: Composition, tmp_path: Path, base_name: str, out: str, compress: str
) -> None:
    mine = composition.base.path.rename(tmp_path / base_name)
    mine.chmod(0o644)
    kept = run("sha256sum", mine)
    base = replace(composition.base, path=mine)
    settings = replace(composition.settings, image=ImageSource("base", file=mine))
    for there in (replace(composition, base=base), replace(composition, settings=settings)):
        with pytest.raises(WriteError, match="is the base image itself"):
            write_image(there, tmp_path / out, compress=compress)
    assert run("sha256sum", mine) == kept
    assert sorted(path.name for path in tmp_path.iterdir()) == [base_name]


def test_the_earlier_manifest_is_gone_before_the_new_image_has_its_name(
    composition: Composition, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out" / "pi-03.img"
    write_image(composition, out)
    sums = out.parent / "SHA256SUMS"
    sums.write_text(f"{'0' * 64}  pi-03.img\n{'1' * 64} *other.img\n")
    earlier, rename = out.stat().st_ino, os.replace

    def power_cut(part: str, target: str, **folders: int) -> None:
        if target == out.name:
            assert sorted(path.name for path in out.parent.iterdir()) == [
                "SHA256SUMS", "pi-03.img", "pi-03.img.part",
            ]  # fmt: skip
            rename(part, target, **folders)
            raise KeyboardInterrupt
        rename(part, target, **folders)

    monkeypatch.setattr(os, "replace", power_cut)
    with pytest.raises(KeyboardInterrupt):
        write_image(composition, out)
    assert out.stat().st_ino != earlier
    assert sums.read_text() == f"{'1' * 64} *other.img\n"
    assert not out.with_suffix(".json").exists()


def test_a_failed_write_keeps_the_earlier_image(tmp_path: Path) -> None:
    out = tmp_path / "pi-03.img"
    out.write_bytes(b"earlier")
    with pytest.raises(WriteError, match="cannot write"), new_file(out) as descriptor:
        os.write(descriptor, b"half")
        raise OSError(errno.EIO, "Input/output error")
    assert [path.name for path in tmp_path.iterdir()] == ["pi-03.img"]
    assert out.read_bytes() == b"earlier"


def test_kill_9_leaves_no_image_and_the_next_run_goes_through(tmp_path: Path) -> None:
    out = tmp_path / "pi-03.img"
    script = textwrap.dedent("""
        import os, pathlib, sys, time
        from imagebuilder.files import new_file
        with new_file(pathlib.Path(sys.argv[1])) as descriptor:
            os.write(descriptor, b"x" * 1000)
            print("writing", flush=True)
            time.sleep(60)
    """)
    child = subprocess.Popen([sys.executable, "-c", script, out], stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == b"writing\n"
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    time.sleep(0)
    assert not out.exists()
    with new_file(out) as descriptor:
        os.write(descriptor, b"whole")
    assert out.read_bytes() == b"whole"
    assert [path.name for path in tmp_path.iterdir()] == ["pi-03.img"]
