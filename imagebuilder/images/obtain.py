"""Obtain a base image: from the cache, a local file or a URL."""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from imagebuilder.disk.boot_sector import has_signature
from imagebuilder.errors import ImageError, RpiImageError, SourceError
from imagebuilder.files import has_file
from imagebuilder.images.archives.formats import is_compressed
from imagebuilder.images.archives.unpack import open_stream
from imagebuilder.images.cache import Cache, Checked, Record, file_key
from imagebuilder.images.checksums import SUFFIX, parse_checksums, read_checksum_file, redacted
from imagebuilder.images.deadline import PATIENT, Patience
from imagebuilder.images.foreign import foreign
from imagebuilder.images.resume import forget
from imagebuilder.images.sparse import Written, hash_file, write_raw
from imagebuilder.model import SECTOR_BYTES, BaseImage, ImageSource
from imagebuilder.progress import SILENT, Reporter

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_BESIDE_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class _Expected:
    """The expected digest of a download, and its source."""

    sha256: str
    checked: Checked


@dataclass(frozen=True, slots=True)
class _Job:
    source: ImageSource
    cache: Cache
    reporter: Reporter
    patience: Patience


def find_cached(source: ImageSource, cache: Cache) -> BaseImage | None:
    """Return the base image if it is in the cache, else None; without network."""
    record = _find_record(source, cache)
    return _base_image(source, cache, record) if record else None


def find_unpacked(source: ImageSource, cache: Cache) -> Path | None:
    """Return the path of a raw image that is on this machine, checked or not; None without one."""
    if record := _find_record(source, cache):
        return cache.path_of(record)
    file = source.file
    return file if file and has_file(file) and not is_compressed(file) else None


def obtain_base(
    source: ImageSource, cache: Cache, reporter: Reporter = SILENT, patience: Patience = PATIENT
) -> BaseImage:
    """Return the base image: from the cache, the user's raw file, or downloaded and unpacked.

    Raise SourceError (network, checksum, cache) or ImageError (it is not an image).
    """
    with foreign(ImageError, source.name, "get it again: the file is damaged or malicious"):
        return _obtain(_Job(source, cache, reporter, patience))


def _obtain(job: _Job) -> BaseImage:
    source, cache = job.source, job.cache
    record = _find_record(source, cache)
    if record:
        _warn_of_beside(job, record.source_sha256)
        return _base_image(source, cache, record)
    return _from_file(job, source.file) if source.file else _from_url(job)


def fetch_base(
    source: ImageSource, cache: Cache, reporter: Reporter = SILENT
) -> tuple[BaseImage, bool]:
    """Return the base image, as `obtain_base`, and whether it was in the cache.

    Warn if nothing tells whether it is what its publisher offers; of the image of a class,
    settings.lint warns.
    """
    cached = find_cached(source, cache)
    pinned = bool(source.sha256 or source.raw_sha256 or source.file)
    if source.unchecked and not pinned and _is_unchecked(source, cache):
        reporter.warn(f"{source.name} is used without a checksum: it may be incomplete or modified")
    return obtain_base(source, cache, reporter), cached is not None


def _is_unchecked(source: ImageSource, cache: Cache) -> bool:
    record = _find_record(source, cache)
    return record is None or record.checked == "none"


def _find_record(source: ImageSource, cache: Cache) -> Record | None:
    key = _key(source)
    record = cache.find(key) if key else None
    return record if record and _acceptable(record, source) else None


def _warn_of_beside(job: _Job, sha256: str) -> None:
    """Warn if a local file is used although it does not match the checksum next to it."""
    source = job.source
    if source.unchecked and not _fits_beside(sha256, replace(source, unchecked=False)):
        job.reporter.warn(
            f"{source.name} is used unchecked: it does not match {source.name}{SUFFIX}"
        )


def _key(source: ImageSource) -> str:
    """Return the cache key of the source: a pinned digest, else the URL or the file."""
    if source.file is not None:
        return file_key(source.file) if has_file(source.file) else ""
    if source.sha256:
        return f"sha256 {source.sha256.lower()}"
    return f"raw {source.raw_sha256.lower()}" if source.raw_sha256 else f"url {source.url}"


def _acceptable(record: Record, source: ImageSource) -> bool:
    """Return whether a cached image passed the checks that the source requires now."""
    pinned = bool(source.sha256 or source.raw_sha256 or source.file)
    enough = pinned or source.unchecked or record.checked != "none"
    return enough and _fits(record, source) and _fits_beside(record.source_sha256, source)


def _fits_beside(sha256: str, source: ImageSource) -> bool:
    """Return whether a local file has the digest in the file next to it, if there is one."""
    if source.file is None:
        return True
    try:
        expected = _expected_of_file(source, source.file)
    except SourceError:
        # reported when the file is read
        return False
    return expected.sha256 in {"", sha256}


def _fits(record: Record, source: ImageSource) -> bool:
    """Return whether a record has the digests of the source."""
    given, raw = source.sha256.lower(), source.raw_sha256.lower()
    return given in {"", record.source_sha256} and raw in {"", record.raw_sha256}


def _base_image(source: ImageSource, cache: Cache, record: Record) -> BaseImage:
    return BaseImage(
        path=cache.path_of(record),
        sha256=record.raw_sha256,
        size_bytes=record.raw_bytes,
        name=source.name,
        source_sha256=record.source_sha256,
    )


# ---- a local file


def _from_file(job: _Job, path: Path) -> BaseImage:
    if not has_file(path):
        raise SourceError(_absence(path), job.source.hint or "check the path of the image")
    compressed = is_compressed(path)
    expected = _expected_of_file(job.source, path)
    found = hash_file(path, f"checking {path.name}", job.reporter)
    _compare(path.name, found.sha256, expected.sha256)
    _warn_of_beside(job, found.sha256)
    if compressed:
        return _from_archive(job, path.resolve(), found, expected.checked)
    _check_raw(job.source, found)
    with path.open("rb") as file:
        _refuse_no_disk(job.source, file.read(SECTOR_BYTES))
    record = _record(job.source, str(path.resolve()), found, found, expected.checked, in_place=path)
    _remember_quietly(job, record)
    return _base_image(job.source, job.cache, record)


def _absence(path: Path) -> str:
    try:
        path.stat()
    except FileNotFoundError:
        return f"no file {path}"
    except OSError as error:
        return f"cannot access {path}: {error.strerror}"
    return f"{path} is not a file"


def _expected_of_file(source: ImageSource, path: Path) -> _Expected:
    if source.sha256:
        return _Expected(source.sha256.lower(), "given")
    beside = path.with_name(path.name + SUFFIX)
    if source.unchecked or not has_file(beside):
        return _Expected("", "none")
    text = read_checksum_file(beside)
    return _Expected(parse_checksums(text, {path.name}, str(beside)), "publisher")


def _remember_quietly(job: _Job, record: Record) -> None:
    """Store the record to avoid hashing again; only note if the cache cannot be written."""
    try:
        job.cache.remember([_key(job.source)], record)
    except SourceError as error:
        job.reporter.note(f"{error.message}; {job.source.name} will be read again next time")


def _from_archive(job: _Job, path: Path, found: Written, checked: Checked) -> BaseImage:
    record = _unpacked(job, path, str(path), found, checked)
    job.cache.remember([_key(job.source)], record)
    return _base_image(job.source, job.cache, record)


# ---- a URL


def _from_url(job: _Job) -> BaseImage:
    source = job.source
    key = f"url {source.url}"
    with job.cache.lock(key, job.reporter):
        if found := find_cached(source, job.cache):
            return found
        with _hinting(source):
            expected = _expected_of_url(job)
        record = job.cache.find(f"sha256 {expected.sha256}") if expected.sha256 else None
        if record is None or not _fits(record, source):
            record = _downloaded(job, job.cache.part_path(key, "download"), expected)
        job.cache.remember([key], replace(record, checked=expected.checked))
    return _base_image(source, job.cache, record)


def _downloaded(job: _Job, part: Path, expected: _Expected) -> Record:
    """Download, check and unpack; keep a checked download if only unpacking failed."""
    # HTTP takes a third of a start, and most starts find their image in the cache.
    from imagebuilder.images.download import download  # noqa: PLC0415

    url = job.source.url
    with _hinting(job.source):
        got = download(
            url,
            part,
            expected.sha256,
            job.reporter,
            job.patience,
            most_bytes=_most_bytes(job.source.raw_size_bytes),
            allow_http=job.source.allow_http,
        )
    try:
        record = _unpacked(job, part, redacted(url), got, expected.checked)
    except RpiImageError:
        if not expected.sha256:
            forget(part)
        raise
    forget(part)
    return record


def _most_bytes(raw: int | None) -> int | None:
    """Return the size limit of a download: the image and other files in its archive."""
    return None if raw is None else raw + raw // 16 + _BESIDE_BYTES


def _expected_of_url(job: _Job) -> _Expected:
    source = job.source
    if source.sha256:
        return _Expected(source.sha256.lower(), "given")
    if source.unchecked:
        return _Expected("", "none")
    if source.raw_sha256 and source.checksum_url is None:
        return _Expected("", "raw")
    from imagebuilder.images.download import find_published_checksum  # noqa: PLC0415 - as above

    published = find_published_checksum(source, job.reporter, job.patience)
    if published:
        return _Expected(published, "publisher")
    if source.raw_sha256:
        return _Expected("", "raw")
    raise SourceError(
        f"no checksum for {redacted(source.url)}",
        "use --sha256 with that of the publisher (`sha256:` of `image:` in a file), or "
        "--no-checksum (`unchecked: true`) to skip the check",
    )


@contextmanager
def _hinting(source: ImageSource) -> Iterator[None]:
    """Replace the hint of a SourceError by that of the catalogue, if it has one."""
    try:
        yield
    except SourceError as error:
        raise SourceError(error.message, source.hint or error.hint) from error


# ---- both


def _unpacked(job: _Job, path: Path, origin: str, found: Written, checked: Checked) -> Record:
    """Return the record of a checked download; unpack it to the cache if needed."""
    key = f"sha256 {found.sha256}"
    with job.cache.lock(key, job.reporter):
        record = job.cache.find(key)
        if record is None or not _fits(record, job.source):
            raw = _unpack(job, path, job.cache.part_path(key, "image"))
            record = _record(job.source, origin, found, raw, checked)
            job.cache.remember([key, f"raw {raw.sha256}"], record)
    return record


def _unpack(job: _Job, path: Path, part: Path) -> Written:
    """Unpack to the cache; after a failure nothing is left there."""
    source = job.source
    try:
        with open_stream(path, source.raw_size_bytes, source.name) as stream:
            # Check before unpacking: a small file may unpack to terabytes of zeros.
            _refuse_no_disk(source, stream.peek(SECTOR_BYTES))
            raw = write_raw(stream, part, f"unpacking {source.name}", job.reporter)
        _check_raw(source, raw)
        job.cache.adopt(part, raw.sha256)
    except ImageError as error:
        if changed := _other_image(source, path):
            raise changed from error
        raise
    finally:
        part.unlink(missing_ok=True)
    return raw


def _other_image(source: ImageSource, path: Path) -> SourceError | None:
    """Return the error for an intact image of another size than expected: both digests.

    None if no digest of the image is known, or if it is damaged or much larger.
    """
    if not source.raw_sha256 or source.raw_size_bytes is None:
        return None
    digest, have = hashlib.sha256(), 0
    try:
        with open_stream(path, None, source.name) as stream:
            for chunk in stream:
                digest.update(chunk)
                have += len(chunk)
                if have > 2 * source.raw_size_bytes + _BESIDE_BYTES:
                    return None
        _compare(f"the unpacked {source.name}", digest.hexdigest(), source.raw_sha256.lower())
    except ImageError:
        return None
    except SourceError as error:
        return error
    return None


def _check_raw(source: ImageSource, raw: Written) -> None:
    if source.raw_size_bytes is not None and raw.size_bytes != source.raw_size_bytes:
        raise ImageError(
            f"{source.name} has {raw.size_bytes} bytes instead of {source.raw_size_bytes}",
            "get it again: the file is damaged or another version",
        )
    _compare(f"the unpacked {source.name}", raw.sha256, source.raw_sha256.lower())


def _refuse_no_disk(source: ImageSource, head: bytes) -> None:
    """Raise ImageError if the first sector has no boot signature, which MBR and GPT disks have."""
    if not has_signature(head):
        raise ImageError(
            f"{source.name} is not a disk image: its first sector has no boot signature",
            "use the image of a whole card, raw or as zip, gz, xz, zst or bz2",
        )


def _compare(what: str, found: str, expected: str) -> None:
    if expected and found != expected:
        raise SourceError(
            f"{what} has the SHA-256 {found} instead of {expected}",
            "get image and checksum again: the file is damaged or another one",
        )


def _record(
    source: ImageSource,
    origin: str,
    found: Written,
    raw: Written,
    checked: Checked,
    *,
    in_place: Path | None = None,
) -> Record:
    return Record(
        name=source.name,
        origin=origin,
        source_sha256=found.sha256,
        source_bytes=found.size_bytes,
        raw_sha256=raw.sha256,
        raw_bytes=raw.size_bytes,
        checked=checked,
        in_place=str(in_place.resolve()) if in_place else "",
    )
