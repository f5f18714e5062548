"""Download over HTTP: retry, resume, and check the digest."""

from __future__ import annotations

import os
import re
import shutil
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

import requests  # noqa: TID251 - this module uses HTTP
import urllib3

from imagebuilder import __version__
from imagebuilder.errors import SourceError
from imagebuilder.files import hand_over, is_disk_full, pwrite_all
from imagebuilder.images.checksums import SUFFIX, basename, beside, parse_checksums, redacted
from imagebuilder.images.formats import looks_like_web_page
from imagebuilder.images.resume import (
    PartState,
    address_digest,
    digest_so_far,
    forget,
    load_state,
    nothing_yet,
    save_state,
)
from imagebuilder.images.sparse import Written

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import BinaryIO

    from imagebuilder.model import ImageSource
    from imagebuilder.progress import Reporter

PIECE_BYTES = 1 << 18
CHECKSUM_FILE_BYTES = 1 << 20
LONGEST_PAUSE_SECONDS = 60.0
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})  # temporary (RFC 9110, 6585)
_ABSENT = frozenset({401, 403, 404, 410})
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
    ("redirects", "too many redirects"),
    ("closed connection", "the server closed the connection"),
)
_ROOM_HINT = "free some space there, or set RPI_IMAGE_CACHE to a folder on a larger disk"
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Patience:
    """Timeouts and retries; `attempts` is the limit of consecutive attempts without progress."""

    attempts: int = 5
    connect_seconds: float = 10.0
    read_seconds: float = 30.0
    pause_seconds: float = 1.0


PATIENT = Patience()


class _AgainError(Exception):
    """The attempt failed, but another one may succeed."""

    def __init__(self, reason: str, after_seconds: float = 0.0) -> None:
        super().__init__(reason)
        self.after_seconds = after_seconds


# ---- checksums


def find_published_checksum(source: ImageSource, reporter: Reporter, patience: Patience) -> str:
    """Return the SHA-256 that the publisher states next to the image; empty if there is none."""
    url = source.checksum_url or beside(source.url)
    with _session() as session:
        got = _patiently(
            lambda: _small_file(session, url, patience),
            lambda: 0,
            redacted(url),
            reporter,
            patience,
        )
    if got is None:
        return ""
    text, final_url = got
    names = {basename(source.url), basename(final_url).removesuffix(SUFFIX)}
    return parse_checksums(text, names, redacted(final_url))


def _small_file(session: requests.Session, url: str, patience: Patience) -> tuple[str, str] | None:
    """Return a text file and its final URL; None if there is none, or a web page instead."""
    with _get(session, url, {}, patience) as response:
        if response.status_code in _ABSENT:
            return None
        _refuse_status(response, url)
        data = b""
        for piece in _pieces(response):
            data += piece
            if looks_like_web_page(data) or len(data) > CHECKSUM_FILE_BYTES:
                return None
        return data.decode("utf-8", "replace"), response.url


# ---- downloads


def download(
    url: str, part: Path, expected_sha256: str, reporter: Reporter, patience: Patience = PATIENT
) -> Written:
    """Download `url` to `part`, resume an earlier run, and compare the digest.

    An unfinished part is kept for the next run, with its state in a file next to it. Raise
    SourceError on failure; a part with a wrong digest is removed.
    """
    with _session() as session:
        work = _Download(session, url, part, expected_sha256, reporter, patience)
        got = work.run()
        if work.resumed and expected_sha256 not in {"", got.sha256}:
            reporter.note("the resumed download does not match its checksum; starting again")
            work.reset()
            got = work.run()
    if expected_sha256 not in {"", got.sha256}:
        forget(part)
        raise SourceError(
            f"{redacted(url)} has the SHA-256 {got.sha256} instead of {expected_sha256}",
            "get the checksum again, or try later: the file is damaged or another one",
        )
    return got


class _Download:
    """One download: its state, and size and digest of what is on the disk."""

    def __init__(
        self,
        session: requests.Session,
        url: str,
        part: Path,
        expected_sha256: str,
        reporter: Reporter,
        patience: Patience,
    ) -> None:
        self._session, self._url, self._part = session, url, part
        self._pinned, self._reporter, self._patience = bool(expected_sha256), reporter, patience
        self._state = load_state(part, url)
        self._digest, self._have = digest_so_far(part) if self._state.address else nothing_yet()
        self.resumed = self._have > 0

    def run(self) -> Written:
        """Return the digest and size after as many attempts as needed."""
        if not self._have or self._have != self._state.total_bytes:
            _patiently(
                self._attempt,
                lambda: self._have,
                redacted(self._url),
                self._reporter,
                self._patience,
            )
        return Written(self._digest.hexdigest(), self._have)

    def reset(self) -> None:
        """Remove the part and its state."""
        forget(self._part)
        self._state = PartState("")
        self._digest, self._have = nothing_yet()
        self.resumed = False

    def _attempt(self) -> None:
        with _get(self._session, self._url, self._range(), self._patience) as response:
            total = self._agree(response)
            self._begin(response, total)
            with self._reporter.meter(f"fetching {basename(self._url)}", total) as meter:
                meter.advance(self._have)
                with _appending(self._part) as file:
                    for piece in _pieces(response):
                        self._take(file, piece)
                        meter.advance(len(piece))
                    with _disk(self._part):
                        os.fsync(file.fileno())
        if total is not None and self._have != total:
            raise _AgainError(f"the connection ended after {self._have} of {total} bytes")
        self._note(replace(self._state, total_bytes=self._have))

    def _range(self) -> dict[str, str]:
        """Return the headers to request the rest, if a changed file would be noticed.

        That is by If-Range (RFC 9110, 13.1.5) or by the expected digest.
        """
        validator = self._state.validator
        if not self._have or not (validator or self._pinned):
            self.reset()
            return {}
        self.resumed = True
        return {"Range": f"bytes={self._have}-"} | ({"If-Range": validator} if validator else {})

    def _agree(self, response: requests.Response) -> int | None:
        """Check whether the answer continues or starts again; return the total size if stated."""
        if response.status_code == requests.codes.partial:
            return self._continue(response)
        if response.status_code == requests.codes.requested_range_not_satisfiable:
            self.reset()
            raise _AgainError("the file changed on the server")
        _refuse_status(response, self._url)
        if self._have:
            self._reporter.note("the server cannot resume the download; starting again")
            self.reset()
        return _length(response)

    def _continue(self, response: requests.Response) -> int | None:
        """Return the total size of a partial answer. Raise _AgainError if it is not the rest."""
        found = _CONTENT_RANGE.match(response.headers.get("Content-Range", ""))
        total = int(found[2]) if found and found[2] != "*" else None
        tag = _validator(response)
        if (
            found is None
            or int(found[1]) != self._have
            or self._state.total_bytes not in {None, total}
            or (tag and self._state.validator not in {"", tag})
        ):
            self.reset()
            raise _AgainError("the server sent a different range than requested")
        return total

    def _begin(self, response: requests.Response, total: int | None) -> None:
        _refuse_small_disk(self._part.parent, (total or 0) - self._have)
        validator = _validator(response) or self._state.validator
        self._note(PartState(address_digest(self._url), validator, total))

    def _take(self, file: BinaryIO, piece: bytes) -> None:
        if not self._have and looks_like_web_page(piece):
            self.reset()
            raise SourceError(
                f"{redacted(self._url)} returned a web page instead of an image",
                "open the URL in a browser: it may need a login, or not exist any more",
            )
        with _disk(self._part):
            pwrite_all(file.fileno(), piece, self._have)
        self._digest.update(piece)
        self._have += len(piece)

    def _note(self, state: PartState) -> None:
        self._state = state
        with _disk(self._part):
            save_state(self._part, state)


# ---- one request


def _session() -> requests.Session:
    session = requests.Session()
    session.headers["User-Agent"] = f"rpi-image/{__version__}"
    # The digest is that of the file on the server, so it must not be compressed in transfer.
    session.headers["Accept-Encoding"] = "identity"
    return session


@contextmanager
def _get(
    session: requests.Session, url: str, headers: dict[str, str], patience: Patience
) -> Iterator[requests.Response]:
    """Yield a response. Raise _AgainError for temporary failures, SourceError for others."""
    timeout = (patience.connect_seconds, patience.read_seconds)
    try:
        response = session.get(url, headers=headers, stream=True, timeout=timeout)
    except requests.exceptions.SSLError as error:
        raise SourceError(
            f"cannot fetch {redacted(url)}: {_reason(error, 'the TLS connection failed')}",
            "check the clock, or set REQUESTS_CA_BUNDLE to the CA of your network",
        ) from error
    except (requests.exceptions.ConnectionError, requests.exceptions.Timeout) as error:
        raise _AgainError(_reason(error)) from error
    except (requests.RequestException, ValueError) as error:
        raise SourceError(
            f"cannot fetch {redacted(url)}: {_reason(error, 'the URL is not valid')}",
            "check the URL",
        ) from error
    with response:
        yield response


def _pieces(response: requests.Response) -> Iterator[bytes]:
    """Yield the body as sent by the server, without decoding."""
    try:
        yield from response.raw.stream(PIECE_BYTES, decode_content=False)
    except (urllib3.exceptions.HTTPError, requests.RequestException, OSError) as error:
        raise _AgainError(_reason(error)) from error


def _reason(error: Exception, otherwise: str = "the connection failed") -> str:
    """Return the cause in a few words; texts of requests contain URLs and object names."""
    text = str(error)
    for words, reason in _REASONS:
        if words in text:
            return reason
    return otherwise


def _refuse_status(response: requests.Response, url: str) -> None:
    status = response.status_code
    if status in _PASSING:
        raise _AgainError(f"the server answered {status}", _retry_after(response))
    if status != requests.codes.ok:
        raise SourceError(
            f"{redacted(url)} returned {status} {response.reason}",
            "check the URL, or use a local file",
        )


def _retry_after(response: requests.Response) -> float:
    text = response.headers.get("Retry-After", "")
    return min(float(text), LONGEST_PAUSE_SECONDS) if text.isdigit() else 0.0


def _validator(response: requests.Response) -> str:
    """Return a value for If-Range: a strong ETag or a date (RFC 9110, 13.1.5)."""
    tag: str = response.headers.get("ETag", "")
    if tag and not tag.startswith("W/"):
        return tag
    return str(response.headers.get("Last-Modified", ""))


def _length(response: requests.Response) -> int | None:
    text = response.headers.get("Content-Length", "")
    return int(text) if text.isdigit() else None


def _patiently(
    attempt: Callable[[], _T],
    progress: Callable[[], int],
    what: str,
    reporter: Reporter,
    patience: Patience,
) -> _T:
    """Return the result of `attempt`; repeat it until `patience.attempts` fail without progress.

    Raise SourceError then.
    """
    failures, best = 0, progress()
    while True:
        try:
            return attempt()
        except _AgainError as error:
            now = progress()
            failures = 1 if now > best else failures + 1
            best = max(best, now)
            if failures >= patience.attempts:
                raise SourceError(
                    f"cannot fetch {what}: {error}",
                    "check the network and the proxy, then run it again to resume",
                ) from error
            pause = max(patience.pause_seconds * 2 ** (failures - 1), error.after_seconds)
            reporter.note(f"{error}; trying again in {pause:.0f} s")
            time.sleep(pause)


# ---- the disk


@contextmanager
def _disk(part: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        what = "not enough space for" if is_disk_full(error) else f"{error.strerror}:"
        raise SourceError(f"{what} the download in {part.parent}", _ROOM_HINT) from error


@contextmanager
def _appending(part: Path) -> Iterator[BinaryIO]:
    with _disk(part):
        file = part.open("ab", buffering=0)
        hand_over(part)
    with file:
        yield file


def _refuse_small_disk(folder: Path, size_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < size_bytes:
        raise SourceError(
            f"not enough space for the download in {folder}: {size_bytes} bytes needed,"
            f" {free} free",
            _ROOM_HINT,
        )
