"""A card that served one node becomes another; nothing of the first is left, on any generation."""

from __future__ import annotations

import json
import re
import shlex
from typing import TYPE_CHECKING, Any

import pytest

from tests.boot import nodes
from tests.boot.test_generations import ALONE, EXPECT_WIFI, NAMED, STATIC, UP_SECONDS, up

if TYPE_CHECKING:
    from pathlib import Path

    from tests.boot.conftest import StartPi
    from tests.boot.pi import Pi

pytestmark = [pytest.mark.boot, pytest.mark.root]

OTHER_HASH = nodes.PASSWORD_HASH.replace("$6$w8OaYlvW$", "$6$J9hBnM2q$")
FIRST: dict[str, Any] = {**ALONE, "docker": {"tls": True}}
# Another name, no wifi, another user, TLS off.
SECOND: dict[str, Any] = {
    "network": {**STATIC, "address": "10.0.2.60/24"},
    "cluster": {"enabled": False},
    "wifi": {},
    "user": {"name": "pupil", "password_hash": OTHER_HASH},
}
STATUS = "cat /var/lib/rpi-image/status.json"
# The log tells what was done; the image's own first boot and cloud-init keep what they were given
# by the first card (docs/first-boot.md); a home is the user's, whoever that was.
KEPT = r"^(/var/log/|/boot/rpi-image/node\.log$|/var/lib/cloud/|/run/|/home/teacher/)"


@pytest.mark.full
@pytest.mark.parametrize("generation", ["occidentalis-jessie", *EXPECT_WIFI])
def test_a_card_becomes_another_node(generation: str, start: StartPi, tmp_path: Path) -> None:
    named = NAMED.get(generation, {})
    first = tmp_path / "first"
    image = nodes.build(nodes.Node(generation, settings=FIRST | named), first)
    pi = start(image)
    up(pi)
    assert "--tlsverify" in words_of_dockerd(pi)
    keys = pi.tell_until("cat /etc/ssh/ssh_host_ed25519_key.pub", "ssh-ed25519", 240)
    pi.halt()
    again = nodes.build(
        nodes.Node(generation, hostname="pi-04", settings=SECOND | named),
        tmp_path / "second",
        base=pi.raw(),
    )
    pi = start(again)
    pi.tell_until("cat /var/lib/rpi-image/installed", manifest(again)["config_hash"], UP_SECONDS)
    # The status of the first node is there until the service of the second writes its own.
    pi.tell_until(STATUS, r'(?s)"hostname": "pi-04".*"docker": "[0-9]', UP_SECONDS)
    assert pi.tell("hostname").strip() == "pi-04"
    assert re.findall(r"inet ([0-9./]+)", pi.tell("ip -4 addr show eth0")) == ["10.0.2.60/24"]
    assert pi.tell("cat /etc/ssh/ssh_host_ed25519_key.pub") != keys, "another node, the same keys"
    assert "--tlsverify" not in words_of_dockerd(pi)
    assert pi.tell("getent shadow pupil").split(":")[1] == OTHER_HASH
    expect_nothing_left(pi, first, manifest(image)["config_hash"])
    pi.halt()
    expect_no_secret_on_the_boot_partition(pi, first)
    pi.expect_sound()


def words_of_dockerd(pi: Pi) -> list[str]:
    return pi.tell("tr '\\0' '\\n' </proc/$(pidof dockerd)/cmdline").split()


def manifest(image: Path) -> dict[str, str]:
    found: dict[str, str] = json.loads(image.with_suffix(".json").read_text())
    return found


def expect_nothing_left(pi: Pi, first: Path, config_hash: str) -> None:
    """Look for what only the first configuration had, wherever the running system keeps files."""
    (key,) = nodes.key(first).read_text().split()[1:2]
    only_first = (
        "pi-03", "teacher:", "teacher ALL", nodes.PASSWORD_HASH,
        nodes.psk_of(nodes.SSID, nodes.PASSPHRASE),
        nodes.psk_of(nodes.SECOND_SSID, nodes.SECOND_PASSPHRASE), nodes.PASSPHRASE,
        nodes.SECOND_SSID, "10.0.2.50", key, config_hash,
    )  # fmt: skip
    words = " ".join(f"-e {shlex.quote(word)}" for word in only_first)
    listed = pi.tell(
        f"grep -rlsF {words} /boot /etc /home /root /var/lib/rpi-image; getent passwd teacher"
        " && passwd -S teacher; find /etc/docker -name '*.pem'"
    )
    assert [line for line in listed.splitlines() if not re.match(KEPT, line)] == []


def expect_no_secret_on_the_boot_partition(pi: Pi, first: Path) -> None:
    """Read its raw bytes, free clusters too."""
    boot, _ = pi.partitions()
    content = boot.read_bytes()
    secrets = [nodes.PASSPHRASE, nodes.SECOND_PASSPHRASE, nodes.PASSWORD_HASH]
    secrets += [nodes.psk_of(nodes.SSID, nodes.PASSPHRASE)]
    secrets += [
        line
        for pem in first.rglob("*key*.pem")
        for line in pem.read_text().splitlines()
        if not line.startswith("-") and len(line) > 40
    ]
    assert len(secrets) > 4, "no key of TLS was made"
    assert [secret for secret in secrets if secret.encode() in content] == []
