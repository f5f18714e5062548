"""Secrets are gone from the medium itself: the raw bytes of the boot partition."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from imagebuilder.build.boot_folder import UNFINISHED
from tests.image.scripts.test_install_planned import ROOTS
from tests.lib.pi_tree import SHELLS, Pi, board, make_pi
from tests.lib.plan_samples import after, boot_of, full_node, plain_node, plan
from tests.lib.tools import mounted, run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from imagebuilder.plan.boot_files import MemoryBootFiles

pytestmark = pytest.mark.long

# cloud-init's own files keep the password hash, and the keys of netplan: docs/first-boot.md.
SECRETS = ("PRIVATE-KEY", "TLS-KEY", "パスワード123", "cg8StVXbQJ0gPvMd9o7yrg==")
HASH = "$6$salt$abc.DEF/ghi"


def has_hash(sample: str) -> bool:
    return sample.startswith("cloud-init")


@contextmanager
def medium(pi: Pi) -> Iterator[Path]:
    """Mount a file system as the Pi's boot partition; yield the image.

    ext2, which the kernel of a build machine has: as on FAT, what is removed or renamed over keeps
    its content in free blocks, and what is written without a truncation stays where it is.
    """
    shutil.rmtree(pi.boot)
    with mounted(pi.folder, "mkfs.ext2", mib=16) as place:
        pi.boot.mkdir()
        run("mount", "--bind", place, pi.boot)
        # what is overwritten and then removed without a flush never reaches the medium
        pi.fake("sync", f"exec /bin/sync -f {pi.boot}")
        try:
            yield pi.folder / "store"
        finally:
            run("umount", pi.boot)
    run("e2fsck", "-fn", pi.folder / "store")


def lay(pi: Pi, files: MemoryBootFiles) -> None:
    """Write the files of a plan onto the boot partition, as they are on a new card."""
    for name, data in files.files.items():
        path = pi.boot / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def found(image: Path, sample: str) -> list[str]:
    """List the secrets whose bytes are anywhere in the image."""
    raw = image.read_bytes()
    secrets = SECRETS if has_hash(sample) else (*SECRETS, HASH)
    return [secret for secret in secrets if secret.encode() in raw]


def planned(sample: str) -> MemoryBootFiles:
    node = full_node()
    assert node.docker_tls
    keys = tuple(replace(key, private=type(key.private)("PRIVATE-KEY\n")) for key in node.host_keys)
    tls = replace(node.docker_tls, key=type(node.docker_tls.key)("TLS-KEY\n"))
    boot = boot_of(sample)
    return after(boot, plan(replace(node, host_keys=keys, docker_tls=tls), boot))


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("sample", ROOTS)
def test_no_secret_is_left_on_the_medium(sample: str, shell: str, tmp_path: Path) -> None:
    pi = make_pi(tmp_path, ROOTS[sample])
    pi.write("usr/share/zoneinfo/Europe/Paris", "TZif2")
    with medium(pi) as image:
        lay(pi, planned(sample))
        run("sync", "-f", pi.boot)
        assert found(image, sample), "they were there"
        done = pi.run(shell=shell)
        assert '"install": "ok"' in (pi.card / "status.json").read_text(), done.stderr
        assert "RPI_IMAGE_SCRUBBED='1'" in (pi.card / "node.env").read_text()
    assert found(image, sample) == []


@pytest.mark.parametrize("shell", SHELLS)
def test_what_an_interrupted_apply_has_left_is_overwritten_and_removed(
    shell: str, tmp_path: Path
) -> None:
    """A card that is removed too early keeps unfinished files, in any folder."""
    pi = make_pi(tmp_path, "wheezy")
    pi.write("usr/share/zoneinfo/Europe/Paris", "TZif2")
    names = ["user-data", "my notes", "rpi-image/node.env", "rpi-image/wifi/wpa_supplicant.conf"]
    left = [f"{name}{UNFINISHED}" for name in names]
    with medium(pi) as image:
        lay(pi, planned("occidentalis"))
        for name in left:
            (pi.boot / name).write_bytes(b"psk=XyzzyLeftBehind\n" * 99)
        (pi.boot / f"empty{UNFINISHED}").touch()
        run("sync", "-f", pi.boot)
        assert b"XyzzyLeftBehind" in image.read_bytes()
        done = pi.run(shell=shell)
        assert '"install": "ok"' in (pi.card / "status.json").read_text(), done.stderr
        assert list(pi.boot.rglob(f"*{UNFINISHED}")) == []
    assert b"XyzzyLeftBehind" not in image.read_bytes()


def test_a_class_leaves_no_secret_of_another_node(tmp_path: Path) -> None:
    """The board's own files replace those XyzzySecretOfTheClass; those of others are removed."""
    pi = make_pi(tmp_path, "wheezy")
    pi.write("usr/share/zoneinfo/Europe/Paris", "TZif2")
    board(pi, "abcdef01")
    mine = planned("occidentalis").files
    other = {name: data for name, data in mine.items() if name.startswith("rpi-image/")}
    with medium(pi) as image:
        lay(pi, boot_of("occidentalis"))
        stock = boot_of("occidentalis")
        lay(pi, after(stock, plan(replace(plain_node(), hostname="unclaimed"), stock)))
        (pi.card / "node.env").write_bytes(
            (pi.card / "node.env").read_bytes() + b"CONSUL_ENCRYPT='XyzzySecretOfTheClass'\n"
        )
        for name, files in (("serial-abcdef01", mine), ("serial-99999999", other)):
            for path, data in files.items():
                place = pi.card / "identities" / name / path
                place.parent.mkdir(parents=True, exist_ok=True)
                own = b"PRIVATE-KEY" if files is mine else b"OTHER-KEY"
                place.write_bytes(data.replace(b"PRIVATE-KEY", own))
        done = pi.run()
        assert '"hostname": "pi-03"' in (pi.card / "status.json").read_text(), done.stderr
        assert not list(pi.card.glob("identities*"))
    raw = image.read_bytes()
    assert found(image, "occidentalis") == []
    assert b"OTHER-KEY" not in raw
    assert b"XyzzySecretOfTheClass" not in raw


@pytest.mark.parametrize("at", range(1, 4))
def test_a_power_cut_leaves_a_card_that_is_read(at: int, tmp_path: Path) -> None:
    """After any of the writes in place, node.env is still complete and the next run goes on."""
    pi = make_pi(tmp_path, "wheezy")
    pi.write("usr/share/zoneinfo/Europe/Paris", "TZif2")
    with medium(pi) as image:
        lay(pi, planned("occidentalis"))
        struck = f"[ $(wc -l <{pi.folder}/n) != {at} ] || kill -9 0"
        pi.fake("dd", f'echo x >>{pi.folder}/n; /bin/dd "$@"; {struck}')
        assert pi.run().returncode == -9
        (pi.folder / "fakes" / "dd").unlink()
        assert pi.run().returncode == 0
        assert '"install": "ok"' in (pi.card / "status.json").read_text()
    assert found(image, "occidentalis") == []


@pytest.mark.parametrize("shell", SHELLS)
def test_every_key_of_a_wifi_file_is_blanked(shell: str, tmp_path: Path) -> None:
    """Those of an image's own networks, too, which are kept in our file."""
    pi = make_pi(tmp_path, "wheezy")
    keys = ["psk=", "  psk=", "\tpassword=", "sae_password=", "private_key_passwd=", "wep_key0="]
    lines = [f'{key}"hunter2 and more"' for key in [*keys, "wep-key1="]]
    profile = pi.card / "wifi" / "wpa_supplicant.conf"
    profile.write_text("network={\n" + "\n".join([*lines, '\tssid="psk=of the name"']) + "\n}\n")
    before = len(profile.read_bytes())
    assert pi.run(shell=shell).returncode == 0
    text = profile.read_text()
    assert "hunter2" not in text
    assert 'ssid="psk=of the name"' in text
    assert len(text.encode()) == before
    installed = pi.read("etc/wpa_supplicant/wpa_supplicant.conf")
    assert installed.count("hunter2") == len(lines)
