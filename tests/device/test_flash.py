"""Flashing real block devices: over garbage, and everything must be as the image has it."""

from __future__ import annotations

import filecmp
import gzip
import hashlib
import json
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import pytest

from imagebuilder.cli.console import Console
from imagebuilder.devices.safety import WritePolicy
from imagebuilder.devices.targets import choose_targets
from imagebuilder.errors import RefusedError
from imagebuilder.progress import human_bytes
from tests.device.cards import (
    BOOT_FILES,
    BOOT_MIB,
    BOOT_START,
    CARD_BYTES,
    GARBAGE,
    IMAGE_BYTES,
    LAYOUTS,
    MIB,
    ROOT_MIB,
    ROOT_START,
    SmallImage,
    card,
    flash,
    head_of,
    loop,
    make_image,
    rpi_image,
    state_of_nodes,
)
from tests.lib.program import RPI_IMAGE
from tests.lib.tools import need, run
from tests.lib.webserver import Page, misbehaving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SAFE = ("--yes", "--allow-loop")


def cut(folder: Path, device: str, start: int, size: int) -> Path:
    """Return a partition of a card as a file of its own (this kernel may know no partitions)."""
    part = folder / f"part-{start}"
    part.write_bytes(head_of(device, size * MIB, start * MIB))
    return part


def same_tree(tree: Path, root: Path, out: Path) -> bool:
    """Compare every file that debugfs takes out of a file system with where it came from."""
    need("debugfs")
    out.mkdir()
    run("debugfs", "-R", f"rdump / {out}", root)
    names = [path.relative_to(tree) for path in tree.rglob("*") if path.is_file()]
    assert len(names) > 20
    return all(filecmp.cmp(tree / name, out / name, shallow=False) for name in names)


@pytest.mark.root
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_card_full_of_garbage_becomes_clean(tmp_path: Path, layout: str) -> None:
    image = make_image(tmp_path, layout)
    with card(tmp_path, CARD_BYTES) as device:
        done = flash(device, "--image", image.path, *SAFE, "--json")
        assert done.returncode == 0, done.stderr
        report = json.loads(done.stdout)["cards"][0]
        boot = cut(tmp_path, device, BOOT_START, BOOT_MIB)
        root = cut(tmp_path, device, ROOT_START, ROOT_MIB)
    # All clusters of this small boot partition are written: secrets of others may be in them.
    assert report["written_bytes"] == report["set_bytes"] < IMAGE_BYTES * 0.9
    run("e2fsck", "-fn", root)
    run("fsck.vfat", "-n", boot)
    assert same_tree(image.tree, root, tmp_path / "out")
    for name, text in BOOT_FILES.items():
        assert run("mtype", "-i", boot, f"::{name}") == text


@pytest.mark.root
def test_gaps_and_the_odd_end_are_written_and_the_rest_is_left(
    tmp_path: Path, small: SmallImage
) -> None:
    with card(tmp_path, CARD_BYTES) as device:
        assert flash(device, "--image", small.path, *SAFE).returncode == 0
        found = head_of(device, CARD_BYTES)
    should = small.path.read_bytes()
    end = (ROOT_START + ROOT_MIB) * MIB
    assert found[: 4 * MIB] == should[: 4 * MIB]
    assert found[end:IMAGE_BYTES] == should[end:]
    padded = -(-IMAGE_BYTES // 512) * 512
    assert found[IMAGE_BYTES:padded] == bytes(padded - IMAGE_BYTES)
    assert found[43 * MIB : 47 * MIB] == GARBAGE * 4
    assert found[47 * MIB :] == bytes(MIB)


@pytest.mark.root
def test_a_card_of_another_class_keeps_none_of_its_secrets_on_the_boot_partition(
    tmp_path: Path, small: SmallImage
) -> None:
    """Where files of a node can have been: up to 16 MiB after the last used cluster."""
    with card(tmp_path, CARD_BYTES) as device:
        assert flash(device, "--image", small.path, *SAFE).returncode == 0
        boot = cut(tmp_path, device, BOOT_START, BOOT_MIB)
    run("fsck.vfat", "-n", boot)
    should = small.path.read_bytes()[BOOT_START * MIB : (BOOT_START + BOOT_MIB) * MIB]
    assert boot.read_bytes() == should
    assert GARBAGE[:251] not in should


@pytest.mark.root
def test_full_writes_every_byte(tmp_path: Path, small: SmallImage) -> None:
    with card(tmp_path, CARD_BYTES) as device:
        assert flash(device, "--image", small.path, "--full", *SAFE).returncode == 0
        assert head_of(device, CARD_BYTES)[:IMAGE_BYTES] == small.path.read_bytes()


@pytest.mark.root
def test_reuse_writes_only_what_differs(tmp_path: Path, small: SmallImage) -> None:
    with card(tmp_path, CARD_BYTES) as device:
        assert flash(device, "--image", small.path, *SAFE).returncode == 0
        run(
            "dd",
            "if=/dev/urandom",
            f"of={device}",
            "bs=4096",
            "count=1",
            "seek=4500",
            "oflag=direct",
        )
        done = flash(device, "--image", small.path, "--reuse", "--json", *SAFE)
        run("e2fsck", "-fn", cut(tmp_path, device, ROOT_START, ROOT_MIB))
    report = json.loads(done.stdout)["cards"][0]
    assert done.returncode == 0
    assert 4 * MIB < report["written_bytes"] <= 8 * MIB


@pytest.mark.root
@pytest.mark.parametrize("packer", ["xz", "gzip"])
def test_a_compressed_image_is_written_too(tmp_path: Path, small: SmallImage, packer: str) -> None:
    need("xz", "gzip")
    packed = tmp_path / f"small.img.{packer.replace('gzip', 'gz')}"
    with packed.open("wb") as file:
        subprocess.run([packer, "-1", "-c", small.path], stdout=file, check=True)
    with card(tmp_path, CARD_BYTES) as device:
        cache = str(tmp_path / "cache")
        done = flash(device, "--image", packed, *SAFE, RPI_IMAGE_CACHE=cache)
        assert done.returncode == 0, done.stderr
        assert head_of(device) == small.path.read_bytes()[: 4 * MIB]


@pytest.mark.root
def test_a_wrong_checksum_leaves_the_card_alone(tmp_path: Path, small: SmallImage) -> None:
    right = run("sha256sum", small.path).split()[0]
    with card(tmp_path, CARD_BYTES) as device:
        before = head_of(device)
        cache = str(tmp_path / "cache")
        words = (device, "--image", small.path, *SAFE, "--sha256")
        assert flash(*words, "0" * 64, RPI_IMAGE_CACHE=cache).returncode == 4
        assert head_of(device) == before
        done = flash(*words, right, RPI_IMAGE_CACHE=cache)
        assert done.returncode == 0, done.stderr


@pytest.mark.long
@pytest.mark.root
def test_every_node_is_what_batch_would_have_written(tmp_path: Path, classroom: Path) -> None:
    """Golden: composed straight onto a card, or through an image file, is the same."""
    epoch = {"SOURCE_DATE_EPOCH": "1700000000"}
    folder = tmp_path / "images"
    run(
        "env", *(f"{k}={v}" for k, v in epoch.items()), *RPI_IMAGE, "batch", classroom, "-o", folder
    )
    for number in (1, 2, 3):
        place = tmp_path / f"{number}"
        place.mkdir()
        with card(place, CARD_BYTES) as device:
            node = ("--node", f"pi-0{number}")
            done = flash(device, "-c", classroom, *node, "--full", *SAFE, **epoch)
            assert done.returncode == 0, done.stderr
            image = (folder / f"pi-0{number}.img").read_bytes()
            assert head_of(device, CARD_BYTES)[: len(image)] == image


@pytest.mark.root
def test_the_one_image_in_build_is_taken(
    tmp_path: Path, small: SmallImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "build").mkdir()
    (tmp_path / "build" / "one.img").symlink_to(small.path)
    with card(tmp_path, CARD_BYTES) as device:
        assert flash(device, *SAFE).returncode == 0
        (tmp_path / "build" / "two.img").symlink_to(small.path)
        done = flash(device, *SAFE)
    assert done.returncode == 2
    assert "one.img" in done.stderr
    assert "--image" in done.stderr


@pytest.mark.root
def test_an_image_that_lies_in_build_compressed_is_taken(
    tmp_path: Path, small: SmallImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cache = {"RPI_IMAGE_CACHE": str(tmp_path / "cache")}
    build = tmp_path / "build"
    build.mkdir()
    (build / "one.img.gz").write_bytes(gzip.compress(small.path.read_bytes(), 1))
    with card(tmp_path, CARD_BYTES) as device:
        assert flash(device, *SAFE, **cache).returncode == 0
        assert head_of(device) == small.path.read_bytes()[: 4 * MIB]
        # The same image beside it, raw: still one image, and no need to unpack it.
        (build / "one.img").symlink_to(small.path)
        done = flash(device, *SAFE, **cache)
        assert (done.returncode, "one.img will be written to" in done.stderr) == (0, True)
        (build / "two.img.xz").touch()
        done = flash(device, *SAFE, **cache)
    assert done.returncode == 2
    assert "there are 2 images: build/one.img, build/two.img.xz" in done.stderr


@pytest.mark.root
def test_an_image_may_be_an_address_or_a_name_under_the_rules_of_build(
    tmp_path: Path, small: SmallImage
) -> None:
    packed = gzip.compress(small.path.read_bytes(), 1)
    digest = hashlib.sha256(packed).hexdigest()
    words = {"RPI_IMAGE_CACHE": str(tmp_path / "cache")}
    mine = tmp_path / "mine"
    mine.mkdir()
    with misbehaving() as site, card(tmp_path, CARD_BYTES) as device:
        place = f"/{'long' * 70}/small.img.gz"  # too long for the name of a file
        site.pages[place] = Page(packed)
        address = f"{site.url}{place}"
        entry = f"{{url: '{address}', sha256: {digest}}}"
        (mine / "images.yml").write_text(f"images: {{tiny: {entry}}}")
        done = flash(device, "--image", address, *SAFE, **words)
        assert done.returncode == 4
        assert f"no checksum for {address[:200]}" in done.stderr
        assert head_of(device, MIB) == GARBAGE
        done = flash(device, "--image", "tiny", "--profiles-dir", mine, *SAFE, **words)
        assert done.returncode == 0, done.stderr
        assert f"tiny will be written to {device}" in done.stderr
        given = ("--image", address, "--sha256", digest)
        assert rpi_image("verify", device, *given, **words).returncode == 0
        assert flash(device, *given, "--reuse", *SAFE, **words).returncode == 0
    assert len(site.asked(place)) == 1  # all the others found it in the cache


@pytest.mark.root
@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("hypriott", 3, "no base image `hypriott` in the catalogue"),
        ("nope.img", 2, "no image nope.img"),
        ("{device}", 2, "{device} is a device, not an image"),
    ],
)
def test_what_is_no_image_is_named(tmp_path: Path, name: str, code: int, words: str) -> None:
    with card(tmp_path, CARD_BYTES) as device:
        for command in ("flash", "verify"):
            safe = SAFE if command == "flash" else ()
            done = rpi_image(command, device, "--image", name.format(device=device), *safe)
            assert done.returncode == code, done.stderr
            assert words.format(device=device) in done.stderr
            assert "hint: " in done.stderr
        assert head_of(device, MIB) == GARBAGE


@pytest.mark.root
def test_an_empty_image_and_a_folder_are_no_images(tmp_path: Path) -> None:
    empty = tmp_path / "empty.img"
    empty.touch()
    with card(tmp_path, CARD_BYTES) as device:
        done = flash(device, "--image", empty, *SAFE)
        assert (done.returncode, "is empty" in done.stderr) == (5, True)
        assert head_of(device, MIB) == GARBAGE
    for command in ("verify", "inspect"):
        done = rpi_image(command, tmp_path)
        assert done.returncode in (2, 5)
        assert "bug" not in done.stderr


@pytest.mark.root
def test_no_verify_says_what_it_gives_up(tmp_path: Path, small: SmallImage) -> None:
    with card(tmp_path, CARD_BYTES) as device:
        done = flash(device, "--image", small.path, "--no-verify", *SAFE)
    assert done.returncode == 0
    assert "not verifying" in done.stderr
    assert "not verified" in done.stdout


@pytest.mark.root
def test_a_log_that_is_full_stops_no_card(tmp_path: Path, small: SmallImage) -> None:
    with card(tmp_path, CARD_BYTES) as device, open("/dev/full", "w") as full:  # noqa: PTH123
        command = [*RPI_IMAGE, "flash", device, "--image", str(small.path), *SAFE]
        done = subprocess.run(command, stderr=full, stdout=subprocess.PIPE, text=True, check=False)
        assert done.returncode == 7
        assert "written and verified" in done.stdout
        assert head_of(device) == small.path.read_bytes()[: 4 * MIB]


@pytest.mark.root
def test_a_roster_goes_onto_several_cards_once(tmp_path: Path, classroom: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
    with card(tmp_path / "a", CARD_BYTES) as first, card(tmp_path / "b", CARD_BYTES) as second:
        done = flash(first, second, "-c", classroom, *SAFE, "--json")
        assert done.returncode == 0, done.stderr
        assert [c["node"] for c in json.loads(done.stdout)["cards"]] == ["pi-01", "pi-02"]
        again = flash(first, "-c", classroom, *SAFE)
        assert again.returncode == 6
        assert "this card is pi-01" in again.stderr
        twice = flash(second, "-c", classroom, "--nodes", "pi-01", *SAFE)
        assert twice.returncode == 6
        told = flash(first, "-c", classroom, "--nodes", "pi-01", "--again", *SAFE)
        assert told.returncode == 0, told.stderr
        ledger = classroom.with_suffix(".cards.yml").read_text()
        assert ledger.count("state: written") == 2
        assert "node: pi-03" not in ledger


@pytest.mark.root
def test_nodes_go_onto_the_devices_in_the_order_named(tmp_path: Path, classroom: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
    with card(tmp_path / "a", CARD_BYTES) as first, card(tmp_path / "b", CARD_BYTES) as second:
        for names in ("pi-02,pi-02", "pi-02"):
            wrong = flash(first, second, "-c", classroom, "--nodes", names, *SAFE)
            assert wrong.returncode == 6, wrong.stderr
        assert "2 devices for 1 node\n" in wrong.stderr
        done = flash(first, second, "-c", classroom, "--nodes", "pi-03,pi-01", *SAFE, "--json")
        written = {c["device"]: c["node"] for c in json.loads(done.stdout)["cards"]}
        assert written == {first: "pi-03", second: "pi-01"}
        twin = flash(first, "-c", classroom, "--node", "pi-01", "--again", *SAFE)
        assert twin.returncode == 0, twin.stderr
        assert "pi-01 was written to" in twin.stderr
        assert "it will have two cards" in twin.stderr


@pytest.mark.root
def test_runs_that_start_together_take_each_a_node(tmp_path: Path, classroom: Path) -> None:
    with ExitStack() as stack:
        devices = []
        for name in "abc":
            (tmp_path / name).mkdir()
            devices.append(stack.enter_context(card(tmp_path / name, CARD_BYTES)))
        with ThreadPoolExecutor() as pool:
            runs = [pool.submit(flash, device, "-c", classroom, *SAFE) for device in devices]
        assert [run.result().returncode for run in runs] == [0, 0, 0]
    nodes = dict.fromkeys(("pi-01", "pi-02", "pi-03"), "written")
    assert state_of_nodes(classroom) == nodes


@pytest.mark.root
def test_a_classroom_s_own_image_is_what_the_loop_shows(
    tmp_path: Path, classroom: Path, small: SmallImage
) -> None:
    own = tmp_path / "own.img"
    own.write_bytes(small.path.read_bytes())
    classroom.write_text(classroom.read_text().replace(str(small.path), str(own)))
    with loop(own) as device:
        done = flash(device, "-c", classroom, *SAFE)
    assert done.returncode == 6
    assert f"holds {own}" in done.stderr


@pytest.mark.root
def test_a_cut_off_image_is_written_with_a_warning(
    tmp_path: Path, classroom: Path, small: SmallImage
) -> None:
    cut_off = tmp_path / "cut-off.img"
    cut_off.write_bytes(small.path.read_bytes()[: 30 * MIB])
    classroom.write_text(classroom.read_text().replace(str(small.path), str(cut_off)))
    words = f"cut-off.img is truncated: partition 2 extends {11 * MIB} bytes past the end"
    with card(tmp_path, CARD_BYTES) as device:
        for what in (("--image", cut_off), ("-c", classroom)):
            done = flash(device, *what, *SAFE)
            assert done.returncode == 0, done.stderr
            assert words in done.stderr
        assert "cut off" not in flash(device, "--image", small.path, *SAFE).stderr


@pytest.mark.root
def test_reuse_does_not_give_a_second_card_to_a_node(tmp_path: Path, classroom: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
    with card(tmp_path / "a", CARD_BYTES) as first, card(tmp_path / "b", CARD_BYTES) as second:
        assert flash(first, "-c", classroom, "--reuse", *SAFE).returncode == 0
        done = flash(second, "-c", classroom, "--reuse", *SAFE, "--json")
        assert [c["node"] for c in json.loads(done.stdout)["cards"]] == ["pi-02"]
        once_more = flash(first, "-c", classroom, "--node", "pi-01", "--reuse", *SAFE, "--json")
        assert once_more.returncode == 0, once_more.stderr
        (written,) = json.loads(once_more.stdout)["cards"]
        assert written["written_bytes"] < written["set_bytes"]


@pytest.mark.root
def test_another_node_s_card_is_overwritten_only_when_told_and_then_noted(
    tmp_path: Path, classroom: Path
) -> None:
    with card(tmp_path, CARD_BYTES) as device:
        assert flash(device, "-c", classroom, "--node", "pi-01", *SAFE).returncode == 0
        done = flash(device, "-c", classroom, "--node", "pi-02", *SAFE)
        assert done.returncode == 6
        assert "this card is pi-01" in done.stderr
        unasked = flash(device, "-c", classroom, "--node", "pi-02", "--allow-loop")
        assert "this card is pi-01" in unasked.stderr, "asked first, refused then"
        assert state_of_nodes(classroom) == {"pi-01": "written"}
        told = flash(device, "-c", classroom, "--node", "pi-02", "--again", *SAFE)
        assert told.returncode == 0, told.stderr
        assert state_of_nodes(classroom) == {"pi-01": "failed", "pi-02": "written"}
        assert (
            "its card was overwritten with pi-02" in classroom.with_suffix(".cards.yml").read_text()
        )


@pytest.mark.root
def test_an_attempt_that_touched_nothing_leaves_the_ledger_as_it_was(
    tmp_path: Path, classroom: Path
) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
    ledger = classroom.with_suffix(".cards.yml")
    with card(tmp_path / "a", CARD_BYTES) as first, card(tmp_path / "b", CARD_BYTES) as second:
        assert flash(first, "-c", classroom, *SAFE).returncode == 0
        before = ledger.read_text()
        with held_open(first):
            done = flash(first, "-c", classroom, "--node", "pi-01", *SAFE)
        assert done.returncode == 6
        assert "is in use" in done.stderr
        assert ledger.read_text() == before
        with held_open(second):
            assert flash(second, "-c", classroom, "--node", "pi-03", *SAFE).returncode == 6
        assert ledger.read_text() == before
        refused = flash(second, first, "-c", classroom, *SAFE)
        assert refused.returncode == 6
        assert "this card is pi-01" in refused.stderr
        assert ledger.read_text() == before
        assert head_of(second, MIB) == GARBAGE


@contextmanager
def held_open(device: str) -> Iterator[None]:
    descriptor = os.open(device, os.O_RDONLY | os.O_EXCL)
    try:
        yield
    finally:
        os.close(descriptor)


@pytest.mark.root
def test_a_lock_that_is_held_for_a_moment_is_waited_for(tmp_path: Path, small: SmallImage) -> None:
    """As udev does while it looks at a card that was just put in."""
    with (
        card(tmp_path, CARD_BYTES) as device,
        subprocess.Popen(
            ["flock", "--shared", device, "sh", "-c", "echo; sleep 2"], stdout=subprocess.PIPE
        ) as udev,
    ):
        assert udev.stdout
        udev.stdout.readline()
        done = flash(device, "--image", small.path, *SAFE)
    assert done.returncode == 0, done.stderr


@pytest.mark.root
def test_who_may_not_write_the_card_hears_it_before_anything_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda _path, mode: not mode & os.W_OK)
    policy = WritePolicy(allow_loop=True)
    with (
        card(tmp_path, CARD_BYTES) as device,
        pytest.raises(RefusedError, match="no permission to write") as caught,
    ):
        choose_targets([device], policy, Console(), unmount=False)
    assert "sudo" in caught.value.hint


@pytest.mark.root
def test_verify_knows_the_card_its_owner_and_what_was_changed(
    tmp_path: Path, classroom: Path
) -> None:
    with card(tmp_path, CARD_BYTES) as device:
        flash(device, "-c", classroom, "--node", "pi-02", *SAFE)
        assert "is pi-02" in rpi_image("verify", device).stdout
        right = rpi_image("verify", device, "-c", classroom, "--node", "pi-02")
        assert right.returncode == 0, right.stdout + right.stderr
        other = rpi_image("verify", device, "-c", classroom, "--node", "pi-01", "--json")
        assert other.returncode == 7
        assert "rpi-image/node.env" in json.loads(other.stdout)["files"]
        run("mcopy", "-o", "-i", f"{device}@@{BOOT_START * MIB}", "/etc/hostname", "::config.txt")
        changed = rpi_image("verify", device, "-c", classroom, "--node", "pi-02")
    assert changed.returncode == 7
    assert "differs: config.txt" in changed.stdout
    assert "partition 1" in changed.stdout


@pytest.mark.root
def test_verify_finds_one_wrong_byte_in_the_root(tmp_path: Path, small: SmallImage) -> None:
    with card(tmp_path, CARD_BYTES) as device:
        flash(device, "--image", small.path, *SAFE)
        run("dd", "if=/dev/urandom", f"of={device}", "bs=512", "count=1", f"seek={18 * 2048}")
        done = rpi_image("verify", device, "--image", small.path, "--json")
    found = json.loads(done.stdout)
    assert done.returncode == 7
    assert [r["partition"] for r in found["ranges"]] == [2]
    assert found["ranges"][0]["start_bytes"] == 18 * MIB
    assert found["files"] == []


@pytest.mark.root
def test_verify_tells_a_card_that_was_not_finished(tmp_path: Path) -> None:
    with card(tmp_path, CARD_BYTES) as device:
        run("dd", "if=/dev/zero", f"of={device}", "bs=1M", "count=4", "oflag=direct")
        done = rpi_image("verify", device)
    assert done.returncode == 7
    assert f"error: {device} has no complete image" in done.stderr
    assert "hint: flash it again" in done.stderr


@pytest.mark.root
def test_verify_names_a_card_that_is_smaller_than_the_image(
    tmp_path: Path, small: SmallImage
) -> None:
    with card(tmp_path, 40 * MIB) as device:
        done = rpi_image("verify", device, "--image", small.path)
        machine = rpi_image("verify", device, "--image", small.path, "--json")
    message = f"error: {device} has {human_bytes(40 * MIB)}, the image {human_bytes(IMAGE_BYTES)}"
    for one in (done, machine):
        assert one.returncode == 7
        assert message in one.stderr
        assert "the image it was made from" in one.stderr
    found = json.loads(machine.stdout)
    assert (found["device"], found["same"]) == (device, False)
    assert found["missing_bytes"] == IMAGE_BYTES - 40 * MIB
    assert found["ranges"] == [{"start_bytes": 40 * MIB, "end_bytes": IMAGE_BYTES, "partition": 2}]
    assert done.stdout == ""


@pytest.mark.root
def test_devices_says_why_not(tmp_path: Path) -> None:
    with card(tmp_path, CARD_BYTES) as device:
        listed = json.loads(rpi_image("devices", "--json").stdout)["devices"]
        why = {entry["path"]: entry["refused"] for entry in listed}
        assert why[device] == ["is a loop device"]
        assert device in rpi_image("devices", "--allow-loop").stdout
