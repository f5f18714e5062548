"""`fetch --packages`, and the versions that `batch -n --json` says then."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest
import yaml

from tests.lib.apt_archive import Archive, signed_archive
from tests.lib.fat_images import START_BYTES
from tests.lib.program import emitted, rpi_image, succeed
from tests.lib.root_images import make_root_image, package, root_files
from tests.lib.tools import need, run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from subprocess import CompletedProcess

# The commands that docs/docker.md shows (tests/image/cli/test_console_blocks.py compares them).
FETCH = "rpi-image fetch --packages -c classroom.yml"
LIST = "rpi-image cache list"
SHACK = "shack: {address: 10.0.0.1}\ncluster: {enabled: false}\nallow: [open-docker]\n"


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    with signed_archive(tmp_path) as found:
        found.add("docker.io", "20.10.24+dfsg1-1", "containerd, libc6")
        found.add("containerd", "1.6.20~ds1-1")
        found.add("git", "1:2.39.5-0")
        found.publish()
        yield found


@pytest.fixture(params=[16])
def room(tmp_path: Path, archive: Archive, request: pytest.FixtureRequest) -> Path:
    """Return a class of three nodes with an image that uses the archive."""
    state = archive.state()
    files: dict[str, str | bytes] = dict(
        root_files("armhf", *("ID=raspbian\n", package("libc6", "2.36", "armhf")))
    )
    files |= {file.path: file.data for file in (*state.sources, *state.keyrings)}
    image = make_root_image(tmp_path / "raspios.img", files, boot_mib=request.param)
    path = tmp_path / "classroom.yml"
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
    return rpi_image(*FETCH.split()[1:], *words, cwd=room.parent, cache=room.parent / "cache")


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
    listed = rpi_image(*LIST.split()[1:], "--json", cache=cache)
    assert emitted(listed)["package_bytes"] > 0
    succeed(rpi_image("cache", "clean", cache=cache))
    assert emitted(rpi_image("cache", "list", "--json", cache=cache))["package_bytes"] == 0


def card_of(image: Path) -> dict[str, bytes]:
    """Return the packages and the digests on a boot partition, by mtools."""
    folder = image.parent / "card"
    folder.mkdir()
    drive = f"{image}@@{START_BYTES}"
    run("mcopy", "-i", drive, "-s", "::rpi-image/packages", folder, check=False)
    return {path.name: path.read_bytes() for path in folder.glob("packages/*")}


@pytest.mark.parametrize("room", [120], indirect=True)
def test_what_is_fetched_is_on_the_card_and_apt_is_not_asked_again(room: Path) -> None:
    cache, out = room.parent / "cache", room.parent / "out"
    words = ("build", "-c", room, "--hostname", "pi-1", "-o", out / "pi-1.img")
    shown = succeed(rpi_image(*words, "-n", cache=cache)).stdout
    assert "git installed at first boot from the network" in shown
    found = emitted(fetch(room, "--json"))["pi-1"]
    shown = succeed(rpi_image(*words, "-n", cache=cache)).stdout
    assert "git installed at first boot from the card" in shown
    for each in found:
        assert f"{each['name']}_{each['version'].rpartition(':')[2]}_armhf.deb" in shown
    succeed(rpi_image("batch", room, "-o", out, cache=cache))
    card = card_of(out / "pi-1.img")
    sums = card.pop("SHA256SUMS").decode()
    assert sums.count("\n") == len(card) == 3
    folder = out / "card" / "packages"
    assert run("sha256sum", "-c", "SHA256SUMS", cwd=folder).count(": OK") == 3
    names = {run("dpkg-deb", "-f", folder / name, "Package").strip() for name in card}
    assert names == {"docker.io", "containerd", "git"}
    again = emitted(rpi_image("batch", room, "-o", out, "--json", cache=cache))
    assert {node["state"] for node in again["nodes"]} == {"unchanged"}
    succeed(rpi_image("cache", "clean", cache=cache))
    again = emitted(rpi_image("batch", "-n", room, "-o", out, "--json", cache=cache))
    assert again["nodes"][0]["changes"] == ["packages"]


@pytest.mark.parametrize("room", [120], indirect=True)
def test_apply_writes_and_verify_knows_the_packages_of_build(room: Path) -> None:
    cache, out = room.parent / "cache", room.parent / "out"
    need("mcopy", "diff")
    succeed(fetch(room))
    base = yaml.safe_load(room.read_text())["image"]["file"]
    card = room.parent / "card"
    card.mkdir()
    run("mcopy", "-i", f"{base}@@{START_BYTES}", "-s", "::*", card)
    named = (card, "-c", room, "--node", "pi-1")
    succeed(rpi_image("apply", *named, cache=cache))
    words = ("build", "-c", room, "--hostname", "pi-1", "-o", out / "pi-1.img")
    succeed(rpi_image(*words, cache=cache))
    (out / "built").mkdir(parents=True)
    run("mcopy", "-i", f"{out}/pi-1.img@@{START_BYTES}", "-s", "::*", out / "built")
    run("diff", "-r", card, out / "built")
    assert len(list(card.glob("rpi-image/packages/*.deb"))) == 3
    succeed(rpi_image("verify", *named, cache=cache))
    next(card.glob("rpi-image/packages/git_*")).write_bytes(b"not git")
    assert rpi_image("verify", *named, cache=cache).returncode == 7


@pytest.mark.parametrize("room", [120], indirect=True)
def test_one_image_brings_what_all_nodes_need_once(room: Path) -> None:
    cache, out = room.parent / "cache", room.parent / "out"
    head, _, _ = room.read_text().partition("nodes:")
    nodes = [{"hostname": f"pi-{n}", "serial": f"0000000{n}"} for n in (1, 2, 3)]
    room.write_text(f"{head}nodes: {nodes}\n")
    succeed(fetch(room))
    words = ("batch", room, "--one-image", "-o", out)
    done = succeed(rpi_image(*words, cache=cache))
    assert "brings no packages" not in done.stderr
    image = out / "classroom.img"
    card = card_of(image)
    assert len(card) == 4
    assert run("sha256sum", "-c", "SHA256SUMS", cwd=out / "card/packages").count(": OK") == 3
    listed = run("mdir", "-/", "-b", "-i", f"{image}@@{START_BYTES}", "::rpi-image")
    assert listed.count(".deb") == 3
    assert "identities/serial-00000003" in listed
    nodes[2]["docker"] = {"install": "never"}  # type: ignore[assignment]
    room.write_text(f"{head}nodes: {nodes}\n")
    done = succeed(rpi_image(*words, cache=cache))
    assert "the one image brings no packages: pi-1 and pi-3 do not need the same" in done.stderr
    assert "leave out --one-image" in done.stderr
    assert ".deb" not in run("mdir", "-/", "-b", "-i", f"{image}@@{START_BYTES}", "::rpi-image")


def test_without_room_the_shack_serves_them(room: Path) -> None:
    cache, out = room.parent / "cache", room.parent / "out"
    room.write_text(f"{room.read_text()}{SHACK}")
    found = emitted(fetch(room, "--json"))["pi-1"]
    shown = succeed(rpi_image("build", "-c", room, "--hostname", "pi-1", "-n", cache=cache)).stdout
    assert "git installed at first boot from the shack" in shown
    succeed(rpi_image("batch", room, "-o", out, cache=cache))
    card = card_of(out / "pi-1.img")
    assert list(card) == ["SHA256SUMS"]
    served = out.parent / "shack" / "web" / "packages"
    served.mkdir(parents=True)
    (served / "old_1_armhf.deb").touch()
    succeed(rpi_image("shack", room, "-o", out.parent / "shack", cache=cache))
    (served / "SHA256SUMS").write_bytes(card["SHA256SUMS"])
    assert run("sha256sum", "-c", "SHA256SUMS", cwd=served).count(": OK") == len(found) == 3
    assert not (served / "old_1_armhf.deb").exists()


def test_a_package_that_is_damaged_in_the_cache_is_refused(room: Path) -> None:
    room.write_text(f"{room.read_text()}{SHACK}")
    found = emitted(fetch(room, "--json"))["pi-3"]
    (each,) = found
    path = room.parent / "cache" / "packages" / f"{each['sha256']}.deb"
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    done = rpi_image("shack", room, "-o", room.parent / "shack", cache=room.parent / "cache")
    assert done.returncode == 4
    assert "git_2.39.5-0_armhf.deb in the cache is damaged" in done.stderr


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
