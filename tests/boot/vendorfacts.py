"""What a vendor's own first boot has to have done by its end, beside what we did."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tests.boot import images, nodes

if TYPE_CHECKING:
    from tests.boot.pi import Pi

# Between the size of every image's root and that of the card, a power of two.
GROWN_KIB = 1_400_000
FIRST_BOOT_SECONDS = 300.0
# Give the disk another identifier, and write it wherever the old one stood.
RENAMING = ("cloud-init-1.12", "firstrun-bookworm")


def expect_vendor_done(pi: Pi, generation: str) -> None:
    """Check the root's size, the disk's identifier, the SSH host keys and the machine's id."""
    pi.tell_until(
        f"[ $(df -k --output=size / | tail -n 1) -gt {GROWN_KIB} ] && echo grown",
        "^grown",
        FIRST_BOOT_SECONDS,
    )
    pi.tell_until("cat /etc/ssh/ssh_host_ed25519_key.pub", "^ssh-ed25519 ", FIRST_BOOT_SECONDS)
    assert re.fullmatch(r"[0-9a-f]{32}\n", pi.tell("cat /etc/machine-id")) or _is_sysv(generation)
    if generation in RENAMING:
        expect_renamed(pi)


def expect_renamed(pi: Pi) -> None:
    """Check that kernel and fstab name the root by the new identifier."""
    (root,) = re.findall(r"\broot=PARTUUID=([0-9a-f]{8})-02\b", pi.tell("cat /proc/cmdline"))
    assert root != images.DISK_ID.removeprefix("0x")
    assert f"PARTUUID={root}-02 / " in pi.tell("cat /etc/fstab")


def _is_sysv(generation: str) -> bool:
    """Return whether nothing there makes a machine id."""
    return images.GENERATIONS[generation].kind == "sysvinit"


def expect_settings(pi: Pi) -> None:
    """Check that time zone and locale are those of SETTINGS, also for who asks the C library."""
    zone, locale = nodes.SETTINGS["timezone"], nodes.SETTINGS["locale"]
    pi.tell_until("cat /etc/timezone", f"^{zone}$", FIRST_BOOT_SECONDS)
    same = f"cmp /etc/localtime /usr/share/zoneinfo/{zone} && echo same"
    assert pi.tell(same) == "same\n"
    pi.tell_until("cat /etc/default/locale", f'(?m)^LANG="?{locale}"?$', FIRST_BOOT_SECONDS)
    assert f"{locale} UTF-8" in pi.tell("cat /etc/locale.gen").splitlines()


def expect_ready_user(pi: Pi, name: str) -> None:
    """Check that Raspberry Pi OS asks no one for its first user any more."""
    assert pi.tell("getent passwd 1000").split(":")[0] == name
    assert pi.tell("systemctl is-enabled userconfig").strip() == "disabled"
    assert pi.tell("ls /etc/ssh/sshd_config.d").split() == ["one-key.conf"]
