"""What an image cannot do is refused by name, not found out by whoever cannot log in."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from imagebuilder.errors import SettingsError
from imagebuilder.model import Secret, User
from imagebuilder.plan.vendor.ability import CRYPT, crypt_method
from tests.lib.plan_samples import boot_of, plain_node, plan
from tests.lib.tools import need, run

if TYPE_CHECKING:
    from imagebuilder.plan.boot_files import MemoryBootFiles

ISSUE = "Raspberry Pi reference {}\nGenerated using pi-gen, stage2\n"
OLD = {"1", "5", "6"}


def pi_os(date: str) -> MemoryBootFiles:
    return boot_of("firstrun-bookworm", **{"issue.txt": ISSUE.format(date).encode()})


# Boot partitions, and the hashes that their libc can verify.
IMAGES = {
    "wheezy": (boot_of("occidentalis"), OLD),
    "jessie": (boot_of("device-init-1.0"), OLD),
    "jessie, 1.6": (boot_of("device-init-1.6"), OLD),
    "buster, HypriotOS": (boot_of("cloud-init-hypriot"), OLD),
    "buster": (pi_os("2021-05-07"), OLD),
    "bullseye": (pi_os("2021-10-30"), CRYPT.keys()),
    "bullseye, 2022": (pi_os("2022-04-04"), CRYPT.keys()),
    "bookworm": (pi_os("2024-11-19"), CRYPT.keys()),
    "trixie": (boot_of("cloud-init-trixie"), CRYPT.keys()),
}


@pytest.mark.parametrize("prefix", CRYPT)
@pytest.mark.parametrize("image", IMAGES)
def test_a_hash_that_the_image_cannot_verify_is_refused(image: str, prefix: str) -> None:
    boot, able = IMAGES[image]
    node = replace(plain_node(), user=User("pupil", Secret(f"${prefix}$salt$secretdigest")))
    if prefix in able:
        assert plan(node, boot)
        return
    with pytest.raises(SettingsError, match=CRYPT[prefix]) as caught:
        plan(node, boot)
    assert "pupil" in caught.value.message
    assert "secretdigest" not in caught.value.message


def test_an_unknown_hash_is_left_to_the_image() -> None:
    assert crypt_method("!") == ""
    assert crypt_method("$9$x$y") == ""


@pytest.mark.parametrize(("kind", "method"), [("-1", "md5crypt"), ("-5", "sha256crypt")])
def test_the_names_are_those_of_real_hashes(kind: str, method: str) -> None:
    need("openssl")
    assert crypt_method(run("openssl", "passwd", kind, "secret").strip()) == method
