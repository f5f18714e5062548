"""The commands `fetch`, `images` and `cache`."""

from __future__ import annotations

import re
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import click

from imagebuilder.cli.completion import complete_board, complete_cached, complete_image
from imagebuilder.cli.help import Command, Group
from imagebuilder.cli.options import (
    PATH,
    allow_http,
    dry_run,
    output_options,
    profile_folders,
    published_list,
    with_console,
)
from imagebuilder.cli.session import Session
from imagebuilder.errors import InputError
from imagebuilder.images.cache import refuse_damaged
from imagebuilder.images.list_snapshot import age_in_words
from imagebuilder.images.obtain import fetch_base
from imagebuilder.progress import counted, human_bytes
from imagebuilder.settings.catalog import checksum_of, find_image, list_images
from imagebuilder.settings.schema.published import PublishedEntry

if TYPE_CHECKING:
    from pathlib import Path

    from imagebuilder.cli.console import Console
    from imagebuilder.images.cache import Cached
    from imagebuilder.model import BaseImage
    from imagebuilder.settings.catalog import ImageListing, PublishedList
    from imagebuilder.settings.schema.catalogue import CatalogueEntry


def _digest(context: click.Context, option: click.Parameter, text: str) -> str:
    del context, option
    if text and not re.fullmatch(r"[0-9a-fA-F]{64}", text):
        raise click.BadParameter("a SHA-256 has 64 hexadecimal digits")
    return text.lower()


@click.command(cls=Command)
@click.argument("image", default="", shell_complete=complete_image)
@click.option("--packages", is_flag=True, help="The packages of a class, with -c FILE.")
@click.option("-c", "--config", type=PATH, help="Classroom file, for --packages.")
@click.option("--sha256", default="", callback=_digest, help="Digest the download must have.")
@click.option("--no-checksum", is_flag=True, help="Take it as it comes, checked against nothing.")
@published_list
@allow_http
@profile_folders
@with_console
def fetch(
    console: Console,
    image: str,
    packages: bool,
    config: Path | None,
    catalog: str | None,
    sha256: str,
    no_checksum: bool,
    allow_http: bool,
    folders: tuple[Path, ...],
) -> None:
    """Download, check and unpack IMAGE: a name of `images`, a file or a URL.

    Print the path of the raw image. An image in the cache is not downloaded again. With --packages,
    download what the nodes of a class install at their first boot.
    """
    session = Session(console=console, allow_http=allow_http)
    if packages or config or not image:
        _fetch_packages(session, config if packages and not image else None, folders)
        return
    lists = session.lists(catalog or "")
    source = find_image(image, sha256=sha256, unchecked=no_checksum, folders=folders, lists=lists)
    wanted = replace(source, allow_http=allow_http)
    base, from_cache = fetch_base(wanted, session.cache, console)
    if console.as_json:
        console.emit(_fetched(base, from_cache=from_cache))
        return
    console.note(f"{base.name}: {human_bytes(base.size_bytes)}, SHA-256 {base.sha256}")
    console.result(str(base.path))


def _fetch_packages(session: Session, config: Path | None, folders: tuple[Path, ...]) -> None:
    from imagebuilder.build.class_packages import fetch_class
    from imagebuilder.build.packages import PackageIndex
    from imagebuilder.settings.load import load_roster

    if config is None:
        raise InputError("fetch needs an image or a class", "name IMAGE, or use --packages -c FILE")
    environment, lists = session.environment, session.lists()
    roster = load_roster(config, environment=environment, profile_folders=folders, lists=lists)
    index = PackageIndex(session.cache, session.console)
    found = fetch_class(roster.nodes, session.obtain, index)
    if session.console.as_json:
        session.console.emit({name: list(map(asdict, each)) for name, each in found.items()})
        return
    rows = {(p.name, p.version, human_bytes(p.size_bytes)) for each in found.values() for p in each}
    session.console.table(("PACKAGE", "VERSION", "SIZE"), sorted(rows))


def _fetched(base: BaseImage, *, from_cache: bool) -> dict[str, Any]:
    return {
        "name": base.name,
        "path": str(base.path),
        "sha256": base.sha256,
        "size_bytes": base.size_bytes,
        "source_sha256": base.source_sha256,
        "from_cache": from_cache,
    }


@click.command(cls=Command)
@published_list
@click.option(
    "--board",
    metavar="BOARD",
    default="",
    shell_complete=complete_board,
    help="Only for this board, such as pi4.",
)
@click.option("--search", metavar="TEXT", default="", help="Only with these words.")
@allow_http
@profile_folders
@with_console
def images(
    console: Console,
    catalog: str | None,
    board: str,
    search: str,
    allow_http: bool,
    folders: tuple[Path, ...],
) -> None:
    """List the base images: ours, and those of a published list.

    The list is fetched if it has changed; without network, its last state is used.
    """
    lists = Session(console=console, allow_http=allow_http).lists(catalog or "")
    listing = list_images(lists, folders, board=board, search=search)
    if console.as_json:
        console.emit(_report(listing))
        return
    rows = [_image_row(image) for image in listing.images]
    console.table(("IMAGE", "GENERATION", "CHECKSUM", "WHAT"), rows)
    if listing.published:
        _say_state(console, listing.published)


def _say_state(console: Console, published: PublishedList) -> None:
    snapshot = published.snapshot
    age = age_in_words(snapshot.age_seconds())
    console.note(f"{counted(len(published.entries), 'image')} in {snapshot.shown}, {age} old")
    for note in published.notes:
        console.detail(note)
    if published.notes and not console.verbose:
        console.note(f"{counted(len(published.notes), 'note')} about the list: see -v")


def _image_row(image: CatalogueEntry) -> tuple[str, ...]:
    generation, what = image.generation or "", image.description
    if isinstance(image, PublishedEntry):
        generation = generation if image.supported else f"{image.init_format}: not supported"
        what = f"{image.title}: {what}" if what else image.title
    return image.name, generation, checksum_of(image), what


def _report(listing: ImageListing) -> dict[str, Any]:
    report: dict[str, Any] = {"images": list(map(_image, listing.images)), "catalog": None}
    if published := listing.published:
        snapshot = published.snapshot
        report["catalog"] = {
            "url": snapshot.shown,
            "fetched": snapshot.fetched,
            "age_seconds": snapshot.age_seconds(),
            "stale": snapshot.stale,
            "notes": list(published.notes),
        }
    return report


def _image(image: CatalogueEntry) -> dict[str, Any]:
    published = isinstance(image, PublishedEntry)
    shown = image.model_dump(mode="json", exclude_unset=True, exclude_none=True)
    return {"name": image.name, "published": published, **shown}


@click.group(cls=Group)
@output_options
def cache(**_: object) -> None:
    """List, verify or clean the cache of base images.

    It is in the cache folder of the platform, or in RPI_IMAGE_CACHE.
    """


@cache.command("list")
@with_console
def list_(console: Console) -> None:
    """List the base images in the cache."""
    store = Session(console=console).cache
    sizes = store.leftover_bytes(), store.package_bytes()
    _show_listing(console, store.folder, store.listing(), *sizes)


def _show_listing(
    console: Console,
    folder: Path,
    images: tuple[Cached, ...],
    unfinished_bytes: int,
    package_bytes: int,
) -> None:
    if console.as_json:
        listed = [_listed(image) for image in images]
        fields = {
            "folder": str(folder),
            "images": listed,
            "unfinished_bytes": unfinished_bytes,
            "package_bytes": package_bytes,
        }
        console.emit(fields)
        return
    if images:
        console.table(("NAME", "SIZE", "ON DISK", "SHA-256"), [_row(image) for image in images])
    if unfinished_bytes:
        size = human_bytes(unfinished_bytes)
        console.note(f"{size} of unfinished files, including downloads that can be resumed")
    if package_bytes:
        console.note(f"{human_bytes(package_bytes)} of Debian packages and lists of them")
    console.note(f"{len(images)} base images in {folder}")


def _listed(image: Cached) -> dict[str, Any]:
    return {
        "names": list(image.names),
        "sha256": image.sha256,
        "path": str(image.path),
        "size_bytes": image.size_bytes,
        "used_bytes": image.used_bytes,
        "origins": list(image.origins),
    }


def _row(image: Cached) -> tuple[str, ...]:
    sizes = human_bytes(image.size_bytes), human_bytes(image.used_bytes)
    return (", ".join(image.names) or "?", *sizes, image.sha256[:16])


@cache.command()
@click.argument("which", nargs=-1, shell_complete=complete_cached)
@click.option("--unfinished", is_flag=True, help="Only files of interrupted runs.")
@dry_run
@with_console
def clean(console: Console, which: tuple[str, ...], unfinished: bool, dry_run: bool) -> None:
    """Remove images (WHICH: names or digests, by default all) and unfinished files."""
    store = Session(console=console).cache
    done = store.clean(which, unfinished_only=unfinished, dry_run=dry_run)
    if console.as_json:
        removed = [_listed(image) for image in done.images]
        fields = {"removed": removed, "freed_bytes": done.freed_bytes, "dry_run": dry_run}
        console.emit(fields)
        return
    console.result(f"{'would free' if dry_run else 'freed'} {human_bytes(done.freed_bytes)}")


@cache.command()
@click.argument("which", nargs=-1, shell_complete=complete_cached)
@with_console
def verify(console: Console, which: tuple[str, ...]) -> None:
    """Compare images (WHICH: names or digests, by default all) with their digests."""
    verified = Session(console=console).cache.verify(which, console)
    if console.as_json:
        console.emit({"images": [_listed(image) | {"intact": ok} for image, ok in verified]})
    else:
        for image, ok in verified:
            console.result(f"{'ok     ' if ok else 'DAMAGED'}  {_row(image)[0]}  {image.sha256}")
    refuse_damaged(verified)
