"""Compress image files; equal input makes equal output."""

from __future__ import annotations

import os
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SUFFIXES = ("zst", "xz", "gz", "zip")
ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)


def pack(chunks: Iterator[bytes], out: IO[bytes], form: str, name: str, size_bytes: int) -> None:
    """Compress `chunks` (`size_bytes` in total) to `out`; `name` is the entry in a zip."""
    _PACKERS[form](chunks, out, name, size_bytes)


def _pack_zst(chunks: Iterator[bytes], out: IO[bytes], name: str, size_bytes: int) -> None:
    import zstandard  # noqa: PLC0415 - only one of four formats is needed

    del name
    compressor = zstandard.ZstdCompressor(level=9, threads=os.cpu_count() or 1, write_checksum=True)
    with compressor.stream_writer(out, size=size_bytes, closefd=False) as stream:
        for chunk in chunks:
            stream.write(chunk)


def _pack_xz(chunks: Iterator[bytes], out: IO[bytes], name: str, size_bytes: int) -> None:
    import lzma  # noqa: PLC0415

    del name, size_bytes
    compressor = lzma.LZMACompressor(preset=3)
    for chunk in chunks:
        out.write(compressor.compress(chunk))
    out.write(compressor.flush())


def _pack_gz(chunks: Iterator[bytes], out: IO[bytes], name: str, size_bytes: int) -> None:
    from isal import igzip  # noqa: PLC0415

    del name, size_bytes
    with igzip.IGzipFile(  # type: ignore[no-untyped-call]
        filename="", mode="wb", fileobj=out, mtime=0, compresslevel=2
    ) as stream:
        for chunk in chunks:
            stream.write(chunk)  # type: ignore[no-untyped-call]


def _pack_zip(chunks: Iterator[bytes], out: IO[bytes], name: str, size_bytes: int) -> None:
    import zipfile  # noqa: PLC0415

    entry = zipfile.ZipInfo(name, ZIP_EPOCH)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    entry.file_size = size_bytes
    with zipfile.ZipFile(out, "w") as archive, archive.open(entry, "w") as stream:
        for chunk in chunks:
            stream.write(chunk)


_PACKERS: dict[str, Callable[[Iterator[bytes], IO[bytes], str, int], None]] = {
    "zst": _pack_zst,
    "xz": _pack_xz,
    "gz": _pack_gz,
    "zip": _pack_zip,
}
