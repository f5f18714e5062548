"""Manifests, SHA256SUMS and classroom.json next to images.

An entry is removed before its image is replaced, so that none describes an image that is gone.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from imagebuilder import __version__
from imagebuilder.files import has_file, remove_file, write_file
from imagebuilder.plan.card_layout import PACKAGES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from imagebuilder.build.compose import Composition
    from imagebuilder.model import BaseImage, NodePlan

SUMS = "SHA256SUMS"
CLASS = "classroom.json"
_DIGEST_COLUMNS = 66  # 64 digits, a space, and a space or `*` (sha256sum(1))


# ---- one image


def manifest_path(image: Path, *, whole_name: bool = False) -> Path:
    """Return the path of the manifest: pi-01.json, or pi-01.img.json with `whole_name`."""
    return image.with_name(f"{image.name}.json") if whole_name else image.with_suffix(".json")


def class_image_manifest(image: Path) -> Path:
    """Return the manifest of the one image; with its stem it could be named classroom.json."""
    return manifest_path(image, whole_name=True)


def load_manifest(path: Path) -> dict[str, Any] | None:
    """Return the manifest; None if it does not exist or is not valid."""
    found = _load(path)
    return found if isinstance(found, dict) and _well_formed(found) else None


def _load(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def _well_formed(manifest: dict[str, Any]) -> bool:
    base, files = manifest.get("base"), manifest.get("files")
    digest = manifest.get("image_sha256")
    return (
        isinstance(base, dict)
        and isinstance(digest, str | None)
        and isinstance(files, list)
        and all(isinstance(file, dict) and {"path", "sha256"} <= file.keys() for file in files)
    )


def changes_of_image(
    image: Path, plan: NodePlan, base: BaseImage, last: dict[str, Any] | None
) -> tuple[str, ...]:
    """Return what a build would change in the existing image; empty if it is up to date."""
    if changes := changes_since(plan, base, last):
        return changes
    if not has_file(image):
        return ("new",)
    return () if image.stat().st_size == base.size_bytes else ("image is incomplete",)


def _packages(files: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return the digests of Debian packages on the card, which no configuration hash has."""
    return {f["path"]: f["sha256"] for f in files if str(f["path"]).startswith(PACKAGES)}


def uncompared_change(image: Path, manifest: Path) -> tuple[str, ...]:
    """Return the changes without a base: unknown, since files of the vendor would all differ."""
    there = has_file(image) and load_manifest(manifest) is not None
    return ("not compared: no base image",) if there else ("new",)


def changes_since(plan: NodePlan, base: BaseImage, last: dict[str, Any] | None) -> tuple[str, ...]:
    """Return what a build would change since the last one; empty if it is up to date.

    The configuration hash does not depend on the build time: with equal hashes, only the file with
    the build time differs.
    """
    if last is None:
        return ("new",)
    if last.get("config_hash") == plan.config_hash:
        if last.get("base", {}).get("sha256") != base.sha256:
            return ("base image",)
        return () if _packages(last.get("files", [])) == _packages(_files(plan)) else ("packages",)
    before = {str(file["path"]): file["sha256"] for file in last.get("files", [])}
    now = {
        edit.path: hashlib.sha256(edit.data).hexdigest()
        for edit in plan.edits
        if edit.data is not None
    }
    changed = [f"~ {path}" for path in now if before.get(path, now[path]) != now[path]]
    added = [f"+ {path}" for path in now if path not in before]
    gone = [f"- {path}" for path in before if path not in now]
    return tuple(changed + added + gone) or ("configuration",)


def withdraw(image: Path, manifest: Path) -> None:
    """Remove the records of an image before it is replaced. Raise OSError on failure."""
    withdraw_sums(image.parent, [image.name])
    remove_file(block_map_of(image))
    remove_file(manifest)


def block_map_of(image: Path) -> Path:
    """Return the path where bmaptool expects the block map of an image."""
    return image.with_name(f"{image.name}.bmap")


# ---- a folder of images


def withdraw_sums(folder: Path, names: Iterable[str]) -> None:
    """Remove images from a folder's SHA256SUMS. Raise OSError on failure."""
    path = folder / SUMS
    if not path.is_file():
        return
    gone = {name.encode("utf-8", "surrogateescape") for name in names}
    data = path.read_bytes()
    lines = data.splitlines(keepends=True)
    kept = b"".join(line for line in lines if line[_DIGEST_COLUMNS:].rstrip(b"\r\n") not in gone)
    if not kept:
        remove_file(path)
    elif kept != data:
        write_file(path, kept)


def render_sums(digests: Mapping[str, str]) -> str:
    """Return digests in the format of sha256sum(1); images without one are left out."""
    return "".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items()) if digest)


def load_class(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the entries of classroom.json by hostname; none if it is damaged."""
    found = _load(folder / CLASS)
    nodes = found.get("nodes") if isinstance(found, dict) else None
    return {
        str(node["hostname"]): node
        for node in (nodes if isinstance(nodes, list) else [])
        if isinstance(node, dict) and "hostname" in node
    }


def still_describes(entry: Mapping[str, Any], manifest: Mapping[str, Any] | None) -> bool:
    """Return whether an entry of classroom.json matches the manifest of the present image."""
    return manifest is not None and (
        (entry.get("config_hash"), entry.get("sha256") or None)
        == (manifest.get("config_hash"), manifest.get("image_sha256"))
    )


def manifest_of(composition: Composition, sha256: str = "") -> dict[str, Any]:
    """Return the manifest of an image; it has digests of files, never their content."""
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
    """Return a plan as JSON without the content of files, which may be secret."""
    return {
        "hostname": plan.hostname,
        "generation": plan.generation,
        "config_hash": plan.config_hash,
        "files": _files(plan),
        "removed": [edit.path for edit in plan.edits if edit.data is None],
        "warnings": list(plan.warnings),
        "reach": plan.reach,
        "packages": packages_as_json(dict.fromkeys(plan.packages, "")),
    }


def packages_as_json(versions: Mapping[str, str]) -> list[dict[str, str | None]]:
    """Return packages as JSON; the version is null where only the archive knows it."""
    return [{"name": name, "version": version or None} for name, version in versions.items()]


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
