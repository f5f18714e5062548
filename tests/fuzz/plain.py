"""Fuzz without instrumentation: random changes of seeds, kept inputs, and of what came of them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from tests.fuzz import corpus
from tests.fuzz.target import FindingError, Judge

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fuzz.target import Target

_POOL = 500


@dataclass
class Finding(Exception):  # noqa: N818 - libFuzzer ends at it
    """An input that did what no input may do, and what that was."""

    target: str
    data: bytes
    reason: str

    def __str__(self) -> str:
        again = f"python -m tests.fuzz --case {self.target} {corpus.packed(self.data)}"
        return f"{self.target}: {self.reason}\nagain: {again}"


def kept_inputs(target: Target) -> list[bytes]:
    """Return the seeds and the kept inputs of a target."""
    return [*target.seeds(), *corpus.load(target.name).values()]


def fuzz(target: Target, folder: Path, seconds: float, seed: int) -> tuple[int, Finding | None]:
    """Try changed inputs for some time; return how many, and the first finding."""
    judge, rng = Judge(target, folder), Random(f"{seed} {target.name}")
    pool = kept_inputs(target)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        data = target.mutated(rng.choice(pool), rng)
        if found := judged(judge, data):
            return judge.executions, found
        # Changes of changes reach further than those of seeds.
        if rng.random() < 0.1:
            place = rng.randrange(_POOL)
            pool[place : place + 1] = [data]
    return judge.executions, None


def judged(judge: Judge, data: bytes) -> Finding | None:
    """Return what is wrong with an input; None if nothing is."""
    try:
        judge.try_one(data)
    except FindingError as error:
        return Finding(judge.target.name, data, str(error))
    return None
