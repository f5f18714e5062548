"""What became of each card, for people as soon as it is known and for programs at the end."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from imagebuilder.account import why_of
from imagebuilder.errors import RpiImageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from imagebuilder.card import CardOptions, CardReport
    from imagebuilder.console import Console
    from imagebuilder.flash import CardOutcome


_INTERRUPTED = 130


@dataclass(kw_only=True)
class Teller:
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
    """Give the stable keys that scripts rely on."""
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
