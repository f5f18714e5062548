"""Local images, the cache around them, and disks that fill."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from imagebuilder.cli.main import run as rpi_image
from imagebuilder.errors import ImageError, RpiImageError, SourceError
from imagebuilder.images.cache import Cache
from imagebuilder.images.obtain import find_cached, obtain_base
from imagebuilder.model import ImageSource
from tests.lib.archives import MEBIBYTE, Recorder, make_image, pack, publish_checksum, sha256sum
from tests.lib.tools import small_tmpfs
from tests.lib.webserver import Page, misbehaving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return make_image(tmp_path / "pi.img", 8 * MEBIBYTE)


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def local(path: Path, sha256: str = "") -> ImageSource:
    return ImageSource(name=path.name, file=path, sha256=sha256)


def files_in(cache: Cache) -> list[str]:
    found = (path.relative_to(cache.folder) for path in cache.folder.rglob("*") if path.is_file())
    return sorted(str(path) for path in found if path.parts[0] != "locks")


# ---- local files


def test_a_raw_image_is_used_where_it_lies(image: Path, cache: Cache) -> None:
    before = image.stat()
    base = obtain_base(local(image), cache)
    assert base.path == image
    assert base.sha256 == base.source_sha256 == sha256sum(image)
    assert base.size_bytes == 8 * MEBIBYTE
    assert image.stat().st_mtime_ns == before.st_mtime_ns
    assert not any("images/" in name for name in files_in(cache))


def test_the_digest_of_a_raw_image_is_remembered_until_it_changes(
    image: Path, cache: Cache
) -> None:
    base = obtain_base(local(image), cache)
    assert find_cached(local(image), cache) == base
    with image.open("r+b") as file:
        file.seek(4 * MEBIBYTE)
        file.write(b"another")
    assert find_cached(local(image), cache) is None
    assert obtain_base(local(image), cache).sha256 == sha256sum(image) != base.sha256


def test_a_replaced_file_of_the_same_size_and_time_is_another(image: Path, cache: Cache) -> None:
    obtain_base(local(image), cache)
    times = image.stat()
    other = make_image(image.with_name("other.img"), 8 * MEBIBYTE, seed=2)
    os.utime(other, ns=(times.st_atime_ns, times.st_mtime_ns))
    other.replace(image)
    assert find_cached(local(image), cache) is None


def test_a_packed_file_is_unpacked_once(image: Path, cache: Cache) -> None:
    packed = pack(image, "zip")
    base = obtain_base(local(packed), cache)
    assert base.sha256 == sha256sum(image) == sha256sum(base.path)
    written = base.path.stat()
    assert find_cached(local(packed), cache) == base
    copy = packed.with_name("copy.zip")
    shutil.copy(packed, copy)
    again = obtain_base(local(copy), cache)
    assert (again.path, again.path.stat().st_mtime_ns) == (base.path, written.st_mtime_ns)


def test_different_packings_of_one_image_share_one_file(image: Path, cache: Cache) -> None:
    paths = {obtain_base(local(pack(image, form)), cache).path for form in ("zip", "gz", "zst")}
    assert len(paths) == 1
    assert cache.listing()[0].names == ("pi.img.gz", "pi.img.zip", "pi.img.zst")


def test_the_checksum_of_a_local_file_is_of_the_file_as_it_lies(image: Path, cache: Cache) -> None:
    packed = pack(image, "zip")
    with pytest.raises(SourceError, match=r"pi\.img\.zip has the SHA-256"):
        obtain_base(local(packed, sha256sum(image)), cache)
    assert files_in(cache) == []
    assert obtain_base(local(packed, sha256sum(packed)), cache).sha256 == sha256sum(image)
    with pytest.raises(SourceError):
        obtain_base(local(packed, "0" * 64), cache)
    with pytest.raises(SourceError):
        obtain_base(local(image, "0" * 64), cache)


def test_a_checksum_file_beside_a_local_file_is_obeyed(image: Path, cache: Cache) -> None:
    packed = pack(image, "xz")
    beside = publish_checksum(packed)
    assert obtain_base(local(packed), cache).sha256 == sha256sum(image)
    beside.write_text(f"{'0' * 64}  {packed.name}\n")
    os.utime(packed)
    with pytest.raises(SourceError, match="instead of 0000"):
        obtain_base(local(packed), cache)


@pytest.mark.parametrize("form", ["{}\n", "SHA256 (pi.img.gz) = {}\n"])
def test_a_checksum_file_may_hold_the_digest_alone_or_be_bsds(
    form: str, image: Path, cache: Cache
) -> None:
    packed = pack(image, "gz")
    beside = packed.with_name(f"{packed.name}.sha256")
    beside.write_text(form.format(sha256sum(packed)))
    assert obtain_base(local(packed), cache).sha256 == sha256sum(image)
    beside.write_text(form.format("0" * 64))
    with pytest.raises(SourceError, match="instead of 0000"):
        obtain_base(local(packed), cache)


@pytest.mark.parametrize("kind", ["", "xz"])
def test_a_checksum_file_that_comes_later_is_obeyed(kind: str, image: Path, cache: Cache) -> None:
    packed = pack(image, kind) if kind else image
    obtain_base(local(packed), cache)
    beside = publish_checksum(packed)
    assert find_cached(local(packed), cache)
    beside.write_text(f"{'0' * 64}  {packed.name}\n")
    with pytest.raises(SourceError, match="instead of 0000"):
        obtain_base(local(packed), cache)
    beside.write_text("no checksum")
    with pytest.raises(SourceError, match="is not a SHA-256 file"):
        obtain_base(local(packed), cache)
    assert obtain_base(local(packed, sha256sum(packed)), cache)
    assert find_cached(replace(local(packed), unchecked=True), cache)


def test_a_checksum_file_that_is_passed_over_is_said_every_time(image: Path, cache: Cache) -> None:
    packed = pack(image, "gz")
    beside = publish_checksum(packed)
    source = replace(local(packed), unchecked=True)
    reporter = Recorder()
    obtain_base(source, cache, reporter)
    assert reporter.warnings == []
    for text in (f"{'0' * 64}  {packed.name}\n", "no checksum"):
        beside.write_text(text)
        obtain_base(source, cache, reporter)
        obtain_base(source, Cache(cache.folder / text[:2]), reporter)
    assert len(reporter.warnings) == 4
    assert set(reporter.warnings) == {
        "pi.img.gz is used unchecked: it does not match pi.img.gz.sha256"
    }


@pytest.mark.parametrize(
    ("data", "error", "what"),
    [
        (b"<!doctype html><html></html>", ImageError, "web page"),
        (b"PK\x03\x04 cut off", ImageError, "truncated"),
        (bytes(5000), ImageError, "no boot signature"),
        (b"", ImageError, "no boot signature"),
        (None, SourceError, "no file"),
    ],
)
def test_what_is_no_image_is_told(
    data: bytes | None, error: type[RpiImageError], what: str, tmp_path: Path, cache: Cache
) -> None:
    path = tmp_path / "x.img"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(error, match=what) as caught:
        obtain_base(local(path), cache)
    assert caught.value.hint
    assert files_in(cache) == []


def test_a_packed_file_that_is_no_disk_image_is_told(tmp_path: Path, cache: Cache) -> None:
    (tmp_path / "notes.img").write_text("no disk " * 1000)
    with pytest.raises(ImageError, match="no boot signature"):
        obtain_base(local(pack(tmp_path / "notes.img", "zip")), cache)
    assert files_in(cache) == []


@pytest.mark.parametrize("form", ["zip", "gz", "xz", "zst", "bz2"])
def test_what_is_no_disk_image_is_told_before_it_is_unpacked(
    form: str, tmp_path: Path, cache: Cache
) -> None:
    image = tmp_path / "zeros.img"
    with image.open("wb") as file:
        file.truncate(64 * MEBIBYTE)
    packed = pack(image, form)
    small = f"ulimit -f {4 * MEBIBYTE // 512}"
    done = subprocess.run(
        ["sh", "-c", f'{small}; exec "$0" "$@"', sys.executable, "-m", "imagebuilder", "fetch",
         str(packed)],
        env={**os.environ, "RPI_IMAGE_CACHE": str(cache.folder)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "no boot signature" in done.stderr
    assert done.returncode == 5
    assert files_in(cache) == []


def test_a_raw_image_needs_no_cache_that_can_be_written(image: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    reporter = Recorder()
    base = obtain_base(local(image), Cache(tmp_path / "cache"), reporter)
    assert base.sha256 == sha256sum(image)
    assert "again next time" in reporter.notes[0]


def test_a_cache_that_cannot_be_written_is_told(image: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(SourceError, match="the cache") as caught:
        obtain_base(local(pack(image, "zip")), Cache(tmp_path / "cache"))
    assert "RPI_IMAGE_CACHE" in caught.value.hint


def test_an_image_lost_from_the_cache_is_unpacked_again(image: Path, cache: Cache) -> None:
    packed = pack(image, "zip")
    base = obtain_base(local(packed), cache)
    base.path.unlink()
    assert find_cached(local(packed), cache) is None
    assert obtain_base(local(packed), cache) == base
    base.path.chmod(0o644)
    os.truncate(base.path, 1000)
    assert find_cached(local(packed), cache) is None
    assert obtain_base(local(packed), cache) == base
    assert sha256sum(base.path) == base.sha256


def test_a_damaged_record_counts_as_none(image: Path, cache: Cache) -> None:
    packed = pack(image, "zip")
    base = obtain_base(local(packed), cache)
    for record in cache.folder.glob("records/*"):
        record.write_text("{")
    assert find_cached(local(packed), cache) is None
    assert obtain_base(local(packed), cache) == base


# ---- a disk that fills


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with small_tmpfs(tmp_path / "small", "2M") as folder:
        yield folder


def test_a_disk_that_fills_while_unpacking_is_told(small_disk: Path, tmp_path: Path) -> None:
    image = make_image(tmp_path / "pi.img", 8 * MEBIBYTE)
    with image.open("r+b") as file:
        file.seek(4 * MEBIBYTE)
        file.write(b"full" * MEBIBYTE)
    cache = Cache(small_disk / "cache")
    with pytest.raises(ImageError, match="not enough space to unpack") as caught:
        obtain_base(local(pack(image, "zip")), cache)
    assert "RPI_IMAGE_CACHE" in caught.value.hint
    assert files_in(cache) == []


@pytest.mark.parametrize("stated", [True, False])
def test_a_disk_too_small_for_the_download_is_told(small_disk: Path, *, stated: bool) -> None:
    cache = Cache(small_disk / "cache")
    with misbehaving() as site:
        site.pages["/pi.img"] = Page(random.Random(1).randbytes(3 * MEBIBYTE), length=stated)
        source = ImageSource(name="pi", url=site.url + "/pi.img", sha256="0" * 64)
        with pytest.raises(SourceError, match="not enough space for the download"):
            obtain_base(source, cache)
    assert all(name.startswith("parts/") for name in files_in(cache))


# ---- at the terminal


@pytest.fixture
def at_home(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RPI_IMAGE_CACHE", str(cache.folder))


@pytest.mark.usefixtures("at_home")
def test_fetch_prints_where_the_image_lies(
    image: Path, cache: Cache, capsys: pytest.CaptureFixture[str]
) -> None:
    packed = pack(image, "zip")
    assert rpi_image(["fetch", str(packed), "--sha256", sha256sum(packed)]) == 0
    path = capsys.readouterr().out.strip()
    assert sha256sum(cache.folder / path) == sha256sum(image)
    assert rpi_image(["fetch", str(packed), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {
        "name": packed.name,
        "path": path,
        "sha256": sha256sum(image),
        "size_bytes": 8 * MEBIBYTE,
        "source_sha256": sha256sum(packed),
        "from_cache": True,
    }


def pack_beside_another_checksum(image: Path) -> Path:
    packed = pack(image, "gz")
    packed.with_name(f"{packed.name}.sha256").write_text(f"{'0' * 64}  {packed.name}\n")
    return packed


@pytest.mark.usefixtures("at_home")
def test_fetch_says_each_time_that_nothing_was_compared(
    image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    packed = pack_beside_another_checksum(image)
    for _ in range(2):
        assert rpi_image(["fetch", str(packed), "--no-checksum"]) == 0
        assert capsys.readouterr().err.count("warning: pi.img.gz is used unchecked") == 1


@pytest.mark.usefixtures("at_home")
def test_an_image_for_a_card_is_compared_with_the_checksum_beside_it(
    image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    packed = pack_beside_another_checksum(image)
    arguments = ["verify", str(image), "--image", str(packed)]
    assert rpi_image(arguments) == 4
    assert "instead of 0000" in capsys.readouterr().err
    rpi_image([*arguments, "--no-checksum"])
    assert "is used unchecked" in capsys.readouterr().err


@pytest.mark.usefixtures("at_home")
@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["fetch", "./none.zip"], 4, "no file"),
        (["fetch", "./none.zip", "--sha256", "12"], 2, "64 hexadecimal digits"),
        (["fetch", "hypriot-of-nobody"], 3, "no base image"),
        (["cache", "clean", "nothing"], 2, "not in the cache: nothing"),
        (["cache", "verify", "nothing"], 2, "not in the cache: nothing"),
    ],
)
def test_errors_have_their_exit_codes(
    arguments: list[str], code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert rpi_image(arguments) == code
    told = capsys.readouterr().err
    assert words in told
    assert "hint:" in told


@pytest.mark.usefixtures("at_home")
def test_the_cache_is_listed_verified_and_cleaned(
    image: Path, cache: Cache, capsys: pytest.CaptureFixture[str]
) -> None:
    other = make_image(image.with_name("other.img"), 8 * MEBIBYTE, seed=2)
    bases = [obtain_base(local(pack(each, "gz")), cache) for each in (image, other)]
    assert rpi_image(["cache", "list"]) == 0
    assert bases[0].sha256[:16] in capsys.readouterr().out
    assert rpi_image(["cache", "verify"]) == 0
    assert capsys.readouterr().out.count("ok ") == 2

    bases[0].path.chmod(0o644)
    with bases[0].path.open("r+b") as file:
        file.seek(3 * MEBIBYTE)
        file.write(b"spoilt")
    assert rpi_image(["cache", "verify", "--json"]) == 4
    told = capsys.readouterr()
    intact = {i["sha256"]: i["intact"] for i in json.loads(told.out)["images"]}
    assert intact == {bases[0].sha256: False, bases[1].sha256: True}
    assert f"cache clean {bases[0].sha256[:16]}" in told.err

    assert rpi_image(["cache", "clean", bases[0].sha256[:16], "-n"]) == 0
    assert bases[0].path.exists()
    assert rpi_image(["cache", "clean", bases[0].sha256[:16]]) == 0
    assert not bases[0].path.exists()
    assert bases[1].path.exists()
    assert rpi_image(["cache", "clean", "other.img.gz"]) == 0
    assert files_in(cache) == []


@pytest.mark.usefixtures("at_home")
def test_clean_removes_unfinished_parts_nobody_works_on(
    cache: Cache, capsys: pytest.CaptureFixture[str]
) -> None:
    for key in ("url a", "url b"):
        with cache.lock(key):
            cache.part_path(key, "download").write_bytes(bytes(9000))
    with cache.lock("url b"):
        assert rpi_image(["cache", "clean", "--unfinished"]) == 0
    assert [cache.part_path("url b", "download")] == list(cache.leftovers())
    capsys.readouterr()
    assert rpi_image(["cache", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["unfinished_bytes"] > 0


_KILLED = """
import os, pathlib, sys
from imagebuilder.images.cache import Cache
with Cache(pathlib.Path(sys.argv[1])).scratch("inspect x") as part:
    part.write_bytes(bytes(9000))
    os.kill(os.getpid(), 9)
"""


@pytest.mark.usefixtures("at_home")
def test_what_a_killed_inspect_unpacked_is_listed_and_cleaned(
    cache: Cache, capsys: pytest.CaptureFixture[str]
) -> None:
    program = [sys.executable, "-c", _KILLED, str(cache.folder)]
    assert subprocess.run(program, check=False).returncode == -9
    assert rpi_image(["cache", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["unfinished_bytes"] >= 9000
    assert rpi_image(["cache", "clean", "--unfinished"]) == 0
    assert "freed 0 B" not in capsys.readouterr().out
    assert files_in(cache) == []


def test_scratch_goes_away(cache: Cache) -> None:
    with cache.scratch("inspect x") as part:
        part.write_bytes(b"x")
        assert cache.leftovers() == (part,)
    assert cache.leftovers() == ()
