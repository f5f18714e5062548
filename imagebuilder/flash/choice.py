"""Choose what to write to cards: nodes of a classroom, or one image as it is."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from imagebuilder.errors import ImageError, InputError, RefusedError
from imagebuilder.files import has_file
from imagebuilder.images.archives.compress import SUFFIXES
from imagebuilder.images.archives.formats import is_compressed
from imagebuilder.model import BaseImage, ImageSource
from imagebuilder.settings.flags import choose_nodes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from imagebuilder.devices.device import Device
    from imagebuilder.images.cache import Cache
    from imagebuilder.model import Classroom, NodeSettings
    from imagebuilder.progress import Prompter
    from imagebuilder.settings.flags import NodeFlags

    Obtain = Callable[[ImageSource], BaseImage]

BUILD_FOLDER = Path("build")


def choose_card_nodes(classroom: Classroom, names: str) -> tuple[NodeSettings, ...]:
    """Return the nodes in `names`, by default all. Raise RefusedError for a duplicate."""
    nodes = choose_nodes(classroom, names)
    times = Counter(node.hostname for node in nodes)
    if twice := [name for name, count in times.items() if count > 1]:
        raise RefusedError(f"{', '.join(twice)} is given twice", "use each node once")
    return nodes


def choose_by_card(
    devices: Sequence[Device], names: Sequence[str], owner: Callable[[Device], str]
) -> list[str]:
    """Return the names in the order of the devices: a card keeps its node if that is chosen."""
    left, kept = list(names), list[str]()
    for device in devices:
        name = owner(device)
        kept.append(name if name in left else "")
        left = [other for other in left if other != name]
    return [name or left.pop(0) for name in kept] + left


def choose_image(flags: NodeFlags, obtain: Obtain, prompter: Prompter, cache: Cache) -> BaseImage:
    """Return the image to write: a raw file itself, any other image unpacked in the cache.

    --image is a file, else a catalogue name or a URL, as for `build`. Without it, use the only
    image in build/. With --sha256 a raw file is copied to the cache as well, and checked there.
    """
    path = Path(flags.image) if flags.image else _only_build(prompter)
    if not has_file(path):
        return obtain(_source_elsewhere(flags, path, cache, prompter))
    sha256 = flags.sha256 or ""
    if sha256 or is_compressed(path):
        unchecked = flags.no_checksum
        return obtain(ImageSource(path.name, file=path, sha256=sha256, unchecked=unchecked))
    size_bytes = path.stat().st_size
    if size_bytes == 0:
        raise ImageError(f"{path} is empty", "fetch or build it again")
    return BaseImage(path, "", size_bytes, path.name)


def _source_elsewhere(
    flags: NodeFlags, path: Path, cache: Cache, prompter: Prompter
) -> ImageSource:
    """Return the source of an image that is not a local file."""
    # Imported here because pydantic is slow and not needed for a local file.
    from imagebuilder.settings.catalog import PublishedLists, find_image  # noqa: PLC0415
    from imagebuilder.settings.schema.documents import classify_image  # noqa: PLC0415

    text = flags.image or ""
    if path.is_block_device():
        raise InputError(f"{path} is a device, not an image", "copy it to a file first")
    if classify_image(text) == "file":
        raise InputError(f"no image {path}", "use --image FILE, or build one")
    lists = PublishedLists(cache, prompter, place=flags.catalog or "", allow_http=flags.allow_http)
    return find_image(
        text,
        sha256=flags.sha256 or "",
        unchecked=flags.no_checksum,
        folders=flags.profiles,
        lists=lists,
    )


def _only_build(prompter: Prompter) -> Path:
    images = _built(BUILD_FOLDER)
    if not images:
        raise InputError(
            f"no image in {BUILD_FOLDER}/", "use --image FILE, or --config FILE --node NAME"
        )
    if len(images) == 1:
        return images[0]
    names = ", ".join(str(path) for path in images)
    for number, path in enumerate(images, 1):
        prompter.note(f"{number}  {path}")
    answer = prompter.ask("Which image (number)?")
    if answer.isdigit() and 1 <= int(answer) <= len(images):
        return images[int(answer) - 1]
    raise InputError(f"there are {len(images)} images: {names}", "choose one with --image FILE")


def _built(folder: Path) -> list[Path]:
    """Return the images in a folder; if one is there raw and compressed, only the raw one."""
    found: dict[str, Path] = {}
    for suffix in ("", *(f".{packed}" for packed in SUFFIXES)):
        for path in sorted(folder.glob(f"*.img{suffix}")):
            found.setdefault(path.name.removesuffix(suffix), path)
    return [found[name] for name in sorted(found)]
