"""The installer when things go wrong: every command may fail, and the power may go at any time."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.lib.pi_tree import HASH, SHELLS, STATE, Pi, make_pi
from tests.lib.tools import need

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.long

POINTS = 10

# Counts its calls; at the chosen one it fails, or the power goes just before or after the work.
SABOTAGE = """#!/bin/sh
read -r n <{folder}/count
n=$((n + 1))
echo "$n" >{folder}/count
if [ "$n" = "$AT" ]; then
    case $HOW in
        fail) echo "{name}: No space left on device" >&2; exit 1 ;;
        before) kill -9 0 ;;
        after) {real} "$@"; kill -9 0 ;;
    esac
fi
exec {real} "$@"
"""


def sabotage(pi: Pi) -> None:
    """Put the counting commands in place."""
    programs = need("mv", "cp", "mkdir", "chmod", "ln", "rm", "cat")
    for real in programs:
        name = Path(real).name
        path = pi.folder / "fakes" / name
        path.write_text(SABOTAGE.format(folder=pi.folder, name=name, real=real))
        path.chmod(0o755)


def run_at(pi: Pi, how: str, at: int) -> int:
    """Run the installer with one call sabotaged and give its exit code."""
    (pi.folder / "count").write_text("0\n")
    return pi.run(HOW=how, AT=str(at)).returncode


def calls_of(folder: Path, kind: str) -> int:
    """Count the calls of one whole installation."""
    pi = make_pi(folder, kind)
    sabotage(pi)
    assert run_at(pi, "fail", 0) == 0
    return int((pi.folder / "count").read_text())


def contents(pi: Pi) -> dict[str, tuple[int, bytes]]:
    """Return mode and content of what an installation leaves, without times and logs.

    What is left to do in the running system differs rightly: a reboot has done some of it.
    """
    told = ("status", "status.json", "install.log", "install_time", "rpi-image.log", "/todo")
    return {
        name: (mode, data)
        for name, (_, mode, data) in pi.snapshot().items()
        if not name.endswith(told)
    }


def goes_on(pi: Pi, expected: dict[str, tuple[int, bytes]], point: str) -> None:
    """Check that the next boot ends where an undisturbed one does."""
    done = pi.run()
    assert done.returncode == 0
    assert pi.status()["install"] == "ok", (point, done.stderr)
    assert pi.leftovers() == [], point
    assert contents(pi) == expected, point


def spread(total: int, part: int, parts: int) -> Iterator[int]:
    """Choose calls from first to last, shared out among the parts."""
    for number in range(part, POINTS, parts):
        yield 1 + number * (total - 1) // (POINTS - 1)


# Every fourth command of the installer is enough for each day.
PARTS = [0, *(pytest.param(part, marks=pytest.mark.long) for part in range(1, 4))]


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("how", ["before", "after"])
def test_the_power_goes(how: str, part: int, tmp_path: Path) -> None:
    kind = "wheezy" if how == "before" else "device-init"
    total = calls_of(tmp_path / "count", kind)
    expected = contents(Pi(tmp_path / "count", _card(tmp_path / "count")))
    for at in spread(total, part, 4):
        pi = make_pi(tmp_path / f"{at}", kind)
        sabotage(pi)
        assert run_at(pi, how, at) == -9
        shutil.rmtree(pi.path("run/rpi-image-install"), ignore_errors=True)  # a tmpfs
        goes_on(pi, expected, f"{how} call {at} of {total}")


@pytest.mark.parametrize("part", PARTS)
def test_a_command_fails(part: int, tmp_path: Path) -> None:
    total = calls_of(tmp_path / "count", "jessie")
    expected = contents(Pi(tmp_path / "count", _card(tmp_path / "count")))
    for at in spread(total, part, 4):
        pi = make_pi(tmp_path / f"{at}", "jessie")
        sabotage(pi)
        assert run_at(pi, "fail", at) == 0, "the boot goes on"
        failed = (pi.card / "status.json").exists() and pi.status()["install"] != "ok"
        assert failed or pi.read(f"{STATE}/installed") == f"{HASH}\n"
        if failed:
            assert "hunter22" in (pi.boot / "occidentalis.txt").read_text() or (
                pi.path(f"{STATE}/installed").exists()
            ), "secrets go last"
        goes_on(pi, expected, f"call {at} of {total}")


def _card(folder: Path) -> Path:
    return folder / "root" / "boot" / "rpi-image"


def test_the_reason_is_readable(tmp_path: Path) -> None:
    pi = make_pi(tmp_path, "wheezy")
    pi.path("etc/shadow").unlink()
    done = pi.run()
    assert done.returncode == 0
    status = (pi.card / "status").read_text()
    assert status.startswith("pi-03: the installation FAILED (")
    assert "login: " in status
    assert "shadow" in status
    assert "tried again at the next boot" in status
    assert str(pi.status()["install"]).startswith("failed: login: ")
    assert pi.status()["installed"] is None
    assert "login: failed" in (pi.card / "install.log").read_text()
    assert pi.read("etc/hostname") == "pi-03\n", "the other steps were made"
    assert "room=b12" in pi.read("etc/default/docker")
    assert not pi.path(f"{STATE}/installed").exists()


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    "text", [None, "", "NODE_HOSTNAME='pi-03\n", "if true; then\n", "exit 3\n"]
)
def test_node_env_missing_or_broken(text: str | None, shell: str, tmp_path: Path) -> None:
    pi = make_pi(tmp_path, "wheezy")
    env = pi.card / "node.env"
    if text is None:
        env.unlink()
    else:
        env.write_text(text)
    before = pi.read("etc/hostname")
    done = pi.run(shell=shell)
    assert done.returncode == 0
    assert pi.status()["install"] == "failed: rpi-image/node.env is missing or broken"
    assert pi.read("etc/hostname") == before
    assert not pi.path(f"{STATE}/installed").exists()


# Writes a private key and is killed over the next one, as ssh-keygen -A makes one after the other.
KEYGEN = """
etc={folder}/root/etc/ssh
kind=none
{cut}
for kind in rsa ed25519; do
    [ ! -e "$etc/ssh_host_${{kind}}_key" ] || continue
    echo new >"$etc/ssh_host_${{kind}}_key"
    {cut}
    echo new >"$etc/ssh_host_${{kind}}_key.pub"
done
"""
HOST_KEYS = [f"ssh_host_{kind}_key{end}" for kind in ("ed25519", "rsa") for end in ("", ".pub")]


@pytest.mark.parametrize("cut", ["kill -9 0", "exit 1"])
def test_host_keys_are_made_though_the_power_goes(cut: str, tmp_path: Path) -> None:
    """Or the time limit strikes: a Pi without host keys cannot be reached."""
    pi = make_pi(tmp_path, "jessie")
    for name in HOST_KEYS:
        pi.write(f"etc/ssh/{name}", "old")
    for at in ("none", "rsa", "ed25519"):
        pi.fake("ssh-keygen", KEYGEN.format(folder=pi.folder, cut=f"[ $kind != {at} ] || {cut}"))
        pi.run()
        assert not pi.path(f"{STATE}/installed").exists()
    if cut == "exit 1":
        reason = "failed: identity: no new SSH host keys could be made"
        assert pi.status()["install"] == reason
    pi.fake("ssh-keygen", KEYGEN.format(folder=pi.folder, cut=""))
    assert pi.run().returncode == 0
    assert pi.status()["install"] == "ok"
    made = sorted(pi.path("etc/ssh").iterdir())
    assert [(path.name, path.read_text()) for path in made] == [(n, "new\n") for n in HOST_KEYS]
    assert not pi.path(f"{STATE}/keys_due").exists()
    assert pi.path(f"{STATE}/installed").exists()


@pytest.mark.parametrize("at", range(1, 5))
def test_the_power_goes_while_host_keys_are_removed(at: int, tmp_path: Path) -> None:
    pi = make_pi(tmp_path, "jessie")
    for name in HOST_KEYS:
        pi.write(f"etc/ssh/{name}", "old")
    pi.fake("ssh-keygen", KEYGEN.format(folder=pi.folder, cut=""))
    seen = f"case $* in *ssh_host_*) echo x >>{pi.folder}/seen ;; esac"
    strikes = f"[ ! -e {pi.folder}/seen ] || [ $(wc -l <{pi.folder}/seen) != {at} ] || kill -9 0"
    pi.fake("rm", f'{seen}\n{strikes}\nexec /bin/rm "$@"')
    assert pi.run().returncode == -9
    (pi.folder / "fakes" / "rm").unlink()
    assert pi.run().returncode == 0
    texts = {path.name: path.read_text() for path in pi.path("etc/ssh").iterdir()}
    assert texts == dict.fromkeys(HOST_KEYS, "new\n")


def test_a_root_that_stays_read_only(tmp_path: Path) -> None:
    pi = make_pi(tmp_path, "wheezy")
    pi.fake("mount", '[ "$3" != remount,rw ] || { echo "mount: bad superblock" >&2; exit 32; }')
    assert pi.run().returncode == 0
    reason = "the root file system cannot be made writable"
    assert pi.status()["install"] == f"failed: {reason}"
    assert pi.read("etc/hostname") == "black-pearl\n"
    assert reason in (pi.card / "install.log").read_text()


def test_a_host_command_that_hangs_is_not_waited_for(tmp_path: Path) -> None:
    """`limit` is taken out of the script and tried on its own."""
    pi = make_pi(tmp_path, "wheezy")
    text = (pi.card / "install").read_text()
    limit = text[text.index("limit() {") : text.index("# on_machine COMMAND")]
    (pi.card / "try").write_text(
        f"{limit}\nlimit 1 sleep 100; echo $?\nlimit 5 false; echo $?\nlimit 5 true; echo $?\n"
        'word=$(limit 5 echo out); echo "$word"\n'
    )
    for shell in SHELLS:
        done = pi.run("try", shell=shell)
        codes = done.stdout.split()
        assert codes == ["137", "1", "0", "out"], done


def test_status_is_json_whatever_the_reason_says(tmp_path: Path) -> None:
    pi = make_pi(tmp_path, "wheezy")
    pi.configure(TIMEZONE='A\\B"C\tD\u00e9/{}')
    assert pi.run().returncode == 0
    status = json.loads((pi.card / "status.json").read_bytes())
    assert 'A\\B"C D/{} is not on this image' in status["error"]


def test_a_scrubbed_card_in_another_root(tmp_path: Path) -> None:
    """The root was written anew and the boot partition was not: its secrets are gone."""
    pi = make_pi(tmp_path, "wheezy")
    assert pi.run().returncode == 0
    shutil.rmtree(pi.path(STATE))
    pi.path("etc/wpa_supplicant/wpa_supplicant.conf").unlink()
    assert pi.run().returncode == 0
    assert "write the card again" in str(pi.status()["install"])
    assert not pi.path(f"{STATE}/installed").exists()
    assert not pi.path("etc/wpa_supplicant/wpa_supplicant.conf").exists()


def test_power_lost_between_the_marker_and_the_scrubbing(tmp_path: Path) -> None:
    pi = make_pi(tmp_path, "wheezy")
    pi.path(STATE).mkdir(parents=True)
    pi.write(f"{STATE}/installed", f"{HASH}\n")
    pi.write("etc/wpa_supplicant/wpa_supplicant.conf", "network={}\n")
    assert pi.run().returncode == 0
    assert "hunter22" not in (pi.boot / "occidentalis.txt").read_text()
    assert pi.read("etc/hostname") == "black-pearl\n", "nothing else is made again"


def test_a_unit_of_docker_that_cannot_be_read_does_not_count_as_none(tmp_path: Path) -> None:
    """Without one the options wait for a Docker that is installed later."""
    pi = make_pi(tmp_path, "jessie")
    pi.fake(
        "cat",
        'case $* in */docker.service) echo "I/O error" >&2; exit 1 ;; esac; exec /bin/cat "$@"',
    )
    assert pi.run().returncode == 0
    assert pi.status()["install"] == "failed: docker options: I/O error"
    assert not pi.path(f"{STATE}/no_docker").exists()


@pytest.mark.parametrize(
    ("command", "words", "how"),
    [
        ("cat", "card/network/interfaces", "exit 1"),
        ("cat", "rpi-image/network/interfaces", "exit 1"),
        ("cat", "authorized_keys", "exit 1"),
        ("cp", "before/", "exit 1"),
        ("cp", "skel", "exit 1"),
        ("cp", "skel", "kill -9 0"),
        ("mv", "dbus/machine-id", "kill -9 0"),
        ("mv", "/etc/network/interfaces", "kill -9 0"),
        ("mv", "card.new", "kill -9 0"),
        ("mv", "owned.new", "kill -9 0"),
        ("rm", "state/new", "kill -9 0"),
    ],
)
def test_a_step_that_is_cut_short_is_made_whole(
    command: str, words: str, how: str, tmp_path: Path
) -> None:
    """Nothing counts as done, saved or made before it is: the next run would leave it."""
    whole = make_pi(tmp_path / "whole", "wheezy")
    assert whole.run().returncode == 0
    pi = make_pi(tmp_path / "cut", "wheezy")
    pi.fake(command, f'case $* in *{words}*) {how} ;; esac\nexec /bin/{command} "$@"')
    pi.run()
    (pi.folder / "fakes" / command).unlink()
    goes_on(pi, contents(whole), f"{command} {words}: {how}")
