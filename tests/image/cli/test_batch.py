"""`rpi-image batch` and `diff`: a room of nodes, each read back and compared with the roster."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

from imagebuilder.build.manifest import load_manifest
from tests.lib.program import emitted, fsck, mtype, node_env, rpi_image, small_base, succeed
from tests.lib.tools import mounted, need, need_root, run, small_tmpfs

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator
    from pathlib import Path

ROOM = """\
profile: armv7
image: {{file: {image}, unchecked: true}}
shack: {{address: 192.168.2.1}}
network: {{gateway: 192.168.2.1}}
wifi:
  country: FR
  networks: [{{ssid: shack, passphrase: {{env: CLASS_WIFI}}}}]
nodes:
  - hostname: pi-[01-{count:02}]
    address: 192.168.2.[101-{last}]/24
"""
ENVIRONMENT = {"CLASS_WIFI": "correct horse"}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a cache that one module shares."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a small base image that one module shares."""
    need("sfdisk", "zstd")
    return small_base(tmp_path_factory.mktemp("base"))


@pytest.fixture
def classroom(tmp_path: Path, base: Path) -> Path:
    """Return a classroom of three nodes."""
    return write_classroom(tmp_path, 3, base)


def write_classroom(folder: Path, count: int, base: Path) -> Path:
    path = folder / "room.yml"
    path.write_text(ROOM.format(image=base, count=count, last=100 + count))
    return path


@pytest.fixture
def program(cache: Path, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return rpi-image, run beside the classroom file with its secret in the environment."""
    need("mtype")

    def call(*arguments: object) -> subprocess.CompletedProcess[str]:
        return rpi_image(*arguments, cache=cache, cwd=tmp_path, **ENVIRONMENT)

    return call


def states(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    return {node["hostname"]: node["state"] for node in json.loads(done.stdout)["nodes"]}


def test_thirty_nodes_are_what_the_roster_says(
    program: Callable[..., subprocess.CompletedProcess[str]], base: Path, tmp_path: Path
) -> None:
    classroom = write_classroom(tmp_path, 30, base)
    done = program("batch", classroom, "-o", "out", "--json")
    assert set(states(succeed(done)).values()) == {"built"}
    images = sorted((tmp_path / "out").glob("*.img"))
    assert [image.stem for image in images] == [f"pi-{n:02}" for n in range(1, 31)]
    for number, image in enumerate(images, 1):
        values = node_env(image)
        assert values["NODE_HOSTNAME"] == f"pi-{number:02}"
        assert values["NETWORK_ADDRESS"] == f"192.168.2.{100 + number}/24"
        assert f"hostname=pi-{number:02}\n" in mtype(image, "occidentalis.txt")
        fsck(image, tmp_path)
    run("sha256sum", "--check", "--quiet", "SHA256SUMS", cwd=tmp_path / "out")


@pytest.mark.root
def test_where_the_file_system_shares_blocks_thirty_images_need_the_room_of_one(
    base: Path, tmp_path: Path
) -> None:
    need_root()
    need("mkfs.btrfs")
    with mounted(tmp_path, "mkfs.btrfs", "-q") as disk:
        shutil.copy(base, disk / "base.img")
        classroom = write_classroom(tmp_path, 30, disk / "base.img")
        run("sync", "-f", disk)
        free = shutil.disk_usage(disk).free
        done = rpi_image(
            "batch",
            classroom,
            "-o",
            disk / "out",
            cache=disk / "cache",
            cwd=tmp_path,
            **ENVIRONMENT,
        )
        succeed(done)
        run("sync", "-f", disk)
        assert free - shutil.disk_usage(disk).free < 30 << 20


def test_what_has_not_changed_is_not_built_again(
    program: Callable[..., subprocess.CompletedProcess[str]], classroom: Path, tmp_path: Path
) -> None:
    assert set(states(succeed(program("batch", classroom, "--json"))).values()) == {"built"}
    before = (tmp_path / "build" / "pi-01.img").stat().st_mtime_ns
    assert set(states(succeed(program("batch", classroom, "--json"))).values()) == {"unchanged"}
    classroom.write_text(classroom.read_text() + "    labels: {row: a}\n  - hostname: extra\n")
    again = states(succeed(program("batch", classroom, "--json", "--nodes", "extra,pi-01,extra")))
    assert list(again.items()) == [("pi-01", "built"), ("extra", "built")]
    assert (tmp_path / "build" / "pi-01.img").stat().st_mtime_ns > before
    sums = (tmp_path / "build" / "SHA256SUMS").read_text()
    assert len(sums.splitlines()) == 4
    run("sha256sum", "--check", "--quiet", "SHA256SUMS", cwd=tmp_path / "build")


def test_a_cut_off_image_is_built_again(
    program: Callable[..., subprocess.CompletedProcess[str]], classroom: Path, tmp_path: Path
) -> None:
    succeed(program("batch", classroom, "--nodes", "pi-02"))
    image = tmp_path / "build" / "pi-02.img"
    run("truncate", "-s", "1M", image)
    assert states(succeed(program("batch", classroom, "--nodes", "pi-02", "--json"))) == {
        "pi-02": "built"
    }
    assert image.stat().st_size == 24 << 20


def test_diff_names_the_files_that_change(
    program: Callable[..., subprocess.CompletedProcess[str]], classroom: Path
) -> None:
    succeed(program("batch", classroom))
    assert "all up to date" in succeed(program("diff", classroom)).stderr
    classroom.write_text(classroom.read_text() + "    timezone: Europe/Paris\n")
    nodes = emitted(program("diff", classroom, "--json"))["nodes"]
    assert [node["hostname"] for node in nodes] == ["pi-01", "pi-02", "pi-03"]
    assert "~ rpi-image/node.env" in nodes[0]["changes"]


def test_a_dry_run_shows_every_node_and_writes_nothing(
    program: Callable[..., subprocess.CompletedProcess[str]], classroom: Path, tmp_path: Path
) -> None:
    done = succeed(program("batch", classroom, "--dry-run"))
    rows = [line.split() for line in done.stdout.splitlines()]
    assert rows[0][:2] == ["node", "state"]
    assert [row[:4] for row in rows[1:]] == [
        [f"pi-0{n}", "planned", "armv7", f"192.168.2.10{n}/24"] for n in (1, 2, 3)
    ]
    assert not (tmp_path / "build").exists()


@pytest.mark.parametrize("command", [("batch", "-n"), ("diff",), ("batch", "--one-image", "-n")])
def test_planning_asks_no_network(tmp_path: Path, command: tuple[str, ...]) -> None:
    classroom = tmp_path / "room.yml"
    nobody = "http://127.0.0.1:9/"
    classroom.write_text(
        "profile: armv7\nimage: hypriotos-1.12.3\n"
        "nodes: [{hostname: 'pi-[1-2]', mac: 'b8:27:eb:00:00:[11-12]'}]\n"
    )
    done = rpi_image(
        *command, classroom, "--json", cache=tmp_path / "cache", cwd=tmp_path,
        http_proxy=nobody, https_proxy=nobody,
    )  # fmt: skip
    said = emitted(done)
    assert done.stderr.count("planned without the base image") == 1
    for node in said.get("nodes", [said | {"state": "planned"}]):
        assert (node["state"], node["generation"]) == ("planned", "cloud-init")
    assert not (tmp_path / "build").exists()


def test_a_plan_without_the_base_compares_nothing(
    program: Callable[..., subprocess.CompletedProcess[str]], classroom: Path, tmp_path: Path
) -> None:
    succeed(program("batch", classroom, "--nodes", "pi-01"))
    text = classroom.read_text().splitlines()
    text[1] = "image: {url: 'http://127.0.0.1:9/x.img', unchecked: true}\ngeneration: occidentalis"
    classroom.write_text("\n".join(text) + "\n")
    nodes = emitted(program("diff", classroom, "--json"))["nodes"]
    assert [node["changes"] for node in nodes[:2]] == [
        ["not compared: no base image"],
        ["new"],
    ]


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("Class 3b", "Class 3b.img"),
        ("3b/../../evil/room", "3b-..-..-evil-room.img"),
        ("..", "classroom.img"),
        ("é" * 200, "é" * 100 + ".img"),
    ],
)
def test_the_one_image_is_named_after_the_class_and_stays_in_its_folder(
    program: Callable[..., subprocess.CompletedProcess[str]], classroom: Path, name: str, file: str
) -> None:
    text = classroom.read_text() + "    mac: b8:27:eb:00:00:[11-13]\n"
    classroom.write_text(f"name: {name}\n{text}")
    assert emitted(program("batch", classroom, "--one-image", "-n", "--json"))["image"] == (
        f"build/{file}"
    )


def test_no_secret_is_left_in_any_output(
    program: Callable[..., subprocess.CompletedProcess[str]], classroom: Path, tmp_path: Path
) -> None:
    done = succeed(program("batch", classroom, "--json", "-v"))
    written = [p.read_text() for p in (tmp_path / "build").iterdir() if p.suffix != ".img"]
    assert "correct horse" not in done.stdout + done.stderr + "".join(written)


def test_one_nodes_failure_stops_no_other(
    program: Callable[..., subprocess.CompletedProcess[str]], classroom: Path, tmp_path: Path
) -> None:
    overlay = tmp_path / "big"
    overlay.mkdir()
    with (overlay / "huge.bin").open("wb") as file:
        file.truncate(70 << 20)
    classroom.write_text(classroom.read_text() + "  - hostname: greedy\n    overlays: [big]\n")
    done = program("batch", classroom, "--json")
    assert done.returncode == 5
    assert states(done) == {
        "pi-01": "built", "pi-02": "built", "pi-03": "built", "greedy": "failed",
    }  # fmt: skip
    assert "greedy: " in done.stderr
    assert "huge.bin" in done.stderr
    assert not (tmp_path / "build" / "greedy.img").exists()


def test_no_node_is_written_over_an_image_that_another_is_made_from(
    program: Callable[..., subprocess.CompletedProcess[str]], base: Path, tmp_path: Path
) -> None:
    mine = tmp_path / "pi-03.img"
    shutil.copy(base, mine)
    kept = run("sha256sum", mine)
    classroom = write_classroom(tmp_path, 3, mine)
    for arguments in (["--nodes", "pi-01,pi-03"], ["-n"]):
        done = program("batch", classroom, "-o", ".", *arguments)
        assert done.returncode == 7
        assert "pi-03.img is the base image itself" in done.stderr
        assert "hint: use another path with -o" in done.stderr
    assert run("sha256sum", mine) == kept
    assert not (tmp_path / "pi-01.img").exists()


@pytest.mark.parametrize(
    "damaged",
    [
        '{"base": null}',
        '{"base": {}, "files": [1]}',
        '{"base": {}, "files": [{"path": "a"}]}',
        '{"base": {}, "files": [], "image_sha256": [1]}',
        "[" * 100_000,
        "\udcff",
        "[]",
    ],
)
def test_a_damaged_manifest_counts_as_none(tmp_path: Path, damaged: str) -> None:
    (tmp_path / "pi.json").write_text(damaged, "utf-8", "surrogateescape")
    assert load_manifest(tmp_path / "pi.json") is None


def test_foreign_lines_of_the_sums_go_and_ours_stay(
    program: Callable[..., subprocess.CompletedProcess[str]], classroom: Path, tmp_path: Path
) -> None:
    sums = tmp_path / "build" / "SHA256SUMS"
    succeed(program("batch", classroom, "--nodes", "pi-02,pi-03"))
    absent = b"0" * 64 + b"  pi-99.img\n"
    sums.write_bytes(b"\xff\xfe\n" + sums.read_bytes() + absent + b"x\n")
    (tmp_path / "build" / "pi-02.img").unlink()
    succeed(program("batch", classroom, "--nodes", "pi-01"))
    lines = [line.split() for line in sums.read_text().splitlines()]
    assert [name for _, name in lines] == ["pi-01.img", "pi-03.img"]


def hostnames(build: Path) -> list[str]:
    return [
        node["hostname"] for node in json.loads((build / "classroom.json").read_text())["nodes"]
    ]


def test_the_manifest_of_the_class_keeps_the_nodes_that_a_run_leaves_out(
    program: Callable[..., subprocess.CompletedProcess[str]], classroom: Path, tmp_path: Path
) -> None:
    build = tmp_path / "build"
    succeed(program("batch", classroom))
    succeed(program("batch", classroom, "--nodes", "pi-02"))
    assert hostnames(build) == ["pi-01", "pi-02", "pi-03"]
    (build / "pi-03.img").unlink()
    (build / "pi-01.json").write_text("damaged")
    succeed(program("batch", classroom, "--nodes", "pi-02"))
    assert hostnames(build) == ["pi-02"]
    (build / "classroom.json").write_text('{"nodes": [1, {}]}')
    succeed(program("batch", classroom, "--nodes", "pi-01"))
    assert hostnames(build) == ["pi-01"]


def test_a_node_built_alone_leaves_no_sum_of_its_earlier_image(
    program: Callable[..., subprocess.CompletedProcess[str]], classroom: Path, tmp_path: Path
) -> None:
    succeed(program("batch", classroom))
    classroom.write_text(classroom.read_text() + "    timezone: Europe/Paris\n")
    succeed(program("build", "--config", classroom, "--hostname", "pi-02"))
    names = [line.split()[1] for line in (tmp_path / "build/SHA256SUMS").read_text().splitlines()]
    assert names == ["pi-01.img", "pi-03.img"]


def test_an_unknown_generation_is_planned_as_far_as_it_is_known(
    program: Callable[..., subprocess.CompletedProcess[str]], classroom: Path
) -> None:
    text = classroom.read_text().splitlines()
    text[1] = f"image: {{url: 'http://127.0.0.1:9/x.img', sha256: {'0' * 64}}}"
    classroom.write_text("\n".join(text) + "\n    mac: b8:27:eb:00:00:[11-13]\n")
    done = succeed(program("batch", classroom, "-n"))
    rows = [line.split() for line in done.stdout.splitlines()[1:]]
    assert [row[:6] for row in rows] == [
        [f"pi-0{n}", "planned", "armv7", f"192.168.2.10{n}/24", "?", "new"] for n in (1, 2, 3)
    ]
    assert done.stderr.count("is not known without the image") == 1
    for more in (
        ("batch", classroom, "--one-image"),
        ("build", "--config", classroom, "--hostname", "pi-01"),
    ):
        done = succeed(program(*more, "-n", "--json"))
        assert json.loads(done.stdout)["generation"] == ""
        assert done.stderr.count("is not known without the image") == 1


def test_an_error_of_all_nodes_is_said_once(
    program: Callable[..., subprocess.CompletedProcess[str]], base: Path, tmp_path: Path
) -> None:
    classroom = write_classroom(tmp_path, 6, tmp_path / "none.img")
    classroom.write_text(
        classroom.read_text() + f"  - {{hostname: other, image: {{file: {base}}}}}\n"
    )
    done = program("batch", classroom)
    assert done.returncode == 4
    assert done.stderr.count("no file") == 1
    assert "pi-01, pi-02, pi-03 and 3 more: no file" in done.stderr
    rows = done.stdout.splitlines()
    assert all("failed" in row and "no file" in row for row in rows[1:7])
    assert rows[7].endswith("other.img")


@pytest.fixture
def one(classroom: Path) -> Path:
    """Return a classroom of three whose boards have their MACs."""
    classroom.write_text(classroom.read_text() + "    mac: b8:27:eb:00:00:[11-13]\n")
    return classroom


@pytest.mark.parametrize("name", ["classroom", "pi-01", "room"])
def test_one_image_is_built_when_it_changes_and_has_its_sum(
    program: Callable[..., subprocess.CompletedProcess[str]], one: Path, tmp_path: Path, name: str
) -> None:
    one.write_text(f"name: {name}\n{one.read_text()}")
    batch = ("batch", one, "--one-image", "--json")
    assert emitted(program(*batch, "-n"))["state"] == "planned"
    made = emitted(program(*batch))
    image = tmp_path / made["image"]
    assert made["state"] == "built"
    before = image.stat().st_mtime_ns
    succeed(program("batch", one))
    assert [emitted(program(*batch, *more))["state"] for more in ((), ("-n",))] == ["unchanged"] * 2
    assert image.stat().st_mtime_ns == before
    run("sha256sum", "--check", "--quiet", "SHA256SUMS", cwd=image.parent)
    names = [line.split()[1] for line in (image.parent / "SHA256SUMS").read_text().splitlines()]
    assert sorted([image.name, "pi-01.img", "pi-02.img", "pi-03.img"]) == names
    one.write_text(one.read_text() + "    timezone: Europe/Paris\n")
    changed = emitted(program(*batch, "-n"))
    assert changed["state"] == "planned"
    assert any(change.endswith("node.env") for change in changed["changes"])
    assert emitted(program(*batch))["state"] == "built"
    assert image.stat().st_mtime_ns > before


def test_one_image_is_that_of_the_whole_class(
    program: Callable[..., subprocess.CompletedProcess[str]], one: Path, tmp_path: Path
) -> None:
    done = program("batch", one, "--one-image", "--node", "pi-01")
    assert done.returncode == 2
    assert "--one-image and --node exclude each other" in done.stderr
    assert not (tmp_path / "build").exists()


def test_sums_that_cannot_be_written_are_said_before_the_first_image(
    program: Callable[..., subprocess.CompletedProcess[str]], classroom: Path, tmp_path: Path
) -> None:
    (tmp_path / "build" / "SHA256SUMS").mkdir(parents=True)
    done = program("batch", classroom)
    assert done.returncode == 7
    assert "SHA256SUMS" in done.stderr
    assert not list((tmp_path / "build").glob("*.img"))


@pytest.mark.parametrize("nodes", [",", " , ", "", " "])
def test_a_list_of_no_nodes_is_a_usage_error(
    program: Callable[..., subprocess.CompletedProcess[str]], classroom: Path, nodes: str
) -> None:
    for more in ((), ("--one-image",)):
        done = program("batch", classroom, "--nodes", nodes, "-n", *more)
        assert done.returncode == 2
        assert "is empty" in done.stderr


def test_an_unknown_node_is_a_usage_error(
    program: Callable[..., subprocess.CompletedProcess[str]], classroom: Path
) -> None:
    done = program("batch", classroom, "--nodes", "pi-01,pi-99")
    assert done.returncode == 2
    assert "pi-99" in done.stderr


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a tmpfs with room for less than the images need."""
    with small_tmpfs(tmp_path / "small", "4M") as folder:
        yield folder


@pytest.mark.root
def test_the_room_needed_is_checked_before_the_first_copy(
    program: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path: Path,
    one: Path,
    small_disk: Path,
) -> None:
    done = program("batch", one, "-o", small_disk / "out")
    assert done.returncode == 7
    assert "3 images need 1" in done.stderr
    assert "MB, but" in done.stderr
    assert "4.2 MB free" in done.stderr
    assert "pi-01, pi-02, pi-03: 3 images need" in done.stderr
    assert done.stderr.count("flash -c") == 1
    assert done.stdout.count("3 images need") == 3
    for more in ((), ("--one-image",)):
        done = succeed(program("batch", one, "-o", small_disk / "out", "-n", *more))
        assert "warning: " in done.stderr
        assert f"{'1 image needs' if more else '3 images need'} " in done.stderr
        assert not list((small_disk / "out").glob("*.img"))
    assert not list((small_disk / "out").glob("*.img"))


@pytest.mark.root
def test_a_folder_that_cannot_be_written_is_said(
    program: Callable[..., subprocess.CompletedProcess[str]], classroom: Path, tmp_path: Path
) -> None:
    need_root()
    folder = tmp_path / "read-only"
    folder.mkdir()
    run("mount", "-t", "tmpfs", "-o", "ro", "none", folder)
    try:
        done = program("batch", classroom, "-o", folder)
    finally:
        run("umount", folder)
    assert done.returncode == 7
    assert "Read-only file system" in done.stderr
    assert "hint:" in done.stderr
