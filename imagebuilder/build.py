"""Writes base ⊕ patch to a file that is complete from the moment it has its name."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from imagebuilder import __version__, files
from imagebuilder.bmap import render_bmap
from imagebuilder.cow import Patched
from imagebuilder.errors import WriteError
from imagebuilder.extents import plan_write_set
from imagebuilder.packing import pack
from imagebuilder.progress import SILENT, Voice
from imagebuilder.rawcopy import copy_raw, pwrite_all
from imagebuilder.reading import open_raw
from imagebuilder.records import block_map_of, manifest_path, withdraw

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from imagebuilder.compose import Composition
    from imagebuilder.model import NodePlan

CHUNK_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class WrittenImage:
    """What `write_image` left behind; `how` is `reflink`, `sparse copy` or the compression."""

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
    voice: Voice = SILENT,
) -> WrittenImage:
    """Write a node's image and its manifest; raises WriteError and leaves nothing half-written.

    `compress` is one of packing.SUFFIXES or empty; `digest` also hashes the raw image. What told of
    an earlier image is gone, even after a power cut, before the new one takes its name.
    """
    manifest = manifest or manifest_path(out, whole_name=bool(compress))
    file = composition.settings.image.file
    refuse_bases([out], [composition.base.path, *([file] if file else [])])
    make_folder(out.parent)
    with new_file(out) as descriptor:
        if compress:
            sha256 = _write_packed(composition, descriptor, compress, voice)
            how = compress
        else:
            how = _write_raw(composition, descriptor, voice)
            sha256 = _digest(composition, voice) if digest else ""
        withdraw(out, manifest)
    write_json(manifest, manifest_of(composition, sha256))
    return WrittenImage(out, manifest, how, sha256)


def refuse_bases(outs: Iterable[Path], bases: Iterable[Path]) -> None:
    """Raise WriteError where an image would be written over one that images are made from.

    The unfinished image counts, too: it is emptied before the first byte is read.
    """
    known = {found for base in bases if (found := _inode(base))}
    for out in outs:
        if known & {_inode(out), _inode(_part(out))}:
            raise WriteError(f"{out} is the base image itself", "name another place with -o")


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        facts = path.stat()
    except OSError:
        return None
    return facts.st_dev, facts.st_ino


def _part(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


def make_folder(path: Path) -> None:
    """Make a folder and those above it; raises WriteError where that cannot be."""
    try:
        files.make_folder(path)
    except OSError as error:
        raise write_error(path, error) from error


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[int]:
    """Give a descriptor of `path`.part; on success it is synced and takes its name.

    What a killed run left under that name is written over; two runs at once are refused.
    """
    part = _part(path)
    try:
        with _claimed(part) as descriptor:
            yield descriptor
            os.fsync(descriptor)
            part.replace(path)
    except OSError as error:
        raise write_error(path, error) from error


@contextlib.contextmanager
def _claimed(part: Path) -> Iterator[int]:
    descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise WriteError(f"another run is writing {part.stem}", "wait for it") from error
        try:
            os.ftruncate(descriptor, 0)
            files.hand_over(part)
            yield descriptor
        finally:
            part.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write `value` as JSON; raises WriteError."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a small file; raises WriteError."""
    try:
        files.write_file(path, text.encode())
    except OSError as error:
        raise write_error(path, error) from error


def manifest_of(composition: Composition, sha256: str = "") -> dict[str, Any]:
    """Describe an image so that it can be checked and rebuilt; holds digests, never contents."""
    base, plan = composition.base, composition.plan
    return {
        "tool": f"rpi-image {__version__}",
        "hostname": plan.hostname,
        "profile": composition.settings.profile,
        "generation": plan.generation,
        "config_hash": plan.config_hash,
        "base": {
            "name": base.name,
            "sha256": base.sha256,
            "size_bytes": base.size_bytes,
            "source_sha256": base.source_sha256,
        },
        "files": _files(plan),
        "removed": [edit.path for edit in plan.edits if edit.data is None],
        "patch": [
            {"offset_bytes": run.offset_bytes, "size_bytes": len(run.data)}
            for run in composition.patch.runs
        ],
        "image_sha256": sha256 or None,
    }


def plan_as_json(plan: NodePlan) -> dict[str, Any]:
    """Describe a plan without its contents, which may be secret."""
    return {
        "hostname": plan.hostname,
        "generation": plan.generation,
        "config_hash": plan.config_hash,
        "files": _files(plan),
        "removed": [edit.path for edit in plan.edits if edit.data is None],
        "warnings": list(plan.warnings),
    }


def _files(plan: NodePlan) -> list[dict[str, Any]]:
    return [
        {
            "path": edit.path,
            "size_bytes": len(edit.data),
            "sha256": hashlib.sha256(edit.data).hexdigest(),
        }
        for edit in plan.edits
        if edit.data is not None
    ]


def write_bmap(composition: Composition, image: Path) -> Path:
    """Write <image>.bmap: what bmaptool must write so that the card is whole."""
    path = block_map_of(image)
    with open_raw(composition.base.path) as raw:
        extents = plan_write_set(raw, composition.patch)
        text = render_bmap(Patched(raw, composition.patch), extents, image.name)
    write_text(path, text)
    return path


def _write_raw(composition: Composition, descriptor: int, voice: Voice) -> str:
    with open_raw(composition.base.path) as raw:
        how = copy_raw(raw.descriptor, descriptor, raw.size_bytes, voice)
    for run in composition.patch.runs:
        pwrite_all(descriptor, run.data, run.offset_bytes)
    return how


def _write_packed(composition: Composition, descriptor: int, form: str, voice: Voice) -> str:
    digest = hashlib.sha256()

    def hashed() -> Iterator[bytes]:
        for chunk in _chunks(composition, f"packing {form}", voice):
            digest.update(chunk)
            yield chunk

    name = f"{composition.plan.hostname}.img"
    with os.fdopen(descriptor, "wb", closefd=False) as out:
        pack(hashed(), out, form, name, composition.base.size_bytes)
    return digest.hexdigest()


def _digest(composition: Composition, voice: Voice) -> str:
    """Hash what was written from the base, which lies in memory; the copy does not."""
    digest = hashlib.sha256()
    for chunk in _chunks(composition, "hashing", voice):
        digest.update(chunk)
    return digest.hexdigest()


def _chunks(composition: Composition, label: str, voice: Voice) -> Iterator[bytes]:
    """Give base ⊕ patch in order, piece by piece."""
    with open_raw(composition.base.path) as raw:
        disk = Patched(raw, composition.patch)
        with voice.meter(label, disk.size_bytes) as meter:
            for offset in range(0, disk.size_bytes, CHUNK_BYTES):
                chunk = disk.read_at(offset, CHUNK_BYTES)
                yield chunk
                meter.advance(len(chunk))


def write_error(path: Path, error: OSError) -> WriteError:
    """Make the error for a path that cannot be written, with what to do."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return WriteError(
            f"no room for {path}: {error.strerror}",
            "free some space, choose another place with -o, or write the card directly with flash",
        )
    return WriteError(f"cannot write {path}: {error.strerror}", "check the folder and its rights")
