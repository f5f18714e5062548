"""What a node owns: a configuration leaves nothing of an earlier one, whichever came before."""

from __future__ import annotations

import functools
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.lib.owned_list import owned_list, owned_table
from tests.lib.pi_tree import (
    GENERATIONS,
    KINDS,
    SETTINGS,
    SHELLS,
    STATE,
    STATIC_NM,
    WITHOUT_DOCKER,
    Pi,
    make_pi,
)

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.long

UNDONE = {owned.name: owned.undone for owned in owned_list()}
# What is made anew on each Pi, or is a copy for people.
ANEW = ("etc/machine-id", "etc/docker/daemon.json.before-rpi-image")
DAEMON = '{"labels": ["a=b"], "storage-driver": "overlay2", "bip": "10.1.0.1/16"}\n'


def without(*names: str) -> Callable[[Pi], None]:
    """Return what leaves settings out of node.env."""
    return lambda pi: configure(pi, **dict.fromkeys(names, ""))


def configure(pi: Pi, **values: str) -> None:
    generation = GENERATIONS.get(pi.folder.name.partition(" ")[0], pi.folder.name.partition(" ")[0])
    pi.configure(NODE_GENERATION=generation, **values)


def remove(*names: str) -> Callable[[Pi], None]:
    """Return what takes files off the card."""

    def change(pi: Pi) -> None:
        configure(pi)
        for name in names:
            for path in pi.card.glob(name):
                path.unlink()

    return change


def no_tls(pi: Pi) -> None:
    remove("tls/*")(pi)
    configure(pi, DOCKER_TLS="0")


def no_sudo(pi: Pi) -> None:
    configure(pi, USER_PASSWORD_HASH="$6$x$y")


def kept_logins(pi: Pi) -> None:
    configure(pi, KEEP_VENDOR_LOGIN="1")


def no_login(pi: Pi) -> None:
    configure(pi, USER_NAME="", USER_GROUPS="", USER_PASSWORD_HASH="")


# How each setting of the list is left out; those that every configuration has are changed.
LEFT_OUT: dict[str, Callable[[Pi], None]] = {
    "node service": without("CONSUL_ENCRYPT"),
    "hostname": lambda pi: configure(pi, NODE_HOSTNAME="pi-04"),
    "name of the shack": without("SHACK_HOSTNAME"),
    "host keys": remove("ssh/*"),
    "docker TLS": no_tls,
    "docker options": without("DOCKER_OPTS"),
    "login": no_login,
    "sudo": no_sudo,
    "vendor logins": kept_logins,
    "SSH keys": remove("authorized_keys"),
    "SSH service": remove("authorized_keys"),
    "wifi": remove("wifi/*"),
    "wifi country": without("WIFI_COUNTRY"),
    "address": without("NETWORK_ADDRESS"),
    "time zone": without("TIMEZONE"),
    "keyboard": without("KEYBOARD"),
    "locale": without("LOCALE"),
    "apt proxy": without("APT_PROXY"),
    "time server": without("NTP_SERVER"),
}


def full(folder: Path, kind: str) -> Pi:
    """Return a Pi whose card uses everything, and whose image has more for it to meet."""
    pi = make_pi(folder / kind, kind)
    for name in ("ca", "cert", "key"):
        write(pi.card / "tls" / f"{name}.pem", f"-----BEGIN {name}-----\n")
    write(pi.card / "ssh" / "ssh_host_ed25519_key", "given\n")
    write(pi.card / "ssh" / "ssh_host_ed25519_key.pub", "given\n")
    write(pi.card / "network" / "wired.nmconnection", STATIC_NM)
    shadow = pi.read("etc/shadow").replace("root:*:", "root:$1$hypriot:")
    pi.write("etc/shadow", shadow.replace("pi:*:", "pi:$1$raspberry:"), 0o640)
    pi.write("etc/ntp.conf", "server 0.debian.pool.ntp.org\n")
    pi.write("etc/default/crda", "REGDOMAIN=\n")
    pi.write("etc/resolv.conf", "nameserver 192.168.0.1\n")
    pi.write("etc/default/locale", "LANG=en_GB.UTF-8\n")
    pi.write("etc/wpa_supplicant/wpa_supplicant.conf", "country=GB\n", 0o600)
    pi.path("etc/sudoers.d").mkdir()
    if kind not in WITHOUT_DOCKER:
        pi.write("etc/docker/daemon.json", DAEMON)
    configure(pi, DOCKER_TLS="1")
    return pi


def write(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)


def install(pi: Pi, shell: str = "dash") -> None:
    done = pi.run(shell=shell)
    assert pi.status()["install"] == "ok", done.stderr
    assert pi.leftovers() == []


def reconfigured(pi: Pi, change: Callable[[Pi], None]) -> None:
    """Write the card anew, as flashing or `rpi-image build` does, with one change."""
    shutil.rmtree(pi.boot)
    shutil.copytree(pi.folder / "boot", pi.boot)
    change(pi)
    text = (pi.card / "node.env").read_text()
    text = re.sub(r"(?m)^RPI_IMAGE_HASH=.*", "RPI_IMAGE_HASH=other", text)
    (pi.card / "node.env").write_text(text)


def left(pi: Pi) -> dict[str, tuple[int, bytes]]:
    """Return mode and content of everything that a node owns, but the number of its user.

    A home that an earlier user has left keeps its number, so another user gets another one.
    """
    return {
        name: (mode, data.replace(b"1002", b"1001"))
        for name, (_, mode, data) in pi.snapshot().items()
        if name.startswith(("etc/", "root/", "var/lib/NetworkManager")) and name not in ANEW
    }


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Pi]:
    """Return an installed Pi of a kind, with a login by `hash`; not to be changed."""

    @functools.cache
    def make(kind: str, password_hash: str) -> Pi:
        pi = full(tmp_path_factory.mktemp(kind) / "changed", kind)
        configure(pi, USER_PASSWORD_HASH=password_hash)
        install(pi)
        return pi

    return make


@pytest.mark.parametrize("setting", LEFT_OUT)
@pytest.mark.parametrize("kind", ["wheezy", pytest.param("bookworm", marks=pytest.mark.long)])
def test_a_setting_left_out_is_taken_back(
    setting: str, kind: str, tmp_path: Path, installed: Callable[[str, str], Pi]
) -> None:
    """The Pi is as one that never had it."""
    pi, fresh = full(tmp_path / "changed", kind), full(tmp_path / "fresh", kind)
    # Who has a password is asked for it by sudo, which is then not ours.
    password_hash = "" if setting == "sudo" else SETTINGS["USER_PASSWORD_HASH"]
    for each in (pi, fresh):
        configure(each, USER_PASSWORD_HASH=password_hash)
        shutil.copytree(each.boot, each.folder / "boot")
    stock = left(pi)
    pi.become(installed(kind, password_hash))
    reconfigured(fresh, lambda _: None)
    reconfigured(pi, LEFT_OUT[setting])
    install(pi)
    reconfigured(fresh, LEFT_OUT[setting])
    install(fresh)
    assert left(pi) == left(fresh)
    owned = pi.read(f"{STATE}/owned")
    assert owned == fresh.read(f"{STATE}/owned")
    if UNDONE[setting] != "always" and setting != "SSH service":
        assert f"{setting}\t" not in owned
    assert left(pi) != stock


def test_the_page_has_the_list() -> None:
    page = Path(__file__).parents[3] / "docs" / "first-boot.md"
    assert owned_table() in page.read_text(encoding="utf-8")
    assert set(LEFT_OUT) == {owned.name for owned in owned_list()}


# What the images' own first boots write after the installer, by setting, and how it looks then.
LATE = {
    "hostname": ("etc/hostname", "black-pearl\n"),
    "host keys": ("etc/ssh/ssh_host_ed25519_key", "made by the vendor\n"),
    "login": ("etc/passwd", "root:x:0:0:root:/root:/bin/bash\n"),
    "SSH keys": ("home/ada/.ssh/authorized_keys", None),
    "wifi": ("etc/wpa_supplicant/wpa_supplicant.conf", "network={\n}\n"),
    "time zone": ("etc/timezone", "Europe/Copenhagen\n"),
    "keyboard": ("etc/default/keyboard", 'XKBLAYOUT="us"\n'),
    "locale": ("etc/locale.gen", None),
}


VENDOR_FILES = (
    "etc/default/docker", "etc/default/keyboard", "etc/default/locale", "etc/default/crda",
    "etc/hostname", "etc/hosts", "etc/locale.gen", "etc/ntp.conf",
    "etc/timezone", "etc/localtime", "etc/wpa_supplicant/wpa_supplicant.conf",
)  # fmt: skip


@pytest.mark.parametrize("shell", SHELLS)
def test_what_the_vendor_writes_late_is_corrected_once_a_boot(shell: str, tmp_path: Path) -> None:
    """As Hypriot's first boot of April 2015 does, which also removes locale.gen."""
    assert set(LATE) == {owned.name for owned in owned_list() if owned.late}
    pi = full(tmp_path, "wheezy")
    install(pi, shell)
    wanted = left(pi)
    for name, text in LATE.values():
        pi.path(name).unlink()
        if text is not None:
            pi.write(name, text)
    pi.path("etc/localtime").unlink()
    pi.path("etc/localtime").symlink_to("/usr/share/zoneinfo/Europe/Copenhagen")
    told = pi.run("install", "again", shell=shell)
    changed = {name for name, entry in left(pi).items() if wanted.get(name) != entry}
    assert changed <= {"etc/passwd", "etc/default/keyboard", "etc/locale.gen"}, told.stderr
    assert "ada:x:" in pi.read("etc/passwd")
    assert 'XKBLAYOUT="de"' in pi.read("etc/default/keyboard")
    assert pi.read("etc/locale.gen") == "de_DE.UTF-8 UTF-8\n"
    assert {f"/{name}" for name, _ in LATE.values()} <= set(told.stdout.split())
    assert {"keyboard", "locale"} <= set(pi.read(f"{STATE}/todo").split())
    pi.write("etc/timezone", "Europe/Copenhagen\n")
    assert pi.run("install", "again", shell=shell).stdout == ""
    assert pi.read("etc/timezone") == "Europe/Copenhagen\n", "no fight with another program"
    pi.path("run/rpi-image-corrected").unlink()  # the next boot: /run is a tmpfs
    assert pi.run("install", "again", shell=shell).stdout.split() == ["/etc/timezone"]


def test_a_look_at_what_has_not_changed_writes_nothing(tmp_path: Path) -> None:
    pi = full(tmp_path, "device-init")
    install(pi)
    before, calls = pi.snapshot(), len(pi.calls())
    assert pi.run("install", "again").stdout == ""
    assert pi.snapshot() == before
    assert "sync " not in pi.calls()[calls:]


@pytest.mark.parametrize("kind", KINDS)
def test_a_look_keeps_the_files_that_the_image_did_not_have(kind: str, tmp_path: Path) -> None:
    pi = full(tmp_path, kind)
    for name in VENDOR_FILES:
        pi.path(name).unlink(missing_ok=True)
    install(pi)
    before = left(pi)
    assert "etc/default/keyboard" in before
    assert pi.run("install", "again").stdout == ""
    assert left(pi) == before


def test_a_password_that_was_changed_since_is_left_alone(tmp_path: Path) -> None:
    """Whoever logs in during the first boot may do so."""
    pi = full(tmp_path, "jessie")
    install(pi)
    changed = re.sub(r"(?m)^(ada|root):[^:]*:", r"\1:$6$own$own:", pi.read("etc/shadow"))
    pi.write("etc/shadow", changed, 0o640)
    assert pi.run("install", "again").stdout == ""
    assert pi.read("etc/shadow") == changed


@pytest.mark.parametrize("kind", KINDS)
def test_another_configuration_leaves_nothing_of_the_first(kind: str, tmp_path: Path) -> None:
    """A second of everything: another name and user, neither wifi, TLS, address nor keys."""

    def other(pi: Pi) -> None:
        remove("ssh/*", "tls/*", "wifi/*", "authorized_keys")(pi)
        empty = "TIMEZONE KEYBOARD LOCALE APT_PROXY NTP_SERVER NETWORK_ADDRESS WIFI_COUNTRY"
        configure(pi, NODE_HOSTNAME="pi-09", USER_NAME="bob", **dict.fromkeys(empty.split(), ""))

    pi, fresh = full(tmp_path / "changed", kind), full(tmp_path / "fresh", kind)
    for each in (pi, fresh):
        shutil.copytree(each.boot, each.folder / "boot")
    install(pi)
    install(pi)
    for each in (pi, fresh):
        reconfigured(each, other)
        install(each)
    assert left(pi) == left(fresh)
    assert pi.read(f"{STATE}/owned") == fresh.read(f"{STATE}/owned")
    paths = [path for path in pi.path(STATE).rglob("*") if path.is_file()]
    texts = [path.read_bytes() for path in paths]
    assert not [text for text in texts if b"db8aa120" in text or b"BEGIN key" in text]
