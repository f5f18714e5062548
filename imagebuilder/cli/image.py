"""The commands `build` and `inspect`."""

from __future__ import annotations

import dataclasses
import re
import stat
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from imagebuilder.boot.emulator import BootRequest, boot_image
from imagebuilder.boot.firmware import MACHINE_NAMES
from imagebuilder.build.compose import WITHOUT_BASE, open_composer, plan_without_base
from imagebuilder.build.image import write_bmap, write_image
from imagebuilder.build.inspect import ImageReport, inspect_disk
from imagebuilder.build.manifest import manifest_of, plan_as_json
from imagebuilder.cli.options import NodeFlags, dry_run, node_options, on_disk, with_console
from imagebuilder.cli.session import Session
from imagebuilder.disk.reader import open_raw
from imagebuilder.errors import ImageError, InputError
from imagebuilder.files import has_folder
from imagebuilder.images.compress import SUFFIXES
from imagebuilder.images.formats import is_compressed
from imagebuilder.images.sparse import open_unrolled
from imagebuilder.images.unpack import open_stream
from imagebuilder.progress import human_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from imagebuilder.boot.emulator import BootResult
    from imagebuilder.build.compose import Composition
    from imagebuilder.build.image import WrittenImage
    from imagebuilder.cli.console import Console
    from imagebuilder.disk.reader import ReadAt
    from imagebuilder.model import NodePlan, NodeSettings


@click.command()
@node_options
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, readable=False),
    default=Path("build"),
    show_default=True,
    callback=on_disk,
    help="File (.img, .img.xz …), or folder for <hostname>.img.",
)
@click.option(
    "--compress",
    type=click.Choice(SUFFIXES),
    help="Compress the image; a file's name says it, too.",
)
@click.option("--bmap", is_flag=True, help="Write a block map for bmaptool beside it.")
@click.option("--digest", is_flag=True, help="Record the image's own sha256 in its manifest.")
@dry_run
@with_console
def build(
    console: Console,
    flags: NodeFlags,
    output: Path,
    compress: str | None,
    bmap: bool,
    digest: bool,
    dry_run: bool,
) -> None:
    """Write the image of one node, complete and ready to flash."""
    session = Session(console=console)
    form = form_of(output, compress or "")
    settings = session.node(flags, write=not dry_run)
    if dry_run:
        _show_plan(console, _plan(session, settings))
        return
    out = output_path(output, settings.hostname, form)
    with open_composer(
        session.obtain(settings.image), epoch=session.epoch, reporter=console
    ) as node:
        composition = node.compose(settings)
    written = write_image(composition, out, compress=form, digest=digest, reporter=console)
    _show_written(console, composition, written)
    if bmap:
        console.note(f"block map: {write_bmap(composition, out)}")


@click.command()
@click.argument("image", type=click.Path(path_type=Path, readable=False))
@with_console
def inspect(console: Console, image: Path) -> None:
    """Show what IMAGE (a file, a compressed file or a device) is; nothing is written."""
    with _readable(Session(console=console), image) as disk:
        report = inspect_disk(disk)
    if console.as_json:
        console.emit(report.as_json())
    else:
        for name, value in _lines(report):
            console.result(f"{name + ':':<15}{value}")


def form_of(output: Path, compress: str) -> str:
    """Return the compression: the one said, or that of the file's name.

    Raises InputError where the two differ, and where a name could be a file's or a folder's.
    """
    suffix = output.suffix.lower().removeprefix(".")
    if not suffix or has_folder(output):
        return compress
    if suffix not in (*_RAW, *SUFFIXES):
        hint = f"a file ends in {', '.join(_RAW + SUFFIXES)}; make the folder first if it is one"
        raise InputError(f"is {output} a file or a folder?", hint)
    named = "" if suffix in _RAW else suffix
    if compress not in {"", named}:
        hint = f"leave --compress out, or let the name end in .{compress}"
        raise InputError(f"{output} is no name for what {compress} makes", hint)
    return named


_RAW = ("img", "raw")


def output_path(output: Path, hostname: str, compress: str) -> Path:
    """Return the file to write: `output` itself, or <hostname>.img in that folder."""
    if output.suffix and not has_folder(output):
        return output
    return output / f"{hostname}.img{'.' + compress if compress else ''}"


def _plan(session: Session, settings: NodeSettings) -> NodePlan:
    base = session.find(settings.image)
    if base is None:
        plan = plan_without_base(settings, session.epoch)
        return replace(plan, warnings=(WITHOUT_BASE, *plan.warnings))
    with open_composer(base, epoch=session.epoch, reporter=session.console) as node:
        return node.plan(settings)


def _show_plan(console: Console, plan: NodePlan) -> None:
    for warning in plan.warnings:
        console.warn(warning)
    if console.as_json:
        console.emit(plan_as_json(plan))
        return
    if not plan.generation:
        console.result(f"{plan.hostname}: generation not known yet")
        return
    console.result(f"{plan.hostname}: {plan.generation}, configuration {plan.config_hash[:12]}")
    rows = [
        (edit.path, "remove" if edit.data is None else f"{len(edit.data)} B") for edit in plan.edits
    ]
    console.table(("file on the boot partition", "what"), rows)


def _show_written(console: Console, composition: Composition, written: WrittenImage) -> None:
    for warning in composition.plan.warnings:
        console.warn(warning)
    if console.as_json:
        manifest = manifest_of(composition, written.sha256)
        console.emit({"image": str(written.path), "how": written.how, **manifest})
        return
    patch = composition.patch
    console.note(
        f"{composition.plan.hostname}: {composition.base.name} with {len(composition.plan.edits)} "
        f"files set ({human_bytes(patch.size_bytes)} in {len(patch.runs)} places), {written.how}"
    )
    console.result(str(written.path))


@contextmanager
def _readable(session: Session, image: Path) -> Iterator[ReadAt]:
    try:
        mode = image.stat().st_mode
    except OSError as error:
        raise ImageError(
            f"cannot read {image}: {error.strerror}", "check the path and its rights"
        ) from error
    if stat.S_ISDIR(mode):
        raise ImageError(f"{image} is a folder", "name an image in it")
    if stat.S_ISBLK(mode) or not is_compressed(image):
        with open_raw(image) as raw:
            yield raw
        return
    key, reporter = f"inspect {image.resolve()}", session.console
    with (
        session.cache.scratch(key, reporter) as part,
        open_stream(image) as stream,
        # The boot partition lies at the front: the rest is not unpacked.
        open_unrolled(stream, part, "unpacking", reporter) as disk,
    ):
        yield disk


def _lines(report: ImageReport) -> Iterator[tuple[str, str]]:
    facts = report.as_json()
    for part in report.partitions:
        size = human_bytes(part.size_bytes)
        yield f"partition {part.number}", f"{size} from byte {part.start_bytes}, type {part.kind}"
    state = "clean" if report.fat_clean else "not cleanly unmounted"
    yield "boot", f"{report.fat_type}, {human_bytes(report.fat_free_bytes)} free, {state}"
    names = {"arch": "arch", "docker_opts": "docker opts", "shack": "shack", "address": "address"}
    yield "generation", report.generation or "unknown"
    yield "hostname", report.hostname or "unknown"
    for net in report.wifi:
        yield "wifi", f"{net.ssid} ({net.country or 'no country'}{', hidden' * net.hidden})"
    for key, name in names.items():
        if facts[key]:
            yield name, facts[key]
    if cluster := facts["cluster"]:
        role = "consul server" if cluster["consul_server"] == "1" else "consul client"
        yield "cluster", f"{role} {cluster['consul_image']}, {cluster['swarm_image']}"
    if facts["config_hash"]:
        yield "configuration", facts["config_hash"]
    for key, value in (report.status or {}).items():
        yield f"pi {key}", str(value)


LIMITS = (
    "an emulated Pi has no wifi, no GPIO, LEDs or camera, no firmware of its own and another"
    " network adapter; it is slower than a Pi, and its card never wears or loosens"
)


def _pattern(_context: click.Context, _option: click.Parameter, text: str | None) -> object:
    try:
        return re.compile(text.encode()) if text is not None else None
    except re.error as error:
        raise click.BadParameter(f"{text!r} is no regular expression: {error}") from error


@click.command()
@click.argument("image", type=click.Path(path_type=Path))
@click.option("--machine", type=click.Choice(MACHINE_NAMES), help="Not the first one that fits.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=1),
    default=300.0,
    show_default=True,
    metavar="SECONDS",
    help="Stop after so long.",
)
@click.option(
    "--until",
    callback=_pattern,
    metavar="REGEX",
    help="Stop as soon as the console shows this; fail where it never does.",
)
@click.option("--online", is_flag=True, help="Let the Pi reach this machine and its networks.")
@click.option("--append", default="", metavar="WORDS", help="Words for the kernel's command line.")
@with_console
def boot(
    console: Console,
    image: Path,
    machine: str | None,
    timeout: float,
    until: re.Pattern[bytes] | None,
    online: bool,
    append: str,
) -> int:
    """Boot IMAGE in QEMU on a throw-away copy and show its console; IMAGE is not changed."""
    if image.is_file() and is_compressed(image):
        raise ImageError(f"{image} is compressed", "unpack it first, or build without --compress")
    console.note(f"booting {image.name}; {LIMITS}")
    request = BootRequest(
        image=image,
        machine=machine or "",
        timeout_seconds=timeout,
        until=until,
        online=online,
        words=tuple(append.split()),
    )
    result = boot_image(request, _stream(console))
    return _tell(console, image, request, result)


def _stream(console: Console) -> Callable[[bytes], None]:
    """Return what shows the Pi's console: on stdout, or on stderr where that holds JSON."""
    stream = sys.stderr if console.as_json else sys.stdout
    if console.as_json and console.quiet:
        return lambda _: None

    def show(text: bytes) -> None:
        stream.buffer.write(text)
        stream.buffer.flush()

    return show


def _tell(console: Console, image: Path, request: BootRequest, result: BootResult) -> int:
    """Say how the boot ended; 5 where the Pi did not do what was asked of it."""
    good = result.outcome == "matched" or (
        request.until is None and result.outcome in ("powered off", "timed out")
    )
    if console.as_json:
        console.emit({"image": str(image), "ok": good, **dataclasses.asdict(result)})
    shown = f": {result.shown}" if result.shown else ""
    ended = f"{result.outcome} on {result.machine} after {result.seconds} s{shown}"
    again = f", {result.boots} power-ons" if result.boots > 1 else ""
    console.note(f"\n{ended}{again}")
    if good:
        return 0
    if not console.as_json:
        console.fail(ImageError(_fault(request, result), "see the console above"))
    return ImageError.exit_code


def _fault(request: BootRequest, result: BootResult) -> str:
    if result.outcome == "panicked":
        return "the kernel panicked"
    if result.outcome == "kept restarting":
        return f"the Pi started {result.boots} times without end"
    sought = request.until.pattern.decode() if request.until else ""
    return f"the console never showed {sought!r}"
