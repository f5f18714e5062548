"""Show devices, cards and comparisons as tables, text or JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from imagebuilder.errors import RpiImageError, WriteError
from imagebuilder.flash.jobs import reason_of
from imagebuilder.flash.verify import check_length
from imagebuilder.progress import human_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from imagebuilder.cli.console import Console
    from imagebuilder.devices.device import Device
    from imagebuilder.flash.flasher import CardOutcome
    from imagebuilder.flash.run import FlashResult
    from imagebuilder.flash.verify import Comparison
    from imagebuilder.flash.writer import CardOptions, CardReport

_INTERRUPTED = 130
_MOST_SHOWN = 10


# ---- devices


def show_devices(found: Sequence[tuple[Device, tuple[str, ...]]], console: Console) -> None:
    """Print every device with the reasons to refuse it."""
    if console.as_json:
        console.emit({"devices": [device_as_json(device, why) for device, why in found]})
        return
    head = ("device", "size", "by", "model", "serial", "slot", "may be written")
    console.table(head, [(*_device_row(device), "; ".join(why) or "yes") for device, why in found])


def _device_row(device: Device) -> tuple[str, ...]:
    name = f"{device.vendor} {device.model}".strip()
    size = human_bytes(device.size_bytes)
    return (device.path, size, device.transport, name, device.serial, device.slot)


def device_as_json(device: Device, reasons: tuple[str, ...]) -> dict[str, Any]:
    """Return the JSON; its keys are stable."""
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


# ---- written cards


@dataclass(kw_only=True)
class CardReporter:
    """Reports each card as soon as it ends; used as `finished` of a FlashRun.

    An error while printing is raised at the end only: raised at once, it would stop other cards.
    """

    console: Console
    options: CardOptions
    _lost: OSError | RpiImageError | None = field(init=False, default=None)

    def __call__(self, outcome: CardOutcome) -> None:
        """Report the result of a card."""
        try:
            self._report(outcome)
        except (OSError, RpiImageError) as error:
            self._lost = self._lost or error

    def end(self, result: FlashResult) -> int:
        """Print the JSON if requested, and return the exit code."""
        if self._lost:
            raise self._lost
        if self.console.as_json:
            self.console.emit({"cards": [outcome_as_json(each) for each in result.outcomes]})
        return result.exit_code

    def _report(self, outcome: CardOutcome) -> None:
        path, report = outcome.job.device.path, outcome.report
        if report and not self.console.as_json:
            self.console.result(_sentence(outcome, report))
        if report and not report.table_reread:
            self.console.warn(f"{path}: insert the card again to see its partitions")
        if report and self.options.eject and not report.ejected:
            self.console.warn(f"{path} is done, but was not ejected: remove it by hand")
        if outcome.error:
            self.console.fail(outcome.error)


def show_refusal(targets: Sequence[str], error: RpiImageError, console: Console) -> None:
    """Print why no card was begun, if JSON is requested."""
    why = {"error": error.message, "hint": error.hint, "exit_code": error.exit_code}
    card = {"node": "", "state": "refused", "slot": "", "serial": "", **why}
    if console.as_json and targets:
        console.emit({"cards": [{"device": path, **card} for path in targets]})


def outcome_as_json(outcome: CardOutcome) -> dict[str, Any]:
    """Return the JSON; its keys are stable."""
    device, report, error = outcome.job.device, outcome.report, outcome.error
    fields: dict[str, Any] = {
        "device": device.path,
        "node": outcome.job.node,
        "state": str(outcome.stage) if not outcome.report else "done",
        "slot": device.slot,
        "serial": device.serial,
        "error": reason_of(outcome) if not report else "",
        "hint": error.hint if error else "",
        "exit_code": error.exit_code if error else _INTERRUPTED * (not report),
    }
    if report:
        fields |= {
            "digest": report.digest,
            "set_bytes": report.set_bytes,
            "written_bytes": report.written_bytes,
            "image_bytes": outcome.job.source.size_bytes,
            "seconds": round(report.seconds, 3),
            "write_seconds": round(report.write_seconds, 3),
            "verified": report.verified,
            "ejected": report.ejected,
        }
    return fields


def _sentence(outcome: CardOutcome, report: CardReport) -> str:
    node = f" is {outcome.job.node}" if outcome.job.node else ""
    proven = "verified" if report.verified else "not verified"
    rate = report.written_bytes / 10**6 / max(report.write_seconds, 0.001)
    return (
        f"{outcome.job.device.path}{node}: {report.written_bytes / 10**6:.0f} MB written and "
        f"{proven} in {report.seconds:.1f} s ({rate:.0f} MB/s)"
    )


# ---- compared cards


def show_owner(target: Path, fields: dict[str, Any], console: Console) -> int:
    """Print whose card this is, and return the exit code."""
    if console.as_json:
        console.emit(fields)
    else:
        console.result(f"{target} is {fields['hostname']} ({fields['generation']})")
        for key in ("arch", "address", "shack", "config_hash"):
            console.result(f"{key}: {fields[key]}")
    return 0


def show_comparison(target: Path, found: Comparison, console: Console) -> int:
    """Print the differences, and return the exit code. Raise WriteError if a part is missing."""
    if console.as_json:
        console.emit(_comparison_as_json(target, found))
    check_length(target, found)
    if not console.as_json:
        _print_comparison(target, found, console)
    return 0 if found.same else WriteError.exit_code


def _comparison_as_json(target: Path, found: Comparison) -> dict[str, Any]:
    return {
        "device": str(target),
        "same": found.same,
        "compared_bytes": found.compared_bytes,
        "missing_bytes": found.missing_bytes,
        "files": list(found.files),
        "ranges": [
            {"start_bytes": r.start_bytes, "end_bytes": r.end_bytes, "partition": r.partition}
            for r in found.ranges
        ],
    }


def _print_comparison(target: Path, found: Comparison, console: Console) -> None:
    if found.same:
        console.result(f"{target}: no differences in {human_bytes(found.compared_bytes)}")
        return
    for path in found.files:
        console.result(f"differs: {path}")
    for r in found.ranges[:_MOST_SHOWN]:
        where = f"partition {r.partition}" if r.partition else "outside the partitions"
        console.result(f"differs: bytes {r.start_bytes} to {r.end_bytes} ({where})")
    if len(found.ranges) > _MOST_SHOWN:
        console.result(f"and {len(found.ranges) - _MOST_SHOWN} more ranges")
