"""Fetch a published list of images, and keep its last good state in the cache.

A list may point on to further lists; all of them are one snapshot. Each is asked for with its ETag,
so that an unchanged one is not sent again.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from imagebuilder.errors import SettingsError, SourceError
from imagebuilder.files import has_file, read_file, write_error, write_in_folder
from imagebuilder.images.checksums import redacted
from imagebuilder.images.deadline import Patience
from imagebuilder.images.foreign import foreign
from imagebuilder.images.os_list import LARGEST_LIST_BYTES, ListPage, parse_list
from imagebuilder.resources import shipped_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imagebuilder.images.cache import Cache
    from imagebuilder.images.http_client import Client
    from imagebuilder.progress import Reporter

MOST_LISTS = 50  # lists that a published list points on to
LONGEST_WALK_SECONDS = 120.0  # for all lists of one catalogue
LARGEST_SNAPSHOT_BYTES = 64 << 20  # a list with all that it points on to

# A list is small, and there is a snapshot: less patience than for an image.
QUICK = Patience(attempts=2, connect_seconds=5.0, read_seconds=15.0, pause_seconds=0.5)
SHIPPED = "published.json"
_ENTITY_TAG = re.compile(r'(?:W/)?"[!#-~]{0,512}"')  # RFC 9110, 8.8.3


@dataclass(frozen=True, slots=True)
class StoredPage:
    """One list as it was sent."""

    place: str
    text: str = field(repr=False)
    etag: str = ""


@dataclass(frozen=True, slots=True)
class ListSnapshot:
    """A list, and those that it points on to; `fetched` is in seconds since 1970.

    With `stale`, the list could not be fetched now. `notes` say what was skipped.
    """

    place: str
    fetched: int
    pages: tuple[StoredPage, ...]
    stale: bool = False
    notes: tuple[str, ...] = ()

    @property
    def shown(self) -> str:
        """The URL without secrets, or the path."""
        return redacted(self.place) if _is_url(self.place) else self.place

    def age_seconds(self) -> int:
        """Return how old the list is; 0 if the clock was set back."""
        return max(0, int(time.time()) - self.fetched)

    def parsed(self) -> tuple[ListPage, ...]:
        """Return the content of all lists."""
        return tuple(parse_list(page.text.encode(), self.shown) for page in self.pages)


def age_in_words(seconds: int) -> str:
    """Return an age in the largest fitting unit, for example `3 days`."""
    for name, size in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds >= size:
            count = seconds // size
            return f"{count} {name}{'s' if count > 1 else ''}"
    return "less than a minute"


def _is_url(place: str) -> bool:
    return re.match(r"https?://", place, re.IGNORECASE) is not None


# ---- in the cache


def load_snapshot(place: str, cache: Cache) -> ListSnapshot | None:
    """Return the last good state of a list, without network; None if there is none.

    For a list that was never fetched this is the shipped one, if the program has one of it.
    """
    for path in (_path(place, cache), shipped_folder("profiles") / SHIPPED):
        found = _stored(path) if has_file(path) else None
        if found and found.place == place:
            return found
    return None


def _path(place: str, cache: Cache) -> Path:
    name = hashlib.sha256(place.encode("utf-8", "surrogateescape")).hexdigest()[:32]
    return cache.folder / "lists" / f"{name}.json"


def _stored(path: Path) -> ListSnapshot | None:
    """Return a stored snapshot; None if it is damaged or of another version."""
    try:
        known = json.loads(read_file(path, "list", LARGEST_SNAPSHOT_BYTES))
        pages = tuple(StoredPage(**page) for page in known["pages"])
        found = ListSnapshot(known["place"], known["fetched"], pages)
        sound = all(type(text) is str for page in pages for text in asdict(page).values())
        if not (sound and type(found.fetched) is int and found.parsed()):
            return None
    except (SettingsError, SourceError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return found


def _store(snapshot: ListSnapshot, cache: Cache) -> None:
    """Write a snapshot; readable by its owner alone, because a URL may have a password."""
    kept = {"place": snapshot.place, "fetched": snapshot.fetched}
    text = json.dumps({**kept, "pages": [asdict(page) for page in snapshot.pages]})
    path = _path(snapshot.place, cache)
    try:
        write_in_folder(path, text.encode(), 0o600)
    except OSError as error:
        raise SourceError(
            write_error(path, error).message, "set RPI_IMAGE_CACHE to a writable folder"
        ) from error


# ---- from the publisher


def fetch_snapshot(
    place: str,
    cache: Cache,
    reporter: Reporter,
    patience: Patience = QUICK,
    *,
    allow_http: bool = False,
) -> ListSnapshot:
    """Return a list by URL or path, as it is now, and keep it in the cache.

    If that fails, warn and return its last good state. Raise SourceError if there is none.
    """
    known = load_snapshot(place, cache)
    try:
        found = _fetched(place, known, reporter, patience, allow_http=allow_http)
    except SourceError as error:
        if known is None:
            raise
        reporter.warn(
            f"{error.message}; the list of {age_in_words(known.age_seconds())} ago is used"
        )
        return replace(known, stale=True)
    try:
        _store(found, cache)
    except SourceError as error:
        reporter.warn(f"the list is not kept: {error.message}")
    return found


def _fetched(
    place: str,
    known: ListSnapshot | None,
    reporter: Reporter,
    patience: Patience,
    *,
    allow_http: bool,
) -> ListSnapshot:
    pages = {page.place: page for page in known.pages} if known else {}
    with ExitStack() as opened:
        fetcher = _Fetcher(opened, reporter, patience, allow_http, pages)
        fetcher.run(place)
    return ListSnapshot(
        place, int(time.time()), tuple(fetcher.found.values()), notes=tuple(fetcher.notes)
    )


@dataclass
class _Fetcher:
    """The lists found so far, each once, so that a circle of lists ends."""

    opened: ExitStack
    reporter: Reporter
    patience: Patience
    allow_http: bool
    known: dict[str, StoredPage]
    found: dict[str, StoredPage] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    parsed: dict[str, ListPage] = field(default_factory=dict)

    @cached_property
    def client(self) -> Client:
        """The connections, made when a list is not a file."""
        # HTTP takes a third of a start.
        from imagebuilder.images.http_client import Client  # noqa: PLC0415

        client = Client(self.patience, self.reporter, allow_http=self.allow_http)
        return self.opened.enter_context(client)

    def run(self, place: str) -> None:
        """Fetch the list at `place` and those that it points on to.

        Raise SourceError if the first one fails; another one is replaced by its last state.
        """
        ends = time.monotonic() + LONGEST_WALK_SECONDS
        self.found[place] = self._page(place)
        waiting = list(self._links(self.found[place]))
        asked = {place}
        while waiting:
            link = waiting.pop(0)
            if link in asked:
                continue
            asked.add(link)
            if len(asked) > MOST_LISTS or time.monotonic() > ends or self._size() > _ROOM_BYTES:
                self.notes.append("the list points on to too many lists: the rest is skipped")
                return
            if page := self._further(link):
                self.found[link] = page
                waiting += self._links(page)

    def _size(self) -> int:
        return sum(len(page.text) for page in self.found.values())

    def _links(self, page: StoredPage) -> Iterator[str]:
        """Yield the URLs of further lists; those that are not safe to follow are noted."""
        for link in self.parsed[page.place].links:
            target = safe_target(page.place, link)
            if target:
                yield target
            else:
                self.notes.append("a list is skipped: its URL is not http or https, or not secure")

    def _further(self, link: str) -> StoredPage | None:
        try:
            return self._page(link)
        except SourceError as error:
            kept = self.known.get(link)
            what = "its last state is used" if kept else "it is skipped"
            self.reporter.warn(f"{error.message}; {what}")
        if kept:
            self.parsed[link] = parse_list(kept.text.encode(), redacted(link))
        return kept

    def _page(self, place: str) -> StoredPage:
        """Return a list that can be parsed. Raise SourceError otherwise."""
        page = self._download(place) if _is_url(place) else _read(Path(place))
        shown = redacted(place) if _is_url(place) else place
        self.parsed[place] = parse_list(page.text.encode(), shown)
        return page

    def _download(self, url: str) -> StoredPage:
        from imagebuilder.images.download import patiently  # noqa: PLC0415 - as above

        hint = "check the URL of the list"
        with foreign(SourceError, f"the response of {redacted(url)}", hint):
            return patiently(
                lambda: self._answer(url), lambda: 0, redacted(url), self.reporter, self.patience
            )

    def _answer(self, url: str) -> StoredPage:
        known = self.known.get(url)
        headers = {"If-None-Match": known.etag} if known and known.etag else {}
        with self.client.get(url, headers) as answer:
            if known and headers and answer.status == HTTPStatus.NOT_MODIFIED:
                return known
            answer.refuse_status()
            data = answer.read(LARGEST_LIST_BYTES)
            etag = answer.header("ETag")
        if data is None:
            raise _too_large(redacted(url))
        tag = etag if _ENTITY_TAG.fullmatch(etag) else ""
        return StoredPage(url, data.decode("utf-8-sig", "replace"), tag)


# A last page of full size still fits into a snapshot, also where JSON needs more letters.
_ROOM_BYTES = LARGEST_SNAPSHOT_BYTES // 2 - LARGEST_LIST_BYTES


def _read(path: Path) -> StoredPage:
    try:
        data = read_file(path, "list", LARGEST_LIST_BYTES)
    except SettingsError as error:
        raise SourceError(error.message, "check the path of the list") from None
    return StoredPage(str(path), data.decode("utf-8-sig", "replace"))


def _too_large(what: str) -> SourceError:
    return SourceError(
        f"{what} is not a list of images: it is over {LARGEST_LIST_BYTES >> 20} MiB",
        "check the URL of the list",
    )


def safe_target(place: str, link: str) -> str:
    """Return the URL of a further list; empty if it is not safe to follow.

    The digests of images are in the list, so it must not come from http if the first is https.
    """
    try:
        url = urljoin(place, link) if _is_url(place) else link
        parts = urlsplit(url)
        if not parts.hostname or not url.isascii() or re.search(r"\s", url):
            return ""
    except ValueError:
        return ""
    secure = parts.scheme == "https" or (parts.scheme == "http" and not place.startswith("https"))
    return url if secure else ""
