"""Downloads from a real nginx, and from a server that does everything wrong."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from imagebuilder.errors import ImageError, SourceError
from imagebuilder.images.cache import Cache
from imagebuilder.images.deadline import Patience
from imagebuilder.images.download import download
from imagebuilder.images.obtain import fetch_base, find_cached, obtain_base
from imagebuilder.model import ImageSource
from tests.lib.archives import MEBIBYTE, Recorder, make_image, pack, publish_checksum, sha256sum
from tests.lib.webserver import Page, Site, cutting_proxy, misbehaving, nginx

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HASTY = Patience(attempts=3, connect_seconds=2, read_seconds=0.4, pause_seconds=0)
DATA = random.Random(7).randbytes(3 * MEBIBYTE)
DIGEST = hashlib.sha256(DATA).hexdigest()


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a zipped image and its checksum file, as a publisher has it."""
    folder = tmp_path_factory.mktemp("web")
    publish_checksum(pack(make_image(folder / "pi.img"), "zip"))
    return folder


@pytest.fixture
def site() -> Iterator[Site]:
    with misbehaving() as running:
        yield running


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def files_in(cache: Cache) -> list[str]:
    """Return what lies in the cache that is not a lock."""
    found = (path.relative_to(cache.folder) for path in cache.folder.rglob("*") if path.is_file())
    return sorted(str(path) for path in found if path.parts[0] != "locks")


def fetched(site: Site, tmp_path: Path, pinned: str = DIGEST) -> bytes:
    part = tmp_path / "x.part"
    got = download(site.url + "/x", part, pinned, Recorder(), HASTY)
    assert got.sha256 == hashlib.sha256(part.read_bytes()).hexdigest()
    assert got.size_bytes == part.stat().st_size
    return part.read_bytes()


# ---- nginx


def test_an_image_is_fetched_checked_and_unpacked_and_never_again(
    web: Path, cache: Cache, tmp_path: Path
) -> None:
    with nginx(web, tmp_path / "nginx") as server:
        source = ImageSource(name="pi", url=f"{server.url}/pi.img.zip")
        base = obtain_base(source, cache, patience=HASTY)
        assert [line.split()[1] for line in server.requests()] == [
            "/pi.img.zip.sha256",
            "/pi.img.zip",
        ]
    assert base.sha256 == sha256sum(web / "pi.img") == sha256sum(base.path)
    assert base.source_sha256 == sha256sum(web / "pi.img.zip")
    assert base.path.stat().st_mode & 0o777 == 0o444
    assert obtain_base(source, cache, patience=HASTY) == base == find_cached(source, cache)
    assert not [name for name in files_in(cache) if "part" in name]


def test_a_download_that_breaks_is_resumed_from_nginx(
    web: Path, cache: Cache, tmp_path: Path
) -> None:
    size = (web / "pi.img.zip").stat().st_size
    with ExitStack() as stack:
        server = stack.enter_context(nginx(web, tmp_path / "nginx", rate="4m"))
        port = urlsplit(server.url).port or 0
        proxy = stack.enter_context(cutting_proxy(port, size // 2))
        base = obtain_base(ImageSource(name="pi", url=f"{proxy}/pi.img.zip"), cache, patience=HASTY)
        asked = [line for line in server.requests() if "/pi.img.zip HTTP" in line]
    assert base.sha256 == sha256sum(web / "pi.img")
    assert [line.split()[3] for line in asked] == ["200", "206"]
    assert int(asked[1].split()[4]) < size


def test_redirects_are_followed_for_the_image_and_its_checksum(
    web: Path, cache: Cache, tmp_path: Path
) -> None:
    with nginx(web, tmp_path / "nginx") as server:
        source = ImageSource(name="pi", url=f"{server.url}/moved/pi.img.zip")
        base = obtain_base(source, cache, patience=HASTY)
        assert sum(" 302 " in line for line in server.requests()) == 2
    assert base.sha256 == sha256sum(web / "pi.img")


def rpi_image(cache: Cache, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "imagebuilder", *arguments],
        env={**os.environ, "RPI_IMAGE_CACHE": str(cache.folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_part(cache: Cache, at_least: int) -> None:
    for _ in range(600):
        if sum(p.stat().st_size for p in cache.folder.glob("parts/*.download.part")) >= at_least:
            return
        time.sleep(0.02)
    pytest.fail("nothing was downloaded")


@pytest.mark.parametrize(
    "how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda how: how.name
)
def test_a_killed_download_goes_on_in_the_next_run(
    web: Path, cache: Cache, tmp_path: Path, how: signal.Signals
) -> None:
    with nginx(web, tmp_path / "nginx", rate="500k") as server:
        url = f"{server.url}/pi.img.zip"
        first = rpi_image(cache, "fetch", url)
        wait_for_part(cache, 200_000)
        first.send_signal(how)
        _, words = first.communicate(timeout=20)
        assert first.returncode == (-9 if how == signal.SIGKILL else 130)
        assert "Traceback" not in words
        parts = files_in(cache)
        assert len(parts) == 2
        assert all(name.startswith("parts/") and ".download.part" in name for name in parts)
        second = rpi_image(cache, "fetch", url)
        path, words = second.communicate(timeout=60)
        assert second.returncode == 0, words
        assert " 206 " in server.requests()[-1]
    assert sha256sum(cache.folder / path.strip()) == sha256sum(web / "pi.img")
    assert not [name for name in files_in(cache) if "part" in name]


def test_two_processes_share_one_download(web: Path, cache: Cache, tmp_path: Path) -> None:
    with nginx(web, tmp_path / "nginx", rate="500k") as server:
        url = f"{server.url}/pi.img.zip"
        runs = [rpi_image(cache, "fetch", url) for _ in range(2)]
        ends = [run.communicate(timeout=60) for run in runs]
        assert [run.returncode for run in runs] == [0, 0], ends
        assert sum("/pi.img.zip HTTP" in line for line in server.requests()) == 1
    assert ends[0][0] == ends[1][0]
    assert sum("waiting for another rpi-image" in words for _, words in ends) == 1


# ---- resuming, or not


def test_a_server_without_ranges_makes_it_start_again(site: Site, tmp_path: Path) -> None:
    site.pages["/x"] = Page(DATA, etag='"1"', ranges=False, cuts=[MEBIBYTE])
    assert fetched(site, tmp_path) == DATA
    assert site.asked("/x") == ["", f"bytes={MEBIBYTE}-"]


def test_if_range_holds_the_etag(site: Site, tmp_path: Path) -> None:
    site.pages["/x"] = Page(DATA, etag='"1"', cuts=[MEBIBYTE, MEBIBYTE])
    assert fetched(site, tmp_path) == DATA
    assert site.asked("/x", "If-Range") == ["", '"1"', '"1"']
    assert site.asked("/x") == ["", f"bytes={MEBIBYTE}-", f"bytes={2 * MEBIBYTE}-"]


@pytest.mark.parametrize("ignores", [False, True])
def test_a_file_that_changed_meanwhile_is_fetched_afresh(
    site: Site, tmp_path: Path, *, ignores: bool
) -> None:
    part = tmp_path / "x.part"
    site.pages["/x"] = Page(DATA, etag='"1"', cuts=[MEBIBYTE] * 3)
    site.pages["/x"].failures = []
    with pytest.raises(SourceError):
        download(site.url + "/x", part, "", Recorder(), Patience(1, 2, 0.4, 0))
    assert part.stat().st_size == MEBIBYTE
    new = DATA[::-1]
    site.pages["/x"] = Page(new, etag='"2"', ignores_if_range=ignores)
    assert download(site.url + "/x", part, "", Recorder(), HASTY).size_bytes == len(new)
    assert part.read_bytes() == new


def test_without_a_validator_only_a_pinned_download_resumes(site: Site, tmp_path: Path) -> None:
    site.pages["/x"] = Page(DATA, cuts=[MEBIBYTE])
    assert fetched(site, tmp_path, pinned="") == DATA
    assert site.asked("/x") == ["", ""]
    site.pages["/y"] = Page(DATA, cuts=[MEBIBYTE])
    download(site.url + "/y", tmp_path / "y.part", DIGEST, Recorder(), HASTY)
    assert site.asked("/y") == ["", f"bytes={MEBIBYTE}-"]


def test_a_weak_etag_is_no_validator(site: Site, tmp_path: Path) -> None:
    site.pages["/x"] = Page(DATA, etag='W/"1"', cuts=[MEBIBYTE])
    assert fetched(site, tmp_path, pinned="") == DATA
    assert site.asked("/x") == ["", ""]


def test_a_resumed_mixture_is_found_by_its_checksum_and_fetched_afresh(
    site: Site, tmp_path: Path
) -> None:
    part = tmp_path / "x.part"
    site.pages["/x"] = Page(DATA[::-1], cuts=[MEBIBYTE])
    with pytest.raises(SourceError):
        download(site.url + "/x", part, DIGEST, Recorder(), Patience(1, 2, 0.4, 0))
    site.pages["/x"] = Page(DATA)
    reporter = Recorder()
    assert download(site.url + "/x", part, DIGEST, reporter, HASTY).sha256 == DIGEST
    assert any("starting again" in note for note in reporter.notes)


def test_a_part_of_another_address_is_not_gone_on_with(site: Site, tmp_path: Path) -> None:
    part = tmp_path / "x.part"
    site.pages["/a"] = Page(DATA[::-1], etag='"1"', cuts=[MEBIBYTE])
    site.pages["/b"] = Page(DATA, etag='"1"')
    with pytest.raises(SourceError):
        download(site.url + "/a", part, "", Recorder(), Patience(1, 2, 0.4, 0))
    assert download(site.url + "/b", part, "", Recorder(), HASTY).sha256 == DIGEST
    assert site.asked("/b") == [""]


def test_another_range_than_asked_for_is_not_taken(site: Site, tmp_path: Path) -> None:
    site.pages["/x"] = Page(DATA, etag='"1"', shifted_range=True, cuts=[MEBIBYTE])
    assert fetched(site, tmp_path) == DATA
    assert site.asked("/x") == ["", f"bytes={MEBIBYTE}-", ""]


def test_a_file_that_shrank_is_fetched_afresh(site: Site, tmp_path: Path) -> None:
    part = tmp_path / "x.part"
    site.pages["/x"] = Page(DATA, etag='"1"', cuts=[2 * MEBIBYTE])
    with pytest.raises(SourceError):
        download(site.url + "/x", part, "", Recorder(), Patience(1, 2, 0.4, 0))
    site.pages["/x"] = Page(DATA[:MEBIBYTE], etag='"2"', ignores_if_range=True)
    assert fetched(site, tmp_path, pinned="") == DATA[:MEBIBYTE]


def test_a_stalled_server_is_left_and_asked_again(site: Site, tmp_path: Path) -> None:
    site.pages["/x"] = Page(DATA, etag='"1"', stalls=[MEBIBYTE])
    assert fetched(site, tmp_path) == DATA
    # On a busy machine the honest answer may seem to stall, too.
    assert site.asked("/x")[:2] == ["", f"bytes={MEBIBYTE}-"]


def test_a_busy_server_is_asked_again(site: Site, tmp_path: Path) -> None:
    site.pages["/x"] = Page(DATA, failures=[503, 429])
    assert fetched(site, tmp_path) == DATA


def test_patience_ends(site: Site, tmp_path: Path) -> None:
    site.pages["/x"] = Page(DATA, failures=[503] * 9)
    with pytest.raises(SourceError, match="the server returned 503"):
        fetched(site, tmp_path)
    assert len(site.asked("/x")) == HASTY.attempts


def test_a_complete_part_needs_no_network(site: Site, tmp_path: Path) -> None:
    site.pages["/x"] = Page(DATA, etag='"1"')
    assert fetched(site, tmp_path) == fetched(site, tmp_path) == DATA
    assert len(site.asked("/x")) == 1


def test_a_file_stored_with_a_content_encoding_is_taken_as_it_lies(
    site: Site, tmp_path: Path
) -> None:
    site.pages["/x"] = Page(DATA, headers={"Content-Encoding": "x-gzip"})
    assert fetched(site, tmp_path) == DATA


def test_a_proxy_of_the_environment_is_used(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", site.url)
    url = "http://images.invalid/x"
    site.pages[url] = Page(DATA)
    assert download(url, tmp_path / "x.part", DIGEST, Recorder(), HASTY).sha256 == DIGEST


@pytest.mark.parametrize("url", ["ftp://h/x", "http://", "nonsense", "http://[/x"])
def test_an_address_that_cannot_be_is_told(url: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"cannot fetch|not valid"):
        download(url, tmp_path / "x.part", "", Recorder(), HASTY)


@pytest.mark.parametrize("to", ["ftp://example.org/x", "http://[/x"])
def test_a_redirect_to_what_is_no_web_address_is_told(site: Site, tmp_path: Path, to: str) -> None:
    site.pages["/x"] = Page(status=302, headers={"Location": to})
    with pytest.raises(SourceError, match="redirects to an invalid URL"):
        fetched(site, tmp_path)


def test_a_circle_of_redirects_is_told(site: Site, tmp_path: Path) -> None:
    site.pages["/x"] = Page(status=302, headers={"Location": "/x"})
    with pytest.raises(SourceError, match="too many redirects"):
        fetched(site, tmp_path)


# ---- what is refused


def obtain(site: Site, cache: Cache, **facts: object) -> None:
    source = ImageSource(name="pi", url=site.url + "/pi.img.zip", **facts)  # type: ignore[arg-type]
    obtain_base(source, cache, patience=HASTY)


@pytest.mark.parametrize(
    ("page", "what"),
    [
        (Page(b"<!DOCTYPE html><html>log in</html>"), "web page instead of an image"),
        (Page(b"gone", status=404), "returned 404"),
        (Page(b"no", status=403), "returned 403"),
        (Page(DATA), "instead of"),
    ],
)
def test_what_is_not_the_image_leaves_nothing(
    site: Site, cache: Cache, page: Page, what: str
) -> None:
    site.pages["/pi.img.zip"] = page
    with pytest.raises(SourceError, match=what) as caught:
        obtain(site, cache, sha256="0" * 64)
    assert caught.value.exit_code == 4
    assert caught.value.hint
    assert files_in(cache) == []


def test_no_checksum_is_a_refusal_before_anything_is_fetched(site: Site, cache: Cache) -> None:
    site.pages["/pi.img.zip"] = Page(DATA)
    with pytest.raises(SourceError, match="no checksum for") as caught:
        obtain(site, cache)
    assert "--sha256" in caught.value.hint
    assert "--no-checksum" in caught.value.hint
    assert site.asked("/pi.img.zip") == []


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (b"<html>not found</html>", "no checksum for"),
        (b"hello", "is not a SHA-256 file"),
        (f"{DIGEST}  other.zip\n".encode(), r"lists other\.zip"),
        (f"SHA256 (other.zip) = {DIGEST}\n".encode(), r"lists other\.zip"),
    ],
)
def test_a_checksum_file_must_name_the_image(
    site: Site, cache: Cache, text: bytes, what: str
) -> None:
    site.pages |= {"/pi.img.zip": Page(DATA), "/pi.img.zip.sha256": Page(text)}
    with pytest.raises(SourceError, match=what):
        obtain(site, cache)
    assert site.asked("/pi.img.zip") == []


def test_the_catalogues_checksum_asks_nobody_else(site: Site, cache: Cache, web: Path) -> None:
    zipped = web / "pi.img.zip"
    site.pages["/pi.img.zip"] = Page(zipped.read_bytes())
    obtain(site, cache, sha256=sha256sum(zipped).upper())
    assert [path for path, _ in site.seen] == ["/pi.img.zip"]


def test_a_checksum_file_elsewhere_is_used(site: Site, cache: Cache, web: Path) -> None:
    zipped = web / "pi.img.zip"
    listed = f"{'0' * 64}  other.zip\n{sha256sum(zipped)} *./release/pi.img.zip\r\n"
    site.pages |= {
        "/pi.img.zip": Page(zipped.read_bytes()),
        "/SHA256SUMS": Page(listed.encode()),
    }
    obtain(site, cache, checksum_url=site.url + "/SHA256SUMS")
    assert len(cache.listing()) == 1


def test_the_name_behind_a_redirect_counts_too(site: Site, cache: Cache, web: Path) -> None:
    zipped = web / "pi.img.zip"
    to = {"Location": "/2015-04-16.zip"}
    summed = {"Location": "/2015-04-16.zip.sha256"}
    site.pages |= {
        "/pi.img.zip": Page(status=302, headers=to),
        "/pi.img.zip.sha256": Page(status=302, headers=summed),
        "/2015-04-16.zip": Page(zipped.read_bytes()),
        "/2015-04-16.zip.sha256": Page(f"{sha256sum(zipped)}  2015-04-16.zip\n".encode()),
    }
    obtain(site, cache)
    assert len(cache.listing()) == 1


def test_without_a_checksum_it_is_said_loudly_and_not_trusted_later(
    site: Site, cache: Cache, web: Path
) -> None:
    site.pages["/pi.img.zip"] = Page((web / "pi.img.zip").read_bytes())
    reporter = Recorder()
    source = ImageSource(name="pi", url=site.url + "/pi.img.zip", unchecked=True)
    for times in (1, 2):
        fetch_base(source, cache, reporter)
        assert "without a checksum" in reporter.warnings[-1]
        assert len(reporter.warnings) == times
    obtain_base(source, cache, reporter, HASTY)  # as for a class, which is warned by its file
    assert len(reporter.warnings) == 2
    assert find_cached(source, cache)
    with pytest.raises(SourceError, match="no checksum for"):
        obtain(site, cache)


def test_a_published_checksum_lifts_what_was_taken_without_one(
    site: Site, cache: Cache, web: Path
) -> None:
    zipped = web / "pi.img.zip"
    site.pages["/pi.img.zip"] = Page(zipped.read_bytes())
    obtain(site, cache, unchecked=True)
    site.pages["/pi.img.zip.sha256"] = Page(f"{sha256sum(zipped)}  pi.img.zip\n".encode())
    obtain(site, cache)
    assert len(site.asked("/pi.img.zip")) == 1


def test_a_cut_off_file_without_a_length_is_no_image(site: Site, cache: Cache, web: Path) -> None:
    data = (web / "pi.img.zip").read_bytes()
    site.pages["/pi.img.zip"] = Page(data, length=False, cuts=[len(data) // 2])
    with pytest.raises(ImageError, match="truncated"):
        obtain(site, cache, unchecked=True)
    assert files_in(cache) == []


def test_the_raw_digest_of_a_catalogue_is_a_check_of_its_own(
    site: Site, cache: Cache, web: Path
) -> None:
    site.pages["/pi.img.zip"] = Page((web / "pi.img.zip").read_bytes())
    with pytest.raises(SourceError, match="the unpacked pi"):
        obtain(site, cache, raw_sha256="0" * 64)
    assert files_in(cache) == []
    size = (web / "pi.img").stat().st_size
    obtain(site, cache, raw_sha256=sha256sum(web / "pi.img"), raw_size_bytes=size)
    asked = len(site.seen)
    obtain(site, cache, raw_sha256=sha256sum(web / "pi.img"), raw_size_bytes=size)
    assert len(site.seen) == asked


def test_the_catalogues_hint_is_shown_where_an_image_is_gone(site: Site, cache: Cache) -> None:
    with pytest.raises(SourceError) as caught:
        obtain(site, cache, sha256="0" * 64, hint="the vendor took it away")
    assert caught.value.hint == "the vendor took it away"


def test_passwords_of_an_address_show_nowhere(site: Site, cache: Cache, web: Path) -> None:
    zipped = web / "pi.img.zip"
    site.pages["/pi.img.zip?token=hush"] = Page(zipped.read_bytes(), failures=[503])
    url = site.url.replace("//", "//anna:s3cret@") + "/pi.img.zip?token=hush"
    reporter = Recorder()
    source = ImageSource(name="pi", url=url, sha256=sha256sum(zipped))
    obtain_base(source, cache, reporter, HASTY)
    kept = b"".join((cache.folder / name).read_bytes() for name in files_in(cache) if "rec" in name)
    assert b"s3cret" not in kept
    assert b"hush" not in kept
    assert "hush" not in str(reporter)
    assert site.asked("/pi.img.zip?token=hush", "Authorization")[0].startswith("Basic ")
