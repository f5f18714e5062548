"""The commands `build`, `inspect` and `boot`."""

from __future__ import annotations

import dataclasses
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from imagebuilder.boot.emulator import BootRequest, boot_image, fault_of
from imagebuilder.boot.firmware import MACHINE_NAMES
from imagebuilder.build.inspect import ImageReport, inspect_file
from imagebuilder.build.manifest import manifest_of, plan_as_json
from imagebuilder.build.node import NodeBuild
from imagebuilder.build.packages import PackageIndex
from imagebuilder.cli.help import Command
from imagebuilder.cli.options import dry_run, node_options, output_option, with_console
from imagebuilder.cli.process import allow_helpers
from imagebuilder.cli.session import Session
from imagebuilder.devices import access
from imagebuilder.errors import ImageError
from imagebuilder.images.archives.compress import SUFFIXES
from imagebuilder.progress import human_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from imagebuilder.boot.emulator import BootResult
    from imagebuilder.build.node import BuiltNode
    from imagebuilder.cli.console import Console
    from imagebuilder.model import NodePlan
    from imagebuilder.settings.flags import NodeFlags


@click.command(cls=Command)
@node_options
@output_option("File (.img, .img.xz …), or folder for <hostname>.img.", "build")
@click.option(
    "--compress",
    type=click.Choice(SUFFIXES),
    help="Compress the image; default: by the suffix of the file.",
)
@click.option("--bmap", is_flag=True, help="Write a block map for bmaptool next to the image.")
@click.option("--digest", is_flag=True, help="Record the SHA-256 of the image in its manifest.")
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
    session = Session(console=console, allow_http=flags.allow_http)
    index = PackageIndex(session.cache, console)
    job = NodeBuild(
        output=output, compress=compress or "", digest=digest, reporter=console, index=index
    )
    node = session.node(flags, write=not dry_run)
    if dry_run:
        _show_plan(console, job.plan(node, session.find, session.epoch))
        return
    built = job.write(node, session.obtain(node.image), session.epoch)
    _show_written(console, built)
    if bmap:
        console.note(f"block map: {built.write_bmap()}")


@click.command(cls=Command)
@click.argument("image", type=click.Path(path_type=Path, readable=False))
@with_console
def inspect(console: Console, image: Path) -> None:
    """Show the content of IMAGE: a file, a compressed file, a device or a mounted card."""
    allow_helpers()
    report = inspect_file(image, Session(console=console).cache, console, access.open_device)
    if console.as_json:
        console.emit(report.as_json())
        return
    for name, value in _lines(report):
        console.result(f"{name + ':':<15}{value}")


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
    console.result(f"{plan.hostname}: {plan.reach}")
    rows = [
        (edit.path, "remove" if edit.data is None else f"{len(edit.data)} B") for edit in plan.edits
    ]
    console.table(("file on the boot partition", "what"), rows)


def _show_written(console: Console, built: BuiltNode) -> None:
    composition, written = built.composition, built.written
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


def _lines(report: ImageReport) -> Iterator[tuple[str, str]]:
    fields = report.as_json()
    for part in report.partitions:
        size = human_bytes(part.size_bytes)
        yield f"partition {part.number}", f"{size} from byte {part.start_bytes}, type {part.kind}"
    states = {True: ", clean", False: ", not cleanly unmounted", None: ""}
    free = human_bytes(report.fat_free_bytes)
    yield "boot", f"{report.fat_type or 'mounted'}, {free} free{states[report.fat_clean]}"
    names = {"arch": "arch", "docker_opts": "docker opts", "shack": "shack", "address": "address"}
    names |= {"user": "user", "vendor_logins": "vendor logins", "reach": "reach"}
    yield "generation", report.generation or "unknown"
    yield "hostname", report.hostname or "unknown"
    for net in report.wifi:
        yield "wifi", f"{net.ssid} ({net.country or 'no country'}{', hidden' * net.hidden})"
    for key, name in names.items():
        if fields[key]:
            yield name, fields[key]
    if cluster := fields["cluster"]:
        role = "consul server" if cluster["consul_server"] == "1" else "consul client"
        yield "cluster", f"{role} {cluster['consul_image']}, {cluster['swarm_image']}"
    if fields["config_hash"]:
        yield "configuration", fields["config_hash"]
    for key, value in (report.status or {}).items():
        yield f"pi {key}", str(value)


def _pattern(_context: click.Context, _option: click.Parameter, text: str | None) -> object:
    try:
        return re.compile(text.encode()) if text is not None else None
    except re.error as error:
        raise click.BadParameter(f"{text!r} is not a regular expression: {error}") from error


@click.command(cls=Command)
@click.argument("image", type=click.Path(path_type=Path))
@click.option(
    "--machine",
    type=click.Choice(MACHINE_NAMES),
    help="Machine of QEMU; default: the first that fits.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=1),
    default=300.0,
    show_default=True,
    metavar="SECONDS",
    help="Stop after this time.",
)
@click.option(
    "--until",
    callback=_pattern,
    metavar="REGEX",
    help="Stop when the console shows this; fail if it does not.",
)
@click.option("--online", is_flag=True, help="Let the Pi reach this machine and its networks.")
@click.option(
    "--append", default="", metavar="WORDS", help="Words to add to the kernel command line."
)
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
    """Boot a temporary copy of IMAGE in QEMU and show its console."""
    request = BootRequest(
        image=image,
        machine=machine or "",
        timeout_seconds=timeout,
        until=until,
        online=online,
        words=tuple(append.split()),
    )
    result = boot_image(request, _stream(console), console)
    return _show_boot(console, request, result)


def _stream(console: Console) -> Callable[[bytes], None]:
    """Return a function that prints the Pi's console to stdout, or to stderr with --json."""
    stream = sys.stderr if console.as_json else sys.stdout
    if console.as_json and console.quiet:
        return lambda _: None

    def show(text: bytes) -> None:
        stream.buffer.write(text)
        stream.buffer.flush()

    return show


def _show_boot(console: Console, request: BootRequest, result: BootResult) -> int:
    """Print the result of a boot; return exit code 5 if it failed."""
    fault = fault_of(request, result)
    if console.as_json:
        fields = {"image": str(request.image), "ok": not fault, **dataclasses.asdict(result)}
        console.emit(fields)
    shown = f": {result.shown}" if result.shown else ""
    ended = f"{result.outcome} on {result.machine} after {result.seconds} s{shown}"
    again = f", {result.boots} starts" if result.boots > 1 else ""
    console.note(f"\n{ended}{again}")
    if fault and not console.as_json:
        console.fail(ImageError(fault, "see the console above"))
    return ImageError.exit_code if fault else 0
