"""Download over HTTP: retry, resume, and check the digest."""

from __future__ import annotations

import os
import re
import shutil
import time
from contextlib import contextmanager
from dataclasses import replace
from http import HTTPStatus
from typing import TYPE_CHECKING, NoReturn, TypeVar

from imagebuilder.errors import SourceError
from imagebuilder.files import hand_over, is_disk_full, pwrite_all
from imagebuilder.images.archives.decoders import hash_gz
from imagebuilder.images.archives.formats import looks_like_web_page
from imagebuilder.images.checksum_lines import decode_text
from imagebuilder.images.checksums import (
    MOST_CHECKSUM_BYTES,
    SUFFIX,
    basename,
    beside,
    parse_checksums,
    redacted,
)
from imagebuilder.images.deadline import PATIENT, Patience
from imagebuilder.images.foreign import foreign
from imagebuilder.images.http_client import AgainError, Client, digits
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
from imagebuilder.progress import two_sizes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path
    from typing import BinaryIO

    from imagebuilder.images.http_client import Answer
    from imagebuilder.model import ImageSource
    from imagebuilder.progress import Reporter


# 256 GiB, like the largest image: a compressed one is not larger.
LARGEST_DOWNLOAD_BYTES = 1 << 38

# Attempts with less count as without progress; otherwise a server could cause endless ones.
LEAST_PROGRESS_BYTES = 1 << 16
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-[0-9]{1,18}/([0-9]{1,18}|\*)")

# RFC 9110, 8.8.3 and 5.6.7; the length is limited, as tags are sent back.
_STRONG_TAG = re.compile(r'"[!#-~\x80-\xff]{0,512}"')
_DATE = re.compile(r"[A-Za-z]{3,9}, [0-9A-Za-z :-]{1,40}")
_ABSENT = frozenset({401, 403, 404, 410})
_ROOM_HINT = "free some space there, or set RPI_IMAGE_CACHE to a folder on a larger disk"
_T = TypeVar("_T")


# ---- checksums


def find_published_checksum(source: ImageSource, reporter: Reporter, patience: Patience) -> str:
    """Return the SHA-256 that the publisher states next to the image; empty if there is none."""
    url = source.checksum_url or beside(source.url)
    with _parsing(url), Client(patience, reporter, allow_http=source.allow_http) as client:
        got = patiently(
            lambda: _small_file(client, url), lambda: 0, redacted(url), reporter, patience
        )
    if got is None:
        return ""
    text, final_url = got
    names = {basename(source.url), basename(final_url).removesuffix(SUFFIX)}
    return parse_checksums(text, names, redacted(final_url))


def _small_file(client: Client, url: str) -> tuple[str, str] | None:
    """Return a text file and its final URL; None if there is none, or a web page instead."""
    with client.get(url) as answer:
        if answer.status in _ABSENT:
            return None
        answer.refuse_status()
        data = answer.read(MOST_CHECKSUM_BYTES)
        if data is None:
            raise SourceError(
                f"{redacted(url)} is not a checksum file: over {MOST_CHECKSUM_BYTES >> 20} MiB",
                "use --sha256 with the checksum (`sha256:` of `image:` in a file)",
            )
        return None if looks_like_web_page(data) else (decode_text(data), answer.url)


def _parsing(url: str) -> AbstractContextManager[None]:
    return foreign(
        SourceError,
        f"the response of {redacted(url)}",
        "check the URL, or use a local file",
    )


# ---- downloads


def download(
    url: str,
    part: Path,
    expected_sha256: str,
    reporter: Reporter,
    patience: Patience = PATIENT,
    *,
    most_bytes: int | None = None,
    allow_http: bool = False,
) -> Written:
    """Download `url` to `part`, resume an earlier run, and compare the digest.

    An unfinished part is kept for the next run, with its state in a file next to it. Raise
    SourceError on failure; a part with a wrong digest is removed.
    """
    with _parsing(url), Client(patience, reporter, allow_http=allow_http) as client:
        work = _Download(
            client,
            url,
            part,
            expected_sha256,
            reporter,
            patience,
            most_bytes or LARGEST_DOWNLOAD_BYTES,
        )
        got = work.run()
        if work.resumed and not work.fits(got):
            reporter.note("the resumed download does not match its checksum; starting again")
            work.reset()
            got = work.run()
        if work.fits(got):
            return replace(got, sha256=expected_sha256 or got.sha256)
    forget(part)
    raise SourceError(
        f"{redacted(url)} has the SHA-256 {got.sha256} instead of {expected_sha256}",
        "get the checksum again, or try later: the file is damaged or another one",
    )


class _Download:
    """One download: its state, and size and digest of what is on the disk."""

    def __init__(
        self,
        client: Client,
        url: str,
        part: Path,
        expected_sha256: str,
        reporter: Reporter,
        patience: Patience,
        most_bytes: int,
    ) -> None:
        self._client, self._url, self._part = client, url, part
        self._expected, self._reporter, self._patience = expected_sha256, reporter, patience
        self._most_bytes = most_bytes
        self._state = load_state(part, url)
        self._digest, self._have = digest_so_far(part) if self._state.address else nothing_yet()
        self.resumed = self._have > 0

    def run(self) -> Written:
        """Return the digest and size after as many attempts as needed."""
        if not self._have or self._have != self._state.total_bytes:
            patiently(
                self._attempt,
                lambda: self._have,
                redacted(self._url),
                self._reporter,
                self._patience,
            )
        return Written(self._digest.hexdigest(), self._have)

    def fits(self, got: Written) -> bool:
        """Return whether the file has the expected digest, as sent or after decompression."""
        if self._expected in {"", got.sha256}:
            return True
        return self._state.gzipped and hash_gz(self._part, self._most_bytes) == self._expected

    def reset(self) -> None:
        """Remove the part and its state."""
        forget(self._part)
        self._state = PartState("")
        self._digest, self._have = nothing_yet()
        self.resumed = False

    def _attempt(self) -> None:
        with self._client.get(self._url, self._range()) as answer:
            total = self._agree(answer)
            self._begin(answer, total)
            with self._reporter.meter(f"fetching {basename(self._url)}", total) as meter:
                meter.advance(self._have)
                with _appending(self._part) as file:
                    for piece in answer.pieces():
                        self._take(file, piece, total)
                        meter.advance(len(piece))
                    with _disk(self._part):
                        os.fsync(file.fileno())
        if total is not None and self._have != total:
            raise AgainError(f"the connection ended after {self._have} of {total} bytes")
        self._note(replace(self._state, total_bytes=self._have))

    def _range(self) -> dict[str, str]:
        """Return the headers to request the rest, if a changed file would be noticed.

        That is by If-Range (RFC 9110, 13.1.5) or by the expected digest.
        """
        validator = self._state.validator
        if not self._have or not (validator or self._expected):
            self.reset()
            return {}
        self.resumed = True
        return {"Range": f"bytes={self._have}-"} | ({"If-Range": validator} if validator else {})

    def _agree(self, answer: Answer) -> int | None:
        """Check whether the answer continues or starts again; return the total size if stated."""
        if answer.status == HTTPStatus.PARTIAL_CONTENT:
            return self._continue(answer)
        if answer.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            self.reset()
            raise AgainError("the file changed on the server")
        answer.refuse_status()
        if self._have:
            self._reporter.note("the server cannot resume the download; starting again")
            self.reset()
        return answer.length()

    def _continue(self, answer: Answer) -> int | None:
        """Return the total size of a partial answer. Raise AgainError if it is not the rest."""
        found = _CONTENT_RANGE.match(answer.header("Content-Range"))
        total = digits(found[2]) if found else None
        tag = _validator(answer)
        if (
            found is None
            or int(found[1]) != self._have
            or self._state.total_bytes not in {None, total}
            or (tag and self._state.validator not in {"", tag})
        ):
            self.reset()
            raise AgainError("the server sent a different range than requested")
        return total

    def _begin(self, answer: Answer, total: int | None) -> None:
        if total is not None and total > self._most_bytes:
            size, most = two_sizes(total, self._most_bytes)
            self._refuse(f"has {size}, more than {most}")
        _refuse_small_disk(self._part.parent, (total or 0) - self._have)
        validator = _validator(answer) or self._state.validator
        gzipped = answer.header("Content-Encoding").lower() in {"gzip", "x-gzip"}
        self._note(PartState(address_digest(self._url), validator, total, gzipped))

    def _refuse(self, what: str) -> NoReturn:
        self.reset()
        raise SourceError(
            f"{redacted(self._url)} {what}", "check the URL: this is not the expected image"
        )

    def _take(self, file: BinaryIO, piece: bytes, total: int | None) -> None:
        most = self._most_bytes if total is None else total
        if self._have + len(piece) > most:
            self._refuse(f"sends more than {most} bytes")
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


# ---- headers


def _validator(answer: Answer) -> str:
    """Return a value for If-Range: a strong ETag or a date (RFC 9110, 13.1.5)."""
    tag, date = answer.header("ETag"), answer.header("Last-Modified")
    if _STRONG_TAG.fullmatch(tag):
        return tag
    return date if _DATE.fullmatch(date) else ""


# ---- retries


def patiently(
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
        except AgainError as error:
            now = progress()
            moved = now - best >= LEAST_PROGRESS_BYTES
            failures = error.cost if moved else failures + error.cost
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
