"""The command `boot`."""

from __future__ import annotations

import dataclasses
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from imagebuilder.cli_options import voiced
from imagebuilder.emulator import BootRequest, boot_image
from imagebuilder.errors import ImageError
from imagebuilder.firmware import MACHINE_NAMES
from imagebuilder.forms import is_compressed

if TYPE_CHECKING:
    from collections.abc import Callable

    from imagebuilder.console import Console
    from imagebuilder.emulator import BootResult

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
@voiced
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
    """Give what shows the Pi's console: on stdout, or on stderr where that holds JSON."""
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
