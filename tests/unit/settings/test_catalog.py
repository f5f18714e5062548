"""Profiles and the catalogue of base images: ours, and those of one's own."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, cast

import pytest

from imagebuilder.errors import SettingsError
from imagebuilder.flash.choice import choose_image
from imagebuilder.images.cache import Cache
from imagebuilder.model import BaseImage, ImageSource
from imagebuilder.progress import SilentReporter
from imagebuilder.resources import shipped_folder
from imagebuilder.settings.catalog import find_image, load_catalogue, load_profiles
from imagebuilder.settings.flags import NodeFlags
from imagebuilder.settings.load import load_classroom
from tests.lib.classrooms import CHECKSUM, WrittenClassroom, from_flags
from tests.lib.published_lists import listed, write_list

if TYPE_CHECKING:
    from pathlib import Path

    from imagebuilder.progress import Prompter


def test_our_profiles() -> None:
    arm64, armv6, armv7 = load_profiles()
    assert (arm64.name, arm64.arch, arm64.machines) == ("arm64", "arm64", ("aarch64",))
    assert (armv6.name, armv6.arch, armv6.machines) == ("armv6", "armv6", ("armv6l",))
    assert (armv7.name, armv7.arch) == ("armv7", "armv7")
    assert "armv7l" in armv7.machines
    assert "2B" in armv7.boards


def test_the_seeds_profiles_give_a_node_with_the_seeds_images() -> None:
    for name in ("armv6", "armv7"):
        node = from_flags(profile=name, shack={"address": "10.0.0.1"}).nodes[0]
        assert node.cluster.consul_image == "dduportal/arm-consul:0.5.0"
        assert node.cluster.swarm_image == "dduportal/arm-swarm:0.2.0"
        assert (node.docker.storage_driver, node.docker.debug) == ("", True)


def test_our_catalogue() -> None:
    catalogue = {entry.name: entry for entry in load_catalogue()}
    assert {entry.generation for entry in catalogue.values()} == {
        "occidentalis",
        "device-init",
        "cloud-init",
        "firstrun",
    }
    seed = catalogue["hypriot-20150416"]
    assert seed.basename == "hypriot-rpi-20150416-201537.img.zip"
    assert "local copy" in find_image("hypriot-20150416").hint
    assert catalogue["sample"].file is not None
    assert catalogue["sample"].file.is_file()


@pytest.mark.parametrize(
    ("image", "generation"),
    [
        ("https://example.org/a/hypriot-rpi-20150416-201537.img.zip", "occidentalis"),
        ("./mine/hypriot-rpi-20150416-201537.img.zip", "occidentalis"),
        ("hypriot-rpi-20150416-201537.img", "occidentalis"),
        ("hypriotos-rpi-v1.6.0.img.zip", "device-init"),
        ("hypriot.img.zip", None),
        ("https://example.org/", None),
    ],
)
def test_a_vendor_s_file_name_tells_the_generation(image: str, generation: str | None) -> None:
    source = find_image(image)
    assert source.generation == generation
    assert (source.sha256, source.checksum_url, source.machines) == ("", None, ())


def test_the_sample_has_the_checksum_the_catalogue_says() -> None:
    image = find_image("sample")
    assert image.file is not None
    assert hashlib.sha256(image.file.read_bytes()).hexdigest() == image.sha256


def test_profiles_of_ones_own_add_and_override(tmp_path: Path) -> None:
    (tmp_path / "armv7.yml").write_text("arch: armhf\nmachines: [armv7l]\ntimezone: Asia/Tokyo\n")
    (tmp_path / "pi5.yaml").write_text("arch: arm64\nmachines: [aarch64]\nimage: mine\n")
    (tmp_path / "images.yml").write_text(
        f"images:\n  mine: {{file: my.img, sha256: {CHECKSUM}}}\n"
        "  sample: {url: 'https://example.org/s.zip'}\n"
    )
    names = [profile.name for profile in load_profiles([tmp_path])]
    assert names == ["arm64", "armv6", "armv7", "pi5"]
    assert find_image("mine", folders=[tmp_path]).file == tmp_path / "my.img"
    assert find_image("sample", folders=[tmp_path]).url == "https://example.org/s.zip"
    (tmp_path / "class").mkdir()
    classroom = WrittenClassroom(tmp_path / "class").write(
        "profile: armv7\nnodes: [{hostname: a}, {hostname: b, profile: pi5}]\n"
    )
    a, b = classroom.load(profile_folders=[tmp_path]).nodes
    assert (a.arch, a.timezone) == ("armhf", "Asia/Tokyo")
    assert (b.arch, b.image.name) == ("arm64", "mine")


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("p.yml", "arch: a b\nmachines: [x]\n", "p.yml:1: arch"),
        ("p.yml", "arch: a\n", "`machines` is missing"),
        ("p.yml", "arch: a\nmachines: [x]\nhost: b\n", "p.yml:3: host: unknown key"),
        ("p.yml", "arch: [", "not YAML"),
        ("p.yml", "- a", "p.yml:1: expected a mapping"),
        ("images.yml", "images: {a: {}}\n", "one of file and url"),
        ("images.yml", "image: {}\n", "unknown key `image`"),
    ],
)
def test_wrong_profiles_have_file_and_line(
    tmp_path: Path, name: str, text: str, words: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(SettingsError) as caught:
        load_classroom(
            None,
            overrides={"profile": "armv7", "nodes": [{"hostname": "a"}]},
            environment={},
            profile_folders=[tmp_path],
        )
    assert any(words in str(problem) for problem in caught.value.problems)


def test_a_profiles_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no profiles folder"):
        load_profiles([tmp_path / "gone"])


def test_images_by_name_file_and_url(tmp_path: Path) -> None:
    assert find_image("https://example.org/a/b.zip?x=1").name == "b.zip"
    assert find_image("a.img", folder=tmp_path).file == tmp_path / "a.img"
    assert find_image("hypriotos-1.12.3").sha256.startswith("9015ee2d")
    assert find_image("hypriotos-1.12.3", sha256=CHECKSUM).sha256 == CHECKSUM
    assert find_image("./x", unchecked=True).unchecked


@pytest.mark.parametrize("rest", ["[::1/x.img", "mirror:99999/x.img", "x.img?key=hunter2 "])
def test_an_address_is_refused_without_its_password(rest: str) -> None:
    for text in (f"https://ann:hunter2@{rest}", f"ftp://ann:hunter2@{rest}"):
        with pytest.raises(SettingsError) as caught:
            find_image(text)
        assert "hunter2" not in f"{caught.value.message} {caught.value.hint}"
        assert "http" in caught.value.message


def test_an_image_without_a_file_name_is_not_named_after_a_password() -> None:
    assert find_image("https://ann:hunter2@example.org/?key=hunter2").name == "https://example.org/"


@pytest.mark.parametrize(
    ("text", "words", "hint"),
    [
        ("hypriotos-1.12", "no base image", "did you mean `hypriotos-1.12.3`?"),
        ("a b", "not a plain name", "letters"),
        ("https://", "URL", "for example http"),
    ],
)
def test_images_that_are_not(text: str, words: str, hint: str) -> None:
    with pytest.raises(SettingsError, match=words) as caught:
        find_image(text)
    assert hint in caught.value.hint


def test_the_vendors_file_name_leads_to_the_catalogue(tmp_path: Path) -> None:
    missing = find_image("hypriotos-rpi-v1.12.3.img.zip", folder=tmp_path)
    assert missing.hint == "the catalogue has it as `hypriotos-1.12.3`"
    (tmp_path / "hypriotos-rpi-v1.12.3.img.zip").touch()
    assert find_image("hypriotos-rpi-v1.12.3.img.zip", folder=tmp_path).hint == ""


def test_shipped_files_are_where_the_wheel_puts_them() -> None:
    names = {path.name for path in shipped_folder("profiles").iterdir()}
    assert {"armv6.yml", "armv7.yml", "images.yml", "classroom.schema.json"} <= names


def test_flash_takes_a_published_image_as_it_is(tmp_path: Path) -> None:
    path = write_list(tmp_path / "list.json", listed())
    sources: list[ImageSource] = []

    def obtain(source: ImageSource) -> BaseImage:
        sources.append(source)
        return BaseImage(tmp_path / "x", source.raw_sha256, 1, source.name)

    flags = NodeFlags(image="raspios-lite-arm64@2026-06-18", catalog=str(path))
    prompter = cast("Prompter", SilentReporter())
    base = choose_image(flags, obtain, prompter, Cache(tmp_path / "cache"))
    assert base.name == "raspios-lite-arm64@2026-06-18"
    (source,) = sources
    assert (source.sha256, source.raw_sha256) == ("cd" * 32, "ab" * 32)
    assert source.raw_size_bytes == 2977955840
