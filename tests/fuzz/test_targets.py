"""Every reader of foreign bytes, with the kept inputs and with some seconds of new ones.

`make fuzz` tries more of them, guided by coverage.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from tests.fuzz import corpus, plain
from tests.fuzz.target import FindingError, Judge, Target
from tests.fuzz.targets import TARGETS

ROOT = Path(__file__).parents[2]
# All targets together have 10 seconds in `make test`. Each run tries the same, and fails by no
# chance; `make fuzz` takes another seed each time.
SECONDS = 10 / len(TARGETS)
SEED = 1


@pytest.mark.parametrize("name", TARGETS)
def test_no_kept_input_does_harm(name: str, tmp_path: Path) -> None:
    judge = Judge(TARGETS[name], tmp_path)
    findings = [plain.judged(judge, data) for data in plain.kept_inputs(TARGETS[name])]
    assert not list(filter(None, findings)), "run `make fuzz`, which prints what it finds"
    assert judge.executions == len(findings)


@pytest.mark.parametrize("name", TARGETS)
def test_no_new_input_does_harm(name: str, tmp_path: Path) -> None:
    count, finding = plain.fuzz(TARGETS[name], tmp_path, SECONDS, SEED)
    assert not finding, f"seed {SEED}: {finding}"
    assert count > 0


@pytest.mark.parametrize("name", TARGETS)
def test_changes_follow_from_the_seed_and_are_many(name: str) -> None:
    target = TARGETS[name]

    def changes() -> list[bytes]:
        rng = Random(7)
        return [target.mutated(target.seeds()[0], rng) for _ in range(40)]

    assert changes() == changes()
    assert len(set(changes())) > 15


def test_the_kept_inputs_are_small() -> None:
    files = list(corpus.FOLDER.iterdir())
    assert {path.stem for path in files} == set(TARGETS)
    assert sum(path.stat().st_size for path in files) < 200_000


def _fails(data: bytes, _folder: Path) -> None:
    if data == b"bug":
        raise KeyError("of our own")
    assert data != b"wrong"


def test_what_is_wrong_is_found_and_can_be_tried_again(tmp_path: Path) -> None:
    target = Target("x", lambda: [b"well"], lambda data, _: data, _fails)
    judge = Judge(target, tmp_path)
    assert plain.judged(judge, b"well") is None
    for data in (b"bug", b"wrong"):
        finding = plain.judged(judge, data)
        assert finding is not None
        assert corpus.unpacked(str(finding).split()[-1]) == data
    with pytest.raises(FindingError, match="of our own"):
        judge.try_one(b"bug")


def test_the_driver_runs_without_instrumentation() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", "--plain", "--seconds", "0.5", "--seed", "7", "csv"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.startswith("seed 7, by chance\n")
    assert done.stdout.split()[-1] == "well"
    assert done.returncode == 0
