"""What is said of each card: at once, once, and without harm to the others."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import pytest

from imagebuilder.cli.cards import OutcomeReporter
from imagebuilder.cli.console import Console
from imagebuilder.devices.device import Device
from imagebuilder.errors import WriteError
from imagebuilder.flash.flasher import CardOutcome
from imagebuilder.flash.writer import CardJob, CardOptions, Stage
from tests.lib.reports import REPORT

if TYPE_CHECKING:
    from imagebuilder.disk.patched import PatchedImage


class NoImage:
    size_bytes = 1


def job(path: str) -> CardJob:
    device = Device(path=path, major_minor=path, size_bytes=1)
    return CardJob(device=device, source=cast("PatchedImage", NoImage()), write_set=(), prove=print)


GOOD = CardOutcome(job=job("/dev/sdb"), stage=Stage.DONE, report=REPORT)
BAD = CardOutcome(
    job=job("/dev/sdc"), stage=Stage.WRITE, error=WriteError("/dev/sdc: write failed", "replace it")
)


def make(*, eject: bool = False, as_json: bool = False) -> tuple[OutcomeReporter, Console]:
    console = Console(out=io.StringIO(), err=io.StringIO(), as_json=as_json)
    seen: list[CardOutcome] = []
    outcome_reporter = OutcomeReporter(
        settle=seen.append, console=console, options=CardOptions(eject=eject)
    )
    return outcome_reporter, console


def text(stream: object) -> str:
    return cast("io.StringIO", stream).getvalue()


def test_a_card_is_told_as_soon_as_it_ends_and_only_once() -> None:
    outcome_reporter, console = make()
    outcome_reporter(GOOD)
    assert text(console.out).startswith("/dev/sdb: 0 MB written and verified")
    outcome_reporter(BAD)
    said = "error: /dev/sdc: write failed\nhint: replace it\n"
    assert text(console.err) == said
    assert outcome_reporter.end([GOOD, BAD]) == 7
    assert (text(console.out).count("\n"), text(console.err)) == (1, said)


def test_json_comes_at_the_end_in_the_order_of_the_cards() -> None:
    outcome_reporter, console = make(as_json=True)
    outcome_reporter(BAD)
    outcome_reporter(GOOD)
    assert text(console.out) == ""
    outcome_reporter.end([GOOD, BAD])
    cards = json.loads(text(console.out))["cards"]
    assert [card["device"] for card in cards] == ["/dev/sdb", "/dev/sdc"]
    assert text(console.err).count("write failed") == 1


@pytest.mark.parametrize(
    ("eject", "ejected", "warns"), [(True, False, True), (True, True, False), (False, False, False)]
)
def test_a_card_that_was_not_ejected_is_named(eject: bool, ejected: bool, warns: bool) -> None:
    outcome_reporter, console = make(eject=eject)
    outcome_reporter(replace(GOOD, report=replace(REPORT, ejected=ejected)))
    assert ("/dev/sdb is done, but was not ejected" in text(console.err)) is warns


def test_a_lost_output_ends_the_run_but_no_card() -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(28, text)

    noted: list[CardOutcome] = []
    console = Console(out=Full(), err=io.StringIO())
    outcome_reporter = OutcomeReporter(settle=noted.append, console=console, options=CardOptions())
    outcome_reporter(GOOD)
    outcome_reporter(BAD)
    assert noted == [GOOD, BAD]
    with pytest.raises(OSError, match="28"):
        outcome_reporter.end([GOOD, BAD])
