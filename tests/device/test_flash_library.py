"""A whole flash without the command line: the library alone, on a loop device."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.device.cards import (
    BOOT_FILES,
    BOOT_MIB,
    BOOT_START,
    CARD_BYTES,
    MIB,
    ROOT_MIB,
    ROOT_START,
    SmallImage,
    card,
    head_of,
    state_of_nodes,
)
from tests.lib.tools import run

ROOT = Path(__file__).parents[2]

PROGRAM = """
import sys
from dataclasses import dataclass
from pathlib import Path

from imagebuilder.flash.run import FlashOptions, FlashRun, compare_target
from imagebuilder.images.cache import Cache
from imagebuilder.images.obtain import obtain_base
from imagebuilder.progress import SilentReporter
from imagebuilder.settings.flags import NodeFlags, classroom_from_flags

device, folder, config, image, answer = sys.argv[1:]


class Typist(SilentReporter):
    interactive = True

    def fail(self, error): raise error
    def ask(self, question, default=""): return default
    def ask_or_read(self, question, default=""): return default
    def ask_secret(self, question): raise AssertionError(question)

    def confirm_by_name(self, question, name):
        assert device in question
        return answer == name


@dataclass
class Desk:
    epoch: int = 1_700_000_000
    cache: Cache = Cache(Path(folder) / "cache")

    def obtain(self, source):
        return obtain_base(source, self.cache)

    def classroom(self, flags):
        return classroom_from_flags(flags, typist, {})


typist, desk, ended = Typist(), Desk(), []
flags = NodeFlags(config=Path(config) if config else None, image=image or None)
run = FlashRun(
    workspace=desk, prompter=typist, flags=flags, options=FlashOptions(allow_loop=True),
    finished=ended.append,
)
try:
    result = run.run([device])
    names = result.outcomes[0].job.node
    same = compare_target(Path(device), desk, typist, flags, names).same
    print(result.exit_code, ended == list(result.outcomes), names, same)
except Exception as error:
    print(type(error).__name__, run.refused, ended)
assert not {"click", "imagebuilder.cli"} & set(sys.modules)
"""


def flash_by_library(
    device: str, folder: Path, *, config: Path | str = "", image: Path | str = "", answer: str = ""
) -> str:
    """Run PROGRAM in an interpreter of its own and return what it says."""
    words = [device, str(folder), str(config), str(image), answer or device]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words],
        capture_output=True, text=True, check=False, cwd=ROOT, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.root
def test_an_image_is_written_and_verified(tmp_path: Path, small: SmallImage) -> None:
    with card(tmp_path, CARD_BYTES) as device:
        assert flash_by_library(device, tmp_path, image=small.path) == "0 True  True"
        for name, start, size in (("boot", BOOT_START, BOOT_MIB), ("root", ROOT_START, ROOT_MIB)):
            (tmp_path / name).write_bytes(head_of(device, size * MIB, start * MIB))
    run("fsck.vfat", "-n", tmp_path / "boot")
    run("e2fsck", "-fn", tmp_path / "root")
    for name, text in BOOT_FILES.items():
        assert run("mtype", "-i", tmp_path / "boot", f"::{name}") == text


@pytest.mark.root
def test_a_node_is_written_and_noted(tmp_path: Path, classroom: Path) -> None:
    with card(tmp_path, CARD_BYTES) as device:
        assert flash_by_library(device, tmp_path, config=classroom) == "0 True pi-01 True"
        (tmp_path / "boot").write_bytes(head_of(device, BOOT_MIB * MIB, BOOT_START * MIB))
    assert "pi-01" in run("mtype", "-i", tmp_path / "boot", "::rpi-image/node.env")
    assert state_of_nodes(classroom) == {"pi-01": "written"}


@pytest.mark.root
def test_what_is_not_confirmed_is_not_written(tmp_path: Path, small: SmallImage) -> None:
    with card(tmp_path, CARD_BYTES) as device:
        before = head_of(device, CARD_BYTES)
        said = flash_by_library(device, tmp_path, image=small.path, answer="/dev/null")
        assert said == "RefusedError True []"
        assert head_of(device, CARD_BYTES) == before
