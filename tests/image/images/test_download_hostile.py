"""Servers that answer oddly, slowly or without end: always an error of the user's, and in time."""

from __future__ import annotations

import contextlib
import gc
import gzip
import hashlib
import random
import shutil
import threading
import time
import zlib
from typing import TYPE_CHECKING

import pytest

from imagebuilder.errors import RpiImageError, SourceError
from imagebuilder.images.cache import Cache
from imagebuilder.images.checksums import MOST_CHECKSUM_BYTES
from imagebuilder.images.deadline import Patience
from imagebuilder.images.download import download, find_published_checksum
from imagebuilder.images.obtain import obtain_base
from imagebuilder.model import ImageSource
from tests.lib.archives import Recorder, make_image, pack, publish_checksum, sha256sum
from tests.lib.program import rpi_image
from tests.lib.tools import need, run
from tests.lib.webserver import free_port, nginx, talking, without_proxies

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from imagebuilder.progress import Meter

HASTY = Patience(attempts=3, connect_seconds=2, read_seconds=3, pause_seconds=0, answer_seconds=0.6)
DATA = random.Random(3).randbytes(300_000)
DIGEST = hashlib.sha256(DATA).hexdigest()


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    without_proxies(monkeypatch)


def saying(answer: bytes) -> Callable[[socket.socket, bytes], None]:
    return lambda client, _: client.sendall(answer)


def fetch(url: str, folder: Path, most_bytes: int = 1 << 30) -> bytes:
    part = folder / "x.part"
    download(f"{url}/x.img", part, "", Recorder(), HASTY, most_bytes=most_bytes)
    return part.read_bytes()


def both_ways(url: str, folder: Path) -> None:
    """Fetch an image and a checksum; each must end by itself, well or with an error told."""
    source = ImageSource("x", url=f"{url}/x")
    errors: list[RpiImageError] = []
    for work in (
        lambda: fetch(url, folder),
        lambda: find_published_checksum(source, Recorder(), HASTY),
    ):
        try:
            work()
        except RpiImageError as error:
            errors.append(error)
    for told in errors:
        assert told.exit_code == 4
        assert told.hint
        assert len(told.message) < 1000


# ---- odd headers

HEADERS = {
    "Content-Length": [
        *(b"\xb2", b"-5", b"+3", b"0x3", b"3.0", b"1e3", b"3, 3", b"3;q=1", b" ", b""),
        *(b"9" * 20, b"9" * 400, b"9" * 5000, b"\xd9\xa3", b"3\x00", b"\x1b[31m3"),
    ],
    "Content-Range": [
        *(
            b"\xb2",
            b"bytes 0-2/3",
            b"bytes 0-2/\xb2",
            b"bytes */3",
            b"bytes 5-9/10",
            b"items 0-2/3",
        ),
        *(b"bytes 0-2/" + b"9" * 5000, b"bytes " + b"9" * 5000 + b"-1/3", b"bytes 0--2/-3", b""),
    ],
    "Retry-After": [b"\xb2", b"-1", b"1e9", b"9" * 5000, b"Wed, 21 Oct 2099 07:28:00 GMT", b"nan"],
    "ETag": [b'"' + b"a" * 60_000 + b'"', b'"\x01"', b'"\xe9"', b'W/"1"', b"bare", b'"a"b"', b'"'],
    "Last-Modified": [b"x" * 60_000, b"\x01", b"Wed, 21 Oct 2099 07:28:00 GMT", b"\xe9"],
    "Transfer-Encoding": [b"chunked, gzip", b"\xb2", b"identity", b"chunked\x00", b"CHUNKED"],
    "Content-Encoding": [b"\xb2", b"br", b"gzip, gzip", b"deflate", b"gzip", b"x" * 60_000],
    "Set-Cookie": [b"\xb2", b"a=b; Expires=" + b"9" * 5000, b"=;;;=", b"a=b; Max-Age=\xb2"],
    "Location": [
        *(
            b"\xb2",
            b"",
            b"//",
            b"///x",
            b"http://",
            b"http://[",
            b"http://[::1",
            b"\x00",
            b"?",
            b"#",
        ),
        *(b"http://127.0.0.1:" + port + b"/" for port in (b"\xb2", b"99999999", b"-1", b"")),
        *(b"file:///etc/passwd", b"ftp://h/x", b"gopher://h", b"javascript:x", b"data:,x"),
        *(b"http://" + b"a" * 60_000, b"/" * 60_000, b"http://a@b@c:d/", b"http://\x1b[31m/"),
        b"\xff" * 99,
    ],
    "Connection": [b"\xb2", b"keep-alive, close", b"upgrade"],
    "Content-Type": [b"\xb2", b"text/html; charset=\xb2", b"x" * 60_000],
}


@pytest.mark.parametrize("status", [b"200 OK", b"206 Partial", b"302 Found", b"416 x", b"503 x"])
@pytest.mark.parametrize("name", HEADERS)
def test_odd_headers_end_in_an_error_that_is_told(name: str, status: bytes, tmp_path: Path) -> None:
    value = b""

    def talk(client: socket.socket, _: bytes) -> None:
        length = (
            b"" if name in {"Content-Length", "Transfer-Encoding"} else b"Content-Length: 3\r\n"
        )
        client.sendall(
            b"HTTP/1.1 "
            + status
            + b"\r\n"
            + length
            + name.encode()
            + b": "
            + value
            + b"\r\n\r\nabc"
        )

    with talking(talk) as (url, _):
        for value in HEADERS[name]:  # noqa: B007 - the server says it
            both_ways(url, tmp_path)


ANSWERS = {
    "nothing": b"",
    "no http": b"SSH-2.0-OpenSSH_9.2\r\n",
    "a status of letters": b"HTTP/1.1 abc def\r\n\r\n",
    "a status of superscripts": b"HTTP/1.1 \xb2\xb3\xb2 x\r\n\r\n",
    "a large status": b"HTTP/1.1 99999 x\r\n\r\n",
    "a status of nothing": b"HTTP/1.1 204 x\r\n\r\n",
    "not modified": b"HTTP/1.1 304 x\r\n\r\n",
    "another version": b"HTTP/9.9 200 x\r\n\r\nabc",
    "letters of a terminal": b"HTTP/1.1 404 \x1b[31mred\r\nContent-Length: 0\r\n\r\n",
    "a long line": b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70_000 + b"\r\n\r\n",
    "many headers": b"HTTP/1.1 200 OK\r\n" + b"X: a\r\n" * 200 + b"\r\n",
    "a header without a name": b"HTTP/1.1 200 OK\r\n: a\r\nx\r\n y\r\n\r\n",
    "chunks of letters": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n",
    "negative chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-3\r\nabc\r\n",
    "huge chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    + b"f" * 999
    + b"\r\nabc",
    "a long chunk line": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;" + b"a" * 70_000,
    "cut chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc",
    "a cut body": b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc",
    "damaged gzip": b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n\x1f\x8babc",
}


@pytest.mark.parametrize("kind", ANSWERS)
def test_odd_answers_end_in_an_error_that_is_told(kind: str, tmp_path: Path) -> None:
    with talking(saying(ANSWERS[kind])) as (url, _):
        both_ways(url, tmp_path)


def test_a_length_that_is_no_number_is_an_error_of_the_server(tmp_path: Path) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: \xb2\r\n\r\nabc"
    with (
        talking(saying(answer)) as (url, _),
        pytest.raises(SourceError, match="invalid Content-Length"),
    ):
        fetch(url, tmp_path)


# urllib3 leaves such a connection to the garbage collector.
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
def test_two_lengths_are_an_error_of_the_server(tmp_path: Path) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 3, 4\r\n\r\nabc"
    with talking(saying(answer)) as (url, _):
        with pytest.raises(SourceError, match="not valid HTTP"):
            fetch(url, tmp_path)
        gc.collect()


@pytest.mark.parametrize("tag", [b'"' + b"a" * 60_000 + b'"', b'"\x01"', b"bare"])
def test_a_tag_that_is_none_is_not_sent_back(tag: bytes, tmp_path: Path) -> None:
    half = len(DATA) // 2

    def talk(client: socket.socket, request: bytes) -> None:
        if b"Range: " in request:
            head = b"HTTP/1.1 206 x\r\nContent-Range: bytes %d-%d/%d\r\nContent-Length: %d\r\n\r\n"
            rest = len(DATA) - half
            client.sendall(head % (half, len(DATA) - 1, len(DATA), rest) + DATA[half:])
        else:
            head = b"HTTP/1.1 200 OK\r\nETag: %s\r\nContent-Length: %d\r\n\r\n"
            client.sendall(head % (tag, len(DATA)) + DATA[:half])

    with talking(talk) as (url, seen):
        got = download(f"{url}/x", tmp_path / "part", DIGEST, Recorder(), HASTY)
    assert got.sha256 == DIGEST
    assert len(seen) == 2
    assert b"If-Range" not in seen[1]


# ---- slow, and without end


def dripping(before: bytes, drip: bytes) -> Callable[[socket.socket, bytes], None]:
    """Say something, then a little every now and then: no read ever times out."""

    def talk(client: socket.socket, _: bytes) -> None:
        client.sendall(before)
        for _times in range(600):
            client.sendall(drip)
            time.sleep(0.05)

    return talk


OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
SLOW: dict[str, Callable[[socket.socket, bytes], object]] = {
    "nothing at all": lambda client, _: bool(client.recv(1)),
    "the status": dripping(b"HTTP/1.1 200 ", drip=b"O"),
    "a header": dripping(OK + b"X: ", drip=b"a"),
    "headers": dripping(OK, drip=b"X: a\r\n"),
    "interim answers": dripping(b"", drip=b"HTTP/1.1 100 Continue\r\n\r\n"),
    "redirects' content": dripping(b"HTTP/1.1 302 x\r\nLocation: /x\r\n\r\n", drip=b"a" * 1000),
    "the body": dripping(OK + b"Content-Length: 9437184\r\n\r\n", drip=b"a"),
    "the body without a length": dripping(OK + b"\r\n", drip=b"a"),
    "chunks": dripping(CHUNKED, drip=b"1\r\na\r\n"),
    "the size of a chunk": dripping(CHUNKED + b"1;", drip=b"a"),
    "trailers": dripping(CHUNKED + b"1\r\na\r\n0\r\n", drip=b"X: a\r\n"),
    "the body, compressed": dripping(OK + b"Content-Encoding: gzip\r\n\r\n", drip=b"\x1f"),
}


@pytest.mark.parametrize("what", SLOW)
def test_a_server_that_drips_is_given_up(what: str, tmp_path: Path) -> None:
    begun = time.monotonic()
    with talking(SLOW[what]) as (url, seen):
        with pytest.raises(SourceError, match=r"too slow|too many redirects|in time"):
            fetch(url, tmp_path)
        source = ImageSource("x", url=f"{url}/x")
        with pytest.raises(SourceError, match=r"too slow|too many redirects|in time"):
            find_published_checksum(source, Recorder(), HASTY)
        spent = time.monotonic() - begun
        assert len(seen) <= 2 * max(HASTY.attempts, 21)
    assert spent < 15
    assert not [one for one in threading.enumerate() if one.name == "deadline"]


def test_a_byte_a_connection_is_no_progress(tmp_path: Path) -> None:
    answer = b'HTTP/1.1 %s\r\nETag: "1"\r\n%sContent-Length: %d\r\n\r\na'

    def talk(client: socket.socket, request: bytes) -> None:
        have = int(request.partition(b"Range: bytes=")[2].partition(b"-")[0] or 0)
        place = b"Content-Range: bytes %d-99/100\r\n" % have if have else b""
        client.sendall(answer % (b"206 x" if have else b"200 OK", place, 100 - have))

    with talking(talk) as (url, seen), pytest.raises(SourceError, match="cannot fetch"):
        fetch(url, tmp_path)
    assert len(seen) == HASTY.attempts


def test_a_steady_download_may_take_longer_than_its_deadline(tmp_path: Path) -> None:
    def talk(client: socket.socket, _: bytes) -> None:
        client.sendall(OK + b"Content-Length: %d\r\n\r\n" % len(DATA))
        for at in range(0, len(DATA), 15_000):
            client.sendall(DATA[at : at + 15_000])
            time.sleep(0.1)

    with talking(talk) as (url, seen):
        assert fetch(url, tmp_path) == DATA
        assert len(seen) == 1


def test_a_slow_disk_is_no_slow_server(tmp_path: Path) -> None:
    class SlowDisk(Recorder):
        @contextlib.contextmanager
        def meter(self, label: str, total: int | None, unit: str = "B") -> Iterator[Meter]:
            del label, total, unit
            yield SlowMeter()

    class SlowMeter:
        def advance(self, amount: int) -> None:
            time.sleep(1.5 if amount else 0)

    with talking(saying(OK + b"Content-Length: 3\r\n\r\nabc")) as (url, seen):
        download(f"{url}/x", tmp_path / "part", "", SlowDisk(), HASTY)
        assert len(seen) == 1


def endless(head: bytes, piece: bytes) -> Callable[[socket.socket, bytes], None]:
    def talk(client: socket.socket, _: bytes) -> None:
        client.sendall(head)
        while True:
            client.sendall(piece)

    return talk


def test_a_checksum_without_end_is_refused() -> None:
    with talking(endless(OK + b"\r\n", b"a" * 60_000)) as (url, _):
        source = ImageSource("x", url=f"{url}/x")
        with pytest.raises(SourceError, match="over 1 MiB"):
            find_published_checksum(source, Recorder(), HASTY)


@pytest.mark.parametrize("coding", [b"gzip", b"deflate"])
def test_a_checksum_that_grows_when_unpacked_is_refused(coding: bytes) -> None:
    compress = gzip.compress if coding == b"gzip" else zlib.compress
    bomb = compress(bytes(100 << 20), 9)
    assert len(bomb) < MOST_CHECKSUM_BYTES
    head = OK + b"Content-Encoding: %s\r\nContent-Length: %d\r\n\r\n" % (coding, len(bomb))
    with talking(saying(head + bomb)) as (url, _):
        source = ImageSource("x", url=f"{url}/x")
        with pytest.raises(SourceError, match="over 1 MiB"):
            find_published_checksum(source, Recorder(), HASTY)


def test_a_download_of_which_nobody_states_a_size_has_one(tmp_path: Path) -> None:
    chunk = b"ffff\r\n" + bytes(0xFFFF) + b"\r\n"
    with (
        talking(endless(CHUNKED, chunk)) as (url, _),
        pytest.raises(SourceError, match="sends more than 1000000 bytes"),
    ):
        fetch(url, tmp_path, most_bytes=1_000_000)
    assert list(tmp_path.iterdir()) == []


def test_a_download_obeys_the_size_it_states(tmp_path: Path) -> None:
    head = b"HTTP/1.1 206 x\r\nContent-Range: bytes 0-9/10\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunk = b"ffff\r\n" + bytes(0xFFFF) + b"\r\n"
    with (
        talking(endless(head, chunk)) as (url, _),
        pytest.raises(SourceError, match="sends more than 10 bytes"),
    ):
        fetch(url, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_download_larger_than_its_image_is_refused_before_it_comes(tmp_path: Path) -> None:
    answer = OK + b"Content-Length: 1000000000\r\n\r\n"
    with talking(saying(answer)) as (url, _):
        source = ImageSource("x", url=f"{url}/x", sha256=DIGEST, raw_size_bytes=100 << 20)
        with pytest.raises(SourceError, match=r"has 1\.0 GB, more than"):
            obtain_base(source, Cache(tmp_path), Recorder(), HASTY)


# ---- nginx: redirects and compression


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a packed image, and its checksum compressed by gzip."""
    folder = tmp_path_factory.mktemp("web")
    packed = pack(make_image(folder / "pi.img"), "xz")
    publish_checksum(packed)
    for path in (packed, folder / "pi.img.xz.sha256"):
        (folder / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
    (folder / "x y").mkdir()
    for name in ("pi.img.xz", "pi.img.xz.sha256"):
        shutil.copy(folder / name, folder / "x y" / name.replace("pi", "größe +%"))
    return folder


COMPRESSED = """
location /on/ { alias ROOT/; gzip on; gzip_types *; gzip_proxied any; gzip_min_length 1; }
location /always/ { alias ROOT/; gzip_static always; }
"""


@pytest.mark.parametrize("folder", ["on", "always"])
def test_what_the_server_compressed_on_its_way_is_what_it_was(
    web: Path, tmp_path: Path, folder: str
) -> None:
    more = COMPRESSED.replace("ROOT", str(web))
    with nginx(web, tmp_path / "nginx", more=more) as server:
        source = ImageSource("pi", url=f"{server.url}/{folder}/pi.img.xz")
        base = obtain_base(source, Cache(tmp_path / "cache"), Recorder(), HASTY)
    assert base.sha256 == sha256sum(web / "pi.img")
    assert base.source_sha256 == sha256sum(web / "pi.img.xz")


@pytest.mark.parametrize(
    "location",
    [
        "/x y/größe +%.img.xz",
        "/x%20y/gr%C3%B6%C3%9Fe%20+%25.img.xz",
        "http://127.0.0.1:PORT/x y/größe +%25.img.xz",
        "../x y/größe +%.img.xz?a=b c&d=é#f",
    ],
)
def test_a_location_with_blanks_and_other_letters_is_followed(
    web: Path, tmp_path: Path, location: str
) -> None:
    more = f'location /go/ {{ return 302 "{location}"; }}'
    with nginx(web, tmp_path / "nginx", more=more) as server:
        source = ImageSource("pi", url=f"{server.url}/go/pi.img.xz", unchecked=True)
        base = obtain_base(source, Cache(tmp_path / "cache"), Recorder(), HASTY)
    assert base.sha256 == sha256sum(web / "pi.img")


def test_a_location_in_latin_1_is_sent_back_as_it_came(tmp_path: Path) -> None:
    def talk(client: socket.socket, request: bytes) -> None:
        if b"GET /x.img " in request:
            client.sendall(
                b"HTTP/1.1 302 x\r\nLocation: /x y \xe9.img\r\nContent-Length: 0\r\n\r\n"
            )
        else:
            client.sendall(OK + b"Content-Length: 3\r\n\r\nabc")

    with talking(talk) as (url, seen):
        assert fetch(url, tmp_path) == b"abc"
    assert seen[1].startswith(b"GET /x%20y%20%E9.img ")


def test_a_password_is_not_told_to_another_server(tmp_path: Path) -> None:
    with talking(saying(OK + b"Content-Length: 3\r\n\r\nabc")) as (other, seen):

        def talk(client: socket.socket, request: bytes) -> None:
            to = b"/second" if b"GET /x.img " in request else other.encode() + b"/third"
            client.sendall(b"HTTP/1.1 302 x\r\nLocation: " + to + b"\r\nContent-Length: 0\r\n\r\n")

        with talking(talk) as (url, own):
            assert fetch(url.replace("//", "//anna:secret@"), tmp_path) == b"abc"
    assert all(b"Authorization: Basic" in request for request in own)
    assert len(own) == 2
    assert b"Authorization" not in seen[0]


TLS = """
server {
  listen 127.0.0.1:TLS ssl;
  ssl_certificate FOLDER/cert.pem; ssl_certificate_key FOLDER/key.pem;
  location /down/ { rewrite ^/down/(.*)$ http://127.0.0.1:PORT/$1 redirect; }
  location /downsums/ { root WEB; rewrite ^/downsums/(.*sha256)$ http://127.0.0.1:PORT/$1 redirect;
                        rewrite ^/downsums/(.*)$ /$1 break; }
  location / { root WEB; }
}
"""


@pytest.fixture
def secure(web: Path, tmp_path: Path) -> Iterator[tuple[str, str, Path]]:
    """Serve by https and http; yields both addresses and the authority's certificate."""
    need("openssl")
    run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
        "-nodes", "-keyout", tmp_path / "key.pem", "-out", tmp_path / "cert.pem", "-days", "2",
        "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1")  # fmt: skip
    port = free_port()
    servers = TLS.replace("TLS", str(port)).replace("FOLDER", str(tmp_path))
    up = f"location /up/ {{ rewrite ^/up/(.*)$ https://127.0.0.1:{port}/$1 redirect; }}"
    servers = servers.replace("WEB", str(web))
    with nginx(web, tmp_path / "nginx", more=up, servers=servers) as server:
        yield f"https://127.0.0.1:{port}", server.url, tmp_path / "cert.pem"


@pytest.mark.parametrize("path", ["down/pi.img.xz", "downsums/pi.img.xz"])
def test_a_redirect_from_https_to_http_is_followed_only_where_that_is_said(
    secure: tuple[str, str, Path], tmp_path: Path, web: Path, path: str
) -> None:
    url, plain, authority = secure
    words = ("fetch", f"{url}/{path}")
    trust = str(authority)
    refused = rpi_image(*words, cache=tmp_path / "cache", REQUESTS_CA_BUNDLE=trust)
    assert refused.returncode == 4
    assert f"redirects from https to {plain}" in refused.stderr
    assert "--allow-http" in refused.stderr
    followed = rpi_image(
        *words, "--allow-http", "-q", cache=tmp_path / "cache", REQUESTS_CA_BUNDLE=trust
    )
    assert followed.returncode == 0, followed.stderr
    assert f"warning: {url}/{path}" in followed.stderr
    assert "can read and modify" in followed.stderr
    run("cmp", followed.stdout.strip(), web / "pi.img")


def test_redirects_to_https_and_within_it_need_no_flag(
    secure: tuple[str, str, Path],
    tmp_path: Path,
    web: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url, plain, authority = secure
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority))
    for number, address in enumerate((f"{plain}/up/pi.img.xz", f"{url}/pi.img.xz")):
        source = ImageSource("pi", url=address)
        base = obtain_base(source, Cache(tmp_path / str(number)), Recorder(), HASTY)
        assert base.sha256 == sha256sum(web / "pi.img")
