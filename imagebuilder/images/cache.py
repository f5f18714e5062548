"""Base images kept by content: `images/<sha256>.img`, 0444, complete or not there at all."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import platformdirs

from imagebuilder.errors import InputError, SourceError
from imagebuilder.files import allocated_bytes, hand_over, is_disk_full, make_folder, write_file
from imagebuilder.images.sparse import hash_file
from imagebuilder.progress import SILENT, Reporter

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

Checked = Literal["given", "publisher", "raw", "none"]
SHORTEST_DIGEST = 8

# A URL and a path, and some digests.
LARGEST_RECORD_BYTES = 1 << 16
_ROOM_HINT = "set RPI_IMAGE_CACHE to a folder you can write to, on a disk with room"


@dataclass(frozen=True, slots=True)
class Record:
    """What is known of one download and the image it held.

    `checked` says what its digest was compared with; `in_place` is the user's own raw file.
    """

    name: str
    origin: str
    source_sha256: str
    source_bytes: int
    raw_sha256: str
    raw_bytes: int
    checked: Checked
    in_place: str = ""


@dataclass(frozen=True, slots=True)
class Cached:
    """An image of the cache as `cache list` shows it; `used_bytes` is what it takes on disk."""

    sha256: str
    path: Path
    size_bytes: int
    used_bytes: int
    names: tuple[str, ...]
    origins: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Cleaned:
    """What a cleaning removed, or would remove."""

    images: tuple[Cached, ...]
    freed_bytes: int


def default_folder() -> Path:
    """Return the platform's cache folder for this program."""
    return platformdirs.user_cache_path("rpi-image", appauthor=False)


def file_key(path: Path) -> str:
    """Name a local file by path, size, time and inode: what changes when its content does."""
    real = path.resolve()
    status = real.stat()
    return f"file {status.st_size} {status.st_mtime_ns} {status.st_ino} {real}"


class Cache:
    """The folder of base images; every method that writes is safe beside other processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._images = folder / "images"
        self._records = folder / "records"
        self._parts = folder / "parts"
        self._locks = folder / "locks"

    def image_path(self, raw_sha256: str) -> Path:
        """Return where the image of that digest lies or would lie."""
        return self._images / f"{raw_sha256}.img"

    def part_path(self, key: str, suffix: str) -> Path:
        """Return where unfinished work on `key` lies: the same path in every run, to be resumed."""
        return self._parts / f"{_hashed(key)}.{suffix}.part"

    def find(self, key: str) -> Record | None:
        """Return what is remembered under `key`, where the image is still there in full size."""
        record = _load_record(self._records / f"{_hashed(key)}.json")
        if record is None:
            return None
        try:
            complete = self.path_of(record).stat().st_size == record.raw_bytes
        except OSError:
            return None
        return record if complete else None

    def path_of(self, record: Record) -> Path:
        """Return where the raw image of a record lies."""
        return Path(record.in_place) if record.in_place else self.image_path(record.raw_sha256)

    def remember(self, keys: Iterable[str], record: Record) -> None:
        """Write a record under each of `keys`."""
        with self._writable():
            make_folder(self._records)
            text = json.dumps(asdict(record), indent=2, ensure_ascii=False) + "\n"
            for key in keys:
                write_file(self._records / f"{_hashed(key)}.json", text.encode())

    def adopt(self, part: Path, raw_sha256: str) -> Path:
        """Return a finished, fsynced part its final name, read-only."""
        final = self.image_path(raw_sha256)
        with self._writable():
            make_folder(self._images)
            part.chmod(0o444)
            hand_over(part)
            part.replace(final)
            _sync_folder(self._images)
        return final

    @contextlib.contextmanager
    def lock(self, key: str, reporter: Reporter = SILENT) -> Iterator[None]:
        """Hold `key` against other processes; a killed holder lets go of it."""
        import filelock  # noqa: PLC0415 - a raw image is used where it lies

        with self._writable():
            for folder in (self._locks, self._parts):
                make_folder(folder)
            lock = filelock.FileLock(self._locks / f"{_hashed(key)}.lock")
            try:
                lock.acquire(timeout=0)
            except filelock.Timeout:
                reporter.note("waiting for another rpi-image that works on the same image")
                lock.acquire()
            hand_over(Path(lock.lock_file))
        try:
            yield
        finally:
            lock.release()

    def listing(self) -> tuple[Cached, ...]:
        """Return the images there are, by name."""
        records = [record for _, record in self._all_records()]
        with self._writable():
            found = [
                _cached(path, [r for r in records if r.raw_sha256 == path.stem and not r.in_place])
                for path in self._entries(self._images, ".img")
            ]
        return tuple(sorted(found, key=lambda image: (image.names, image.sha256)))

    def leftovers(self) -> tuple[Path, ...]:
        """Return the parts of downloads and unpackings that did not end."""
        return tuple(self._entries(self._parts))

    def leftover_bytes(self) -> int:
        """Return what the unfinished parts take on disk."""
        with self._writable():
            return sum(allocated_bytes(part.stat()) for part in self.leftovers())

    def remove(self, image: Cached) -> None:
        """Remove an image and what is remembered of it."""
        with self._writable():
            for path, record in self._all_records():
                if record.raw_sha256 == image.sha256:
                    path.unlink(missing_ok=True)
            image.path.unlink(missing_ok=True)

    def remove_leftovers(self) -> None:
        """Remove unfinished parts nobody works on."""
        import filelock  # noqa: PLC0415 - as above

        for part in self.leftovers():
            lock = filelock.FileLock(self._locks / f"{part.name.partition('.')[0]}.lock")
            with self._writable(), contextlib.suppress(filelock.Timeout), lock.acquire(timeout=0):
                part.unlink(missing_ok=True)

    def clean(
        self, which: Sequence[str] = (), *, unfinished_only: bool = False, dry_run: bool = False
    ) -> Cleaned:
        """Remove the images named; without names all of them, and what unfinished runs left."""
        images = () if unfinished_only else choose_cached(self.listing(), which)
        freed = sum(image.used_bytes for image in images)
        freed += 0 if which else self.leftover_bytes()
        if not dry_run:
            for image in images:
                self.remove(image)
            if not which:
                self.remove_leftovers()
        return Cleaned(images, freed)

    @contextlib.contextmanager
    def scratch(self, key: str, reporter: Reporter = SILENT) -> Iterator[Path]:
        """Return a path for a file that goes away; of a killed run it is a leftover.

        It lies beside the images, for /tmp is often too small for one.
        """
        with self.lock(key, reporter):
            part = self.part_path(key, "scratch")
            try:
                yield part
            finally:
                part.unlink(missing_ok=True)

    def is_intact(self, image: Cached, reporter: Reporter = SILENT) -> bool:
        """Read an image again and compare it with the digest it is named by."""
        label = f"verifying {', '.join(image.names) or image.sha256[:12]}"
        return hash_file(image.path, label, reporter).sha256 == image.sha256

    def verify(
        self, which: Sequence[str] = (), reporter: Reporter = SILENT
    ) -> list[tuple[Cached, bool]]:
        """Read the images named, all without names, and tell of each whether it is intact."""
        chosen = choose_cached(self.listing(), which)
        return [(image, self.is_intact(image, reporter)) for image in chosen]

    def _all_records(self) -> Iterator[tuple[Path, Record]]:
        for path in self._entries(self._records, ".json"):
            record = _load_record(path)
            if record is not None:
                yield path, record

    def _entries(self, folder: Path, suffix: str = "") -> list[Path]:
        """Return what lies in a folder; one that is not there yet holds nothing."""
        with self._writable(), contextlib.suppress(FileNotFoundError):
            return sorted(path for path in folder.iterdir() if path.name.endswith(suffix))
        return []

    @contextlib.contextmanager
    def _writable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            what = "is full" if is_disk_full(error) else f"fails: {error.strerror}"
            raise SourceError(f"the cache {self.folder} {what}", _ROOM_HINT) from error


def refuse_damaged(verified: Sequence[tuple[Cached, bool]]) -> None:
    """Raise SourceError where images of the cache are damaged."""
    if bad := [image.sha256[:16] for image, intact in verified if not intact]:
        raise SourceError(
            f"{len(bad)} of {len(verified)} cached images are damaged",
            f"run `rpi-image cache clean {' '.join(bad)}` and fetch them again",
        )


def choose_cached(images: Sequence[Cached], which: Sequence[str]) -> tuple[Cached, ...]:
    """Return the images named by name or first digits of the digest; all where none is named."""
    chosen = tuple(i for i in images if not which or any(_is_called(i, word) for word in which))
    missing = [word for word in which if not any(_is_called(i, word) for i in images)]
    if missing:
        raise InputError(
            f"not in the cache: {', '.join(missing)}", "see `rpi-image cache list` for what is"
        )
    return chosen


def _is_called(image: Cached, word: str) -> bool:
    return word in image.names or (
        len(word) >= SHORTEST_DIGEST and image.sha256.startswith(word.lower())
    )


def _hashed(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def _load_record(path: Path) -> Record | None:
    """Read a record; one that is damaged or of another version counts as absent."""
    try:
        with path.open("rb") as file:
            known = json.loads(file.read(LARGEST_RECORD_BYTES))
        record = Record(**{f.name: known[f.name] for f in fields(Record)})
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    # None of them is other than a text or a number of bytes.
    sound = all(
        type(v) is (int if k.endswith("_bytes") else str) for k, v in asdict(record).items()
    )
    return record if sound and "\0" not in record.in_place else None


def _cached(path: Path, records: list[Record]) -> Cached:
    status = path.stat()
    return Cached(
        sha256=path.stem,
        path=path,
        size_bytes=status.st_size,
        used_bytes=allocated_bytes(status),
        names=tuple(sorted({record.name for record in records})),
        origins=tuple(sorted({record.origin for record in records})),
    )


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
