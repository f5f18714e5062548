"""What an image lacks, by apt itself from a signed archive of the test."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING
from urllib.parse import unquote

import pytest

from imagebuilder.errors import SourceError
from imagebuilder.images.apt_tree import AptTree
from imagebuilder.images.root_system import RootFile
from tests.lib.apt_archive import Archive, signed_archive
from tests.lib.root_images import package

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from imagebuilder.images.root_system import AptState


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    with signed_archive(tmp_path_factory.mktemp("apt")) as archive:
        archive.add("docker.io", "26.1.5+dfsg1-9", "containerd (>= 1.7), libc6, runc")
        archive.add("docker.io", "20.10.24+dfsg1-1", "containerd")
        archive.add("containerd", "1:1.7.24~ds1-6")
        archive.add("runc", "1.1.15")
        archive.add("libc6", "2.41")
        yield archive


@pytest.fixture
def archive(shared: Archive) -> Archive:
    shared.publish()
    return shared


def tree_of(folder: Path, state: AptState) -> AptTree:
    tree = AptTree(folder / "tree")
    tree.write(state)
    return tree


def test_what_the_image_lacks_is_named_with_size_and_digest(
    tmp_path: Path, archive: Archive
) -> None:
    state = archive.state(package("libc6", "2.41", "armhf"))
    tree = tree_of(tmp_path, state)
    assert not tree.has_lists
    tree.update()
    assert tree.has_lists
    found = {each.name: each for each in tree.resolve(["docker.io"])}
    assert {name: each.version for name, each in found.items()} == {
        "docker.io": "26.1.5+dfsg1-9",
        "containerd": "1:1.7.24~ds1-6",
        "runc": "1.1.15",
    }
    for each in found.values():
        assert each.url.startswith(f"{archive.address}/pool/{each.name}_")
        data = (archive.folder / "pool" / unquote(each.url.rpartition("/")[2])).read_bytes()
        assert (each.size_bytes, each.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    old = tree.resolve(["docker.io=20.10*"])
    assert {each.name for each in old} == {"docker.io", "containerd"}


def test_what_is_installed_is_not_fetched_again(tmp_path: Path, archive: Archive) -> None:
    tree = tree_of(tmp_path, archive.state(package("runc", "1.1.15", "armhf")))
    tree.update()
    assert tree.resolve(["runc"]) == ()


def refused(folder: Path, state: AptState) -> str:
    with pytest.raises(SourceError) as caught:
        tree_of(folder, state).update()
    return caught.value.message


def test_another_key_is_refused(tmp_path: Path, archive: Archive) -> None:
    with signed_archive(tmp_path) as other:
        key = other.state().keyrings
    state = archive.state()
    mixed = type(state)(arch="armhf", status=state.status, sources=state.sources, keyrings=key)
    assert "is not signed" in refused(tmp_path, mixed)


def test_an_unsigned_archive_is_refused(tmp_path: Path, archive: Archive) -> None:
    (archive.folder / "dists/stable/InRelease").unlink()
    assert "is not signed" in refused(tmp_path, archive.state())


def test_a_changed_release_is_refused(tmp_path: Path, archive: Archive) -> None:
    path = archive.folder / "dists/stable/InRelease"
    path.write_text(path.read_text().replace("Codename: stable", "Codename: staple"))
    assert "stable" in refused(tmp_path, archive.state())


def test_an_expired_release_is_refused(tmp_path: Path, archive: Archive) -> None:
    archive.publish("ValidTime=1", "Date=Sat, 01 Jan 2022 00:00:00 UTC")
    path = archive.folder / "dists/stable"
    text = (path / "Release").read_text()
    assert "Date" in text
    lines = [line for line in text.splitlines() if not line.startswith("Valid-Until")]
    (path / "Release").write_text(
        "\n".join([*lines, ""]).replace(
            "Components:", "Valid-Until: Sat, 01 Jan 2022 00:00:00 UTC\nComponents:"
        )
    )
    archive.gpg("--clearsign", "-o", path / "InRelease", path / "Release")
    assert "expired" in refused(tmp_path, archive.state())


def test_an_index_with_another_digest_is_refused(tmp_path: Path, archive: Archive) -> None:
    path = archive.folder / "dists/stable/main/binary-armhf/Packages"
    path.write_text(path.read_text() + "\n")
    found = refused(tmp_path, archive.state())
    assert "Packages" in found
    assert "unexpected size" in found or "Hash Sum mismatch" in found


def test_a_package_that_has_vanished_is_named(tmp_path: Path, archive: Archive) -> None:
    tree = tree_of(tmp_path, archive.state())
    tree.update()
    with pytest.raises(SourceError, match="apt: Unable to locate package nowhere"):
        tree.resolve(["nowhere"])


@pytest.mark.parametrize("scheme", ["file:///", "copy:///", "cdrom:/", "ssh://a@127.0.0.1/"])
def test_sources_read_nothing_of_this_machine(
    tmp_path: Path, archive: Archive, scheme: str
) -> None:
    state = archive.state()
    line = f"deb [trusted=yes] {scheme} stable main\n".encode()
    hostile = type(state)(
        arch="armhf",
        status=state.status,
        sources=(RootFile("etc/apt/sources.list", line),),
        keyrings=(),
    )
    assert refused(tmp_path, hostile)


def test_an_image_without_an_architecture_is_refused(tmp_path: Path, archive: Archive) -> None:
    state = archive.state()
    broken = type(state)(arch='x"; y', status=b"", sources=state.sources, keyrings=())
    with pytest.raises(SourceError, match="architecture"):
        tree_of(tmp_path, broken)
