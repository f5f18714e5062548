"""Fuzz the readers of foreign bytes: `python -m tests.fuzz [--seconds N] [TARGET…]`.

With atheris guided by coverage, else by chance alone. What is found is printed as a command that
tries it again, and fails the run.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from random import SystemRandom
from tempfile import TemporaryDirectory

from tests.fuzz import corpus, plain
from tests.fuzz.folders import BUILD, fast_folder
from tests.fuzz.target import Judge
from tests.fuzz.targets import TARGETS

# Of libFuzzer: wall time, so that a busy machine is no finding (the judge counts CPU); and room for
# what instruments the program.
_LIMITS = ("-timeout=120", "-rss_limit_mb=700", "-max_len=16384", "-len_control=0")
# Of the kept inputs of one target, as they are written: all together are below 200 KB.
MOST_KEPT_BYTES = 10_000
_DONE = re.compile(r"number_of_executed_units: (\d+)")


@dataclass(frozen=True)
class Result:
    """What came of one target; `finding` is empty where all was well."""

    target: str
    executions: int
    seconds: float
    finding: str = ""

    def __str__(self) -> str:
        state = "found something" if self.finding else "well"
        return f"{self.target:10} {self.executions:8} inputs {self.seconds:6.1f} s  {state}"


def main() -> int:
    """Fuzz the targets side by side; return 1 where something was found."""
    options = _options()
    if options.case:
        return _again(*options.case)
    names = options.targets or list(TARGETS)
    guided = find_spec("atheris") is not None and not options.plain
    workers = min(options.jobs, len(names)) if guided else 1
    share = options.seconds * workers / len(names)
    print(f"seed {options.seed}, {'guided by coverage' if guided else 'by chance'}", flush=True)
    work = _guided if guided else _plain
    with ThreadPoolExecutor(workers) as pool:
        results = []
        for result in pool.map(lambda name: work(name, share, options.seed), names):
            results.append(result)
            print(result, result.finding, flush=True)
    if options.keep and guided:
        for name in names:
            _keep(name)
    return 1 if any(result.finding for result in results) else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", choices=[[], *TARGETS], metavar="TARGET")
    parser.add_argument("--seconds", type=float, default=60, help="for all targets together")
    parser.add_argument("--seed", type=int, default=SystemRandom().randrange(1, 1 << 31))
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--plain", action="store_true", help="by chance, without atheris")
    parser.add_argument("--keep", action="store_true", help="add what reached new code")
    parser.add_argument("--case", nargs=2, metavar=("TARGET", "WORD"), help="try one input")
    return parser.parse_args()


def _again(name: str, word: str) -> int:
    with TemporaryDirectory(dir=fast_folder()) as folder:
        finding = plain.judged(Judge(TARGETS[name], Path(folder)), corpus.unpacked(word))
    print(finding or "well")
    return 1 if finding else 0


def _plain(name: str, seconds: float, seed: int) -> Result:
    begun = time.monotonic()
    with TemporaryDirectory(dir=fast_folder()) as folder:
        count, finding = plain.fuzz(TARGETS[name], Path(folder), seconds, seed)
    return Result(name, count, time.monotonic() - begun, str(finding or ""))


# ---- guided


def _folders(name: str) -> tuple[Path, Path]:
    """Return the folders of what was found to reach new code, and of what is known."""
    new, known = BUILD / name / "new", BUILD / name / "known"
    for folder in (new, known):
        folder.mkdir(parents=True, exist_ok=True)
    kept = {f"seed-{n}": data for n, data in enumerate(TARGETS[name].seeds())}
    for label, data in (kept | corpus.load(name)).items():
        (known / label).write_bytes(data)
    return new, known


def _guided(name: str, seconds: float, seed: int) -> Result:
    new, known = _folders(name)
    begun = time.monotonic()
    flags = (f"-max_total_time={max(1, round(seconds))}", f"-seed={seed}", "-print_final_stats=1")
    done = _libfuzzer(name, *flags, f"-artifact_prefix={BUILD / name}/", str(new), str(known))
    count = _DONE.search(done.stdout)
    (BUILD / name / "log").write_text(done.stdout, encoding="utf-8")
    found = _reason(done.stdout) if done.returncode else ""
    return Result(name, int(count[1]) if count else 0, time.monotonic() - begun, found)


def _reason(log: str) -> str:
    """Return what was found: our own words, or the last ones of libFuzzer."""
    own = re.search(r"^FOUND (.*?^again: \S.*?)$", log, re.MULTILINE | re.DOTALL)
    return own[1] if own else log[-3000:]


def _keep(name: str) -> None:
    """Add the shortest of the inputs that reached new code, as far as there is room."""
    new, _ = _folders(name)
    inputs = corpus.load(name)
    for path in sorted(new.iterdir(), key=lambda path: (path.stat().st_size, path.name)):
        data = path.read_bytes()
        room = MOST_KEPT_BYTES - sum(len(corpus.packed(each)) for each in inputs.values())
        if data not in inputs.values() and len(corpus.packed(data)) < room:
            inputs[path.name[:8]] = data
    corpus.save(name, inputs)


def _libfuzzer(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.fuzz.guided", name, *_LIMITS, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )


if __name__ == "__main__":
    sys.exit(main())
