"""What the images' own scripts do before and beside the installer, one test for each finding."""

from __future__ import annotations

import re
import stat
from typing import TYPE_CHECKING

import pytest

from tests.lib.node_tree import docker_calls, once, run_docker
from tests.lib.pi_tree import BUILT, HASH, SHELLS, STATE, Pi, make_pi
from tests.lib.tools import run, small_tmpfs

if TYPE_CHECKING:
    from pathlib import Path

BAKED = "11112222333344445555666677778888"
MADE = "99990000999900009999000099990000"


def install(pi: Pi, shell: str = "dash") -> None:
    done = pi.run(shell=shell)
    assert pi.status()["install"] == "ok", done.stderr


def shadow(pi: Pi) -> dict[str, str]:
    """Return the password field of each account."""
    lines = pi.read("etc/shadow").splitlines()
    return {line.split(":")[0]: line.split(":")[1] for line in lines}


# ---- logins that everyone knows


def with_vendor_logins(folder: Path, kind: str) -> Pi:
    pi = make_pi(folder, kind)
    text = "root:$1$h:16000:::::\npirate:$6$p:16000:::::\npi:$6$r:16000:::::\nown:$6$o:16000:::::\n"
    pi.write("etc/shadow", text + "ubuntu:!:16000:::::\n", 0o640)
    return pi


@pytest.mark.parametrize("shell", SHELLS)
def test_the_logins_of_the_image_are_locked(shell: str, tmp_path: Path) -> None:
    pi = with_vendor_logins(tmp_path, "device-init")
    install(pi, shell)
    locked = shadow(pi)
    assert {name: locked[name] for name in ("root", "pirate", "pi", "ubuntu", "own")} == {
        "root": "!$1$h",
        "pirate": "!$6$p",
        "pi": "!$6$r",
        "ubuntu": "!",
        "own": "$6$o",
    }


@pytest.mark.parametrize(
    "values", [{"KEEP_VENDOR_LOGIN": "1"}, {"USER_NAME": "", "USER_GROUPS": ""}]
)
def test_the_logins_of_the_image_are_kept(values: dict[str, str], tmp_path: Path) -> None:
    pi = with_vendor_logins(tmp_path, "device-init")
    pi.configure(**values)
    before = shadow(pi)
    install(pi)
    assert {name: shadow(pi)[name] for name in before} == before


def test_a_known_password_of_the_user_itself_gives_way_to_keys(tmp_path: Path) -> None:
    pi = with_vendor_logins(tmp_path, "device-init")
    pi.write("etc/passwd", "root:x:0:0::/root:/bin/sh\npirate:x:1000:1000::/home/pirate:/bin/sh\n")
    pi.configure(USER_NAME="pirate", USER_PASSWORD_HASH="")
    install(pi)
    assert shadow(pi)["pirate"] == "!"
    (pi.card / "authorized_keys").unlink()
    pi.configure(USER_NAME="pirate", USER_PASSWORD_HASH="", RPI_IMAGE_HASH="no keys")
    install(pi)
    assert shadow(pi)["pirate"] == "!", "taken back only with the user"


# ---- the machine id


@pytest.mark.parametrize(
    ("files", "kept"),
    [
        ([f"run/log/journal/{BAKED}/system.journal"], True),
        ([f"run/log/journal/{MADE}/system.journal"], False),
        ([f"run/log/journal/{MADE}/system.journal", "run/systemd/first-boot"], True),
        ([], False),
    ],
)
def test_a_machine_id_of_this_boot_is_not_replaced(
    files: list[str], kept: bool, tmp_path: Path
) -> None:
    """Journald has named its folder before cloud-init's regenerate-machine-id wrote another id."""
    pi = make_pi(tmp_path, "cloud-init")
    pi.write("etc/machine-id", f"{MADE}\n")
    for name in files:
        pi.write(name, "")
    install(pi)
    assert (pi.read("etc/machine-id") == f"{MADE}\n") == kept


def test_a_machine_id_is_made_once(tmp_path: Path) -> None:
    pi = make_pi(tmp_path, "jessie")
    install(pi)
    made = pi.read("etc/machine-id")
    assert made != f"{BAKED}\n"
    pi.write("proc/sys/kernel/random/uuid", "ffffffff-ffff-ffff-ffff-ffffffffffff\n")
    pi.configure(RPI_IMAGE_HASH="other")
    install(pi)
    assert pi.read("etc/machine-id") == made


# ---- the clock


def test_the_saved_time_of_hypriotos_is_behind_a_link(tmp_path: Path) -> None:
    pi = make_pi(tmp_path, "cloud-init")
    (pi.boot / "fake-hwclock.data").write_text("2020-06-17 10:00:00\n")
    pi.path("etc/fake-hwclock.data").symlink_to("/boot/fake-hwclock.data")
    install(pi)
    assert str(pi.path("etc/fake-hwclock.data").readlink()) == "/boot/fake-hwclock.data"
    assert (pi.boot / "fake-hwclock.data").read_text() == "2023-11-14 22:13:20\n"


@pytest.mark.parametrize("shell", SHELLS)
def test_an_image_without_fake_hwclock_has_the_floor_of_timesyncd(
    shell: str, tmp_path: Path
) -> None:
    """Which sets the clock to the time of this file at least; trixie has no fake-hwclock."""
    pi = make_pi(tmp_path, "trixie")
    pi.write("usr/lib/systemd/systemd-timesyncd", "", 0o755)
    install(pi, shell)
    clock = pi.path("var/lib/systemd/timesync/clock")
    assert clock.stat().st_mtime == BUILT
    pi.path(f"{STATE}/installed").unlink()
    run("touch", "-d", f"@{BUILT + 5}", clock)
    install(pi, shell)
    assert clock.stat().st_mtime == BUILT + 5


@pytest.mark.parametrize("synchronised", [False, True])
def test_the_clock_is_set_once_a_boot_and_never_against_a_time_server(
    synchronised: bool, tmp_path: Path
) -> None:
    """The clock of the machine that built the card may have been ahead."""
    pi = make_pi(tmp_path, "jessie")
    pi.configure(RPI_IMAGE_BUILT="4000000000")
    answer = "yes" if synchronised else "no"
    pi.fake("timedatectl", f"echo 'System clock synchronized: {answer}'")
    install(pi)
    run_docker(pi)
    for _ in range(3):
        once(pi)
    calls = [call for call in pi.calls() if call.startswith("date -u -s")]
    assert calls == [], "the installer has set it in this boot"
    pi.path("run/rpi-image-clock").unlink(missing_ok=True)
    for _ in range(3):
        once(pi)
    calls = [call for call in pi.calls() if call.startswith("date -u -s")]
    assert len(calls) == (0 if synchronised else 1)


# ---- the user of Raspberry Pi OS


@pytest.mark.parametrize(
    ("password", "dialogue", "ended"),
    [("", True, True), ("", False, False), ("$6$x$y", True, False)],
)
def test_a_user_without_a_password_ends_the_dialogue_too(
    password: str, dialogue: bool, ended: bool, tmp_path: Path
) -> None:
    """Userconf does it for one with a password; the SSH banner and the console would stay."""
    pi = make_pi(tmp_path, "bookworm")
    pi.write(
        "usr/bin/cancel-rename", f'#!/bin/sh\necho "cancel-rename $*" >>{pi.folder}/calls\n', 0o755
    )
    if dialogue:
        pi.write(
            "etc/ssh/sshd_config.d/rename_user.conf", "Banner /usr/share/userconf-pi/sshd_banner\n"
        )
    pi.configure(NODE_GENERATION="firstrun", USER_PASSWORD_HASH=password)
    install(pi)
    assert ("cancel-rename ada" in pi.calls()) == ended


# ---- Docker's storage driver


@pytest.mark.parametrize(
    ("there", "options", "driver"),
    [
        ((), "--storage-driver=overlay2 -D", "overlay2"),
        (("overlay",), "--storage-driver=overlay2 -D", "overlay"),
        (("overlay2",), "-D --storage-driver=overlay", "overlay2"),
        (("overlay", "overlay2"), "--storage-driver=overlay2", "overlay2"),
        (("overlay",), "--storage-driver=btrfs", "btrfs"),
        (("overlay",), "-D", ""),
    ],
)
def test_a_card_with_images_keeps_its_driver(
    there: tuple[str, ...], options: str, driver: str, tmp_path: Path
) -> None:
    pi = make_pi(tmp_path, "jessie")
    for name in there:
        pi.path(f"var/lib/docker/{name}").mkdir(parents=True)
    pi.configure(DOCKER_OPTS=options)
    install(pi)
    found = re.search(r"--storage-driver=(\w+)", pi.read("etc/default/docker"))
    assert (found[1] if found else "") == driver
    switched = driver in {"overlay", "overlay2"} and driver not in options.split("=")[1].split()
    assert ("keeps its storage driver" in str(pi.status()["error"])) == switched


# ---- a full root


@pytest.mark.parametrize("shell", SHELLS)
def test_a_full_root_leaves_no_empty_file(shell: str, tmp_path: Path) -> None:
    """Where `set -e` does nothing, each function that writes looks for itself."""
    pi = make_pi(tmp_path, "wheezy")
    (pi.root / STATE).parent.mkdir(parents=True, exist_ok=True)
    with small_tmpfs(pi.path(STATE), "64k"):
        pi.write(f"{STATE}/installed_before", "x")
        pi.path(f"{STATE}/filler").write_bytes(b"")
        run("sh", "-c", f"cat /dev/zero >{pi.path(STATE)}/filler 2>/dev/null", check=False)
        done = pi.run(shell=shell)
        assert done.returncode == 0
        assert "failed" in str(pi.status()["install"]), done.stderr
        state = [path for path in pi.path(STATE).iterdir() if path.is_file()]
        assert [path.name for path in state if path.stat().st_size == 0] == []
        assert not pi.path(f"{STATE}/installed").exists()
        assert pi.read("etc/hostname") == "black-pearl\n", "all or nothing"
        pi.path(f"{STATE}/filler").unlink()
        run("mount", "-o", "remount,size=4m", pi.path(STATE))
        install(pi, shell)
        assert pi.read(f"{STATE}/install_result") == "ok\n"


# ---- slow cards


@pytest.mark.parametrize("kind", ["wheezy", "device-init", "cloud-init", "bookworm", "trixie"])
def test_few_flushes(kind: str, tmp_path: Path) -> None:
    pi = make_pi(tmp_path, kind)
    pi.fake("sync", 'echo sync >>"$CALLS"')
    (pi.card / "first-boot").mkdir()
    (pi.card / "first-boot" / "10-own").write_text("true\n")
    install(pi)
    assert pi.calls().count("sync") <= 6
    pi.path("usr/sbin/NetworkManager").unlink(missing_ok=True)
    run_docker(pi)
    before_boot = "22222222-2222-3333-4444-555555555555"
    pi.write("proc/sys/kernel/random/boot_id", f"{before_boot}\n")
    assert pi.run().stderr == ""
    assert once(pi).returncode == 0
    (pi.folder / "calls").unlink()
    pi.write("proc/sys/kernel/random/boot_id", "33333333-2222-3333-4444-555555555555\n")
    assert pi.run().stderr == ""
    assert once(pi).returncode == 0
    assert pi.calls().count("sync") <= 2
    assert docker_calls(pi, "run")


def test_the_saved_state_is_for_root_only(tmp_path: Path) -> None:
    pi = make_pi(tmp_path, "bookworm")
    pi.write("etc/timezone", "Etc/UTC\n")
    install(pi)
    for name in ("before", "card"):
        assert stat.S_IMODE(pi.path(f"{STATE}/{name}").stat().st_mode) == 0o700
    files = [path for path in pi.path(f"{STATE}/card").rglob("*") if path.is_file()]
    assert {stat.S_IMODE(path.stat().st_mode) & 0o077 for path in files} == {0}
    assert pi.read(f"{STATE}/installed") == f"{HASH}\n"
