"""Write base ⊕ patch to an image file, atomically."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from imagebuilder.build.manifest import block_map_of, manifest_of, manifest_path, withdraw
from imagebuilder.disk.bmap import render_bmap
from imagebuilder.disk.copy import copy_raw
from imagebuilder.disk.patched import PatchedImage
from imagebuilder.disk.reader import open_raw
from imagebuilder.disk.write_set import plan_write_set
from imagebuilder.errors import WriteError
from imagebuilder.files import create_folder, new_file, part_of, pwrite_all, write_json, write_text
from imagebuilder.images.archives.compress import pack
from imagebuilder.progress import SILENT, Reporter

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from imagebuilder.build.compose import Composition

CHUNK_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class WrittenImage:
    """The result of `write_image`; `how` is `reflink`, `sparse copy` or the compression."""

    path: Path
    manifest: Path
    how: str
    sha256: str


def write_image(
    composition: Composition,
    out: Path,
    *,
    compress: str = "",
    digest: bool = False,
    manifest: Path | None = None,
    reporter: Reporter = SILENT,
) -> WrittenImage:
    """Write a node's image and its manifest. Raise WriteError on failure; leave no partial image.

    `compress` is empty or one of compress.SUFFIXES; `digest` also hashes the raw image. Records of
    an earlier image are durably removed before the new image is renamed to `out`.
    """
    manifest = manifest or manifest_path(out, whole_name=bool(compress))
    file = composition.settings.image.file
    refuse_bases([out], [composition.base.path, *([file] if file else [])])
    create_folder(out.parent)
    with new_file(out) as descriptor:
        if compress:
            sha256 = _write_packed(composition, descriptor, compress, reporter)
            how = compress
        else:
            how = _write_raw(composition, descriptor, reporter)
            sha256 = _digest(composition, reporter) if digest else ""
        withdraw(out, manifest)
    # With the digest of a small file with a passphrase, passphrases could be guessed.
    write_json(manifest, manifest_of(composition, sha256), mode=0o600)
    return WrittenImage(out, manifest, how, sha256)


def refuse_bases(outs: Iterable[Path], bases: Iterable[Path]) -> None:
    """Raise WriteError if an image of `outs` is one of the base images.

    Its .part file counts, too: it is truncated before the base is read.
    """
    known = {found for base in bases if (found := _inode(base))}
    for out in outs:
        if known & {_inode(out), _inode(part_of(out))}:
            raise WriteError(f"{out} is the base image itself", "use another path with -o")


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def write_bmap(composition: Composition, image: Path) -> Path:
    """Write <image>.bmap, the block map for bmaptool; return its path."""
    path = block_map_of(image)
    with open_raw(composition.base.path) as raw:
        extents = plan_write_set(raw, composition.patch)
        text = render_bmap(PatchedImage(raw, composition.patch), extents, image.name)
    write_text(path, text)
    return path


def _write_raw(composition: Composition, descriptor: int, reporter: Reporter) -> str:
    with open_raw(composition.base.path) as raw:
        how = copy_raw(raw.descriptor, descriptor, raw.size_bytes, reporter)
    for run in composition.patch.runs:
        pwrite_all(descriptor, run.data, run.offset_bytes)
    return how


def _write_packed(composition: Composition, descriptor: int, form: str, reporter: Reporter) -> str:
    digest = hashlib.sha256()

    def hashed() -> Iterator[bytes]:
        for chunk in _chunks(composition, f"packing {form}", reporter):
            digest.update(chunk)
            yield chunk

    name = f"{composition.plan.hostname}.img"
    with os.fdopen(descriptor, "wb", closefd=False) as out:
        pack(hashed(), out, form, name, composition.base.size_bytes)
    return digest.hexdigest()


def _digest(composition: Composition, reporter: Reporter) -> str:
    """Return the digest; read the base, which is in the page cache, not the copy."""
    digest = hashlib.sha256()
    for chunk in _chunks(composition, "hashing", reporter):
        digest.update(chunk)
    return digest.hexdigest()


def _chunks(composition: Composition, label: str, reporter: Reporter) -> Iterator[bytes]:
    """Yield base ⊕ patch in chunks."""
    with open_raw(composition.base.path) as raw:
        disk = PatchedImage(raw, composition.patch)
        with reporter.meter(label, disk.size_bytes) as meter:
            for offset in range(0, disk.size_bytes, CHUNK_BYTES):
                chunk = disk.read_at(offset, CHUNK_BYTES)
                yield chunk
                meter.advance(len(chunk))
