"""The cache of base images by content: `images/<sha256>.img`, mode 0444, always complete."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
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

# A record has a URL, a path and some digests.
LARGEST_RECORD_BYTES = 1 << 16
_ROOM_HINT = "set RPI_IMAGE_CACHE to a writable folder on a disk with enough space"


@dataclass(frozen=True, slots=True)
class Record:
    """The record of one download and the image in it.

    `checked` is the source of the digest it was compared with; `in_place` is the user's raw file.
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
    """An image in the cache; `used_bytes` is its space on disk."""

    sha256: str
    path: Path
    size_bytes: int
    used_bytes: int
    names: tuple[str, ...]
    origins: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Cleaned:
    """The images and bytes that were removed, or would be."""

    images: tuple[Cached, ...]
    freed_bytes: int


def default_folder() -> Path:
    """Return the cache folder of this program on this platform."""
    return platformdirs.user_cache_path("rpi-image", appauthor=False)


def file_key(path: Path) -> str:
    """Return a key of a local file that changes with its content: path, size, time and inode."""
    real = path.resolve()
    status = real.stat()
    return f"file {status.st_size} {status.st_mtime_ns} {status.st_ino} {real}"


class Cache:
    """The folder of base images, safe for several processes.

    Methods raise SourceError if the folder cannot be read or written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._images = folder / "images"
        self._records = folder / "records"
        self._parts = folder / "parts"
        self._locks = folder / "locks"
        self._packages = folder / "packages"
        self._lists = folder / "apt"

    def image_path(self, raw_sha256: str) -> Path:
        """Return the path of the image with a digest, whether it exists or not."""
        return self._images / f"{raw_sha256}.img"

    def package_path(self, sha256: str) -> Path:
        """Return the path of the Debian package with a digest, whether it exists or not."""
        return self._packages / f"{sha256}.deb"

    def has_package(self, sha256: str) -> bool:
        """Return whether a Debian package is here; it was checked when it came."""
        return self.package_path(sha256).is_file()

    @property
    def has_packages(self) -> bool:
        """Return whether there is any Debian package."""
        return self._packages.is_dir() and any(self._packages.iterdir())

    def lists_of(self, raw_sha256: str) -> Path:
        """Return the folder for apt's lists of an image."""
        return self._lists / raw_sha256

    def part_path(self, key: str, suffix: str) -> Path:
        """Return the path of unfinished work on `key`; constant, so that it can be resumed."""
        return self._parts / f"{_hashed(key)}.{suffix}.part"

    def find(self, key: str) -> Record | None:
        """Return the record of `key` if its image still exists in full size, else None."""
        record = _load_record(self._records / f"{_hashed(key)}.json")
        if record is None:
            return None
        try:
            complete = self.path_of(record).stat().st_size == record.raw_bytes
        except OSError:
            return None
        return record if complete else None

    def path_of(self, record: Record) -> Path:
        """Return the path of the raw image of a record."""
        return Path(record.in_place) if record.in_place else self.image_path(record.raw_sha256)

    def remember(self, keys: Iterable[str], record: Record) -> None:
        """Write a record under each of `keys`."""
        with self._writable():
            make_folder(self._records)
            text = json.dumps(asdict(record), indent=2, ensure_ascii=False) + "\n"
            for key in keys:
                write_file(self._records / f"{_hashed(key)}.json", text.encode())

    def adopt(self, part: Path, raw_sha256: str) -> Path:
        """Rename a finished, synced part to its final name, make it read-only; return its path."""
        return self._adopt(part, self.image_path(raw_sha256))

    def adopt_package(self, part: Path, sha256: str) -> Path:
        """Rename a checked Debian package to its final name; return its path."""
        return self._adopt(part, self.package_path(sha256))

    def _adopt(self, part: Path, final: Path) -> Path:
        with self._writable():
            make_folder(final.parent)
            part.chmod(0o444)
            hand_over(part)
            part.replace(final)
            _sync_folder(final.parent)
        return final

    def package_bytes(self) -> int:
        """Return the space on disk of Debian packages and apt's lists."""
        with self._writable():
            files = (path for folder in (self._packages, self._lists) for path in folder.rglob("*"))
            return sum(allocated_bytes(path.lstat()) for path in files if not path.is_dir())

    def remove_packages(self) -> None:
        """Remove all Debian packages and apt's lists."""
        with self._writable():
            for folder in (self._packages, self._lists):
                if folder.exists():
                    shutil.rmtree(folder)

    @contextlib.contextmanager
    def lock(self, key: str, reporter: Reporter = SILENT) -> Iterator[None]:
        """Lock `key` against other processes; the lock of a killed process is released."""
        import filelock  # noqa: PLC0415 - slow, not needed for a raw file

        with self._writable():
            for folder in (self._locks, self._parts):
                make_folder(folder)
            lock = filelock.FileLock(self._locks / f"{_hashed(key)}.lock")
            try:
                lock.acquire(timeout=0)
            except filelock.Timeout:
                reporter.note("waiting for another rpi-image that uses the same image")
                lock.acquire()
            hand_over(Path(lock.lock_file))
        try:
            yield
        finally:
            lock.release()

    def listing(self) -> tuple[Cached, ...]:
        """Return all images, sorted by name."""
        records = [record for _, record in self._all_records()]
        with self._writable():
            found = [
                _cached(path, [r for r in records if r.raw_sha256 == path.stem and not r.in_place])
                for path in self._entries(self._images, ".img")
            ]
        return tuple(sorted(found, key=lambda image: (image.names, image.sha256)))

    def leftovers(self) -> tuple[Path, ...]:
        """Return the files of unfinished downloads and unpacking."""
        return tuple(self._entries(self._parts))

    def leftover_bytes(self) -> int:
        """Return the space on disk of unfinished files."""
        with self._writable():
            return sum(allocated_bytes(part.stat()) for part in self.leftovers())

    def remove(self, image: Cached) -> None:
        """Remove an image and its records."""
        with self._writable():
            for path, record in self._all_records():
                if record.raw_sha256 == image.sha256:
                    path.unlink(missing_ok=True)
            image.path.unlink(missing_ok=True)

    def remove_leftovers(self) -> None:
        """Remove unfinished files that no process uses."""
        import filelock  # noqa: PLC0415 - as above

        for part in self.leftovers():
            lock = filelock.FileLock(self._locks / f"{part.name.partition('.')[0]}.lock")
            with self._writable(), contextlib.suppress(filelock.Timeout), lock.acquire(timeout=0):
                part.unlink(missing_ok=True)

    def clean(
        self, which: Sequence[str] = (), *, unfinished_only: bool = False, dry_run: bool = False
    ) -> Cleaned:
        """Remove the images `which`; by default all of them, and unfinished files."""
        images = () if unfinished_only else choose_cached(self.listing(), which)
        freed = sum(image.used_bytes for image in images)
        everything = not which and not unfinished_only
        freed += 0 if which else self.leftover_bytes()
        freed += self.package_bytes() if everything else 0
        if not dry_run:
            for image in images:
                self.remove(image)
            if not which:
                self.remove_leftovers()
            if everything:
                self.remove_packages()
        return Cleaned(images, freed)

    @contextlib.contextmanager
    def scratch(self, key: str, reporter: Reporter = SILENT) -> Iterator[Path]:
        """Yield a path for a temporary file; one of a killed run counts as unfinished.

        It is in the cache folder, because /tmp is often too small for an image.
        """
        with self.lock(key, reporter):
            part = self.part_path(key, "scratch")
            try:
                yield part
            finally:
                part.unlink(missing_ok=True)

    def is_intact(self, image: Cached, reporter: Reporter = SILENT) -> bool:
        """Return whether an image still has the digest in its name."""
        label = f"verifying {', '.join(image.names) or image.sha256[:12]}"
        return hash_file(image.path, label, reporter).sha256 == image.sha256

    def verify(
        self, which: Sequence[str] = (), reporter: Reporter = SILENT
    ) -> list[tuple[Cached, bool]]:
        """Return the images `which`, by default all, each with whether it is intact."""
        chosen = choose_cached(self.listing(), which)
        return [(image, self.is_intact(image, reporter)) for image in chosen]

    def _all_records(self) -> Iterator[tuple[Path, Record]]:
        for path in self._entries(self._records, ".json"):
            record = _load_record(path)
            if record is not None:
                yield path, record

    def _entries(self, folder: Path, suffix: str = "") -> list[Path]:
        """Return the files in a folder; none if it does not exist."""
        with self._writable(), contextlib.suppress(FileNotFoundError):
            return sorted(path for path in folder.iterdir() if path.name.endswith(suffix))
        return []

    @contextlib.contextmanager
    def _writable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            what = "is full" if is_disk_full(error) else f"failed: {error.strerror}"
            raise SourceError(f"the cache {self.folder} {what}", _ROOM_HINT) from error


def refuse_damaged(verified: Sequence[tuple[Cached, bool]]) -> None:
    """Raise SourceError if any of the images is damaged."""
    if bad := [image.sha256[:16] for image, intact in verified if not intact]:
        raise SourceError(
            f"{len(bad)} of {len(verified)} cached images are damaged",
            f"run `rpi-image cache clean {' '.join(bad)}` and fetch them again",
        )


def choose_cached(images: Sequence[Cached], which: Sequence[str]) -> tuple[Cached, ...]:
    """Return the images with a name or digest prefix in `which`, by default all.

    Raise InputError if one is not in the cache.
    """
    chosen = tuple(i for i in images if not which or any(_is_called(i, word) for word in which))
    missing = [word for word in which if not any(_is_called(i, word) for i in images)]
    if missing:
        raise InputError(f"not in the cache: {', '.join(missing)}", "see `rpi-image cache list`")
    return chosen


def _is_called(image: Cached, word: str) -> bool:
    return word in image.names or (
        len(word) >= SHORTEST_DIGEST and image.sha256.startswith(word.lower())
    )


def _hashed(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def _load_record(path: Path) -> Record | None:
    """Return a record; None if it is damaged or of another version."""
    try:
        with path.open("rb") as file:
            known = json.loads(file.read(LARGEST_RECORD_BYTES))
        record = Record(**{f.name: known[f.name] for f in fields(Record)})
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    # All fields are texts, except sizes.
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
