"""Downloads over HTTP that survive bad networks: retried, resumed, and checked when they end."""

from __future__ import annotations

import os
import re
import shutil
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

import requests  # noqa: TID251 - this is the module that speaks HTTP
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
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})  # RFC 9110 and 6585: may go away
_ABSENT = frozenset({401, 403, 404, 410})
_REASONS = (
    ("timed out", "the server did not answer in time"),
    ("Name or service not known", "the name of the server is not known"),
    ("name resolution", "the name of the server is not known"),
    ("Failed to resolve", "the name of the server is not known"),
    ("proxy", "the proxy does not answer"),
    ("CERTIFICATE_VERIFY", "the server's certificate is not trusted"),
    ("refused", "the server refused the connection"),
    ("reset by peer", "the connection was reset"),
    ("unreachable", "there is no way to the server"),
    ("Connection broken", "the connection broke"),
    ("Connection aborted", "the connection broke"),
    ("ended prematurely", "the connection broke"),
    ("redirects", "the server redirects without end"),
    ("closed connection", "the server closed the connection"),
)
_ROOM_HINT = "free some space there, or set RPI_IMAGE_CACHE to a folder on a larger disk"
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to bear with a server; `attempts` counts those in a row that bring nothing."""

    attempts: int = 5
    connect_seconds: float = 10.0
    read_seconds: float = 30.0
    pause_seconds: float = 1.0


PATIENT = Patience()


class _AgainError(Exception):
    """The attempt failed in a way that may pass."""

    def __init__(self, reason: str, after_seconds: float = 0.0) -> None:
        super().__init__(reason)
        self.after_seconds = after_seconds


# ---- checksums


def find_published_checksum(source: ImageSource, reporter: Reporter, patience: Patience) -> str:
    """Return the SHA-256 the publisher states beside the image; empty where there is none."""
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
    """Return a text file and where redirects led; None where there is none, or a page saying so."""
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
    """Fetch `url` into `part`, going on where an earlier run stopped, and compare its digest.

    An interrupted part stays for the next run, with what it belongs to in a file beside it.
    Raises SourceError; a part that is not what it should be is removed.
    """
    with _session() as session:
        work = _Download(session, url, part, expected_sha256, reporter, patience)
        got = work.run()
        if work.resumed and expected_sha256 not in {"", got.sha256}:
            reporter.note("the resumed download does not fit its checksum; fetching it afresh")
            work.reset()
            got = work.run()
    if expected_sha256 not in {"", got.sha256}:
        forget(part)
        raise SourceError(
            f"{redacted(url)} has the SHA-256 {got.sha256} instead of {expected_sha256}",
            "it is damaged, or not the file the checksum is for: get a new checksum or try later",
        )
    return got


class _Download:
    """One file on its way: what is there, its running digest, and what it belongs to."""

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
        """Attempt until the file is there; the patience is spent by attempts without progress."""
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
        """Drop what is there."""
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
        """Ask for the rest, if the server or the checksum can tell whether it still fits."""
        validator = self._state.validator
        if not self._have or not (validator or self._pinned):
            self.reset()
            return {}
        self.resumed = True
        return {"Range": f"bytes={self._have}-"} | ({"If-Range": validator} if validator else {})

    def _agree(self, response: requests.Response) -> int | None:
        """Settle whether the answer goes on or starts again; gives the total size if stated."""
        if response.status_code == requests.codes.partial:
            return self._continue(response)
        if response.status_code == requests.codes.requested_range_not_satisfiable:
            self.reset()
            raise _AgainError("the file changed on the server")
        _refuse_status(response, self._url)
        if self._have:
            self._reporter.note("the server does not go on where it stopped; starting again")
            self.reset()
        return _length(response)

    def _continue(self, response: requests.Response) -> int | None:
        """Check that a partial answer is the rest of what is here."""
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
            raise _AgainError("the server sent another part than the one asked for")
        return total

    def _begin(self, response: requests.Response, total: int | None) -> None:
        _refuse_small_disk(self._part.parent, (total or 0) - self._have)
        validator = _validator(response) or self._state.validator
        self._note(PartState(address_digest(self._url), validator, total))

    def _take(self, file: BinaryIO, piece: bytes) -> None:
        if not self._have and looks_like_web_page(piece):
            self.reset()
            raise SourceError(
                f"{redacted(self._url)} gave a web page instead of an image",
                "open the address in a browser: it may want a log-in, or be gone",
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
    # What is hashed is the file as it lies on the server.
    session.headers["Accept-Encoding"] = "identity"
    return session


@contextmanager
def _get(
    session: requests.Session, url: str, headers: dict[str, str], patience: Patience
) -> Iterator[requests.Response]:
    """Open an answer; raises _AgainError for what may pass, SourceError for what will not."""
    timeout = (patience.connect_seconds, patience.read_seconds)
    try:
        response = session.get(url, headers=headers, stream=True, timeout=timeout)
    except requests.exceptions.SSLError as error:
        raise SourceError(
            f"{redacted(url)} cannot be fetched: {_reason(error, 'there is no secure connection')}",
            "check this machine's clock, or set REQUESTS_CA_BUNDLE to your network's authority",
        ) from error
    except (requests.exceptions.ConnectionError, requests.exceptions.Timeout) as error:
        raise _AgainError(_reason(error)) from error
    except (requests.RequestException, ValueError) as error:
        raise SourceError(
            f"{redacted(url)} cannot be fetched: {_reason(error, 'this leads to no web address')}",
            "check the address",
        ) from error
    with response:
        yield response


def _pieces(response: requests.Response) -> Iterator[bytes]:
    """Return the body as the server sent it, undecoded."""
    try:
        yield from response.raw.stream(PIECE_BYTES, decode_content=False)
    except (urllib3.exceptions.HTTPError, requests.RequestException, OSError) as error:
        raise _AgainError(_reason(error)) from error


def _reason(error: Exception, otherwise: str = "the connection failed") -> str:
    """Return the innermost cause in few words; the outer ones repeat addresses and objects."""
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
            f"{redacted(url)} gave {status} {response.reason}",
            "check the address, or give the image as a local file",
        )


def _retry_after(response: requests.Response) -> float:
    text = response.headers.get("Retry-After", "")
    return min(float(text), LONGEST_PAUSE_SECONDS) if text.isdigit() else 0.0


def _validator(response: requests.Response) -> str:
    """Return what If-Range may hold: a strong ETag or a date (RFC 9110, 13.1.5)."""
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
    """Attempt until it works or nothing came for `patience.attempts` attempts in a row."""
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
                    f"{what} cannot be fetched: {error}",
                    "check the network and the proxy; a new run goes on where this one stopped",
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
        what = "no room for" if is_disk_full(error) else f"{error.strerror} at"
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
            f"no room for the download in {folder}: {size_bytes} bytes to come, {free} free",
            _ROOM_HINT,
        )
