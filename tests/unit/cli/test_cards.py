"""What is said of each card: at once, once, and without harm to the others."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import pytest

from imagebuilder.cli.cards import CardReporter
from imagebuilder.cli.console import Console
from imagebuilder.devices.device import Device
from imagebuilder.errors import WriteError
from imagebuilder.flash.flasher import CardOutcome
from imagebuilder.flash.run import FlashResult
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


def make(*, eject: bool = False, as_json: bool = False) -> tuple[CardReporter, Console]:
    console = Console(out=io.StringIO(), err=io.StringIO(), as_json=as_json)
    return CardReporter(console=console, options=CardOptions(eject=eject)), console


def text(stream: object) -> str:
    return cast("io.StringIO", stream).getvalue()


def test_a_card_is_told_as_soon_as_it_ends_and_only_once() -> None:
    card_reporter, console = make()
    card_reporter(GOOD)
    assert text(console.out).startswith("/dev/sdb: 0 MB written and verified")
    card_reporter(BAD)
    said = "error: /dev/sdc: write failed\nhint: replace it\n"
    assert text(console.err) == said
    assert card_reporter.end(FlashResult((GOOD, BAD), 7)) == 7
    assert (text(console.out).count("\n"), text(console.err)) == (1, said)


def test_json_comes_at_the_end_in_the_order_of_the_cards() -> None:
    card_reporter, console = make(as_json=True)
    card_reporter(BAD)
    card_reporter(GOOD)
    assert text(console.out) == ""
    card_reporter.end(FlashResult((GOOD, BAD), 7))
    cards = json.loads(text(console.out))["cards"]
    assert [card["device"] for card in cards] == ["/dev/sdb", "/dev/sdc"]
    assert text(console.err).count("write failed") == 1


@pytest.mark.parametrize(
    ("eject", "ejected", "warns"), [(True, False, True), (True, True, False), (False, False, False)]
)
def test_a_card_that_was_not_ejected_is_named(eject: bool, ejected: bool, warns: bool) -> None:
    card_reporter, console = make(eject=eject)
    card_reporter(replace(GOOD, report=replace(REPORT, ejected=ejected)))
    assert ("/dev/sdb is done, but was not ejected" in text(console.err)) is warns


def test_a_lost_output_ends_the_run_but_no_card() -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(28, text)

    console = Console(out=Full(), err=io.StringIO())
    card_reporter = CardReporter(console=console, options=CardOptions())
    card_reporter(GOOD)
    card_reporter(BAD)
    with pytest.raises(OSError, match="28"):
        card_reporter.end(FlashResult((GOOD, BAD), 7))
