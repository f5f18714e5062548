"""HTTP requests with checked redirects and a deadline.

The deadline is for all of a small response; that of a download restarts after each `LEAST_BYTES`.
"""

from __future__ import annotations

import re
import zlib
from contextlib import contextmanager
from http import HTTPStatus
from http.client import HTTPException
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urljoin, urlsplit, urlunsplit

import requests  # noqa: TID251 - the only module that uses HTTP
import urllib3
from requests.adapters import HTTPAdapter  # noqa: TID251 - as above

from imagebuilder import __version__
from imagebuilder.errors import SourceError
from imagebuilder.images.checksums import redacted
from imagebuilder.images.deadline import Deadline, watch
from imagebuilder.images.foreign import PARSING_ERRORS

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator, Mapping
    from typing import Self

    from imagebuilder.images.deadline import Patience
    from imagebuilder.progress import Reporter

PIECE_BYTES = 1 << 18
MOST_REDIRECTS = 20  # redirects of one request
LONGEST_PAUSE_SECONDS = 60.0  # that Retry-After can ask for

# With LONGEST_ANSWER_SECONDS: 1000 bytes a second.
LEAST_BYTES = 30_000
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})  # temporary (RFC 9110, 6585)
_REDIRECTS = frozenset({301, 302, 303, 307, 308})

# Not quoted in a Location: the reserved characters of RFC 3986, 2.2, and `%` of quoted ones.
_SAFE = "%/:=&?~#+!$,;'@()*[]"
_LONE_PERCENT = re.compile("%(?![0-9A-Fa-f]{2})")
_TOO_SLOW_COSTS = 3
_REQUEST_ERRORS: tuple[type[Exception], ...] = (
    requests.RequestException,
    urllib3.exceptions.HTTPError,
    *PARSING_ERRORS,
)
_REASONS = (
    ("timed out", "the server did not answer in time"),
    ("Name or service not known", "the hostname of the server cannot be resolved"),
    ("name resolution", "the hostname of the server cannot be resolved"),
    ("Failed to resolve", "the hostname of the server cannot be resolved"),
    ("proxy", "the proxy does not answer"),
    ("CERTIFICATE_VERIFY", "the server's certificate is not trusted"),
    ("refused", "the server refused the connection"),
    ("reset by peer", "the connection was reset"),
    ("unreachable", "the server is not reachable"),
    ("Connection broken", "the connection was interrupted"),
    ("Connection aborted", "the connection was interrupted"),
    ("ended prematurely", "the connection was interrupted"),
    ("closed connection", "the server closed the connection"),
)


class AgainError(Exception):
    """A temporary failure; `cost` is the number of attempts that it counts as."""

    def __init__(self, reason: str, after_seconds: float = 0.0, cost: int = 1) -> None:
        super().__init__(reason)
        self.after_seconds = after_seconds
        self.cost = cost


class Client:
    """An HTTP session that checks redirects; a context manager."""

    def __init__(self, patience: Patience, reporter: Reporter, *, allow_http: bool = False) -> None:
        self._patience, self._reporter, self._allow_http = patience, reporter, allow_http
        self._told: set[str] = set()
        self._session = _NoRedirectSession()
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, WatchedAdapter())
        self._session.headers["User-Agent"] = f"rpi-image/{__version__}"
        # The digest is that of the file on the server, so it must not be compressed in transfer.
        self._session.headers["Accept-Encoding"] = "identity"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_raised: object) -> None:
        self._session.close()

    @contextmanager
    def get(self, url: str, headers: Mapping[str, str] | None = None) -> Iterator[Answer]:
        """Yield the response. Raise AgainError for temporary failures, SourceError for others."""
        with Deadline(self._patience.answer_seconds) as deadline:
            answer = self._follow(url, dict(headers or {}), deadline)
            with answer.response:
                yield answer

    def _follow(self, url: str, headers: dict[str, str], deadline: Deadline) -> Answer:
        """Follow redirects, without reading their bodies."""
        start = url
        for _ in range(MOST_REDIRECTS):
            answer = Answer(self._ask(url, headers, deadline), url, deadline)
            if answer.status not in _REDIRECTS or not answer.header("Location"):
                return answer
            answer.response.close()
            url = self._redirected(url, answer.header("Location"))
        raise _wrong_url(start, "too many redirects")

    def _ask(self, url: str, headers: dict[str, str], deadline: Deadline) -> requests.Response:
        timeout = (self._patience.connect_seconds, self._patience.read_seconds)
        try:
            return self._session.get(
                url, headers=headers, stream=True, timeout=timeout, allow_redirects=False
            )
        except _REQUEST_ERRORS as error:
            raise _failure(error, url, deadline) from error

    def _redirected(self, url: str, location: str) -> str:
        """Return the URL in a Location header. Raise SourceError if it is refused."""
        try:
            target = _target(url, location)
        except ValueError as error:
            raise _wrong_url(url, "it redirects to an invalid URL") from error
        scheme = urlsplit(target).scheme
        if scheme not in {"http", "https"}:
            raise _wrong_url(url, "it redirects to an invalid URL")
        if scheme == "http" and urlsplit(url).scheme == "https":
            self._downgrade(url, target)
        return target

    def _downgrade(self, url: str, target: str) -> None:
        fact = f"{redacted(url)} redirects from https to {redacted(target)}"
        if not self._allow_http:
            raise SourceError(
                f"{fact}: others could modify the file",
                "use another URL, or --allow-http to follow it anyway",
            )
        if fact not in self._told:
            self._told.add(fact)
            self._reporter.warn(f"{fact}: others can read and modify the file")


class Answer:
    """The response of a server; the body can be read once, with `pieces` or `read`."""

    def __init__(self, response: requests.Response, url: str, deadline: Deadline) -> None:
        self.response, self.url, self._deadline = response, url, deadline

    @property
    def status(self) -> int:
        """The status code."""
        return self.response.status_code

    def header(self, name: str) -> str:
        """Return a header; empty if there is none."""
        return str(self.response.headers.get(name, ""))

    def pieces(self) -> Iterator[bytes]:
        """Yield a large body, not decoded. Raise AgainError if it is too slow or interrupted."""
        have = 0
        self._deadline.renew()
        for piece in self._raw():
            have += len(piece)
            if have >= LEAST_BYTES:
                have = 0
                self._deadline.renew()
            with self._deadline.paused():
                yield piece

    def read(self, most_bytes: int) -> bytes | None:
        """Return a small body, decoded; None if it is larger than `most_bytes`."""
        data = b""
        for piece in self._raw():
            data += piece
            if len(data) > most_bytes:
                return None
        data = self._decoded(data, most_bytes)
        return data if len(data) <= most_bytes else None

    def refuse_status(self) -> None:
        """Raise AgainError or SourceError if the status is not 200."""
        if self.status in _PASSING:
            raise AgainError(f"the server returned {self.status}", self._retry_after())
        if self.status != HTTPStatus.OK:
            raise SourceError(
                f"{redacted(self.url)} returned {self.status} {self.response.reason}",
                "check the URL, or use a local file",
            )

    def length(self) -> int | None:
        """Return the size that the server states; None if it states none."""
        if self.header("Transfer-Encoding"):
            return None  # it overrides Content-Length (RFC 9112, 6.3)
        stated = self.header("Content-Length")
        size_bytes = digits(stated)
        if stated and size_bytes is None:
            raise SourceError(
                f"{redacted(self.url)} returned an invalid Content-Length",
                "use another URL, or a local file",
            )
        return size_bytes

    def _retry_after(self) -> float:
        return min(float(digits(self.header("Retry-After")) or 0), LONGEST_PAUSE_SECONDS)

    def _raw(self) -> Iterator[bytes]:
        read: Any = self.response.raw.read1
        while True:
            try:
                piece = read(PIECE_BYTES, decode_content=False)
            except (urllib3.exceptions.HTTPError, HTTPException, OSError, ValueError) as error:
                raise _again(error, self._deadline) from error
            if self._deadline.expired:
                raise _again(None, self._deadline)
            if not piece:
                return
            yield piece

    def _decoded(self, data: bytes, most_bytes: int) -> bytes:
        """Undo a compression; some servers compress in spite of `Accept-Encoding: identity`."""
        coding = self.header("Content-Encoding").lower().removeprefix("x-")
        if coding not in {"", "identity", "gzip", "deflate"}:
            raise SourceError(
                f"{redacted(self.url)} returned the unsupported encoding {coding[:20]}",
                "use --sha256 with the checksum",
            )
        try:
            if data.startswith(b"\x1f\x8b"):
                return zlib.decompressobj(31).decompress(data, most_bytes + 1)
            if coding == "deflate":
                bits = zlib.MAX_WBITS if data[:1] == b"\x78" else -zlib.MAX_WBITS
                return zlib.decompressobj(bits).decompress(data, most_bytes + 1)
        except zlib.error as error:
            raise AgainError("the response is damaged") from error
        return data


def digits(text: str) -> int | None:
    """Return the number in a header; None if it is not 1 to 18 ASCII digits."""
    plain = text.isascii() and text.isdigit() and len(text) <= 18  # noqa: PLR2004 - below 2**63
    return int(text) if plain else None


def _target(url: str, location: str) -> str:
    """Return the URL of a Location header of `url`, quoted where needed.

    http.client decodes headers as Latin-1. Servers send UTF-8; other bytes are quoted as they are,
    like browsers do.
    """
    raw = location.encode("latin-1", "replace")
    try:
        text, encoding = raw.decode("utf-8"), "utf-8"
    except UnicodeDecodeError:
        text, encoding = location, "latin-1"
    parts = urlsplit(urljoin(url, _LONE_PERCENT.sub("%25", text.strip())))
    path, query = (quote(t, safe=_SAFE, encoding=encoding) for t in (parts.path, parts.query))
    here = urlsplit(url)
    # User and password of the URL are kept only for the same server.
    same = (here.scheme, here.netloc.rpartition("@")[2]) == (parts.scheme, parts.netloc)
    return urlunsplit((parts.scheme, here.netloc if same else parts.netloc, path, query, ""))


def _failure(error: Exception, url: str, deadline: Deadline) -> Exception:
    """Return the error for a failed request: AgainError if it is temporary, else SourceError."""
    if deadline.expired:
        return _again(error, deadline)
    if isinstance(error, requests.exceptions.SSLError):
        return SourceError(
            f"cannot fetch {redacted(url)}: {_reason(error, 'the TLS connection failed')}",
            "check the clock, or set REQUESTS_CA_BUNDLE to the CA of your network",
        )
    if isinstance(error, (requests.ConnectionError, requests.Timeout)):
        return _again(error, deadline)
    if isinstance(error, requests.exceptions.InvalidHeader):
        return _wrong_url(url, "the response is not valid HTTP")
    return _wrong_url(url, _reason(error, "the URL is not valid"))


def _wrong_url(url: str, reason: str) -> SourceError:
    return SourceError(f"cannot fetch {redacted(url)}: {reason}", "check the URL")


def _again(error: Exception | None, deadline: Deadline) -> AgainError:
    if deadline.expired:
        return AgainError("the server is too slow", cost=_TOO_SLOW_COSTS)
    return AgainError(_reason(error, "the connection failed"))


def _reason(error: Exception | None, otherwise: str) -> str:
    """Return the cause in a few words; texts of requests contain URLs and object names."""
    text = str(error)
    return next((reason for words, reason in _REASONS if words in text), otherwise)


# ---- connections that a deadline can end


class _NoRedirectSession(requests.Session):
    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """Return none: requests would read the content of a redirect to its end."""
        del resp
        return None


class _PlainConnection(urllib3.connection.HTTPConnection):
    def _new_conn(self) -> socket.socket:
        new = super()._new_conn()
        watch(new.fileno())
        return new

    def getresponse(self) -> Any:
        # A connection may be one of an earlier request, with another deadline.
        watch(self.sock.fileno())
        return super().getresponse()


class _SecureConnection(_PlainConnection, urllib3.connection.HTTPSConnection):
    pass


class _PlainPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _PlainConnection


class _SecurePool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


_POOLS = {"http": _PlainPool, "https": _SecurePool}


class WatchedAdapter(HTTPAdapter):
    """Connections that the deadline of their thread can end, also during a TLS handshake."""

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        """Use our connections."""
        super().init_poolmanager(*args, **options)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        """Use our connections, except through SOCKS."""
        manager = super().proxy_manager_for(proxy, **options)
        if not proxy.lower().startswith("socks"):
            manager.pool_classes_by_scheme = _POOLS
        return manager
