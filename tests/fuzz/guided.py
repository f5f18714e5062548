"""Fuzz one target guided by coverage: `python -m tests.fuzz.guided TARGET FLAG… FOLDER…`.

The flags and folders are those of libFuzzer; atheris instruments our own code.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import atheris

from tests.fuzz.folders import fast_folder


def main(name: str, flags: list[str]) -> None:
    """Run libFuzzer, which ends the process."""
    with atheris.instrument_imports(include=["imagebuilder"]):
        # As a text: linters would move an import away from what instruments it.
        target = import_module("tests.fuzz.targets").TARGETS[name]
        plain = import_module("tests.fuzz.plain")
    folder = TemporaryDirectory(dir=fast_folder())
    judge = plain.Judge(target, Path(folder.name))
    target.seeds()

    def anywhere(data: bytes, rng: Random) -> bytes:
        # libFuzzer knows with what the program compared its input.
        return bytes(atheris.Mutate(data, len(data) + rng.choice((1, 8, 64))))

    def change(data: bytes, most_bytes: int, seed: int) -> bytes:
        return bytes(target.mutated(data, Random(seed), anywhere)[:most_bytes])

    def try_one(data: bytes) -> None:
        if found := plain.judged(judge, data):
            print(f"FOUND {found}", flush=True)
            raise found

    atheris.Setup([sys.argv[0], *flags], try_one, custom_mutator=change)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
