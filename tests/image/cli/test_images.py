"""`rpi-image images`, and images by a name of a published list, from servers on this machine."""

from __future__ import annotations

import hashlib
import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from tests.lib.archives import pack, sha256sum
from tests.lib.program import emitted, mtype, rpi_image, small_base, succeed
from tests.lib.published_lists import listed, listed_file, write_list
from tests.lib.tools import run
from tests.lib.webserver import Nginx, nginx, without_proxies

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from subprocess import CompletedProcess

    Program = Callable[..., CompletedProcess[str]]

NAME = "raspios-lite-arm64@2026-06-18"
CLASS = f"profile: arm64\nallow: [no-login]\nimage: {NAME}\n"
HOST = ("--profile", "arm64", "--hostname", "pi-03", "--allow", "no-login", "--image")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with three images by mkfs.vfat and mtools, packed by xz.

    `bookworm` has the stock files of firstrun, `trixie` those of cloud-init, `plain` neither.
    """
    folder = tmp_path_factory.mktemp("images")
    base = small_base(folder)
    for name in ("bookworm", "trixie", "plain"):
        image = folder / f"{name}.img"
        shutil.copyfile(base, image)
        run("mdel", "-i", f"{image}@@1M", "::occidentalis.txt")
        issue = "Raspberry Pi reference 2025-05-13\nGenerated using pi-gen\n"
        if name != "plain":
            run("mcopy", "-i", f"{image}@@1M", "-", "::issue.txt", input=issue)
        if name == "trixie":
            run("mcopy", "-i", f"{image}@@1M", "-", "::user-data", input="#cloud-config\n")
        pack(image, "xz")
    return folder


@pytest.fixture
def server(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Nginx]:
    without_proxies(monkeypatch)
    web = tmp_path / "web"
    web.mkdir()
    for packed in images.glob("*.xz"):
        (web / packed.name).hardlink_to(packed)
    with nginx(web, tmp_path / "nginx") as server:
        yield server


@pytest.fixture
def publish(server: Nginx, images: Path, tmp_path: Path) -> Callable[..., str]:
    """Return what publishes one of the images and returns the URL of the list."""

    def published(image: str = "bookworm", init_format: str = "systemd", **changes: Any) -> str:
        raw, packed = images / f"{image}.img", images / f"{image}.img.xz"
        url = f"{server.url}/{packed.name}"
        write_list(
            tmp_path / "web" / "list.json",
            listed_file(raw, packed, url, init_format=init_format, **changes),
        )
        return f"{server.url}/list.json"

    return published


@pytest.fixture
def program(tmp_path: Path) -> Program:
    def call(*arguments: object) -> CompletedProcess[str]:
        return rpi_image(*arguments, cache=tmp_path / "cache", cwd=tmp_path)

    return call


def names(program: Program, *arguments: object) -> list[str]:
    return [image["name"] for image in emitted(program("images", "--json", *arguments))["images"]]


# ---- the listing


def test_ours_and_published_ones_are_listed(program: Program, publish: Callable[..., str]) -> None:
    url = publish()
    done = succeed(program("images", "--catalog", url))
    rows = {line.split()[0]: line for line in done.stdout.splitlines()}
    assert {"hypriotos-1.12.3", "sample", NAME} <= set(rows)
    assert "firstrun" in rows[NAME]
    assert f"1 image in {url}, less than a minute old" in done.stderr
    report = emitted(program("images", "--json", "--catalog", url))
    (published,) = [image for image in report["images"] if image["published"]]
    assert (published["name"], published["init_format"]) == (NAME, "systemd")
    assert {"sha256", "raw_sha256", "raw_size_bytes", "size_bytes", "url"} <= set(published)
    assert (report["catalog"]["url"], report["catalog"]["stale"]) == (url, False)
    assert report["catalog"]["age_seconds"] < 300


def test_the_last_list_is_used_where_the_publisher_is_gone(
    program: Program, publish: Callable[..., str], tmp_path: Path
) -> None:
    url = publish()
    succeed(program("images", "--catalog", url))
    (tmp_path / "web" / "list.json").write_text("<html>log in</html>")
    done = succeed(program("images", "--json", "--catalog", url))
    assert "warning: " in done.stderr
    assert "is not a list of images: it is not JSON; the list of less than" in done.stderr
    report = json.loads(done.stdout)
    assert report["catalog"]["stale"] is True
    assert NAME in [image["name"] for image in report["images"]]


def test_a_list_that_was_never_good_is_exit_4(program: Program, tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text("[]")
    done = program("images", "--catalog", "list.json")
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr.startswith(f"error: {tmp_path}/list.json is not a list of images: ")
    assert "\nhint: " in done.stderr


@pytest.mark.parametrize(
    ("board", "expected"),
    [
        ("pi5", {"for-5", "for-5-32"}),
        ("Raspberry Pi 5", {"for-5", "for-5-32"}),
        ("pi5-64bit", {"for-5"}),
        ("PI3", {"for-3", "for-all"}),
        ("3B+", {"for-3", "for-all"}),
        # The list names no such board; our own table knows its family.
        ("pi500", {"for-5", "for-5-32"}),
        ("CM5", {"for-5", "for-5-32"}),
        ("zero2w", {"for-3"}),
        ("Zero 2 W", {"for-3"}),
        ("cm3+", {"for-3"}),
        ("pi1b+", set()),
    ],
)
def test_a_board_chooses_by_the_tags(
    program: Program, tmp_path: Path, board: str, expected: set[str]
) -> None:
    tags = {
        "for-5": ["pi5-64bit"],
        "for-5-32": ["pi5-32bit"],
        "for-3": ["pi3-64bit"],
        "for-all": [],
    }
    entries = [listed(name=name, devices=devices) for name, devices in tags.items()]
    path = write_list(tmp_path / "list.json", *entries)
    found = names(program, "--catalog", path, "--board", board)
    assert {name.partition("@")[0] for name in found if "@" in name} == expected


def test_a_board_chooses_ours_by_their_machines(program: Program, tmp_path: Path) -> None:
    path = write_list(tmp_path / "list.json")
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "images.yml").write_text(
        "images:\n  six: {file: a.img, machines: [armv6l]}\n"
        "  seven: {file: b.img, machines: [armv7l]}\n  any: {file: c.img}\n"
    )
    found = names(program, "--catalog", path, "--board", "pi2", "--profiles-dir", mine)
    assert {"seven", "any"} <= set(found)
    assert "six" not in found


def test_an_unknown_board_is_a_wrong_use(program: Program, tmp_path: Path) -> None:
    path = write_list(tmp_path / "list.json")
    done = program("images", "--catalog", path, "--board", "banana")
    assert done.returncode == 2
    assert done.stderr.startswith("error: no board `banana`\nhint: ")


def test_a_search_finds_all_words_in_names_and_descriptions(
    program: Program, tmp_path: Path
) -> None:
    path = write_list(
        tmp_path / "list.json",
        listed(name="Alpha", description="for a router"),
        listed(name="Beta Router", description="small"),
        listed(name="Gamma", description="small"),
    )
    assert names(program, "--catalog", path, "--search", "ROUTER") == [
        "alpha@2026-06-18", "beta-router@2026-06-18",
    ]  # fmt: skip
    assert names(program, "--catalog", path, "--search", "small router") == [
        "beta-router@2026-06-18"
    ]
    assert names(program, "--catalog", path, "--search", "nothing") == []


def test_control_characters_of_a_list_do_not_reach_the_terminal(
    program: Program, tmp_path: Path
) -> None:
    path = write_list(
        tmp_path / "list.json", listed(name="\x1b[31mred", description="\x1b]0;x\x07")
    )
    done = succeed(program("images", "--catalog", path, "-v"))
    assert "\x1b" not in done.stdout + done.stderr
    assert "31mred@2026-06-18" in done.stdout


def test_a_list_of_a_megabyte_is_listed(program: Program, tmp_path: Path) -> None:
    entries = [listed(f"https://example.org/{i}.img.xz", name=f"Image {i}") for i in range(2300)]
    path = write_list(tmp_path / "list.json", *entries)
    assert path.stat().st_size > 1_000_000
    assert len(names(program, "--catalog", path, "--search", "image")) == 2300


# ---- the choice


def test_an_image_by_its_name_is_built(
    program: Program, publish: Callable[..., str], server: Nginx, tmp_path: Path
) -> None:
    url = publish()
    built = emitted(program("build", *HOST, NAME, "--catalog", url, "-o", "x.img", "--json"))
    assert built["generation"] == "firstrun"
    assert "pi-03" in mtype(tmp_path / "x.img", "rpi-image/node.env")
    # A name with its date needs no list any more, and a cached image no download.
    asked = len(server.requests())
    succeed(program("build", *HOST, NAME, "--catalog", url, "-o", "y.img"))
    assert len(server.requests()) == asked
    assert sha256sum(tmp_path / "x.img") == sha256sum(tmp_path / "y.img")


def test_a_name_without_a_date_is_the_newest(program: Program, tmp_path: Path) -> None:
    path = write_list(
        tmp_path / "list.json", listed(release_date="2025-12-04"), listed(init_format="systemd")
    )
    plan = emitted(program("build", "-n", *HOST, "raspios-lite-arm64", "--catalog", path, "--json"))
    assert plan["generation"] == "firstrun"


def test_a_classroom_and_a_catalogue_name_their_list(
    program: Program, publish: Callable[..., str], tmp_path: Path
) -> None:
    url = publish()
    room = tmp_path / "room.yml"
    room.write_text(f"{CLASS}catalog: {url}\nnodes: [{{hostname: a}}]\n")
    assert emitted(program("check", room, "--json"))["ok"]
    room.write_text(f"{CLASS}catalog: web/list.json\nnodes: [{{hostname: a}}]\n")
    assert emitted(program("check", room, "--json"))["ok"]
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "images.yml").write_text(f"catalog: {url}\n")
    room.write_text(f"{CLASS}nodes: [{{hostname: a}}]\n")
    assert emitted(program("check", room, "--json", "--profiles-dir", mine))["ok"]
    assert NAME in names(program, "--profiles-dir", mine)


def test_a_starter_file_may_name_a_published_image(
    program: Program, publish: Callable[..., str], tmp_path: Path
) -> None:
    """It was in the list the last time: a name with a date needs no network."""
    url = publish()
    place = "https://downloads.raspberrypi.com/os_list_imagingutility_v4.json"
    succeed(program("images", "--catalog", url))
    (stored,) = (tmp_path / "cache" / "lists").iterdir()
    name = hashlib.sha256(place.encode()).hexdigest()[:32]
    (stored.parent / f"{name}.json").write_text(stored.read_text().replace(url, place))
    succeed(program("init", "room.yml", "--profile", "arm64", "--image", NAME, "--no-input"))
    assert f'image: "{NAME}"' in (tmp_path / "room.yml").read_text()


def test_an_image_that_is_not_in_the_list_has_its_line(program: Program, tmp_path: Path) -> None:
    write_list(tmp_path / "list.json", listed())
    room = tmp_path / "room.yml"
    room.write_text(
        "profile: armv7\ncatalog: list.json\nimage: raspios@2020-01-01\nnodes: [{hostname: a}]\n"
    )
    done = program("check", room)
    assert done.returncode == 3
    assert "room.yml:3: " in done.stdout
    assert "no base image `raspios@2020-01-01`" in done.stdout


def test_a_roster_needs_no_list(program: Program, tmp_path: Path) -> None:
    """`export` and `labels` do not use the network: a name with a date is enough."""
    room = tmp_path / "room.yml"
    room.write_text(
        f"profile: armv7\ncatalog: http://127.0.0.1:1/l.json\nimage: {NAME}\n"
        "network: {address: 192.168.2.5}\nnodes: [{hostname: a}]\n"
    )
    done = succeed(program("export", room, "--format", "hosts"))
    assert "192.168.2.5" in done.stdout
    assert done.stderr == ""


def test_an_unknown_init_format_is_refused_by_its_word(
    program: Program, publish: Callable[..., str]
) -> None:
    url = publish(init_format="rpi-preseed")
    done = program("build", *HOST, NAME, "--catalog", url)
    assert done.returncode == 3
    assert f"image `{NAME}` takes its settings by `rpi-preseed`" in done.stderr
    assert "rpi-preseed: not supported" in succeed(program("images", "--catalog", url)).stdout


@pytest.mark.parametrize(
    ("image", "init_format", "generation", "fits"),
    [
        ("bookworm", "systemd", "firstrun", True),
        ("trixie", "cloudinit-rpi", "cloud-init", True),
        ("trixie", "cloudinit", "cloud-init", True),
        ("trixie", "none", "cloud-init", True),
        ("plain", "systemd", "firstrun", True),
        ("plain", "cloudinit", "cloud-init", True),
        ("bookworm", "cloudinit-rpi", "firstrun", False),
        ("trixie", "systemd", "cloud-init", False),
    ],
)
def test_the_list_says_the_generation_unless_the_image_shows_another(
    program: Program,
    publish: Callable[..., str],
    image: str,
    init_format: str,
    generation: str,
    fits: bool,
) -> None:
    url = publish(image, init_format)
    done = program("build", *HOST, NAME, "--catalog", url, "-o", "x.img", "--json")
    if fits:
        assert emitted(done)["generation"] == generation
        return
    assert done.returncode == 5
    for word in (init_format, "`firstrun`", "`cloud-init`", f"--generation {generation}"):
        assert word in done.stderr
    named = ("--generation", generation)
    done = program("build", *HOST, NAME, "--catalog", url, "-o", "x.img", "--json", *named)
    assert emitted(done)["generation"] == generation


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"image_download_sha256": "ab" * 32}, "bookworm.img.xz has the SHA-256 "),
        ({"image_download_sha256": "", "extract_sha256": "ab" * 32}, "the unpacked "),
        ({"image_download_sha256": None, "extract_sha256": "ab" * 32}, "the unpacked "),
        ({"extract_sha256": "ab" * 32}, "the unpacked "),
        (
            {"image_download_sha256": "", "extract_sha256": "ab" * 32, "extract_size": 70 << 20},
            "the",
        ),
        (
            {"image_download_sha256": "", "extract_sha256": "ab" * 32, "extract_size": 90 << 20},
            "the",
        ),
    ],
)
def test_a_file_that_changed_shows_both_digests(
    program: Program,
    publish: Callable[..., str],
    images: Path,
    changes: dict[str, Any],
    what: str,
) -> None:
    url = publish(**changes)
    done = program("fetch", NAME, "--catalog", url)
    assert done.returncode == 4
    found = images / ("bookworm.img.xz" if "bookworm" in what else "bookworm.img")
    assert what in done.stderr
    assert f"has the SHA-256 {sha256sum(found)} instead of {'ab' * 32}" in done.stderr


def test_without_a_digest_of_the_download_the_raw_one_decides(
    program: Program, publish: Callable[..., str], images: Path, server: Nginx
) -> None:
    url = publish(image_download_sha256="")
    base = emitted(program("fetch", NAME, "--catalog", url, "--json"))
    assert base["sha256"] == sha256sum(images / "bookworm.img")
    assert not any(".sha256" in request for request in server.requests())


@pytest.mark.parametrize("lie", [20 << 20, 70 << 20])
def test_a_size_that_is_a_lie_is_named(
    lie: int, program: Program, publish: Callable[..., str]
) -> None:
    """The threads that unpack end with the error, too: the program once waited for them."""
    done = program("fetch", NAME, "--catalog", publish(extract_size=lie))
    assert done.returncode == 5
    assert f"{24 << 20} bytes instead of {lie}" in done.stderr
