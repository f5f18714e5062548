"""On a fresh Debian machine the lists of packages bring every program that the tests reach."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from tests.boot.roots import FAST
from tests.lib.debian import mirror
from tests.lib.programs import needed, started
from tests.lib.tools import need, need_root, run

ROOT = Path(__file__).parents[2]
PATHS = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
LOOK = f'PATH={PATHS}; for name; do command -v "$name" >/dev/null || echo "$name"; done'

pytestmark = [pytest.mark.boot, pytest.mark.root]


def suite() -> str:
    """Return the code name of this machine's Debian, as apt's sources have it."""
    listed = run(
        "apt-get", "indextargets", "--format", "$(SITE) $(COMPONENT) $(CODENAME)",
        "Created-By: Packages",
    )  # fmt: skip
    found = {line.split()[2] for line in listed.splitlines() if line.startswith(f"{mirror()} main")}
    return min(found, key=len)  # the others are its updates: bookworm-updates


def test_the_lists_of_packages_bring_every_program(tmp_path: Path) -> None:
    need_root()
    need("mmdebstrap")
    release, missing = suite(), tmp_path / "missing"
    look = shlex.join(["sh", "-c", LOOK, "look", *sorted(needed() | started().keys())])
    run(
        "mmdebstrap", "--mode=root", "--variant=minbase", "--include=make", "--format=null",
        *(f"--dpkgopt={option}" for option in FAST), '--aptopt=Acquire::Languages "none"',
        '--customize-hook=mkdir "$1/checkout"', "--customize-hook=copy-in Makefile tests /checkout",
        '--customize-hook=chroot "$1" make -C /checkout tools tools-boot',
        f'--customize-hook=chroot "$1" {look} >{missing}',
        release, "/dev/null", f"deb {mirror()} {release} main", cwd=ROOT,
    )  # fmt: skip
    assert missing.read_text().split() == []
