"""What an image cannot do is refused by name, not found out by whoever cannot log in."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from imagebuilder.errors import SettingsError
from imagebuilder.model import Secret, User, Wifi, WifiNetwork
from imagebuilder.plan.context import secret_variables
from imagebuilder.plan.vendor.ability import CRYPT, crypt_method
from tests.lib.plan_samples import boot_of, plain_node, plan
from tests.lib.plans import files_of, text_of
from tests.lib.tools import need, run

if TYPE_CHECKING:
    from imagebuilder.model import NodeSettings, WifiSecurity
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


OLD_WIFI = {"wheezy", "jessie", "jessie, 1.6", "buster, HypriotOS", "buster"}


def lab(security: WifiSecurity, *, psk: bool = False) -> NodeSettings:
    passphrase, key = (None, Secret("a" * 64)) if psk else (Secret("correct horse"), None)
    network = WifiNetwork("lab", passphrase, key, security=security)
    return replace(plain_node(), wifi=Wifi("FR", (network,)))


@pytest.mark.parametrize("image", IMAGES)
def test_a_network_that_the_image_cannot_join_is_refused(image: str) -> None:
    boot, _ = IMAGES[image]
    if image not in OLD_WIFI:
        assert plan(lab("wpa3"), boot)
        return
    with pytest.raises(SettingsError, match=r"`lab` is WPA3 only"):
        plan(lab("wpa3"), boot)


@pytest.mark.parametrize("image", IMAGES)
def test_a_network_of_both_kinds_is_joined_as_the_image_can(image: str) -> None:
    boot, _ = IMAGES[image]
    text = text_of(plan(lab("wpa2+wpa3"), boot), "rpi-image/wifi/wpa_supplicant.conf")
    if image in OLD_WIFI:
        assert files_of(plan(lab("wpa2+wpa3"), boot)) == files_of(plan(lab("wpa2"), boot))
        assert "SAE" not in text
    else:
        assert "\tkey_mgmt=WPA-PSK SAE\n" in text
        assert "\tieee80211w=1\n" in text


@pytest.mark.parametrize("security", ["wpa3", "wpa2+wpa3"])
def test_a_key_of_digits_cannot_do_wpa3(security: WifiSecurity) -> None:
    with pytest.raises(SettingsError, match="WPA3 needs the passphrase"):
        plan(lab(security, psk=True), IMAGES["trixie"][0])


def test_a_network_is_of_wpa2_unless_the_settings_say_otherwise() -> None:
    for boot, _ in IMAGES.values():
        assert files_of(plan(lab("wpa2"), boot)) == files_of(plan(plain(), boot))


def plain() -> NodeSettings:
    return replace(plain_node(), wifi=Wifi("FR", (WifiNetwork("lab", Secret("correct horse")),)))


def test_a_guess_of_a_wpa3_passphrase_cannot_be_checked_by_the_hash_alone() -> None:
    """The configuration hash is made of the slow hash of the passphrase, as for WPA2."""
    node = lab("wpa3")
    assert "correct horse" not in repr(secret_variables(node, plaintext=False)["networks"])
    assert "correct horse" in repr(secret_variables(node, plaintext=True)["networks"])
