"""Paths that cannot be looked at: every command says so with its exit code, and it is no bug."""

from __future__ import annotations

import gzip
import os
import shutil
from typing import TYPE_CHECKING

import pytest

from tests.lib.program import emitted, rpi_image
from tests.lib.tools import need

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator
    from pathlib import Path

NODE = ("--profile", "armv7", "--hostname", "pi-03")
LONG = "n" * 300
ROOM = "profile: armv7\nimage: sample\nnodes: [{hostname: pi-01}]\n"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a cache that one module shares."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def program(cache: Path, tmp_path: Path) -> Iterator[Callable[..., tuple[int, str]]]:
    """Return rpi-image without root's power, beside a folder `priv` that nobody may look into."""
    need("setpriv")
    before = ("setpriv", "--bounding-set=-all", "--inh-caps=-all") if os.geteuid() == 0 else ()
    (tmp_path / "room.yml").write_text(ROOM)
    (tmp_path / "file").write_text("x")
    (tmp_path / "x.gz").write_bytes(gzip.compress(bytes(1 << 20)))
    shut = tmp_path / "priv"
    shut.mkdir(mode=0)

    def call(*arguments: object, **environment: str) -> tuple[int, str]:
        store = tmp_path / environment.pop("cache", str(cache))
        done: subprocess.CompletedProcess[str] = rpi_image(
            *arguments, cache=store, cwd=tmp_path, before=before, **environment
        )
        return done.returncode, done.stderr

    yield call
    shut.chmod(0o700)
    shutil.rmtree(shut)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("init", "priv/new.yml"), 7),
        (("init", f"{LONG}.yml"), 7),
        (("build", *NODE, "--image", "priv/x.img"), 4),
        (("build", *NODE, "--image", f"./{LONG}.img"), 4),
        (("build", *NODE, "--image", "sample", "-o", "priv/x.img"), 7),
        (("build", *NODE, "--image", "sample", "-o", f"{LONG}.img"), 7),
        (("build", *NODE, "--image", "sample", "-o", "priv"), 7),
        (("build", *NODE, "--image", "sample", "-n", "--overlay", "."), 3),
        (("build", *NODE, "--image", "sample", "-n", "--overlay", "priv"), 3),
        (("batch", "room.yml", "-o", "priv"), 7),
        (("batch", "room.yml", "-o", "priv/x"), 7),
        (("fetch", "priv/x.img"), 4),
        (("inspect", "priv/x.img"), 5),
        (("inspect", LONG), 5),
    ],
)
def test_a_path_that_cannot_be_looked_at(
    program: Callable[..., tuple[int, str]], arguments: tuple[str, ...], code: int
) -> None:
    found, said = program(*arguments)
    assert found == code, said
    assert "error: " in said
    assert "hint: " in said


@pytest.mark.parametrize("file", ["priv/room.yml", f"{LONG}.yml", "priv"])
def test_a_class_that_cannot_be_looked_at(
    program: Callable[..., tuple[int, str]], file: str
) -> None:
    assert program("check", file) == (3, "1 error, no warnings\n")


@pytest.mark.parametrize("store", ["priv/cache", "file"])
@pytest.mark.parametrize(
    "arguments",
    [("cache", "list"), ("cache", "clean", "-n"), ("cache", "verify"), ("inspect", "x.gz")],
)
def test_a_cache_that_cannot_be(
    program: Callable[..., tuple[int, str]], arguments: tuple[str, ...], store: str
) -> None:
    code, said = program(*arguments, cache=store)
    assert code == 4, said
    assert "the cache " in said
    assert "hint: set RPI_IMAGE_CACHE" in said


def test_a_cache_that_is_not_there_yet_is_empty(tmp_path: Path) -> None:
    listed = emitted(rpi_image("cache", "list", "--json", cache=tmp_path / "new"))
    assert (listed["images"], listed["unfinished_bytes"]) == ([], 0)


def test_a_checksum_file_that_cannot_be_read(
    program: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    (tmp_path / "x.gz.sha256").write_text("x")
    (tmp_path / "x.gz.sha256").chmod(0)
    code, said = program("fetch", "./x.gz")
    assert code == 4, said
    assert "cannot read" in said
