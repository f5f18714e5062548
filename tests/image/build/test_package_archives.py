"""Packages of real signed archives, by apt and nginx: what is refused leaves nothing behind."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest

from imagebuilder.build.class_packages import fetch_class
from imagebuilder.build.packages import PackageIndex
from imagebuilder.disk.reader import open_raw
from imagebuilder.errors import SettingsError, SourceError
from imagebuilder.images.cache import Cache
from imagebuilder.images.root_system import read_root_system
from imagebuilder.model import BaseImage, Cluster, Docker, NodeSettings
from imagebuilder.settings.fits import check_root
from tests.lib.apt_archive import Archive, signed_archive
from tests.lib.plan_samples import plain_node
from tests.lib.root_images import DEBIAN, RASPBIAN, make_root_image, root_files
from tests.lib.tools import run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

RASPBIANS, DEBIANS = "1:2.39.5-0+rpi1", "1:2.47.0-1"


@dataclass(frozen=True)
class Room:
    """A class of one Pi 1, whose image uses an archive."""

    archive: Archive
    base: BaseImage
    cache: Cache

    def fetch(self) -> dict[str, str]:
        """Return the versions of what `fetch --packages` brings."""
        found = fetch_class([node()], lambda _: self.base, PackageIndex(self.cache))
        return {each.name: each.version for each in found["pi-03"]}

    def left(self) -> list[str]:
        """Return the names of the packages that count as fetched, all of which are whole."""
        debs = sorted(self.cache.folder.glob("packages/*"))
        assert [hashlib.sha256(deb.read_bytes()).hexdigest() for deb in debs] == [
            deb.stem for deb in debs
        ]
        return [deb.stem for deb in debs]


def node() -> NodeSettings:
    return replace(
        plain_node(),
        profile="armv6",
        arch="armv6",
        machines=("armv6l",),
        docker=Docker(install="never"),
        cluster=Cluster(enabled=False),
        packages=("git",),
    )


def image_of(path: Path, archive: Archive, release: str) -> BaseImage:
    """Make an image whose root names the archive and its key."""
    state = archive.state()
    files: dict[str, str | bytes] = dict(root_files("armhf", release))
    files |= {file.path: file.data for file in (*state.sources, *state.keyrings)}
    make_root_image(path, files)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return BaseImage(path, digest, path.stat().st_size, path.stem, "")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Room]:
    folder = tmp_path_factory.mktemp("raspbian")
    with signed_archive(folder) as archive:
        archive.add("git", RASPBIANS, "perl")
        archive.add("perl", "5.36")
        archive.publish()
        yield Room(archive, image_of(folder / "pi1.img", archive, RASPBIAN), Cache(folder))


@pytest.fixture
def room(shared: Room, tmp_path: Path) -> Iterator[Room]:
    """Return the class with an empty cache and an archive that is as it was."""
    debs = {path: path.read_bytes() for path in shared.archive.folder.glob("pool/*")}
    yield replace(shared, cache=Cache(tmp_path / "cache"))
    for path, data in debs.items():
        path.write_bytes(data)
    shared.archive.publish()


def test_armv6_gets_the_builds_of_raspbian_and_never_those_of_debian(
    room: Room, tmp_path: Path
) -> None:
    """Debian's armhf has the newer version under the same name and architecture."""
    with signed_archive(tmp_path) as debian:
        debian.add("git", DEBIANS)
        debian.publish()
        image = image_of(tmp_path / "debian.img", debian, DEBIAN)
        assert room.fetch() == {"git": RASPBIANS, "perl": "5.36"}
        assert len(room.left()) == 2
        assert replace(room, base=image).fetch() == {"git": DEBIANS}
        with open_raw(image.path) as disk, pytest.raises(SettingsError, match="armv6") as caught:
            check_root(node(), read_root_system(disk))
    assert "use profile `armv7`" in caught.value.hint


def expire(archive: Archive) -> None:
    """Sign a Release whose Valid-Until is past."""
    folder = archive.folder / "dists/stable"
    date = "Sat, 01 Jan 2022 00:00:00 UTC"
    archive.publish(sign=False)
    lines = (folder / "Release").read_text().splitlines()
    kept = [line for line in lines if not line.startswith(("Date:", "Valid-Until:"))]
    text = "\n".join([f"Date: {date}", f"Valid-Until: {date}", *kept, ""])
    (folder / "Release").write_text(text)
    archive.gpg("--clearsign", "-o", folder / "InRelease", folder / "Release")


def sign_by_another(archive: Archive) -> None:
    """Sign the Release with a key that the image does not know."""
    other = replace(archive, home=archive.home.with_name("other"))
    other.home.mkdir(mode=0o700, exist_ok=True)
    other.gpg("--quick-generate-key", "Other <o@b.c>", "rsa2048", "sign", "never")
    folder = archive.folder / "dists/stable"
    other.gpg("--clearsign", "-o", folder / "InRelease", folder / "Release")
    run("gpgconf", "--homedir", other.home, "--kill", "all")


def deb(archive: Archive) -> Path:
    return next(archive.folder.glob("pool/perl_*"))


def other_bytes(archive: Archive) -> None:
    """Change the last byte: the size stays."""
    deb(archive).write_bytes(deb(archive).read_bytes()[:-1] + b"\x01")


def cut_off(archive: Archive) -> None:
    deb(archive).write_bytes(deb(archive).read_bytes()[:-100])


def vanish(archive: Archive) -> None:
    deb(archive).unlink()


@pytest.mark.parametrize(
    ("harm", "named", "said"),
    [
        (sign_by_another, "stable InRelease", "is not signed"),
        (expire, "InRelease", "expired"),
        (other_bytes, "perl_5.36_armhf.deb", "SHA-256"),
        (cut_off, "perl_5.36_armhf.deb", "SHA-256"),
        (vanish, "perl_5.36_armhf.deb", "404"),
    ],
    ids=["signature", "expired", "digest", "cut-off", "vanished"],
)
def test_what_is_not_as_signed_is_refused_by_name(
    room: Room, harm: Callable[[Archive], None], named: str, said: str
) -> None:
    wanted = hashlib.sha256(deb(room.archive).read_bytes()).hexdigest()
    harm(room.archive)
    with pytest.raises(SourceError, match=named) as caught:
        room.fetch()
    assert said in f"{caught.value.message} {caught.value.hint}"
    assert caught.value.exit_code == 4
    assert caught.value.hint
    assert wanted not in room.left()


def test_after_a_refusal_the_next_run_brings_all(room: Room) -> None:
    data = deb(room.archive).read_bytes()
    for harm in (cut_off, other_bytes, vanish):
        harm(room.archive)
        with pytest.raises(SourceError):
            room.fetch()
        deb_path = room.archive.folder / "pool" / "perl_5.36_armhf.deb"
        deb_path.write_bytes(data)
    assert set(room.fetch()) == {"git", "perl"}
    assert hashlib.sha256(data).hexdigest() in room.left()
