"""`rpi-image build` and `inspect` on the sample image, read back with mtools, fsck and sfdisk."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from imagebuilder.build.node import compression_of, output_path
from tests.lib.program import (
    SAMPLE,
    SAMPLE_SHA256,
    emitted,
    fsck,
    mtype,
    node_env,
    rpi_image,
    succeed,
)
from tests.lib.tools import need, run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NODE = ("--profile", "armv7", "--hostname", "pi-03", "--image", "sample")
SEED_OPTS = (
    "--storage-driver=overlay -D -H tcp://0.0.0.0:2375 -H unix:///var/run/docker.sock"
    " --label arch=armv7 --insecure-registry 192.168.2.1:5000"
    " --registry-mirror=http://192.168.2.1:5000"
)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a cache that one module shares."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def program(cache: Path, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return rpi-image, run in a folder of its own."""
    need("mtype", "fsck.vfat")

    def call(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        return rpi_image(*arguments, cache=cache, cwd=tmp_path, **environment)

    return call


@pytest.fixture
def wifi_file(tmp_path: Path) -> Path:
    """Return a file with a passphrase that shells and sed would spoil."""
    path = tmp_path / "wifi.txt"
    path.write_text("p$a`b\"c'd\\e/f&g h\n")
    return path


def test_the_main_job(
    program: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    done = succeed(
        program("build", *NODE, "--registry", "192.168.2.1:5000", "--shack", "192.168.2.1")
    )
    assert done.stdout == "build/pi-03.img\n"
    image = tmp_path / "build" / "pi-03.img"
    assert image.stat().st_size == 1_280_000_000
    assert "hostname=pi-03\n" in mtype(image, "occidentalis.txt")
    cmdline = mtype(image, "cmdline.txt")
    assert cmdline.startswith("+dwc_otg.lpm_enable=0 console=tty1 root=/dev/mmcblk0p2")
    assert "init=/bin/sh" in cmdline
    values = node_env(image)
    assert values["NODE_HOSTNAME"] == "pi-03"
    assert values["DOCKER_OPTS"] == SEED_OPTS
    assert values["SHACK_ADDRESS"] == "192.168.2.1"
    fsck(image, tmp_path)


def test_nothing_outside_the_boot_partition_changes(
    program: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    succeed(program("build", *NODE))
    base = tmp_path / "base.img"
    run("zstd", "-dq", SAMPLE, "-o", base)
    before = run("sfdisk", "-d", base).replace(str(base), "X")
    after = run("sfdisk", "-d", tmp_path / "build" / "pi-03.img").replace(
        str(tmp_path / "build" / "pi-03.img"), "X"
    )
    assert before == after
    manifest = json.loads((tmp_path / "build" / "pi-03.json").read_text())
    for extent in manifest["patch"]:
        assert extent["offset_bytes"] >= 2048 * 512
        assert extent["offset_bytes"] + extent["size_bytes"] <= (2048 + 131072) * 512
    assert sum(extent["size_bytes"] for extent in manifest["patch"]) < 160 << 10


@pytest.mark.long
def test_same_input_gives_same_bytes_and_the_time_only_shows_where_it_must(
    program: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    for name, epoch in (("a", "1700000000"), ("b", "1700000000"), ("c", "1800000000")):
        arguments = ("build", *NODE, "-o", f"{name}.img", "--digest")
        succeed(
            program(*arguments, SOURCE_DATE_EPOCH=epoch, TZ="Asia/Tokyo" if name == "b" else "UTC")
        )
    manifests = [json.loads((tmp_path / f"{name}.json").read_text()) for name in "abc"]
    digests = [manifest["image_sha256"] for manifest in manifests]
    assert digests[0] == digests[1] != digests[2]
    assert len({manifest["config_hash"] for manifest in manifests}) == 1


def test_inspect_has_stable_keys_and_no_secret(
    program: Callable[..., subprocess.CompletedProcess[str]], wifi_file: Path, tmp_path: Path
) -> None:
    wifi = ("--wifi-ssid", "Café-📶", "--wifi-passphrase-file", wifi_file, "--wifi-country", "FR")
    succeed(program("build", *NODE, *wifi, "--label", "room=B12"))
    done = program("inspect", tmp_path / "build" / "pi-03.img", "--json")
    report = emitted(done)
    assert report["generation"] == "occidentalis"
    assert report["hostname"] == "pi-03"
    assert report["arch"] == "armv7"
    assert "--label room=B12" in report["docker_opts"]
    assert report["shack"] == ""
    assert report["wifi"] == [{"ssid": "Café-📶", "country": "FR", "hidden": False}]
    assert [part["type"] for part in report["partitions"]] == ["0x0c", "0x83"]
    assert report["fat"]["type"] == "FAT16"
    assert report["fat"]["clean"] is True
    secret = wifi_file.read_text().strip()
    everything = done.stdout + (tmp_path / "build" / "pi-03.json").read_text()
    assert secret not in everything
    assert "p$a`b" not in everything


def test_the_free_room_is_what_fsck_counts(
    program: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    succeed(program("build", *NODE))
    report = emitted(program("inspect", "build/pi-03.img", "--json"))
    free = run("mdir", "-i", f"{tmp_path / 'build' / 'pi-03.img'}@@1048576", "::").splitlines()[-2]
    assert int("".join(free.replace("bytes free", "").split())) == report["fat"]["free_bytes"]


@pytest.mark.parametrize("form", ["zst", "gz"])
def test_inspect_reads_compressed_images(
    form: str, program: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    done = succeed(program("build", *NODE, "--compress", form))
    assert done.stdout == f"build/pi-03.img.{form}\n"
    assert emitted(program("inspect", f"build/pi-03.img.{form}", "--json"))["hostname"] == "pi-03"


def test_inspect_says_what_a_stock_image_is(
    program: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    report = emitted(program("inspect", SAMPLE, "--json"))
    assert (report["generation"], report["hostname"]) == ("occidentalis", "black-pearl")
    assert report["config_hash"] == ""


def test_inspect_says_which_logins_there_are(
    program: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("correct horse\n")
    (tmp_path / "room.yml").write_text(
        "user: {name: ada, password: {file: secret}}\nnodes: [{hostname: pi-03}]\n"
    )
    succeed(program("build", "-c", "room.yml", *NODE))
    report = emitted(program("inspect", "build/pi-03.img", "--json"))
    assert (report["user"], report["vendor_logins"]) == ("ada", "locked")
    assert report["reach"] == "ssh ada@pi-03.local by password; Docker in the image"
    stock = emitted(program("inspect", SAMPLE, "--json"))
    assert (stock["user"], stock["vendor_logins"], stock["reach"]) == ("", "", "")


def test_inspect_for_people_names_the_facts(
    program: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    succeed(program("build", *NODE, "--shack", "192.168.2.1"))
    lines = succeed(program("inspect", "build/pi-03.img")).stdout.splitlines()
    facts = dict(line.split(":", 1) for line in lines)
    assert facts["hostname"].strip() == "pi-03"
    assert facts["boot"].strip().startswith("FAT16, ")
    assert facts["cluster"].strip().startswith("consul client ")


def test_a_dry_run_plans_and_writes_nothing(
    program: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    succeed(program("fetch", "sample"))
    plan = emitted(program("build", *NODE, "--dry-run", "--json"))
    assert "rpi-image/node.env" in [file["path"] for file in plan["files"]]
    assert "cmdline.txt" in [file["path"] for file in plan["files"]]
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_does_without_the_image_where_it_can(tmp_path: Path) -> None:
    done = rpi_image(
        "build", "--profile", "armv7", "--hostname", "pi-03", "-n", "--json",
        cache=tmp_path / "empty", cwd=tmp_path,
    )  # fmt: skip
    plan = emitted(done)
    assert plan["generation"] == "cloud-init"
    assert "without the base image" in plan["warnings"][0]
    assert done.stderr.count("without the base image") == 1


def test_a_dry_run_reads_a_file_of_the_user_s(tmp_path: Path) -> None:
    """No network is needed for it, so nothing has to be guessed."""
    raw = tmp_path / "mine.img"
    run("zstd", "-dq", SAMPLE, "-o", raw)
    done = rpi_image(
        "build", "--profile", "armv7", "--hostname", "pi-03", "--image", raw, "-n", "--json",
        cache=tmp_path / "empty", cwd=tmp_path,
    )  # fmt: skip
    assert emitted(done)["generation"] == "occidentalis"
    assert "without the base image" not in done.stderr


def test_the_plan_is_what_the_build_writes(
    program: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    succeed(program("fetch", "sample"))
    plan = emitted(program("build", *NODE, "--dry-run", "--json"))
    built = emitted(program("build", *NODE, "--json"))
    assert built["files"] == plan["files"]
    image = tmp_path / "build" / "pi-03.img"
    for file in built["files"]:
        data = subprocess.run(
            ["mtype", "-i", f"{image}@@1048576", f"::{file['path']}"],
            capture_output=True,
            check=True,
        ).stdout
        assert hashlib.sha256(data).hexdigest() == file["sha256"], file["path"]


@pytest.mark.long
def test_bmaptool_writes_the_image_by_our_block_map(
    program: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    need("bmaptool")
    succeed(program("build", *NODE, "--bmap"))
    image, copy = tmp_path / "build" / "pi-03.img", tmp_path / "copy.img"
    run("bmaptool", "copy", image, copy)
    copied = rpi_image("inspect", copy, "--json", cache=tmp_path, cwd=tmp_path)
    assert emitted(copied)["hostname"] == "pi-03"
    fsck(copy, tmp_path)


@pytest.mark.long
def test_bmaptool_finds_no_block_map_of_an_earlier_image(
    program: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    need("bmaptool")
    succeed(program("build", *NODE, "--bmap"))
    succeed(program("build", *NODE, "--label", "room=B12"))
    image, copy = tmp_path / "build" / "pi-03.img", tmp_path / "copy.img"
    run("bmaptool", "copy", "--nobmap", image, copy)
    assert not image.with_name("pi-03.img.bmap").exists()
    assert copy.read_bytes() == image.read_bytes()


def test_a_second_build_needs_no_network(
    program: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    succeed(program("build", *NODE))
    done = program(
        "build",
        *NODE,
        "-o",
        "again.img",
        https_proxy="http://127.0.0.1:9",
        http_proxy="http://127.0.0.1:9",
    )
    succeed(done)


def test_overlays_variables_and_keys_arrive(
    program: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    overlay = tmp_path / "mine"
    (overlay / "rpi-image" / "scripts").mkdir(parents=True)
    (overlay / "motd.txt.j2").write_text("{{ greeting }} from {{ node.hostname }}\n")
    (overlay / "rpi-image" / "scripts" / "10-hello").write_text("#!/bin/sh\necho hello\n")
    key = tmp_path / "id.pub"
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "me@desk", "-f", tmp_path / "id")
    succeed(
        program("build", *NODE, "--overlay", overlay, "--set", "greeting=Salut", "--ssh-key", key)
    )
    image = tmp_path / "build" / "pi-03.img"
    assert mtype(image, "motd.txt") == "Salut from pi-03\n"
    assert "echo hello" in mtype(image, "rpi-image/scripts/10-hello")
    assert mtype(image, "rpi-image/authorized_keys").split()[:2] == key.read_text().split()[:2]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--profile", "armv7", "--hostname", "-bad-"), 3, "hostname"),
        (("--profile", "armv9", "--hostname", "pi"), 3, "armv9"),
        (("--profile", "armv7", "--hostname", "pi", "--image", "sampel"), 3, "sample"),
        (("--profile", "armv7", "--hostname", "pi", "--image", "no.img"), 4, "no.img"),
        (("--profile", "armv7"), 2, "--hostname"),
        (("--hostname", "pi"), 2, "armv7"),
        (("--hostname", "pi", "--profile", "armv7", "--label", "x"), 2, "KEY=VALUE"),
        ((*NODE, "--generation", "windows"), 3, "windows"),
        ((*NODE, "--overlay", "nowhere"), 3, "nowhere"),
        ((*NODE, "--wifi-open", "--wifi-ssid", "x" * 33), 3, "33"),
        ((*NODE, "--wifi-ssid", "x"), 2, "--wifi-open"),
        ((*NODE, "-o", "/proc/nothing/pi.img"), 7, "/proc/nothing"),
    ],
)
def test_what_a_user_can_get_wrong(
    arguments: tuple[str, ...],
    code: int,
    said: str,
    program: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    done = program("build", *arguments)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "hint:" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("output", "compress", "form"),
    [
        ("x.img", "", ""),
        ("x.RAW", "", ""),
        ("x.img.xz", "", "xz"),
        ("x.img.xz", "xz", "xz"),
        ("x.zip", "", "zip"),
        ("build", "gz", "gz"),
        ("there.bin", "gz", "gz"),
    ],
)
def test_the_name_says_the_form(tmp_path: Path, output: str, compress: str, form: str) -> None:
    (tmp_path / "there.bin").mkdir()
    assert compression_of(tmp_path / output, compress) == form
    named = output_path(tmp_path / output, "pi", form)
    inside = "." not in output or output == "there.bin"
    assert named == (tmp_path / output / "pi.img.gz" if inside else tmp_path / output)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("-o", "x.img", "--compress", "xz"), "x.img does not match --compress xz"),
        (("-o", "x.img.gz", "--compress", "xz"), "x.img.gz does not match --compress xz"),
        (("-o", "pi.bin"), "cannot tell if pi.bin is a file or a folder"),
    ],
)
def test_a_name_that_contradicts_the_form(
    program: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path: Path,
    arguments: tuple[str, ...],
    words: str,
) -> None:
    for dry in ((), ("-n",)):
        done = program("build", *NODE, *arguments, *dry)
        assert done.returncode == 2, done.stderr
        assert words in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "signals", [(signal.SIGTERM,), (signal.SIGHUP, signal.SIGTERM)], ids=["one", "both"]
)
def test_a_build_that_is_ended_leaves_nothing(
    program: Callable[..., subprocess.CompletedProcess[str]],
    cache: Path,
    tmp_path: Path,
    signals: tuple[signal.Signals, ...],
) -> None:
    succeed(program("fetch", "sample"))
    command = [sys.executable, "-m", "imagebuilder", "build", *NODE, "-o", "x.img.xz"]
    with subprocess.Popen(
        command, cwd=tmp_path, env={**os.environ, "RPI_IMAGE_CACHE": str(cache)},
        stderr=subprocess.PIPE, text=True,
    ) as build:  # fmt: skip
        deadline = time.monotonic() + 60
        while not (tmp_path / "x.img.xz.part").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        for number in signals:
            build.send_signal(number)
        _, said = build.communicate(timeout=60)
    assert build.returncode == 130, said
    assert said.endswith("interrupted\n")
    assert list(tmp_path.iterdir()) == []


def test_a_compressing_name_compresses(
    program: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    need("zstd")
    succeed(program("build", *NODE, "-o", "x.img.zst"))
    assert "Check: XXH64" in run("zstd", "-lv", tmp_path / "x.img.zst")
    assert (tmp_path / "x.img.zst.json").exists()


@pytest.mark.parametrize("epoch", ["²", "\u0661", "9" * 5000, "1.5", "-1"])
def test_a_time_that_is_none(
    program: Callable[..., subprocess.CompletedProcess[str]], epoch: str
) -> None:
    done = program("build", *NODE, "-n", SOURCE_DATE_EPOCH=epoch)
    assert done.returncode == 2, done.stderr
    assert "SOURCE_DATE_EPOCH is" in done.stderr


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("http://[::1/x.img", "not an http or https URL"),
        ("ftp://x/y.img", "not http or https"),
        ("file:///y.img", "not http or https"),
    ],
)
def test_addresses_that_are_none(
    program: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path: Path,
    address: str,
    words: str,
) -> None:
    (tmp_path / "room.yml").write_text(
        f"profile: armv7\nimage: {{url: '{address}'}}\nnodes: [{{hostname: a}}]\n"
    )
    for arguments in (("fetch", address), ("build", *NODE[:4], "--image", address)):
        done = program(*arguments)
        assert done.returncode == 3, done.stderr
        assert words in done.stderr
    assert program("check", "room.yml").returncode == 3


def test_a_wrong_checksum_is_refused_before_unpacking(tmp_path: Path) -> None:
    done = rpi_image(
        "build", "--profile", "armv7", "--hostname", "pi", "--image", SAMPLE, "--sha256", "0" * 64,
        cache=tmp_path / "cache", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 4
    assert SAMPLE_SHA256[:8] in done.stderr
    assert not list(tmp_path.rglob("*.img"))


@pytest.mark.parametrize("image", ["/nowhere.img", "/etc/hostname", "/tmp"])
def test_inspect_of_what_is_no_image(
    image: str, program: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    done = program("inspect", image)
    assert done.returncode == 5
    assert "hint:" in done.stderr


def test_a_full_boot_partition_names_files_and_bytes(
    program: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    overlay = tmp_path / "big"
    overlay.mkdir()
    with (overlay / "huge.bin").open("wb") as file:
        file.truncate(70 << 20)
    done = program("build", *NODE, "--overlay", overlay)
    assert done.returncode == 5
    assert "huge.bin" in done.stderr
    assert not (tmp_path / "build" / "pi-03.img").exists()
