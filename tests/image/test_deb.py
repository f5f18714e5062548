"""`make deb`: the package of each suite, installed and used in a clean chroot of that suite."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lib.debian import mirror
from tests.lib.tools import need, need_root, run

ROOT = Path(__file__).parents[2]
SUITES = ("bookworm", "trixie")
FAST = ("force-unsafe-io", "path-exclude=/usr/share/locale/*")
# As a user of the package; `$1` is the version.
USE = r"""
set -eu
cd "$HOME"
test "$(rpi-image --version)" = "rpi-image, version $1"
rpi-image build -q --profile armv6 --hostname pi-03 --image sample
rpi-image inspect --json build/pi-03.img | grep -q '"hostname": "pi-03"'
printf 'profile: armv6\nimage: sample\nnodes: [{hostname: pi-01}]\n' >room.yml
rpi-image labels -q room.yml -o labels.pdf
test "$(head -c 5 labels.pdf)" = %PDF-
man -w rpi-image rpi-image-flash classroom.yml
man rpi-image-flash 2>/dev/null | grep -q 'rpi-image flash'
export COMP_WORDS='rpi-image fla' COMP_CWORD=1
_RPI_IMAGE_COMPLETE=bash_complete rpi-image | grep -x plain,flash
bash -c '. /usr/share/bash-completion/completions/rpi-image; complete -p rpi-image'
find /usr/lib/rpi-image -name '*.so*' -exec ldd {} + | grep 'not found' && exit 1
ls /usr/lib/rpi-image/lib/python3*/site-packages/imagebuilder/__pycache__/model.*.pyc
! touch /usr/lib/rpi-image/mine 2>/dev/null
"""
INSTALL = "apt-get install -qq -y --no-install-recommends"
LEFT = r'test ! -e "$1/usr/lib/rpi-image" && test ! -e "$1/usr/bin/rpi-image"'


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder), cwd=ROOT)
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture(scope="module", params=SUITES)
def built(
    request: pytest.FixtureRequest, wheel: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path]:
    return request.param, make_deb(wheel, request.param, tmp_path_factory.mktemp("deb"))


def make_deb(wheel: Path, suite: str, folder: Path) -> Path:
    need("dpkg-deb", "git")
    done = subprocess.run(
        [ROOT / ".ci/make-deb", wheel, suite, folder],
        capture_output=True, text=True, check=False,
        env={**os.environ, "SOURCE_DATE_EPOCH": "1767225600"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())


@pytest.mark.long
def test_lintian_has_nothing_to_say(built: tuple[str, Path]) -> None:
    need("lintian")
    _, package = built
    assert run("lintian", "--allow-root", "--fail-on", "error,warning", package) == ""


@pytest.mark.long
@pytest.mark.root
def test_the_package_works_in_a_clean_chroot(built: tuple[str, Path], wheel: Path) -> None:
    need_root()
    need("mmdebstrap")
    suite, package = built
    script = package.with_name("use")
    script.write_text(USE)
    version = wheel.name.split("-")[1]
    run(
        "mmdebstrap", "--mode=root", "--variant=minbase", "--include=man-db,bash-completion",
        "--format=null", *(f"--dpkgopt={option}" for option in FAST),
        '--aptopt=Acquire::Languages "none"', f"--customize-hook=copy-in {package} {script} /",
        f'--customize-hook=chroot "$1" {INSTALL} /{package.name}',
        '--customize-hook=chroot "$1" useradd -m ada',
        f'--customize-hook=chroot "$1" su - ada -c "sh /use {version}"',
        '--customize-hook=chroot "$1" apt-get purge -qq -y rpi-image',
        f"--customize-hook={LEFT}",
        suite, "/dev/null", f"deb {mirror()} {suite} main",
    )  # fmt: skip


@pytest.mark.long
def test_the_same_date_gives_the_same_package(
    built: tuple[str, Path], wheel: Path, tmp_path: Path
) -> None:
    suite, package = built
    if suite == SUITES[0]:
        assert make_deb(wheel, suite, tmp_path).read_bytes() == package.read_bytes()
    held = run("dpkg-deb", "--fsys-tarfile", package, encoding="latin-1")
    assert str(ROOT) not in held
    assert str(package.parent) not in held


def test_each_override_has_its_reason() -> None:
    lines = (ROOT / ".ci/deb/overrides").read_text().splitlines()
    for before, line in zip(["", *lines], lines, strict=False):
        assert line.startswith(("# ", "rpi-image: "))
        assert before.startswith(("# ", "rpi-image: ")) or line.startswith("# ")
