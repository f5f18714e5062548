"""Published lists from nginx and from a server that misbehaves, and their snapshots."""

from __future__ import annotations

import json
import stat
from typing import TYPE_CHECKING

import pytest

from imagebuilder.errors import SourceError
from imagebuilder.images import list_snapshot
from imagebuilder.images.cache import Cache
from imagebuilder.images.deadline import Patience
from imagebuilder.images.list_snapshot import (
    MOST_LISTS,
    ListSnapshot,
    age_in_words,
    fetch_snapshot,
    load_snapshot,
    safe_target,
)
from imagebuilder.images.os_list import LARGEST_LIST_BYTES
from tests.lib.archives import Recorder
from tests.lib.published_lists import listed, write_list
from tests.lib.webserver import Page, Site, free_port, misbehaving, nginx, without_proxies

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HASTY = Patience(attempts=2, connect_seconds=2.0, read_seconds=2.0, pause_seconds=0.01)


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


@pytest.fixture
def said() -> Recorder:
    return Recorder()


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    without_proxies(monkeypatch)
    with misbehaving() as site:
        yield site


def page(*entries: object, **more: object) -> Page:
    return Page(json.dumps({"os_list": entries, **more}).encode())


def names(snapshot: ListSnapshot) -> list[str]:
    return [entry["name"] for page in snapshot.parsed() for entry in page.entries]


def test_a_list_that_has_not_changed_is_not_sent_again(
    tmp_path: Path, cache: Cache, said: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_proxies(monkeypatch)
    (tmp_path / "web").mkdir()
    path = write_list(tmp_path / "web" / "list.json", listed(name="one"))
    with nginx(tmp_path / "web", tmp_path / "nginx") as server:
        url = f"{server.url}/list.json"
        first = fetch_snapshot(url, cache, said, HASTY)
        second = fetch_snapshot(url, cache, said, HASTY)
        write_list(path, listed(name="one"), listed(name="two"))
        third = fetch_snapshot(url, cache, said, HASTY)
        answers = [request.split()[3] for request in server.requests()]
    assert (names(first), names(second), names(third)) == (["one"], ["one"], ["one", "two"])
    assert answers == ["200", "304", "200"]
    assert load_snapshot(url, cache) == third
    assert said.warnings == []


def test_a_snapshot_is_for_its_owner_alone(site: Site, cache: Cache, said: Recorder) -> None:
    """Its URL may hold a password."""
    site.pages["/l.json"] = page()
    fetch_snapshot(f"{site.url}/l.json", cache, said, HASTY)
    (path,) = (cache.folder / "lists").iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


BAD = {
    "not found": Page(b"", status=404),
    "not JSON": Page(b"<html>please log in</html>"),
    "another form": Page(b'{"images": []}'),
    "broken": Page(b"", status=503),
    "too deep": Page(b"[" * 100_000),
    "too large": Page(b" " * (LARGEST_LIST_BYTES + 1)),
    "cut off": Page(b'{"os_list": [' + b" " * 5000, cuts=[100, 100]),
}


@pytest.mark.parametrize("case", BAD)
def test_the_last_good_list_is_used_with_its_age(
    case: str, site: Site, cache: Cache, said: Recorder
) -> None:
    url = f"{site.url}/l.json"
    site.pages["/l.json"] = page(listed(name="kept"))
    fetch_snapshot(url, cache, said, HASTY)
    site.pages["/l.json"] = BAD[case]
    found = fetch_snapshot(url, cache, said, HASTY)
    assert (names(found), found.stale) == (["kept"], True)
    (warning,) = said.warnings
    assert warning.endswith("; the list of less than a minute ago is used")
    known = load_snapshot(url, cache)
    assert known is not None
    assert names(known) == ["kept"]


@pytest.mark.parametrize("case", BAD)
def test_without_a_snapshot_a_bad_list_is_an_error(
    case: str, site: Site, cache: Cache, said: Recorder
) -> None:
    site.pages["/l.json"] = BAD[case]
    with pytest.raises(SourceError) as caught:
        fetch_snapshot(f"{site.url}/l.json", cache, said, HASTY)
    assert caught.value.hint
    assert not (cache.folder / "lists").exists()


def test_a_publisher_that_is_gone(cache: Cache, said: Recorder) -> None:
    url = f"http://127.0.0.1:{free_port()}/l.json"
    with pytest.raises(SourceError, match="refused the connection"):
        fetch_snapshot(url, cache, said, HASTY)


def test_lists_that_a_list_points_on_to_are_fetched_once(
    site: Site, cache: Cache, said: Recorder
) -> None:
    """Also in a circle, by relative and absolute URLs, and deep in a group."""
    site.pages["/a/l.json"] = page(
        {"name": "g", "subitems": [{"name": "x", "subitems_url": "more.json"}]},
        {"name": "again", "subitems_url": f"{site.url}/a/more.json"},
        listed(name="one"),
    )
    site.pages["/a/more.json"] = page(
        listed(name="two"),
        {"name": "circle", "subitems_url": "/a/l.json"},
        {"name": "itself", "subitems_url": "more.json"},
    )
    found = fetch_snapshot(f"{site.url}/a/l.json", cache, said, HASTY)
    assert names(found) == ["one", "two"]
    assert sorted(path for path, _ in site.seen) == ["/a/l.json", "/a/more.json"]
    assert said.warnings == []


def test_lists_without_end_are_ended(site: Site, cache: Cache, said: Recorder) -> None:
    for i in range(MOST_LISTS + 20):
        site.pages[f"/{i}"] = page(listed(name=f"n{i}"), {"name": "x", "subitems_url": f"/{i + 1}"})
    found = fetch_snapshot(f"{site.url}/0", cache, said, HASTY)
    assert len(found.pages) == MOST_LISTS
    assert "too many lists" in found.notes[0]


def test_a_further_list_that_fails_is_skipped_or_its_last_state_is_used(
    site: Site, cache: Cache, said: Recorder
) -> None:
    url = f"{site.url}/l.json"
    site.pages["/l.json"] = page(listed(name="one"), {"name": "x", "subitems_url": "more.json"})
    assert names(fetch_snapshot(url, cache, said, HASTY)) == ["one"]
    assert said.warnings[0].endswith("/more.json returned 404 Not Found; it is skipped")
    site.pages["/more.json"] = page(listed(name="two"))
    assert names(fetch_snapshot(url, cache, said, HASTY)) == ["one", "two"]
    site.pages["/more.json"] = Page(b"gone")
    found = fetch_snapshot(url, cache, said, HASTY)
    assert (names(found), found.stale) == (["one", "two"], False)
    assert said.warnings[1].endswith("; its last state is used")


@pytest.mark.parametrize(
    "link", ["file:///etc/passwd", "ftp://h/l.json", "http://[::1/x", "data:,x", "internal:x"]
)
def test_a_list_is_not_read_from_elsewhere(
    link: str, site: Site, cache: Cache, said: Recorder
) -> None:
    site.pages["/l.json"] = page(listed(name="one"), {"name": "x", "subitems_url": link})
    found = fetch_snapshot(f"{site.url}/l.json", cache, said, HASTY)
    assert (names(found), len(found.notes), len(site.seen)) == (["one"], 1, 1)


def test_a_list_over_https_is_not_continued_over_http() -> None:
    """The digests of images are in it."""
    secure = "https://example.org/a/l.json"
    assert safe_target(secure, "http://example.org/b.json") == ""
    assert safe_target(secure, "b.json") == "https://example.org/a/b.json"
    assert safe_target("http://h/l.json", "https://h/b.json") == "https://h/b.json"
    assert safe_target("/home/ann/l.json", "http://h/b.json") == "http://h/b.json"
    assert safe_target("/home/ann/l.json", "/etc/passwd") == ""


def test_a_file_is_read_again_and_kept(tmp_path: Path, cache: Cache, said: Recorder) -> None:
    path = write_list(tmp_path / "list.json", listed(name="one"), {"subitems_url": "more.json"})
    found = fetch_snapshot(str(path), cache, said, HASTY)
    assert (names(found), len(found.notes)) == (["one"], 1)
    write_list(path, listed(name="two"))
    assert names(fetch_snapshot(str(path), cache, said, HASTY)) == ["two"]
    path.unlink()
    assert names(fetch_snapshot(str(path), cache, said, HASTY)) == ["two"]
    assert "the list of less than a minute ago is used" in said.warnings[0]


@pytest.mark.parametrize("name", ["gone.json", ".", "/dev/zero", "/proc/self/maps"])
def test_a_file_that_is_not_one(name: str, tmp_path: Path, cache: Cache, said: Recorder) -> None:
    with pytest.raises(SourceError) as caught:
        fetch_snapshot(str(tmp_path / name), cache, said, HASTY)
    assert caught.value.exit_code == 4


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '{"place": 7}', '{"place": "P", "fetched": 1, "pages": [{"place": 1}]}',
     '{"place": "P", "fetched": "x", "pages": []}', '{"place": "P", "fetched": 1, "pages": []}',
     '{"place": "P", "fetched": 1, "pages": [{"place": "P", "text": "x", "etag": ""}]}'],
)  # fmt: skip
def test_a_damaged_snapshot_is_fetched_again(
    text: str, site: Site, cache: Cache, said: Recorder
) -> None:
    url = f"{site.url}/l.json"
    site.pages["/l.json"] = page(listed(name="one"))
    fetch_snapshot(url, cache, said, HASTY)
    (path,) = (cache.folder / "lists").iterdir()
    path.write_text(text.replace('"P"', json.dumps(url)))
    assert load_snapshot(url, cache) is None
    assert names(fetch_snapshot(url, cache, said, HASTY)) == ["one"]
    assert load_snapshot(url, cache) is not None


def test_the_shipped_list_serves_until_one_was_fetched(
    tmp_path: Path, cache: Cache, said: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`make snapshot` copies what the cache has."""
    path = write_list(tmp_path / "list.json", listed(name="shipped"))
    place = str(path)
    fetch_snapshot(place, cache, said, HASTY)
    (stored,) = (cache.folder / "lists").iterdir()
    (tmp_path / "profiles").mkdir()
    stored.rename(tmp_path / "profiles" / "published.json")
    monkeypatch.setattr(list_snapshot, "shipped_folder", lambda name: tmp_path / name)
    path.unlink()
    known = fetch_snapshot(place, cache, said, HASTY)
    assert (names(known), known.stale) == (["shipped"], True)
    assert load_snapshot(f"{place}.other", cache) is None
    write_list(path, listed(name="fetched"))
    fetch_snapshot(place, cache, said, HASTY)
    fetched = load_snapshot(place, cache)
    assert fetched is not None
    assert names(fetched) == ["fetched"]


def test_a_list_is_used_where_the_cache_cannot_be_written(
    site: Site, tmp_path: Path, said: Recorder
) -> None:
    (tmp_path / "file").touch()
    site.pages["/l.json"] = page(listed(name="one"))
    found = fetch_snapshot(f"{site.url}/l.json", Cache(tmp_path / "file"), said, HASTY)
    assert names(found) == ["one"]
    assert said.warnings[0].startswith("the list is not kept: ")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "less than a minute"), (59, "less than a minute"), (60, "1 minute"), (7199, "1 hour"),
        (7200, "2 hours"), (86_400, "1 day"), (864_000, "10 days"),
    ],
)  # fmt: skip
def test_an_age_in_words(seconds: int, words: str) -> None:
    assert age_in_words(seconds) == words
