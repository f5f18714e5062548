"""What the root of an image says: architecture, release, Docker, apt; and what it does not fit."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from imagebuilder.build.compose import open_composer
from imagebuilder.disk.reader import open_raw
from imagebuilder.errors import ImageError, SettingsError
from imagebuilder.images.root_system import (
    find_root_system,
    installed_packages,
    read_apt_state,
    upstream_version,
)
from imagebuilder.model import BaseImage, ImageSource, NodeSettings, RootSystem
from imagebuilder.settings.fits import check_root
from tests.lib.fat_images import START_BYTES
from tests.lib.plan_samples import plain_node
from tests.lib.program import rpi_image
from tests.lib.root_images import DEBIAN, RASPBIAN, WHEEZY, make_root_image, package, root_files

if TYPE_CHECKING:
    from pathlib import Path

MACHINES = {"armv6": ("armv6l",), "armv7": ("armv7l", "aarch64"), "arm64": ("aarch64",)}


def node(profile: str) -> NodeSettings:
    return replace(plain_node(), profile=profile, arch=profile, machines=MACHINES[profile])


@pytest.mark.parametrize(
    ("arch", "release", "packages", "expected"),
    [
        ("armhf", RASPBIAN, [], RootSystem(arch="armhf", os_id="raspbian", codename="bookworm")),
        (
            "armhf",
            WHEEZY,
            [("docker-hypriot", "1.6.0-1")],
            RootSystem(arch="armhf", os_id="raspbian", codename="wheezy", docker="1.6.0"),
        ),
        (
            "arm64",
            DEBIAN,
            [("docker.io", "20.10.24+dfsg1-1+deb12u1+b2")],
            RootSystem(arch="arm64", os_id="debian", codename="bookworm", docker="20.10.24"),
        ),
        (
            "arm64",
            DEBIAN,
            [("docker-ce", "5:28.0.1-1~debian.12~bookworm")],
            RootSystem(arch="arm64", os_id="debian", codename="bookworm", docker="28.0.1"),
        ),
    ],
)
def test_the_system_of_an_image(
    tmp_path: Path, arch: str, release: str, packages: list[tuple[str, str]], expected: RootSystem
) -> None:
    installed = (package(name, version, arch) for name, version in packages)
    image = make_root_image(tmp_path / "a.img", root_files(arch, release, *installed))
    assert find_root_system(image) == expected


@pytest.mark.parametrize(
    "status", ["deinstall ok config-files", "install ok unpacked", "install ok half-configured"]
)
def test_a_package_that_is_not_installed_does_not_count(status: str) -> None:
    text = package("docker.io", "20.10.5", "armhf", status) + package("dpkg", "1.20", "armhf")
    assert installed_packages(text.encode()) == {"dpkg": ("1.20", "armhf")}


@pytest.mark.parametrize(
    ("version", "numbers"),
    [
        ("5:19.03.12~3-0~raspbian-buster", "19.03.12"),
        ("17.05.0~ce-0~raspbian-jessie", "17.05.0"),
        ("26.1.5+dfsg1-9+b4", "26.1.5"),
        ("v1.2", "1.2"),
        ("none", ""),
    ],
)
def test_the_upstream_version(version: str, numbers: str) -> None:
    assert upstream_version(version) == numbers


def test_what_apt_knows_is_read(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {
        **root_files("armhf"),
        "etc/apt/sources.list": "deb http://raspbian.example/raspbian bookworm main\n",
        "etc/apt/sources.list.d/raspi.sources": "Types: deb\nURIs: http://a.example\n",
        "etc/apt/sources.list.d/old.list.save": "deb http://never.example x y\n",
        "etc/apt/trusted.gpg": b"\x99\x01",
        "usr/share/keyrings/raspbian-archive-keyring.gpg": b"\x99\x02",
        "usr/share/keyrings/README": "no key",
    }
    with open_raw(make_root_image(tmp_path / "a.img", files)) as disk:
        state = read_apt_state(disk)
    assert state
    assert state.arch == "armhf"
    assert state.status.decode() == files["var/lib/dpkg/status"]
    assert {file.path: file.data for file in state.sources} == {
        path: str(data).encode()
        for path, data in files.items()
        if "sources" in path and not path.endswith(".save")
    }
    assert [file.data for file in state.keyrings] == [b"\x99\x01", b"\x99\x02"]


def test_a_folder_with_too_many_sources_is_an_error(tmp_path: Path) -> None:
    many = {f"etc/apt/sources.list.d/{number}.list": "" for number in range(201)}
    image = make_root_image(tmp_path / "a.img", root_files("armhf") | many)
    with open_raw(image) as disk, pytest.raises(ImageError, match="201 files"):
        read_apt_state(disk)


ARMHF, ARM64 = RootSystem(arch="armhf", os_id="raspbian"), RootSystem(arch="arm64", os_id="debian")


@pytest.mark.parametrize("profile", MACHINES)
@pytest.mark.parametrize("root", [ARMHF, ARM64, replace(ARMHF, os_id="debian"), RootSystem(), None])
def test_packages_fit_their_profile_or_are_refused(profile: str, root: RootSystem | None) -> None:
    fits = {
        ARMHF: {"armv6", "armv7"},
        ARM64: {"arm64"},
        replace(ARMHF, os_id="debian"): {"armv7"},
    }.get(root or RootSystem(), set(MACHINES))
    if profile in fits:
        check_root(node(profile), root)
        return
    with pytest.raises(SettingsError, match=f"profile `{profile}`") as caught:
        check_root(node(profile), root)
    assert caught.value.hint == f"use profile {' or '.join(f'`{name}`' for name in sorted(fits))}"


def test_a_64_bit_kernel_with_a_32_bit_system_is_refused_by_a_build(tmp_path: Path) -> None:
    path = make_root_image(tmp_path / "a.img", root_files("armhf", RASPBIAN))
    base = BaseImage(path, "0" * 64, path.stat().st_size, "a.img")
    with open_composer(base, epoch=1) as composer:
        assert composer.plan(node("armv7")).generation == "firstrun"
        with pytest.raises(SettingsError, match="are armhf, but profile `arm64` is arm64"):
            composer.plan(node("arm64"))


def test_check_and_build_say_the_same(tmp_path: Path) -> None:
    path = make_root_image(tmp_path / "raspios.img", root_files("armhf"))
    room = tmp_path / "room.yml"
    room.write_text(
        f"profile: arm64\nimage: {{file: {path}, unchecked: true}}\nallow: [no-checksum]\n"
        "user: {name: ann, password_hash: $6$abcdefgh$abc}\nnodes: [{hostname: pi-1}]\n"
    )
    checked = rpi_image("check", "--json", room, cache=tmp_path / "cache")
    problems = [p for p in json.loads(checked.stdout)["problems"] if p["severe"]]
    message = "the packages of image `raspios.img` are armhf, but profile `arm64` is arm64"
    assert (checked.returncode, [p["message"] for p in problems]) == (3, [f"image: {message}"])
    assert (problems[0]["line"], problems[0]["hint"]) == (2, "use profile `armv6` or `armv7`")
    built = rpi_image("batch", "-n", room, "-o", tmp_path / "out", cache=tmp_path / "cache")
    assert built.returncode != 0
    assert message in built.stderr + built.stdout


def test_a_damaged_root_is_left_to_the_pi(tmp_path: Path) -> None:
    path = make_root_image(tmp_path / "a.img", root_files("armhf"))
    with path.open("r+b") as file:
        file.seek(START_BYTES + (40 << 20) + 4096 * 3)
        file.write(b"\xff" * (4096 * 1500))
    assert find_root_system(path) is None
    source = ImageSource("a.img", file=path)
    base = BaseImage(path, "0" * 64, path.stat().st_size, "a.img")
    with open_composer(base, epoch=1) as composer:
        assert composer.plan(replace(node("arm64"), image=source)).hostname == "pi-03"
