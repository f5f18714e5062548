"""`fetch --packages`, and the versions that `batch -n --json` says then."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from tests.lib.apt_archive import Archive, signed_archive
from tests.lib.program import emitted, rpi_image, succeed
from tests.lib.root_images import make_root_image, package, root_files

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from subprocess import CompletedProcess


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    with signed_archive(tmp_path) as found:
        found.add("docker.io", "20.10.24+dfsg1-1", "containerd, libc6")
        found.add("containerd", "1.6.20~ds1-1")
        found.add("git", "1:2.39.5-0")
        found.publish()
        yield found


@pytest.fixture
def room(tmp_path: Path, archive: Archive) -> Path:
    """Return a class of three nodes with an image that uses the archive."""
    state = archive.state()
    files: dict[str, str | bytes] = dict(
        root_files("armhf", *("ID=raspbian\n", package("libc6", "2.36", "armhf")))
    )
    files |= {file.path: file.data for file in (*state.sources, *state.keyrings)}
    image = make_root_image(tmp_path / "raspios.img", files)
    path = tmp_path / "room.yml"
    path.write_text(
        f"profile: armv7\nimage: {{file: {image}, unchecked: true}}\npackages: git\n"
        "user: {name: ann, password_hash: $6$abcdefgh$abcdefgh}\n"
        "nodes: [{hostname: 'pi-[1-2]'}, {hostname: pi-3, docker: {install: never}}]\n"
    )
    return path


def versions(room: Path) -> dict[str, dict[str, str | None]]:
    done = rpi_image("batch", "-n", "--json", room, cache=room.parent / "cache")
    nodes = emitted(done)["nodes"]
    return {
        node["hostname"]: {each["name"]: each["version"] for each in node["packages"]}
        for node in nodes
    }


def fetch(room: Path, *words: str) -> CompletedProcess[str]:
    return rpi_image("fetch", "--packages", "-c", room, *words, cache=room.parent / "cache")


def test_packages_are_fetched_once_and_their_versions_are_known(room: Path) -> None:
    unknown = {"docker.io": None, "git": None}
    assert versions(room) == {"pi-1": unknown, "pi-2": unknown, "pi-3": {"git": None}}
    found = emitted(fetch(room, "--json"))
    assert {name: {each["name"] for each in found[name]} for name in found} == {
        "pi-1": {"docker.io", "containerd", "git"},
        "pi-2": {"docker.io", "containerd", "git"},
        "pi-3": {"git"},
    }
    cache = room.parent / "cache"
    for each in found["pi-1"]:
        data = (cache / "packages" / f"{each['sha256']}.deb").read_bytes()
        assert hashlib.sha256(data).hexdigest() == each["sha256"]
    known = {"docker.io": "20.10.24+dfsg1-1", "git": "1:2.39.5-0"}
    assert versions(room) == {"pi-1": known, "pi-2": known, "pi-3": {"git": "1:2.39.5-0"}}
    again = succeed(fetch(room))
    assert "3 packages, 0 to fetch" in again.stderr
    assert "containerd" in again.stdout
    listed = rpi_image("cache", "list", "--json", cache=cache)
    assert emitted(listed)["package_bytes"] > 0
    succeed(rpi_image("cache", "clean", cache=cache))
    assert emitted(rpi_image("cache", "list", "--json", cache=cache))["package_bytes"] == 0


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-1] + b"x"), "SHA-256"),
        (lambda path: path.write_bytes(path.read_bytes()[:-100]), "containerd_"),
        (lambda path: path.write_bytes(path.read_bytes() + b"x"), "containerd_"),
        (lambda path: path.unlink(), "404"),
    ],
    ids=["digest", "cut-off", "longer", "gone"],
)
def test_a_package_that_is_not_the_one_of_the_index_is_refused(
    room: Path, archive: Archive, harm: object, said: str
) -> None:
    (deb,) = (archive.folder / "pool").glob("containerd_*.deb")
    harm(deb)  # type: ignore[operator]
    done = fetch(room)
    assert done.returncode == 4
    assert "containerd_" in done.stderr
    assert said in done.stderr


def test_a_package_that_no_archive_has_is_named(room: Path) -> None:
    room.write_text(room.read_text().replace("packages: git", "packages: [git, nowhere]"))
    done = fetch(room)
    assert done.returncode == 4
    assert "apt: Unable to locate package nowhere" in done.stderr


def test_without_apt_the_pi_installs_them(room: Path, tmp_path: Path) -> None:
    """As on Fedora, macOS and Windows."""
    words = ("fetch", "--packages", "-c", room)
    done = rpi_image(*words, cache=tmp_path / "cache", PATH=str(tmp_path))
    assert done.returncode == 4
    assert "this machine has no apt: the Pi installs its packages itself" in done.stderr


@pytest.mark.parametrize("words", [[], ["--packages"], ["-c", "a.yml"], ["x", "--packages"]])
def test_fetch_says_what_it_needs(tmp_path: Path, words: list[str]) -> None:
    done = rpi_image("fetch", *words, cache=tmp_path / "cache")
    assert done.returncode == 2
    assert "name IMAGE, or use --packages -c FILE" in done.stderr
