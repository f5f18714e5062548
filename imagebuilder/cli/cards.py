"""What stands between the flash commands and the library: choosing, confirming, reporting."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imagebuilder.cli.session import choose_nodes
from imagebuilder.devices.blockdev import RIGHTS_HINT, unmounted
from imagebuilder.devices.device import describe
from imagebuilder.devices.inventory import device_holding, list_devices, load_device
from imagebuilder.devices.safety import (
    ProtectedFile,
    WritePolicy,
    may_unmount,
    mounted_parts,
    only_mounted,
    refusals,
    refuse,
)
from imagebuilder.errors import ImageError, InputError, RefusedError, RpiImageError
from imagebuilder.files import has_file
from imagebuilder.flash.flasher import why_of
from imagebuilder.flash.ledger import NodeTakenError
from imagebuilder.images.compress import SUFFIXES
from imagebuilder.images.formats import is_compressed
from imagebuilder.model import BaseImage, ImageSource
from imagebuilder.progress import human_bytes

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable, Sequence

    from imagebuilder.cli.console import Console
    from imagebuilder.cli.options import NodeFlags
    from imagebuilder.cli.session import Session
    from imagebuilder.devices.device import Device
    from imagebuilder.flash.content import CardContent
    from imagebuilder.flash.flasher import CardOutcome
    from imagebuilder.flash.writer import CardOptions, CardReport
    from imagebuilder.model import Classroom, NodeSettings

BUILD_FOLDER = Path("build")


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowances:
    """What the user allowed by flags."""

    yes: bool = False
    loop: bool = False
    large: bool = False
    unmount: bool = False


def open_image(session: Session, flags: NodeFlags) -> BaseImage:
    """Return the image to write as it is: a raw file where it lies, another from the cache.

    --image is a file, else a name of the catalogue or a URL, under the rules of `build`; without it
    the one image in build/ is taken. With --sha256 a raw file goes through the cache too, which
    compares it.
    """
    path = Path(flags.image) if flags.image else _only_build(session.console)
    if not has_file(path):
        return _open_other_image(session, flags, path)
    sha256 = flags.sha256 or ""
    if sha256 or is_compressed(path):
        unchecked = flags.no_checksum
        return session.obtain(ImageSource(path.name, file=path, sha256=sha256, unchecked=unchecked))
    size_bytes = path.stat().st_size
    if size_bytes == 0:
        raise ImageError(f"{path} is empty", "fetch or build it again")
    return BaseImage(path, "", size_bytes, path.name)


def _open_other_image(session: Session, flags: NodeFlags, path: Path) -> BaseImage:
    from imagebuilder.settings.catalog import find_image
    from imagebuilder.settings.schema.documents import classify_image

    text = flags.image or ""
    if path.is_block_device():
        raise InputError(f"{path} is a device, not an image", "copy it into a file first")
    if classify_image(text) == "file":
        raise InputError(f"there is no image {path}", "give --image FILE, or build one")
    return session.obtain(
        find_image(
            text,
            sha256=flags.sha256 or "",
            unchecked=flags.no_checksum,
            folders=flags.profiles,
        )
    )


def _only_build(console: Console) -> Path:
    images = _built(BUILD_FOLDER)
    if not images:
        raise InputError(
            f"there is no image in {BUILD_FOLDER}/", "give --image FILE, or --config FILE --node H"
        )
    if len(images) == 1:
        return images[0]
    names = ", ".join(str(path) for path in images)
    for number, path in enumerate(images, 1):
        console.note(f"{number}  {path}")
    answer = console.ask("Which image (number)?")
    if answer.isdigit() and 1 <= int(answer) <= len(images):
        return images[int(answer) - 1]
    raise InputError(f"there are {len(images)} images: {names}", "give one with --image FILE")


def _built(folder: Path) -> list[Path]:
    """Return the images in a folder; of one that lies there raw and compressed, the raw one."""
    found: dict[str, Path] = {}
    for suffix in ("", *(f".{packed}" for packed in SUFFIXES)):
        for path in sorted(folder.glob(f"*.img{suffix}")):
            found.setdefault(path.name.removesuffix(suffix), path)
    return [found[name] for name in sorted(found)]


def keep_safe(session: Session, *files: Path) -> tuple[ProtectedFile, ...]:
    """Name what no target may hold: the image, the classroom and the cache."""
    cache = session.cache.folder
    protected = [
        ProtectedFile(f"the cache ({cache})", device_holding(cache), str(cache.resolve())),
        *(_keep_file(file) for file in files),
    ]
    return tuple(protected)


def _keep_file(file: Path) -> ProtectedFile:
    status = file.stat()
    inode = f"{status.st_dev}/{status.st_ino}"
    return ProtectedFile(str(file), device_holding(file.absolute()), str(file.resolve()), inode)


def load_nodes(
    session: Session, flags: NodeFlags, names: str
) -> tuple[Classroom, tuple[NodeSettings, ...]]:
    """Load the classroom that the flags describe and the nodes they name, each once."""
    classroom = session.classroom(flags)
    nodes = choose_nodes(classroom, names)
    times = Counter(node.hostname for node in nodes)
    if twice := [name for name, count in times.items() if count > 1]:
        raise RefusedError(f"{', '.join(twice)} is given twice", "name each node once")
    return classroom, nodes


def choose_targets(
    paths: Sequence[str], policy: WritePolicy, allowed: Allowances, console: Console
) -> tuple[Device, ...]:
    """Return the devices, every one of them free of reasons against it; raises RefusedError."""
    found: list[Device] = []
    for path in paths:
        device = load_device(path)
        own = replace(policy, taken=tuple(other.major_minor for other in found))
        if only_mounted(device, own) and _wants_unmount(device, allowed, console):
            _need_right(device)
            device = unmounted(device)
        refuse(device, own)
        _need_right(device)
        found.append(device)
    return tuple(found)


def _need_right(device: Device) -> None:
    """Find out before a download, not after it, that only root may write the device."""
    if not os.access(device.path, os.W_OK):
        raise RefusedError(f"{device.path} cannot be written by you", RIGHTS_HINT)


def _wants_unmount(device: Device, allowed: Allowances, console: Console) -> bool:
    if not (mounted_parts(device) and may_unmount(device)):
        return False
    if allowed.unmount or allowed.yes:
        return allowed.unmount
    where = ", ".join(point for _, point in mounted_parts(device))
    return console.ask(f"{device.path} is mounted on {where}; unmount? (y/n)", "n").lower() == "y"


def confirm(targets: Sequence[tuple[Device, str]], allowed: Allowances, console: Console) -> None:
    """Show what will be overwritten and have the device named; raises RefusedError otherwise."""
    for device, what in targets:
        console.note(f"{what} goes onto {describe(device)}, which holds {_content(device)}")
    if allowed.yes:
        return
    names = " ".join(device.path for device, _ in targets)
    agree(f"All on it will be lost. Type {names} to go on:", names, console)


def pick_node(
    device: Device,
    content: CardContent,
    enter: Callable[[CardContent, Device], None],
    *,
    spare: deque[NodeSettings],
    compose: Callable[[NodeSettings, Device], CardContent],
    console: Console,
) -> CardContent:
    """Return the content that `enter` accepts: this one, or that of the next free node."""
    while True:
        try:
            enter(content, device)
        except NodeTakenError as error:
            if not spare:
                raise
            console.warn(f"{content.node} is passed over: {error.message}")
            content = compose(spare.popleft(), device)
        else:
            return content


def agree(question: str, name: str, console: Console) -> None:
    """Have `name` typed; raises RefusedError where it is not, or where nobody is there."""
    try:
        typed = console.confirm_by_name(question, name)
    except InputError as error:
        raise RefusedError(error.message, error.hint) from error
    if not typed:
        raise RefusedError(f"{name} was not confirmed", "nothing was written")


def _content(device: Device) -> str:
    parts = [" ".join(w for w in (p.fstype, p.label) if w) or "data" for p in device.parts]
    return ", ".join(parts) or "nothing known"


def devices_as_rows(policy: WritePolicy) -> list[tuple[Device, tuple[str, ...]]]:
    """Return every device with the reasons against it."""
    return [
        (device, tuple(refusal.message for refusal in refusals(device, policy)))
        for device in list_devices()
    ]


def device_row(device: Device) -> tuple[str, ...]:
    """Return the table's cells of a device."""
    name = f"{device.vendor} {device.model}".strip()
    size = human_bytes(device.size_bytes)
    return (device.path, size, device.transport, name, device.serial, device.slot)


def device_as_json(device: Device, reasons: tuple[str, ...]) -> dict[str, Any]:
    """Return the stable keys that scripts rely on."""
    return {
        "path": device.path,
        "size_bytes": device.size_bytes,
        "transport": device.transport,
        "vendor": device.vendor,
        "model": device.model,
        "serial": device.serial,
        "slot": device.slot,
        "removable": device.removable,
        "refused": list(reasons),
    }


_INTERRUPTED = 130


@dataclass(kw_only=True)
class OutcomeReporter:
    """Says what became of a card as soon as that is known; used as `finished` of flash_cards.

    `settle` notes the outcome in the ledger. Words that cannot be printed are an error only at the
    end: one raised here would stop the other cards.
    """

    settle: Callable[[CardOutcome], None]
    console: Console
    options: CardOptions
    _lost: OSError | RpiImageError | None = field(init=False, default=None)

    def __call__(self, outcome: CardOutcome) -> None:
        """Note the outcome, then say it."""
        self.settle(outcome)
        try:
            self._tell(outcome)
        except (OSError, RpiImageError) as error:
            self._lost = self._lost or error

    def end(self, outcomes: Sequence[CardOutcome]) -> int:
        """Print the JSON, where that is asked for, and give the exit code."""
        if self._lost:
            raise self._lost
        show_json(outcomes, self.console)
        codes = [outcome.error.exit_code for outcome in outcomes if outcome.error]
        return max(codes, default=0)

    def _tell(self, outcome: CardOutcome) -> None:
        path, report = outcome.job.device.path, outcome.report
        if report and not self.console.as_json:
            self.console.result(_sentence(outcome, report))
        if report and not report.table_reread:
            self.console.warn(f"{path}: pull it and put it in again to see its parts")
        if report and self.options.eject and not report.ejected:
            self.console.warn(f"{path} is done, but was not ejected: take it out by hand")
        if outcome.error:
            self.console.fail(outcome.error)


def show_json(outcomes: Sequence[CardOutcome], console: Console) -> None:
    """Print what became of every card, where JSON is asked for."""
    if console.as_json:
        console.emit({"cards": [outcome_as_json(outcome) for outcome in outcomes]})


def show_refusal(targets: Sequence[str], error: RpiImageError, console: Console) -> None:
    """Print, where JSON is asked for, why no card was begun."""
    why = {"error": error.message, "hint": error.hint, "exit_code": error.exit_code}
    told = {"node": "", "state": "refused", "slot": "", "serial": "", **why}
    if console.as_json and targets:
        console.emit({"cards": [{"device": path, **told} for path in targets]})


def outcome_as_json(outcome: CardOutcome) -> dict[str, Any]:
    """Return the stable keys that scripts rely on."""
    device, report, error = outcome.job.device, outcome.report, outcome.error
    facts: dict[str, Any] = {
        "device": device.path,
        "node": outcome.job.node,
        "state": str(outcome.stage) if not outcome.report else "done",
        "slot": device.slot,
        "serial": device.serial,
        "error": why_of(outcome) if not report else "",
        "hint": error.hint if error else "",
        "exit_code": error.exit_code if error else _INTERRUPTED * (not report),
    }
    if report:
        facts |= {
            "digest": report.digest,
            "set_bytes": report.set_bytes,
            "written_bytes": report.written_bytes,
            "image_bytes": outcome.job.source.size_bytes,
            "seconds": round(report.seconds, 3),
            "write_seconds": round(report.write_seconds, 3),
            "verified": report.verified,
            "ejected": report.ejected,
        }
    return facts


def _sentence(outcome: CardOutcome, report: CardReport) -> str:
    node = f" is {outcome.job.node}" if outcome.job.node else ""
    proven = "verified" if report.verified else "not verified"
    rate = report.written_bytes / 10**6 / max(report.write_seconds, 0.001)
    return (
        f"{outcome.job.device.path}{node}: {report.written_bytes / 10**6:.0f} MB written and "
        f"{proven} in {report.seconds:.1f} s ({rate:.0f} MB/s)"
    )
